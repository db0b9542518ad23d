"""Many things at once, of which one that trips over a bug of ours holds up no other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable


async def each(work: Iterable[Awaitable[None]]) -> None:
    """Awaits all of it, to the end whatever becomes of one; raises the first of what was raised.

    A task group would cancel the others: what trips every time would hold up everything that is claimed beside it.
    """
    for ended in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(ended, BaseException):
            raise ended
