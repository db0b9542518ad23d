"""What is looked at again by itself: lost ends, halves, reservations, parked rides; and the chores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from ride_builders import at, event, tariff
from ride_world import RideWorld

from service.adapters.postgres import Database
from service.adapters.postgres.batches import FACTS_DECODER
from service.billing.events import Position

DAY = 1440
HURRY = tariff({"lost_end": {"after_hours": 1, "charge": "review"}}, name="hurry")
"""The sweep passes rides by the shortest of all tariffs, so that one of a day is watched before its day is over."""


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[RideWorld]:
    database = await Database.open(database_url, name="test")
    found = RideWorld(database)
    await found.open()
    await found.publish(HURRY)
    yield found
    await database.close()


async def test_a_lost_end_is_charged_at_its_deadline_and_re_rated_by_the_true_one(world: RideWorld) -> None:
    await world.take(event("started", 0, session="lost"))
    await world.rounds(DAY - 1)
    assert await world.state("lost") == ("open", None, None)
    await world.rounds(DAY + 1)
    assert await world.state("lost") == ("closed", "end_missing", 3000)
    assert await world.watched("lost") is None
    await world.clock(2 * DAY)
    await world.take(event("ended", 20, session="lost"))
    assert await world.state("lost") == ("closed", None, 250)
    ride_no = (await world.ride("lost")).ride_no
    owed = await world.sql("SELECT kind, amount_minor FROM obligation WHERE ride_no = $1 ORDER BY revision", ride_no)
    assert owed == [("charge", 3000), ("correction", -2750)]
    moved = await world.sql("SELECT sum(amount_minor) FROM transfer WHERE ride_no = $1", ride_no)
    assert moved == [(3000 + 2750,)]


async def test_no_ride_is_lost_while_its_partition_is_unread(world: RideWorld) -> None:
    await world.take(event("started", 0, session="late", position=Position("rides", 1, 7)))
    await world.read_through(30 * DAY, 0)
    await world.read_through(DAY - 1, 1)
    await world.rounds(30 * DAY, read=False)
    assert (await world.state("late"))[0] == "open"
    await world.take(event("paused", 5, session="late", position=Position("rides", 1, 8)))
    await world.read_through(DAY, 1)
    await world.rounds(30 * DAY + 20, read=False)
    assert await world.state("late") == ("closed", "end_missing", 3000)


async def test_the_sweep_passes_each_ride_once_and_leaves_what_is_decided(world: RideWorld) -> None:
    await world.take(event("started", 0, session="open"), event("started", 0, session="short", tariff_id="hurry"))
    await world.take(event("started", 0, session="done"), event("ended", 5, session="done"))
    await world.rounds(90)
    assert await world.watched("open") == ("open", at(DAY)), "passed after the shortest time, due at its own"
    assert await world.watched("done") is None
    assert await world.state("short") == ("review", "end_missing", None)
    through = await world.sql("SELECT through_ride_no FROM sweep")
    await world.rounds(90)
    assert await world.sql("SELECT through_ride_no FROM sweep") == through


async def test_the_sweep_never_overtakes_what_may_still_be_committed(world: RideWorld) -> None:
    await world.clock(10 * DAY)
    await world.read_through(5, 0)
    await world.round()
    world_now = 10  # A process whose clock is behind mints a number after the one that was read so far.
    await world.clock(world_now)
    await world.take(event("started", 6, session="slow"))
    await world.rounds(10 * DAY)
    assert (await world.state("slow"))[0] == "closed"


async def test_a_start_that_never_comes_is_for_somebody_to_look_at(world: RideWorld) -> None:
    await world.take(event("ended", 0, session="half"))
    assert await world.watched("half") == ("incomplete", at(DAY))
    await world.rounds(DAY)
    assert await world.state("half") == ("review", "start_missing", None)
    assert await world.watched("half") is None
    await world.take(event("started", -20, session="half"))
    assert (await world.state("half"))[2] == 250


async def test_a_half_that_was_completed_is_not_looked_at_any_more(world: RideWorld) -> None:
    await world.take(event("ended", 0, session="whole"))
    await world.take(event("started", -20, session="whole"))
    await world.rounds(DAY)
    assert await world.watched("whole") is None
    assert (await world.ride("whole")).revision == 2


async def test_a_half_that_became_open_is_watched_to_its_real_deadline(world: RideWorld) -> None:
    await world.take(event("paused", 0, session="opened"))
    await world.clock(300)
    await world.take(event("started", -5, session="opened"))
    assert await world.watched("opened") == ("open", at(DAY - 5))
    await world.rounds(DAY)
    assert await world.state("opened") == ("closed", "end_missing", 3000)


async def test_a_reservation_runs_out_and_the_ride_after_it_counts(world: RideWorld) -> None:
    await world.take(event("reservation_started", 0, session="reserved"))
    await world.rounds(14)
    assert (await world.state("reserved"))[0] == "reserved"
    await world.rounds(15)
    assert await world.state("reserved") == ("closed", "reservation", 150)
    await world.clock(60)
    await world.take(event("started", 16, session="reserved"), event("ended", 36, session="reserved"))
    assert await world.state("reserved") == ("closed", None, 150 + 250)


@pytest.mark.parametrize("lacks", ["agreement", "tariff"])
async def test_a_parked_ride_is_taken_up_before_it_is_due(world: RideWorld, lacks: str) -> None:
    missing = {f"{lacks}_id": "new"}
    await world.take(event("started", 0, session=lacks, **missing), event("ended", 5, session=lacks, **missing))
    await world.rounds(0)
    assert (await world.state(lacks))[0] == "parked"
    await (world.agree("new") if lacks == "agreement" else world.publish(tariff(name="new")))
    await world.rounds(1)
    assert await world.state(lacks) == ("closed", None, 150)
    assert await world.watched(lacks) is None


async def test_a_parked_ride_without_an_end_is_watched_once_it_is_taken_up(world: RideWorld) -> None:
    await world.take(event("started", 0, session="parked", tariff_id="newer"))
    await world.rounds(2 * DAY)
    assert (await world.state("parked"))[0] == "parked", "it is nobody's lost end"
    await world.publish(tariff(name="newer"))
    await world.rounds(2 * DAY)
    assert await world.state("parked") == ("closed", "end_missing", 3000)


async def test_a_parked_ride_is_looked_at_seldomer_the_longer_it_is_there(world: RideWorld) -> None:
    await world.take(event("started", 0, session="stays", tariff_id="never"))
    dues = []
    for _ in range(6):
        watched = await world.watched("stays")
        assert watched is not None
        dues.append(watched[1])
        await world.rounds((watched[1] - at(0)) / timedelta(minutes=1))
    gaps = [(later - earlier) / timedelta(minutes=5) for earlier, later in pairwise(dues)]
    assert gaps == [1, 2, 4, 8, 16]


async def test_two_keepers_decide_once(world: RideWorld) -> None:
    await world.take(event("started", 0, session="twice"))
    await world.rounds(DAY - 1)
    await world.clock(DAY)
    await world.read_through(DAY)
    other = RideWorld(world.database)
    await world.round()
    await other.round()
    assert (await world.ride("twice")).revision == 2


async def test_a_ride_that_cannot_be_decided_is_set_aside_and_the_others_go_on(world: RideWorld) -> None:
    await world.take(*(event("started", 0, session=f"b-{number}") for number in range(3)))
    await world.rounds(DAY - 1)
    broken = (await world.ride("b-1")).ride_no
    await world.tamper("UPDATE ride_revision SET events = '[' WHERE ride_no = $1", broken)
    await world.rounds(DAY)
    assert [(await world.state(f"b-{number}"))[0] for number in (0, 2)] == ["closed", "closed"]
    assert await world.sql("SELECT due_at FROM watch WHERE ride_no = $1", broken) == [(at(DAY + 60),)]
    await world.tamper("DELETE FROM ride_revision WHERE ride_no = $1", broken)


async def test_records_of_a_source_that_is_mapped_now_go_back_to_the_stream(world: RideWorld) -> None:
    await world.sql("UPDATE installation SET default_operator_no = NULL")
    headers = [("ce_id", b"1"), ("ce_id", b"2")]
    for offset, source in enumerate(["urn:a", "urn:b", "urn:a"]):
        await world.sql(
            "INSERT INTO quarantine (topic, partition, record_offset, record_timestamp_ms, record_key, record_headers,"
            " record_value, fault, reason, path, source, created_at)"
            " VALUES ('rides', 0, $1, 0, 'key', $2, $3, 'unmapped_source', 'r', 'p', $4, $5)",
            offset,
            msgspec.msgpack.encode(headers),
            str(offset).encode(),
            source,
            at(0),
        )
    await world.rounds(1)
    assert await world.sql("SELECT count(*) FROM quarantine WHERE state = 'held'") == [(3,)]
    await world.sql("INSERT INTO operator_source VALUES ('rides', 'urn:a', 1, $1)", at(0))
    await world.rounds(2)
    rows = await world.sql("SELECT record_offset, state, decided_at FROM quarantine ORDER BY record_offset")
    assert rows == [(0, "replayed", at(2)), (1, "held", None), (2, "replayed", at(2))]
    facts = await world.sql(
        "SELECT facts FROM batch_facts f JOIN writer w USING (writer_no) WHERE name = 'keep/0' ORDER BY f.seq DESC"
    )
    records = FACTS_DECODER.decode(facts[0][0])
    assert [(record.topic, record.key, record.value) for record in records] == [
        ("sessions", b"key", b"0"),
        ("sessions", b"key", b"2"),
    ]
    assert [list(map(tuple, record.headers)) for record in records] == [headers, headers]
    await world.sql("UPDATE installation SET default_operator_no = 1")
    await world.rounds(3)
    assert await world.sql("SELECT count(*) FROM quarantine WHERE state = 'held'") == [(0,)]


async def test_published_facts_are_dropped_and_their_batches_stay(world: RideWorld) -> None:
    await world.take(event("started", 0, session="f-1"), event("ended", 5, session="f-1"))
    await world.take(event("started", 0, session="f-2"), event("ended", 5, session="f-2"))
    ((writer_no, last),) = await world.sql("SELECT writer_no, seq FROM writer WHERE name = 'intake/test'")
    await world.sql(
        "INSERT INTO batch_reader VALUES ('publication', $1, $2)"
        " ON CONFLICT (reader, writer_no) DO UPDATE SET seq = excluded.seq",
        writer_no,
        last - 1,
    )
    await world.rounds(1)
    assert await world.sql("SELECT seq FROM batch_facts WHERE writer_no = $1", writer_no) == [(last,)]
    assert await world.sql("SELECT count(*) FROM batch WHERE writer_no = $1", writer_no) == [(last,)]


async def test_answers_are_kept_for_a_week_of_the_machines_time(world: RideWorld) -> None:
    ages: dict[str, Any] = {"old": timedelta(days=7, minutes=5), "young": timedelta(days=6, hours=23)}
    for name, age in ages.items():
        await world.sql(
            "INSERT INTO idempotency (operator_no, route, idempotency_key, request_digest, machine_at)"
            " VALUES (1, 'r', $1, '', $2)",
            name,
            world.machine_at - age,
        )
    await world.rounds(100 * DAY)
    assert await world.sql("SELECT idempotency_key FROM idempotency") == [("young",)]


async def test_which_notifications_came_is_known_for_a_month_of_the_machines_time(world: RideWorld) -> None:
    await world.sql(
        "INSERT INTO merchant_account (operator_no, account_id, provider, base_url, created_at)"
        " VALUES (1, 'noticed', 'sandbox', 'http://provider.invalid', $1)",
        world.machine_at,
    )
    ages: dict[str, Any] = {"old": timedelta(days=30, minutes=5), "young": timedelta(days=29, hours=23)}
    for name, age in ages.items():
        await world.sql(
            "INSERT INTO notification SELECT account_no, $1, 'debit', 'key', 'K', true, 1, $2, $2"
            " FROM merchant_account WHERE account_id = 'noticed'",
            name,
            world.machine_at - age,
        )
    await world.rounds(100 * DAY)
    assert await world.sql("SELECT notification_id FROM notification") == [("young",)]


async def test_the_months_ahead_are_made_by_the_business_clock(world: RideWorld) -> None:
    async def months() -> int:
        rows = await world.sql("SELECT count(*) FROM pg_class WHERE relname ~ '^transfer_[0-9]{4}_[0-9]{2}$'")
        return int(rows[0][0])

    before = await months()
    await world.rounds(300 * DAY)
    assert await months() > before
    later = await months()
    await world.rounds(300 * DAY)
    assert await months() == later
