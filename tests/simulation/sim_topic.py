"""A model of the topic and of Kafka's client: partitions, a group that rebalances, members that are taken for dead.

The gate before it is the real one (service.adapters.kafka.RecordSource); what is modelled is what lies behind that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast
from zlib import crc32

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, NoOffsetForPartitionError
from turns import Process, Turns

from service.adapters.clock import Clock
from service.adapters.kafka import ConsumerSettings, RecordSource, record_digest
from service.adapters.kafka_access import Brokers

TOPIC, GROUP, CLUSTER = "rental.sessions", "farebox", "simulated-cluster"
PARTITIONS = 2
WILD_MS = (-1, 0, 4_102_444_800_000, 2**63 - 1)
"""What clocks say that were never set, or set to nonsense; the third begins 2100."""


class Record(msgspec.Struct, frozen=True):
    """A record as aiokafka hands it out."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


class Topic:
    """The records of a world, by partition; `firsts` says where each begins."""

    def __init__(self, firsts: Mapping[int, int]) -> None:
        self.firsts = dict(firsts)
        self.records: dict[int, list[Record]] = {partition: [] for partition in range(PARTITIONS)}

    def append(self, key: bytes, value: bytes, headers: Mapping[str, str], timestamp_ms: int) -> None:
        """A producer's record, to the partition of its key. One in eight has a wild clock."""
        partition = crc32(key) % PARTITIONS
        offset = self.end(partition)
        wild = crc32(b"%d of %b" % (offset, key)) % (8 * len(WILD_MS))
        timestamp_ms = WILD_MS[wild] if wild < len(WILD_MS) else timestamp_ms
        encoded = tuple((name, text.encode()) for name, text in headers.items())
        record = Record(TOPIC, partition, offset, timestamp_ms, key, value, encoded)
        self.records[partition].append(record)

    def end(self, partition: int) -> int:
        """The offset after the last record."""
        return self.firsts[partition] + len(self.records[partition])

    def since(self, partition: int, offset: int, records_max: int) -> list[Record]:
        """The records from an offset on."""
        begin = offset - self.firsts[partition]
        return self.records[partition][begin : begin + records_max]


class Consumer:
    """aiokafka's consumer as far as RecordSource uses it; what asks a broker waits for its turn, and may be cut off."""

    def __init__(self, topic: Topic, turns: Turns, process: Process, now: Clock) -> None:
        self._topic = topic
        self._now = now
        self._told: dict[int, tuple[int, int]] = {}
        self._turns = turns
        self._process = process
        self.assigned: set[int] = set()
        self.positions: dict[int, int] = {}

    def begin(self, partitions: Iterable[int]) -> None:
        """The group gives it these partitions: nothing is known of them yet."""
        self.assigned, self.positions, self._told = set(partitions), {}, {}

    async def getmany(
        self, *keys: TopicPartition, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[Any]]:
        """The records that are there; after `timeout_ms` without any, none. Kafka does not fence who fetches."""
        await self._asked("fetch")
        found = self._fetched(keys, max_records)
        if not found:
            await asyncio.sleep(timeout_ms / 1000)
        return found

    def _fetched(self, keys: Iterable[TopicPartition], left: int) -> dict[TopicPartition, list[Any]]:
        found: dict[TopicPartition, list[Any]] = {}
        for key in sorted(keys):
            if key.partition not in self.assigned:
                continue  # It was given back meanwhile.
            if key.partition not in self.positions:
                raise NoOffsetForPartitionError({key})
            self._told[key.partition] = self._topic.end(key.partition), round(self._now().timestamp() * 1000)
            records = self._topic.since(key.partition, self.positions[key.partition], left)
            if records:
                found[key] = list(records)
                self.positions[key.partition] = records[-1].offset + 1
                left -= len(records)
        return found

    def assignment(self) -> set[TopicPartition]:
        """What the client has."""
        return {TopicPartition(TOPIC, partition) for partition in self.assigned}

    def highwater(self, key: TopicPartition) -> int | None:
        """The end, as the last fetch told it."""
        return self._told[key.partition][0] if key.partition in self._told else None

    def last_poll_timestamp(self, key: TopicPartition) -> int | None:
        """When it told that: milliseconds."""
        return self._told[key.partition][1] if key.partition in self._told else None

    def seek(self, key: TopicPartition, offset: int) -> None:
        """Reads on from there."""
        self.positions[key.partition] = offset

    async def position(self, key: TopicPartition) -> int:
        """What is read next."""
        return self.positions[key.partition]

    async def end_offsets(self, keys: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Asked from the broker."""
        await self._asked("end offsets")
        return {key: self._topic.end(key.partition) for key in keys}

    async def beginning_offsets(self, keys: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Asked from the broker."""
        await self._asked("beginning offsets")
        return {key: self._topic.firsts[key.partition] for key in keys}

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Nobody reads what was told: the truth is in PostgreSQL."""
        if await self._turns.turn(self._process, "commit offsets") != "":
            raise KafkaConnectionError("the answer to the commit is lost")

    async def _asked(self, what: str) -> None:
        if await self._turns.turn(self._process, what) == "cut":
            raise KafkaConnectionError("no answer")


class TopicSource(RecordSource):
    """The real gate over the model of the client."""

    def __init__(self, topic: Topic, turns: Turns, process: Process, now: Clock) -> None:
        super().__init__(ConsumerSettings(Brokers("kafka.invalid:9092"), TOPIC, GROUP))
        self._topic = topic
        self.consumer = Consumer(topic, turns, process, now)
        self._joined = cast("Any", self.consumer)

    async def revoked(self) -> None:
        """The client gives its partitions back."""
        await self.on_partitions_revoked({TopicPartition(TOPIC, one) for one in self.consumer.assigned})
        self.consumer.assigned = set()

    async def given(self, partitions: Iterable[int]) -> None:
        """The client has these partitions now."""
        self.consumer.begin(partitions)
        await self.on_partitions_assigned({TopicPartition(TOPIC, one) for one in partitions})

    @property
    def unread(self) -> bool:
        """Whether there is anything to fetch, or to seek."""
        ends = (self._topic.end(one) > self.consumer.positions.get(one, 0) for one in self.ready)
        return bool(self.waiting) or any(ends)

    async def digests_at(self, offsets: Mapping[int, int]) -> dict[int, bytes]:
        """See RecordSource: the real one takes another consumer."""
        found = {partition: self._topic.since(partition, offset, 1) for partition, offset in offsets.items()}
        return {partition: record_digest(records[0]) for partition, records in found.items() if records}
