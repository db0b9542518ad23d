"""Decisions by everybody but the intake: a correction, several rides at once, a race that is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

import asyncpg
import pytest
from ride_builders import at, event, tariff, whole
from ride_world import RideWorld

from service.adapters.postgres import Database
from service.adapters.postgres.catalog import CatalogStore
from service.billing.batch import reconsider
from service.billing.catalog import BalanceBook, Catalog
from service.billing.events import Position
from service.billing.keys import session_key_bytes
from service.billing.rides import Revision, Ride
from service.flows.decisions import RACES_MAX, decide_rides, taking_in

NOWHERE = Position("", 0, 0)
"""An operator's own event comes from no topic."""


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[RideWorld]:
    database = await Database.open(database_url, name="test", size_max=20)
    found = RideWorld(database)
    await found.open(minutes=100)
    yield found
    await database.close()


def key_of(session: str) -> bytes:
    return session_key_bytes("default", session)


async def test_a_correction_is_appended_with_its_difference_and_its_fact(world: RideWorld) -> None:
    await world.take(*whole("corrected"))
    correction = event("corrected", 90, "by-hand", session="corrected", corrected_end=at(50), position=NOWHERE)
    for _ in range(2):
        (decision,) = await decide_rides(
            world.database, world.knowledge, taking_in(correction), keys=[key_of("corrected")], role="serve"
        )
    assert decision.revision is None, "asked again with the same event, it says nothing new"
    assert await world.state("corrected") == ("closed", None, 450)
    ride = decision.ride
    assert await world.sql(
        "SELECT amount_minor FROM obligation WHERE ride_no = $1 ORDER BY revision", ride.ride_no
    ) == [
        (250,),
        (200,),
    ]
    rows = await world.sql(
        "SELECT b.revisions, b.owing FROM batch b JOIN writer USING (writer_no) WHERE name LIKE 'serve/%'"
    )
    assert rows == [(1, [ride.ride_no])]


async def test_a_ride_that_does_not_exist_is_left_out(world: RideWorld) -> None:
    voided = event("voided", 90, session="nobody")
    assert not await decide_rides(world.database, world.knowledge, taking_in(voided), keys=[key_of("nobody")])


async def test_rides_of_one_slot_group_share_a_batch(world: RideWorld) -> None:
    sessions = [f"group-{number}" for number in range(40)]
    await world.take(*(item for session in sessions for item in whole(session)))

    def void(ride: Ride, catalog: Catalog, book: BalanceBook, now: datetime) -> Revision | None:
        voided = event("voided", 90, session=ride.session.counted[0].session_id, position=NOWHERE)
        return taking_in(voided)(ride, catalog, book, now)

    decisions = await decide_rides(world.database, world.knowledge, void, keys=map(key_of, sessions), role="many")
    assert len(decisions) == 40
    batches = await world.sql(
        "SELECT name, b.revisions FROM batch b JOIN writer USING (writer_no) WHERE name LIKE 'many/%'"
    )
    assert sum(count for _, count in batches) == 40
    assert len({name for name, _ in batches}) == len(batches) <= 16


async def test_whoever_loses_the_race_decides_anew_on_what_was_decided(world: RideWorld) -> None:
    await world.take(*whole("raced"))
    corrections = [
        event("corrected", 90 + number, f"c{number}", session="raced", distance=number, position=NOWHERE)
        for number in range(8)
    ]
    await asyncio.gather(
        *(
            decide_rides(world.database, world.knowledge, taking_in(item), keys=[key_of("raced")], role=f"r{number}")
            for number, item in enumerate(corrections)
        )
    )
    ride = await world.ride("raced")
    assert ride.revision == 9
    assert {item.id for item in ride.session.counted if item.kind == "corrected"} == {item.id for item in corrections}


async def test_whoever_always_loses_gives_up_and_changes_nothing(world: RideWorld) -> None:
    await world.take(*whole("unlucky"))
    asked = 0

    def stale(ride: Ride, catalog: Catalog, book: BalanceBook, now: datetime) -> Revision | None:
        nonlocal asked
        asked += 1
        return taking_in(event("voided", 90, session="unlucky"))(first, catalog, book, now)

    first = (await decide_rides(world.database, world.knowledge, lambda *_: None, keys=[key_of("unlucky")]))[0].ride
    await world.take(event("corrected", 91, session="unlucky", distance=1))
    with pytest.raises(asyncpg.UniqueViolationError):
        await decide_rides(world.database, world.knowledge, stale, keys=[key_of("unlucky")])
    assert asked == RACES_MAX
    assert (await world.state("unlucky"))[2] == 250


async def test_rides_of_a_rider_with_a_day_cap_are_decided_under_its_lock(world: RideWorld) -> None:
    await world.publish(
        tariff({"day_cap": "4.00", "lost_end": {"after_hours": 1, "charge": "ride_max"}}, name="capped")
    )
    sessions = [f"cap-{number}" for number in range(6)]
    await world.take(*(event("started", 0, session=session, tariff_id="capped") for session in sessions))
    async with world.database.reading(CatalogStore) as store:
        await world.knowledge.refresh(store)

    async def close(session: str) -> None:
        await decide_rides(world.database, world.knowledge, lost, keys=[key_of(session)], role=session)

    def lost(ride: Ride, catalog: Catalog, book: BalanceBook, now: datetime) -> Revision | None:
        return reconsider(ride, catalog, book, now, "deadline")

    await asyncio.gather(*(close(session) for session in sessions))
    totals = [(await world.state(session))[2] or 0 for session in sessions]
    assert sum(totals) == 400
    uses = await world.sql("SELECT before, after FROM cap_use ORDER BY before")
    assert [before for before, _ in uses] == [0, *(after for _, after in uses[:-1])]
    assert await world.sql("SELECT used FROM balance") == [(uses[-1][1],)]


async def test_a_true_end_through_decisions_is_taken_once(world: RideWorld) -> None:
    await world.take(*whole("end"))
    late = event("ended", 60, "again", session="end")
    (decision,) = await decide_rides(world.database, world.knowledge, taking_in(late), keys=[key_of("end")])
    assert decision.revision is not None
    assert decision.revision.conflicts == (late,)
    assert await world.state("end") == ("closed", None, 250)
