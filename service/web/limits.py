"""How often a token may ask, and how long a request may take: in each serving process for itself."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from service.web.problems import Problem, ProblemError

TOKENS_MAX = 10_000
HEARD_OUT_BYTES = 65_536
"""A body that is no larger is read before the answer, also where the answer does not need it: a server closes the
connection on what it has not read, and a client that is still sending would hear of that instead. Where it is not read,
the answer says that the connection closes, so that nobody asks on it again."""
HEARD_OUT_SECONDS = 1.0
"""How long it is waited for then."""


class Pace:
    """So many requests a second for each caller, and a second's worth of them at once; `rate` 0 lets everybody go on.

    One number per caller: the instant until which his requests are paid for (the generic cell rate algorithm, ITU-T
    I.371). Where more than `TOKENS_MAX` are known, those who have not asked lately are forgotten; where most have, as
    they may at less than one request a minute, they are looked through again when they are twice as many.
    """

    def __init__(self, rate: float, machine: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._machine = machine
        self._paid_until: dict[str, float] = {}
        self._known_max = TOKENS_MAX

    def take(self, who: str) -> None:
        """Counts a request; raises a 429 problem with the seconds to wait when it is one too many."""
        if not self._rate:
            return
        now, step = self._machine(), 1 / self._rate
        paid_until = max(self._paid_until.get(who, now), now)
        ahead = paid_until - now - max(1.0, step) + step
        if ahead > 1e-9:
            wait = max(1, math.ceil(ahead))
            detail = f"more than {self._rate:g} requests a second with this token; try again in {wait} s"
            raise ProblemError(429, "too-many-requests", detail, headers={"Retry-After": str(wait)})
        if len(self._paid_until) >= self._known_max:
            self._paid_until = {name: until for name, until in self._paid_until.items() if until > now}
            self._known_max = max(TOKENS_MAX, 2 * len(self._paid_until))
        self._paid_until[who] = paid_until + step


class TimeLimit(ASGIMiddleware):
    """Ends a request whose body does not come or whose answer does not begin in time: 408, and the connection is
    closed. What was begun is left as any request that is cut: to be asked again under its Idempotency-Key."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Passes the request on, for so long."""
        begun = False
        announced = _announced(scope)
        whole = not announced

        async def hear() -> Any:
            nonlocal whole
            message = await receive()
            whole = whole or not message.get("more_body", False)
            return message

        async def hear_out() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(HEARD_OUT_SECONDS, self._seconds / 4)):
                    while not whole:
                        await hear()

        async def tell(message: Message) -> None:
            nonlocal begun
            if not whole and announced <= HEARD_OUT_BYTES and message["type"] == "http.response.start":
                await hear_out()
            if not whole and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(self._seconds):
                await next_app(scope, hear, tell)
        except TimeoutError:
            if begun:
                raise
            await self._late(scope, send)

    async def _late(self, scope: Scope, send: Send) -> None:
        detail = f"the request was not whole, or its answer not there, within {self._seconds:g} s; try again"
        told = Problem("urn:farebox:problem:request-timeout", "Request Timeout", 408, detail, scope["path"])
        headers = [(b"content-type", b"application/problem+json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 408, "headers": headers})
        await send({"type": "http.response.body", "body": msgspec.json.encode(told), "more_body": False})


def _announced(scope: Scope) -> int:
    """The bytes of body that a request's head announces; 0 where it says nothing that can be read."""
    told = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(told) if told.isdigit() and len(told) < 12 else 0
