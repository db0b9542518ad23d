"""Every way in which a call and its answer can come to grief, the same at every face."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Protocol

import msgspec
from aiohttp import web

from service.lab.provider.desk import Desk
from service.lab.provider.faults import Fault

HTML = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


class Voice(Protocol):
    """One call at a face: what it does, and how the face says things. `run` executes once; the answers are about it."""

    def run(self, lag_s: float = 0.0) -> None:
        """Executes the call; a query shows what a copy shows that lags by so much."""

    def answer(self) -> web.Response:
        """What the call is answered with."""

    def throttled(self, wait_s: float) -> web.Response:
        """Too many calls; nothing was executed."""

    def failed(self) -> web.Response:
        """A server error that says nothing of what happened."""

    def unavailable(self, code: str | None) -> web.Response:
        """A well-formed answer that says that the system has an error; `code` is the face's word for it."""

    def strange_code(self, code: str | None) -> web.Response:
        """A refusal with a code that nobody listed."""

    def strange_state(self, state: str | None) -> web.Response:
        """The answer, with a state that nobody listed."""

    def missigned(self, *, strange_key: bool) -> web.Response:
        """The answer with a signature of another text, or by a key that nobody was given."""

    def revoke(self) -> None:
        """The rider ends the agreement that the call is about."""


class Scene(msgspec.Struct, frozen=True):
    """A call with a fault on its way."""

    desk: Desk
    request: web.BaseRequest
    voice: Voice
    fault: Fault


async def answer(desk: Desk, request: web.BaseRequest, voice: Voice, fault: Fault | None) -> web.Response:
    """Runs a call, unless the fault keeps it from running, and answers as the fault has it."""
    if fault is None:
        voice.run()
        return voice.answer()
    runs, then = MISHAPS[fault.kind]
    scene = Scene(desk, request, voice, fault)
    if runs:
        voice.run(fault.wait_s if fault.kind == "query_lag" else 0.0)
    told = then(scene)
    return await told if isinstance(told, Awaitable) else told


def cut(scene: Scene) -> web.Response:
    """Ends the connection without an answer."""
    if scene.request.transport is not None:
        scene.request.transport.close()
    return web.Response()


def reset(scene: Scene) -> web.Response:
    """Resets the connection: the client sees no orderly end."""
    transport = scene.request.transport
    sock = transport.get_extra_info("socket") if transport is not None else None
    if transport is not None and sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


async def _hang(scene: Scene) -> web.Response:
    await asyncio.sleep(scene.fault.wait_s)
    return cut(scene)


async def _slowly(scene: Scene) -> web.Response:
    await asyncio.sleep(scene.fault.wait_s)
    scene.voice.run()
    return scene.voice.answer()


async def _told_before(scene: Scene) -> web.Response:
    if scene.desk.deliver:
        await scene.desk.deliver()
    return scene.voice.answer()


def _revoked(scene: Scene) -> web.Response:
    scene.voice.revoke()
    scene.voice.run()
    return scene.voice.answer()


def _truncated(scene: Scene) -> web.Response:
    """Half of the answer, under a head that promises all of it."""
    whole = scene.voice.answer()
    body = whole.body if isinstance(whole.body, bytes) else b""
    transport = scene.request.transport
    if transport is not None:
        head = f"HTTP/1.1 {whole.status} -\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        transport.write(head.encode() + body[: len(body) // 2])
        transport.close()
    return web.Response()


def _skewed(scene: Scene) -> web.Response:
    told = scene.voice.answer()
    told.headers["Date"] = format_datetime(datetime.now(UTC) + timedelta(seconds=scene.fault.wait_s), usegmt=True)
    return told


MISHAPS: dict[str, tuple[bool, Callable[[Scene], web.Response | Awaitable[web.Response]]]] = {
    # kind: (is the call executed first, what then)
    "slow": (False, _slowly),
    "drop": (False, cut),
    "reset": (False, reset),
    "half_open": (True, _hang),
    "lost": (True, cut),
    "error_before": (False, lambda scene: scene.voice.failed()),
    "error_after": (True, lambda scene: scene.voice.failed()),
    "unavailable_before": (False, lambda scene: scene.voice.unavailable(scene.fault.code)),
    "unavailable_after": (True, lambda scene: scene.voice.unavailable(scene.fault.code)),
    "throttle": (False, lambda scene: scene.voice.throttled(scene.fault.wait_s)),
    "html": (True, lambda _: web.Response(text=HTML, status=502, content_type="text/html")),
    "truncated": (True, _truncated),
    "unknown_enum": (True, lambda scene: scene.voice.strange_state(scene.fault.code)),
    "unknown_code": (False, lambda scene: scene.voice.strange_code(scene.fault.code)),
    "bad_signature": (True, lambda scene: scene.voice.missigned(strange_key=False)),
    "rotated_key": (True, lambda scene: scene.voice.missigned(strange_key=True)),
    "clock_skew": (True, _skewed),
    "query_fails": (False, lambda scene: scene.voice.failed()),
    "query_lag": (True, lambda scene: scene.voice.answer()),
    "notify_before_reply": (True, _told_before),
    "revoke": (False, _revoked),
}
