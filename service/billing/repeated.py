"""Names that stand twice in one JSON object: parsers differ in which of the two counts, and nobody meant both."""

from __future__ import annotations

import json
from typing import Any


def name_twice(text: bytes) -> str | None:
    """The first name that stands twice in one object, None where none does. Raises ValueError for what is no JSON in
    UTF-8, RecursionError for what lies too deep."""
    twice: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                twice.append(name)
            seen.add(name)

    json.loads(text.decode(), object_pairs_hook=look, parse_int=str, parse_float=str)
    return twice[0] if twice else None
