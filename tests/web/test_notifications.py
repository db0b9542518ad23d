"""Notifications of providers: let in by their signature alone, taken once committed, never believed without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alipay_double import notice, settings_of
from ride_builders import whole
from sandbox_peer import NOTIFY_SECRET
from web_world import Answer, WebWorld, web_world

from service.adapters.postgres.rides import RideStore
from service.lab.provider.courier import signature

OURS, THEIRS = "default.acc-default", "other.acc-other"
VIEW = {"ref": "DB1", "currency": "CNY", "amount_minor": 250, "paid_minor": 250, "state": "paid"}


@pytest.fixture(scope="module")
async def it(database_url: str) -> AsyncIterator[WebWorld]:
    async with web_world(database_url) as it:
        await it.clock(60)
        yield it


async def notify(
    it: WebWorld,
    body: bytes,
    *,
    to: str = OURS,
    by: str | None = None,
    age: float = 0,
    headers: dict[str, str] | None = None,
) -> Answer:
    """A notification as the provider of an account sends it; signed by its own account unless `by` another one."""
    key = f"{NOTIFY_SECRET}-{by or to.partition('.')[2]}"
    told = {"Farebox-Signature": signature(key, body, datetime.now(UTC) - timedelta(seconds=age)), **(headers or {})}
    return await it.ask("POST", f"/v1/providers/sandbox/{to}/notifications", body, by=None, key="", headers=told)


def told(about: str, data: dict[str, Any], *, account: str = "acc-default", number: str = "NO1") -> bytes:
    return msgspec.json.encode({"id": number, "account_id": account, "about": about, "data": data})


async def pending(it: WebWorld, session: str) -> dict[str, Any]:
    """A ride whose debit the provider has accepted and not decided."""
    assert it.sandbox is not None
    await it.sandbox.script("later", op="debit.take", seconds=36_000)
    await it.take(*whole(session))
    await it.collect()
    (debit,) = (await it.get(f"/v1/sessions/{session}"))["debits"]
    assert debit["state"] == "pending"
    return dict(debit)


async def state_of(it: WebWorld, session: str) -> str:
    (debit,) = (await it.get(f"/v1/sessions/{session}"))["debits"]
    return str(debit["state"])


async def test_a_debit_is_settled_by_what_its_provider_tells_and_again_changes_nothing(it: WebWorld) -> None:
    debit = await pending(it, "paid-later")
    body = told("debit", VIEW | {"key": debit["provider_key"]}, number="NO-paid")
    for _ in range(2):
        answer = await notify(it, body, headers={"Content-Type": "application/x-www-form-urlencoded; charset=GBK"})
        assert (answer.status, answer.body) == (200, b"success")
    (after,) = (await it.get("/v1/sessions/paid-later"))["debits"]
    assert (after["state"], after["paid_minor"]) == ("settled", 250)
    older = told("debit", VIEW | {"key": debit["provider_key"], "state": "accepted", "paid_minor": 0}, number="NO-old")
    assert (await notify(it, older)).status == 200
    assert (await it.get("/v1/sessions/paid-later"))["debits"] == [after]
    rows = await it.sql("SELECT about, provider_key, known, times FROM notification WHERE notification_id = 'NO-paid'")
    assert rows == [("debit", debit["provider_key"], True, 2)]


async def test_what_the_answer_to_our_own_call_said_before_is_about_something_of_ours(it: WebWorld) -> None:
    """It came a moment after the debit was settled, and was counted as unknown, as if it were nobody's."""
    await it.take(*whole("at-once"))
    await it.collect()
    (debit,) = (await it.get("/v1/sessions/at-once"))["debits"]
    asked = {"amount_minor": 100, "reason": "loose"}
    await it.ask("POST", f"/v1/debits/{debit['debit_id']}/refunds", asked)
    await it.collect()
    await it.collect()
    (settled,) = (await it.get("/v1/sessions/at-once"))["debits"]
    (refund,) = settled["refunds"]
    assert (settled["state"], refund["state"]) == ("settled", "succeeded")
    [(key,)] = await it.sql(
        "SELECT r.provider_key FROM refund r JOIN debit d USING (ride_no, ordinal) WHERE d.session_id = 'at-once'"
    )
    late = {
        "debit": VIEW | {"key": debit["provider_key"], "ref": debit["provider_reference"]},
        "refund": {"key": key, "ref": refund["provider_reference"], "state": "paid", "amount_minor": 100},
    }
    for about, data in late.items():
        assert (await notify(it, told(about, data, number=f"NO-late-{about}"))).status == 200
    rows = await it.sql("SELECT known FROM notification WHERE notification_id LIKE 'NO-late-%'")
    assert rows == [(True,), (True,)]
    assert (await it.get("/v1/sessions/at-once"))["debits"] == [settled]


