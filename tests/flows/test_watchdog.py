"""The stall watchdog: silent stalls of the clients end the process, servers that are away do not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from intake_world import NOON, World, world_on

from service.adapters.postgres import Database
from service.flows.clock import elapsed
from service.flows.intake import Intake
from service.flows.intake.watchdog import StalledError, Watchdog
from service.lab.servers import Servers

STALL_SECONDS = 30.0


@pytest.fixture
async def world(servers: Servers, migrated_template: str, topic: Callable[..., Awaitable[str]]) -> AsyncIterator[World]:
    async with world_on(servers, migrated_template, await topic()) as world:
        yield world


async def stopped(world: World) -> Intake:
    """An intake that has read a ride, and then nothing for longer than is allowed."""
    intake = await world.intake()
    await world.ride("read", 20)
    await world.drain(intake, 2)
    intake.progress_at = elapsed() - 2 * STALL_SECONDS
    return intake


async def test_behind_without_a_commit_for_long_ends_the_process(world: World) -> None:
    intake = await stopped(world)
    database = await Database.open(world.url, name="watchdog", size_max=1)
    watchdog = Watchdog(intake, intake.source, database, STALL_SECONDS)
    await watchdog.look()
    await world.publish("started", "waits", NOON)
    with pytest.raises(StalledError, match="1 records wait"):
        await watchdog.look()
    intake.progress_at = elapsed()
    await watchdog.look()
    await database.close()


async def test_a_database_that_is_away_is_no_stall_of_ours(world: World) -> None:
    intake = await stopped(world)
    await world.publish("started", "waits", NOON)
    database = await Database.open(world.url, name="watchdog", size_max=1)
    await database.close()
    await Watchdog(intake, intake.source, database, STALL_SECONDS).look()
    assert elapsed() - intake.progress_at < STALL_SECONDS
