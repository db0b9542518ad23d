"""A refused record for `rental.sessions.quarantine`: as it came, byte for byte, with what is wrong in its headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from service.billing.events import Malformed, RawRecord

QUARANTINE_PREFIX = "farebox_"
"""Headers that start so were added by us; without them the record is the one that was refused."""
RECORD_BYTES_MAX = 1_000_000
"""A longer record can't be put on Kafka again: a broker takes 1,048,588 bytes at once unless it is told otherwise
(Kafka's `message.max.bytes`), and what was packed better than we pack may be many times that."""
TEXT_LETTERS_MAX = 1000
HEADER_BYTES = 16
"""Of a header, beside its name and value."""


class QuarantinedFact(NamedTuple):
    """A Kafka record of `rental.sessions.quarantine`, ready to be sent; None is what the refused one did not have."""

    key: bytes | None
    headers: list[tuple[str, bytes | None]]
    value: bytes | None


def record_bytes(key: bytes | None, headers: Sequence[tuple[str, bytes | None]], value: bytes | None) -> int:
    """About how long a record is."""
    held = sum(len(name) + len(text or b"") + HEADER_BYTES for name, text in headers)
    return len(key or b"") + held + len(value or b"")


def encode_quarantined(record: RawRecord, refused: Malformed) -> QuarantinedFact:
    """The record with its reason, path and place on Kafka. One that is too long for Kafka is told by those alone, and
    by `farebox_bytes`, how long it is."""
    added = {
        "reason": refused.reason[:TEXT_LETTERS_MAX],
        "path": refused.path[:TEXT_LETTERS_MAX],
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
    }
    length = record_bytes(record.key, record.headers, record.value)
    if length > RECORD_BYTES_MAX:
        added["bytes"] = str(length)
    told = [(QUARANTINE_PREFIX + name, text.encode()) for name, text in added.items()]
    if length > RECORD_BYTES_MAX:
        return QuarantinedFact(None, [*told], b"")
    headers = [header for header in record.headers if not header[0].startswith(QUARANTINE_PREFIX)]
    return QuarantinedFact(record.key, [*headers, *told], record.value)
