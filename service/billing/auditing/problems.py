"""What an audit finds: a place, what should stand there, and what does."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec


class Place(msgspec.Struct, frozen=True):
    """Where to look: as much of it as is known."""

    operator: str | None = None
    session_id: str | None = None
    ride_no: int | None = None
    revision: int | None = None
    writer: str | None = None
    seq: int | None = None


class Problem(msgspec.Struct, frozen=True):
    """A disagreement: `table` and `column` say which row disagrees, `expected` and `found` how."""

    place: Place
    table: str
    column: str
    expected: object
    found: object

    def line(self) -> str:
        """The problem in one line of text."""
        known = [(_WORDS.get(field, field), getattr(self.place, field)) for field in Place.__struct_fields__]
        where = ", ".join(f"{word} {value}" for word, value in known if value is not None)
        told = f"{self.table}.{self.column}: expected {_shown(self.expected)}, found {_shown(self.found)}"
        return f"{where}: {told}" if where else told


MISSING = "no row"
"""What is expected, or found, where a row is too many or missing."""


def differing(
    place: Place, table: str, expected: msgspec.Struct | None, found: msgspec.Struct | None
) -> Iterator[Problem]:
    """A problem for each column in which two rows of one shape differ, or one for a row that is missing or too many."""
    if expected == found:
        return
    if expected is None and found is not None:
        yield Problem(place, table, "*", MISSING, found)
    elif found is None and expected is not None:
        yield Problem(place, table, "*", expected, MISSING)
    elif expected is not None and found is not None:
        for column in expected.__struct_fields__:
            wanted, there = getattr(expected, column), getattr(found, column)
            if wanted != there:
                yield Problem(place, table, column, wanted, there)


_WORDS = {"session_id": "session", "ride_no": "ride"}
SHOWN_MAX = 300


def _shown(value: object) -> str:
    """A value as it is printed: bytes in hex, long texts cut."""
    if isinstance(value, bytes):
        return value.hex() or "nothing"
    if isinstance(value, msgspec.Struct):
        fields = (f"{name}={_shown(getattr(value, name))}" for name in value.__struct_fields__)
        return f"({', '.join(fields)})"[:SHOWN_MAX]
    return str(value)[:SHOWN_MAX]
