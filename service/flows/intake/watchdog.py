"""The stall watchdog: the clients have silent stalls, so progress is judged by us."""

from __future__ import annotations

import asyncio

from service.adapters.kafka import RecordSource
from service.adapters.kafka_access import KAFKA_UNAVAILABLE
from service.adapters.postgres import UNAVAILABLE, Database, Store
from service.flows.clock import elapsed
from service.flows.intake import Intake
from service.telemetry import LAG, logger

LOG = logger("watchdog")


class StalledError(RuntimeError):
    """Behind, nothing committed for long, and both servers answer: the process must be started again."""


class Watchdog:
    """Judges an intake from beside it, over connections of its own."""

    def __init__(self, intake: Intake, source: RecordSource, database: Database, stall_seconds: float) -> None:
        self._intake = intake
        self._source = source
        self._database = database
        self._stall_seconds = stall_seconds

    async def run(self) -> None:
        """Looks now and then, until cancelled; raises StalledError."""
        while True:
            await asyncio.sleep(min(self._stall_seconds / 4, 5))
            await self.look()

    async def look(self) -> None:
        """One look. A server that is away is waited for: that is no stall of ours."""
        try:
            async with asyncio.timeout(10):
                behind = await self._source.behind()
                async with self._database.reading(Store) as store:
                    await store.connection.fetchval("SELECT 1")
        except (*KAFKA_UNAVAILABLE, *UNAVAILABLE) as error:
            LOG.debug("a server is away; no judgement", error=f"{type(error).__name__}: {error}")
            self._intake.progress_at = elapsed()
            return
        for partition, records in behind.items():
            LAG.labels(str(partition)).set(records)
        idle = elapsed() - self._intake.progress_at
        if any(records > 0 for records in behind.values()) and idle > self._stall_seconds:
            raise StalledError(
                f"nothing committed for {idle:.0f} s while {sum(behind.values())} records wait and both servers"
                " answer: the process ends, to be started again"
            )
