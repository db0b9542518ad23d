"""`farebox replay --kafka`: what it needs, what it refuses, what it leaves on the topic."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable

import asyncpg
import nursery
import pytest

from service.adapters.kafka_access import Brokers
from service.adapters.kafka_admin import bounds_of
from service.lab.kafka import create_topics

Replay = Callable[..., Awaitable[tuple[int, str]]]

TRIPS = """ride_id,started_at,ended_at
R1,2021-02-01 08:00:00,2021-02-01 08:10:00
R2,2021-02-01 09:00:00,2021-02-01 09:00:01
"""


def plan(**changes: object) -> str:
    flat = {"plan_id": "flat", "name": "n", "description": "d", "currency": "NOK", "price": "2", "is_taxable": False}
    return json.dumps(flat | changes)


@pytest.fixture(scope="module")
def topic(database_url: str) -> str:
    return f"replay-{database_url[-8:]}"


@pytest.fixture(scope="module")
async def replay(
    database_url: str, kafka_bootstrap: str, topic: str, tmp_path_factory: pytest.TempPathFactory
) -> Replay:
    """Runs `farebox replay` on the trips with a plan: exit code, and what it said. Once it did, with the flat plan."""
    await create_topics(Brokers(kafka_bootstrap), {topic: 1})
    directory = tmp_path_factory.mktemp("replay")
    trips, document = directory / "trips.csv", directory / "plan.json"
    trips.write_text(TRIPS)
    settings = {
        "FAREBOX_DATABASE_URL": database_url,
        "FAREBOX_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "FAREBOX_TOPIC_SESSIONS": topic,
        "COLUMNS": "400",
    }

    async def run(*arguments: str, text: str, **more: str) -> tuple[int, str]:
        document.write_text(text)
        fixed = ("replay", str(trips), "--plan", str(document), "--time-zone", "America/New_York")
        process = await asyncio.create_subprocess_exec(
            *nursery.farebox(*fixed, *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=os.environ | settings | more,
        )
        out, _ = await process.communicate()
        return process.returncode or 0, out.decode()

    assert await run("--kafka", text=plan()) == (0, "replay: 2 trips, 4 events published\n")
    return run


async def test_it_brings_the_tariff_and_agreements_that_it_needs(
    replay: Replay, database_url: str, kafka_bootstrap: str, topic: str
) -> None:
    """At a speed that makes the hour between the trips a tenth of a second."""
    _, before = (await bounds_of(Brokers(kafka_bootstrap), topic, [0]))[0]
    assert await replay("--kafka", "--speed", "36000", text=plan()) == (0, "replay: 2 trips, 4 events published\n")
    assert (await bounds_of(Brokers(kafka_bootstrap), topic, [0]))[0] == (0, before + 4)
    connection = await asyncpg.connect(database_url)
    versions = await connection.fetch(
        "SELECT tariff_id, version, valid_from FROM tariff JOIN tariff_version USING (tariff_no)"
    )
    agreements = await connection.fetch(
        "SELECT currency, state, (SELECT count(*) FROM stop s WHERE s.account_no = a.account_no) FROM agreement a"
    )
    await connection.close()
    assert [(row["tariff_id"], row["version"], row["valid_from"].year) for row in versions] == [("flat", 1, 2020)]
    assert {tuple(row) for row in agreements} == {("NOK", "active", 3)}
    assert await replay("--kafka", "--agreement", "replay-NOK-01", "--twice", "--shuffle", "1", text=plan()) == (
        0,
        "replay: 2 trips, 8 events published\n",
    )


@pytest.mark.parametrize(
    ("arguments", "changes", "said"),
    [
        (["--kafka"], {"price": "3", "plan_id": "flat2", "currency": "XXQ"}, "/currency: "),
        (["--kafka", "--agreement", "nobody"], {}, "has no agreement 'nobody'"),
        (["--kafka", "--agreement", "replay-NOK-01"], {"plan_id": "dear", "currency": "EUR"}, "is in NOK"),
        (["--kafka"], {"price": "3"}, "is there already and is not this plan"),
        (["--kafka", "--json-lines", "x"], {}, "takes no --json-lines"),
        (["--kafka", "--speed", "2", "--shuffle", "1"], {}, "no --speed with --shuffle"),
        (["--twice"], {}, "add it"),
        (["--kafka", "--speed", "0"], {}, "--speed"),
        (["--kafka", "--speed", "nan"], {}, "--speed"),
    ],
)
async def test_what_it_cannot_do_is_told_in_one_line_and_nothing_is_published(
    replay: Replay, kafka_bootstrap: str, topic: str, arguments: list[str], changes: dict[str, str], said: str
) -> None:
    before = await bounds_of(Brokers(kafka_bootstrap), topic, [0])
    code, out = await replay(*arguments, text=plan(**changes))
    assert code == 2
    assert said in out
    assert "Traceback" not in out
    assert await bounds_of(Brokers(kafka_bootstrap), topic, [0]) == before


async def test_without_its_topic_it_says_how_to_make_it(replay: Replay) -> None:
    code, out = await replay("--kafka", text=plan(), FAREBOX_TOPIC_SESSIONS="nowhere")
    assert (code, out) == (2, "farebox: topic 'nowhere' is not there: make it with `farebox topics`\n")


async def test_a_tariff_that_begins_after_the_trips_is_refused(replay: Replay) -> None:
    late = {"tariff_id": "late", "valid_from": "2022-01-01T00:00:00Z", "plan": json.loads(plan())}
    code, out = await replay("--kafka", text=json.dumps(late))
    assert code == 2
    assert "tariff 'late' holds from 2021-12-31T19:00:00-05:00 on, and a ride begins at 2021-02-01T08:00" in out
