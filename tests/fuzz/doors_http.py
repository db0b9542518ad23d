"""The doors over HTTP, as far as they need no database: bodies of every route, cursors, tokens.

What a body means is asked of a serving process by tests/web/test_served_schema.py.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
from fuzz_parts import Door, run, storable

from service.adapters.postgres.tokens import Token
from service.web.access import Gate
from service.web.answers import read, read_cursor, read_text_cursor, write_cursor
from service.web.app import ROUTES
from service.web.idempotency import HEADER
from service.web.problems import ProblemError

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
BODIES = [route.opt["body"] for route in ROUTES if isinstance(route.opt.get("body"), type)]
DECODERS = [msgspec.json.Decoder(body) for body in BODIES]
TOP = 2**63 - 1


def _refused(work: Callable[[], object]) -> None:
    try:
        storable(work())
    except ProblemError as problem:
        assert 400 <= problem.status < 500
        storable([problem.detail, *(error.field for error in problem.errors)])


def enter_body(data: bytes) -> None:
    """The body of a route; the first letter says of which."""
    if data:
        _refused(lambda: read(DECODERS[data[0] % len(DECODERS)], data[1:]))


def enter_cursor(data: bytes) -> None:
    """A cursor of each kind of list."""
    text = data.decode("utf-8", "replace")
    for kind, first in (("s", (TOP, TOP)), ("q", (TOP,)), ("d", (TOP, TOP, TOP))):
        _refused(lambda kind=kind, first=first: read_cursor(kind, text, first))  # type: ignore[misc]  # Bound at once.
    _refused(lambda: read_text_cursor("t", text))


async def _nobody(_secret: bytes) -> Token | None:
    return None


def enter_token(data: bytes) -> None:
    """An Authorization header of anybody: refused, and nothing is remembered of him."""
    gate = Gate(_nobody, lambda: NOW, 1.0, rate=1.0, rider_rate=1.0)

    async def enter() -> None:
        try:
            await gate.enter(data.decode("latin-1"))
        except ProblemError as problem:
            assert problem.status == 401
        else:
            raise AssertionError("let in by a token that nobody knows")
        assert not gate._known

    run(enter())


def seeds_of_bodies() -> list[bytes]:
    """For every route an object with each field that any has."""
    fields = {
        "session_id": "s", "agreement_id": "agr-1", "rider_ref": "anna", "tariff_id": "bike", "reason": "as asked",
        "amount_minor": 100, "seconds": 3660, "meters": 5, "at": "2026-11-22T18:30:00+08:00", "code": "damage",
        "kind": "extra", "started_at": "2026-11-22T18:30:00+08:00", "ended_at": None, "plan": {"plan_id": "p"},
    }  # fmt: skip
    seeds = []
    for number, body in enumerate(BODIES):
        own = {name: fields[name] for name in body.__struct_fields__ if name in fields}
        seeds.append(bytes([number]) + msgspec.json.encode(own))
    return seeds


def seeds_of_cursors() -> list[bytes]:
    """Good ones."""
    return [write_cursor(*told).encode() for told in (("s", 1, TOP), ("q", 5), ("d", 1, 2, 3), ("t", "bike"))]


WORDS = (
    "\\u0000",
    "\\ud800",
    "1e400",
    "9223372036854775808",
    "[[[[",
    "null",
    HEADER,
    "Bearer ",
    "bearer",
    "====",
    "-_",
)
DOORS = (
    Door("body", enter_body, seeds_of_bodies, 8_000, WORDS),
    Door("cursor", enter_cursor, seeds_of_cursors, 8_000, WORDS),
    Door("token", enter_token, lambda: [b"Bearer farebox_abc", b"Basic YTpi", b"Bearer "], 4_000, WORDS),
)
