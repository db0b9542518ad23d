"""An event loop whose clock stands still until it is moved, and that can tell when nothing is left to run."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
MOMENT_S = 0.004
"""Most statements are done within it; asking whether one waits for a lock costs as much as the statement."""


class SeldomSelector(selectors.DefaultSelector):
    """Looks at sockets only when there is nothing else to do: asked with no time to wait, it has nothing to say."""

    idle: Callable[[], bool] | None = None
    """Called when nothing is left to run; True when that has woken somebody, and no socket is to be waited for."""
    impatient: Callable[[], None] | None = None
    """Called when nothing came for a moment, where somebody wants to know; the moment is the machine's."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See BaseSelector."""
        if timeout == 0 or (self.idle is not None and self.idle()):
            return []
        found = super().select(timeout if self.impatient is None else MOMENT_S)
        if not found and self.impatient is not None:
            self.impatient()
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """Timers run when `virtual_s` is moved past them; sockets are the real ones."""

    def __init__(self) -> None:
        self.virtual_s = 0.0
        self.sockets = SeldomSelector()
        super().__init__(self.sockets)
        self._clock_resolution = 1e-6  # What is due within it runs, however coarse a float of many days is.

    def begin(self) -> None:
        """Time begins again, for another world: seconds since another one's beginning would be of other precision."""
        for handle in self._scheduled:  # type: ignore[attr-defined]  # See `next_timer_s`.
            handle.cancel()
        self.virtual_s = 0.0

    def _run_once(self) -> None:
        """What asyncio does in each turn, without a look at sockets and timers while there is something to run and no
        timer is due; nine turns in ten are so."""
        timers = self._scheduled  # type: ignore[attr-defined]  # See `next_timer_s`.
        ready = self._ready  # type: ignore[attr-defined]  # Private to asyncio since 3.4, and always a deque there.
        if not ready or (timers and timers[0]._when < self.virtual_s + self._clock_resolution):
            super()._run_once()  # type: ignore[misc]  # Private to asyncio since 3.4.
            return
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def run_in_executor(self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        """Runs it in the loop: when a thread would be done is not the seed's to say."""

        async def here() -> T:
            return func(*args)

        return self.create_task(here())

    def time(self) -> float:
        """Seconds of virtual time since the loop was made; nothing but `move_to` changes it."""
        return self.virtual_s

    def move_to(self, virtual_s: float) -> None:
        """The clock shows this from now on; what waits for it runs in the loop's next turn."""
        assert virtual_s >= self.virtual_s, "time does not run backwards"
        self.virtual_s = virtual_s

    async def rest(self, enough: Callable[[], bool]) -> bool:
        """Returns when everything that could run has run and it is `enough`; what is left waits for a timer, or its
        turn. False when it is not, and for a moment no socket had anything to say."""
        waiter: asyncio.Future[bool] = self.create_future()

        def idle() -> bool:
            if not waiter.done() and enough():
                waiter.set_result(True)
            return waiter.done()

        def impatient() -> None:
            if not waiter.done():
                waiter.set_result(False)

        self.sockets.idle, self.sockets.impatient = idle, impatient
        try:
            return await waiter
        finally:
            self.sockets.idle = self.sockets.impatient = None

    def next_timer_s(self) -> float | None:
        """When the next timer is due that was not cancelled."""
        times = [
            handle.when()
            for handle in self._scheduled  # type: ignore[attr-defined]  # Private to asyncio since 3.4, and always a list there.
            if not handle.cancelled()
        ]
        return min(times, default=None)
