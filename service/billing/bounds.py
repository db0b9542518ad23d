"""How far an operator's own rules go: the values of his calendar and of his policy on holds.

More is a key that was held too long. It is refused where it is given; where it is stored already, the most that is
allowed counts, for further on there is no such day, and whatever is reckoned with it fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

DAYS_MAX = 3650
"""Ten years, for what is counted in civil days, and as a duration."""
MINOR_MAX = 10**12
"""Minor units: more is a mistake, not an amount."""
COUNT_MAX = 1_000_000
LIST_MAX = 100
"""So many values a list has at most."""
ANSWER_WITHIN_MAX = timedelta(minutes=1)
"""An app waits for an answer, with a rider before the vehicle: longer than any HTTP client does."""

Rules = TypeVar("Rules", bound=msgspec.Struct)
Bounded = int | timedelta


def most(name: str, value: Bounded) -> Bounded:
    """The most that a rule of this name may be: whole days, minor units, a count, or a duration."""
    if isinstance(value, timedelta):
        return ANSWER_WITHIN_MAX if name == "answer_within" else timedelta(days=DAYS_MAX)
    if name.endswith("_days"):
        return DAYS_MAX
    return MINOR_MAX if name.endswith("_minor") else COUNT_MAX


def each(rules: msgspec.Struct) -> Iterator[tuple[str, Bounded]]:
    """Every value that has bounds, with its rule's name; those of a list one by one."""
    for field in msgspec.structs.fields(rules):
        value = getattr(rules, field.name)
        for one in value if isinstance(value, tuple) else (value,):
            if _has_bounds(one):
                yield field.name, one


def bounded(rules: Rules) -> Rules:
    """The rules, no value above the most that is allowed."""
    changes: dict[str, Any] = {}
    for field in msgspec.structs.fields(rules):
        value = getattr(rules, field.name)
        if isinstance(value, tuple):
            changes[field.name] = tuple(_cut(field.name, one) for one in value[:LIST_MAX])
        else:
            changes[field.name] = _cut(field.name, value)
    return replace(rules, **changes)


def _has_bounds(value: Any) -> bool:
    return isinstance(value, int | timedelta) and not isinstance(value, bool)


def _cut(name: str, value: Any) -> Any:
    return min(value, most(name, value)) if _has_bounds(value) else value
