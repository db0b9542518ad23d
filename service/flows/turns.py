"""Questions that anybody may cause are asked in turn: callers share an answer, and nobody hurries who is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from service.adapters.clock import Clock

APART = timedelta(seconds=0.5)
"""Machine time from one question about a thing to the next."""
AT_ONCE = 16
REMEMBERED_MAX = 1000


class Turns:
    """Each caller waits for the end of a question that began after he came; those who wait together share one.

    In this process, at most one question is under way about a thing, two begin a second, and `AT_ONCE` about all.
    How long a caller waits is his to bound: a turn that is given up is the next one's.
    """

    def __init__(self, machine_now: Clock) -> None:
        self._machine_now = machine_now
        self._things: dict[object, _Thing] = {}
        self._room = asyncio.Semaphore(AT_ONCE)

    async def take(self, thing: object, ask: Callable[[], Awaitable[None]]) -> None:
        """Asks about a thing, or waits for another caller's answer that is as new."""
        known = self._things.setdefault(thing, _Thing())
        came = known.begun
        known.waiting += 1
        try:
            async with known.turn:
                if known.told > came:
                    return
                await asyncio.sleep(known.wait(self._machine_now()))
                async with self._room:
                    known.begun += 1
                    known.begun_at = self._machine_now()
                    await ask()
                known.told = known.begun
        finally:
            known.waiting -= 1
            self._forget()

    def _forget(self) -> None:
        """Lets go of what nobody waits for and may be asked at once."""
        if len(self._things) > REMEMBERED_MAX:
            now = self._machine_now()
            self._things = {key: one for key, one in self._things.items() if one.waiting or one.wait(now)}


class _Thing:
    """What is asked about: how many questions were begun, the number of the last that was answered."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.waiting = 0
        self.begun = 0
        self.told = 0
        self.begun_at: datetime | None = None

    def wait(self, now: datetime) -> float:
        """Seconds until the next question may begin; a clock that was put back makes nobody wait for long."""
        if self.begun_at is None:
            return 0.0
        return min(max(self.begun_at + APART - now, timedelta()), APART).total_seconds()
