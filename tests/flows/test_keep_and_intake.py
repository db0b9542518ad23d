"""The intake on real Kafka and `keep` beside it: a lost end, its true end, records without a source; then the audit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from intake_world import BIKE, NOON, World, world_on

from service.adapters.clock import machine_now
from service.adapters.postgres import Database
from service.adapters.postgres.operators import OperatorStore
from service.billing.auditing.problems import Problem
from service.billing.tariffs import import_document
from service.flows.audit import audit
from service.flows.clock import BusinessClock
from service.flows.clock_setting import later, set_clock
from service.flows.housekeeping import Housekeeping
from service.flows.knowledge import Knowledge
from service.flows.tariffs import publish_tariff
from service.lab.servers import Servers

HURRIED: dict[str, Any] = {
    **BIKE,
    "tariff_id": "hurried",
    "plan": {**BIKE["plan"], "plan_id": "hurried"},
    "rules": {"ride_max": "30.00", "lost_end": {"after_hours": 1, "charge": "ride_max"}},
}


@pytest.fixture
async def world(servers: Servers, migrated_template: str, topic: Callable[..., Awaitable[str]]) -> AsyncIterator[World]:
    async with world_on(servers, migrated_template, await topic(partitions=2)) as world:
        yield world


@pytest.fixture
async def database(world: World) -> AsyncIterator[Database]:
    found = await Database.open(world.url, name="test")
    async with found.reading(OperatorStore) as store:
        operator = await store.default()
    assert operator is not None
    (draft,) = import_document(msgspec.json.encode(HURRIED))
    await publish_tariff(found, operator, draft, now=machine_now(), lead=timedelta(0))
    yield found
    await found.close()


async def assert_in_order(world: World) -> None:
    problems: list[Problem] = []
    audited = await audit(world.url, problems.append, lambda done, total: None)
    assert [problem.line() for problem in problems] == []
    assert audited.rides == await world.value("SELECT count(*) FROM session_key")


async def test_a_lost_end_is_charged_once_it_was_read_past_and_re_rated_by_the_true_one(
    world: World, database: Database
) -> None:
    intake = await world.intake()
    keep = Housekeeping(database, Knowledge(BusinessClock(), 0), world.group, world.topic)
    await world.publish("started", "lost", NOON, tariff_id="hurried")
    await world.ride("whole", 20)
    await world.ride("odd", -20)
    await world.publish("ended", "half", NOON)
    await world.drain(intake, 6)
    await set_clock(database, later(timedelta(hours=30)))
    await world.value(
        "UPDATE stream_offset SET read_through_at = $1 WHERE partition <>"
        " (SELECT (events::jsonb -> 0 -> 'p' ->> 1)::int FROM ride_revision WHERE state = 'incomplete' LIMIT 1)",
        NOON,
    )
    await keep.round()
    assert (await world.charges())["lost"] == ("open", None), "the intake has not read so far yet"
    async with asyncio.timeout(30):
        while (await world.charges())["lost"] != ("closed", 450) or (await world.charges())["half"][0] != "review":
            await world.step(intake)
            await keep.round()
    await assert_in_order(world)
    await world.publish("ended", "lost", NOON + timedelta(minutes=20), tariff_id="hurried")
    await world.drain(intake, 7)
    assert await world.charges() == {
        "lost": ("closed", 250),
        "whole": ("closed", 250),
        "odd": ("review", None),
        "half": ("review", None),
    }
    await assert_in_order(world)


async def test_events_of_an_unmapped_source_wait_and_go_back_to_the_stream(world: World, database: Database) -> None:
    await world.rows("UPDATE installation SET default_operator_no = NULL RETURNING 1")
    intake = await world.intake()
    keep = Housekeeping(database, Knowledge(BusinessClock(), 0), world.group, world.topic)
    await world.ride("waits", 20)
    await world.drain(intake, 2)
    assert await world.charges() == {}
    assert await keep.round() == 0
    source = "INSERT INTO operator_source SELECT topic, source, 1, $1 FROM quarantine LIMIT 1 RETURNING source"
    assert await world.rows(source, NOON)
    again = Housekeeping(database, Knowledge(BusinessClock(), 0), world.group, world.topic)
    assert await again.round() == 2
    assert await world.rows("SELECT DISTINCT state FROM quarantine") == [("replayed",)]
    await assert_in_order(world)
