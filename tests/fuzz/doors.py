"""Every door there is, in the order in which they are fuzzed."""

from __future__ import annotations

import doors_answers
import doors_bills
import doors_files
import doors_http
import doors_notices
import doors_records
from fuzz_parts import Door

DOORS: tuple[Door, ...] = (
    *doors_records.DOORS,
    *doors_files.DOORS,
    *doors_notices.DOORS,
    *doors_answers.DOORS,
    *doors_bills.DOORS,
    *doors_http.DOORS,
)
