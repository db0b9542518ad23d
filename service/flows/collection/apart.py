"""One ride or debit that trips over a bug of ours stops no other: a round that fails is done once more, one at a time.

Each then has a savepoint of its own. What trips is set aside, with its reason, and tried again when its time comes:
nothing is forgotten, and the round goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import TypeVar

import asyncpg
import msgspec

from service.adapters.postgres import RACES, UNAVAILABLE, is_about_data
from service.adapters.postgres.aside import Aside, AsideStore, What
from service.adapters.postgres.collection import CollectionStore, DebitKey, RefundKey
from service.telemetry import SET_ASIDE, logger

LOG = logger("collection")
BUG_AGAIN = timedelta(hours=1)
"""When what our own rules trip over is tried again, business time."""
RACE_AGAIN = timedelta(minutes=1)
"""When that is tried again which somebody else was faster with."""
REASON_MAX = 500

T = TypeVar("T")
Key = int | DebitKey | RefundKey


class Tripped(msgspec.Struct, frozen=True):
    """What tripped: a ride number, a debit or a refund; why; and how long it is left alone."""

    key: Key
    reason: str
    again_after: timedelta


async def or_apart(whole: Callable[[], Awaitable[T]], parts: Callable[[], Awaitable[T]]) -> T:
    """`whole`, or `parts` where that trips over what is nobody else's doing.

    Raises what says that the database is away, or not as we expect it, or that somebody else was faster: then the
    round is simply done again.
    """
    try:
        return await whole()
    except (*UNAVAILABLE, *RACES):
        raise
    except Exception as error:
        if not _of_one(error):
            raise
        LOG.warning("a round of collection trips: one at a time", error=_reason(error))
    return await parts()


async def one_at_a_time(
    store: CollectionStore, keys: Iterable[Key], one: Callable[[Key], Awaitable[None]]
) -> list[Tripped]:
    """Does `one` for each key in a savepoint of its own; returns those that tripped, rolled back.

    Raises only what says that the database is away, or not as we expect it.
    """
    tripped = []
    for key in keys:
        try:
            async with store.connection.transaction():
                await one(key)
        except UNAVAILABLE:
            raise
        except RACES as error:
            tripped.append(Tripped(key, _reason(error), RACE_AGAIN))
        except Exception as error:
            if not _of_one(error):
                raise
            LOG.exception("set aside: our error", key=key)
            tripped.append(Tripped(key, _reason(error), BUG_AGAIN))
    return tripped


async def set_aside(store: CollectionStore, what: What, tripped: Iterable[Tripped], now: datetime) -> None:
    """Keeps what tripped, why, and when it is tried again; debits and refunds are put off until then."""
    asides = AsideStore(store.connection)
    for one in tripped:
        ride_no, *ordinals = (one.key,) if isinstance(one.key, int) else one.key
        await asides.keep(Aside(ride_no, tuple(ordinals), what, one.reason[:REASON_MAX], now, now + one.again_after))
        SET_ASIDE.labels(what).inc()


def _of_one(error: Exception) -> bool:
    """Whether one ride or debit can be to blame: a rule trips over it, or PostgreSQL refuses its values."""
    return not isinstance(error, asyncpg.PostgresError) or is_about_data(error)


def _reason(error: Exception) -> str:
    return (f"{type(error).__name__}: {error}".splitlines() or [""])[0]
