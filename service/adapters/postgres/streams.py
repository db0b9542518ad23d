"""How far each partition was read, for those who run the service; the intake's own queries are in `intake`."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from service.adapters.postgres import Store

NOTHING_READ = datetime(1970, 1, 1, tzinfo=UTC)
"""`read_through_at` of a partition of which nothing was read yet: no ride is taken to be lost by it."""


class StreamPlace(msgspec.Struct, frozen=True):
    """How far a partition was read."""

    consumer_group: str
    topic: str
    partition: int
    next_offset: int
    seq: int
    cluster_id: str
    read_through_at: datetime


class StreamStore(Store):
    """Partitions and their restarts."""

    async def list(self) -> list[StreamPlace]:
        """Every partition of every group."""
        return [StreamPlace(**dict(row)) for row in await self.all("list_streams")]

    async def find(self, group: str, topic: str, partition: int) -> StreamPlace | None:
        """One partition."""
        row = await self.one("find_stream", group, topic, partition)
        return None if row is None else StreamPlace(**dict(row))

    async def restart(self, place: StreamPlace, offset: int, cluster: str) -> bool:
        """Reads on at `offset` of this cluster; False when somebody moved the partition since it was found."""
        key = (place.consumer_group, place.topic, place.partition, place.next_offset, place.seq)
        return await self.run("restart_stream", *key, offset, cluster, NOTHING_READ) == 1

    async def record_restart(self, place: StreamPlace, offset: int, cluster: str, reason: str, now: datetime) -> None:
        """Keeps who said why for ever."""
        key = (place.consumer_group, place.topic, place.partition)
        change = (place.next_offset, offset, place.cluster_id, cluster)
        await self.run("append_stream_restart", *key, *change, reason, now)
