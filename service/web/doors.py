"""What stands behind the doors: two pools, the clocks, what is read again every second, and the flows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime, timedelta
from typing import Any

import msgspec

from service.adapters.clock import Clock, machine_now
from service.adapters.migrate import check_version
from service.adapters.postgres import UNAVAILABLE, Database, session_settings
from service.adapters.postgres.access import pooled
from service.adapters.postgres.agreements import OwnedAccount
from service.adapters.postgres.catalog import CatalogStore
from service.adapters.postgres.reading import ReadingStore, RideRows
from service.adapters.postgres.tokens import Token, TokenStore
from service.adapters.providers import Providers
from service.adapters.providers.port import MerchantAccount, Provider
from service.adapters.providers.secrets import AccountSettingsError
from service.billing.catalog import Operator
from service.billing.keys import session_key_bytes, slot_of
from service.flows.account_checks import UNWATCHED, Accounts, account_name
from service.flows.accounts import list_accounts, merchant_account
from service.flows.agreements import Agreements
from service.flows.clock import BusinessClock
from service.flows.collection import Collection
from service.flows.holds import Holds
from service.flows.knowledge import Knowledge
from service.telemetry import logger
from service.web.access import Access, Gate
from service.web.answers import Asked
from service.web.health import Health
from service.web.left_writes import LeftWrites
from service.web.problems import away, not_found
from service.web.views import rider_of

LOG = logger("web")
DOORS = "doors"
"""Who misses PostgreSQL, of a serving process."""
RIDES_REMEMBERED_MAX = 100_000
CONNECT_SECONDS = 5.0
ACQUIRE_SECONDS = 10.0
"""So long a request waits for a connection of the pool; then it gets a 503, and those behind it are heard."""
UNKNOWN_EVERY = timedelta(seconds=1)
"""How often an unknown name makes the doors read again what they know."""


class DoorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the doors work. `token_seconds`: how long a token that was let in is let in again unasked; `sandbox`: whether
    the sandbox provider may be used; `notification_seconds`: how long a provider that notifies waits for its answer, at
    most (WeChat Pay takes 5 s for lost: pay.weixin.qq.com, 支付通知).

    `rate` and `rider_rate`: requests a second with one token, of an operator or of a rider, in this process (0: as many
    as come); `request_seconds`: how long a request may take.
    """

    database_url: str
    tariff_lead: timedelta = timedelta(seconds=60)
    sandbox: bool = True
    reading_connections: int = 8
    working_connections: int = 8
    refresh_seconds: float = 1.0
    token_seconds: float = 2.0
    notification_seconds: float = 4.0
    rate: float = 0.0
    rider_rate: float = 0.0
    request_seconds: float = 60.0


class LookAgain:
    """Reads again for a name that nobody knows, no more than once in UNKNOWN_EVERY of the machine's clock: who may ask
    for one may ask for a thousand. Who asks meanwhile waits for it; who asks soon after it goes by what it found.
    Only such questions count, so that what was just added is found by the first one. A look that failed was none."""

    def __init__(self, read: Callable[[], Awaitable[None]], machine: Clock) -> None:
        self._read = read
        self._machine = machine
        self._looked_at: datetime | None = None
        self._looking = asyncio.Lock()

    async def __call__(self) -> None:
        async with self._looking:
            # A clock that was set back by more than that keeps nobody from looking.
            if self._looked_at is None or abs(self._machine() - self._looked_at) >= UNKNOWN_EVERY:
                await self._read()
                self._looked_at = self._machine()


