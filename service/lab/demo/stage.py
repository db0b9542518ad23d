"""The demo's stage: servers, providers and roles as real processes, on the installation's virtual clock.

The simulator's clock runs with the installation's; localstripe has no other clock than the machine's.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import aiohttp
import asyncpg
import msgspec
from rich.console import Console

from service.adapters.migrate import migrate
from service.lab.demo.cards import FaultyDoor
from service.lab.demo.furnishing import furnish
from service.lab.demo.merchants import FAULTS, SHARES, Merchant, Places, open_accounts, open_to_visitors
from service.lab.kafka import create_topics
from service.lab.localstripe import command, open_door
from service.lab.processes import Child, Children, free_ports, wait_for_port
from service.lab.producer import Pace
from service.lab.servers import Servers, lab

TOPICS = {"rental.sessions": 6, "rental.billing": 6, "rental.sessions.quarantine": 1}
ROLES = ("intake", "collect", "publish", "keep", "serve")

CLOCKS_SECONDS = 1.5
"""After so long, machine time, every role has read a clock that was set: they do so once a second."""

FOLLOW_SECONDS = 0.5
"""How often, machine time, it is looked whether the installation's clock was set."""


class Stage(msgspec.Struct, frozen=True):
    """Where everything is."""

    servers: Servers
    database_url: str
    places: Places
    merchants: list[Merchant]
    door: FaultyDoor
    token: str
    children: Children
    roles: dict[str, Child]
    logs: Path
    environment: dict[str, str]

    def command(self, *words: str) -> list[str]:
        """A command of this program, in this Python."""
        return [sys.executable, "-m", "service", *words]


@asynccontextmanager
async def stage(logs: Path, seed: int, since: datetime, console: Console) -> AsyncIterator[Stage]:
    """The whole installation, furnished, with the business clock standing at `since`."""
    keys = _directory(logs / "keys")
    async with lab(console=console) as servers, Children() as children, aiohttp.ClientSession() as session:
        database_url = await servers.create_database("farebox")
        await migrate(database_url, since)
        await create_topics(servers.brokers, TOPICS)
        ports = free_ports(3 + len(ROLES))
        provider, api, cards = (f"http://127.0.0.1:{port}" for port in ports[:3])
        simulator = [sys.executable, "-m", "service", "provider-simulator", "--port", str(ports[0])]
        simulator += ["--seed", str(seed)]
        providers = [
            (children.start("provider", simulator, logs / "provider.log"), ports[0]),
            (children.start("localstripe", command(ports[2]), logs / "localstripe.log"), ports[2]),
        ]
        for child, port in providers:
            await wait_for_port(child, port)
        door = FaultyDoor(cards, session, seed)
        async with open_door(door) as door_url:
            places = Places(api, provider, cards, door_url)
            merchants = await open_accounts(places, keys, tuple(SHARES))
            token = await _furnish(database_url, merchants, since)
            await set_clock(database_url, provider, Pace(datetime.now(UTC), since, 1.0))
            environment = _environment(servers, database_url, ports[1])
            roles = {}
            for role, port in zip(ROLES, ports[3:], strict=True):
                own = environment if role == "serve" else environment | {"FAREBOX_HEALTH_PORT": str(port)}
                words = [sys.executable, "-m", "service", role]
                roles[role] = children.start(role, words, logs / f"{role}.log", env=own)
            await wait_for_port(roles["serve"], ports[1], timeout_s=60)
            yield Stage(servers, database_url, places, merchants, door, token, children, roles, logs, environment)


def _directory(path: Path) -> Path:
    path.mkdir(mode=0o700)
    return path


def _environment(servers: Servers, database_url: str, port: int) -> dict[str, str]:
    return {
        "FAREBOX_DATABASE_URL": database_url,
        "FAREBOX_KAFKA_BOOTSTRAP": servers.kafka_bootstrap,
        "FAREBOX_HTTP_PORT": str(port),
        "FAREBOX_LOG_LEVEL": "warning",
        "FAREBOX_SESSION_TIMEOUT_MS": "10000",
    }


