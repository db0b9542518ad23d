"""What bad input gets: a problem document that names the field, never a traceback, never a 500."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from ride_builders import PLAN
from web_world import ALL, WebWorld, web_world

DEAR = PLAN | {"price": 10**12 - 1, "currency": "KWD"}
MEDIA_TYPE = "application/problem+json"
INVALID = [
    ("GET", "/v1/sessions?limit=0", None, 422, ["query:limit"]),
    ("GET", "/v1/sessions?limit=many", None, 422, ["query:limit"]),
    ("GET", "/v1/sessions?state=flying", None, 422, ["query:state"]),
    ("GET", "/v1/sessions?rider=x", None, 422, ["query:rider"]),
    ("GET", "/v1/sessions?session_state=open", None, 422, ["query:session_state"]),
    ("GET", "/v1/sessions?cursor=zz", None, 422, ["query:cursor"]),
    ("GET", "/v1/sessions?cursor=WyJkIiwxLDFd", None, 422, ["query:cursor"]),
    ("GET", "/v1/sessions?cursor=%F0%9F%9A%B2", None, 422, ["query:cursor"]),
    ("GET", "/v1/sessions?session_id=a&state=open", None, 422, ["query:session_id"]),
    ("GET", "/v1/debits?overdue=perhaps", None, 422, ["query:overdue"]),
    ("GET", "/v1/tariffs/bike?version=0", None, 422, ["query:version"]),
    ("GET", "/v1/quarantine?state=lost", None, 422, ["query:state"]),
    ("POST", "/v1/quotes", b"", 400, ["/"]),
    ("POST", "/v1/quotes", b"{", 400, ["/"]),
    ("POST", "/v1/quotes", b'{"seconds": NaN}', 400, ["/"]),
    ("POST", "/v1/quotes", b"\xff", 400, ["/"]),
    ("POST", "/v1/quotes", b'{"seconds": 1, "tariff_id": "\\u0000"}', 422, ["/tariff_id"]),
    ("POST", "/v1/quotes", {"tariff_id": "bike"}, 422, ["/seconds"]),
    ("POST", "/v1/quotes", {"seconds": -1, "tariff_id": "bike"}, 422, ["/seconds"]),
    ("POST", "/v1/quotes", {"seconds": 720 * 3600 + 1, "tariff_id": "bike"}, 422, ["/seconds"]),
    ("POST", "/v1/quotes", {"seconds": "1", "tariff_id": "bike"}, 422, ["/seconds"]),
    ("POST", "/v1/quotes", {"seconds": 1}, 422, ["/tariff_id"]),
    ("POST", "/v1/quotes", {"seconds": 1, "tariff_id": "none"}, 422, ["/tariff_id"]),
    ("POST", "/v1/quotes", {"seconds": 1, "tariff_id": "bike", "tariff_version": 9}, 422, ["/tariff_version"]),
    ("POST", "/v1/quotes", {"seconds": 1, "tariff_id": "bike", "at": "2026-11-22T10:00:00"}, 422, ["/at"]),
    ("POST", "/v1/quotes", {"seconds": 1, "tariff_id": "bike", "at": "9999-12-31T23:59:59Z"}, 422, ["/at"]),
    ("POST", "/v1/quotes", {"seconds": 1, "tariff_id": "bike", "colour": "red"}, 422, ["/colour"]),
    ("POST", "/v1/quotes", {"seconds": 1, "plan": {"price": 1}}, 422, ["/plan/plan_id"]),
    ("POST", "/v1/quotes", {"seconds": 1, "plan": {"plan_id": "p", "price": 1}}, 422, ["/plan/currency"]),
    ("POST", "/v1/quotes", {"seconds": 1, "plan": 7}, 422, ["/plan"]),
    ("POST", "/v1/quotes", {"seconds": 1, "tariff_id": "bike", "parking_category": "kurb"}, 422, ["/parking_category"]),
    ("POST", "/v1/quotes", {"seconds": 1, "tariff_id": "bike", "time_zone": "Europe/Oslo"}, 422, ["/time_zone"]),
    ("POST", "/v1/quotes", {"seconds": 1, "plan": DEAR}, 422, ["/plan/price"]),
    ("POST", "/v1/holds", {"session_id": "a", "agreement_id": "none", "tariff_id": "bike"}, 422, ["/agreement_id"]),
    ("POST", "/v1/holds", {"session_id": "a" * 65, "agreement_id": "agr-1", "tariff_id": "bike"}, 422, ["/session_id"]),
    ("POST", "/v1/holds", {"session_id": "a b", "agreement_id": "agr-1", "tariff_id": "bike"}, 422, ["/session_id"]),
    ("POST", "/v1/agreements", {"agreement_id": "a", "rider_ref": "r", "language": "fr"}, 422, ["/language"]),
    ("POST", "/v1/agreements", {"agreement_id": "agr-1", "rider_ref": "zoe"}, 409, ["/rider_ref"]),
    ("POST", "/v1/agreements", {"agreement_id": "a", "rider_ref": "r", "cap_minor": 2**63}, 422, ["/cap_minor"]),
    ("PUT", "/v1/tariffs/x", b"[1]", 422, ["/"]),
    ("PUT", "/v1/tariffs/x", {"plan_id": "y", "price": 1, "currency": "CNY"}, 422, ["/plan_id"]),
    ("PUT", "/v1/tariffs/x?valid_from=0001-01-01T00:00:00%2B14:00", {"plan_id": "x"}, 422, ["query:valid_from"]),
    ("PUT", "/v1/tariffs/x?valid_from=soon", {"plan_id": "x"}, 422, ["query:valid_from"]),
]
MISSING = [
    "/v1/sessions/none",
    "/v1/sessions/none/fare",
    "/v1/sessions/none/receipt",
    "/v1/sessions/%00",
    "/v1/sessions/" + "x" * 500,
    "/v1/debits/none",
    "/v1/debits/99999999999999999999-1",
    "/v1/debits/1-99999",
    "/v1/agreements/none",
    "/v1/agreements/%00",
    "/v1/holds/none",
    "/v1/riders/none",
    "/v1/riders/%00",
    "/v1/tariffs/none",
    "/v1/tariffs/%00",
    "/v1/tariffs/bike?version=9",
    "/v1/quarantine/1",
    "/v1/quarantine/99999999999999999999",
    "/v1/quarantine/none",
    "/v1",
    "/",
]


@pytest.fixture(scope="module")
async def it(database_url: str) -> AsyncIterator[WebWorld]:
    async with web_world(database_url) as it:
        yield it


@pytest.mark.parametrize(("method", "path", "body", "status", "fields"), INVALID)
async def test_bad_input_names_its_field(
    it: WebWorld, method: str, path: str, body: Any, status: int, fields: list[str]
) -> None:
    answer = await it.ask(method, path, body)
    assert (answer.status, answer.fields) == (status, fields), answer.body
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.body["status"] == status
    assert answer.body["instance"] == path.partition("?")[0]
    assert {"type", "title", "detail"} <= answer.body.keys()


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("sessions", ["open", "closed", "voided"]),
        ("agreements", ["pending", "active", "suspended", "refused", "revoked", "expired"]),
        ("quarantine", ["held", "replayed", "discarded"]),
        ("debits", ["new", "settled", "manual"]),
    ],
)
async def test_a_word_that_is_none_of_those_allowed_is_refused_with_those_that_are(
    it: WebWorld, path: str, allowed: list[str]
) -> None:
    answer = await it.ask("GET", f"/v1/{path}?state=bogus")
    assert (answer.status, answer.fields) == (422, ["query:state"])
    told = answer.body["detail"].partition("; allowed are ")[2].split(", ")
    assert set(allowed) <= set(told), answer.body


async def test_a_parameter_that_a_route_does_not_know_is_refused_with_those_that_it_knows(it: WebWorld) -> None:
    """`?rider=anna` answered everybody's rides: the name was `rider_ref`."""
    paths = (await it.get("/schema/openapi.json", by=None))["paths"]
    asked = 0
    for template, item in paths.items():
        if not template.startswith("/v1/") or template.endswith("/notifications"):
            continue
        for method, operation in item.items():
            known = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
            path = re.sub("{[a-z_]+}", "1", template)
            answer = await it.ask(method.upper(), f"{path}?rider&colour=red&rider=x")
            assert (answer.status, answer.fields) == (422, ["query:rider", "query:colour"]), (method, template)
            told = answer.body["errors"][0]["detail"].removeprefix("there is no such parameter; ")
            allowed = told.removeprefix("allowed are ").split(", ")
            assert sorted(allowed) == sorted(known or ["this takes none"]), (method, template)
            asked += 1
    assert asked > 30


