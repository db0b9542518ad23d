"""What Stripe's answers make of debits, holds and refunds: faults and refusals that localstripe can't give.

The bodies are those of docs.stripe.com/api; the whole journey is tried at localstripe (tests/peers).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from stripe_double import AGREEMENT, Double, bad_request, card_error, double, intent, provider_at

from service.adapters.providers.port import (
    AgreementRef,
    DebitRef,
    DebitRequest,
    HoldRef,
    HoldRequest,
    Provider,
    RefundRef,
    RefundRequest,
)
from service.adapters.providers.stripe.meaning import NOT_SIGNED
from service.billing.agreements.standing import HoldStatus
from service.billing.outcomes import (
    BARRED_FOR,
    Accepted,
    AlreadyDone,
    Barred,
    CapExceeded,
    ClientSecret,
    Closed,
    Conflict,
    Declined,
    NeedsRider,
    NotFound,
    Outcome,
    Postponed,
    Prepared,
    Rejected,
    Succeeded,
    Throttled,
    Unknown,
)

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
SECRET = ClientSecret("pi_1_secret_1")
HOLD = HoldRef("H1", "pi_hold")
DEBIT = DebitRef("D1", 1250, "EUR", "pi_1", AGREEMENT)
GONE = bad_request("payment_intent_unexpected_state")

MAY_NOT = "the account's secret key may not POST payment_intents/pi_1/confirm"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_KEY", "sk_test_1")
    monkeypatch.setenv("STRIPE_WEBHOOK", "whsec_1")


@pytest.fixture(scope="module")
async def stripe() -> AsyncIterator[Double]:
    async with double() as it:
        yield it


@pytest.fixture
async def provider(stripe: Double) -> AsyncIterator[Provider]:
    stripe.forget()
    async with provider_at(stripe.url, hold="manual_capture") as it:
        yield it


def request(number: str | None = None, amount_minor: int = 1250, attempt: int = 1, **more: Any) -> DebitRequest:
    return DebitRequest("D1", AGREEMENT, amount_minor, "EUR", "Ride 7", provider_ref=number, attempt=attempt, **more)


async def test_a_debit_is_made_unconfirmed_and_each_confirmation_has_a_key_of_its_own(
    stripe: Double, provider: Provider
) -> None:
    stripe.says("POST payment_intents", intent("requires_payment_method"))
    stripe.says("GET payment_intents/pi_1", intent("requires_payment_method", last_payment_error={"code": "x"}))
    stripe.says("POST payment_intents/pi_1/confirm", intent("succeeded"))
    assert await provider.debit(request()) == Prepared("pi_1")
    assert await provider.debit(request("pi_1")) == Succeeded(1250, "pi_1")
    assert await provider.debit(request("pi_1", attempt=2)) == Succeeded(1250, "pi_1")
    made, first, _, second = stripe.asked
    assert made.form == {
        "amount": "1250",
        "currency": "eur",
        "customer": "cus_1",
        "description": "Ride 7",
        "metadata[farebox_key]": "D1",
        "payment_method_types[]": "card",
    }
    assert first.form == {"payment_method": "pm_1", "off_session": "true"}
    assert [asked.headers["Idempotency-Key"] for asked in (made, first, second)] == ["D1", "D1-1", "D1-2"]
    assert made.headers["Stripe-Version"] == "2025-09-30.clover"
    assert made.headers["Authorization"] == "Bearer sk_test_1"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (402, card_error("card_declined", "insufficient_funds"), Declined(True, "insufficient_funds")),
        (402, card_error("card_declined", "lost_card"), Declined(False, "lost_card")),
        (402, card_error("expired_card", "expired_card"), Declined(False, "expired_card")),
        (402, card_error("card_declined", "of_tomorrow"), Declined(False, "of_tomorrow")),
        (402, card_error("card_declined", "of_tomorrow", advice_code="try_again_later"), Declined(True, "of_tomorrow")),
        (
            402,
            card_error("card_declined", "do_not_honor", advice_code="do_not_try_again"),
            Declined(False, "do_not_honor"),
        ),
        (402, card_error("processing_error"), Declined(True, "processing_error")),
        (
            402,
            card_error("authentication_required", "authentication_required"),
            NeedsRider("authentication_required", SECRET),
        ),
        (402, b"<html>", Unknown("HTTP 402 with a body that can't be read")),
        (409, bad_request("idempotency_key_in_use"), Postponed(timedelta(seconds=2))),
        (429, bad_request("lock_timeout"), Throttled(timedelta(seconds=7))),
        (400, {"error": {"type": "idempotency_error", "message": "Other parameters"}}, Conflict("idempotency_error")),
        (401, bad_request(None), Barred(BARRED_FOR, "UNAUTHORIZED", "the account's secret key is refused")),
        (403, bad_request("more_permissions_required"), Barred(BARRED_FOR, "PERMISSION_MISSING", MAY_NOT)),
        (424, bad_request("external"), Unknown("HTTP 424 external")),
        (500, {"error": {"type": "api_error"}}, Unknown("HTTP 500")),
        (502, b"<html>", Unknown("HTTP 502")),
        (200, b'{"id": "pi_1", "status": "succe', Unknown("an answer that can't be read")),
        (200, b"<html>", Unknown("an answer that can't be read")),
        (200, intent("of_tomorrow"), Unknown("payment state of_tomorrow")),
        (200, intent("succeeded", id="pi_2"), Unknown("the answer is about another payment")),
        (200, intent("requires_payment_method"), Unknown("confirmed, and still unconfirmed")),
        (200, intent("requires_capture"), Unknown("payment state requires_capture")),
        (200, intent("processing"), Accepted("pi_1")),
        (200, intent("requires_action"), NeedsRider("authentication_required", SECRET)),
        (200, intent("canceled", cancellation_reason="abandoned"), Closed("abandoned")),
        (200, intent("succeeded", amount_received=1000), Succeeded(1000, "pi_1")),
        (200, intent("succeeded", amount=5, currency="xyz"), Unknown),
    ],
)
async def test_what_a_confirmation_brings(
    stripe: Double, provider: Provider, status: int, body: Any, said: Outcome | type[Unknown]
) -> None:
    stripe.says("POST payment_intents/pi_1/confirm", body, status, {"Retry-After": "7"})
    stripe.says("GET payment_intents/pi_1", intent("requires_payment_method"))
    stripe.says("GET payment_methods/pm_1", {"id": "pm_1", "customer": "cus_1"})
    outcome = await provider.debit(request("pi_1"))
    assert isinstance(outcome, Unknown) if isinstance(said, type) else outcome == said


@pytest.mark.parametrize(
    ("standing", "method", "said"),
    [
        (intent("succeeded"), None, Succeeded(1250, "pi_1")),
        (intent("processing"), None, Accepted("pi_1")),
        (intent("canceled"), None, Closed("canceled")),
        (intent("requires_action"), None, NeedsRider("authentication_required", SECRET)),
        (intent("requires_payment_method"), {"id": "pm_1"}, NeedsRider("payment_method_detached", SECRET)),
        (
            intent("requires_payment_method", last_payment_error={"code": "card_declined"}),
            {"id": "pm_1"},
            NeedsRider("payment_method_detached", SECRET),
        ),
        (intent("requires_payment_method"), None, NeedsRider("payment_method_detached", SECRET)),
        (
            intent("requires_payment_method"),
            {"id": "pm_1", "customer": "cus_1"},
            Rejected("payment_intent_unexpected_state", "It was refused."),
        ),
    ],
)
async def test_a_confirmation_that_is_refused_is_looked_into(
    stripe: Double, provider: Provider, standing: Any, method: Any, said: Outcome
) -> None:
    stripe.says("POST payment_intents/pi_1/confirm", GONE, 400)
    stripe.says("GET payment_intents/pi_1", standing)
    if method is not None:
        stripe.says("GET payment_methods/pm_1", method)
    assert await provider.debit(request("pi_1")) == said


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, intent("succeeded"), Succeeded(1250, "pi_1")),
        (200, intent("processing"), Accepted("pi_1")),
        (200, intent("canceled"), Closed("canceled")),
        (404, bad_request("resource_missing"), Rejected("PAYMENT_MISSING", "pi_1 is not a payment of this account")),
        (500, {}, Postponed(timedelta(seconds=2))),
    ],
)
async def test_a_further_attempt_looks_first_and_confirms_nothing_that_is_decided(
    stripe: Double, provider: Provider, status: int, body: Any, said: Outcome
) -> None:
    stripe.says("GET payment_intents/pi_1", body, status)
    assert await provider.debit(request("pi_1", attempt=2)) == said
    assert stripe.calls == ["GET payment_intents/pi_1"]


async def test_a_debit_is_asked_about_by_its_number_alone(stripe: Double, provider: Provider) -> None:
    assert await provider.get_debit(DEBIT) == NotFound()
    assert stripe.calls == ["GET payment_intents/pi_1"]
    for status, body in ((500, {}), (403, bad_request(None)), (200, b"[]"), (200, intent("succeeded", id="pi_2"))):
        stripe.forget()
        stripe.says("GET payment_intents/pi_1", body, status)
        assert isinstance(await provider.get_debit(DEBIT), Unknown | Barred)


async def test_what_nobody_signed_and_what_cannot_be_said_in_money_is_not_sent(
    stripe: Double, provider: Provider
) -> None:
    unsigned = DebitRequest("D1", AgreementRef("ag", "cus_1:seti_1"), 1250, "EUR", "Ride 7")
    assert await provider.debit(unsigned) == NOT_SIGNED == Declined(False, "AGREEMENT_NOT_SIGNED", NOT_SIGNED.message)
    assert isinstance(await provider.debit(DebitRequest("D1", AGREEMENT, 1250, "USD", "Ride 7")), Rejected)
    async with provider_at(stripe.url, currency="KWD") as dinars:
        outcome = await dinars.debit(DebitRequest("D1", AGREEMENT, 5124, "KWD", "Ride 7"))
        assert isinstance(outcome, Rejected) and outcome.code == "AMOUNT_IMPOSSIBLE"
    assert stripe.calls == []


async def test_the_rider_pays_the_debits_own_number_over_what_is_owed_now(stripe: Double, provider: Provider) -> None:
    stripe.says("POST payment_intents", intent("requires_payment_method"))
    assert await provider.request_payment(request()) == Prepared("pi_1")
    stripe.says("GET payment_intents/pi_1", intent("requires_payment_method"))
    stripe.says("POST payment_intents/pi_1", intent("requires_payment_method", amount=900))
    assert await provider.request_payment(request("pi_1")) == NeedsRider("rider_must_pay", SECRET)
    assert await provider.request_payment(request("pi_1", 900)) == NeedsRider("rider_must_pay", SECRET)
    assert [asked.form for asked in stripe.asked if asked.call == "POST payment_intents/pi_1"] == [{"amount": "900"}]
    stripe.forget()
    stripe.says("GET payment_intents/pi_1", intent("succeeded"))
    assert await provider.request_payment(request("pi_1")) == AlreadyDone()


async def test_a_payment_that_fails_while_it_is_processed_is_declined_and_tried_again_as_the_same_payment(
    stripe: Double, provider: Provider
) -> None:
    """A bank debit: accepted, days later without cover. The next try has an idempotency key of its own."""
    stripe.says("POST payment_intents/pi_1/confirm", intent("processing"))
    assert await provider.debit(request("pi_1")) == Accepted("pi_1")
    failed = intent("requires_payment_method", last_payment_error={"code": "insufficient_funds"})
    stripe.says("GET payment_intents/pi_1", failed)
    assert await provider.get_debit(DEBIT) == Declined(True, "insufficient_funds")
    assert await provider.debit(replace(request("pi_1"), attempt=2)) == Accepted("pi_1")
    keys = [asked.headers["Idempotency-Key"] for asked in stripe.asked if asked.call.endswith("/confirm")]
    assert len(set(keys)) == len(keys) == 2
    assert "POST payment_intents" not in stripe.calls


async def test_a_list_that_comes_to_no_end_is_given_up(stripe: Double, provider: Provider) -> None:
    stripe.says("GET refunds", {"data": [{"id": "re_1", "amount": 1, "currency": "eur"}], "has_more": True})
    refund = RefundRef("R1", DEBIT)
    assert await provider.get_refund(refund) == Unknown("a list that does not go on")
    assert stripe.calls == ["GET refunds"] * 2


async def test_what_is_being_processed_is_neither_lowered_nor_closed(stripe: Double, provider: Provider) -> None:
    stripe.says("GET payment_intents/pi_1", intent("processing"))
    stripe.says("POST payment_intents/pi_1/cancel", GONE, 400)
    assert await provider.reduce_debit(DEBIT, 900) == Rejected("NOT_POSSIBLE", "the payment is being processed")
    assert await provider.close_debit(DEBIT) == Accepted("pi_1")
    nudged = await provider.nudge_debit(DEBIT)
    assert isinstance(nudged, Rejected) and nudged.code == "NOT_POSSIBLE"


# ------------------------------------------------------------------------------ holds


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, intent("requires_capture", id="pi_hold", amount_capturable=5000), HoldStatus("open", "pi_hold", 5000)),
        (
            200,
            intent(
                "requires_capture",
                id="pi_hold",
                amount=5000,
                latest_charge={"id": "ch_1", "payment_method_details": {"card": {"capture_before": 1795687200}}},
            ),
            HoldStatus("open", "pi_hold", 5000, datetime(2026, 11, 26, 10, tzinfo=UTC)),
        ),
        (200, intent("requires_action", id="pi_hold"), HoldStatus("pending", "pi_hold", action=SECRET)),
        (200, intent("of_tomorrow", id="pi_hold"), Unknown("hold state of_tomorrow")),
        (402, card_error("authentication_required"), HoldStatus("pending", "pi_1", action=SECRET)),
        (402, card_error("card_declined", "stolen_card"), HoldStatus("refused", "pi_1", code="stolen_card")),
        (400, bad_request("amount_too_large"), Rejected("amount_too_large", "It was refused.")),
        (500, {}, Unknown("HTTP 500")),
    ],
)
async def test_what_opening_a_hold_brings(
    stripe: Double, provider: Provider, status: int, body: Any, said: Any
) -> None:
    stripe.says("POST payment_intents", body, status)
    assert await provider.open_hold(HoldRequest("H1", AGREEMENT, 5000, "EUR", "bike 7", AT)) == said
    (asked,) = stripe.asked
    assert asked.headers["Idempotency-Key"] == "H1-1795341600"
    named = ("capture_method", "confirm", "off_session", "payment_method", "metadata[farebox_hold]")
    assert [asked.form[name] for name in named] == ["manual", "true", "true", "pm_1", "H1"]


async def test_a_hold_that_ended_says_how(stripe: Double, provider: Provider) -> None:
    for reason, state in (("automatic", "expired"), ("requested_by_customer", "released"), (None, "released")):
        stripe.forget()
        stripe.says("GET payment_intents/pi_hold", intent("canceled", id="pi_hold", cancellation_reason=reason))
        status = await provider.get_hold(HOLD)
        assert isinstance(status, HoldStatus) and status.state == state
    assert await provider.get_hold(HoldRef("H1")) == NotFound()
    stripe.says("POST payment_intents/pi_hold/cancel", GONE, 400)
    stripe.forget()
    stripe.says("GET payment_intents/pi_hold", intent("succeeded", id="pi_hold"))
    stripe.says("POST payment_intents/pi_hold/cancel", GONE, 400)
    assert await provider.release_hold(HOLD) == Conflict("payment_intent_unexpected_state")


async def test_no_more_is_captured_than_was_held(stripe: Double, provider: Provider) -> None:
    stripe.says("POST payment_intents/pi_hold/capture", bad_request("amount_too_large"), 400)
    stripe.says("GET payment_intents/pi_hold", intent("requires_capture", id="pi_hold", amount_capturable=1000))
    assert await provider.debit(request(hold=HOLD)) == CapExceeded(1000)
    asked = stripe.asked[0]
    assert asked.form == {"amount_to_capture": "1250", "metadata[farebox_key]": "D1"}
    stripe.forget()
    stripe.says("POST payment_intents/pi_hold/capture", intent("succeeded", id="pi_hold", amount_received=1250))
    assert await provider.debit(request(hold=HOLD)) == Succeeded(1250, "pi_hold")


async def test_a_capture_whose_answer_was_lost_is_found_and_another_debits_is_not_ours(
    stripe: Double, provider: Provider
) -> None:
    asked = DebitRef("D1", 1250, "EUR", None, AGREEMENT, HOLD)
    stripe.says("POST payment_intents/pi_hold/capture", {}, 500)
    assert await provider.debit(request(hold=HOLD)) == Unknown("HTTP 500")
    for key, said in (("D1", Succeeded(1250, "pi_hold")), ("D2", NotFound())):
        stripe.forget()
        stripe.says("GET payment_intents/pi_hold", intent("succeeded", id="pi_hold", metadata={"farebox_key": key}))
        assert await provider.get_debit(asked) == said
    stripe.says("POST payment_intents/pi_hold/cancel", GONE, 400)
    assert await provider.close_debit(asked) == Closed("captured for another debit")


# ------------------------------------------------------------------------------ refunds


def refund(status: str, number: str = "re_1", key: str = "R1", **more: Any) -> dict[str, Any]:
    body = {"id": number, "object": "refund", "status": status, "amount": 500, "currency": "eur"}
    return body | {"metadata": {"farebox_key": key}, "payment_intent": "pi_1"} | more


BACK = RefundRequest("R1", DEBIT, 500, "EUR", "goodwill")
NONE_YET: dict[str, Any] = {"object": "list", "data": [], "has_more": False}


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, refund("succeeded"), Succeeded(500, "re_1")),
        (200, refund("pending"), Accepted("re_1")),
        (200, refund("requires_action"), Accepted("re_1", "requires_action")),
        (200, refund("failed", failure_reason="lost_or_stolen_card"), Declined(False, "lost_or_stolen_card")),
        (200, refund("canceled"), Declined(False, "canceled")),
        (200, refund("of_tomorrow"), Unknown("refund state of_tomorrow")),
        (400, bad_request("balance_insufficient"), Declined(True, "balance_insufficient")),
        (400, bad_request("charge_already_refunded"), Declined(False, "charge_already_refunded")),
        (400, bad_request("charge_disputed"), Declined(False, "charge_disputed")),
        (400, bad_request("parameter_invalid_integer"), Rejected("parameter_invalid_integer", "It was refused.")),
        (500, {}, Unknown("HTTP 500")),
    ],
)
async def test_what_a_refund_brings(stripe: Double, provider: Provider, status: int, body: Any, said: Outcome) -> None:
    stripe.says("GET refunds", NONE_YET)
    stripe.says("POST refunds", body, status)
    assert await provider.refund(BACK) == said
    assert stripe.asked[-1].form == {"payment_intent": "pi_1", "amount": "500", "metadata[farebox_key]": "R1"}
    assert stripe.asked[-1].headers["Idempotency-Key"] == "R1"


async def test_a_refund_that_was_made_is_found_on_any_page_and_not_made_again(
    stripe: Double, provider: Provider
) -> None:
    others = [refund("succeeded", f"re_{number}", f"R{number}") for number in (7, 8)]
    stripe.says("GET refunds", {"data": others, "has_more": True})
    stripe.says("GET refunds", {"data": [refund("succeeded", "re_9")], "has_more": False})
    assert await provider.refund(BACK) == Succeeded(500, "re_9")
    assert stripe.calls == ["GET refunds", "GET refunds"]
    assert stripe.asked[1].form["starting_after"] == "re_8"


async def test_without_a_look_no_refund_is_made(stripe: Double, provider: Provider) -> None:
    stripe.says("GET refunds", {}, 500)
    assert await provider.refund(BACK) == Postponed(timedelta(seconds=5))
    assert await provider.get_refund(RefundRef("R1", DEBIT)) == Unknown("HTTP 500")
    assert "POST refunds" not in stripe.calls
    unknown = RefundRequest("R1", DebitRef("D1", 1250, "EUR"), 500, "EUR", "goodwill")
    assert isinstance(await provider.refund(unknown), Rejected)
