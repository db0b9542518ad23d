"""The rider pays now: his app asks for it, and what it gets is paid at the real simulator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from ride_builders import whole
from web_world import WebWorld, web_world

from service.billing.keys import provider_key, session_key_bytes
from service.billing.outcomes import Declined, NeedsRider
from service.web.payments import nothing_to_do


@pytest.fixture(scope="module")
async def it(database_url: str) -> AsyncIterator[WebWorld]:
    async with web_world(database_url) as it:
        await it.clock(60)
        await it.token("payer", ["status:read", "billing:write"], "default", "anna")
        yield it


async def declined(it: WebWorld, session: str) -> Any:
    """A debit that waits for its rider to have money."""
    assert it.sandbox is not None
    key = provider_key(session_key_bytes("default", session), "debit", 1)
    await it.sandbox.script("decline", on=key, op="debit.take", code="BALANCE_NOT_ENOUGH")
    await it.take(*whole(session))
    await it.collect()
    (debit,) = (await it.get(f"/v1/sessions/{session}"))["debits"]
    assert debit["state"] == "retry_wait"
    return debit


async def test_the_rider_pays_by_what_his_app_was_given(it: WebWorld) -> None:
    assert it.sandbox is not None
    debit = await declined(it, "pays")
    path = f"/v1/debits/{debit['debit_id']}/payment"
    asked = await it.ask("POST", path, by="payer", key="k-pays")
    assert (asked.status, asked.body["action"]["kind"]) == (200, "url")
    assert asked.body["payable_until"] is not None
    again = await it.ask("POST", path, by="payer", key="k-pays")
    assert again.body == asked.body == await it.get(f"/v1/debits/{debit['debit_id']}", by="payer")
    page = asked.body["action"]["url"].removeprefix(it.sandbox.url)
    await it.sandbox.call("POST", f"{page}&answer=pay")
    await it.clock(62)
    await it.collect()
    after = await it.get(f"/v1/debits/{debit['debit_id']}")
    assert (after["state"], after["paid_minor"], after["action"]) == ("settled", 250, None)
    late = await it.ask("POST", path)
    assert (late.status, late.fields) == (409, ["path:debit_id"])
    assert "is settled and can't be paid by the rider now" in late.body["detail"]


async def test_a_provider_that_does_not_answer_is_told_as_such(it: WebWorld) -> None:
    assert it.sandbox is not None
    debit = await declined(it, "silence")
    await it.sandbox.script("error_before", op="debit.request_payment")
    answer = await it.ask("POST", f"/v1/debits/{debit['debit_id']}/payment")
    assert (answer.status, answer.body["type"]) == (503, "urn:farebox:problem:unavailable")
    assert answer.headers["retry-after"]


async def test_who_is_to_confirm_a_hold_that_is_over_is_given_another_one_at_once(it: WebWorld) -> None:
    """He was given the old one, which could not be confirmed any more."""
    assert it.sandbox is not None
    await it.open_account(1, "confirming", hold_needed=True, hold_confirmed_by_rider=True)
    await it.agree("agr-c", "anna", account_id="confirming")
    await it.take(*whole("confirms", agreement_id="agr-c"))
    await it.collect()
    await it.doors.holds.resolve_round(it.accounts[-1].account_no)
    await it.collect()
    (debit,) = (await it.get("/v1/sessions/confirms"))["debits"]
    assert (debit["state"], debit["action"]["kind"]) == ("needs_rider", "url")
    page = debit["action"]["url"].removeprefix(it.sandbox.url)
    await it.sandbox.call("POST", f"{page}&answer=refuse")
    await it.sql("UPDATE hold SET state = 'expired', action = NULL, due_at = NULL WHERE session_id = 'confirms'")
    given = await it.ask("POST", f"/v1/debits/{debit['debit_id']}/payment", by="payer")
    assert (given.status, given.body["state"]) == (200, "needs_rider")
    assert given.body["action"]["url"] not in ("", debit["action"]["url"])


@pytest.mark.parametrize("debit", ["none", "1-1", "99999999999999999999-1"])
async def test_a_debit_that_is_not_there_is_a_404(it: WebWorld, debit: str) -> None:
    assert (await it.ask("POST", f"/v1/debits/{debit}/payment")).status == 404


def test_a_rider_who_pays_where_no_app_can_take_him_is_told_where_in_our_words() -> None:
    told = nothing_to_do("7-1", NeedsRider("RIDER_MUST_PAY", None, "he finds it in his wallet"))
    assert (told.status, told.errors[0].field) == (409, "path:debit_id")
    assert told.detail.endswith("have him pay debit 7-1: he finds it in his wallet")
    refused = nothing_to_do("7-1", Declined(False, "TRADE_CLOSED", "of Anna Example"))
    assert "TRADE_CLOSED" in refused.detail and "Anna" not in refused.detail
