"""Writes over HTTP: done once under their key, answered the same again, refused with the field."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncpg
import pytest
from command_line import command
from proxy import Proxy
from ride_builders import PLAN, RULES, at, event, whole
from web_world import ALL, WebWorld, web_world
from yarl import URL

from service.billing.rating.compiled import compiled


@pytest.fixture(scope="module")
async def it(database_url: str) -> AsyncIterator[WebWorld]:
    async with web_world(database_url) as it:
        yield it


async def test_a_correction_re_rates_the_ride_and_owes_the_difference(it: WebWorld, database_url: str) -> None:
    await it.clock(60)
    await it.take(*whole("mended"))
    asked = {"kind": "corrected", "ended_at": at(50).isoformat(), "reason": "the lock failed", "by": "desk-7"}
    ride = (await it.ask("POST", "/v1/sessions/mended/corrections", asked)).body
    assert (ride["revision"], ride["amount_minor"], ride["owed_minor"]) == (2, 450, 450)
    assert [item["owing_minor"] for item in ride["revisions"]] == [250, 200]
    assert ride["events"][-1]["source"] == "urn:farebox:operator"
    assert ride == await it.get("/v1/sessions/mended")
    told = (ride["events"][-1], *ride["revisions"][-1]["events"])
    assert [(one["by"], one["reason"]) for one in told] == [("desk-7", "the lock failed")] * 2
    assert not re.search("the lock failed|desk-7", str(await it.get("/v1/sessions/mended", by="anna")))
    shown = (await command(database_url)("session", "show", "mended"))[1]
    assert "  not from Kafka  id " in shown
    assert " of urn:farebox:operator  by desk-7: the lock failed\n" in shown


async def test_a_voided_ride_owes_nothing_any_more(it: WebWorld) -> None:
    await it.clock(60)
    await it.take(*whole("void"))
    ride = (await it.ask("POST", "/v1/sessions/void/corrections", {"kind": "voided", "reason": "a test ride"})).body
    assert (ride["state"], ride["owed_minor"], ride["charge"]) == ("voided", 0, None)
    again = await it.ask("POST", "/v1/sessions/void/corrections", {"kind": "corrected", "distance": 1, "reason": "no"})
    assert (again.status, again.body["detail"]) == (409, "the ride is voided: there is nothing to correct")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"kind": "corrected", "reason": "r"}, "/kind"),
        ({"kind": "voided", "reason": "r", "distance": 3}, "/distance"),
        ({"kind": "voided", "reason": "r", "zone_fees": ["z"], "ended_at": at(20).isoformat()}, "/ended_at"),
        ({"kind": "corrected", "reason": "r", "ended_at": "2026-11-22T03:00:00Z"}, "/ended_at"),
        ({"kind": "corrected", "reason": "r", "started_at": "2026-11-22T09:00:00Z"}, "/started_at"),
        ({"kind": "corrected", "reason": "r", "ended_at": "2026-11-22T03:00:00"}, "/ended_at"),
        ({"kind": "corrected", "reason": "r", "ended_at": "9999-12-31T03:00:00Z"}, "/ended_at"),
        ({"kind": "corrected", "reason": "r", "started_at": "0001-01-01T00:00:00+14:00"}, "/started_at"),
        ({"kind": "corrected", "reason": "r", "ended_at": at(76).isoformat()}, "/ended_at"),
        ({"kind": "corrected", "reason": "r", "started_at": at(76).isoformat()}, "/started_at"),
        ({"kind": "corrected", "reason": "r", "started_at": "2026-10-01T00:00:00Z"}, "/started_at"),
        ({"kind": "corrected", "reason": "", "distance": 3}, "/reason"),
        ({"kind": "corrected", "distance": 3}, "/reason"),
        ({"kind": "mended", "reason": "r"}, "/kind"),
        ({"kind": "corrected", "reason": "r", "distance": -3}, "/distance"),
    ],
)
async def test_an_impossible_correction_is_refused(it: WebWorld, asked: dict[str, object], field: str) -> None:
    await it.clock(60)
    if not await it.sql("SELECT 1 FROM ride_revision WHERE events LIKE '%\"odd\"%'"):
        await it.take(*whole("odd"))
    answer = await it.ask("POST", "/v1/sessions/odd/corrections", asked)
    assert (answer.status, answer.fields) == (422, [field]), answer.body
    named = [name for name in asked if name not in ("kind", "reason")] if asked["kind"] == "voided" else []
    assert all(name in answer.body["detail"] for name in named), answer.body
    assert (await it.get("/v1/sessions/odd"))["revision"] == 1


async def test_a_debt_that_was_brought_over_has_no_ride_to_correct_and_can_be_voided(
    it: WebWorld, database_url: str, tmp_path: Path
) -> None:
    """It came into review for a start that was missing, and stayed there."""
    file = tmp_path / "debts.csv"
    file.write_text(
        "reference,agreement_id,rider_ref,code,amount_minor,currency,due_since\n"
        "D-1,agr-1,anna,ride,730,CNY,2026-10-03T21:05:00+08:00\n"
    )
    assert (await command(database_url)("import", "debts", file))[0] == 0
    for asked in ({"distance": 4}, {"ended_at": at(20)}):
        answer = await it.ask("POST", "/v1/sessions/debt-D-1/corrections", {"kind": "corrected", "reason": "x"} | asked)
        assert (answer.status, "has no ride to correct" in answer.body["detail"]) == (409, True)
    debt = await it.get("/v1/sessions/debt-D-1")
    assert (debt["state"], debt["revision"], debt["owed_minor"]) == ("closed", 1, 730)
    void = {"kind": "voided", "reason": "paid there after all"}
    voided = await it.ask("POST", "/v1/sessions/debt-D-1/corrections", void)
    assert (voided.status, voided.body["state"], voided.body["owed_minor"]) == (200, "voided", 0)


async def test_a_correction_may_end_a_ride_a_little_ahead_of_our_clock(it: WebWorld) -> None:
    await it.clock(60)
    await it.take(*whole("ahead"))
    asked = {"kind": "corrected", "ended_at": at(75).isoformat(), "reason": "the dock's clock is not ours"}
    told = await it.ask("POST", "/v1/sessions/ahead/corrections", asked)
    assert (told.status, told.body["state"], told.body["ended_at"]) == (200, "closed", "2026-11-22T05:15:00Z")


async def test_the_same_write_again_gets_the_same_answer(it: WebWorld) -> None:
    await it.clock(60)
    await it.take(*whole("twice"))
    asked = {"kind": "corrected", "ended_at": at(50).isoformat(), "reason": "once"}
    first = await it.ask("POST", "/v1/sessions/twice/corrections", asked, key="k-twice")
    await it.take(event("ended", 25, "late", session="twice"))
    again = await it.ask("POST", "/v1/sessions/twice/corrections", asked, key="k-twice")
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["idempotency-replayed"] == "true"
    assert (await it.get("/v1/sessions/twice"))["owed_minor"] == 450


async def test_a_key_with_other_content_is_refused(it: WebWorld) -> None:
    await it.clock(60)
    await it.take(*whole("reused"))
    path = "/v1/sessions/reused/corrections"
    await it.ask("POST", path, {"kind": "corrected", "distance": 1, "reason": "one"}, key="k-reused")
    other = await it.ask("POST", path, {"kind": "corrected", "distance": 2, "reason": "two"}, key="k-reused")
    assert (other.status, other.fields) == (422, ["header:Idempotency-Key"])
    assert other.body["type"] == "urn:farebox:problem:key-reused"


async def test_a_refused_write_leaves_its_key_free(it: WebWorld) -> None:
    await it.clock(60)
    asked = {"kind": "corrected", "distance": 1, "reason": "early"}
    path = "/v1/sessions/early/corrections"
    assert (await it.ask("POST", path, asked, key="k-early")).status == 404
    await it.take(*whole("early"))
    assert (await it.ask("POST", path, asked, key="k-early")).status == 200


async def test_a_write_that_somebody_is_at_is_told_to_wait_and_one_whose_worker_died_is_done(it: WebWorld) -> None:
    await it.clock(60)
    await it.take(*whole("left"))
    asked = {"kind": "corrected", "ended_at": at(50).isoformat(), "reason": "left"}
    path = "/v1/sessions/left/corrections"
    done = await it.ask("POST", path, asked, key="k-left")
    await it.sql("UPDATE idempotency SET status = NULL, body = NULL WHERE idempotency_key = 'k-left'")
    busy = await it.ask("POST", path, asked, key="k-left")
    assert (busy.status, busy.headers["retry-after"]) == (409, "1")
    await it.sql("UPDATE idempotency SET machine_at = machine_at - interval '61 s' WHERE idempotency_key = 'k-left'")
    again = await it.ask("POST", path, asked, key="k-left")
    assert (again.status, again.body) == (200, done.body)


async def test_a_write_that_lost_its_database_is_done_when_it_is_asked_for_again_without_a_wait(
    database_url: str, it: WebWorld
) -> None:
    await it.clock(60)
    await it.take(*whole("cut"))
    parts = urlsplit(database_url)
    proxy = Proxy(parts.hostname or "", parts.port or 0)
    where = f"{parts.username}:{parts.password}@127.0.0.1:{await proxy.start()}"
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'ride_revision'::regclass"
    asked = {"kind": "corrected", "ended_at": at(50).isoformat(), "reason": "cut"}
    holder = await asyncpg.connect(database_url)
    try:
        async with web_world(parts._replace(netloc=where).geturl(), founded=True) as other, asyncio.timeout(60):
            async with holder.transaction():
                await holder.execute("LOCK TABLE ride_revision IN EXCLUSIVE MODE")
                cut = asyncio.create_task(other.ask("POST", "/v1/sessions/cut/corrections", asked, key="k-cut"))
                while not await holder.fetchval(waiting):  # noqa: ASYNC110  The process that is asked does it.
                    await asyncio.sleep(0.01)
                proxy.cut()
                assert (await cut).status == 503
            busy = await it.ask("POST", "/v1/sessions/cut/corrections", asked, key="k-cut")
            assert busy.status == 409, "another process can't know that nobody is at it"
            proxy.mend()
            done = await other.ask("POST", "/v1/sessions/cut/corrections", asked, key="k-cut")
            assert (done.status, done.body["owed_minor"]) == (200, 450), done
    finally:
        await holder.close()
        await proxy.stop()


async def test_many_at_once_under_one_key_are_done_once(it: WebWorld) -> None:
    await it.clock(60)
    await it.take(*whole("rush"))
    asked = {"kind": "corrected", "ended_at": at(50).isoformat(), "reason": "rush"}
    answers = await asyncio.gather(
        *(it.ask("POST", "/v1/sessions/rush/corrections", asked, key="k-rush") for _ in range(8))
    )
    assert {answer.status for answer in answers} <= {200, 409}
    ride = await it.get("/v1/sessions/rush")
    assert (ride["revision"], ride["owed_minor"], ride["conflicts"]) == (2, 450, [])


async def test_a_tariff_is_published_version_by_version_and_the_same_again_changes_nothing(it: WebWorld) -> None:
    await it.clock(0)
    document = {"tariff_id": "new", "plan": {**PLAN, "plan_id": "new"}, "rules": RULES, "time_zone": "Asia/Shanghai"}
    first = await it.ask("PUT", "/v1/tariffs/new", document)
    assert (first.status, first.body["version"], first.body["created"]) == (201, 1, True)
    same = await it.ask("PUT", "/v1/tariffs/new", document)
    assert (same.status, same.body["version"], same.body["created"]) == (200, 1, False)
    shuffled = json.dumps(dict(reversed(document.items())), indent=1).encode()
    same = await it.ask("PUT", "/v1/tariffs/new", shuffled)
    assert (same.status, same.body["version"], same.body["created"]) == (200, 1, False)
    dearer = {**document, "rules": {**RULES, "ride_max": "31.00"}}
    for soon in (None, at(0).isoformat(), at(1).isoformat()):
        refused = await it.ask("PUT", "/v1/tariffs/new", dearer | ({"valid_from": soon} if soon else {}))
        assert (refused.status, refused.fields) == (422, ["/valid_from"]), refused.body
        assert "/rules/ride_max" in refused.body["detail"]
    second = await it.ask("PUT", "/v1/tariffs/new", dearer | {"valid_from": at(2).isoformat()})
    assert (second.status, second.body["version"]) == (201, 2)
    told = await it.ask("GET", "/v1/tariffs/new")
    assert [item["version"] for item in told.body["versions"]] == [2, 1]
    assert told.body["document"]["rules"]["ride_max"] == "31.00"
    assert (await it.ask("GET", "/v1/tariffs/new", headers={"If-None-Match": told.headers["etag"]})).status == 304
    assert (await it.get("/v1/tariffs/new?version=1"))["document"]["rules"]["ride_max"] == "30.00"


async def test_who_publishes_a_tariff_hears_what_is_odd_about_it_at_his_operator(it: WebWorld) -> None:
    await it.clock(0)

    async def codes(tariff_id: str, currency: str, ride_max: str) -> list[str]:
        plan = {**PLAN, "plan_id": tariff_id, "currency": currency}
        document = {"tariff_id": tariff_id, "plan": plan, "rules": {**RULES, "ride_max": ride_max}}
        published = await it.ask("PUT", f"/v1/tariffs/{tariff_id}", document)
        assert published.status == 201, published.body
        return [warning["code"] for warning in published.body["warnings"]]

    assert await codes("usual", "CNY", "100.00") == []
    assert await codes("foreign", "EUR", "100.00") == ["other_currency"]
    assert await codes("dear", "CNY", "1000.01") == []  # No account debits through holds.
    settings = '{"api_key": "k", "capabilities": {"hold_needed": true}}'
    await it.sql(
        "INSERT INTO merchant_account (operator_no, account_id, provider, base_url, settings, created_at)"
        " VALUES (1, 'holding', 'sandbox', 'http://127.0.0.1:1', $1, now())",
        settings,
    )
    try:
        assert await codes("dearer", "CNY", "1000.01") == ["maximum_above_debit"]
    finally:
        await it.sql("DELETE FROM merchant_account WHERE account_id = 'holding'")


async def test_a_bare_plan_is_kept_verbatim_and_quoted(it: WebWorld) -> None:
    await it.clock(0)
    plan = b'{"plan_id": "bare", "currency": "CNY", "price": 0.10,  "name": "\xe5\x8d\x95\xe8\xbd\xa6"}'
    assert (await it.ask("PUT", "/v1/tariffs/bare", plan)).status == 201
    raw = await it.sql("SELECT document FROM tariff_version JOIN tariff USING (tariff_no) WHERE tariff_id = 'bare'")
    assert plan.decode() in raw[0][0]
    quoted = await it.ask("POST", "/v1/quotes", {"seconds": 0, "tariff_id": "bare"})
    kept = compiled.cache_info().currsize
    inline = await it.ask("POST", "/v1/quotes", b'{"seconds": 0, "plan": ' + plan + b"}")
    assert compiled.cache_info().currsize == kept, "a plan that is tried out crowds out none"
    assert quoted.body["fare"]["amount_minor"] == inline.body["fare"]["amount_minor"] == 10
    assert (quoted.body["tariff_version"], inline.body["tariff_version"]) == (1, None)
    assert quoted.body["balance_assumed"] == "nothing_used"
    later = {"tariff_id": "later", "valid_from": at(60).isoformat(), "plan": {**PLAN, "plan_id": "later"}}
    early = await it.ask("POST", "/v1/quotes", {"seconds": 0, "plan": later, "at": at(59).isoformat()})
    assert (early.status, early.fields) == (422, ["/at"])
    assert (await it.ask("POST", "/v1/quotes", {"seconds": 0, "plan": later, "at": at(60).isoformat()})).status == 200


async def test_a_tariff_that_cannot_be_used_is_refused_with_its_path(it: WebWorld) -> None:
    plan = {**PLAN, "plan_id": "bad", "per_min_pricing": [{"start": 0, "rate": "cheap", "interval": 1}]}
    answer = await it.ask("PUT", "/v1/tariffs/bad", {"tariff_id": "bad", "plan": plan})
    assert (answer.status, answer.fields) == (422, ["/plan/per_min_pricing/0/rate"])
    two = {"data": {"plans": [{**PLAN, "plan_id": "a"}, {**PLAN, "plan_id": "b"}]}}
    assert (await it.ask("PUT", "/v1/tariffs/a", two)).fields == ["/data/plans"]


async def test_a_quote_counts_the_earlier_rides_of_whom_it_is_for(it: WebWorld) -> None:
    await it.clock(120)
    await it.agree("agr-quoted", "quoted")
    await it.take(*whole("dear", 0, 100, agreement_id="agr-quoted", tariff_id="capped"))
    asked = {"seconds": 1200, "tariff_id": "capped", "at": at(110).isoformat()}
    nobody = (await it.ask("POST", "/v1/quotes", asked)).body
    assert (nobody["fare"]["amount_minor"], nobody["balance_assumed"]) == (250, "nothing_used")
    for who in ({"rider_ref": "quoted"}, {"agreement_id": "agr-quoted"}):
        his = (await it.ask("POST", "/v1/quotes", asked | who)).body
        assert (his["fare"]["amount_minor"], his["balance_assumed"]) == (0, "rider")
    inline = await it.ask("POST", "/v1/quotes", {"seconds": 1, "plan": PLAN}, by="anna")
    assert (inline.status, inline.fields) == (422, ["/plan"])
    stranger = await it.ask("POST", "/v1/quotes", asked | {"agreement_id": "agr-quoted", "rider_ref": "anna"})
    assert (stranger.status, stranger.fields) == (422, ["/rider_ref"])


async def test_a_hold_is_asked_for_looked_at_and_given_up(it: WebWorld) -> None:
    await it.clock(0)
    asked = {"session_id": "held", "agreement_id": "agr-1", "tariff_id": "bike", "vehicle_id": "v-1"}
    hold = await it.ask("POST", "/v1/holds", asked)
    assert (hold.status, hold.body["status"], hold.body["unlock"]) == (200, "allowed", True)
    again = await it.ask("POST", "/v1/holds", asked)
    assert again.body == hold.body == await it.get("/v1/holds/held")
    other = await it.ask("POST", "/v1/holds", asked | {"vehicle_id": "v-2"})
    assert (other.status, other.fields) == (409, ["/vehicle_id"])
    assert (await it.ask("POST", "/v1/holds/held/release")).body["state"] == "released"
    await it.ask("POST", "/v1/holds", asked | {"session_id": "used"})
    await it.take(event("started", 0, session="used"))
    late = await it.ask("POST", "/v1/holds/used/release")
    assert (late.status, late.body["type"]) == (409, "urn:farebox:problem:conflict")
    assert (await it.get("/v1/sessions/used"))["hold"]["state"] == "open"


@pytest.mark.parametrize("session", ["a/b", "/", "a%2Fb", "//x?y#z", "..", "a/../b", "%", "Fahrt/7+ü"])
async def test_a_ride_is_reached_by_whatever_id_it_has(it: WebWorld, session: str) -> None:
    """One whose id has a slash was charged, and could be neither read nor corrected."""
    await it.clock(60)
    escaped = quote(session, safe="")
    headers = {"Authorization": f"Bearer {ALL}", "Idempotency-Key": f"key-of-{escaped}"}
    hold = {"session_id": session, "agreement_id": "agr-1", "tariff_id": "bike"}
    assert (await it.ask("POST", "/v1/holds", hold)).body["status"] == "allowed"
    await it.take(*whole(session))
    for path in ("holds", "sessions"):
        place = URL(f"{it.url}/v1/{path}/{escaped}", encoded=True)
        async with it.session.get(place, headers=headers) as answer:
            assert (answer.status, (await answer.json())["session_id"]) == (200, session)
    place = URL(f"{it.url}/v1/sessions/{escaped}/corrections", encoded=True)
    async with it.session.post(place, json={"kind": "voided", "reason": "nobody rode"}, headers=headers) as answer:
        assert (answer.status, (await answer.json())["state"]) == (200, "voided")


async def test_a_refused_hold_asked_for_with_the_same_key_is_as_it_stands_then(it: WebWorld) -> None:
    assert it.sandbox is not None
    await it.clock(0)
    new = {"agreement_id": "agr-new", "rider_ref": "newcomer"}
    begun = await it.ask("POST", "/v1/agreements", new)
    asked = {"session_id": "at-once", "agreement_id": "agr-new", "tariff_id": "bike"}
    unsigned = await it.ask("POST", "/v1/holds", asked, key="k-at-once")
    assert (unsigned.body["status"], unsigned.body["reason"]) == ("refused", "agreement_pending")
    page = begun.body["action"]["url"].removeprefix(it.sandbox.url)
    await it.sandbox.call("POST", f"{page}&answer=confirm")
    signed = await it.ask("POST", "/v1/holds", asked, key="k-at-once")
    assert (signed.body["status"], signed.headers.get("idempotency-replayed")) == ("allowed", None)
    again = await it.ask("POST", "/v1/holds", asked, key="k-at-once")
    assert (again.body, again.headers["idempotency-replayed"]) == (signed.body, "true")


async def test_an_agreement_is_signed_found_and_revoked(it: WebWorld) -> None:
    await it.clock(0)
    await it.agree("agr-life", "life")
    assert (await it.ask("POST", "/v1/eligibility", {"agreement_id": "agr-life"})).body["eligible"] is True
    page = await it.get("/v1/agreements?rider_ref=life")
    assert [item["agreement_id"] for item in page["items"]] == ["agr-life"]
    assert "agreement_no" not in page["items"][0]
    assert (await it.ask("POST", "/v1/agreements/agr-life/revoke")).body["state"] == "revoked"
    refused = (await it.ask("POST", "/v1/eligibility", {"agreement_id": "agr-life", "tariff_id": "bike"})).body
    assert (refused["eligible"], refused["reason"]) == (False, "agreement_revoked")
    assert (await it.get("/v1/agreements?rider_ref=life&limit=1"))["next_cursor"] is None, "there is no other page"
    names = [item["agreement_id"] for item in (await it.get("/v1/agreements?limit=1"))["items"]]
    cursor = (await it.get("/v1/agreements?limit=1"))["next_cursor"]
    rest = await it.get(f"/v1/agreements?limit=200&cursor={cursor}")
    assert names[0] not in [item["agreement_id"] for item in rest["items"]]
    assert rest["next_cursor"] is None


async def test_a_rider_is_told_with_debts_and_debits_page_by_page(it: WebWorld) -> None:
    await it.clock(60)
    await it.agree("agr-owes", "owes")
    for number in range(3):
        await it.take(*whole(f"owes-{number}", agreement_id="agr-owes"))
    await it.collect()
    await it.sql("UPDATE debit SET state = 'needs_rider', paid_minor = 0, overdue = true WHERE session_id = 'owes-1'")
    rider = await it.get("/v1/riders/owes")
    assert rider["debts"] == [{"currency": "CNY", "overdue": 1, "overdue_minor": 250, "open_minor": 250}]
    assert [item["session_id"] for item in rider["open_debits"]] == ["owes-1"]
    assert [item["agreement_id"] for item in rider["agreements"]] == ["agr-owes"]
    overdue = await it.get("/v1/debits?overdue=true&agreement_id=agr-owes")
    assert [item["session_id"] for item in overdue["items"]] == ["owes-1"]
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await it.get(f"/v1/debits?rider_ref=owes&limit=2&state=settled{cursor and '&cursor=' + cursor}")
        found += [item["session_id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert found == ["owes-2", "owes-0"]
    newest = (await it.get("/v1/debits?rider_ref=owes&limit=1"))["items"][0]
    assert newest["session_id"] == "owes-2"
    assert (await it.get(f"/v1/debits/{newest['debit_id']}"))["transitions"][0]["to_state"] == "new"
