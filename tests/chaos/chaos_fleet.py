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
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import msgspec
import psutil
from chaos_cards import CardDoor
from chaos_town import Stream
from proxy import Proxy
from rich.console import Console

from service.adapters.kafka_access import Brokers
from service.adapters.migrate import migrate
from service.lab.demo.merchants import SHARES, Merchant, Places, open_accounts
from service.lab.kafka import Doors, Ports, create_topics, start_kafka
from service.lab.localstripe import command, open_door
from service.lab.postgres import start_postgres
from service.lab.processes import POLL_S, Child, Children, LabError, Options, free_ports, wait_for_port
from service.lab.provider.faults import Rates
from service.lab.servers import Servers

KAFKA, POSTGRES, PROVIDER, STRIPE = "Kafka", "PostgreSQL", "provider", "Stripe"
ROLES = ("intake-1", "intake-2", "collect-1", "collect-2", "publish", "keep", "serve")
POSTGRES_SETTINGS = {"max_wal_size": "256MB", "min_wal_size": "64MB", "log_min_messages": "warning"}
OPEN_S = 90.0
OURS = "our error"
DATABASE = "chaos"
SECRET = "chaos"  # noqa: S105  On loopback, for as long as the run lasts.
TOPICS = {"sessions": 6, "billing": 6, "quarantine": 1}
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

    async def kill_all(self) -> None:
        """`kill -9` of whatever runs: nobody needs it any more, and to end in good order takes seconds."""
        self._told |= {*self.now}
        await asyncio.gather(*(child.kill() for child in self.now.values()))

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
    """The two servers and the providers, each behind proxies; who goes past them sees no trouble of the network."""

    def __init__(self, fleet: Fleet, space: Path, home: Path, seed: int, lent: str | None) -> None:
        """`lent` is a Kafka to use, which nothing is done to; none: one of its own."""
        self.fleet = fleet
        self.space = space
        self.home = home
        self.seed = seed
        (self._kafka_port, self._controller, self._inside, self.postgres_port, self.http, *providers) = free_ports(7)
        self._provider_port, self._cards_port = providers
        self._open = AsyncExitStack()
        self.proxies: dict[str, Proxy] = {}
        self.lent = lent is not None
        self.stream = Stream(lent or f"127.0.0.1:{self._kafka_port}", f"chaos-{secrets.token_hex(4)}")
        self.inside = self.stream.bootstrap
        """Kafka as the roles are told of it: where it is ours, through the proxy."""
        self.database_url = ""
        self.api = f"http://127.0.0.1:{self.http}"
        provider, cards = (f"http://127.0.0.1:{port}" for port in providers)
        self.places = Places(self.api, provider, cards, "")

    async def kafka(self) -> None:
        """Starts Kafka, unless one was lent, and makes the topics."""
        if not self.lent:
            await self._own_kafka()
        topics = {self.stream.topic(which): partitions for which, partitions in TOPICS.items()}
        await create_topics(Brokers(self.stream.bootstrap), topics)

    async def _own_kafka(self) -> None:
        proxy = self.proxies[KAFKA] = Proxy("127.0.0.1", self._inside)
        self.inside = f"127.0.0.1:{await proxy.start()}"
        plain = f"PLAINTEXT://{self.stream.bootstrap}"
        properties = {
            "listeners": f"{plain},CONTROLLER://127.0.0.1:{self._controller},PROXIED://127.0.0.1:{self._inside}",
            "advertised.listeners": f"{plain},PROXIED://{self.inside}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT",
        }
        await start_kafka(
            self.fleet,
            self.space / "kafka",
            ports=Ports(self._kafka_port, self._controller),
            cluster_id="AWZhcmVib3gtY2hhb3MtLQ",
            kept=True,
            console=Console(stderr=True),
            doors=Doors(properties),
        )

    async def database(self) -> None:
        """Starts PostgreSQL and makes a database of this release."""
        url = await start_postgres(
            self.fleet,
            self.home / "postgres",
            port=self.postgres_port,
            password=SECRET,
            settings=POSTGRES_SETTINGS,
            kept=True,
        )
        self.database_url = await Servers(url, self.stream.bootstrap).create_database(DATABASE)
        await migrate(self.database_url, datetime.now(UTC))

    async def providers(self) -> list[Merchant]:
        """Starts the simulator, with its books on disk, and localstripe behind its door; opens the accounts there."""
        words = ["provider-simulator", "--port", str(self._provider_port), "--seed", str(self.seed)]
        words += ["--dir", str(self.space / "books")]
        for rate, share in msgspec.to_builtins(RATES).items():
            words += ["--rate", f"{rate}={share}"]
        self.fleet.start(PROVIDER, [sys.executable, "-m", "service", *words], self.space / "provider.log")
        self.fleet.start(STRIPE, command(self._cards_port), self.space / "localstripe.log")
        session = await self._open.enter_async_context(aiohttp.ClientSession())
        door = CardDoor(self.places.cards, session, self.seed)
        door.trouble()
        door_port = urlsplit(await self._open.enter_async_context(open_door(door))).port or 0
        inside = {}
        for name, port in ((PROVIDER, self._provider_port), (STRIPE, door_port)):
            self.proxies[name] = Proxy("127.0.0.1", port)
            inside[name] = f"http://127.0.0.1:{await self.proxies[name].start()}"
        await asyncio.gather(self.open(PROVIDER), self.open(STRIPE))
        merchants = await open_accounts(self.places, self.space, tuple(SHARES))
        return [
            msgspec.structs.replace(one, base_url=inside[STRIPE if one.provider == "stripe" else PROVIDER])
            for one in merchants
        ]

    async def stop(self) -> None:
        """Ends the proxies and Stripe's door."""
        for proxy in self.proxies.values():
            await proxy.stop()
        await self._open.aclose()

    async def rates(self, rates: Rates) -> None:
        """From now on so much goes wrong at the provider, until it is started again."""
        await self.put("/rates", rates)

    async def put(self, path: str, body: Any) -> None:
        """Something on the provider's workbench."""
        data = msgspec.json.encode(body)
        async with aiohttp.ClientSession(self.places.provider) as session, session.put(path, data=data) as answer:
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
                    ports = {KAFKA: self._kafka_port, PROVIDER: self._provider_port, STRIPE: self._cards_port}
                    await wait_for_port(self.fleet.now[server], ports[server], timeout_s=5)
                return
            except (OSError, LabError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                if time.monotonic() > deadline:
                    raise LabError(f"{server} did not open: {error}\n{self.fleet.now[server].tail()}") from error
            if not self.fleet.now[server].running:
                self.fleet.again(server)
            await asyncio.sleep(POLL_S)

    def errors(self) -> list[str]:
        """What the roles logged as errors of ours: no fault may bring one about."""
        logs = {role: (self.space / f"{role}.log").read_text(errors="replace") for role in ROLES}
        return [f"{role}: {line[:600]}" for role, log in logs.items() for line in log.splitlines() if OURS in line]

    def backends(self) -> list[psutil.Process]:
        """PostgreSQL's processes that serve a role."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.fleet.now[POSTGRES].pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if " ".join(child.cmdline()).startswith(f"postgres: farebox {DATABASE} "):
                        found.append(child)
        return found

    async def begin(self, role: str) -> None:
        """Starts a role, which has a wire to PostgreSQL of its own."""
        self.proxies[role] = Proxy("127.0.0.1", self.postgres_port)
        parts = urlsplit(self.database_url)
        where = f"{parts.username}:{parts.password}@127.0.0.1:{await self.proxies[role].start()}"
        settings = {
            "FAREBOX_DATABASE_URL": parts._replace(netloc=where).geturl(),
            "FAREBOX_KAFKA_BOOTSTRAP": self.inside,
            "FAREBOX_GROUP": self.stream.name,
            "FAREBOX_HTTP_PORT": str(self.http),
            "FAREBOX_SESSION_TIMEOUT_MS": "2000",
            "FAREBOX_REBALANCE_TIMEOUT_MS": "3000",
            "FAREBOX_STALL_SECONDS": "30",
        }
        settings |= {f"FAREBOX_TOPIC_{which.upper()}": self.stream.topic(which) for which in TOPICS}
        if role != "serve":
            settings["FAREBOX_HEALTH_PORT"] = str(free_ports(1)[0])
        words = [sys.executable, "-m", "service", role.partition("-")[0]]
        self.fleet.start(role, words, self.space / f"{role}.log", env=settings)


FATAL = signal.SIGQUIT
"""PostgreSQL's immediate shutdown: no checkpoint, recovery at the next start."""
