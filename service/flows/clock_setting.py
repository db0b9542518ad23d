"""Setting the virtual clock of a sandbox installation: what was written is never ahead of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from service.adapters.clock import Clock, machine_now
from service.adapters.migrate import PARTITION_MONTHS
from service.adapters.postgres import Database
from service.adapters.postgres.catalog import Installation
from service.adapters.postgres.clock import ClockStore
from service.flows.clock import BusinessClock

SPEED_MAX = 1_000_000
"""How many times as fast as the machine's a clock runs at most."""


class ClockError(ValueError):
    """The clock can't be set so; the message says why."""


class Setting(msgspec.Struct, frozen=True):
    """How the business clock runs from an instant of the machine's on."""

    mode: str
    machine_at: datetime
    business_at: datetime
    speed: float


Change = Callable[[Setting], Setting]


async def read_clock(database: Database, machine: Clock = machine_now) -> Setting:
    """How the clock stands now."""
    async with database.transaction(ClockStore) as store:
        return _now(await store.lock(), machine())


async def set_clock(database: Database, change: Change, machine: Clock = machine_now) -> Setting:
    """Changes the clock and makes the partitions that the new time needs.

    Raises ClockError for a step back, unless nothing was written or read by the clock yet, and for one too far ahead.

    A jump makes the months between here and there too: rides that began before it may still be minted.
    """
    async with database.transaction(ClockStore) as store:
        before = _now(await store.lock(), machine())
        after = change(before)
        if after.business_at < before.business_at and not await store.nothing_after(after.business_at):
            raise ClockError(
                f"the clock stands at {before.business_at.isoformat()}, rides were written by it, and it never runs"
                " backwards: their numbers and deadlines derive from it"
            )
        earlier = min(before.business_at, after.business_at)
        months = (after.business_at - earlier) // timedelta(days=28) + PARTITION_MONTHS
        if months > MONTHS_MAX:
            most = (MONTHS_MAX - PARTITION_MONTHS) * 28
            raise ClockError(f"{after.business_at.isoformat()} is too far ahead: {most} days at once at most")
        await store.make_partitions(earlier, months)
        await store.set(before.machine_at, after.business_at, after.speed)
    return msgspec.structs.replace(after, mode="virtual")


def faster(speed: float) -> Change:
    """From now on so many times as fast as the machine's; 0 stops it. Raises ClockError."""
    if not 0 <= speed <= SPEED_MAX:  # Nor what is not a number.
        raise ClockError(f"{speed} times as fast can't be: allowed are 0 to {SPEED_MAX}")
    return lambda now: msgspec.structs.replace(now, speed=speed)


def later(step: timedelta) -> Change:
    """A jump ahead."""
    return lambda now: msgspec.structs.replace(now, business_at=now.business_at + step)


def standing_at(instant: datetime) -> Change:
    """A jump to an instant."""
    return lambda now: msgspec.structs.replace(now, business_at=instant)


MONTHS_MAX = 120
"""Of 28 days: so many are made ready by one jump, those that lie ahead of where it ends among them."""


def _now(row: Installation, machine_at: datetime) -> Setting:
    clock = BusinessClock(lambda: machine_at)
    clock.read(row)
    speed = row.clock_speed if row.clock_mode == "virtual" else 1.0
    return Setting(row.clock_mode, machine_at, clock.now(), speed)