async def test_what_is_said_twice_is_refused_and_not_taken_as_the_last_of_the_two(it: WebWorld) -> None:
    answer = await it.ask("GET", "/v1/sessions?state=open&state=closed")
    assert (answer.status, answer.fields) == (422, ["query:state"])
    twice = {
        "seconds": b'{"seconds": 60, "seconds": 60, "tariff_id": "bike"}',
        "price": b'{"seconds": 60, "plan": {"plan_id": "a", "currency": "CNY", "price": 1, "price": 2}}',
    }
    for name, body in twice.items():
        answer = await it.ask("POST", "/v1/quotes", body)
        assert (answer.status, answer.fields) == (422, ["/"]), answer.body
        assert answer.body["detail"] == f"/: the field {name} stands there twice"


async def test_a_header_that_is_given_twice_is_refused(it: WebWorld) -> None:
    """Of two keys the first counted: the same write again under the second was done again."""
    url = f"{it.url}/v1/quotes"
    for name, values in (("Idempotency-Key", ("a", "b")), ("Authorization", (f"Bearer {ALL}", "Bearer x"))):
        headers = [("Authorization", f"Bearer {ALL}"), *((name, value) for value in values)]
        async with it.session.post(url, json={"seconds": 1}, headers=headers) as response:
            told = await response.json()
        assert (response.status, [error["field"] for error in told["errors"]]) == (422, [f"header:{name}"])


