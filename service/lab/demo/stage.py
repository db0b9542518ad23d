"""The demo's stage: servers, provider and roles as real processes, on the installation's virtual clock."""

from __future__ import annotations

import json
import secrets
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
from service.adapters.postgres import Database, Store
from service.adapters.postgres.operators import OperatorStore
from service.adapters.postgres.tokens import SCOPES, TokenStore, token_hash
from service.billing.tariffs import import_document
from service.flows.accounts import add_account
from service.flows.tariffs import publish_tariff
from service.lab.kafka import create_topics
from service.lab.processes import Child, Children, free_ports, wait_for_port
from service.lab.producer import Pace
from service.lab.provider.rows import Account, Terms
from service.lab.servers import Servers, lab

TOPICS = {"rental.sessions": 6, "rental.billing": 6, "rental.sessions.quarantine": 1}
ROLES = ("intake", "collect", "publish", "keep", "serve")
ACCOUNT = "city"
FAULTS = {"decline": 0.02, "slow": 0.02, "lost": 0.01, "error_after": 0.005, "error_before": 0.005, "throttle": 0.005}
"""The provider's shares of declines, slow answers, answers that are lost, errors and throttling."""


class Stage(msgspec.Struct, frozen=True):
    """Where everything is."""

    servers: Servers
    database_url: str
    api: str
    provider: str
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
    async with lab(console=console) as servers, Children() as children:
        database_url = await servers.create_database("farebox")
        await migrate(database_url, since)
        await create_topics(servers.kafka_bootstrap, TOPICS)
        ports = free_ports(2 + len(ROLES))
        provider, api = (f"http://127.0.0.1:{port}" for port in ports[:2])
        api_key = secrets.token_urlsafe(24)
        terms = Terms(confirm_agreement=False, cap_minor=50_000)
        account = msgspec.json.encode(Account(ACCOUNT, api_key, terms)).decode()
        rates = [word for name, share in FAULTS.items() for word in ("--rate", f"{name}={share}")]
        simulator = [sys.executable, "-m", "service", "provider-simulator", "--port", str(ports[0])]
        simulator += ["--seed", str(seed), "--account", account, *rates]
        await wait_for_port(children.start("provider", simulator, logs / "provider.log"), ports[0])
        token = await _furnish(database_url, provider, api_key, since)
        await set_clock(database_url, provider, Pace(datetime.now(UTC), since, 1.0))
        environment = {
            "FAREBOX_DATABASE_URL": database_url,
            "FAREBOX_KAFKA_BOOTSTRAP": servers.kafka_bootstrap,
            "FAREBOX_HTTP_PORT": str(ports[1]),
            "FAREBOX_LOG_LEVEL": "warning",
            "FAREBOX_SESSION_TIMEOUT_MS": "10000",
        }
        roles = {}
        for role, port in zip(ROLES, ports[2:], strict=True):
            own = environment if role == "serve" else environment | {"FAREBOX_HEALTH_PORT": str(port)}
            roles[role] = children.start(role, [sys.executable, "-m", "service", role], logs / f"{role}.log", env=own)
        await wait_for_port(roles["serve"], ports[1], timeout_s=60)
        yield Stage(servers, database_url, api, provider, token, children, roles, logs, environment)


async def calm(stage: Stage) -> None:
    """For whoever tries things afterwards: business time runs on at its natural speed, and the provider behaves."""
    connection = await asyncpg.connect(stage.database_url)
    try:
        at = await connection.fetchval("SELECT clock_business_at FROM installation")
    finally:
        await connection.close()
    await set_clock(stage.database_url, stage.provider, Pace(datetime.now(UTC), at, 1.0))
    async with aiohttp.ClientSession() as session, session.put(f"{stage.provider}/rates", json={}) as answer:
        answer.raise_for_status()


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
    async with aiohttp.ClientSession() as session:
        face = {"now": pace.now().isoformat(), "speed": pace.speed}
        async with session.put(f"{provider}/clock", json=face) as answer:
            answer.raise_for_status()


HOLD_POLICY = {
    "give_up_after": "PT12H",
    "release_after": "P2D",
    "release_anyway_after": "P4D",
    "answer_within": "PT10S",
}
"""On a clock that runs a day in seconds, half an hour would be over before the rider has unlocked."""


async def _furnish(database_url: str, provider: str, api_key: str, now: datetime) -> str:
    """Three tariffs, the merchant account, a token for the apps."""
    database = await Database.open(database_url, name="demo", size_max=2)
    try:
        async with database.reading(OperatorStore) as store:
            operator = await store.default()
        assert operator is not None
        for file in sorted(
            resources.files("service.lab").joinpath("data/tariffs").iterdir(), key=lambda item: item.name
        ):
            (draft,) = import_document(file.read_bytes())
            await publish_tariff(database, operator, draft, now=now, lead=timedelta(0))
        await add_account(
            database,
            operator.operator_no,
            account_id=ACCOUNT,
            provider="sandbox",
            base_url=provider,
            settings={"api_key": api_key, "capabilities": {"same_key_window": "P15D"}},
            now=now,
        )
        async with database.transaction(Store) as raw:
            await raw.connection.execute("UPDATE operator SET hold_policy = $1", json.dumps(HOLD_POLICY))
        secret = secrets.token_urlsafe(32)
        async with database.transaction(TokenStore) as store_of_tokens:
            made = await store_of_tokens.add(
                token_hash(secret), operator.operator_id, "demo", SCOPES, None, datetime.now(UTC), None
            )
        assert made
        return secret
    finally:
        await database.close()
