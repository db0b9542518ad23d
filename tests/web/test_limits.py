"""How often a token may ask, how large and how slow a request may be, and what a request can't smuggle in."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from web_world import ALL, WebWorld, web_world

from service.web.answers import BODY_BYTES_MAX
from service.web.app import ROUTES
from service.web.limits import Pace
from service.web.notifications import BYTES_MAX
from service.web.problems import ProblemError

WRITES = sorted(
    {
        (str(method), path)
        for route in ROUTES
        for path in route.paths
        for method in route.http_methods
        if method in ("POST", "PUT")
    }
)


@pytest.fixture(scope="module")
async def it(database_url: str) -> AsyncIterator[WebWorld]:
    async with web_world(database_url) as world:
        yield world


class Hands:
    """A machine's clock that is moved by hand, in seconds."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def allowed(pace: Pace, who: str, asked: int) -> int:
    """How many of so many requests at once go through."""
    count = 0
    for _ in range(asked):
        try:
            pace.take(who)
        except ProblemError as refused:
            assert refused.status == 429
            assert int(refused.headers["Retry-After"]) >= 1
            continue
        count += 1
    return count


@pytest.mark.parametrize(("rate", "at_once"), [(10.0, 10), (1.0, 1), (0.5, 1), (1000.0, 1000)])
def test_a_token_has_a_second_of_requests_at_once_and_then_its_rate(rate: float, at_once: int) -> None:
    hands = Hands()
    pace = Pace(rate, hands)
    assert allowed(pace, "a", at_once + 5) == at_once
    assert allowed(pace, "b", 1) == 1  # Nobody pays for another.
    for _ in range(20):
        hands.at += 1 / rate
        assert allowed(pace, "a", 2) == 1
    hands.at += 3600
    assert allowed(pace, "a", at_once + 5) == at_once  # What was not used is not saved up.


def test_callers_who_may_ask_seldom_are_looked_through_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them were looked through at each request, half a millisecond for twenty thousand of once an hour."""
    monkeypatch.setattr("service.web.limits.TOKENS_MAX", 10)
    hands = Hands()
    pace = Pace(1 / 3600, hands)
    for number in range(1000):
        assert allowed(pace, f"rider-{number}", 2) == 1
        assert pace._known_max <= 2 * max(10, number)
    assert len(pace._paid_until) == 1000
    hands.at += 3601
    for number in range(1000, 2000):
        pace.take(f"rider-{number}")
    assert len(pace._paid_until) == 1000, "those who asked an hour ago are forgotten"


def test_a_rate_of_nought_is_no_limit() -> None:
    assert allowed(Pace(0.0), "a", 5000) == 5000


async def test_a_rider_that_asks_too_often_is_told_when_to_come_back_and_others_go_on(
    it: WebWorld, database_url: str
) -> None:
    async with web_world(database_url, founded=True, rider_rate=0.001) as world:
        await world.token("hasty", ["status:read"], "default", "anna")
        await world.token("calm", ["status:read"], "default", "anna")
        first, second = [await world.ask("GET", "/v1/sessions", by="hasty") for _ in range(2)]
        assert first.status == 200
        assert (second.status, second.body["type"]) == (429, "urn:farebox:problem:too-many-requests")
        assert 1 <= int(second.headers["retry-after"]) <= 1000
        assert (await world.ask("GET", "/v1/sessions", by="calm")).status == 200
        assert [(await world.ask("GET", "/v1/sessions")).status for _ in range(3)] == [200] * 3


async def test_an_operators_token_has_a_rate_of_its_own(it: WebWorld, database_url: str) -> None:
    async with web_world(database_url, founded=True, rate=0.001) as world:
        await world.token("operators", ["status:read"], "default")
        asked = [(await world.ask("GET", "/v1/sessions", by="operators")).status for _ in range(3)]
        words = [{"Authorization": f"{word} operators"} for word in ("bearer", "BEARER", "bEARER")]
        asked += [(await world.ask("GET", "/v1/sessions", by=None, headers=header)).status for header in words]
    assert asked == [200, 429, 429, 429, 429, 429], "however he writes it, he is one caller"


def concrete(path: str) -> str:
    """The path of a route with some word for each of its parameters."""
    return "/".join("1" if part.startswith("{") else part for part in path.split("/"))


def reads_body(path: str) -> bool:
    """Whether the route of this path takes a body."""
    return any({"body", "raw_body"} & set(route.opt) for route in ROUTES if path in route.paths)


READING = [(method, path) for method, path in WRITES if reads_body(path)]
"""A route that takes no body never looks at one."""


async def begun(it: WebWorld, method: str, path: str, length: int) -> tuple[int, str]:
    """The status and the problem of a request that says its length and never sends more than the first byte."""
    parts = urlsplit(it.url)
    url = concrete(path).replace("/providers/1/1/", "/providers/sandbox/default.acc-default/")
    lines = (f"{method} {url} HTTP/1.1", "Host: farebox", f"Authorization: Bearer {ALL}", "Idempotency-Key: slow")
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write("\r\n".join([*lines, f"Content-Length: {length}", "", "{"]).encode())
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        (size,) = (int(line[15:]) for line in head.lower().splitlines() if line.startswith(b"content-length:"))
        problem = msgspec.json.decode(await reader.readexactly(size))
    writer.close()
    return int(head.split()[1]), problem["type"].rpartition(":")[2]


@pytest.mark.parametrize(("method", "path"), READING)
async def test_a_body_that_is_too_large_is_refused_before_it_comes(it: WebWorld, method: str, path: str) -> None:
    limit = BYTES_MAX if path.endswith("/notifications") else BODY_BYTES_MAX
    assert await begun(it, method, path, limit + 1) == (413, "request-entity-too-large")


async def test_no_route_waits_for_a_body_that_never_comes(it: WebWorld, database_url: str) -> None:
    assert len(READING) > 10
    async with web_world(database_url, founded=True, request_seconds=0.2, notification_seconds=0.1) as hasty:
        answers = {path: await begun(hasty, method, path, 100) for method, path in READING}
    notifications = [path for path in answers if path.endswith("/notifications")]
    assert [answers.pop(path) for path in notifications] == [(503, "unavailable")]  # To be sent again.
    assert set(answers.values()) == {(408, "request-timeout")}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/sessions/a%0d%0aSet-Cookie:%20x=1", None),
        ("/v1/riders/a%0d%0aX-Evil:%201", None),
        ("/v1/sessions?cursor=%0d%0aX-Evil:%201", None),
        ("/v1/holds", {"session_id": "a\r\nX-Evil: 1", "agreement_id": "agr-1", "tariff_id": "bike"}),
    ],
)
async def test_no_line_break_comes_out_as_a_header(it: WebWorld, path: str, body: Any) -> None:
    answer = await it.ask("POST" if body else "GET", path, body)
    assert answer.status in (404, 422)
    assert not {"x-evil", "set-cookie"} & set(answer.headers)


def test_whatever_is_said_in_it_a_line_of_the_log_is_one_json_object() -> None:
    said = 'a\r\n{"level": "info", "event": "paid"}\u2028\x1b[2J'
    program = (
        "import sys; from service.telemetry import configure_logs, logger; configure_logs('info', 'test');"
        "logger('web').error(sys.argv[1], path=sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", program, said], capture_output=True, text=True, check=True)
    (line,) = (done.stdout + done.stderr).splitlines()
    assert (msgspec.json.decode(line)["event"], msgspec.json.decode(line)["path"]) == (said, said)
    assert line.isprintable()
