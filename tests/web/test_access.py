"""Every route, asked by nobody, without its scope, by another operator, by another rider, and by whom it is for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
from ride_builders import PLAN, at, whole
from web_world import ALL, Answer, WebWorld, web_world

from service.adapters.clock import machine_now
from service.adapters.postgres.intake import IntakeStore, Quarantined
from service.billing.events import RawRecord
from service.web.app import ROUTES, create_app

MARK = "secret-of-default"
"""Stands in everything of the default operator's rider anna that the routes could tell."""


class Case(NamedTuple):
    """How a route is asked, and what each caller gets. `scope` None: open to anybody. Of several answers in `right` it
    is the one that the cases before it in the same process lead to."""

    scope: str | None
    path: str
    body: Any = None
    right: int | tuple[int, ...] = 200
    other: int = 404
    rider: int = 403
    other_rider: int = 403


HOLD = {"session_id": f"{MARK}-hold", "agreement_id": f"{MARK}-agr", "tariff_id": "bike"}
SIGN = {"agreement_id": f"{MARK}-new", "rider_ref": "carl"}
READ, WRITE, OPS = "status:read", "billing:write", "ops"
CASES: dict[tuple[str, str], Case] = {
    ("GET", "/v1/sessions"): Case(READ, "/v1/sessions?limit=200", other=200, rider=200, other_rider=200),
    ("GET", "/v1/sessions/{session_id:str}"): Case(READ, f"/v1/sessions/{MARK}", rider=200, other_rider=404),
    ("GET", "/v1/sessions/{session_id:str}/fare"): Case(READ, f"/v1/sessions/{MARK}/fare", rider=200, other_rider=404),
    ("GET", "/v1/sessions/{session_id:str}/receipt"): Case(
        READ, f"/v1/sessions/{MARK}/receipt", rider=200, other_rider=404
    ),
    ("POST", "/v1/sessions/{session_id:str}/corrections"): Case(
        WRITE, f"/v1/sessions/{MARK}/corrections", {"kind": "corrected", "distance": 5, "reason": "meter"}
    ),
    ("POST", "/v1/sessions/{session_id:str}/charges"): Case(
        WRITE,
        f"/v1/sessions/{MARK}/charges",
        {"kind": "extra", "code": "damage", "amount_minor": 1, "currency": "CNY", "reason": "a bent wheel"},
    ),
    ("POST", "/v1/quotes"): Case(
        READ,
        "/v1/quotes",
        {"seconds": 60, "tariff_id": "bike", "agreement_id": f"{MARK}-agr"},
        rider=200,
        other_rider=404,
    ),
    ("GET", "/v1/tariffs"): Case(READ, "/v1/tariffs", other=200, rider=200, other_rider=200),
    ("GET", "/v1/tariffs/{tariff_id:str}"): Case(READ, f"/v1/tariffs/{MARK}", rider=200, other_rider=200),
    ("PUT", "/v1/tariffs/{tariff_id:str}"): Case(
        WRITE, f"/v1/tariffs/{MARK}", {**PLAN, "plan_id": MARK}, right=200, other=201
    ),
    ("GET", "/v1/agreements"): Case(READ, "/v1/agreements?limit=200", other=200, rider=200, other_rider=200),
    ("POST", "/v1/agreements"): Case(WRITE, "/v1/agreements", SIGN, right=201, other=201),
    ("GET", "/v1/agreements/{agreement_id:str}"): Case(READ, f"/v1/agreements/{MARK}-agr", rider=200, other_rider=404),
    ("POST", "/v1/agreements/{agreement_id:str}/revoke"): Case(WRITE, f"/v1/agreements/{MARK}-gone/revoke"),
    ("POST", "/v1/eligibility"): Case(READ, "/v1/eligibility", {"agreement_id": f"{MARK}-agr"}, other=422),
    ("POST", "/v1/holds"): Case(WRITE, "/v1/holds", HOLD, other=422),
    ("GET", "/v1/holds/{session_id:str}"): Case(READ, f"/v1/holds/{MARK}"),
    ("POST", "/v1/holds/{session_id:str}/release"): Case(WRITE, f"/v1/holds/{MARK}-free/release"),
    ("GET", "/v1/debits"): Case(READ, "/v1/debits?limit=200", other=200, rider=200, other_rider=200),
    ("GET", "/v1/debits/{debit_id:str}"): Case(READ, "/v1/debits/{debit}", rider=200, other_rider=404),
    ("POST", "/v1/debits/{debit_id:str}/refunds"): Case(
        WRITE, "/v1/debits/{debit}/refunds", {"amount_minor": 1, "reason": "sorry"}, right=202
    ),
    ("POST", "/v1/debits/{debit_id:str}/refunds/retry"): Case(
        WRITE, "/v1/debits/{debit}/refunds/retry", right=(202, 409)
    ),
    ("POST", "/v1/debits/{debit_id:str}/payment"): Case(WRITE, "/v1/debits/{debit}/payment", right=409),
    ("POST", "/v1/debits/{debit_id:str}/retry"): Case(WRITE, "/v1/debits/{debit}/retry", right=409),
    ("POST", "/v1/debits/{debit_id:str}/suspend"): Case(
        WRITE, "/v1/debits/{debit}/suspend", {"reason": "the lock failed"}, right=409
    ),
    ("POST", "/v1/debits/{debit_id:str}/resume"): Case(WRITE, "/v1/debits/{debit}/resume", right=409),
    ("POST", "/v1/debits/{debit_id:str}/settle-elsewhere"): Case(
        WRITE, "/v1/debits/{debit}/settle-elsewhere", {"reason": "in cash"}, right=409
    ),
    ("POST", "/v1/debits/{debit_id:str}/given-back"): Case(
        WRITE, "/v1/debits/{debit}/given-back", {"amount_minor": 200, "reason": "in cash"}, right=409
    ),
    ("POST", "/v1/debits/{debit_id:str}/decide"): Case(
        WRITE, "/v1/debits/{debit}/decide", {"decision": "cancel", "reason": "lost"}, right=409
    ),
    ("POST", "/v1/debits/{debit_id:str}/disputes"): Case(WRITE, "/v1/debits/{debit}/disputes", {"kind": "complaint"}),
    ("POST", "/v1/debits/{debit_id:str}/disputes/close"): Case(
        WRITE, "/v1/debits/{debit}/disputes/close", {"result": "resolved"}
    ),
    ("GET", "/v1/riders/{rider_ref:str}"): Case(READ, f"/v1/riders/{MARK}-anna", rider=200, other_rider=404),
    ("GET", "/v1/quarantine"): Case(OPS, "/v1/quarantine?limit=200", other=200),
    ("GET", "/v1/quarantine/{quarantine_id:int}"): Case(OPS, "/v1/quarantine/{held}"),
    ("POST", "/v1/quarantine/{quarantine_id:int}/replay"): Case(OPS, "/v1/quarantine/{held}/replay"),
    ("POST", "/v1/quarantine/{quarantine_id:int}/discard"): Case(
        OPS, "/v1/quarantine/{unwanted}/discard", {"reason": "a test"}
    ),
    # Its provider's signature alone lets in, and this is none.
    ("POST", "/v1/providers/{provider:str}/{account:str}/notifications"): Case(
        None, "/v1/providers/sandbox/default.acc-default/notifications", {}, right=401
    ),
    ("GET", "/livez"): Case(None, "/livez"),
    ("GET", "/readyz"): Case(None, "/readyz"),
    ("GET", "/metrics"): Case(None, "/metrics"),
    ("GET", "/schema"): Case(None, "/schema"),
    ("GET", "/schema/openapi.json"): Case(None, "/schema/openapi.json"),
}
"""A route that is not named here fails `test_no_route_is_left_out`."""
GUARDED = {route: case for route, case in CASES.items() if case.scope is not None}


