"""The installation's clock, set: sandbox installations only."""

from __future__ import annotations

from datetime import datetime

from service.adapters.postgres.catalog import Installation
from service.adapters.postgres.housekeeping import HousekeepingStore


class ClockStore(HousekeepingStore):
    """The row that every role reads its business time from."""

    async def lock(self) -> Installation:
        """The row, locked until commit."""
        row = await self.one("lock_clock")
        assert row is not None
        return Installation(**dict(row))

    async def nothing_after(self, business_at: datetime) -> bool:
        """Whether nothing was written, and no partition read, by a clock that was ahead of this instant."""
        return bool(await self.value("nothing_after", business_at))

    async def set(self, machine_at: datetime, business_at: datetime, speed: float) -> None:
        """From `machine_at` on the business clock runs from `business_at`, `speed` times as fast."""
        await self.run("set_clock", machine_at, business_at, speed)
