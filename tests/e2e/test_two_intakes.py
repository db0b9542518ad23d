"""Two intake processes share a topic: one may be killed, or stopped in mid-transaction and woken up late."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg
import psutil
import pytest
from installation import PARTITIONS, Installation, Running, installed
from ride_books import check_chains, outcomes, states
from trips_export import write_trips

from service.lab.replay import read_trips
from service.lab.servers import Servers
from service.lab.trip_events import TripRecord, trip_records

ZONE = ZoneInfo("Europe/Oslo")
TRIPS = 60
PLAN = {
    "plan_id": "flat",
    "name": "Flat",
    "description": "Two kroner",
    "currency": "NOK",
    "price": "2",
    "is_taxable": False,
}
IMPATIENT = "lock_timeout=1s&idle_in_transaction_session_timeout=3s"
"""A test can't wait for as long as a city can."""
LOCK = "SELECT FROM stream_offset ORDER BY partition FOR UPDATE"
STUCK = """
SELECT client_port FROM pg_stat_activity
WHERE application_name = 'farebox intake writer' AND wait_event_type = 'Lock' AND datname = current_database()
"""


@pytest.fixture
async def installation(servers: Servers, migrated_template: str, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(servers, migrated_template, tmp_path) as made:
        yield made


async def rides(installation: Installation, tmp_path: Path, name: str) -> tuple[list[TripRecord], list[TripRecord]]:
    """The starts and the ends of `TRIPS` rides that cost 2 NOK each, and of two odd ones."""
    plan, empty = tmp_path / "plan.json", write_trips(tmp_path / "empty.csv", None)
    plan.write_text(json.dumps(PLAN))
    await installation.farebox("replay", empty, "--plan", plan, "--time-zone", ZONE.key, "--kafka")
    agreement = await installation.connection.fetchval("SELECT min(agreement_id) FROM agreement")
    trips = read_trips(write_trips(tmp_path / f"{name}.csv", TRIPS, prefix=name), ZONE)
    records = trip_records(trips, "flat", [agreement])
    starts = [record for record in records if is_start(record)]
    return starts, [record for record in records if not is_start(record)]


def is_start(record: TripRecord) -> bool:
    return dict(record.headers)["ce_id"].endswith(b"/started")


async def charged_once(installation: Installation, *names: str) -> None:
    """Every ride under these names has its one charge, the odd ones none, and the batches form one chain."""
    found = await outcomes(installation.connection)
    normal = {ride for ride in found if "-" not in ride}
    assert normal == {f"{name}{number:05}" for name in names for number in range(TRIPS)}
    assert {found[ride].amount_minor for ride in normal} == {200}
    assert {found[ride].reason for ride in found.keys() - normal} == {
        "ended_before_start",
        "longer_than_ride_hours_max",
    }
    assert len(found) == len(names) * (TRIPS + 2)
    await check_chains(installation.connection)


async def test_the_other_takes_over_when_one_is_killed(installation: Installation, tmp_path: Path) -> None:
    starts, ends = await rides(installation, tmp_path, "K")
    victim, _ = await installation.intake(), await installation.intake()
    shares = await installation.shared_by(2)
    assert sorted(map(len, shares.values())) == [PARTITIONS // 2, PARTITIONS // 2]
    await installation.publish(starts)
    await installation.all_taken()
    assert await states(installation.connection) == {"open": TRIPS + 2}
    victim.send_signal(signal.SIGKILL)
    await victim.wait()
    await installation.publish(ends)
    await installation.all_taken()
    await charged_once(installation, "K")
    (left,) = (await installation.shared_by(1)).values()
    assert left == set(range(PARTITIONS))


async def test_a_zombie_that_stopped_in_mid_transaction_changes_nothing(
    installation: Installation, tmp_path: Path
) -> None:
    starts, ends = await rides(installation, tmp_path, "Z")
    url = f"{installation.settings['FAREBOX_DATABASE_URL']}?{IMPATIENT}"
    processes = [await installation.intake(FAREBOX_DATABASE_URL=url, FAREBOX_RECORDS_MAX="8") for _ in range(2)]
    await installation.shared_by(2)
    await installation.publish(starts)
    await installation.all_taken()
    zombie = await stopped_in_mid_transaction(installation, processes, ends)
    await installation.all_taken()  # The heir waits until PostgreSQL has ended the zombie's transaction.
    await charged_once(installation, "Z")

    os.kill(zombie.pid, signal.SIGCONT)
    more_starts, more_ends = await rides(installation, tmp_path, "Y")
    await installation.publish(more_starts)
    await installation.publish(more_ends)
    await installation.all_taken()
    await charged_once(installation, "Z", "Y")
    if zombie.returncode is None:
        await installation.shared_by(2)


async def stopped_in_mid_transaction(
    installation: Installation, processes: list[Running], records: list[TripRecord]
) -> Running:
    """Publishes records, and stops one process after it has written all but the last statement of a transaction."""
    held = await asyncpg.connect(installation.settings["FAREBOX_DATABASE_URL"])
    async with held.transaction():
        await held.execute(LOCK)
        await installation.publish(records)
        stuck: set[int] = set()

        async def waits() -> bool:
            stuck.update(row["client_port"] for row in await installation.connection.fetch(STUCK))
            return bool(stuck)

        await installation.until(waits, "an intake at its fence")
        (zombie, *_) = [process for process in processes if ports_of(process) & stuck]
        os.kill(zombie.pid, signal.SIGSTOP)
    await held.close()
    return zombie


def ports_of(process: Running) -> set[int]:
    """The local ports of a process's connections."""
    return {connection.laddr.port for connection in psutil.Process(process.pid).net_connections() if connection.laddr}
