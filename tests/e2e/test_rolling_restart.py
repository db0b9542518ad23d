"""A release: the schema is migrated and every process of every role replaced while clients ask and rides come in, as
deploy/ says. No request fails, no ride is lost, none is charged twice, no money moves twice."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from front import Asker, Front, is_ready
from installation import Installation, Running, installed
from intake_world import BIKE
from ride_books import check_chains, outcomes
from sandbox_peer import API_KEY, Peer, peer

from service.adapters.clock import machine_now
from service.adapters.migrate import VERSIONS, migrate
from service.adapters.postgres import Database
from service.adapters.postgres.operators import OperatorStore
from service.adapters.postgres.tokens import SCOPES, TokenStore, token_hash
from service.billing.auditing.problems import Problem
from service.billing.tariffs import import_document
from service.flows.accounts import add_account
from service.flows.audit import audit
from service.flows.tariffs import publish_tariff
from service.lab.demo.truth import read_topic
from service.lab.processes import free_ports
from service.lab.provider.rows import Account, Terms
from service.lab.servers import Servers
from service.lab.trip_events import TripRecord

NEXT = Path(__file__).parents[1] / "data" / "migrations"
SURGING = ("intake", "collect")
ALONE = ("publish", "keep")
"""One process at a time: the next starts when the one before has gone (deploy/base: Recreate)."""
KNOWN = 20
"""Rides that are there before anybody asks."""
Asked = tuple[str, str, Any, set[int]]


def ride(number: int) -> list[TripRecord]:
    """A whole ride of twenty minutes."""
    name, until = f"ride-{number}", datetime.now(UTC) - timedelta(minutes=number % 600)
    data = {"session_id": name, "agreement_id": f"agr-{number % 4}", "tariff_id": "bike"}
    records = []
    for kind, at in (("started", until - timedelta(minutes=20)), ("ended", until)):
        headers = {
            "ce_specversion": "1.0",
            "ce_id": f"{name}/{kind}",
            "ce_source": "urn:test",
            "ce_type": f"io.farebox.session.{kind}.v1",
            "ce_time": at.isoformat(),
        }
        encoded = [(header, text.encode()) for header, text in headers.items()]
        records.append(TripRecord(at, name.encode(), encoded, msgspec.json.encode(data)))
    return records


class Fleet:
    """The processes, and rides that come in for as long as it is told."""

    def __init__(self, installation: Installation, ports: list[int]) -> None:
        self.installation = installation
        self.ports = ports
        self.rides = 0
        self.serving: list[Running] = []
        self.others: dict[str, Running] = {}
        self._ports = iter(ports)

    async def serve(self) -> Running:
        """One more that is ready."""
        port = next(self._ports)
        leave = {"FAREBOX_HTTP_PORT": str(port), "FAREBOX_HTTP_LEAVE_SECONDS": "1.5"}
        process = await self.installation.role("serve", **leave)
        await self.installation.until(lambda: is_ready(port), "serving")
        return process

    async def other(self, role: str) -> Running:
        """One more that is ready."""
        (port,) = free_ports(1)
        process = await self.installation.role(role, FAREBOX_HEALTH_PORT=str(port))
        await self.installation.until(lambda: is_ready(port), f"{role} ready")
        return process

    async def start(self) -> None:
        """Two doors, and one of each other role."""
        roles = (*SURGING, *ALONE)
        first, second, *others = await asyncio.gather(self.serve(), self.serve(), *map(self.other, roles))
        self.serving, self.others = [first, second], dict(zip(roles, others, strict=True))

    async def roll(self) -> None:
        """Replaces every process; the roles all at once, as when a new release is applied."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.replace_doors())
            for role in (*SURGING, *ALONE):
                tasks.create_task(self.replace(role))

    async def replace_doors(self) -> None:
        for number in range(2):
            self.serving.append(await self.serve())
            await self.gone(self.serving.pop(0), f"serve {number}")

    async def replace(self, role: str) -> None:
        if role in ALONE:
            await self.gone(self.others[role], role)
        before, self.others[role] = self.others[role], await self.other(role)
        if role in SURGING:
            await self.gone(before, role)

    async def gone(self, process: Running, what: str) -> None:
        process.terminate()
        async with asyncio.timeout(60):
            assert await process.wait() == 0, f"{what}\n{self.installation.logs()}"

    async def ride_on(self) -> None:
        """A ride now and again, until cancelled."""
        while True:
            await self.more(1)
            await asyncio.sleep(0.1)

    async def more(self, count: int) -> None:
        for _ in range(count):
            self.rides += 1
            await self.installation.publish(ride(self.rides - 1))


def questions(name: str) -> Iterator[Asked]:
    """What a rental app's backend asks, one after the other: reads, sums and writes that go on to the provider."""
    for number in itertools.count():
        yield "GET", f"/v1/sessions/ride-{number % KNOWN}", None, {200}
        yield "POST", "/v1/quotes", {"seconds": 60 * number, "tariff_id": "bike"}, {200}
        yield "GET", "/v1/sessions?limit=5", None, {200}
        yield signing(name, number)