class Matrix:
    """The world with one of everything that belongs to the default operator's rider anna."""

    def __init__(self, world: WebWorld) -> None:
        self.world = world
        self.places: dict[str, Any] = {}

    async def ask(self, route: tuple[str, str], token: str | None) -> Answer:
        case = CASES[route]
        path = case.path.format(**self.places) if "{" in case.path else case.path
        return await self.world.ask(route[0], path, case.body, by=token)


@pytest.fixture(scope="module")
async def matrix(database_url: str) -> AsyncIterator[Matrix]:
    async with web_world(database_url) as it:
        matrix = Matrix(it)
        await it.clock(30)
        await it.token("marked", [READ], "default", f"{MARK}-anna")
        for name in ("agr", "gone"):
            await it.agree(f"{MARK}-{name}", f"{MARK}-anna")
        tariff = {**PLAN, "plan_id": MARK}
        assert (await it.ask("PUT", f"/v1/tariffs/{MARK}", tariff)).status == 201
        for session in (MARK, f"{MARK}-free"):
            asked = {"session_id": session, "agreement_id": f"{MARK}-agr", "tariff_id": "bike"}
            assert (await it.ask("POST", "/v1/holds", asked)).status == 200
        await it.take(*whole(MARK, agreement_id=f"{MARK}-agr"))
        await it.collect()
        (debit,) = (await it.get(f"/v1/sessions/{MARK}"))["debits"]
        matrix.places = {"debit": debit["debit_id"]}
        await _hold_records(it, matrix)
        yield matrix


