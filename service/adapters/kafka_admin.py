"""Kafka as those who run the service look at it: who reads a topic, and where its partitions begin and end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import msgspec
import stamina
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError, for_code

from service.adapters.kafka_access import Brokers, admin_of, opened


class Member(msgspec.Struct, frozen=True):
    """A process in a consumer group, as the broker knows it."""

    client_id: str
    host: str


@stamina.retry(on=(GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError), timeout=15, attempts=None)
async def members_of(brokers: Brokers, group: str) -> list[Member]:
    """Who is in a consumer group; a process that was killed stays until its session timeout is over.

    A broker that has just been started knows no coordinator for a moment: it is asked again for up to 15 seconds.
    """
    async with admin_of(brokers) as admin:
        (answer,) = await admin.describe_consumer_groups([group])
        found = answer.to_object()["groups"][0]
        if found["error_code"]:
            raise for_code(found["error_code"])(group)
        return [Member(member["client_id"], member["client_host"]) for member in found["members"]]


async def bounds_of(brokers: Brokers, topic: str, partitions: list[int]) -> dict[int, tuple[int, int]]:
    """The first offset that is there and the one after the last, by partition."""
    keys = [TopicPartition(topic, partition) for partition in partitions]
    async with _reader(brokers) as consumer:
        firsts = await consumer.beginning_offsets(keys)
        ends = await consumer.end_offsets(keys)
    return {key.partition: (firsts[key], ends[key]) for key in keys}


async def offset_at(brokers: Brokers, topic: str, partition: int, instant: datetime) -> int | None:
    """The first offset whose record is not older than `instant`, or None when all are."""
    key = TopicPartition(topic, partition)
    async with _reader(brokers) as consumer:
        found = (await consumer.offsets_for_times({key: int(instant.timestamp() * 1000)}))[key]
    return None if found is None else int(found.offset)


@asynccontextmanager
async def _reader(brokers: Brokers) -> AsyncIterator[Any]:
    consumer = AIOKafkaConsumer(**brokers.options(), enable_auto_commit=False, isolation_level="read_committed")
    await opened(consumer, brokers)
    try:
        yield consumer
    finally:
        await consumer.stop()
