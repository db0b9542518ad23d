"""Further numbers of a payment that its rider makes himself, where a number that was closed unpaid stays so for good.

The first one is what the debit is collected under (our key of it, mostly), the next the key followed by `_B`, then `_C`
and so on: 32 characters with our keys of 30. A number is begun once all those before it are closed and unpaid, so that
never two of them are paid.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from string import ascii_uppercase
from typing import TypeVar

from service.billing.outcomes import NotFound, Outcome

Seen = TypeVar("Seen")
FURTHER = tuple(f"_{letter}" for letter in ascii_uppercase[1:])


def key_of(number: str) -> str:
    """Our key of the debit that a number is of; no key of ours has a `_`."""
    return number[:-2] if number.endswith(FURTHER) else number


async def payable(
    number: str, key: str, look: Callable[[str], Awaitable[Seen | Outcome]], closed: Callable[[Seen], bool]
) -> tuple[str, Seen | Outcome]:
    """The number under which a debit is or can still be paid, and what there is to see of it. While nobody has begun
    that one, what was closed last is told."""
    seen = await look(number)
    for further in FURTHER:
        if isinstance(seen, Outcome) or not closed(seen):
            break
        number = key + further
        again = await look(number)
        if isinstance(again, NotFound):
            break
        seen = again
    return number, seen
