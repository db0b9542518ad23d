"""A base backup, archived logs, and a restore to an earlier instant: the same rides, the same money, nothing twice."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import msgspec
import nursery
import pytest
from intake_world import NOON, World, furnish
from ride_builders import adjustment
from sandbox_peer import API_KEY, Peer, peer, provider_at, rider_path, sign

from service.adapters.migrate import migrate
from service.adapters.postgres import Database
from service.adapters.postgres.catalog import CatalogStore
from service.adapters.providers.port import Provider
from service.billing.auditing.problems import Problem
from service.billing.debits.events import PaidElsewhere
from service.billing.events import AdjustmentKind
from service.billing.ledger import Account, account
from service.flows.audit import audit
from service.flows.clock import BusinessClock
from service.flows.collection import Collection
from service.flows.collection.restored import ask_after_restore
from service.flows.decisions import adjust_ride
from service.flows.knowledge import Knowledge
from service.flows.stops import resume, stop
from service.lab.postgres import PROGRAMS, reachable_temp, start_postgres, unprivileged_user
from service.lab.processes import Children, free_ports

BEFORE = (0, 1, 2, 3, 4, 5, 6, 7, 11, 12)
"""The rides of before the lost time; the last three were declined."""


class Cluster:
    """A PostgreSQL of its own that archives its log, can be backed up, and restored beside itself."""

    def __init__(self, children: Children, space: Path) -> None:
        self.space = space
        self.archive = space / "archive"
        self._children = children
        self._port, self._second_port = free_ports(2)
        self._password = secrets.token_hex(8)

    async def start(self) -> str:
        """The cluster, archiving."""
        self.archive.mkdir(mode=0o777)
        self.archive.chmod(0o777)
        settings = {"archive_mode": "on", "archive_command": f"cp %p {self.archive}/%f"}
        return await start_postgres(
            self._children, self.space / "first", port=self._port, password=self._password, settings=settings, kept=True
        )

    async def back_up(self) -> None:
        """A base backup, while everybody writes."""
        await self._run("pg_basebackup", "-h", "127.0.0.1", "-p", str(self._port), "-U", "farebox",
                        "-D", str(self.space / "base"), "-X", "none", "-c", "fast")  # fmt: skip

    async def restore(self, until: datetime) -> str:
        """Another cluster from the backup and the archive, as of an instant; returns its URL once it is open."""
        home = self.space / "second"
        home.mkdir(mode=0o700)
        shutil.move(self.space / "base", home / "data")
        (home / "data" / "recovery.signal").touch()
        user = unprivileged_user()
        if user is not None:
            for path in (home, home / "data", *(home / "data").rglob("*")):
                os.chown(path, user.uid, user.gid)
        settings = {
            "restore_command": f"cp {self.archive}/%f %p",
            "recovery_target_time": until.isoformat(),
            "recovery_target_action": "promote",
        }
        url = await start_postgres(
            self._children, home, port=self._second_port, password=self._password, settings=settings, kept=True
        )
        connection = await asyncpg.connect(url)
        try:
            async with asyncio.timeout(60):
                while await connection.fetchval("SELECT pg_is_in_recovery()"):  # noqa: ASYNC110  It ends in another process.
                    await asyncio.sleep(0.02)
        finally:
            await connection.close()
        return url

    async def _run(self, program: str, *words: str) -> None:
        programs = next((self.space / "first").glob(f"programs/*/{PROGRAMS}"), None)
        process = await asyncio.create_subprocess_exec(
            str(programs / program) if programs else program, *words,
            env=os.environ | {"PGPASSWORD": self._password}, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await process.communicate()
        assert process.returncode == 0, said.decode()


class Town:
    """Rides on a topic, an intake, a collection and the provider's own books, on a database that may be another."""

    def __init__(self, world: World, simulator: Peer, provider: Provider) -> None:
        self.world = world
        self.peer = simulator
        self.provider = provider
        self.now = NOON + timedelta(hours=8)
        self.sent = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[Database, Collection]]:
        """The processes, on the database that the world has now."""
        database = await Database.open(self.world.url, name="test", size_max=4)
        try:
            await ask_after_restore(database, self.now)
            yield database, Collection(database, {1: self.provider}, lambda: self.now, lambda: self.now)
        finally:
            await database.close()

    async def ride(self, *numbers: int) -> None:
        for number in numbers:
            await self.world.ride(f"ride-{number}", 20, start=NOON + timedelta(minutes=number))
            self.sent += 2

    async def settle(self, collection: Collection, rounds: int = 6) -> None:
        """Everything that was sent is read, planned, sent and asked about."""
        intake = await self.world.intake()
        await self.world.drain(intake, self.sent)
        await self.world.leave(intake)
        for _ in range(rounds):
            while await collection.plan_round():
                pass
            await collection.submit_round(1)
            self.now += timedelta(seconds=61)
            await self.peer.call("PUT", "/clock", {"now": self.now.isoformat(), "speed": 0})

    async def adjust(self, database: Database, session: str, kind: AdjustmentKind, amount_minor: int) -> None:
        knowledge = Knowledge(BusinessClock(), 10)
        async with database.reading(CatalogStore) as store:
            await knowledge.refresh(store)
        given = adjustment(kind, amount_minor, f"{kind}-{session}")
        await adjust_ride(database, knowledge, knowledge.operators[1], session, given)

    async def pay(self, session: str, collection: Collection) -> None:
        """The rider pays by himself what was declined."""
        number = await self.world.value("SELECT ride_no FROM debit WHERE session_id = $1", session)
        debit = await collection.ask_payment((number, 1))
        await self.peer.call("POST", rider_path(self.peer, debit.action) + "&answer=pay")

    async def outside(self, collection: Collection) -> None:
        """A ride that was declined before is paid in cash."""
        number = await self.world.value("SELECT ride_no FROM debit WHERE session_id = 'ride-12'")
        await collection.happen([((number, 1), PaidElsewhere("cash"))])

    async def net(self) -> tuple[int, int]:
        """(taken less given back at the provider, what our ledger has of it)."""
        lines = await self.peer.call("GET", "/books/debits")
        there = sum(line["paid_minor"] - line["refunded_minor"] for line in lines)
        here = await self.world.value(
            "SELECT sum(CASE WHEN debit_account = $1 THEN amount_minor ELSE -amount_minor END)::bigint"
            " FROM transfer WHERE $1 IN (debit_account, credit_account)",
            account(Account.CLEARING, 1),
        )
        return there, here

    async def lost(self) -> tuple[int | None, list[str]]:
        """What `farebox debit lost` says, and its exit code."""
        settings = {
            "FAREBOX_DATABASE_URL": self.world.url,
            "FAREBOX_KAFKA_BOOTSTRAP": self.world.bootstrap,
            "FAREBOX_ENVIRONMENT": "sandbox",
        }
        process = await asyncio.create_subprocess_exec(
            *nursery.farebox("debit", "lost"),
            env=os.environ | settings,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        return process.returncode, said.decode().splitlines()

    async def audited(self) -> list[str]:
        problems: list[Problem] = []
        await audit(self.world.url, problems.append, lambda done, total: None)
        return [problem.line() for problem in problems]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    space = reachable_temp() / f"farebox-restore-{secrets.token_hex(6)}"
    space.mkdir(mode=0o711)
    space.chmod(0o711)
    try:
        async with Children() as children:
            yield Cluster(children, space)
    finally:
        shutil.rmtree(space, ignore_errors=True)


async def test_after_a_restore_the_same_rides_cost_the_same_money_and_what_people_did_is_told_by_name(
    cluster: Cluster, kafka_bootstrap: str, topic: Callable[..., Awaitable[str]]
) -> None:
    url = await cluster.start()
    for now in (NOON, datetime.now(UTC)):
        await migrate(url, now)
    await furnish(url)
    world = World(url, kafka_bootstrap, await topic(partitions=2))
    async with opened(world), peer() as simulator, provider_at(simulator, "main") as provider:
        town = Town(world, simulator, provider)
        await _sign(world, simulator, provider)
        until = await _before(town, cluster)
        lost_rides, books = await _in_the_lost_time(town)
        world.url = await cluster.restore(until)
        assert set(await world.charges()) == {f"ride-{number}" for number in BEFORE}
        async with town.running() as (database, collection):
            await stop(database, 1, "debits", reason="restore", by="support", now=town.now)
            await town.settle(collection, rounds=1)
            await town.outside(collection)
            await resume(database, 1, await world.value("SELECT stop_no FROM stop"), reason="r", by="b", now=town.now)
            await town.settle(collection)
            assert {name: owed for name, (_, owed) in (await world.charges()).items()} == lost_rides
            status, said = await town.lost()
            assert (status, sorted(" ".join(line.split()[3:-2]) for line in said)) == (
                1,
                [
                    "ride-0 given back 0.50 there, 0.00 here CNY",
                    "ride-1 taken 0.70 there, 0.00 here CNY",
                    "ride-2 given back 0.30 there, 0.00 here CNY",
                ],
            )
            await _again(town, database)
            await town.settle(collection)
            assert await town.lost() == (0, [])
        assert await town.net() == (books, books)
        assert await town.audited() == []


@asynccontextmanager
async def opened(world: World) -> AsyncIterator[None]:
    await world.open()
    try:
        yield
    finally:
        await world.close()


async def _sign(world: World, simulator: Peer, provider: Provider) -> None:
    connection = await asyncpg.connect(world.url)
    for number in (1, 2):
        ref = await sign(simulator, provider, f"key{number}", f"rider-{number}")
        text = "UPDATE agreement SET provider_ref = $2 WHERE provider_key = $1"
        await connection.execute(text, f"key{number}", ref.provider_ref)
    settings = {"api_key": f"{API_KEY}-main", "capabilities": msgspec.to_builtins(provider.capabilities)}
    text = "UPDATE merchant_account SET base_url = $1, settings = $2"
    await connection.execute(text, simulator.url, msgspec.json.encode(settings).decode())
    await connection.close()


async def _before(town: Town, cluster: Cluster) -> datetime:
    """Rides before and after a base backup, the last ones declined; returns an instant after them."""
    async with town.running() as (_, collection):
        await town.ride(0, 1, 2, 3)
        await town.settle(collection)
        await cluster.back_up()
        await town.ride(4, 5)
        await town.settle(collection)
        await town.ride(6)
        await town.settle(collection)
        for _ in (declined := (7, 11, 12)):
            await town.peer.script("decline", op="debit.take")
        await town.ride(*declined)
        await town.settle(collection)
    until: datetime = await town.world.value("SELECT clock_timestamp()")
    return until


async def _in_the_lost_time(town: Town) -> tuple[dict[str, int], int]:
    """Rides, debits, and what people did; returns what rides cost, and what is at the provider in the end."""
    async with town.running() as (database, collection):
        await town.pay("ride-11", collection)
        await town.outside(collection)
        await town.ride(8, 9, 10)
        town.now += timedelta(hours=14)  # What was declined is tried again, under another key.
        await town.settle(collection)
        costs = {name: owed or 0 for name, (_, owed) in (await town.world.charges()).items()}
        await _again(town, database)
        await town.settle(collection)
        there, here = await town.net()
        assert there == here == 12 * 250 - 50 + 70 - 30
        await town.world.value("SELECT pg_switch_wal()::text")
        return costs, there


async def _again(town: Town, database: Database) -> None:
    """What people do: goodwill, an extra charge, and a refund by hand."""
    await town.adjust(database, "ride-0", "goodwill", 50)
    await town.adjust(database, "ride-1", "extra", 70)
    await town.adjust(database, "ride-2", "refund", 30)
