"""Setting the virtual clock: speed, jumps, no way back, and the months it comes to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from ride_builders import at, event
from ride_world import RideWorld

from service.adapters.postgres import Database
from service.flows.clock_setting import ClockError, faster, later, read_clock, set_clock, standing_at


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[RideWorld]:
    database = await Database.open(database_url, name="test")
    found = RideWorld(database)
    await found.open()
    yield found
    await database.close()


class Machine:
    """The machine's clock, moved by hand."""

    def __init__(self) -> None:
        self.now = at(0)

    def __call__(self) -> datetime:
        return self.now


async def test_the_clock_goes_on_from_where_it_stands_at_its_new_pace(world: RideWorld) -> None:
    machine = Machine()
    await set_clock(world.database, faster(60), machine)
    machine.now += timedelta(minutes=1)
    assert (await read_clock(world.database, machine)).business_at == at(60)
    await set_clock(world.database, later(timedelta(hours=1)), machine)
    assert (await read_clock(world.database, machine)).business_at == at(120)
    machine.now += timedelta(minutes=1)
    assert (await read_clock(world.database, machine)).business_at == at(180)
    await set_clock(world.database, faster(0), machine)
    machine.now += timedelta(days=1)
    assert (await read_clock(world.database, machine)).business_at == at(180)


async def test_a_jump_comes_to_months_that_are_there(world: RideWorld) -> None:
    machine = Machine()
    await set_clock(world.database, later(timedelta(days=400)), machine)
    await world.take(event("started", 400 * 1440, session="far"))
    await set_clock(world.database, later(timedelta(days=80)), machine)
    await world.take(event("started", 480 * 1440, session="farther"))
    assert (await world.ride("farther")).revision == 1


async def test_it_runs_back_only_while_nothing_derives_from_it(world: RideWorld) -> None:
    await world.tamper("DELETE FROM ride_revision")
    await world.tamper("DELETE FROM batch")
    await world.clock(100)
    assert (await set_clock(world.database, standing_at(at(0)), Machine())).business_at == at(0)
    await world.read_through(50)
    with pytest.raises(ClockError, match="never runs backwards"):
        await set_clock(world.database, standing_at(at(-1)), Machine())
    await world.read_through(-10)
    await world.take(event("started", 0, session="first"))
    with pytest.raises(ClockError, match="never runs backwards"):
        await set_clock(world.database, standing_at(at(-1)), Machine())


async def test_a_jump_of_a_lifetime_is_refused(world: RideWorld) -> None:
    with pytest.raises(ClockError, match="too far ahead"):
        await set_clock(world.database, later(timedelta(days=40_000)), Machine())
