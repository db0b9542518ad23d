"""A trips export through real Kafka and real intake processes costs what it costs offline, whatever is killed."""

from __future__ import annotations

import json
import signal
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from installation import Installation, installed
from ride_books import Outcome, check_chains, outcomes
from trips_export import write_trips

from service.lab.replay import read_trips
from service.lab.servers import Servers
from service.lab.trip_events import deliveries, trip_records

ZONE = "America/New_York"
TRIPS = 198
KILLS = 10
HASTY = {"FAREBOX_RECORDS_MAX": "2", "FAREBOX_SESSION_TIMEOUT_MS": "1000"}
"""Many small batches, so that a kill lands between two of them or within one; and the dead are missed soon."""
PLAN = {
    "tariff_id": "bike",
    "time_zone": ZONE,
    "plan": {
        "plan_id": "bike",
        "name": "Bike",
        "description": "By the quarter of an hour and the kilometre",
        "currency": "USD",
        "price": "1.475",
        "is_taxable": False,
        "per_min_pricing": [{"start": 15, "rate": "0.99", "interval": 15}],
        "per_km_pricing": [{"start": 2, "rate": "0.125", "interval": 1}],
    },
    "rules": {"ride_max": "9.50"},
}


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trips(tmp_path_factory.mktemp("trips") / "trips.csv", TRIPS)


@pytest.fixture(scope="module")
def plan(export: Path) -> Path:
    path = export.with_name("plan.json")
    path.write_text(json.dumps(PLAN))
    return path


@pytest.fixture(scope="module")
def empty(export: Path) -> Path:
    """An export without a trip: replaying it makes the tariff and the agreements."""
    return write_trips(export.with_name("empty.csv"), None)


@pytest.fixture
async def installation(servers: Servers, migrated_template: str, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(servers, migrated_template, tmp_path) as made:
        yield made


async def offline(installation: Installation, export: Path, plan: Path) -> dict[str, Outcome]:
    """What `farebox replay` says that each trip costs."""
    lines = export.with_suffix(".jsonl")
    said = await installation.farebox("replay", export, "--plan", plan, "--time-zone", ZONE, "--json-lines", lines)
    assert said.startswith(f"replay: {TRIPS + 2} trips, {TRIPS} priced, 2 to review")
    prices = map(json.loads, lines.read_text().splitlines())
    return {price["session_id"]: Outcome(price["amount_minor"], price.get("reason")) for price in prices}


async def test_every_charge_is_the_offline_price_and_a_second_delivery_changes_nothing(
    installation: Installation, export: Path, plan: Path
) -> None:
    await installation.intake()
    arguments = ("replay", export, "--plan", plan, "--time-zone", ZONE, "--kafka")
    said = await installation.farebox(*arguments)
    assert said == f"replay: {TRIPS + 2} trips, {2 * TRIPS + 4} events published\n"
    expected = await offline(installation, export, plan)
    await installation.all_taken()
    found = await outcomes(installation.connection)
    assert found == expected
    assert found["T-backwards"] == Outcome(None, "ended_before_start")
    assert found["T-forgotten"] == Outcome(None, "longer_than_ride_hours_max")

    said = await installation.farebox(*arguments, "--twice", "--shuffle", "7")
    assert said == f"replay: {TRIPS + 2} trips, {4 * TRIPS + 8} events published\n"
    decisions = await installation.connection.fetchval("SELECT count(*) FROM ride_revision")
    await installation.all_taken()
    assert await installation.connection.fetchval("SELECT count(*) FROM ride_revision") == decisions
    assert await outcomes(installation.connection) == expected
    assert await check_chains(installation.connection) > 0
    assert await installation.connection.fetchval("SELECT count(*) FROM quarantine") == 0


async def test_ten_kills_lose_nothing_and_charge_nothing_twice(
    installation: Installation, export: Path, empty: Path, plan: Path
) -> None:
    arguments = ("--plan", plan, "--time-zone", ZONE, "--kafka")
    assert await installation.farebox("replay", empty, *arguments) == "replay: 0 trips, 0 events published\n"
    found = await installation.connection.fetch("SELECT agreement_id FROM agreement ORDER BY 1")
    records = trip_records(read_trips(export, ZoneInfo(ZONE)), "bike", [row["agreement_id"] for row in found])
    delivered = deliveries(records, twice=True, shuffle=11)

    running = deque([await installation.intake(**HASTY) for _ in range(2)])
    slice_size = len(delivered) // (KILLS + 1)
    in_the_middle = 0
    for kill in range(KILLS):
        running.append(await installation.intake(**HASTY))
        reached = await installation.taken() + 5
        await installation.publish(delivered[kill * slice_size : (kill + 1) * slice_size])

        async def underway(reached: int = reached) -> bool:
            return await installation.taken() >= reached

        await installation.until(underway, f"{reached} records taken")
        victim = running.popleft()
        victim.send_signal(signal.SIGKILL)
        await victim.wait()
        in_the_middle += await installation.taken() < (kill + 1) * slice_size
    await installation.publish(delivered[KILLS * slice_size :])
    await installation.all_taken()
    assert await outcomes(installation.connection) == await offline(installation, export, plan)
    assert await check_chains(installation.connection) > 0
    assert in_the_middle >= KILLS // 2
