"""The composition root: settings become pools, consumers, clocks and running roles."""

from __future__ import annotations

import asyncio
import gc
import itertools
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

import asyncpg

from service.adapters.clock import machine_now
from service.adapters.kafka import (
    ConsumerSettings,
    RecordSink,
    RecordSource,
    TopicMissingError,
    cluster_id,
    partitions_of,
)
from service.adapters.kafka_access import KAFKA_UNAVAILABLE, KafkaAccessError, server_of
from service.adapters.migrate import SchemaVersionError, check_version
from service.adapters.postgres import RACES, UNAVAILABLE, Database, connect
from service.adapters.postgres.access import DatabaseAccessError
from service.adapters.postgres.agreements import OwnedAccount
from service.adapters.postgres.catalog import CatalogStore
from service.adapters.postgres.intake import FenceLostError
from service.adapters.providers import Providers
from service.flows.accounts import list_accounts
from service.flows.agreements import Agreements
from service.flows.clock import BusinessClock
from service.flows.collection import Collection
from service.flows.collection.restored import ask_after_restore
from service.flows.disputes import Disputes
from service.flows.holds import Holds
from service.flows.housekeeping import Housekeeping
from service.flows.intake import Intake, IntakeSettings
from service.flows.intake.streams import Streams, TopicChangedError
from service.flows.intake.watchdog import StalledError, Watchdog
from service.flows.knowledge import Knowledge
from service.flows.publication import Publication
from service.settings import Settings
from service.telemetry import logger
from service.web.health import Health, start_health
from service.wiring.accounts import AccountWatch

LOG = logger("wiring")
T = TypeVar("T")
AWAY = (*UNAVAILABLE, *KAFKA_UNAVAILABLE)
STOPS = (TopicChangedError, TopicMissingError, SchemaVersionError, StalledError)
"""Why a role ends by itself: going on would lose or repeat something, and waiting won't help."""
REFUSALS = (KafkaAccessError, DatabaseAccessError)
"""A server that does not let us in, or that is not to be trusted: at the start that is nothing to wait for. Later it is
waited for like one that is away, since whoever changed it may change it back."""

STOP_SECONDS = 25.0
"""How long the work may go on once a process is told to stop: then it is cut, which no line of it minds."""
ROUND_SECONDS = 10.0
"""How long a round that is under way then may take."""
IDLE_MAX = 0.5
"""Seconds after which an account with nothing to do is looked at again at the latest: many of them cost little."""


class Process:
    """A role's process: its signal to stop, its health, its connections to be closed."""

    def __init__(self, role: str, settings: Settings) -> None:
        self.role = role
        self.settings = settings
        self.health = Health(role)
        self.stopping = asyncio.Event()
        self._bounds: dict[asyncio.Timeout, float] = {}

    async def run(self, work: Callable[[Process], Awaitable[None]]) -> None:
        """Serves the probes, does the work until SIGTERM or SIGINT, and ends in good order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        runner = None
        if self.settings.health_port:
            runner = await start_health(self.health, self.settings.health_host, self.settings.health_port)
        LOG.info("role starts", role=self.role)
        try:
            async with self.bounded(self.role, STOP_SECONDS):
                await work(self)
        finally:
            if runner is not None:
                await runner.cleanup()
        LOG.info("role ends", role=self.role)

    def stop(self) -> None:
        """Not ready from now on; the round under way is finished, if it ends soon."""
        self.health.leave()
        self.stopping.set()
        for bound, seconds in self._bounds.items():
            bound.reschedule(asyncio.get_running_loop().time() + seconds)

    @asynccontextmanager
    async def bounded(self, what: str, seconds: float) -> AsyncIterator[None]:
        """Work that lasts as long as it likes, but only so many seconds once the process is told to stop. What is cut
        was on its way: a server is away, or slow."""
        bound = asyncio.timeout(None)
        try:
            async with bound:
                if self.stopping.is_set():
                    bound.reschedule(asyncio.get_running_loop().time() + seconds)
                self._bounds[bound] = seconds
                yield
        except TimeoutError:
            if not bound.expired():
                raise
            LOG.warning("left undone: told to stop", what=what, seconds=seconds)
        finally:
            self._bounds.pop(bound, None)

    async def pause(self, seconds: float) -> None:
        """Waits, or until it is told to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()

    async def until_there(self, server: str, attempt: Callable[[], Awaitable[T]]) -> T | None:
        """Tries until a server answers; None when told to stop before. Raises one of REFUSALS at once."""
        delay, me = 0.1, object()
        while not self.stopping.is_set():
            try:
                async with self.bounded(server, ROUND_SECONDS):
                    there = await attempt()
                    self.health.found(me)
                    return there
            except REFUSALS:
                raise
            except AWAY as error:
                self.health.away(server, me, error)
            await self.pause(delay)
            delay = min(delay * 2, 5)
        return None

    async def until_done(self, what: str, last: Callable[[], Awaitable[None]]) -> None:
        """What is left to do once it is told to stop; a server that is away then is not waited for."""
        try:
            await last()
        except AWAY as error:
            LOG.warning("left undone", what=what, error=f"{type(error).__name__}: {error}")

    async def rounds(
        self, what: str, one_round: Callable[[], Awaitable[int]], idle_seconds: float, idle_max: float | None = None
    ) -> None:
        """Round after round; an idle one is followed by a pause, a server that is away by a longer one.

        Pauses grow up to `idle_max` seconds for as long as there is nothing to do. A round that somebody else was
        faster than is simply done again.
        """
        delay, me, idle = 0.1, object(), idle_seconds
        while not self.stopping.is_set():
            did = 1
            try:
                async with self.bounded(what, ROUND_SECONDS):
                    did = await one_round()
            except RACES as error:
                LOG.info("somebody else was faster", what=what, error=type(error).__name__)
            except AWAY as error:
                self.health.away(server_of(error), me, error)
                await self.pause(delay)
                delay = min(delay * 2, 5)
                continue
            delay = 0.1
            if not self.stopping.is_set():
                self.health.back(me)
            if did:
                idle = idle_seconds
            else:
                await self.pause(idle)
                idle = max(min(2 * idle, idle_max or 0), idle_seconds)


