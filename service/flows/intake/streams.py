"""Where to read on: the offsets of PostgreSQL, held against the topic that is there now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.adapters.kafka import RecordSource
from service.adapters.postgres.intake import IntakeStore, Stream
from service.adapters.postgres.streams import NOTHING_READ
from service.billing.instants import read_instant

EARLIEST = "earliest"


class TopicChangedError(RuntimeError):
    """The topic is not the one that was read so far, or records were lost unread; the message says what to do."""


class Streams:
    """The partitions of one topic for one consumer group."""

    def __init__(self, source: RecordSource, group: str, topic: str, cluster: str, start_from: str) -> None:
        self._source = source
        self.group = group
        self.topic = topic
        self._cluster = cluster
        self._start_from = start_from
        self._verified: set[int] = set()
        self._assignment = 0
        self.held: dict[int, Stream] = {}

    async def open(self, store: IntakeStore) -> None:
        """Reads where each waiting partition stands, checks that the topic is the same, and seeks."""
        waiting = self._source.waiting
        if self._assignment != self._source.assignment:
            self._assignment, self._verified = self._source.assignment, set()
        streams = await store.read_offsets(self.group, self.topic, waiting)
        missing = [partition for partition in waiting if partition not in streams]
        bounds = await self._source.bounds(waiting)
        if missing:
            await self._begin(store, missing, {partition: bounds[partition][0] for partition in missing})
            streams = await store.read_offsets(self.group, self.topic, waiting)
        for partition, stream in streams.items():
            self._check_bounds(stream, *bounds[partition])
        await self._check_records(streams, bounds)
        for partition in waiting:
            self._source.seek(partition, streams[partition].next_offset)
        self.held |= {partition: streams[partition] for partition in waiting}

    async def _begin(self, store: IntakeStore, partitions: Sequence[int], firsts: Mapping[int, int]) -> None:
        """The explicit first start: from the earliest record, or from an instant."""
        offsets = firsts
        if self._start_from != EARLIEST:
            offsets = await self._source.offsets_at(partitions, read_instant(self._start_from))
        for partition in sorted(partitions):
            await store.begin_stream(self.group, self.topic, partition, offsets[partition], self._cluster, NOTHING_READ)

    def _check_bounds(self, stream: Stream, first: int, end: int) -> None:
        place = f"{self.topic}/{stream.partition}"
        if stream.cluster_id != self._cluster:
            raise TopicChangedError(
                f"{place} was read from Kafka cluster {stream.cluster_id}, and this is {self._cluster}: point"
                f" FAREBOX_KAFKA_BOOTSTRAP back, or, if it failed over for good, {_RESTART}"
            )
        if stream.next_offset > end:
            raise TopicChangedError(
                f"{place} ends at {end}, and was read up to {stream.next_offset}: the topic was made again or lost"
                f" records. Recover it, or {_RESTART}"
            )
        if stream.next_offset < first:
            raise TopicChangedError(
                f"{place} begins at {first}, and was read up to {stream.next_offset}: {first - stream.next_offset}"
                f" records expired unread. Have the producers send them again, lengthen the retention, then {_RESTART}"
            )

    async def _check_records(self, streams: Mapping[int, Stream], bounds: Mapping[int, tuple[int, int]]) -> None:
        """The last record that was read is still the one that stands there; one that merely expired is fine."""
        places = {
            stream.partition: stream.next_offset - 1
            for stream in streams.values()
            if stream.record_digest is not None and stream.next_offset - 1 >= bounds[stream.partition][0]
            if stream.partition not in self._verified
        }
        found = await self._source.digests_at(places)
        for partition, offset in places.items():
            if found.get(partition) != streams[partition].record_digest:
                raise TopicChangedError(
                    f"{self.topic}/{partition}: the record at {offset} is not the one that was read there: the topic"
                    f" was made again under the same name. Stop the producers, find out what happened, then {_RESTART}"
                )
        self._verified |= set(places)


_RESTART = "say where to read on with `farebox stream restart` (rides that are known are not charged again)"
