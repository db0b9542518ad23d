"""Stripe in a run: localstripe behind a door that loses and breaks some of the calls, and executes none twice.

localstripe ignores idempotency keys. Stripe does not, and a process that is killed or a wire that is cut makes calls
meet that no merchant can keep apart by himself: so they are kept here.
"""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import web

from service.lab.demo.cards import FaultyDoor
from service.lab.localstripe import Door


class OnceDoor(Door):
    """A call under a key that came before is answered as the first one was, which may still be under way
    (docs.stripe.com/api/idempotent_requests)."""

    def __init__(self, target: str, session: aiohttp.ClientSession) -> None:
        super().__init__(target, session)
        self._answers: dict[str, asyncio.Task[tuple[int, bytes]]] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers one call, executed now or before."""
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return await super().handle(request)
        if key not in self._answers:
            self._answers[key] = asyncio.create_task(self._executed(request))
        status, body = await asyncio.shield(self._answers[key])
        return web.Response(status=status, body=body, content_type="application/json")

    async def _executed(self, request: web.Request) -> tuple[int, bytes]:
        answer = await super().handle(request)
        assert isinstance(answer, web.Response) and isinstance(answer.body, bytes)
        return answer.status, answer.body


class CardDoor(FaultyDoor, OnceDoor):
    """Between the roles and `OnceDoor` things go wrong by rate, as in the demo."""
