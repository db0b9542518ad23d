"""Who goes on: every effect of every process waits for its turn, and the seed says whose it is.

A process does what it does between two effects (a statement, a commit, a call) in one go; while one effect is under way
all others wait. So a world's run depends on its seed alone. A process can be killed wherever it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar, copy_context
from itertools import count
from typing import Any, TypeVar

import asyncpg
from virtual_loop import VirtualLoop

T = TypeVar("T")

STRAND: ContextVar[int] = ContextVar("STRAND", default=0)
"""The number of the root task that this one belongs to. With the number of the task itself it orders waiting effects,
whatever order sockets woke them in."""
SPINS_MAX = 20_000


class KilledError(BaseException):
    """The process dies here; nothing catches it, as nothing catches a SIGKILL."""


class Process:
    """One life of a process: whatever it still tries when it is dead, kills it again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen = False
        """It was stopped, and knows nothing of it: nothing it waits for goes on before it is woken."""
        self.tasks: dict[asyncio.Task[Any], None] = {}  # In the order in which they began.


class Waiting:
    """An effect that waits for its turn; `gone` tells that nobody waits for its answer any more."""

    def __init__(
        self, number: int, process: Process | None, what: str, waiter: asyncio.Future[str], gone: Callable[[], bool]
    ) -> None:
        self.order = (STRAND.get(), what, number)
        self.process = process
        self.what = what
        self.waiter = waiter
        self.gone = gone


class Turns:
    """Waiting effects, statements under way, and the root tasks of a world."""

    def __init__(self, loop: VirtualLoop, side: asyncpg.Connection[asyncpg.Record]) -> None:
        self.loop = loop
        self.waiting: list[Waiting] = []
        self.tasks: dict[asyncio.Task[Any], tuple[str, Process]] = {}
        self.open_transactions = 0
        self.changes = 0
        """How often a process has written something, or ended a transaction in which it did: while it is the same
        nothing changes in the database."""
        self._side = side
        self._busy: dict[int, int] = {}  # Statements under way: number -> process id of the connection's server.
        self._blocked: set[int] = set()
        self._known: dict[asyncio.Task[Any], int] = {}  # Tasks in the order in which they first waited.
        self._numbers = count(1)

    async def turn(self, process: Process | None, what: str, gone: Callable[[], bool] = lambda: False) -> str:
        """Waits until it is this effect's turn; returns what is to go wrong with it, "" for nothing."""
        if process is not None and process.dead:
            raise KilledError
        task = asyncio.current_task()
        assert task is not None
        number = self._known.setdefault(task, len(self._known))
        entry = Waiting(number, process, what, self.loop.create_future(), gone)
        self.waiting.append(entry)
        try:
            return await entry.waiter
        finally:
            if entry in self.waiting:
                self.waiting.remove(entry)

    async def statement(self, server_pid: int, running: Awaitable[T]) -> T:
        """A statement under way; it may wait for a lock that another process's transaction holds."""
        number = next(self._numbers)
        self._busy[number] = server_pid
        try:
            return await running
        finally:
            del self._busy[number]
            self._blocked.discard(number)

    def locks_freed(self) -> None:
        """A transaction has ended: who was blocked may go on."""
        self._blocked.clear()

    def start(self, process: Process, name: str, work: Coroutine[Any, Any, Any]) -> None:
        """A root task of a process."""
        context = copy_context()
        context.run(STRAND.set, next(self._numbers))
        task = self.loop.create_task(work, context=context)
        self.tasks[task] = name, process
        process.tasks[task] = None
        task.add_done_callback(lambda ended: process.tasks.pop(ended, None))

    def finished(self) -> list[tuple[str, BaseException | None]]:
        """The root tasks that have ended since the last call, and what they raised."""
        done = [task for task in self.tasks if task.done()]
        ended = []
        for task in done:
            name, _ = self.tasks.pop(task)
            ended.append((name, asyncio.CancelledError() if task.cancelled() else task.exception()))
        return ended

    def kill(self, process: Process) -> None:
        """Ends a process where it is."""
        process.dead = True
        for entry in [entry for entry in self.waiting if entry.process is process]:
            self.waiting.remove(entry)
            entry.waiter.set_exception(KilledError())
        for task in list(process.tasks):
            task.cancel()

    def grant(self, entry: Waiting, verdict: str = "") -> None:
        """It is this effect's turn."""
        self.waiting.remove(entry)
        entry.waiter.set_result(verdict)

    @property
    def ready(self) -> list[Waiting]:
        """The effects that may go on, in the order that does not depend on who was woken first."""
        awake = (entry for entry in self.waiting if entry.process is None or not entry.process.frozen)
        return sorted(awake, key=lambda entry: entry.order)

    @property
    def active(self) -> list[str]:
        """The root tasks of processes that are not frozen."""
        return [name for name, process in self.tasks.values() if not process.frozen]

    @property
    def blocked(self) -> bool:
        """Whether a statement waits for somebody else's lock."""
        return bool(self._busy)

    async def settle(self) -> None:
        """Returns when everything that could run has run: each statement under way waits for a lock."""
        for _ in range(SPINS_MAX):
            if await self.loop.rest(lambda: self._busy.keys() <= self._blocked):
                return
            if self.open_transactions < 2 and not self._blocked:
                continue
            for number in sorted(self._busy.keys() - self._blocked):
                pid = self._busy.get(number)
                if pid is not None and await self._side.fetchval("SELECT pg_blocking_pids($1) <> '{}'", pid):
                    self._blocked.add(number)
        raise AssertionError("the world finds no rest")
