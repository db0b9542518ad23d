"""The roles as processes: what stops their start is one line, and a server that goes away is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec
import nursery
import pytest
from installation import Installation, installed
from proxy import Proxy

from service.cli.roles import ALL
from service.lab.processes import free_ports
from service.lab.servers import Servers, lab
from service.lab.trip_events import TripRecord


@pytest.fixture
async def installation(servers: Servers, migrated_template: str, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(servers, migrated_template, tmp_path) as made:
        yield made


def ride(number: int) -> TripRecord:
    """Half a ride of nobody: it is parked, which is enough to see that it was read."""
    name, kind = f"ride-{number}", "started"
    data = {"session_id": name, "agreement_id": "nobody", "tariff_id": "none"}
    headers = {
        "ce_specversion": "1.0",
        "ce_id": f"{name}/{kind}",
        "ce_source": "urn:test",
        "ce_type": f"io.farebox.session.{kind}.v1",
        "ce_time": datetime.now(UTC).isoformat(),
    }
    encoded = [(header, text.encode()) for header, text in headers.items()]
    return TripRecord(datetime.now(UTC), name.encode(), encoded, msgspec.json.encode(data))


async def refused(settings: dict[str, str], role: str) -> str:
    """Starts a role that can't start; its exit code is 2 and the last thing it says one line."""
    process = await asyncio.create_subprocess_exec(
        *nursery.farebox(role),
        env=os.environ | settings | {"FAREBOX_LOG_LEVEL": "error"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode == 2, out.decode()
    assert b"Traceback" not in out
    (line,) = out.decode().splitlines()
    return line


NO_SCHEMA = "the database has no Farebox schema: run `farebox migrate` first"
Spoil = Callable[[Installation], Awaitable[dict[str, str]]]


async def no_schema(installation: Installation) -> dict[str, str]:
    await installation.connection.execute("DROP TABLE alembic_version")
    return {}


async def newer_schema(installation: Installation) -> dict[str, str]:
    await installation.connection.execute("UPDATE alembic_version SET version_num = '9999'")
    return {}


async def no_topic(installation: Installation) -> dict[str, str]:
    return {"FAREBOX_TOPIC_SESSIONS": "there-is-none"}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_schema, NO_SCHEMA),
        (newer_schema, "more than a release newer than this one's 0001: run a newer Farebox"),
        (no_topic, "topic 'there-is-none' is not there: create it"),
    ],
)
async def test_what_stops_a_start_is_one_line_that_says_what_to_do(
    installation: Installation, spoil: Spoil, said: str
) -> None:
    changed = await spoil(installation)
    assert said in await refused(installation.settings | changed, "intake")


@pytest.mark.parametrize("role", sorted({*ALL} - {"intake"}))
async def test_every_role_ends_at_its_start_where_the_schema_is_missing(installation: Installation, role: str) -> None:
    settings = installation.settings | await no_schema(installation) | {"FAREBOX_HTTP_PORT": str(free_ports(1)[0])}
    assert await refused(settings, role) == f"farebox: {role} stops: {NO_SCHEMA}"


async def test_all_roles_say_last_why_they_end(installation: Installation) -> None:
    settings = installation.settings | await no_schema(installation) | {"FAREBOX_HTTP_PORT": str(free_ports(1)[0])}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "all"),
        env=os.environ | settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(90):
        out, _ = await process.communicate()
    assert process.returncode == 2, out.decode()
    assert re.fullmatch(rf"farebox: \w+ stops: {NO_SCHEMA}", out.decode().splitlines()[-1])


async def test_all_roles_told_to_stop_end_with_0(installation: Installation) -> None:
    process = await installation.role("all", FAREBOX_HTTP_PORT=str(free_ports(1)[0]))
    await installation.publish([ride(1)])
    await installation.all_taken()
    process.terminate()
    async with asyncio.timeout(60):
        assert await process.wait() == 0, installation.logs()


@pytest.mark.parametrize(("role", "variable"), [("publish", "FAREBOX_HEALTH_PORT"), ("serve", "FAREBOX_HTTP_PORT")])
async def test_a_port_in_use_is_one_line(installation: Installation, role: str, variable: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = installation.settings | {variable: str(taken.getsockname()[1])}
        assert re.search("in use", await refused(settings, role), re.IGNORECASE)


async def ready(port: int) -> int:
    """What /readyz answers; 0 while nobody listens."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as answer:
            return answer.status
    except aiohttp.ClientConnectionError:
        return 0


async def answers(port: int, status: int) -> bool:
    """Whether /readyz answers so."""
    return await ready(port) == status


async def test_a_database_that_goes_away_is_waited_for_and_nothing_is_lost(installation: Installation) -> None:
    url = urlsplit(installation.settings["FAREBOX_DATABASE_URL"])
    proxy = Proxy(url.hostname or "", url.port or 0)
    through = url._replace(netloc=f"{url.username}:{url.password}@127.0.0.1:{await proxy.start()}").geturl()
    (health,) = free_ports(1)
    process = await installation.role("intake", FAREBOX_DATABASE_URL=through, FAREBOX_HEALTH_PORT=str(health))
    await installation.publish([ride(number) for number in range(20)])
    await installation.all_taken()
    await installation.until(lambda: answers(health, 200), "ready")
    proxy.cut()
    await installation.publish([ride(number) for number in range(20, 40)])
    await installation.until(lambda: answers(health, 503), "not ready")
    proxy.mend()
    await installation.all_taken()
    await installation.until(lambda: answers(health, 200), "ready again")
    assert process.returncode is None
    assert await installation.connection.fetchval("SELECT count(*) FROM ride_revision") == 40
    await proxy.stop()


async def test_a_broker_that_is_started_again_is_waited_for_and_nothing_is_lost(
    servers: Servers, migrated_template: str, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with lab(tmp_path / "lab", database_url=servers.database_url) as own:
            installation = await stack.enter_async_context(installed(own, migrated_template, tmp_path))
            process = await installation.role("intake")
            await installation.publish([ride(number) for number in range(20)])
            await installation.all_taken()
        async with lab(tmp_path / "lab", database_url=servers.database_url) as again:
            assert again.kafka_bootstrap == own.kafka_bootstrap
            await installation.publish([ride(number) for number in range(20, 40)])
            await installation.all_taken()
            assert process.returncode is None
            assert await installation.connection.fetchval("SELECT count(*) FROM ride_revision") == 40
            await stack.aclose()


async def test_sigterm_finishes_the_batch_tells_kafka_and_ends_with_0(installation: Installation) -> None:
    process = await installation.role("intake")
    await installation.publish([ride(number) for number in range(300)])

    async def begun() -> bool:
        return await installation.taken() > 0

    await installation.until(begun, "the first batch")
    process.terminate()
    async with asyncio.timeout(30):
        assert await process.wait() == 0
    taken = await installation.taken()
    assert await installation.connection.fetchval("SELECT count(*) FROM ride_revision") == taken
    assert await installation.committed() == taken
    await installation.role("intake")
    await installation.all_taken()
    assert await installation.connection.fetchval("SELECT count(*) FROM ride_revision") == 300
