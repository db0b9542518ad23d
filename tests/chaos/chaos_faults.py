"""Everything that is done to the processes and the wires, and the seeded plan of it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from random import Random

import msgspec
import psutil
from chaos_disk import SmallDisk
from chaos_fleet import FATAL, KAFKA, POSTGRES, PROVIDER, RATES, ROLES, STRIPE, Site
from chaos_office import Office

from service.adapters.clock import machine_now
from service.adapters.postgres import Database
from service.adapters.postgres.clock import ClockStore
from service.flows.clock_setting import later, set_clock

ZOMBIE_S = (2.5, 4.5)
"""How long a process is stopped: longer than the session timeout of 2 s."""
SECONDS = (0.2, 2.0)
"""How long anything else lasts, but for a disk that is full."""
FULL_S = (2.0, 5.0)
LONG_S = (30.0, 30.0)
"""As long as a statement may take: whoever asked just before has given up by then, who asked later has not."""
DELAY_S, NARROW_BYTES_PER_S = 0.15, 4_000.0
BACK_S = 40.0
OPERATOR_S = (2.5, 4.5)
"""How long what an operator adds and stops is there: long enough for every role to have taken it up."""
LASTING = {"stop": ZOMBIE_S, "disk full": FULL_S, "half-open for long": LONG_S, "operator at work": OPERATOR_S}
JUMP = (timedelta(seconds=30), timedelta(minutes=8))
OTHERS_SHARE, PAIR_SHARE = 0.35, 0.3
"""How often another fault follows a kill, and how often two faults meet at the same time."""


class Fault(msgspec.Struct, frozen=True):
    """One fault: its kind, whom it meets, and how long it lasts in seconds."""

    kind: str
    on: tuple[str, ...]
    seconds: float

    @property
    def name(self) -> str:
        """As it stands in the report: the two intakes are alike."""
        first = self.on[0].partition("-")[0] if self.on else ""
        whole = "every role" if self.on == ROLES else f"both {first}s" if len(self.on) == 2 else first
        wire = "PostgreSQL of " if self.kind in WIRES and self.on[0] in ROLES else ""
        return f"{self.kind} {wire}{whole}".strip()

    @property
    def kills(self) -> int:
        """How many processes it kills with -9, or PostgreSQL's way of that."""
        return len(self.on) if self.kind in KILLS else 0


Card = tuple[str, tuple[str, ...]]
KILLS = ("kill -9", "crash", "kill -9 backend")
WIRES = ("cut", "lost replies", "delay", "half-open", "throttle")
KILL_DECK: tuple[Card, ...] = (
    *(("kill -9", (role,)) for role in ROLES),
    *(("kill -9", (server,)) for server in (KAFKA, POSTGRES, PROVIDER)),
    *(("kill -9", (role,)) for role in ("intake-1", "intake-2", "collect-1", "collect-2", "serve", "publish")),
    ("kill -9", ("intake-1", "intake-2")),
    ("kill -9", ("collect-1", "collect-2")),
    ("crash", (POSTGRES,)),
    ("kill -9 backend", (POSTGRES,)),
    ("kill -9 backend", (POSTGRES,)),
    ("kill -9", ROLES),
)
OTHER_DECK: tuple[Card, ...] = (
    *(("stop", (role,)) for role in ("intake-1", "intake-2", "collect-1", "collect-2", "publish", "keep", "serve")),
    ("stop", (KAFKA,)),
    ("stop", (PROVIDER,)),
    ("stop", (STRIPE,)),
    *(("SIGTERM", (role,)) for role in ROLES),
    ("restart", (KAFKA,)),
    ("restart", (POSTGRES,)),
    *((kind, (to,)) for kind in WIRES for to in (KAFKA, POSTGRES, PROVIDER, STRIPE)),
    *((kind, (role,)) for kind in ("cut", "half-open") for role in ("intake-1", "collect-2")),
    ("half-open for long", (POSTGRES,)),
    ("errors", (PROVIDER,)),
    ("disk full", (POSTGRES,)),
    ("disk full", (POSTGRES,)),
    ("clock jumps", ()),
    ("clock back", ()),
    ("operator at work", ()),
)


def of_one_kind(seed: int, name: str, times: int) -> list[list[Fault]]:
    """So many steps of the fault that has this name in the report; none where there is no such."""
    random = Random(seed)
    cards = [fault for fault in _faults(random, [*KILL_DECK, *OTHER_DECK]) if fault.name == name]
    return [[random.choice(cards)] for _ in range(times)] if cards else []


def plan(seed: int, kills: int) -> list[list[Fault]]:
    """Steps, each of one fault or two at once, with so many kills in all; every kind comes before one comes again."""
    random = Random(seed)
    kill, other = _dealt(random, KILL_DECK), _dealt(random, OTHER_DECK)
    steps: list[list[Fault]] = []
    left = kills
    while left > 0:
        fault = next(kill)
        if fault.kills > left:
            continue
        steps.append([fault])
        left -= fault.kills
        drawn = random.random()
        if drawn >= PAIR_SHARE + OTHERS_SHARE:
            continue
        second = next(random.choice((kill, other)) if drawn < PAIR_SHARE else other)
        if second.kills > left:
            continue
        left -= second.kills
        if drawn < PAIR_SHARE and not {*fault.on} & {*second.on}:
            steps[-1].append(second)
        else:
            steps.append([second])
    return steps


