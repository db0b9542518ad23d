"""A world: one operator with his merchant accounts, riders and rides for sixty days, driven by a seed.

The driver alone decides who goes on, who is killed, what is cut and when time passes; everything it draws comes from
the seed. `decisions` is a digest of all it decided: the same for the same seed, always.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from heapq import heappop, heappush
from random import Random
from typing import Any, TypeAlias

import msgspec
from sim_calm import CalmDatabase
from sim_fleet import Fleet
from sim_lives import Life, Wire
from sim_profiles import Chaos, Profile, calm
from sim_provider import CountedFaults, WorldClock
from sim_rounds import DUE, OF_NO_ACCOUNT, ROUNDS
from turns import KilledError, Process, Turns, Waiting
from virtual_loop import VirtualLoop

from service.adapters.clock import machine_now
from service.adapters.kafka_access import KAFKA_UNAVAILABLE
from service.adapters.postgres import RACES, UNAVAILABLE
from service.adapters.postgres.intake import FenceLostError
from service.adapters.postgres.rides import ride_number
from service.adapters.providers.port import MerchantAccount
from service.lab.provider.books import Books
from service.lab.provider.courier import Courier
from service.lab.provider.desk import Desk
from service.lab.provider.faces import notices_of
from service.lab.provider.faults import Rates
from service.lab.provider.server import FACES

BEGINNING = datetime(2026, 11, 22, 10, tzinfo=UTC)
"""Of every world: the tests' databases have partitions for this month and the three after it."""
SIXTY_DAYS = timedelta(days=60)
HEALING = timedelta(days=45)
"""After the sixty days nothing goes wrong any more; so long at most until nothing is under way."""
ACTIVE_MAX = 4
STEPS_MAX = 25_000
LATENESS = (0.0, 0.05, 2.0, 20.0, 600.0, 6 * 3600.0, 20 * 3600.0)
"""How much later than due a round may begin, seconds: now and then the service is away for most of a day."""


Due: TypeAlias = tuple[datetime, str, int]
"""When, which kind of round, of which account (0: of none)."""


class WorldError(AssertionError):
    """The world is not as it must be; the message says where."""


class Action(msgspec.Struct, frozen=True, order=True):
    """Something that happens at an instant: `slot` names the process that does it, "" the world outside."""

    at: datetime
    number: int
    name: str
    slot: str
    run: Callable[[Any], Any]
    must: bool = False


