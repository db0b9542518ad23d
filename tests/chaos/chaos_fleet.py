"""Every process of a run by its name: killed, stopped, and started again as it was."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Unpack
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import msgspec
import psutil
from chaos_town import TARIFF
from proxy import Proxy
from rich.console import Console

from service.adapters.kafka_access import Brokers
from service.adapters.migrate import migrate
from service.adapters.postgres import Database
from service.adapters.postgres.operators import OperatorStore
from service.adapters.postgres.tokens import SCOPES, TokenStore, token_hash
from service.billing.tariffs import import_document
from service.flows.accounts import add_account
from service.flows.tariffs import publish_tariff
from service.lab.demo.merchants import Places, open_accounts
from service.lab.kafka import Doors, Ports, create_topics, start_kafka
from service.lab.postgres import start_postgres
from service.lab.processes import POLL_S, Child, Children, LabError, Options, free_ports, wait_for_port
from service.lab.provider.faults import Rates
from service.lab.provider.rows import Account, Terms
from service.lab.servers import Servers

KAFKA, POSTGRES, PROVIDER = "Kafka", "PostgreSQL", "provider"
ROLES = ("intake-1", "intake-2", "collect-1", "collect-2", "publish", "keep", "serve")
POSTGRES_SETTINGS = {"max_wal_size": "256MB", "min_wal_size": "64MB", "log_min_messages": "warning"}
OPEN_S = 90.0
DATABASE = "chaos"
SECRET = "chaos"  # noqa: S105  On loopback, for as long as the run lasts.
TOPICS = {"rental.sessions": 6, "rental.billing": 6, "rental.sessions.quarantine": 1}
RATES = Rates(slow=0.02, lost=0.02, error_after=0.02, throttle=0.01, notify_twice=0.05, notify_lost=0.02)
"""What goes wrong at the provider all the time. Where a call was not executed and failed like one that was, a debit
waits for two minutes by the rules: that has a fault of its own, so that it is not measured with every other."""


class Fleet(Children):
    """Children that are known by name, and can be started again with the command that they had."""

    def __init__(self) -> None:
        super().__init__()
        self._plans: dict[str, tuple[Sequence[str | Path], Path, Options]] = {}
        self.now: dict[str, Child] = {}
        self.ended: Counter[str] = Counter()
        """How often a role ended by itself, by role and exit code."""
        self._told: set[str] = set()

    def start(self, name: str, command: Sequence[str | Path], log: Path, **options: Unpack[Options]) -> Child:
        """As `Children.start`; the child is known by its name from now on."""
        child = super().start(name, command, log, **options)
        self._plans[name], self.now[name] = (command, log, options), child
        return child

    def again(self, name: str) -> Child:
        """Starts what has ended, as it was started before."""
        self._told.discard(name)
        command, log, options = self._plans[name]
        return self.start(name, command, log, **options)

    async def kill(self, name: str) -> None:
        """`kill -9` of the process and its group."""
        self._told.add(name)
        await self.now[name].kill()

    async def end(self, name: str, number: int) -> None:
        """Tells a process to stop by a signal, and returns when it is gone."""
        self._told.add(name)
        self.now[name].send(number)
        try:
            await self.now[name].wait(OPEN_S)
        except TimeoutError:
            raise LabError(f"{name} does not end by signal {number}:\n{self.now[name].tail()}") from None

    async def watch(self) -> None:
        """Starts every role again that ends by itself, as an orchestrator would, and counts it."""
        while True:
            for name in ROLES:
                child = self.now.get(name)
                if child is not None and name not in self._told and not child.running:
                    self.ended[f"{name} ({child.returncode})"] += 1
                    self.again(name)
            await asyncio.sleep(0.2)


class Site:
    """The two servers and the provider, each behind proxies; who goes past them sees no trouble of the network."""

    def __init__(self, fleet: Fleet, space: Path, home: Path) -> None:
        self.fleet = fleet
        self.space = space
        self.home = home
        (self._kafka_port, self._controller, self._inside, self.postgres_port, self.http, self._provider_port) = (
            free_ports(6)
        )
        self.proxies: dict[str, Proxy] = {}
        self.inside = ""
        """Kafka as the roles are told of it: through the proxy."""
        self.provider_inside = ""
        self.bootstrap = f"127.0.0.1:{self._kafka_port}"
        self.database_url = ""
        self.provider_url = f"http://127.0.0.1:{self._provider_port}"
        self.api = f"http://127.0.0.1:{self.http}"

    async def start(self, seed: int) -> None:
        """Starts the servers, and the provider with its books on disk."""
        kafka = self.proxies[KAFKA] = Proxy("127.0.0.1", self._inside)
        self.inside = f"127.0.0.1:{await kafka.start()}"
        properties = {
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{self._controller},"
            f"PROXIED://127.0.0.1:{self._inside}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap},PROXIED://{self.inside}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT",
        }
        self.database_url, _ = await asyncio.gather(
            start_postgres(
                self.fleet,
                self.home / "postgres",
                port=self.postgres_port,
                password=SECRET,
                settings=POSTGRES_SETTINGS,
                kept=True,
            ),
            start_kafka(
                self.fleet,
                self.space / "kafka",
                ports=Ports(self._kafka_port, self._controller),
                cluster_id="AWZhcmVib3gtY2hhb3MtLQ",
                kept=True,
                console=Console(stderr=True),
                doors=Doors(properties),
            ),
        )
        words = ["provider-simulator", "--port", str(self._provider_port), "--seed", str(seed)]
        words += ["--dir", str(self.space / "books")]
        for rate, share in msgspec.to_builtins(RATES).items():
            words += ["--rate", f"{rate}={share}"]
        self.fleet.start(PROVIDER, [sys.executable, "-m", "service", *words], self.space / "provider.log")
        await self.open(PROVIDER)
        self.proxies[PROVIDER] = Proxy("127.0.0.1", self._provider_port)
        self.provider_inside = f"http://127.0.0.1:{await self.proxies[PROVIDER].start()}"

    async def stop(self) -> None:
        """Ends the proxies."""
        for proxy in self.proxies.values():
            await proxy.stop()

    async def rates(self, rates: Rates) -> None:
        """From now on so much goes wrong at the provider, until it is started again."""
        await self.put("/rates", rates)

    async def put(self, path: str, body: Any) -> None:
        """Something on the provider's workbench."""
        data = msgspec.json.encode(body)
        async with aiohttp.ClientSession(self.provider_url) as session, session.put(path, data=data) as answer:
            answer.raise_for_status()

    async def serving(self) -> None:
        """Returns when the doors are open."""
        await wait_for_port(self.fleet.now["serve"], self.http, timeout_s=OPEN_S)

    async def open(self, server: str) -> None:
        """Returns when a server that was started takes connections; it is started again where it ended in the attempt,
        as PostgreSQL does while the memory of one that was killed is not free yet."""
        deadline = time.monotonic() + OPEN_S
        while True:
            try:
                if server == POSTGRES:
                    connection = await asyncpg.connect(self.database_url, timeout=5)
                    await connection.close()
                else:
                    port = self._kafka_port if server == KAFKA else self._provider_port
                    await wait_for_port(self.fleet.now[server], port, timeout_s=5)
                return
            except (OSError, LabError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                if time.monotonic() > deadline:
                    raise LabError(f"{server} did not open: {error}\n{self.fleet.now[server].tail()}") from error
            if not self.fleet.now[server].running:
                self.fleet.again(server)
            await asyncio.sleep(POLL_S)

    def backends(self) -> list[psutil.Process]:
        """PostgreSQL's processes that serve a role."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.fleet.now[POSTGRES].pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if " ".join(child.cmdline()).startswith(f"postgres: farebox {DATABASE} "):
                        found.append(child)
        return found


async def role_settings(site: Site, role: str) -> dict[str, str]:
    """The environment of a role, which has a wire to PostgreSQL of its own."""
    site.proxies[role] = Proxy("127.0.0.1", site.postgres_port)
    parts = urlsplit(site.database_url)
    where = f"{parts.username}:{parts.password}@127.0.0.1:{await site.proxies[role].start()}"
    settings = {
        "FAREBOX_DATABASE_URL": parts._replace(netloc=where).geturl(),
        "FAREBOX_KAFKA_BOOTSTRAP": site.inside,
        "FAREBOX_HTTP_PORT": str(site.http),
        "FAREBOX_SESSION_TIMEOUT_MS": "2000",
        "FAREBOX_REBALANCE_TIMEOUT_MS": "3000",
        "FAREBOX_STALL_SECONDS": "30",
    }
    return settings | ({} if role == "serve" else {"FAREBOX_HEALTH_PORT": str(free_ports(1)[0])})


async def furnish(site: Site) -> str:
    """A database of this release, the topics, a tariff, the merchant account; returns a token for the doors."""
    site.database_url = await Servers(site.database_url, site.bootstrap).create_database(DATABASE)
    now = datetime.now(UTC)
    await migrate(site.database_url, now)
    await create_topics(Brokers(site.bootstrap), TOPICS)
    url = f"{site.api}/v1/providers/sandbox/default.city/notifications"
    account = Account("city", SECRET, Terms(confirm_agreement=False), notify_url=url, notify_secret=SECRET)
    await site.put("/accounts", account)
    database = await Database.open(site.database_url, name="chaos", size_max=2)
    try:
        async with database.reading(OperatorStore) as store:
            operator = await store.default()
        assert operator is not None
        [draft] = import_document(msgspec.json.encode(TARIFF))
        await publish_tariff(database, operator, draft, now=now, lead=timedelta(0))
        await add_account(
            database,
            operator.operator_no,
            account_id="city",
            provider="sandbox",
            base_url=site.provider_inside,
            settings={"api_key": SECRET, "notify_secret": SECRET},
            now=now,
        )
        places = Places(site.api, site.provider_url, "", "")
        for merchant in await open_accounts(places, site.space, ("zhima", "wechatpay")):
            await add_account(
                database,
                operator.operator_no,
                account_id=merchant.account_id,
                provider=merchant.provider,
                base_url=site.provider_inside,
                settings=merchant.settings,
                now=now,
            )
        token = secrets.token_urlsafe(32)
        async with database.transaction(TokenStore) as tokens:
            await tokens.add(token_hash(token), operator.operator_id, "chaos", SCOPES, None, now, None)
        return token
    finally:
        await database.close()


FATAL = signal.SIGQUIT
"""PostgreSQL's immediate shutdown: no checkpoint, recovery at the next start."""