async def test_a_time_whose_plus_became_a_space_is_refused_with_how_to_write_it(it: WebWorld) -> None:
    answer = await it.ask("PUT", "/v1/tariffs/x?valid_from=2026-11-22T18:30:00+08:00", {"plan_id": "x"})
    assert (answer.status, answer.fields) == (422, ["query:valid_from"])
    assert answer.body["detail"].endswith("in an address + is written %2B")


async def test_a_refusal_is_brief(it: WebWorld) -> None:
    zone = await it.ask("POST", "/v1/quotes", {"seconds": 60, "plan": PLAN, "time_zone": "x/" * 60})
    assert (zone.status, zone.fields) == (422, ["/time_zone"])
    field = await it.ask("POST", "/v1/holds", {"x" * 100_000: 1})
    assert field.status == 422
    assert int(field.headers["content-length"]) < 10_000


async def test_who_may_not_ask_is_told_so_before_what_he_asks_wrongly(it: WebWorld) -> None:
    assert (await it.ask("GET", "/v1/sessions?rider=x", by=None)).status == 401
    assert (await it.ask("GET", "/v1/quarantine?rider=x", by="anna")).status == 403
    crowded = await it.ask("GET", "/v1/sessions?" + "&".join(f"a{number}=1" for number in range(99)))
    assert (crowded.status, len(crowded.fields)) == (422, 8)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/schema", "/schema/openapi.json"])
async def test_a_probe_or_the_document_takes_any_parameter(it: WebWorld, path: str) -> None:
    assert (await it.ask("GET", f"{path}?verbose=1", by=None)).status == 200


async def test_a_provider_may_add_parameters_to_the_address_that_it_was_given(it: WebWorld) -> None:
    path = "/v1/providers/sandbox/default.acc-default/notifications"
    plain, more = [await it.ask("POST", path + added, b"{}", by=None) for added in ("", "?sign_type=RSA2&v=2")]
    assert (more.status, more.body) == (plain.status, plain.body)
    assert plain.status != 422


@pytest.mark.parametrize(
    ("path", "asked", "allowed"),
    [
        ("sessions/x/corrections", {"kind": "moved", "reason": "r"}, "allowed are corrected, voided"),
        ("sessions/x/corrections", {"kind": "voided", "reason": "r", "at": 1}, "allowed are kind, reason, by, started"),
        ("sessions/x/charges", {"kind": "fine", "reason": "r"}, "allowed are extra, goodwill"),
    ],
)
async def test_a_body_with_a_word_or_a_field_that_nobody_knows_is_told_those_that_are_known(
    it: WebWorld, path: str, asked: dict[str, Any], allowed: str
) -> None:
    answer = await it.ask("POST", f"/v1/{path}", asked)
    assert answer.status == 422, answer.body
    assert allowed in answer.body["errors"][0]["detail"], answer.body


@pytest.mark.parametrize("path", MISSING)
async def test_what_is_not_there_is_a_404(it: WebWorld, path: str) -> None:
    answer = await it.ask("GET", path)
    assert answer.status in (404, 422), answer.body
    assert answer.headers["content-type"] == MEDIA_TYPE


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "PUT"])
async def test_a_method_that_is_not_possible_is_a_405(it: WebWorld, method: str) -> None:
    answer = await it.ask(method, "/v1/sessions/some", {})
    assert (answer.status, answer.headers["content-type"]) == (405, MEDIA_TYPE)
    assert "GET" in answer.headers["allow"]


