"""People as markers, and a provider that tells more about them than anybody asked: what must not be kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from zhima_account import LOGON

from service.lab.processes import free_ports

SIGNED = "/gateway.do"


class Person:
    """A rider as others know him, told apart by where it was said."""

    def __init__(self, told_by: str) -> None:
        number = sum(told_by.encode())
        self.told_by = told_by
        self.fields: dict[str, Any] = {
            "rider_name": f"王小明-{told_by}",
            "mobile": f"+86-139-{told_by}-{number:04}",
            "identity_no": f"11010119900307{told_by}{number:04}",
            "zm_score": f"zmscore-{told_by}-731",
            "buyer_logon_id": f"139***{told_by}@qq.example",
        }

    def all_of_it(self) -> dict[str, Any]:
        """The fields, and again deeper down: lists and objects in fields nobody listed."""
        return {**self.fields, "payer": {"detail": [self.fields]}}

    def in_words(self) -> str:
        """In a text for people."""
        return " ".join(self.fields.values())

    def marks(self) -> list[str]:
        """What to look for: as it is, as JSON may escape it, and as bytes are shown in hex."""
        forms: list[str] = []
        for text in self.fields.values():
            forms += [text, json.dumps(text)[1:-1], text.encode().hex()]
        return forms


class Talkative:
    """What was added to the provider's answers, by status."""

    def __init__(self) -> None:
        self.said: Counter[int] = Counter()
        self.logons = 0
        """Signed answers that name the rider by themselves: nothing can be added to those."""
        self.broken = {"POST /v1/debits": 1}
        """How many calls of an address are done, and answered by a gateway's page instead."""


@asynccontextmanager
async def talkative(provider_url: str, person: Person) -> AsyncIterator[tuple[str, Talkative]]:
    """A door in front of a provider that puts a person into each of its answers."""
    state = Talkative()

    async def forward(request: web.Request) -> web.Response:
        place = f"{request.method} {request.path}"
        headers = {name: request.headers[name] for name in ("Authorization", "Content-Type") if name in request.headers}
        url = provider_url + request.path_qs
        async with session.request(request.method, url, headers=headers, data=await request.read()) as answer:
            raw = await answer.read()
            if request.path == SIGNED:
                state.logons += LOGON.encode() in raw
                return web.Response(status=answer.status, body=raw, content_type=answer.content_type)
            state.said[answer.status] += 1
            if state.broken.get(place, 0):
                state.broken[place] -= 1
                return web.Response(status=502, text=f"<html>{person.in_words()}</html>", content_type="text/html")
            headers = {"X-Buyer-Name": person.fields["buyer_logon_id"]}
            body = json.dumps(_with(json.loads(raw), person), ensure_ascii=False)
            return web.Response(status=answer.status, text=body, headers=headers, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app)
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    async with aiohttp.ClientSession() as session:
        try:
            yield f"http://127.0.0.1:{port}", state
        finally:
            await runner.cleanup()


def _with(value: Any, person: Person) -> Any:
    """The JSON with the person in each of its objects, and in the words of each refusal."""
    if isinstance(value, list):
        return [_with(item, person) for item in value]
    if not isinstance(value, dict):
        return value
    told = {name: _with(item, person) for name, item in value.items()}
    if isinstance(told.get("message"), str):
        told["message"] += person.in_words()
    return told | person.all_of_it()
