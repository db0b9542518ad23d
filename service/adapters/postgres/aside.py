"""What collection's own rules tripped over, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from service.adapters.postgres import Store

What = Literal["owing", "debit", "refund", "policy"]
"""A ride whose obligations are not netted, a debit or refund that is not gone on with, a debit's calendar."""


class Aside(msgspec.Struct, frozen=True):
    """What was set aside at `at`, to be tried again at `due_at`; `ordinals`: those of the debit and of the refund."""

    ride_no: int
    ordinals: tuple[int, ...]
    what: What
    reason: str
    at: datetime
    due_at: datetime


class AsideStore(Store):
    """What is set aside; everything runs in the caller's transaction."""

    async def keep(self, aside: Aside) -> None:
        """Keeps it, again if it is there; a debit, refund or calendar is put off until then, whoever holds it."""
        ordinal, refund_ordinal = (*aside.ordinals, 0, 0)[:2]
        number = (aside.ride_no, ordinal, refund_ordinal)
        await self.run("keep_aside", *number, aside.what, aside.reason, aside.at, aside.due_at)
        match aside.what:
            case "debit":
                await self.run("put_off_debit", aside.ride_no, ordinal, aside.due_at)
            case "policy":
                await self.run("put_off_policy", aside.ride_no, ordinal, aside.due_at)
            case "refund":
                await self.run("put_off_refund", *number, aside.due_at)
            case "owing":
                return

    async def rides_due(self, now: datetime, rides_max: int) -> Sequence[int]:
        """Rides whose obligations are to be netted again, locked until commit."""
        return [row["ride_no"] for row in await self.all("rides_aside", now, rides_max)]

    async def take_up(self, ride_nos: Sequence[int], now: datetime) -> int:
        """These rides are netted, but for those that were set aside again; returns how many that are."""
        return await self.run("take_up_rides", ride_nos, now)

    async def forget(self, since: datetime) -> None:
        """Debits and refunds that were tried again at `since` or before, and did not trip."""
        await self.run("forget_asides", since)

    async def counts(self) -> dict[str, int]:
        """How much is set aside, by what it is."""
        return {row["what"]: row["count"] for row in await self.all("count_asides")}