async def open_database(process: Process, *, size_max: int = 10, hot: bool = False) -> Database | None:
    """The pool of a role, once the database is there and of this release's schema."""

    async def attempt() -> Database:
        connection = await connect(process.settings.database_url, name=process.role)
        try:
            await check_version(connection)
        finally:
            await connection.close()
        return await Database.open(process.settings.database_url, name=process.role, size_max=size_max, hot=hot)

    return await process.until_there("PostgreSQL", attempt)


async def run_intake(process: Process) -> None:
    """The role `intake`: ride events become charges."""
    settings = process.settings
    database = await open_database(process, size_max=2)
    cluster = await process.until_there("Kafka", lambda: cluster_id(settings.brokers))
    if database is None or cluster is None:
        return
    clock = BusinessClock()
    consumer = ConsumerSettings(
        settings.brokers,
        settings.topic_sessions,
        settings.group,
        settings.session_timeout_ms,
        settings.rebalance_timeout_ms,
    )
    source = RecordSource(consumer)
    streams = Streams(source, settings.group, settings.topic_sessions, cluster, settings.start_from)
    knowledge = Knowledge(clock, settings.rides_cached)
    intake = Intake(source, streams, knowledge, _hot_connection(settings), IntakeSettings(settings.records_max))
    source.on_revoked = intake.on_revoked
    watchdog = Watchdog(intake, source, database, settings.stall_seconds)
    if await process.until_there("Kafka", lambda: _started(source)) is None:
        return
    guard = asyncio.create_task(watchdog.run())
    gc.collect()
    gc.freeze()
    gc.disable()  # Rounds collect for themselves, between batches: `_collect`.
    try:
        await _take_in(process, intake, guard)
    finally:
        guard.cancel()
        await intake.close()
        await database.close()


def _collect(rounds: int) -> None:
    """Collects cycles between batches, when what a batch made has died by itself and there is little to look at."""
    if rounds % 256 == 0:
        gc.collect()
    elif rounds % 4 == 0:
        gc.collect(1)


async def _take_in(process: Process, intake: Intake, guard: asyncio.Task[None]) -> None:
    for rounds in itertools.count(1):
        if process.stopping.is_set():
            return
        if guard.done():
            guard.result()
        _collect(rounds)
        try:
            async with process.bounded("a batch", ROUND_SECONDS):
                await intake.round()
            if not process.stopping.is_set():
                process.health.back(intake)
        except STOPS:
            raise
        except Exception as error:
            if isinstance(error, AWAY):
                process.health.away(server_of(error), intake, error)
            elif not isinstance(error, (*RACES, FenceLostError)):
                LOG.exception("round failed")
            try:
                await intake.recover(error)
            except AWAY as again:
                process.health.away(server_of(again), intake, again)


async def run_publish(process: Process) -> None:
    """The role `publish`: committed facts go to Kafka."""
    settings = process.settings
    topics = {
        "billing": settings.topic_billing,
        "quarantine": settings.topic_quarantine,
        "sessions": settings.topic_sessions,
    }
    database = await open_database(process)
    sink = RecordSink(settings.brokers)
    if database is None or await process.until_there("Kafka", lambda: _topics_there(sink, settings, topics)) is None:
        return
    try:
        await process.rounds("publication", Publication(database, sink, topics).round, 0.05)
    finally:
        await sink.stop()
        await database.close()