async def set_troubles(stage: Stage, *, on: bool) -> None:
    """From now on the providers' side has its troubles, or none."""
    rates = FAULTS if on else {}
    url = f"{stage.places.provider}/rates"
    async with aiohttp.ClientSession() as session, session.put(url, json=rates) as answer:
        answer.raise_for_status()
    (stage.door.trouble if on else stage.door.calm)()


async def let_run(stage: Stage) -> None:
    """For whoever tries things afterwards: business time runs on at its natural speed, and signing is simple."""
    await open_to_visitors(stage.places, stage.merchants)
    connection = await asyncpg.connect(stage.database_url)
    try:
        at = await connection.fetchval("SELECT clock_business_at FROM installation")
    finally:
        await connection.close()
    await set_clock(stage.database_url, stage.places.provider, Pace(datetime.now(UTC), at, 1.0))


async def set_clock(database_url: str, provider: str, pace: Pace) -> None:
    """Sets the installation's clock and the provider's to the same pace."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(
            "UPDATE installation SET clock_mode = 'virtual', clock_machine_at = $1, clock_business_at = $2,"
            " clock_speed = $3",
            pace.machine_at,
            pace.business_at,
            pace.speed,
        )
    finally:
        await connection.close()
    await _set_providers_clock(provider, pace)


async def follow_clock(database_url: str, provider: str) -> None:
    """The provider's clock goes where the installation's is set (`farebox clock`), until cancelled."""
    followed: Pace | None = None
    while True:
        connection = await asyncpg.connect(database_url)
        try:
            row = await connection.fetchrow(
                "SELECT clock_machine_at, clock_business_at, clock_speed FROM installation WHERE clock_mode = 'virtual'"
            )
        finally:
            await connection.close()
        pace = followed if row is None else Pace(*row)
        if pace is not None and pace != followed:
            await _set_providers_clock(provider, pace)
            followed = pace
        await asyncio.sleep(FOLLOW_SECONDS)


async def _set_providers_clock(provider: str, pace: Pace) -> None:
    face = {"now": pace.now().isoformat(), "speed": pace.speed}
    async with aiohttp.ClientSession() as session, session.put(f"{provider}/clock", json=face) as answer:
        answer.raise_for_status()


async def stop_clock(stage: Stage, pace: Pace) -> datetime:
    """Stops the business clock; returns where it stands. That is as far ahead as a role can come that has not read it
    yet, so that nobody's clock goes back."""
    at = pace.now() + timedelta(seconds=CLOCKS_SECONDS * pace.speed)
    await set_clock(stage.database_url, stage.places.provider, Pace(datetime.now(UTC), at, 0.0))
    await asyncio.sleep(CLOCKS_SECONDS)
    return at


HOLD_POLICY = {
    "give_up_after": "P1D",
    "release_after": "P2D",
    "release_anyway_after": "P4D",
    "answer_within": "PT10S",
}
"""On a clock that runs a day in seconds, half an hour would be over before the rider has unlocked."""
CALENDAR = {"retry_after": ["P1D", "P3D"], "due_days": 7, "notice_days": 0, "report_days": 7}
"""When the operator tries again, when a debit is overdue, when he gives notice of a report, and when he reports."""


async def _furnish(database_url: str, merchants: list[Merchant], now: datetime) -> str:
    """Three tariffs, the merchant accounts, the operator's calendar; returns a token for the apps."""
    files = resources.files("service.lab").joinpath("data/tariffs").iterdir()
    tariffs = [file.read_bytes() for file in sorted(files, key=lambda item: item.name)]
    token = await furnish(database_url, tariffs, merchants, now)
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(
            "UPDATE operator SET hold_policy = $1, calendar = $2", json.dumps(HOLD_POLICY), json.dumps(CALENDAR)
        )
    finally:
        await connection.close()
    return token
