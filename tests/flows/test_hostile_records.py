"""Records that no producer of ours would send: taken or set aside on the real servers, never in the way of others."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from intake_world import NOON, World, furnish

from service.adapters.postgres import Database
from service.adapters.postgres.batches import FACTS_DECODER
from service.adapters.postgres.doors import QuarantineStore
from service.adapters.postgres.reading import BIGINT_MAX
from service.flows.intake.reading import condemn

Headers = Sequence[tuple[str, bytes | None]]
MB = 1 << 20
GOOD: Headers = (("ce_specversion", b"1.0"), ("content-type", b"application/json"))


class NotUtf8(str):
    """A header's name as a producer in another language may send it."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """Bytes that are no UTF-8."""
        return b"ce_\xff\xfe"


HOSTILE: dict[str, tuple[Headers, bytes | None]] = {
    "a header without a value": ([*GOOD, ("traceparent", None)], b"{}"),
    "an attribute without a value": ([*GOOD, ("ce_type", b"io.farebox.session.ended.v1"), ("ce_id", None)], b"{}"),
    "a header's name that is not UTF-8": ([*GOOD, (NotUtf8("x"), b"1")], b"{}"),
    "a NUL in the name of a header that stands twice": ([*GOOD, ("ce_\0", b"1"), ("ce_\0", b"2")], b"{}"),
    "lines in the names and values of headers": ([("ce_id\r\nx: y", b"\r\n\x1b[31m"), *GOOD], b"{}"),
    "gzip": ([*GOOD, ("content-encoding", b"gzip")], gzip.compress(b"{}")),
    "10 MB": (GOOD, b'{"session_id":"%b"}' % (b"x" * (10 * MB))),
    "10 MB of brackets": (GOOD, b"[" * (10 * MB)),
    "nothing": (GOOD, None),
}


@pytest.fixture
async def world(database_url: str, kafka_bootstrap: str, topic: Callable[..., Awaitable[str]]) -> AsyncIterator[World]:
    await furnish(database_url)
    it = World(database_url, kafka_bootstrap, await topic())
    await it.open()
    yield it
    await it.close()


async def send(world: World, key: bytes, headers: Headers, value: bytes | None) -> None:
    """A batch of one record, packed by the client's Python: its C takes no such names."""
    producer = AIOKafkaProducer(bootstrap_servers=world.bootstrap, max_request_size=16 * MB)
    await producer.start()
    try:
        batch = BatchBuilder(16 * MB, 2)
        batch._builder = _DefaultRecordBatchBuilderPy(2, 2, 0, -1, -1, 0, 16 * MB)
        assert batch.append(timestamp=1_790_000_000_000, key=key, value=value, headers=headers) is not None
        batch.close()
        await (await producer.send_batch(batch, world.topic, partition=0))
    finally:
        await producer.stop()


async def test_hostile_records_are_set_aside_whole_and_the_ride_behind_them_is_charged(world: World) -> None:
    for what, (headers, value) in HOSTILE.items():
        await send(world, what.encode(), [*headers, ("ce_what", what.encode())], value)
    await world.ride("good", 20)
    intake = await world.intake()
    await world.drain(intake, len(HOSTILE) + 2)
    assert (await world.charges())["good"] == ("closed", 250)
    held = await world.rows("SELECT fault, convert_from(record_key, 'UTF8') FROM quarantine ORDER BY 1, 2")
    assert held == sorted(("record", what) for what in HOSTILE)
    database = await Database.open(world.url, name="test", size_max=2)
    try:
        async with database.reading(QuarantineStore) as store:
            page = await store.page(1, True, BIGINT_MAX, None, 50)
    finally:
        await database.close()
    for record in page:
        what = (record.record_key or b"").decode()
        assert record.record_value == HOSTILE[what][1]
        assert len(record.record_headers) == len(HOSTILE[what][0]) + 1
    facts = await world.rows("SELECT facts FROM batch_facts")
    told = [fact for (text,) in facts for fact in FACTS_DECODER.decode(text) if fact.topic == "quarantine"]
    assert sorted(fact.key.decode() for fact in told) == sorted(HOSTILE)


def test_what_is_said_of_a_record_that_trips_us_can_be_kept_though_it_quotes_the_record() -> None:
    record = ConsumerRecord("t", 0, 7, 0, 0, b"k", b"v", None, 1, 1, (("x", None),))
    (held,) = condemn({0: [record]}, "ValueError: 'a\0b\udcff\x1b[31m'", NOON).quarantined
    assert (held.fault, held.reason) == ("service", "ValueError: 'a\ufffdb\ufffd\ufffd[31m'")
    assert held.record.headers == (("x", b""),)
