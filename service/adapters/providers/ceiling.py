"""The most calls per second that a merchant account makes, where its contract says so.

The ceiling is one process's: `n` processes that call the same account make up to `n` times as many, so an installation
divides what its contract allows by the processes of `collect` and `serve` that it runs (`farebox account add`, the
providers' pages and the runbook say so). What the provider itself says ("too many", 429) is honoured beside it, whoever
used the calls up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp

BURST_S = 0.1
"""So many seconds' worth of calls may go at once after a pause; one in any case."""
WAIT_MAX_S = 2.0
"""A call that would have to wait longer for its turn is not made, and whoever wanted it is told when to come again."""


class HeldBackError(Exception):
    """The call was not made: there is room for it in `wait_s` seconds."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"held back for {wait_s:.3f} s by the account's calls_per_second")
        self.wait_s = wait_s


class Ceiling:
    """When the next call may go; `clock` gives seconds that only grow."""

    def __init__(self, calls_per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._spacing_s = 1 / calls_per_second
        self._slack_s = max(int(calls_per_second * BURST_S) - 1, 0) * self._spacing_s
        self._free_at = float("-inf")

    def take(self) -> float:
        """Takes the next place; how many seconds it is off. One that is too far off is not taken: HeldBackError."""
        now = self._clock()
        at = max(self._free_at, now - self._slack_s)
        wait_s = max(at - now, 0.0)
        if wait_s > WAIT_MAX_S:
            raise HeldBackError(wait_s)
        self._free_at = at + self._spacing_s
        return wait_s

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """A middleware of a client session: each call waits for its place."""
        wait_s = self.take()
        if wait_s:
            await asyncio.sleep(wait_s)
        return await handler(request)