async def test_a_body_that_is_too_large_is_refused(it: WebWorld) -> None:
    answer = await it.ask("POST", "/v1/quotes", b" " * 1_000_001)
    assert (answer.status, answer.headers["content-type"]) == (413, MEDIA_TYPE)
    assert "larger than 1000000 bytes" in answer.body["detail"]
    assert answer.headers["connection"] == "close", "what was not read stands between it and the next request"


async def test_a_write_needs_an_idempotency_key(it: WebWorld) -> None:
    for key in ("", "x" * 129, "no spaces"):
        answer = await it.ask("POST", "/v1/holds", {}, key="", headers={"Idempotency-Key": key} if key else None)
        assert (answer.status, answer.fields) == (422, ["header:Idempotency-Key"]), answer.body


async def test_a_nested_field_is_named_by_its_pointer(it: WebWorld) -> None:
    plan = {
        "plan_id": "p",
        "currency": "CNY",
        "price": 1,
        "per_min_pricing": [{"start": 0, "rate": "x", "interval": 1}],
    }
    answer = await it.ask("POST", "/v1/quotes", {"seconds": 1, "plan": plan})
    assert (answer.status, answer.fields) == (422, ["/plan/per_min_pricing/0/rate"])
    deep = await it.ask("POST", "/v1/quotes", b'{"seconds": 1, "plan": ' + b"[" * 5000 + b"]" * 5000 + b"}")
    assert deep.status in (400, 422)


async def test_an_account_whose_settings_are_refused_is_said_to_be_and_no_provider_out_of_reach(it: WebWorld) -> None:
    await it.sql(
        "INSERT INTO merchant_account (operator_no, account_id, provider, base_url, settings, created_at)"
        " VALUES (1, 'cards', 'stripe', 'http://127.0.0.1:1', '{\"api_key_env\": \"FAREBOX_TEST_NOT_SET\"}', now())"
    )
    try:
        asked = {"agreement_id": "agr-cards", "rider_ref": "carder", "account_id": "cards"}
        answer = await it.ask("POST", "/v1/agreements", asked)
    finally:
        await it.sql("DELETE FROM merchant_account WHERE account_id = 'cards'")
    assert (answer.status, answer.body["type"]) == (503, "urn:farebox:problem:account-unusable"), answer
    said = "merchant account cards can't be used: its settings are refused; see /readyz and the log"
    assert answer.body["detail"] == said
    assert "retry-after" not in answer.headers


async def test_a_strange_authorization_is_a_401(it: WebWorld) -> None:
    for header in ("Basic abc", "Bearer", "Bearer ", f"bearer\t{ALL}", "Bearer " + "x" * 300):
        answer = await it.ask("GET", "/v1/sessions", by=None, headers={"Authorization": header})
        assert answer.status == 401, header


async def test_the_openapi_document_describes_every_route_and_refers_only_to_what_it_has(it: WebWorld) -> None:
    document = await it.get("/schema/openapi.json", by=None)
    assert document["openapi"].startswith("3.1")
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert operation["description"], (method, path)
            otherwise = operation["responses"]["default"]
            if path.endswith("/notifications"):  # Refused in the words that the provider looks for, too.
                assert set(otherwise["content"]) == {"application/problem+json", "application/json", "text/plain"}
            else:
                assert otherwise == {"$ref": "#/components/responses/Problem"}
    names = set(document["components"]["schemas"])
    for shape, field in (("HoldRequest", "session_id"), ("AgreementRequest", "agreement_id")):
        assert document["components"]["schemas"][shape]["properties"][field]["maxLength"] == 64
    assert [name for name, shape in document["components"]["schemas"].items() if not shape["description"]] == []
    for reference in msgspec.json.encode(document).decode().split('"#/components/schemas/')[1:]:
        assert reference.partition('"')[0] in names
    page = await it.get("/schema", by=None)
    assert b"/v1/sessions/{session_id}" in page
    assert b"href='#HoldRequest'" in page, "a body is told by its shape"
    assert b"href='#HoldReply'" in page, "and so is an answer"
    told = set(re.findall(rb"href='?\"?#([^'\"]+)", page))
    assert told <= set(re.findall(rb"<h3 id='([^']+)'", page)), "and each is on the page"
