"""May this rider begin a ride: debts over all his agreements, his exposure, what the provider said; paying ends it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from ride_builders import whole
from web_world import WebWorld, web_world

from service.billing.keys import provider_key, session_key_bytes


@pytest.fixture(scope="module")
async def it(database_url: str) -> AsyncIterator[WebWorld]:
    async with web_world(database_url) as it:
        await it.clock(60)
        yield it


async def asked(it: WebWorld, agreement: str) -> Any:
    answer = await it.ask("POST", "/v1/eligibility", {"agreement_id": agreement, "tariff_id": "bike"})
    assert answer.status == 200, answer
    return answer.body


async def unpaid(it: WebWorld, session: str, agreement: str) -> Any:
    assert it.sandbox is not None
    key = provider_key(session_key_bytes("default", session), "debit", 1)
    await it.sandbox.script("decline", on=key, op="debit.take", code="BALANCE_NOT_ENOUGH")
    await it.take(*whole(session, agreement_id=agreement))
    await it.collect()
    (debit,) = (await it.get(f"/v1/sessions/{session}"))["debits"]
    assert debit["state"] == "retry_wait"
    return debit


async def test_a_debt_on_one_agreement_refuses_a_ride_on_another_until_it_is_paid(it: WebWorld) -> None:
    for name in ("agr-owing", "agr-clean"):
        await it.agree(name, "owing")
    debit = await unpaid(it, "owed", "agr-owing")
    clean = await asked(it, "agr-clean")
    assert (clean["eligible"], clean["open_minor"], clean["overdue_minor"]) == (True, 250, 0)
    await it.sql("UPDATE debit SET overdue = true WHERE session_id = 'owed'")
    refused = await asked(it, "agr-clean")
    assert (refused["eligible"], refused["reason"]) == (False, "overdue_debts")
    assert (refused["overdue"], refused["overdue_minor"]) == (1, 250)
    assert (await it.get("/v1/riders/owing"))["refused"] == "overdue_debts"
    hold = {"session_id": "no-ride", "agreement_id": "agr-clean", "tariff_id": "bike"}
    assert (await it.ask("POST", "/v1/holds", hold)).body["reason"] == "overdue_debts"
    path = f"/v1/debits/{debit['debit_id']}/settle-elsewhere"
    assert (await it.ask("POST", path, {"reason": "paid in cash"})).status == 200
    assert (await asked(it, "agr-clean"))["eligible"] is True
    assert (await it.get("/v1/riders/owing"))["refused"] is None
    assert (await it.ask("POST", "/v1/holds", hold)).body["status"] == "allowed"


async def test_the_exposure_is_over_all_agreements_of_the_rider(it: WebWorld) -> None:
    for name in ("agr-one", "agr-two"):
        await it.agree(name, "exposed")
        await unpaid(it, f"ride-{name}", name)
    await it.sql("UPDATE operator SET exposure_max_minor = 499 WHERE operator_no = 1")
    over = await asked(it, "agr-one")
    assert (over["eligible"], over["reason"]) == (False, "exposure_limit")
    assert (over["open_minor"], over["exposure_max_minor"]) == (500, 499)
    rider = await it.get("/v1/riders/exposed")
    assert (rider["refused"], rider["exposure_max_minor"], rider["exposure_currency"]) == ("exposure_limit", 499, "CNY")
    await it.sql("UPDATE operator SET exposure_max_minor = 500 WHERE operator_no = 1")
    assert (await asked(it, "agr-one"))["eligible"] is True
    await it.sql("UPDATE operator SET exposure_max_minor = NULL WHERE operator_no = 1")


async def test_what_the_provider_said_at_signing_is_told(it: WebWorld) -> None:
    assert it.sandbox is not None
    key = provider_key(session_key_bytes("default", "agr-poor"), "agreement", 0)
    await it.sandbox.script("refuse", on=key, code="SCORE_TOO_LOW")
    begun = await it.ask("POST", "/v1/agreements", {"agreement_id": "agr-poor", "rider_ref": "poor"})
    assert (begun.status, begun.body["state"], begun.body["reason"]) == (201, "refused", "SCORE_TOO_LOW")
    told = await asked(it, "agr-poor")
    assert (told["eligible"], told["reason"], told["provider_says"]) == (False, "agreement_refused", "SCORE_TOO_LOW")
