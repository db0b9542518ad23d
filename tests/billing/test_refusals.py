"""What people read of a value that is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest

from service.billing.refusals import WORDS, in_words, pattern_in_words

SERVICE = Path(__file__).resolve().parents[2] / "service"


class Place(msgspec.Struct, forbid_unknown_fields=True):
    """Names with values within others."""

    kind: Annotated[Literal["corral", "curb"], msgspec.Meta(description="How.")] | None = None
    since: int = 0


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """A few kinds of values."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x20\x7f]+$")] | None = None
    days: Annotated[int, msgspec.Meta(ge=1)] = 1
    hours: tuple[int, ...] = ()
    much: float | None = None
    sides: list[Literal["left", "right"]] = []
    place: Place | None = None
    by_name: dict[str, Annotated[Place, msgspec.Meta(description="One.")]] = {}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": "x 1"}, "name: expected visible characters without spaces"),
        ({"name": 7}, "name: expected a text or nothing, got a whole number"),
        ({"days": "abc"}, "days: expected a whole number, got a text"),
        ({"days": 0}, "days: expected a whole number >= 1"),
        ({"hours": ["x"]}, "hours[0]: expected a whole number, got a text"),
        ({"much": []}, "much: expected a number or nothing, got a list"),
        ("text", "expected names with values, got a text"),
        (
            {"by_name": {"a": {"kynd": 1}}},
            "by_name[...]: object contains unknown field `kynd`; allowed are kind, since",
        ),
        (
            {"place": {"ki\x1b[1mnd\0": 1}},
            "place: object contains unknown field `ki\\x1b[1mnd\\x00`; allowed are kind, since",
        ),
        (
            {"nam": 1},
            "object contains unknown field `nam`; allowed are name, days, hours, much, sides, place, by_name",
        ),
    ],
)
def test_a_refusal_names_the_value_and_says_what_is_expected(given: object, told: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert(given, Asked)
    assert in_words(str(refused.value), Asked) == told


def test_a_refusal_of_a_megabyte_is_brief() -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert({"place": {"x\n" * 500_000: 1}}, Asked)
    told = in_words(str(refused.value), Asked)
    assert told.startswith("place: object contains unknown field `x\\nx\\n")
    assert told.endswith("x\\n`; allowed are kind, since")
    assert len(told) < 5_000


def test_every_pattern_that_a_value_is_held_against_is_told_in_words() -> None:
    patterns: set[str] = set()
    for file in SERVICE.rglob("*.py"):
        if "lab" not in file.parts:
            found = re.findall(r'[( ]pattern=(r?)"([^"]*)"', file.read_text(encoding="utf-8"))
            patterns |= {text if raw else text.encode().decode("unicode_escape") for raw, text in found}
    assert patterns == WORDS.keys()
    for pattern in patterns:
        message = f"Expected `str` matching regex {pattern!r} - at `$.x`"
        assert pattern_in_words(message) == f"Expected {WORDS[pattern]} - at `$.x`"