async def test_the_provider_delivers_it_by_itself(it: WebWorld) -> None:
    """Over the simulator's own courier, signed as it signs."""
    assert it.sandbox is not None
    await it.listen_to_notifications()
    await pending(it, "delivered")
    clock = await it.sandbox.call("GET", "/clock")
    ahead = datetime.fromisoformat(clock["now"]) + timedelta(hours=11)
    await it.sandbox.call("PUT", "/clock", {"now": ahead, "speed": 1})
    async with asyncio.timeout(30):
        while await state_of(it, "delivered") != "settled":  # noqa: ASYNC110  It happens in PostgreSQL, not here.
            await asyncio.sleep(0.02)
    await it.listen_to_notifications(on=False)


async def test_only_the_accounts_own_signature_lets_in(it: WebWorld) -> None:
    debit = await pending(it, "forged")
    body = told("debit", VIEW | {"key": debit["provider_key"]})
    forged = (
        await notify(it, body, by="nobody"),
        await notify(it, body, by="acc-other"),
        await notify(it, body, age=301),
        await notify(it, body, age=-400),  # It comes nearer while the request is under way.
        await notify(it, body, headers={"Farebox-Signature": ""}),
        await notify(it, body, headers={"Farebox-Signature": "t=1,v1=é"}),
        await notify(it, told("debit", VIEW | {"key": debit["provider_key"]}, account="acc-other")),
        await notify(it, b"\xff\x00{"),
        await notify(it, told("wallet", {})),
        await notify(it, b""),
    )
    assert [answer.status for answer in forged] == [401] * 6 + [400] * 4
    assert await state_of(it, "forged") == "pending"


async def test_another_operators_signature_reaches_nothing_of_ours(it: WebWorld) -> None:
    """Their key signs for their account, whatever it names: what is ours is unknown there."""
    debit = await pending(it, "not-theirs")
    body = told("debit", VIEW | {"key": debit["provider_key"]}, account="acc-other", number="NO-theirs")
    assert (await notify(it, body, to=THEIRS)).status == 200
    assert await state_of(it, "not-theirs") == "pending"
    assert await it.sql("SELECT known FROM notification WHERE notification_id = 'NO-theirs'") == [(False,)]


@pytest.mark.parametrize(
    "address",
    [
        "sandbox/default.none",
        "sandbox/acc-default",
        "sandbox/other.acc-default",
        "alipay/default.acc-default",
        "none/default.acc-default",
        "sandbox/%00.acc-default",
        "sandbox/..",
    ],
)
async def test_an_account_that_is_not_there_is_a_404(it: WebWorld, address: str) -> None:
    answer = await it.ask("POST", f"/v1/providers/{address}/notifications", b"{}", by=None, key="")
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json"), answer.body