class Doors:
    """The state of a serving process. Nothing is connected before it is asked for, so it serves while PostgreSQL is
    away: with a 503."""

    def __init__(self, settings: DoorSettings, machine: Clock = machine_now) -> None:
        self.settings = settings
        self.machine = machine
        self.clock = BusinessClock(machine)
        self.knowledge = Knowledge(self.clock, 0)
        self.default_operator_no: int | None = None
        self.health = Health("serve")
        self.watch: Accounts = UNWATCHED
        """Which accounts may be called; whoever watches them says so before the doors are opened."""
        self.gate = Gate(
            self._find_token, machine, settings.token_seconds, rate=settings.rate, rider_rate=settings.rider_rate
        )
        self.providers = Providers(sandbox=settings.sandbox)
        self.left_writes = LeftWrites()
        self.reading: Database
        self.working: Database
        self.holds: Holds
        self.agreements: Agreements
        self.collection: Collection
        self.accounts: Sequence[OwnedAccount] = ()
        self.look_again = LookAgain(self.refresh, machine)
        """For a tariff that nobody knows, in place of `refresh`."""
        self._look_for_account = LookAgain(self.refresh_accounts, machine)
        self._named: dict[tuple[str, str], MerchantAccount] = {}
        self._left: set[asyncio.Task[Any]] = set()
        self._ride_nos: dict[bytes, int] = {}

    async def open(self) -> None:
        """Makes the pools; connections are made when they are needed."""
        self.reading = await _pool(self.settings, "serve reading", self.settings.reading_connections)
        self.working = await _pool(self.settings, "serve", self.settings.working_connections)
        now, machine, watch = self.clock.now, self.machine, self.watch
        self.agreements = Agreements(self.working, self.providers, now, machine, watch)
        self.holds = Holds(self.working, self.providers, now, machine, self.agreements.look_again, watch)
        by_number, look = self.providers.by_number, self.holds.look
        self.collection = Collection(self.working, by_number, now, machine, accounts=watch, look_at_hold=look)

    async def close(self) -> None:
        """Lets go of the servers."""
        for task in self._left:
            task.cancel()
        await self.providers.close()
        await self.reading.close()
        await self.working.close()

    async def keep_fresh(self) -> None:
        """Reads again and again what every request goes by, until cancelled; says whether the process is ready.

        Raises SchemaVersionError when the database is of another release.
        """
        checked = False
        while True:
            try:
                if not checked:
                    async with self.working.reading(CatalogStore) as store:
                        await check_version(store.connection)  # type: ignore[arg-type]  # A pool's proxy is one too.
                    checked = True
                await self.refresh()
            except UNAVAILABLE as error:
                self.health.away("PostgreSQL", DOORS, error)
            await asyncio.sleep(self.settings.refresh_seconds)

    async def refresh(self) -> None:
        """Reads the clock, the operators and new tariff versions once."""
        async with self.working.reading(CatalogStore) as store:
            await self.knowledge.refresh(store)
            self.default_operator_no = (await store.installation()).default_operator_no
        await self.refresh_accounts()
        self.health.back(DOORS)

    async def refresh_accounts(self) -> None:
        """Reads the merchant accounts once, and opens those that are new or were changed; one that can't be used is
        left: `serve` names it when it asks each provider for its credentials."""
        self.accounts = await list_accounts(self.working)
        self._named = {
            (owned.account.provider, account_name(owned)): merchant_account(owned.account) for owned in self.accounts
        }
        for account in self._named.values():
            with suppress(AccountSettingsError):
                self.providers.of(account)

    def has_account(self, provider: str, name: str) -> bool:
        """Whether there is an account `<operator>.<account id>` at a provider, as far as was read."""
        return (provider, name) in self._named

    async def provider_of(self, provider: str, name: str) -> Provider | None:
        """The provider of the account `<operator>.<account id>`; None when there is none. An operator's id has no dot,
        so that a name is one account's. Raises AccountSettingsError for one that can't be used."""
        if not self.has_account(provider, name):
            await self._look_for_account()
        account = self._named.get((provider, name))
        return None if account is None else self.providers.of(account)

    def leave(self, task: asyncio.Task[Any]) -> None:
        """Nobody waits any more for what the task does: it is told to stop, and what it raises then is nobody's."""
        self._left.add(task)
        task.cancel()
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._left.discard(task)
        if not task.cancelled() and task.exception() is not None:
            LOG.info("was left and failed", error=type(task.exception()).__name__)

    def now(self) -> datetime:
        """Business time."""
        return self.clock.now()

    async def operator(self, operator_no: int) -> Operator:
        """An operator, read again when it is new; 503 while nothing was ever read."""
        if operator_no not in self.knowledge.operators:
            await self.refresh()
        operator = self.knowledge.operators.get(operator_no)
        if operator is None:
            raise away("the operator's settings")
        return operator

    def asking(self) -> AbstractAsyncContextManager[ReadingStore]:
        """A connection for one question."""
        return self.reading.reading(ReadingStore)

    async def ride(self, access: Access, session_id: str) -> RideRows:
        """Everything about a ride of the caller; a 404 problem for any other."""
        key = session_key_bytes(access.operator_id, session_id)
        async with self.asking() as store:
            number = self._ride_nos.get(key)
            if number is None:
                number = await store.ride_no(key)
                if number is None:
                    raise not_found("session")
                if len(self._ride_nos) >= RIDES_REMEMBERED_MAX:
                    self._ride_nos.clear()
                self._ride_nos[key] = number
            rows = await store.ride(number, key, slot_of(key))
        access.must_see(rider_of(rows), "session")
        return rows

    async def _find_token(self, hashed: bytes) -> Token | None:
        async with self.reading.reading(TokenStore) as store:
            return await store.find(hashed)


def doors_of(request: Asked) -> Doors:
    """The doors of the application that serves the request."""
    doors: Doors = request.app.state.doors
    return doors


async def _pool(settings: DoorSettings, name: str, size_max: int) -> Database:
    """A pool that connects when it is asked to and keeps its plans: planning over a table's months takes longer than
    running."""
    pool = await pooled(
        settings.database_url,
        min_size=0,
        max_size=size_max,
        command_timeout=10,
        timeout=CONNECT_SECONDS,
        server_settings=session_settings(name, settings.database_url) | {"plan_cache_mode": "force_generic_plan"},
    )
    return Database(pool, ACQUIRE_SECONDS)
