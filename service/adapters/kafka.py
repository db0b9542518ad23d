"""Kafka: batches of records in, behind the rebalance gate; offsets; records out.

The traps behind each choice are in the design of the intake: `getmany` is not held back while an assignment is being
prepared, listener exceptions are swallowed, `stop` does not revoke, a member that does not poll leaves the group.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaTimeoutError, NoOffsetForPartitionError
from aiokafka.partitioner import DefaultPartitioner

from service.adapters.kafka_access import KAFKA_UNAVAILABLE, Brokers, admin_of, let_go, opened
from service.adapters.kafka_exact import batch_of, sends_as_it_is
from service.adapters.kafka_records import at_once, read_every_record
from service.billing.events import RawRecord
from service.billing.events.header_names import as_read
from service.billing.proofs import fingerprint

ANSWER_SECONDS = 10.0
FETCHED_BYTES_MAX = 16 * 1024 * 1024
"""Of one fetch as it comes from a broker, and of what is handed out of them at once, unpacked."""
read_every_record()
DAYS_MS = int(timedelta(days=7).total_seconds() * 1000)


Headers = Sequence[tuple[str, bytes | None]]


class TopicMissingError(RuntimeError):
    """A topic that must be there is not; the message says what to do."""


class ConsumerSettings(msgspec.Struct, frozen=True):
    """How the intake joins its group; times in milliseconds."""

    brokers: Brokers
    topic: str
    group: str
    session_timeout_ms: int = 45_000
    rebalance_timeout_ms: int = 60_000


class RecordSource(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types for it.
    """Batches of records of the partitions that are ready.

    A partition that was assigned is not read until the caller has sought it (`seek`): `assigned` lists the ones that
    wait for that. `on_revoked` is awaited (bounded by whoever sets it) before partitions are given back.
    """

    def __init__(self, settings: ConsumerSettings) -> None:
        self._settings = settings
        self.on_revoked: Callable[[], Awaitable[None]] | None = None
        self._joined: AIOKafkaConsumer | None = None
        self._ready: set[TopicPartition] = set()
        self._waiting: set[TopicPartition] = set()
        self.assignment = 0
        """Counts the assignments: whatever was checked about a partition is to be checked again after each."""
        self.failure: BaseException | None = None

    async def start(self) -> None:
        """Joins the group; raises TopicMissingError, KafkaAccessError, or KAFKA_UNAVAILABLE while Kafka is away."""
        partitions = await partitions_of(self._settings.brokers, [self._settings.topic])
        if not partitions[self._settings.topic]:
            raise TopicMissingError(
                f"topic {self._settings.topic!r} is not there: create it (its partitions bound how many intake"
                " processes can share the work) or set FAREBOX_TOPIC_SESSIONS"
            )
        settings = self._settings
        consumer = AIOKafkaConsumer(
            **settings.brokers.options(),
            group_id=settings.group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=max(200, settings.session_timeout_ms // 10),
            rebalance_timeout_ms=settings.rebalance_timeout_ms,
            max_poll_interval_ms=DAYS_MS,
            fetch_max_bytes=FETCHED_BYTES_MAX,
            max_partition_fetch_bytes=4 * 1024 * 1024,
            fetch_max_wait_ms=100,
        )
        self._joined = await opened(consumer, settings.brokers)
        consumer.subscribe([settings.topic], listener=self)

    @property
    def _consumer(self) -> AIOKafkaConsumer:
        assert self._joined is not None, "the source was not started"
        return self._joined

    async def stop(self) -> None:
        """Leaves the group, as far as Kafka answers."""
        if self._joined is not None:
            await let_go(self._joined)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Called by the client before it gives partitions back."""
        self._ready.clear()
        self._waiting.clear()
        try:
            if self.on_revoked is not None:
                await self.on_revoked()
        except BaseException as error:
            self.failure = error
            raise

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Called by the client with the partitions that are now ours; none is read before it was sought."""
        self._waiting = set(assigned)
        self.assignment += 1

    @property
    def waiting(self) -> list[int]:
        """Partitions that were assigned and not sought yet."""
        return sorted(partition.partition for partition in self._waiting)

    @property
    def ready(self) -> list[int]:
        """Partitions that are being read."""
        return sorted(partition.partition for partition in self._ready)

    def seek(self, partition: int, offset: int) -> None:
        """Reads a partition from `offset` on, if it is still ours."""
        key = TopicPartition(self._settings.topic, partition)
        if key in self._waiting or key in self._ready:
            self._consumer.seek(key, offset)
            self._waiting.discard(key)
            self._ready.add(key)

    def unready(self) -> None:
        """Stops reading every partition until each is sought again."""
        self._waiting |= self._ready
        self._ready.clear()

    async def fetch(self, records_max: int, timeout_ms: int) -> dict[int, list[Any]]:
        """The next records by partition, at most `records_max` in all, and no batch more once those there come to
        FETCHED_BYTES_MAX; empty after `timeout_ms` without any."""
        if not self._ready:
            await asyncio.sleep(min(timeout_ms, 50) / 1000)
            return {}
        ready = list(self._ready)
        try:
            with at_once(FETCHED_BYTES_MAX):
                fetched = await self._consumer.getmany(*ready, timeout_ms=timeout_ms, max_records=records_max)
        except NoOffsetForPartitionError:
            if not self._waiting:
                raise
            return {}  # The partitions were assigned anew while we waited: they are sought before the next fetch.
        return {key.partition: records for key, records in fetched.items() if records and key in self._ready}

    def ended_at_ms(self, partition: int, offset: int) -> int | None:
        """When the broker told that a partition had nothing from `offset` on (milliseconds, this machine's clock): with
        the last records that the client fetched ahead, which may have lain here for as long as the process stood still.
        None where it has more, where nothing was told, or where the partition was taken away since."""
        key = TopicPartition(self._settings.topic, partition)
        if key not in self._consumer.assignment():
            return None
        end, at_ms = self._consumer.highwater(key), self._consumer.last_poll_timestamp(key)
        return None if end is None or end > offset else at_ms

    async def behind(self) -> dict[int, int]:
        """How many offsets lie before the end of each partition that is ready, asked from the brokers now."""
        ready = list(self._ready)
        if not ready:
            return {}
        async with _answered():
            ends = await self._consumer.end_offsets(ready)
            return {
                key.partition: ends[key] - await self._consumer.position(key) for key in ready if key in self._ready
            }

    async def bounds(self, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        """The first offset that is there and the one after the last, by partition."""
        keys = [TopicPartition(self._settings.topic, partition) for partition in partitions]
        async with _answered():
            firsts = await self._consumer.beginning_offsets(keys)
            ends = await self._consumer.end_offsets(keys)
        return {key.partition: (firsts[key], ends[key]) for key in keys}

    async def offsets_at(self, partitions: Sequence[int], instant: datetime) -> dict[int, int]:
        """The first offset whose record is not older than `instant`, by partition; the end where there is none."""
        keys = [TopicPartition(self._settings.topic, partition) for partition in partitions]
        async with _answered():
            found = await self._consumer.offsets_for_times({key: int(instant.timestamp() * 1000) for key in keys})
            ends = await self._consumer.end_offsets(keys)
        return {key.partition: found[key].offset if found.get(key) else ends[key] for key in keys}

    async def commit(self, offsets: Mapping[int, int]) -> None:
        """Tells Kafka how far we are, for lag tools; the truth is in PostgreSQL. A refusal is of no consequence."""
        try:
            await self._consumer.commit(
                {TopicPartition(self._settings.topic, partition): offset for partition, offset in offsets.items()}
            )
        except KAFKA_UNAVAILABLE:
            return

    async def digests_at(self, offsets: Mapping[int, int]) -> dict[int, bytes]:
        """The digest of the record at an offset, by partition; a partition that has none there is left out."""
        if not offsets:
            return {}
        consumer = AIOKafkaConsumer(
            **self._settings.brokers.options(),
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
        )
        await opened(consumer, self._settings.brokers)
        try:
            keys = {TopicPartition(self._settings.topic, partition): offset for partition, offset in offsets.items()}
            consumer.assign(list(keys))
            for key, offset in keys.items():
                consumer.seek(key, offset)
            found: dict[int, bytes] = {}
            async with asyncio.timeout(20):
                for key, offset in keys.items():
                    record = await consumer.getone(key)
                    if record.offset == offset:
                        found[key.partition] = record_digest(record)
            return found
        finally:
            await let_go(consumer)


@asynccontextmanager
async def _answered() -> AsyncIterator[None]:
    """A question to the brokers: aiokafka would ask again for 40 s. Raises KafkaTimeoutError."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            yield
    except TimeoutError as error:
        raise KafkaTimeoutError(f"no answer within {ANSWER_SECONDS:.0f} s") from error


def raw_record(record: Any) -> RawRecord:
    """A record of the client as the rules read it."""
    return RawRecord(
        record.topic, record.partition, record.offset, record.timestamp, record.key, record.value, record.headers
    )


def record_digest(record: Any) -> bytes:
    """What tells a record from another one that stands at its offset in a topic that was made again."""
    return fingerprint(b"%d\0%b\0%b" % (record.timestamp, record.key or b"", record.value or b""))


async def cluster_id(brokers: Brokers) -> str:
    """The id of the Kafka cluster."""
    async with admin_of(brokers) as admin:
        return str((await admin.describe_cluster())["cluster_id"])


async def partitions_of(brokers: Brokers, topics: Sequence[str]) -> dict[str, list[int]]:
    """The partitions of each topic; none where the topic is not there."""
    async with admin_of(brokers) as admin:
        described = await admin.describe_topics(list(topics))
    return {topic["topic"]: sorted(partition["partition"] for partition in topic["partitions"]) for topic in described}


class RecordSink:
    """Records out: acknowledged by all replicas, without duplicates from the client's own retries."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers
        self._started: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connects; raises KafkaAccessError, or KAFKA_UNAVAILABLE while Kafka is away."""
        producer = AIOKafkaProducer(
            **self._brokers.options(),
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            max_batch_size=256 * 1024,
            max_request_size=FETCHED_BYTES_MAX,  # Before it is packed; what comes to more is for the broker to say.
            compression_type="lz4",
            request_timeout_ms=30_000,
        )
        self._started = await opened(producer, self._brokers)

    async def stop(self) -> None:
        """Sends what is under way and closes, as far as Kafka answers."""
        if self._started is not None:
            await let_go(self._started)

    async def send(self, records: Sequence[tuple[str, bytes | None, Headers, bytes | None]]) -> None:
        """Sends (topic, key, headers, value) in order and returns when all are acknowledged; raises if one was not.
        Names of headers are as they are kept (`service.billing.events.header_names`)."""
        sent: list[asyncio.Future[Any]] = [await self._send(*record) for record in records]
        for acknowledgement in sent:
            await acknowledgement

    async def _send(self, topic: str, key: bytes | None, headers: Headers, value: bytes | None) -> Any:
        """One record on its way; the future of its acknowledgement."""
        producer = self._started
        assert producer is not None, "the sink was not started"
        named = [(as_read(name), text) for name, text in headers]
        if sends_as_it_is(key, named, value):
            return await producer.send(topic, value=value, key=key, headers=named)
        partitions = sorted(await producer.partitions_for(topic))
        partition = DefaultPartitioner()(key, partitions, partitions)
        return await producer.send_batch(batch_of(key, named, value), topic, partition=partition)
