"""What the source of records says of how far partitions were read, also of those that are not its own any more."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable

from aiokafka import AIOKafkaProducer

from service.adapters.kafka import ConsumerSettings, RecordSource
from service.adapters.kafka_access import Brokers


async def test_the_end_of_a_partition_that_was_taken_away_is_not_known(
    kafka_bootstrap: str, topic: Callable[..., Awaitable[str]]
) -> None:
    """The broker forgets a member that it did not hear, while its last batch is being written."""
    group = f"source-{secrets.token_hex(4)}"
    source = RecordSource(ConsumerSettings(Brokers(kafka_bootstrap), await topic(), group, 10_000, 6_000))
    await source.start()
    try:
        assert source.ended_at_ms(7, 2**62) is None
    finally:
        await source.stop()


async def test_a_partition_was_read_to_its_end_when_the_broker_said_so_and_not_when_its_records_were_taken_up(
    kafka_bootstrap: str, topic: Callable[..., Awaitable[str]]
) -> None:
    """What the client fetched ahead may lie here while the process stands still, and others write."""
    name = await topic(partitions=1)
    group = f"source-{secrets.token_hex(4)}"
    source = RecordSource(ConsumerSettings(Brokers(kafka_bootstrap), name, group, 10_000, 6_000))
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, acks="all") as producer:
        for value in (b"first", b"second"):
            await producer.send_and_wait(name, value, partition=0)
        await source.start()
        try:
            async with asyncio.timeout(20):
                while not source.waiting:  # noqa: ASYNC110  The client joins the group by itself.
                    await asyncio.sleep(0.01)
                source.seek(0, 0)
                assert await values(source) == [b"first"]
                assert source.ended_at_ms(0, 1) is None
                await asyncio.sleep(0.05)
                before_ms = time.time_ns() // 1_000_000
                await producer.send_and_wait(name, b"third", partition=0)
                assert await values(source) == [b"second"]
                told_ms = source.ended_at_ms(0, 2)
                assert told_ms is not None
                assert told_ms < before_ms
                assert await values(source) == [b"third"]
                assert (source.ended_at_ms(0, 3) or 0) >= before_ms
        finally:
            await source.stop()


async def values(source: RecordSource) -> list[bytes]:
    """The next record, once it is there."""
    while not (records := await source.fetch(1, 1_000)):
        pass
    return [record.value for record in records[0]]
