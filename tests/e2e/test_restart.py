"""A topic that was made again stops the intake, and is read on only when somebody says where."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from installation import PARTITIONS, Installation, installed
from ride_books import check_chains, outcomes
from trips_export import write_trips

from service.adapters.clock import machine_now
from service.adapters.kafka import partitions_of
from service.adapters.kafka_access import Brokers
from service.adapters.postgres import Database
from service.flows.restart import restart_stream
from service.lab.kafka import create_topics
from service.lab.replay import read_trips
from service.lab.servers import Servers
from service.lab.trip_events import TripRecord, trip_records

ZONE = ZoneInfo("Asia/Tokyo")
TRIPS = 40
PLAN = {
    "plan_id": "flat",
    "name": "Flat",
    "description": "100 yen",
    "currency": "JPY",
    "price": "100",
    "is_taxable": False,
}


@pytest.fixture
async def installation(servers: Servers, migrated_template: str, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(servers, migrated_template, tmp_path) as made:
        yield made


async def test_a_topic_made_again_is_read_on_when_told_and_charges_nothing_twice(
    installation: Installation, tmp_path: Path
) -> None:
    first, second = await events(installation, tmp_path, "A"), await events(installation, tmp_path, "B")
    intake = await installation.intake()
    await installation.publish([unusable(first[0]), *first])
    await installation.all_taken()
    intake.send_signal(signal.SIGTERM)
    assert await intake.wait() == 0

    await make_again(installation)
    again = [unusable(first[0]), *first, *second]
    random.Random(3).shuffle(again)
    await installation.publish(again)
    assert await (await installation.intake()).wait() == 2
    assert "say where to read on with `farebox stream restart`" in installation.logs()

    await restart_everything(installation)
    await installation.intake()
    await installation.all_taken()
    found = await outcomes(installation.connection)
    assert len(found) == 2 * (TRIPS + 2)
    assert sum(ride.amount_minor or 0 for ride in found.values()) == 2 * TRIPS * 100
    await check_chains(installation.connection)
    assert await installation.connection.fetchval("SELECT count(*) FROM quarantine") == 2
    reasons = await installation.connection.fetch("SELECT DISTINCT reason FROM stream_restart")
    assert [row["reason"] for row in reasons] == ["made again by mistake"]


async def events(installation: Installation, tmp_path: Path, name: str) -> list[TripRecord]:
    """The events of some trips whose tariff and agreement are there."""
    plan, empty = tmp_path / "plan.json", write_trips(tmp_path / "empty.csv", None)
    plan.write_text(json.dumps(PLAN))
    await installation.farebox("replay", empty, "--plan", plan, "--time-zone", ZONE.key, "--kafka")
    trips = read_trips(write_trips(tmp_path / f"{name}.csv", TRIPS, prefix=name), ZONE)
    return trip_records(trips, "flat", ["replay-JPY-01"])


def unusable(record: TripRecord) -> TripRecord:
    return record._replace(value=b"{")


async def make_again(installation: Installation) -> None:
    """Deletes the topic and makes it anew, under the same name."""
    admin = AIOKafkaAdminClient(bootstrap_servers=installation.bootstrap)
    await admin.start()
    await admin.delete_topics([installation.topic])
    await admin.close()

    async def gone() -> bool:
        return not (await partitions_of(Brokers(installation.bootstrap), [installation.topic])).get(installation.topic)

    await installation.until(gone, "topic deleted")
    await create_topics(Brokers(installation.bootstrap), {installation.topic: PARTITIONS})


async def restart_everything(installation: Installation) -> None:
    """Partition 0 by the command, the others by what it calls."""
    why = "made again by mistake"
    said = await installation.farebox("stream", "restart", "--partition", "0", "--from", "earliest", "--reason", why)
    assert said.endswith("is now read from 0\n")
    database = await Database.open(installation.settings["FAREBOX_DATABASE_URL"], name="test")
    for partition in range(1, PARTITIONS):
        where = (Brokers(installation.bootstrap), installation.group, installation.topic, partition)
        await restart_stream(database, *where, "earliest", why, machine_now())
    await database.close()
