"""The demo's Stripe: localstripe behind its door, and a network between that loses and breaks things."""

from __future__ import annotations

import asyncio
from random import Random

import aiohttp
from aiohttp import web

from service.lab.localstripe import Door

BEFORE = {"drop": 0.005, "error": 0.005, "throttle": 0.005}
"""Shares of calls that never reach Stripe."""
AFTER = {"lost": 0.01, "error": 0.005, "slow": 0.02}
"""Shares of calls that Stripe has executed when things go wrong."""
SLOW_SECONDS = 0.2


class FaultyDoor(Door):
    """The door with everything that goes wrong by rate, from a seed, until `calm`."""

    def __init__(self, target: str, session: aiohttp.ClientSession, seed: int) -> None:
        super().__init__(target, session)
        self._random = Random(seed)
        self._calm = True

    def trouble(self) -> None:
        """From now on things go wrong."""
        self._calm = False

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self._calm = True

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers one call, or does not."""
        before, after = self._drawn(BEFORE), self._drawn(AFTER)
        if before == "drop":
            return _cut(request)
        if before:
            return _refused(500 if before == "error" else 429)
        answer = await super().handle(request)
        if after == "lost":
            return _cut(request)
        if after == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        return _refused(500) if after == "error" else answer

    def _drawn(self, shares: dict[str, float]) -> str:
        if self._calm:
            return ""
        drawn = self._random.random()
        for kind, share in shares.items():
            if drawn < share:
                return kind
            drawn -= share
        return ""


def _cut(request: web.Request) -> web.Response:
    """Nothing comes: the connection is gone."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _refused(status: int) -> web.Response:
    kind = "api_error" if status == 500 else "invalid_request_error"
    code = {"code": "rate_limit"} if status == 429 else {}
    return web.json_response({"error": {"type": kind, "message": "demo", **code}}, status=status)
