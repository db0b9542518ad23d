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

    def moved(self, business_at: datetime, machine_at: datetime) -> MovedStream:
        """The stream as it is after the batch."""
        facts = FACTS_ENCODER.encode(self.facts) if self.facts else b""
        facts_digest = fingerprint(facts)
        old = self.stream
        columns = batch_columns(len(self.revisions), self.owing, business_at, machine_at)
        digest = batch_digest(old.digest, [*self.revisions, facts_digest, columns])
        stream = Stream(
            old.partition, old.writer_no, self.next_offset, old.seq + 1, digest, old.cluster_id, self.record_digest
        )
        return MovedStream(self, stream, facts, facts_digest)


class MovedStream(msgspec.Struct, frozen=True):
    """A stream after a batch, with the batch's facts as they are stored and their digest."""

    batch: StreamBatch
    stream: Stream
    facts: bytes
    facts_digest: bytes


class IntakeStore(RideStore):
    """The intake's own queries, on its dedicated connection."""

    async def read_offsets(self, group: str, topic: str, partitions: Sequence[int]) -> dict[int, Stream]:
        """The streams that were begun, after any transaction of ours that may still be under way."""
        async with self.transaction():
            rows = await self.all("read_offsets", group, topic, list(partitions))
        return {row["partition"]: Stream(**dict(row)) for row in rows}

    async def take_sources(
        self, topic: str, sources: Sequence[str], operator_no: int | None, now: datetime
    ) -> dict[str, int]:
        """Makes sources that are nobody's an operator's (None: nobody's), and tells whose they all are by now."""
        if operator_no is not None:
            await self.run("take_sources", topic, list(sources), operator_no, now)
        return {row["source"]: row["operator_no"] for row in await self.all("source_owners", topic, list(sources))}

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
        self, group: str, topic: str, moved: Sequence[MovedStream], now: datetime, machine_at: datetime
    ) -> None:
        """Appends the batches and, last, moves the offsets; raises FenceLostError when one is not where we read it."""
        await self.run(
            "append_stream_batches",
            [one.stream.writer_no for one in moved],
            [one.stream.seq for one in moved],
            [len(one.batch.revisions) for one in moved],
            [one.facts_digest for one in moved],
            [one.stream.digest for one in moved],
            ["{" + ",".join(map(str, one.batch.owing)) + "}" for one in moved],
            now,
            machine_at,
        )
        published = [one for one in moved if one.facts]
        if published:
            await self.run(
                "append_stream_facts",
                [one.stream.writer_no for one in published],
                [one.stream.seq for one in published],
                [one.facts for one in published],
            )
        count = await self.run(
            "move_offsets",
            group,
            topic,
            [one.stream.partition for one in moved],
            [one.batch.stream.next_offset for one in moved],
            [one.stream.next_offset for one in moved],
            [one.stream.seq for one in moved],
            [one.stream.digest for one in moved],
            [one.stream.record_digest for one in moved],
            [one.batch.read_through_at for one in moved],
        )
        if count != len(moved):
            raise FenceLostError(f"{len(moved) - count} of {len(moved)} partitions were moved by somebody else")
