"""The chores of `keep`: partitions ahead, what is done with cleared away, records released, gauges set."""

from __future__ import annotations

from datetime import datetime, timedelta

from service.adapters.clock import Clock
from service.adapters.migrate import PARTITION_MONTHS
from service.adapters.postgres import RACES, Database
from service.adapters.postgres.batches import OutRecord, writer_name
from service.adapters.postgres.housekeeping import HousekeepingStore
from service.telemetry import PARKED_AGE, WATCHED, logger

LOG = logger("chores")
EVERY_SECONDS = 5.0
"""How often the chores are seen to, by the machine's clock."""
PRUNED_MAX = 500
RELEASED_MAX = 500
RELEASED_BYTES_MAX = 16 * 1024 * 1024
"""How much of what was held goes back in one batch: it is in memory whole, here and where it is published."""
ANSWERS_KEPT = timedelta(days=7)
"""How long the answer to a write is kept for whoever sends it again; machine time."""
NOTIFICATIONS_KEPT = timedelta(days=30)
"""How long it is known which notifications came: longer than any provider repeats one; machine time."""
KINDS = ("open", "parked", "incomplete", "reserved")


class Chores:
    """What must be there or be gone in time. Any number of processes may see to it."""

    def __init__(self, database: Database, machine: Clock) -> None:
        self._database = database
        self._machine = machine
        self._next_at: datetime | None = None
        self._left = 0

    async def round(self, now: datetime) -> int:
        """Sees to the chores when it is time; returns how much is left to do at once."""
        machine_at = self._machine()
        due = self._next_at is None or machine_at >= self._next_at
        if due:
            self._next_at = machine_at + timedelta(seconds=EVERY_SECONDS)
            await self._make_partitions(now)
            await self._set_gauges(now)
        elif not self._left:
            return 0
        self._left = await self._prune(machine_at) + await self._release(now, machine_at)
        return self._left

    async def _make_partitions(self, now: datetime) -> None:
        """This month's and the next three's, by the business clock."""
        try:
            async with self._database.transaction(HousekeepingStore) as store:
                made = await store.make_partitions(now, PARTITION_MONTHS)
        except RACES as error:
            LOG.info("partitions are being made by somebody else", error=type(error).__name__)
            return
        if made:
            LOG.info("partitions made", partitions=made)

    async def _set_gauges(self, now: datetime) -> None:
        async with self._database.reading(HousekeepingStore) as store:
            found = {row.kind: row for row in await store.watched()}
        for kind in KINDS:
            WATCHED.labels(kind).set(found[kind].rides if kind in found else 0)
        parked = found.get("parked")
        PARKED_AGE.set((now - parked.oldest_at).total_seconds() if parked is not None else 0)

    async def _prune(self, machine_at: datetime) -> int:
        """Published facts, old answers and notifications; returns how much was dropped where there may be more."""
        async with self._database.reading(HousekeepingStore) as store:
            dropped = (
                await store.prune_facts(PRUNED_MAX),
                await store.prune_idempotency(machine_at - ANSWERS_KEPT, PRUNED_MAX),
                await store.prune_notifications(machine_at - NOTIFICATIONS_KEPT, PRUNED_MAX),
            )
        return sum(count for count in dropped if count == PRUNED_MAX)

    async def _release(self, now: datetime, machine_at: datetime) -> int:
        """Sends held records whose source is mapped now back to the stream; returns how many."""
        async with self._database.transaction(HousekeepingStore) as store:
            held = await store.held_for_a_mapped_source(RELEASED_MAX, RELEASED_BYTES_MAX)
            if not held:
                return 0
            await store.release_held(held, "the source was mapped", now)
            records = [OutRecord("sessions", item.record_key, item.headers(), item.record_value) for item in held]
            batch = await store.take_batch(writer_name("keep", 0))
            await store.seal_batch(batch, records, now, machine_at)
        LOG.info("held records released", records=len(held))
        return len(held)