async def _hold_records(it: WebWorld, matrix: Matrix) -> None:
    record = [RawRecord("rides", 0, offset, 0, MARK.encode(), b"{", ()) for offset in (1, 2)]
    async with it.database.transaction(IntakeStore) as store:
        await store.hold_in_quarantine([Quarantined(item, "record", MARK, "$", 1) for item in record], at(0))
    rows = await it.sql("SELECT quarantine_no FROM quarantine ORDER BY 1")
    matrix.places |= {"held": rows[0][0], "unwanted": rows[1][0]}


def test_no_route_is_left_out(matrix: Matrix) -> None:
    served = {
        (str(method), handler_path)
        for route in create_app(matrix.world.doors).routes
        for method in getattr(route, "methods", ())
        if method != "OPTIONS"
        for handler_path in [route.path]
    }
    assert served == set(CASES)
    assert {(str(method), path) for route in ROUTES for path in route.paths for method in route.http_methods} <= served


@pytest.mark.parametrize("route", GUARDED, ids=" ".join)
async def test_nobody_gets_in_without_a_token(matrix: Matrix, route: tuple[str, str]) -> None:
    for token in (None, "unknown", "revoked", "over"):
        answer = await matrix.ask(route, token)
        assert (answer.status, answer.body["type"]) == (401, "urn:farebox:problem:unauthorized"), token
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("route", GUARDED, ids=" ".join)
async def test_nobody_gets_in_without_the_scope(matrix: Matrix, route: tuple[str, str]) -> None:
    for scope in {READ, WRITE, OPS} - {GUARDED[route].scope}:
        answer = await matrix.ask(route, scope)
        assert (answer.status, answer.body["type"]) == (403, "urn:farebox:problem:forbidden")


@pytest.mark.parametrize("route", GUARDED, ids=" ".join)
async def test_another_operator_finds_nothing(matrix: Matrix, route: tuple[str, str]) -> None:
    answer = await matrix.ask(route, "other")
    assert answer.status == GUARDED[route].other, answer
    if route[0] == "GET" and answer.status == 200:
        assert MARK not in str(answer.body)


@pytest.mark.parametrize("route", GUARDED, ids=" ".join)
async def test_another_rider_finds_nothing(matrix: Matrix, route: tuple[str, str]) -> None:
    answer = await matrix.ask(route, "bert")
    assert answer.status == GUARDED[route].other_rider, answer
    if answer.status == 200 and "tariffs" not in route[1]:
        assert MARK not in str(answer.body)


@pytest.mark.parametrize("route", GUARDED, ids=" ".join)
async def test_the_rider_sees_what_is_his(matrix: Matrix, route: tuple[str, str]) -> None:
    answer = await matrix.ask(route, "marked")
    assert answer.status == GUARDED[route].rider, answer
    if answer.status == 200 and route != ("POST", "/v1/quotes"):
        assert MARK in str(answer.body)


@pytest.mark.parametrize("route", CASES, ids=" ".join)
async def test_whom_it_is_for_gets_it(matrix: Matrix, route: tuple[str, str]) -> None:
    answer = await matrix.ask(route, CASES[route].scope and ALL)
    right = CASES[route].right
    assert answer.status in (right if isinstance(right, tuple) else (right,)), answer


async def test_a_riders_token_may_ask_for_the_payment_of_his_debits_and_write_nothing_else(matrix: Matrix) -> None:
    it = matrix.world
    await it.token("payer", [READ, WRITE], "default", f"{MARK}-anna")
    await it.token("other-payer", [READ, WRITE], "default", "bert")
    for route, case in GUARDED.items():
        if case.scope != WRITE:
            continue
        payment = route[1].endswith("/payment")
        for token, status in (("payer", 409 if payment else 403), ("other-payer", 404 if payment else 403)):
            assert (await matrix.ask(route, token)).status == status, route


async def test_a_token_ends_when_it_is_revoked(matrix: Matrix) -> None:
    it = matrix.world
    await it.token("short", [READ], "default")
    await it.get("/v1/sessions", by="short")
    await it.sql("UPDATE token SET revoked_at = $1 WHERE name = 'short'", machine_now())
    assert (await it.ask("GET", "/v1/sessions", by="short")).status == 401


async def test_a_token_ends_when_its_time_is_over(matrix: Matrix) -> None:
    it = matrix.world
    await it.token("timed", [READ], "default")
    await it.sql("UPDATE token SET expires_at = $1 WHERE name = 'timed'", machine_now())
    assert (await it.ask("GET", "/v1/sessions", by="timed")).status == 401
