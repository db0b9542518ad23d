"""Whole documents, of which one field is made to exhaust: what stands in it is taken or refused, and read only once.

A door that reads a text once from each of its letters is not slow here: it never comes back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode

import doors
import msgspec
import pytest
from fuzz_parts import Door

LETTERS = 200_000
TIMES = 20_000
LETTERS_KEPT = 50_000
TIMES_KEPT = 600
"""So much a tariff has room for: what is longer is refused for its length, before anything of it is read."""


def texts(letters: int) -> dict[str, str]:
    """Texts of about as many letters."""
    return {
        "digits": "9" * letters,
        "spaces": "1" + " " * letters + "1",
        "what our own refusals are made of": "str matching regex '" * (letters // 20),
        "commas and dots": "1,1." * (letters // 4),
        "the beginnings of lengths and prices": "per 1 EUR pro / je " * (letters // 20),
    }


TEXTS = texts(LETTERS)
Place = tuple[str | int, ...]


def places(value: Any, at: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Everything in a document, by where it stands."""
    yield at, value
    if isinstance(value, dict | list):
        for name, child in value.items() if isinstance(value, dict) else enumerate(value[:1]):
            yield from places(child, (*at, name))


def replaced(value: Any, at: Place, new: Any) -> Any:
    """The document with something else in one place."""
    if not at:
        return new
    name, *rest = at
    changed = value.copy()
    changed[name] = replaced(value[name], tuple(rest), new)
    return changed


def spoiled(document: Any, letters: int = LETTERS, times: int = TIMES) -> Iterator[tuple[str, Any]]:
    """The document with each field in turn too long, too full, or of too many."""
    long = texts(letters)
    for at, value in places(document):
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            yield from ((f"{what} at {at}", replaced(document, at, text)) for what, text in long.items())
        elif isinstance(value, list) and value:
            yield f"many at {at}", replaced(document, at, value[:1] * times)
        elif isinstance(value, dict):
            child = next(iter(value.values()), 1)
            yield (
                f"many fields at {at}",
                replaced(document, at, value | {f"f{number}": child for number in range(times)}),
            )


def hostile(seed: bytes) -> Iterator[tuple[str, bytes]]:
    """What a seed becomes: its JSON, its form, or the cells of its second line."""
    head, there, body = seed.rpartition(b"\n\n")
    before = head + there
    first = body[:1] if body[:1] in (b"\0", b"\1") else b""
    try:
        document = msgspec.json.decode(body.removeprefix(first))
    except msgspec.DecodeError:
        form = parse_qsl(body.decode("utf-8", "replace"))
        if form:
            for number, (name, _) in enumerate(form):
                for what, text in TEXTS.items():
                    yield (
                        f"{what} in {name}",
                        before + urlencode([*form[:number], (name, text), *form[number + 1 :]]).encode(),
                    )
        else:
            yield from _cells(seed)
    else:
        for what, changed in spoiled(document):
            yield what, before + first + msgspec.json.encode(changed)


def _cells(seed: bytes) -> Iterator[tuple[str, bytes]]:
    header, there, rest = seed.partition(b"\n")
    line, _, after = rest.partition(b"\n")
    cells = line.split(b",")
    for number in range(len(cells) if there else 0):
        for what, text in TEXTS.items():
            row = b",".join([*cells[:number], text.encode(), *cells[number + 1 :]])
            yield f"{what} in cell {number}", b"\n".join([header, row, after])


@pytest.mark.parametrize("door", doors.DOORS, ids=lambda door: str(door.name))
def test_no_door_is_exhausted_by_one_field(door: Door) -> None:
    seen: set[str] = set()
    whole = ((f"{what} alone", text.encode()) for what, text in TEXTS.items())
    for inputs in (whole, *map(hostile, door.seeds())):
        for what, data in inputs:
            if what not in seen:
                seen.add(what)
                print(what)  # Shown where it fails.
                door.enter(data)


def test_a_tariff_is_not_exhausted_by_a_field_that_it_has_room_for() -> None:
    (door,) = (door for door in doors.DOORS if door.name == "tariff")
    for seed in door.seeds():
        for what, document in spoiled(msgspec.json.decode(seed), LETTERS_KEPT, TIMES_KEPT):
            print(what)  # Shown where it fails.
            door.enter(msgspec.json.encode(document))
