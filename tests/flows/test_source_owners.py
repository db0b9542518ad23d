"""Whose the events of a source are stays as it was when the first of them came, whatever is mapped since."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest
from intake_world import NOON, World, world_on

from service.adapters.postgres import Database
from service.flows.operators import OperatorError, map_source, set_default_operator
from service.lab.servers import Servers

SOURCE = "urn:mds:provider:test"
"""Of the world's rides: nobody has mapped it."""
OWNERS = """
SELECT operator_id, count(DISTINCT ride_no) FROM ride_revision JOIN operator USING (operator_no) GROUP BY 1 ORDER BY 1
"""


@pytest.fixture
async def world(servers: Servers, migrated_template: str, topic: Callable[..., Awaitable[str]]) -> AsyncIterator[World]:
    async with world_on(servers, migrated_template, await topic(partitions=2)) as world:
        await world.value(
            "INSERT INTO operator (operator_id, name, time_zone, currency, created_at)"
            " VALUES ('city', 'City', 'Asia/Shanghai', 'CNY', now()) RETURNING operator_no"
        )
        yield world


@pytest.fixture
async def database(world: World) -> AsyncIterator[Database]:
    found = await Database.open(world.url, name="test")
    yield found
    await found.close()


async def sources(world: World) -> list[tuple[str, str, bool]]:
    return await world.rows(
        "SELECT source, operator_id, by_default FROM operator_source JOIN operator USING (operator_no) ORDER BY source"
    )


async def test_a_source_whose_rides_are_billed_is_not_given_to_another_operator(
    world: World, database: Database
) -> None:
    """It was, without a word; the same two events, come again, were another operator's ride, and debited again."""
    await world.ride("ride", 20)
    await world.drain(await world.intake(), 2)
    with pytest.raises(OperatorError, match=f"{SOURCE} on .* was taken by operator 'default'"):
        await map_source(database, "city", world.topic, SOURCE, NOON)
    assert await map_source(database, "default", world.topic, SOURCE, NOON)
    assert not await map_source(database, "default", world.topic, SOURCE, NOON)
    assert await sources(world) == [(SOURCE, "default", False)]


@pytest.mark.parametrize("default", ["default", None])
async def test_what_is_held_while_its_source_is_mapped_is_the_operators(
    world: World, database: Database, default: str | None
) -> None:
    """The process does not know of it yet, and a record that can't be read takes no source."""
    await set_default_operator(database, default)
    intake = await world.intake()
    for name in (b"before", b"after"):
        if name == b"after":
            assert await map_source(database, "city", world.topic, SOURCE, NOON)
        await world.send(name, b"{", {"ce_type": "io.farebox.session.started.v1", "ce_source": SOURCE}, partition=0)
        await world.drain(intake, 1 if name == b"before" else 2)
    held = "SELECT operator_id, fault, source FROM quarantine LEFT JOIN operator USING (operator_no)"
    assert await world.rows(held) == [("city", "record", SOURCE)] * 2


async def test_a_source_is_mapped_once_what_is_being_held_of_it_is_committed(world: World, database: Database) -> None:
    writer = await asyncpg.connect(world.url)
    transaction = writer.transaction()
    await transaction.start()
    await writer.execute(
        "INSERT INTO quarantine (topic, partition, record_offset, record_timestamp_ms, record_headers, fault, reason,"
        " path, source, created_at) VALUES ($1, 0, 0, 0, '', 'record', 'broken', '$', $2, now())",
        *(world.topic, SOURCE),
    )
    mapping = asyncio.create_task(map_source(database, "city", world.topic, SOURCE, NOON))
    waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'quarantine'::regclass AND NOT granted"
    async with asyncio.timeout(20):
        while not await world.value(waiting):  # noqa: ASYNC110  Another connection waits.
            await asyncio.sleep(0.01)
    await transaction.commit()
    assert await mapping
    await writer.close()
    assert await world.rows("SELECT operator_id FROM quarantine LEFT JOIN operator USING (operator_no)") == [("city",)]


@pytest.mark.parametrize("default", ["city", None])
async def test_another_default_operator_takes_nothing_of_a_source_that_was_taken(
    world: World, database: Database, default: str | None
) -> None:
    await world.ride("ride", 20)
    first = await world.intake()
    await world.drain(first, 2)
    await world.leave(first)
    await set_default_operator(database, default)
    await world.ride("ride", 20)
    await world.ride("next", 20)
    await world.drain(await world.intake(), 4)
    assert await world.charges() == {"ride": ("closed", 250), "next": ("closed", 250)}
    assert await world.rows(OWNERS) == [("default", 2)]


async def test_a_source_that_is_mapped_before_its_first_event_is_taken_up_is_read_as_its_owners(
    world: World, database: Database
) -> None:
    """The process had read the map a moment before: nobody's, it said."""
    intake = await world.intake()
    await world.ride("first", 20, source="urn:other")
    await world.drain(intake, 2)
    assert await map_source(database, "city", world.topic, SOURCE, NOON)
    await world.ride("ride", 20)
    await world.drain(intake, 4)
    assert await sources(world) == [(SOURCE, "city", False), ("urn:other", "default", True)]
    assert await world.rows(OWNERS) == [("city", 1), ("default", 1)]
