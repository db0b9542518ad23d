"""Records that no producer of ours would send: taken or set aside on the real servers, never in the way of others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiokafka import ConsumerRecord
from hostile import HOSTILE, send, take_any_timestamp
from intake_world import NOON, World, world_on

from service.adapters.postgres import Database
from service.adapters.postgres.batches import FACTS_DECODER
from service.adapters.postgres.doors import QuarantineStore
from service.adapters.postgres.reading import BIGINT_MAX
from service.adapters.postgres.streams import NOTHING_READ
from service.billing.facts.quarantine import RECORD_BYTES_MAX, record_bytes
from service.flows.clock import BusinessClock
from service.flows.intake.reading import condemn
from service.flows.knowledge import Knowledge
from service.lab.servers import Servers

LONG = {what for what, (headers, value) in HOSTILE.items() if record_bytes(None, headers, value) > RECORD_BYTES_MAX}
TIMESTAMPS = (2**63 - 1, 2**62, 253_402_300_800_000, 4_102_444_800_000, 0, -1)
"""Kafka's, in ms since 1970; the third is the first instant after the year 9999, the fourth begins 2100."""


@pytest.fixture
async def world(servers: Servers, migrated_template: str, topic: Callable[..., Awaitable[str]]) -> AsyncIterator[World]:
    async with world_on(servers, migrated_template, await topic()) as world:
        yield world


async def test_hostile_records_are_set_aside_whole_and_the_ride_behind_them_is_charged(world: World) -> None:
    for what, (headers, value) in HOSTILE.items():
        await send(world.bootstrap, world.topic, what.encode(), [*headers, ("ce_what", what.encode())], value)
    await world.ride("good", 20)
    intake = await world.intake()
    await world.drain(intake, len(HOSTILE) + 2)
    assert (await world.charges())["good"] == ("closed", 250)
    held = await world.rows("SELECT fault, convert_from(record_key, 'UTF8') FROM quarantine ORDER BY 1, 2")
    assert held == sorted(("record", what) for what in HOSTILE)
    database = await Database.open(world.url, name="test", size_max=2)
    try:
        async with database.reading(QuarantineStore) as store:
            page = [
                await store.find(1, True, line.quarantine_no)
                for line in await store.page(1, True, BIGINT_MAX, None, 50)
            ]
    finally:
        await database.close()
    for record in page:
        assert record is not None
        what = (record.record_key or b"").decode()
        assert record.record_value == HOSTILE[what][1]
        assert len(record.record_headers) == len(HOSTILE[what][0]) + 1
    facts = await world.rows("SELECT facts FROM batch_facts")
    told = [fact for (text,) in facts for fact in FACTS_DECODER.decode(text) if fact.topic == "quarantine"]
    assert {fact.key.decode() for fact in told if fact.key is not None} == HOSTILE.keys() - LONG
    assert sum(fact.key is None for fact in told) == len(LONG) >= 3


async def test_a_record_may_say_that_it_was_made_in_any_year(world: World) -> None:
    await take_any_timestamp(world.bootstrap, world.topic)
    for at_ms in TIMESTAMPS:
        await send(world.bootstrap, world.topic, b"%d" % at_ms, [], b"{}", at_ms)
    await world.ride("good", 20)
    intake = await world.intake(records_max=1)
    await world.drain(intake, 2)
    assert await world.value("SELECT read_through_at FROM stream_offset") == NOTHING_READ, "it is believed"
    await world.drain(intake, len(TIMESTAMPS) + 2)
    assert (await world.charges())["good"] == ("closed", 250)
    held = await world.rows("SELECT fault, record_timestamp_ms FROM quarantine ORDER BY quarantine_no")
    assert held == [("record", at_ms) for at_ms in TIMESTAMPS]


def test_what_is_said_of_a_record_that_trips_us_can_be_kept_though_it_quotes_the_record() -> None:
    record = ConsumerRecord("t", 0, 7, 0, 0, b"k", b"v", None, 1, 1, (("x", None),))
    knowledge = Knowledge(BusinessClock(), 0)
    (held,) = condemn({0: [record]}, "ValueError: 'a\0b\udcff\x1b[31m'", NOON, knowledge).quarantined
    assert (held.fault, held.reason) == ("service", "ValueError: 'a\\x00b\\udcff\\x1b[31m'")
    assert held.record.headers == (("x", None),)
