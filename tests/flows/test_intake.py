"""The intake on real Kafka and PostgreSQL: one charge per ride, whatever is repeated, cut off or unusable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest
from intake_world import NOON, World, world_on

from service.adapters.kafka_access import Brokers
from service.adapters.postgres.intake import FenceLostError
from service.billing.extent import EVENTS_MAX
from service.flows.intake import SAME_RACES_MAX
from service.flows.intake.streams import TopicChangedError
from service.lab.kafka import create_topics, delete_topics
from service.lab.servers import Servers


@pytest.fixture
async def world(servers: Servers, migrated_template: str, topic: Callable[..., Awaitable[str]]) -> AsyncIterator[World]:
    async with world_on(servers, migrated_template, await topic(partitions=2)) as world:
        yield world


async def test_a_ride_is_charged_once_whichever_half_comes_first(world: World) -> None:
    await world.ride("straight", 20)
    await world.publish("ended", "backwards", NOON + timedelta(minutes=20))
    await world.publish("started", "backwards", NOON)
    await world.drain(await world.intake(), 4)
    assert await world.charges() == {"straight": ("closed", 250), "backwards": ("closed", 250)}
    assert await world.value("SELECT sum(amount_minor)::bigint FROM transfer") == 500


async def test_halves_in_different_batches_make_two_revisions_and_one_charge(world: World) -> None:
    intake = await world.intake()
    await world.publish("started", "ride", NOON)
    await world.drain(intake, 1)
    assert await world.charges() == {"ride": ("open", None)}
    await world.publish("ended", "ride", NOON + timedelta(minutes=50))
    await world.drain(intake, 2)
    assert await world.charges() == {"ride": ("closed", 450)}
    assert await world.rows("SELECT revision, state::text FROM ride_revision ORDER BY 1") == [
        (1, "open"),
        (2, "closed"),
    ]


async def test_the_same_records_again_change_nothing_even_with_nothing_remembered(world: World) -> None:
    for again in range(3):
        for number in range(20):
            await world.ride(f"ride-{number}", 10 + number)
        intake = await world.intake(rides_max=again)
        await world.drain(intake, 40 * (again + 1))
        await world.leave(intake)
    charges = await world.charges()
    assert len(charges) == 20
    assert {state for state, _ in charges.values()} == {"closed"}
    assert await world.value("SELECT count(*) FROM obligation") == 20
    assert await world.value("SELECT sum(revisions)::int FROM batch") == await world.value(
        "SELECT count(*)::int FROM ride_revision"
    )


async def test_what_names_no_agreement_is_about_that_of_its_ride_whoever_takes_it(world: World) -> None:
    first = await world.intake()
    await world.ride("corrected", 20)
    await world.publish("started", "paused", NOON)
    await world.drain(first, 3)
    await world.leave(first)
    await world.publish("corrected", "corrected", NOON, ended_at=NOON + timedelta(minutes=50), reason="read off wrong")
    await world.publish("paused", "paused", NOON + timedelta(minutes=1))
    await world.drain(await world.intake(), 5)
    assert await world.charges() == {"corrected": ("closed", 450), "paused": ("open", None)}


async def test_a_second_end_that_differs_is_a_conflict_and_moves_no_money(world: World) -> None:
    intake = await world.intake()
    await world.ride("ride", 20)
    await world.drain(intake, 2)
    await world.publish("ended", "ride", NOON + timedelta(minutes=90), nth="again")
    await world.drain(intake, 3)
    assert await world.charges() == {"ride": ("closed", 250)}
    (facts,) = await world.rows("SELECT facts FROM batch_facts ORDER BY writer_no, seq DESC LIMIT 1")
    assert b"session.conflict" in facts[0]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (b"not json", "$.data"),
        (b"\xff\xfe", "$.data"),
        (b'{"session_id": "bad", "agreement_id": "agreement-1"}', "$.data.tariff_id"),
    ],
)
async def test_an_unusable_record_is_held_raw_and_the_stream_goes_on(world: World, value: bytes, path: str) -> None:
    headers = {
        "ce_specversion": "1.0",
        "ce_id": "1",
        "ce_source": "x",
        "ce_type": "io.farebox.session.started.v1",
        "ce_time": NOON.isoformat(),
    }
    await world.send(b"bad", value, headers, partition=0)
    await world.ride("good", 20)
    await world.drain(await world.intake(), 3)
    assert await world.charges() == {"good": ("closed", 250)}
    ((held, found, state),) = await world.rows("SELECT record_value, path, state FROM quarantine")
    assert (held, state) == (value, "held")
    assert found.startswith(path)


async def test_a_ride_that_never_stops_saying_something_is_for_people_and_holds_up_nobody(world: World) -> None:
    """Each of its events cost as much as it had: a day of a lock that flaps was minutes of work."""
    intake = await world.intake()
    await world.publish("started", "flapping", NOON)
    flaps = (("paused", "resumed")[number % 2] for number in range(1, EVENTS_MAX))
    times = (NOON + timedelta(seconds=number) for number in range(1, EVENTS_MAX))
    await asyncio.gather(
        *(world.publish(kind, "flapping", at, nth=f"{at}") for kind, at in zip(flaps, times, strict=True))
    )
    await world.drain(intake, EVENTS_MAX)
    again = NOON + timedelta(seconds=2)
    await world.publish("paused", "flapping", again, nth=f"{again}")
    await world.publish("paused", "flapping", NOON + timedelta(minutes=85), nth="one too many")
    await world.publish("ended", "flapping", NOON + timedelta(minutes=90))
    await world.ride("quiet", 20)
    await world.drain(intake, EVENTS_MAX + 5)
    assert await world.charges() == {"flapping": ("review", None), "quiet": ("closed", 250)}
    ((operator_no, fault, reason, headers),) = await world.rows(
        "SELECT operator_no, fault, reason, record_headers FROM quarantine"
    )
    assert (operator_no, fault) == (1, "record")
    assert f"its ride has {EVENTS_MAX} events" in reason
    assert b"one too many" in headers
    await world.publish(
        "corrected", "flapping", NOON, ended_at=NOON + timedelta(minutes=20), reason="the lock is broken"
    )
    await world.drain(intake, EVENTS_MAX + 6)
    assert (await world.charges())["flapping"] == ("closed", 250)


async def test_a_record_that_the_database_refuses_is_found_among_many_and_held_as_our_fault(world: World) -> None:
    await world.value("ALTER TABLE ride_revision ADD CHECK (events NOT LIKE '%poison%')")
    for number in range(30):
        await world.ride(f"ride-{number}", 20)
    await world.publish("started", "poison", NOON)
    await world.drain(await world.intake(), 61)
    charges = await world.charges()
    assert len(charges) == 30
    assert {owed for _, owed in charges.values()} == {250}
    ((fault, reason, key),) = await world.rows("SELECT fault, reason, record_key FROM quarantine")
    assert (fault, key) == ("service", b"poison")
    assert reason.startswith("CheckViolationError")


async def test_a_fence_that_is_lost_again_and_again_ends_no_intake(world: World) -> None:
    intake = await world.intake()
    await world.ride("first", 20)
    await world.drain(intake, 2)
    await world.value("CREATE SEQUENCE tries")
    await world.value(
        "CREATE FUNCTION nobody_moves() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN PERFORM nextval('tries'); RETURN NULL; END $$"
    )
    await world.value(
        "CREATE TRIGGER nobody_moves BEFORE UPDATE ON stream_offset FOR EACH ROW"
        " WHEN (NEW.next_offset > OLD.next_offset) EXECUTE FUNCTION nobody_moves()"
    )
    await world.ride("second", 20)
    async with asyncio.timeout(60):
        while await world.value("SELECT last_value FROM tries") <= SAME_RACES_MAX + 1:
            await world.step(intake)
    assert await world.charges() == {"first": ("closed", 250)}
    await world.value("DROP TRIGGER nobody_moves ON stream_offset")
    await world.drain(intake, 4)
    assert await world.charges() == {"first": ("closed", 250), "second": ("closed", 250)}


async def test_a_zombie_is_fenced_off_and_the_heir_goes_on(world: World) -> None:
    intake = await world.intake()
    await world.ride("first", 20)
    await world.drain(intake, 2)
    await world.value("UPDATE stream_offset SET next_offset = next_offset + 1")
    await world.publish("started", "skipped", NOON)
    await world.publish("started", "skipped", NOON, nth="2")
    with pytest.raises(FenceLostError):
        async with asyncio.timeout(20):
            while True:
                await intake.round()
                await intake.settle()
    assert "skipped" not in await world.charges()


async def test_the_connection_cut_in_the_middle_loses_and_repeats_nothing(world: World) -> None:
    intake = await world.intake(records_max=50)
    for number in range(150):
        await world.ride(f"ride-{number}", 20)
    cuts = 0
    async with asyncio.timeout(40):
        while await world.value("SELECT coalesce(sum(next_offset), 0) FROM stream_offset") < 300:
            await world.step(intake)
            if cuts < 4:
                cuts += 1
                await world.value(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE application_name LIKE 'farebox intake%' AND datname = current_database()"
                )
    charges = await world.charges()
    assert len(charges) == 150
    assert {owed for _, owed in charges.values()} == {250}
    assert await world.value("SELECT count(*) FROM obligation") == 150


async def test_a_day_cap_holds_across_a_riders_rides_on_different_partitions(world: World) -> None:
    for number in range(6):
        await world.ride(f"ride-{number}", 20, NOON + timedelta(hours=number), tariff_id="capped")
    await world.ride("other", 20, NOON, tariff_id="capped", agreement_id="agreement-2")
    await world.drain(await world.intake(records_max=3), 14)
    charges = await world.charges()
    own = [owed or 0 for session, (_, owed) in charges.items() if session != "other"]
    assert sorted(own) == [0, 0, 0, 100, 250, 250]
    assert charges["other"] == ("closed", 250)
    chain = await world.rows(
        "SELECT before, after FROM cap_use WHERE rider_no = (SELECT rider_no FROM rider WHERE rider_ref = 'rider-1')"
        " ORDER BY after"
    )
    assert [after for _, after in chain[:-1]] == [before for before, _ in chain[1:]]


async def test_events_of_a_source_that_nobody_mapped_are_held_raw(world: World) -> None:
    await world.value("UPDATE installation SET default_operator_no = NULL")
    await world.value(
        "INSERT INTO operator_source (topic, source, operator_no, created_at) VALUES ($1, 'urn:known', 1, now())",
        world.topic,
    )
    await world.ride("held", 20)
    await world.ride("taken", 20, source="urn:known")
    await world.send(
        b"broken", b"{", {"ce_type": "io.farebox.session.started.v1", "ce_source": "urn:known"}, partition=0
    )
    await world.drain(await world.intake(), 5)
    assert await world.charges() == {"taken": ("closed", 250)}
    held = await world.rows("SELECT operator_no, fault, source FROM quarantine ORDER BY source")
    assert held == [(1, "record", "urn:known"), *[(None, "unmapped_source", "urn:mds:provider:test")] * 2]


async def test_a_topic_that_was_made_again_stops_the_intake(world: World) -> None:
    await world.ride("ride", 20)
    first = await world.intake()
    await world.drain(first, 2)
    await world.leave(first)
    await delete_topics(Brokers(world.bootstrap), [world.topic])
    await create_topics(Brokers(world.bootstrap), {world.topic: 2})
    for number in range(8):
        await world.ride(f"new-{number}", 20)
    second = await world.intake()
    with pytest.raises(TopicChangedError, match="farebox stream restart"):
        async with asyncio.timeout(20):
            while True:
                await second.round()
    assert list(await world.charges()) == ["ride"]


async def test_the_first_start_can_be_an_instant(world: World) -> None:
    await world.ride("before", 20)
    instant = await world.value("SELECT clock_timestamp()")
    await asyncio.sleep(0.01)
    await world.ride("after", 20)
    intake = await world.intake(start_from=instant.isoformat())
    async with asyncio.timeout(20):
        while "after" not in await world.charges():
            await world.step(intake)
    assert await world.charges() == {"after": ("closed", 250)}