def _dealt(random: Random, deck: Sequence[Card]) -> Iterator[Fault]:
    """Faults from a deck that is shuffled anew when it is out."""
    while True:
        yield from _faults(random, random.sample(deck, len(deck)))


def _faults(random: Random, cards: Sequence[Card]) -> Iterator[Fault]:
    for kind, on in cards:
        shortest, longest = LASTING.get(kind, SECONDS)
        yield Fault(kind, on, round(random.uniform(shortest, longest), 2))


class Hand:
    """Does what the plan says."""

    def __init__(self, site: Site, disk: SmallDisk | None, seed: int) -> None:
        self._site = site
        self._fleet = site.fleet
        self._disk = disk
        self._random = Random(seed)
        self.office = Office(site, seed)

    def can(self, fault: Fault) -> bool:
        """Whether this machine lets us do it."""
        lent = self._site.lent and KAFKA in fault.on
        return not lent and (fault.kind != "disk full" or self._disk is not None)

    async def meet(self, fault: Fault) -> float:
        """The whole fault; returns when (monotonic) it was lifted: a process counts from its start."""
        match fault.kind:
            case "kill -9" | "crash" | "restart" | "SIGTERM":
                return await self._down(fault)
            case "kill -9 backend":
                return await self._one_of(self._site.backends)
            case "stop":
                self._fleet.now[fault.on[0]].send(signal.SIGSTOP)
                await asyncio.sleep(fault.seconds)
                self._fleet.now[fault.on[0]].send(signal.SIGCONT)
            case "disk full":
                return await self._disk_full(fault)
            case "clock jumps":
                await self._jump()
            case "clock back":
                await self._back()
            case "operator at work":
                await self.office.work(fault.seconds)
            case "errors":
                await self._site.rates(msgspec.structs.replace(RATES, error_before=1.0))
                await asyncio.sleep(fault.seconds)
                await self._site.rates(RATES)
            case _:
                await self._wires(fault)
        return time.monotonic()

    async def _down(self, fault: Fault) -> float:
        """Processes end, one way or the other, and are started again."""
        number = {"crash": FATAL, "SIGTERM": signal.SIGTERM}.get(fault.kind)
        if fault.kind == "restart":
            number = signal.SIGINT if fault.on[0] == POSTGRES else signal.SIGTERM
        ends = (self._fleet.kill(name) if number is None else self._fleet.end(name, number) for name in fault.on)
        await asyncio.gather(*ends)
        await asyncio.sleep(fault.seconds)
        lifted = time.monotonic()
        for name in fault.on:
            self._fleet.again(name)
        for name in {*fault.on} - {*ROLES}:
            await self._site.open(name)
        return lifted

    async def _one_of(self, found: Callable[[], list[psutil.Process]]) -> float:
        """`kill -9` of one of some processes, which are started again by whoever is above them."""
        while not (there := found()):  # noqa: ASYNC110  Another process starts them.
            await asyncio.sleep(0.1)
        with contextlib.suppress(psutil.NoSuchProcess):
            self._random.choice(there).kill()
        return time.monotonic()

    async def _disk_full(self, fault: Fault) -> float:
        """PostgreSQL can't write one page more; where that ends it, it is started again once there is space."""
        assert self._disk is not None
        self._disk.full()
        await asyncio.sleep(fault.seconds)
        self._disk.free()
        lifted = time.monotonic()
        await self._site.open(POSTGRES)
        return lifted

    async def _jump(self) -> None:
        """The business clock is suddenly later, as after a suspended machine."""
        shortest, longest = JUMP
        step = shortest + (longest - shortest) * self._random.random()
        database = await Database.open(self._site.database_url, name="chaos", size_max=1)
        try:
            await set_clock(database, later(step))
        finally:
            await database.close()

    async def _back(self) -> None:
        """The business clock is suddenly earlier, as after a machine's was put right: what `farebox clock` refuses."""
        database = await Database.open(self._site.database_url, name="chaos", size_max=1)
        try:
            async with database.transaction(ClockStore) as store:
                now, step = await store.lock(), timedelta(seconds=self._random.uniform(1, BACK_S))
                if now.clock_business_at is not None and now.clock_machine_at is not None:
                    await store.set(now.clock_machine_at, now.clock_business_at - step, now.clock_speed)
                else:
                    machine_at = machine_now()
                    await store.set(machine_at, machine_at - step, 1.0)
        finally:
            await database.close()

    async def _wires(self, fault: Fault) -> None:
        """A trouble of the network to one server, or of one role to PostgreSQL."""
        server = fault.on[0]
        names = ROLES if server == POSTGRES else (server,)
        proxies = [self._site.proxies[name] for name in names]
        for proxy in proxies:
            match fault.kind:
                case "cut":
                    proxy.cut()
                case "lost replies":
                    proxy.lose_replies()
                case "delay":
                    proxy.delay(DELAY_S)
                case "throttle":
                    proxy.throttle(NARROW_BYTES_PER_S)
                case "half-open" | "half-open for long":
                    proxy.strand()
                case _:
                    raise AssertionError(fault)
        await asyncio.sleep(fault.seconds)
        for proxy in proxies:
            proxy.mend()