def signing(name: str, number: int) -> Asked:
    """Another rider signs at the provider."""
    who = f"{name}-{number}"
    return "POST", "/v1/agreements", {"agreement_id": who, "rider_ref": who, "account_id": "main"}, {201}


@asynccontextmanager
async def furnished(servers: Servers, template: str, logs: Path) -> AsyncIterator[tuple[Installation, Peer, str]]:
    """An installation with a tariff, a merchant account at a simulator, and a token."""
    token = secrets.token_urlsafe(32)
    async with peer() as provider, installed(servers, template, logs) as installation:
        await provider.call("PUT", "/accounts", Account("main", API_KEY, Terms(confirm_agreement=False)))
        database = await Database.open(installation.settings["FAREBOX_DATABASE_URL"], name="test", size_max=2)
        async with database.reading(OperatorStore) as store:
            operator = await store.default()
        assert operator is not None
        (draft,) = import_document(msgspec.json.encode(BIKE))
        await publish_tariff(database, operator, draft, now=machine_now(), lead=timedelta(0))
        await add_account(
            database,
            operator.operator_no,
            account_id="main",
            provider="sandbox",
            base_url=provider.url,
            settings={"api_key": API_KEY},
            now=machine_now(),
        )
        async with database.transaction(TokenStore) as store:
            await store.add(token_hash(token), "default", "test", SCOPES, None, machine_now(), None)
        await database.close()
        yield installation, provider, token


@pytest.fixture
async def rolled(
    servers: Servers, migrated_template: str, tmp_path: Path
) -> AsyncIterator[tuple[Fleet, Peer, list[Asker]]]:
    """A fleet of which every process was replaced under load, and what the clients saw."""
    ports = list(free_ports(4))
    async with (
        furnished(servers, migrated_template, tmp_path) as (installation, provider, token),
        Front(ports) as front,
    ):
        fleet = Fleet(installation, ports)
        await fleet.start()

        async def seen() -> bool:
            return len(front.ready) == len(fleet.serving)

        await installation.until(seen, "both doors on the front's list")
        first = Asker(front.port, token, iter([signing("agr", number) for number in range(4)]))
        await asyncio.to_thread(first.run)
        await fleet.more(KNOWN)
        await installation.all_taken()
        askers = [Asker(front.port, token, questions(f"asker-{number}")) for number in range(3)]
        riding = asyncio.create_task(fleet.ride_on())
        asking = [asyncio.create_task(asyncio.to_thread(asker.run)) for asker in askers]
        try:
            url, versions = installation.settings["FAREBOX_DATABASE_URL"], (VERSIONS, NEXT)
            assert await migrate(url, datetime.now(UTC), versions=versions) == "0002.5"
            before = fleet.rides
            await fleet.roll()
            assert fleet.rides > before
        finally:
            riding.cancel()
            for asker in askers:
                asker.stop.set()
            await asyncio.gather(riding, *asking, return_exceptions=True)
        yield fleet, provider, [first, *askers]


async def test_the_schema_grows_and_every_process_is_replaced_under_load_and_nobody_notices(
    rolled: tuple[Fleet, Peer, list[Asker]],
) -> None:
    fleet, provider, askers = rolled
    installation = fleet.installation
    assert [failure for asker in askers for failure in asker.failed] == []
    assert all(asker.answered > 20 for asker in askers[1:])
    assert sum(asker.connections for asker in askers[1:]) <= 3 * 4, "a connection is kept until its process leaves"
    await installation.all_taken()

    async def settled() -> bool:
        states = "SELECT count(*) FROM debit WHERE state = 'settled'"
        return bool(await installation.connection.fetchval(states) == fleet.rides)

    await installation.until(settled, f"{fleet.rides} debits settled")
    found = await outcomes(installation.connection)
    assert found.keys() == {f"ride-{number}" for number in range(fleet.rides)}
    assert {ride.amount_minor for ride in found.values()} == {250}
    await check_chains(installation.connection)
    books = await provider.books()
    assert await taken(provider) == fleet.rides * 250, books
    assert await published_once(installation) == fleet.rides
    assert await audited(installation) == []


async def taken(provider: Peer) -> int:
    """What the provider took, less what it gave back."""
    lines = await provider.call("GET", "/books/debits")
    return sum(line["paid_minor"] - line["refunded_minor"] for line in lines)


async def published_once(installation: Installation) -> int:
    """How many charges were published; whatever was published twice fails."""

    async def told() -> bool:
        return bool(await installation.connection.fetchval("SELECT count(*) FROM batch_facts") == 0)

    await installation.until(told, "everything published")
    facts = await read_topic(installation.bootstrap, installation.settings["FAREBOX_TOPIC_BILLING"])
    numbers = Counter(dict(fact.headers)["ce_id"] for fact in facts)
    assert [number for number, count in numbers.items() if count > 1] == []
    return sum(b"charge.rated" in dict(fact.headers)["ce_type"] for fact in facts)


async def audited(installation: Installation) -> list[str]:
    problems: list[Problem] = []
    await audit(installation.settings["FAREBOX_DATABASE_URL"], problems.append, lambda done, total: None)
    return [problem.line() for problem in problems]