async def run_keep(process: Process) -> None:
    """The role `keep`: lost ends, parked rides, partitions ahead, what is done with cleared away."""
    database = await open_database(process, size_max=4)
    if database is None:
        return
    settings = process.settings
    keep = Housekeeping(database, Knowledge(BusinessClock(), 0), settings.group, settings.topic_sessions)
    try:
        await process.rounds("housekeeping", keep.round, 0.5)
    finally:
        await database.close()


async def run_collect(process: Process) -> None:
    """The role `collect`: what is owed becomes debits, by merchant account, none of which slows another."""
    database = await open_database(process, size_max=16, hot=True)
    if database is None:
        return
    _look_for_cycles_seldom()
    clock, providers = BusinessClock(), Providers(sandbox=process.settings.sandbox)
    concurrency = process.settings.collect_concurrency
    watch = AccountWatch(providers, process.health)
    by_number, now = providers.by_number, clock.now
    collection = Collection(database, by_number, now, machine_now, concurrency=concurrency, accounts=watch)
    holds = Holds(database, providers, now, machine_now, accounts=watch)
    agreements = Agreements(database, providers, now, machine_now, watch)
    disputes = Disputes(database, providers, collection.disputed, now, machine_now, watch)
    known: dict[int, OwnedAccount] = {}

    await process.until_there("PostgreSQL", partial(_asked_first, database, clock))
    async with asyncio.TaskGroup() as tasks:

        async def look() -> int:
            """Reads the clock, and takes up merchant accounts that are new."""
            async with database.reading(CatalogStore) as store:
                clock.read(await store.installation())
            for number in await _new_accounts(database, known):
                tasks.create_task(begin(number))
            return 0

        async def begin(number: int) -> None:
            """An account's rounds, once its provider was asked and does not refuse it."""
            if not await watch.until_usable(process, lambda: known.get(number)):
                return
            tasks.create_task(watch.run(process, lambda: [known[number]] if number in known else []))
            tasks.create_task(_collect_account(process, collection, number))
            for what, one_round, idle in (
                ("policies", collection.policy_round, 1.0),
                ("holds", holds.resolve_round, 0.2),
                ("used holds", holds.release_round, 0.5),
                ("agreements", agreements.refresh_round, 1.0),
                ("disputes", disputes.ask_round, 1.0),
            ):
                guarded = partial(while_usable, watch, number, one_round)
                tasks.create_task(process.rounds(what, guarded, idle, IDLE_MAX))

        await process.until_there("PostgreSQL", look)
        tasks.create_task(process.rounds("clock and accounts", look, 1.0))
        tasks.create_task(process.rounds("obligations", collection.plan_round, 0.05, IDLE_MAX))
        tasks.create_task(process.rounds("set aside", collection.aside_round, 5.0))
    await providers.close()
    await database.close()


async def while_usable(watch: AccountWatch, number: int, one_round: Callable[[int], Awaitable[int]]) -> int:
    """An account's round, but for as long as its provider refuses it: then nobody is called, reminded or overdue."""
    return await one_round(number) if watch.usable(number) else 0


async def _asked_first(database: Database, clock: BusinessClock) -> bool:
    """Before anything is collected: a database that was restored may have forgotten what it sent."""
    async with database.reading(CatalogStore) as store:
        clock.read(await store.installation())
    return await ask_after_restore(database, clock.now())


def _look_for_cycles_seldom() -> None:
    """A debit is many objects and no cycle: looking for those at Python's pace takes a sixth of its time."""
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


async def _new_accounts(database: Database, known: dict[int, OwnedAccount]) -> set[int]:
    """Reads the merchant accounts into `known`; returns which are new. One that was removed goes out of it: nothing
    refers to it, so that its rounds find nothing."""
    before = set(known)
    present = {owned.account.account_no: owned for owned in await list_accounts(database)}
    known.clear()
    known.update(present)
    return present.keys() - before


async def _collect_account(process: Process, collection: Collection, number: int) -> None:
    """One account's debits, until told to stop: then the calls under way are finished, and no new ones begun."""
    await process.rounds("debits", partial(collection.collect_round, number), 0.05, IDLE_MAX)
    await process.until_done("debits", partial(collection.end, number))


def _hot_connection(settings: Settings) -> Callable[[str], Awaitable[asyncpg.Connection[asyncpg.Record]]]:
    return lambda name: connect(settings.database_url, name=name, hot=True)


async def _started(source: RecordSource) -> bool:
    await source.start()
    return True


async def _topics_there(sink: RecordSink, settings: Settings, topics: dict[str, str]) -> bool:
    found = await partitions_of(settings.brokers, list(topics.values()))
    missing = [topic for topic in topics.values() if not found.get(topic)]
    if missing:
        raise TopicMissingError(f"these topics are not there: {', '.join(missing)}; `farebox topics` makes them")
    await sink.start()
    return True
