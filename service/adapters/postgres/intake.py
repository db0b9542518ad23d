"""The intake's transaction in PostgreSQL: what it decided, and last the fence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from service.adapters.postgres.batches import FACTS_ENCODER, OutRecord
from service.adapters.postgres.rides import RideStore
from service.billing.events import RawRecord
from service.billing.proofs import batch_columns, batch_digest, fingerprint


class FenceLostError(RuntimeError):
    """Somebody else moved one of the partitions: everything this process knew and decided is old."""


class Stream(msgspec.Struct, frozen=True):
    """How far a partition was read, as PostgreSQL says."""

    partition: int
    writer_no: int
    next_offset: int
    seq: int
    digest: bytes
    cluster_id: str
    record_digest: bytes | None


class Quarantined(msgspec.Struct, frozen=True):
    """A record that could not be taken. `fault` is "record", "service" (ours) or "unmapped_source"."""

    record: RawRecord
    fault: str
    reason: str
    path: str
    operator_no: int | None = None
    source: str | None = None


class StreamBatch(msgspec.Struct, frozen=True):
    """What one transaction writes for one partition."""

    stream: Stream
    next_offset: int
    record_digest: bytes
    read_through_at: datetime
    revisions: Sequence[bytes]
    owing: Sequence[int]
    facts: Sequence[OutRecord]

    def moved(self, business_at: datetime, machine_at: datetime) -> tuple[Stream, bytes, bytes]:
        """The stream after the batch, its encoded facts and their digest."""
        facts = FACTS_ENCODER.encode(self.facts) if self.facts else b""
        facts_digest = fingerprint(facts)
        old = self.stream
        columns = batch_columns(len(self.revisions), self.owing, business_at, machine_at)
        digest = batch_digest(old.digest, [*self.revisions, facts_digest, columns])
        stream = Stream(
            old.partition, old.writer_no, self.next_offset, old.seq + 1, digest, old.cluster_id, self.record_digest
        )
        return stream, facts, facts_digest


class IntakeStore(RideStore):
    """The intake's own queries, on its dedicated connection."""

    async def read_offsets(self, group: str, topic: str, partitions: Sequence[int]) -> dict[int, Stream]:
        """The streams that were begun, after any transaction of ours that may still be under way."""
        async with self.connection.transaction():
            rows = await self.all("read_offsets", group, topic, list(partitions))
        return {row["partition"]: Stream(**dict(row)) for row in rows}

    async def begin_stream(
        self, group: str, topic: str, partition: int, offset: int, cluster: str, since: datetime
    ) -> None:
        """The first start of a partition, at `offset`; nothing is known of it before `since`."""
        await self.run("begin_stream", group, topic, partition, offset, cluster, since)

    async def mark_caught_up(self, group: str, topic: str, offsets: Mapping[int, int], at: datetime) -> None:
        """Quiet partitions were read to their end as of `at`."""
        await self.run("mark_caught_up", group, topic, list(offsets), list(offsets.values()), at)

    async def hold_in_quarantine(self, held: Sequence[Quarantined], now: datetime) -> None:
        """Records that could not be taken, with their raw bytes."""
        if not held:
            return
        rows = [
            (
                item.operator_no,
                item.record.topic,
                item.record.partition,
                item.record.offset,
                item.record.timestamp_ms,
                item.record.key,
                msgspec.msgpack.encode(item.record.headers),
                item.record.value,
                item.fault,
                item.reason.replace("\0", " "),
                item.path.replace("\0", " "),
                item.source,
            )
            for item in held
        ]
        await self.run("hold_in_quarantine", *([row[index] for row in rows] for index in range(12)), now)

    async def move(
        self, group: str, topic: str, batches: Sequence[StreamBatch], now: datetime, machine_at: datetime
    ) -> dict[int, Stream]:
        """Appends the batches and, last, moves the offsets; raises FenceLostError when one is not where we read it."""
        moved = [batch.moved(now, machine_at) for batch in batches]
        await self.run(
            "append_stream_batches",
            [stream.writer_no for stream, _, _ in moved],
            [stream.seq for stream, _, _ in moved],
            [len(batch.revisions) for batch in batches],
            [digest for _, _, digest in moved],
            [stream.digest for stream, _, _ in moved],
            ["{" + ",".join(map(str, batch.owing)) + "}" for batch in batches],
            now,
            machine_at,
        )
        published = [(stream, facts) for stream, facts, _ in moved if facts]
        if published:
            await self.run(
                "append_stream_facts",
                [stream.writer_no for stream, _ in published],
                [stream.seq for stream, _ in published],
                [facts for _, facts in published],
            )
        count = await self.run(
            "move_offsets",
            group,
            topic,
            [batch.stream.partition for batch in batches],
            [batch.stream.next_offset for batch in batches],
            [stream.next_offset for stream, _, _ in moved],
            [stream.seq for stream, _, _ in moved],
            [stream.digest for stream, _, _ in moved],
            [stream.record_digest for stream, _, _ in moved],
            [batch.read_through_at for batch in batches],
        )
        if count != len(batches):
            raise FenceLostError(f"{len(batches) - count} of {len(batches)} partitions were moved by somebody else")
        return {stream.partition: stream for stream, _, _ in moved}