async def test_what_is_not_ours_is_acknowledged_and_recorded(it: WebWorld) -> None:
    for about, data in (
        ("debit", VIEW | {"key": "NOBODYS", "ref": "DB-NOBODYS"}),
        ("refund", {"key": "NOBODYS", "ref": "RF1", "state": "paid", "amount_minor": 1}),
        ("hold", {"key": "NOBODYS", "ref": "HO1", "state": "open"}),
        ("agreement", {"key": "NOBODYS", "ref": "AG1", "state": "active"}),
    ):
        assert (await notify(it, told(about, data, number=f"NO-{about}"))).status == 200
    rows = await it.sql("SELECT about FROM notification WHERE provider_key = 'NOBODYS' AND NOT known ORDER BY 1")
    assert rows == [("agreement",), ("debit",), ("hold",), ("refund",)]


async def test_a_dispute_that_is_only_announced_is_kept_to_be_asked_about(it: WebWorld, tmp_path: Path) -> None:
    settings = msgspec.json.encode(settings_of("zhima", tmp_path)).decode()
    await it.sql(
        "INSERT INTO merchant_account (operator_no, account_id, provider, base_url, settings, created_at)"
        " SELECT operator_no, 'zhima', 'alipay', 'http://127.0.0.1:9', $1, now() FROM operator"
        " WHERE operator_id = 'other' RETURNING account_no",
        settings,
    )
    await it.doors.refresh()
    fields = {"msg_method": "alipay.merchant.tradecomplain.changed", "biz_content": '{"complain_event_id":"C1"}'}
    address = "/v1/providers/alipay/other.zhima/notifications"
    for _ in range(2):
        assert (await it.ask("POST", address, notice(fields), by=None, key="")).body == b"success"
    asked = "SELECT account_id, dispute_ref FROM dispute_question JOIN merchant_account USING (account_no)"
    assert await it.sql(asked) == [("zhima", "C1")]
    assert await it.sql("SELECT about, known FROM notification WHERE provider_key = 'C1'") == [("dispute", True)]


async def test_a_state_that_nobody_listed_only_makes_us_ask(it: WebWorld) -> None:
    debit = await pending(it, "strange")
    body = told("debit", VIEW | {"key": debit["provider_key"], "state": "vaporised"}, number="NO-strange")
    assert (await notify(it, body)).status == 200
    (after,) = (await it.get("/v1/sessions/strange"))["debits"]
    assert (after["state"], after["paid_minor"]) == ("pending", 0)


async def test_an_agreement_revoked_at_the_provider_lets_nobody_ride_any_more(it: WebWorld) -> None:
    await it.agree("agr-left", "left")
    rows = await it.sql("SELECT provider_key, provider_ref FROM agreement WHERE agreement_id = 'agr-left'")
    key, ref = rows[0]
    assert (await notify(it, told("agreement", {"key": key, "ref": ref, "state": "revoked"}))).status == 200
    asked = (await it.ask("POST", "/v1/eligibility", {"agreement_id": "agr-left"})).body
    assert (asked["eligible"], asked["reason"]) == (False, "agreement_revoked")


async def test_a_body_without_end_is_refused(it: WebWorld) -> None:
    assert (await notify(it, b" " * (256 * 1024 + 1))).status == 413


async def test_what_cannot_be_committed_in_time_is_to_be_sent_again(it: WebWorld, database_url: str) -> None:
    """Somebody holds the debit: the provider is told to come back, and then it is taken."""
    debit = await pending(it, "locked")
    body = told("debit", VIEW | {"key": debit["provider_key"]}, number="NO-locked")
    async with web_world(database_url, founded=True, notification_seconds=0.2) as hurried:
        async with it.database.transaction(RideStore) as store:
            await store.connection.execute("SELECT FROM debit WHERE session_id = 'locked' FOR UPDATE")
            late = await notify(hurried, body)
            assert (late.status, late.body["type"]) == (503, "urn:farebox:problem:unavailable")
            assert late.headers["retry-after"]
        assert await state_of(it, "locked") == "pending"
    assert (await notify(it, body)).status == 200
    assert await state_of(it, "locked") == "settled"
