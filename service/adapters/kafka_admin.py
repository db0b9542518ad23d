"""Kafka as those who run the service look at it: who reads a topic, and where its partitions begin and end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import msgspec
import stamina
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError, for_code


class Member(msgspec.Struct, frozen=True):
    """A process in a consumer group, as the broker knows it."""

    client_id: str
    host: str


@stamina.retry(on=(GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError), timeout=15, attempts=None)
async def members_of(bootstrap: str, group: str) -> list[Member]:
    """Who is in a consumer group; a process that was killed stays until its session timeout is over.

    A broker that has just been started knows no coordinator for a moment: it is asked again for up to 15 seconds.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        (answer,) = await admin.describe_consumer_groups([group])
        found = answer.to_object()["groups"][0]
        if found["error_code"]:
            raise for_code(found["error_code"])(group)
        return [Member(member["client_id"], member["client_host"]) for member in found["members"]]
    finally:
        await admin.close()


async def bounds_of(bootstrap: str, topic: str, partitions: list[int]) -> dict[int, tuple[int, int]]:
    """The first offset that is there and the one after the last, by partition."""
    keys = [TopicPartition(topic, partition) for partition in partitions]
    async with _reader(bootstrap) as consumer:
        firsts = await consumer.beginning_offsets(keys)
        ends = await consumer.end_offsets(keys)
    return {key.partition: (firsts[key], ends[key]) for key in keys}


async def offset_at(bootstrap: str, topic: str, partition: int, instant: datetime) -> int | None:
    """The first offset whose record is not older than `instant`, or None when all are."""
    key = TopicPartition(topic, partition)
    async with _reader(bootstrap) as consumer:
        found = (await consumer.offsets_for_times({key: int(instant.timestamp() * 1000)}))[key]
    return None if found is None else int(found.offset)


@asynccontextmanager
async def _reader(bootstrap: str) -> AsyncIterator[Any]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, isolation_level="read_committed")
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()
