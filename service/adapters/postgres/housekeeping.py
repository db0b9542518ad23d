"""What `keep` looks at again by itself, and what it clears away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from service.adapters.postgres.batches import BatchStore

SWEEP = "lost_ends"


class Watched(msgspec.Struct, frozen=True):
    """A ride that is looked at again by itself."""

    ride_no: int
    due_at: datetime
    attempts: int


class WatchedKind(msgspec.Struct, frozen=True):
    """How many rides are watched for one reason; `oldest_at` is the first event of the oldest."""

    kind: str
    rides: int
    oldest_at: datetime


class HeldRaw(msgspec.Struct, frozen=True):
    """A quarantined record as it came."""

    quarantine_no: int
    record_key: bytes | None
    record_headers: bytes
    record_value: bytes | None

    def headers(self) -> list[tuple[str, bytes | None]]:
        """Its headers, in order."""
        return _HEADERS.decode(self.record_headers)


_HEADERS = msgspec.msgpack.Decoder(list[tuple[str, bytes | None]])


class HousekeepingStore(BatchStore):
    """One method per named query of `housekeeping.sql`."""

    async def read_through(self, group: str, topic: str) -> dict[int, datetime]:
        """Partition → the business time up to which it was read."""
        return {row["partition"]: row["read_through_at"] for row in await self.all("read_through", group, topic)}

    async def swept_through(self) -> int:
        """The last ride number that was passed over."""
        through = await self.value("swept_through", SWEEP)
        if through is None:
            await self.run("begin_sweep", SWEEP)
        return int(through or 0)

    async def move_sweep(self, before: int, after: int) -> bool:
        """Moves on from `before`; False when another process was there first."""
        return await self.run("move_sweep", SWEEP, before, after) == 1

    async def sweep_step(self, after: int, until: int, revisions_max: int) -> int:
        """The ride number that the next step of the sweep reaches, at most `until`."""
        row = await self.one("sweep_step", after, until, revisions_max)
        assert row is not None
        return int(row["last_ride_no"]) if row["revisions"] == revisions_max else until

    async def watch_open(self, after: int, until: int, now: datetime) -> int:
        """Gives the rides in (after, until] that are still open a row that is due now; returns how many."""
        return await self.run("watch_open", after, until, now)

    async def due_rides(self, now: datetime, rides_max: int) -> list[Watched]:
        """What must be looked at now."""
        return [Watched(**dict(row)) for row in await self.all("due_rides", now, rides_max)]

    async def parked_rides(self, after: int, rides_max: int) -> list[Watched]:
        """Parked rides with larger numbers than `after`."""
        return [Watched(**dict(row)) for row in await self.all("parked_rides", after, rides_max)]

    async def newest_terms(self) -> tuple[int, int]:
        """The newest agreement and the newest change of a tariff."""
        row = await self.one("newest_terms")
        assert row is not None
        return row["agreement_no"], row["change_no"]

    async def look_again(self, dues: Mapping[Watched, datetime]) -> None:
        """When to look again; a row that changed since it was seen stays as it is."""
        if dues:
            seen = sorted(dues, key=lambda row: row.ride_no)
            await self.run(
                "look_again", [row.ride_no for row in seen], [row.due_at for row in seen], [dues[row] for row in seen]
            )

    async def stop_watching(self, rows: Iterable[Watched]) -> None:
        """These are decided; a row that changed since it was seen stays."""
        seen = sorted(rows, key=lambda row: row.ride_no)
        if seen:
            await self.run("stop_watching", [row.ride_no for row in seen], [row.due_at for row in seen])

    async def watched(self) -> list[WatchedKind]:
        """How many rides are watched, by kind."""
        return [WatchedKind(**dict(row)) for row in await self.all("watched")]

    async def make_partitions(self, now: datetime, months: int) -> int:
        """Makes the partitions of this month and the next ones; returns how many were missing."""
        return int(await self.value("make_partitions", now, months))

    async def prune_facts(self, batches_max: int) -> int:
        """Drops facts that are published; returns of how many batches."""
        return await self.run("prune_facts", batches_max)

    async def prune_idempotency(self, before: datetime, rows_max: int) -> int:
        """Drops kept answers from before an instant of the machine's clock; returns how many."""
        return await self.run("prune_idempotency", before, rows_max)

    async def prune_notifications(self, before: datetime, rows_max: int) -> int:
        """Drops notifications that last came before an instant of the machine's clock; returns how many."""
        return await self.run("prune_notifications", before, rows_max)

    async def held_for_a_mapped_source(self, records_max: int, bytes_max: int) -> list[HeldRaw]:
        """Records whose source was not mapped when they came, and is now; locked until commit."""
        return [HeldRaw(**dict(row)) for row in await self.all("held_for_a_mapped_source", records_max, bytes_max)]

    async def release_held(self, records: Iterable[HeldRaw], reason: str, now: datetime) -> None:
        """They were sent back to the stream."""
        await self.run("release_held", [record.quarantine_no for record in records], now, reason)