class World:
    """The stage and its driver; what is played on it is the script's (sim_script)."""

    def __init__(self, seed: int, chaos: Chaos, turns: Turns, calm_database: CalmDatabase, connections: Any) -> None:
        self.seed = seed
        self.operator_id = f"sim-{seed}"
        self.random = Random(f"driver {seed}")
        self.chaos = self.weather = chaos
        self.turns = turns
        self.loop: VirtualLoop = turns.loop
        self.calm = calm_database
        self.connections = connections
        self.began_s = self.loop.time()
        self.counts: Counter[str] = Counter()
        self.books = Books(None, 0)
        self.desk = Desk(
            self.books, WorldClock(self.now), CountedFaults(self.counts, seed, chaos.faults), "http://provider.invalid"
        )
        self.books.notice_of = notices_of(self.desk, FACES)
        self.wire = Wire(turns, self.desk)
        self.accounts: dict[int, tuple[MerchantAccount, Profile]] = {}
        self.lives: dict[str, Life] = {}
        self._born: list[Life] = []
        self.running: Counter[str] = Counter()
        self.script: list[Action] = []
        self.pending: dict[str, Action] = {}
        self.trips: list[str] = []
        self.fleet: Fleet
        self.settled_down: Callable[[], Coroutine[Any, Any, bool]]
        self._actions = 0
        self._digest = blake2b(digest_size=8)
        self._courier: Courier | None = None
        self.writers: list[int] = []
        """Who may come to owe something: their numbers."""
        self._due: list[Due] = []
        self._due_as_of = -1
        self._looked: dict[tuple[str, int], tuple[datetime, timedelta]] = {}
        self.stopped = False
        """Whether an operator ever stopped something: what is due may not be done then."""
        self._post = Process("the provider's courier")
        self._signs_at = machine_now()  # Keys and certificates are of this machine's day.

    def now(self) -> datetime:
        """The world's time, for every clock in it."""
        return BEGINNING + timedelta(seconds=self.loop.time() - self.began_s)

    async def rows(self, statement: str, *arguments: Any) -> list[dict[str, Any]]:
        """Looks into the database, from the driver or from one of its tasks: nobody goes on meanwhile."""
        return await self.turns.statement(0, self.calm.rows(statement, *arguments))

    @property
    def decisions(self) -> str:
        """What the driver decided, as a digest."""
        return self._digest.hexdigest()

    def at(self, when: datetime, name: str, slot: str, run: Callable[[Any], Any], *, must: bool = False) -> None:
        """Puts an action on the script; one that `must` happen is tried again until it did."""
        self._actions += 1
        heappush(self.script, Action(when, self._actions, name, slot, run, must))

    def life(self, slot: str) -> Life:
        """The process of this name, started if it is dead."""
        life = self.lives.get(slot)
        if life is None or life.process.dead:
            accounts = tuple(account for account, _ in self.accounts.values())
            life = Life(slot, self.turns, self.connections, self.wire, self.now, self._signs_at, accounts)
            self.lives[slot] = life
            self._born.append(life)
        return life

    async def play(self) -> None:
        """Sixty days with everything that goes wrong, then some in which nothing does; raises WorldError."""
        session = self.wire.courier_session(lambda request: self.life("serve").notified(request))
        self._courier = Courier(self.desk, session, FACES)
        self.desk.deliver = self._courier.all
        try:
            await self._until(BEGINNING + SIXTY_DAYS)
            self._heal()
            await self._until(BEGINNING + SIXTY_DAYS + HEALING, self.settled_down)
        finally:
            self.chaos = calm()
            self.fleet.end()
            for life in self.lives.values():
                self.turns.kill(life.process)
            await self._courier.close()
            await self.turns.settle()
            self.turns.finished()
            await session.close()
            for life in self._born:
                await life.session.close()

    def _heal(self) -> None:
        self.chaos = calm()
        self.fleet.thaw()
        self.desk.faults.rates = Rates()
        self.desk.faults.clear()

    async def _until(self, end: datetime, enough: Callable[[], Coroutine[Any, Any, bool]] | None = None) -> None:
        for _ in range(STEPS_MAX):
            await self.turns.settle()
            self._reap()
            self.look_for_trips()
            if self._step():
                continue
            if self.turns.active or self.turns.ready:
                self._wait(end)
                continue
            due = await self.due()
            if self._at_work(due):
                continue
            if self.now() >= end or (enough is not None and await enough()):
                return
            self._pass_time(due, end)
        raise WorldError(f"no end of steps at {self.now()}; running: {sorted(self.turns.active)}")

    # -------------------------------------------------------------- one step

    def _step(self) -> bool:
        """Lets one effect go on, or something begin; False when all wait for time to pass."""
        waiting, room = self.turns.ready, len(self.turns.active) < ACTIVE_MAX
        if not waiting:
            return False
        if room and self.random.random() < 0.01 and self.lives:
            what, number = self.random.choice(sorted(ROUNDS)), self.random.choice(sorted(self.accounts))
            self._begin_rounds(what, 0 if what in OF_NO_ACCOUNT else number)
            return True
        if self.random.random() < self.chaos.drift and not self.turns.blocked:
            return self._drift(waiting)
        entry = self.random.choice(waiting)
        long_round = entry.process is not None and entry.process.name.startswith("intake")
        if entry.process is not None and self.random.random() < self.chaos.kill / (4 if long_round else 1):
            self._kill(entry)
            return True
        frozen = entry.process is not None and not self.turns.blocked and self.random.random() < self.chaos.freeze
        if frozen and entry.process is not None and self.fleet.freeze(entry.process):
            self.counts["stopped"] += 1
            self._decided("stop", entry.process.name, entry.what)
        else:
            self._grant(entry)
        return True

    def _drift(self, waiting: list[Waiting]) -> bool:
        """Time passes while effects wait: answers come late, leases end. What nobody waits for is decided before."""
        gone = next((entry for entry in waiting if entry.process is None and entry.gone()), None)
        if gone is not None:
            self._decided("gone", gone.what)
            self.turns.grant(gone, self.random.choice(("", "dropped")))
            return True
        step = self.random.choice((0.3, 3.0, 12.0, 31.0, 70.0))
        self._move(self.now() + timedelta(seconds=step))
        return True

    def _grant(self, entry: Waiting) -> None:
        verdict = ""
        if entry.process is not None:
            if self.random.random() < self.chaos.cut and not entry.what.startswith("connection"):
                verdict = "cut"
            elif entry.what.startswith("commit") and self.random.random() < self.chaos.lost:
                verdict = "lost"
            elif entry.what.startswith("write") and self.random.random() < self.chaos.race:
                verdict = "race"
        if verdict:
            self.counts[verdict] += 1
        self._decided("go", entry.what, verdict)
        self.turns.grant(entry, verdict)

    def _kill(self, entry: Waiting) -> None:
        assert entry.process is not None
        if self.turns.blocked:  # Its statement may be the one that waits for a lock; it dies at its next turn.
            self._grant(entry)
            return
        self.counts["killed"] += 1
        self._decided("kill", entry.process.name, entry.what)
        self.turns.kill(entry.process)
        self.fleet.died(entry.process)

    def _reap(self) -> None:
        """Takes note of tasks that ended; what a process may not raise is a failure of the world."""
        for name, error in self.turns.finished():
            self.running[name] -= 1
            action = self.pending.pop(name, None)
            if error is None:
                continue
            self._check(name, error)
            if action is not None and action.must:
                again = self.now() + timedelta(seconds=self.random.choice((1, 5, 40)))
                self.at(again, action.name, action.slot, action.run, must=True)

    def _check(self, name: str, error: BaseException) -> None:
        expected = (KilledError, FenceLostError, *RACES, *UNAVAILABLE, *KAFKA_UNAVAILABLE)
        if isinstance(error, BaseExceptionGroup):
            rest = error.split(lambda one: isinstance(one, (*expected, asyncio.CancelledError)))[1]
            if rest is None:
                return
        elif isinstance(error, (*expected, asyncio.CancelledError)):
            return
        raise WorldError(f"{name} at {self.now()}:\n" + "".join(traceback.format_exception(error)))

    def look_for_trips(self) -> None:
        """Bugs of ours that the service sets apart, so that the others go on, end a world."""
        trips = [*self.trips, *("".join(traceback.format_exception(error)) for error in self.wire.tripped)]
        if trips:
            raise WorldError(f"it trips at {self.now()}:\n" + "\n".join(trips))

    # -------------------------------------------------------------- time

    def _wait(self, end: datetime) -> None:
        """Everybody waits for a timer, or for an answer that is on its way."""
        timer_s = self.loop.next_timer_s()
        if timer_s is None:
            raise WorldError(f"nobody can go on at {self.now()}: {sorted(self.turns.active)}")
        self._move(self._at_s(timer_s))

    def _at_s(self, timer_s: float) -> datetime:
        at = BEGINNING + timedelta(seconds=timer_s - self.began_s) + timedelta(microseconds=1)
        return max(at, self.now() + timedelta(milliseconds=1))

    def _move(self, to: datetime) -> None:
        to = max(to, self.now())
        self._decided("move", to.isoformat())
        self.loop.move_to(self.began_s + (to - BEGINNING) / timedelta(seconds=1))
        self.desk.advance(self.now())

    def _at_work(self, due: list[Due]) -> bool:
        """Begins what is due now; False when nothing is."""
        assert self._courier is not None
        now = self.now()
        if self.script and self.script[0].at <= now:
            self._act(heappop(self.script))
            return True
        if self.books.due_notices and self.books.due_notices[0][0] <= now:
            self._decided("courier")
            self.turns.start(self._post, "courier", self._courier.round())
            return True
        ready = sorted({(what, number) for at, what, number in due if at <= now})
        self.random.shuffle(ready)
        for what, number in ready[: self.random.randint(1, 3)]:
            self._begin_rounds(what, number)
        return bool(ready)

    def _pass_time(self, due: list[Due], end: datetime) -> None:
        """To what is due next, or a little late."""
        times = [at for at, _, _ in due]
        times += [self.script[0].at] if self.script else []
        times += [self.books.due[0][0]] if self.books.due else []
        times += [self.books.due_notices[0][0]] if self.books.due_notices else []
        late = timedelta(seconds=self.random.choice(LATENESS))
        timer_s = self.loop.next_timer_s() if self.fleet.timers else None
        soon = [] if timer_s is None else [self._at_s(timer_s)]
        self._move(min([*(at + late for at in times), *soon, end]))

    def _patient(self, what: str, number: int, at: datetime) -> datetime:
        """Holds in use are looked at every ten minutes for as long as they are, and what is stopped again and again: a
        world has no time for all of that."""
        if what != "release" and not (self.stopped and what in ("submit", "policy")):
            return at
        looked, pause = self._looked.get((what, number), (BEGINNING, timedelta()))
        return max(at, looked + pause)

    def _begin_rounds(self, what: str, number: int) -> None:
        """A round on one of the collectors, now and then on both at once; or one of an intake."""
        if what == "intake":
            self._decided("begin", what, str(number))
            self.fleet.begin(number)
            return
        slots = ["collect-1", "collect-2"]
        self.random.shuffle(slots)
        for slot in slots[: 2 if self.random.random() < self.chaos.both else 1]:
            name = f"{slot} {what} {number}"
            if self.running[name]:
                continue
            life = self.life(slot)
            self._decided("begin", slot, what, str(sorted(self.accounts).index(number) if number else 0))
            if what == "release":
                pause = timedelta(hours=self.random.choice((0.1, 12, 48, 120)))
                self._looked[what, number] = (self.now(), pause)
            elif self.stopped and what in ("submit", "policy"):
                pause = timedelta(minutes=self.random.choice((0, 0, 1, 5, 90)))
                self._looked[what, number] = (self.now(), pause)
            self.counts["rounds"] += 1
            self.counts[what] += 1
            self.running[name] += 1
            self.turns.start(life.process, name, ROUNDS[what](life, number))

    def _act(self, action: Action) -> None:
        self._decided("act", action.name)
        self.counts["actions"] += 1
        if not action.slot:
            action.run(self)
            return
        name = f"{action.name} #{action.number}"
        life = self.life(action.slot)
        self.pending[name] = action
        self.running[name] += 1
        self.turns.start(life.process, name, action.run(life))

    def _decided(self, *what: str) -> None:
        self._digest.update(("\0".join(what) + "\n").encode())
        self.counts["decisions"] += 1

    async def due(self) -> list[Due]:
        """What is due when, by kind of round and account; asked again once a process has written something."""
        if self._due_as_of != self.turns.changes:
            self._due_as_of = self.turns.changes
            rows = await self.rows(
                DUE, sorted(self.accounts), self.writers, ride_number(self.now() + timedelta(seconds=1), 0)
            )
            self._due = [(row["at"], row["what"], row["account_no"]) for row in rows]
        found = [(self._patient(what, number, at), what, number) for at, what, number in self._due]
        return sorted(found + self.fleet.due())
