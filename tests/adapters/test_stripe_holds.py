"""A hold at Stripe that is refused after its rider was asked: he still has its secret, so that it is cancelled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from stripe_double import AGREEMENT, Double, bad_request, card_error, double, intent, provider_at

from service.adapters.providers.port import HoldRef, HoldRequest, Provider
from service.billing.agreements.standing import HoldStatus
from service.billing.outcomes import ClientSecret, Unknown

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOLD = HoldRef("H1", "pi_1")
FAILED = {"code": "card_declined", "decline_code": "lost_card"}
DECLINED: dict[str, Any] = intent("requires_payment_method", last_payment_error=FAILED)
REFUSED = HoldStatus("refused", "pi_1", code="lost_card")


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_KEY", "sk_test_1")
    monkeypatch.setenv("STRIPE_WEBHOOK", "whsec_1")


@pytest.fixture
async def stripe() -> AsyncIterator[Double]:
    async with double() as it:
        yield it


@pytest.fixture
async def provider(stripe: Double) -> AsyncIterator[Provider]:
    async with provider_at(stripe.url, hold="manual_capture") as it:
        yield it


async def test_what_was_refused_after_the_rider_was_asked_is_cancelled_before_that_is_said(
    stripe: Double, provider: Provider
) -> None:
    """With another card he would have authorised it, for nobody: no hold of ours would have known."""
    stripe.says("POST payment_intents", card_error("authentication_required"), 402)
    asked = await provider.open_hold(HoldRequest("H1", AGREEMENT, 5000, "EUR", "bike 7", AT))
    assert asked == HoldStatus("pending", "pi_1", action=ClientSecret("pi_1_secret_1"))
    stripe.says("GET payment_intents/pi_1", DECLINED)
    stripe.says("POST payment_intents/pi_1/cancel", DECLINED | {"status": "canceled"})
    assert await provider.get_hold(HOLD) == REFUSED
    assert stripe.asked[-1].form == {"cancellation_reason": "abandoned"}


async def test_who_died_after_the_cancelling_is_told_that_it_was_refused(stripe: Double, provider: Provider) -> None:
    gone = DECLINED | {"status": "canceled", "cancellation_reason": "abandoned"}
    stripe.says("GET payment_intents/pi_1", gone)
    assert await provider.get_hold(HOLD) == REFUSED
    assert len(stripe.asked) == 1


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, {}, Unknown("HTTP 500")),
        (
            400,
            bad_request("payment_intent_unexpected_state"),
            Unknown("refused, and not cancelled: requires_payment_method"),
        ),
    ],
)
async def test_what_is_not_cancelled_is_asked_about_again(
    stripe: Double, provider: Provider, status: int, body: Any, said: Unknown
) -> None:
    stripe.says("GET payment_intents/pi_1", DECLINED)
    stripe.says("POST payment_intents/pi_1/cancel", body, status)
    assert await provider.get_hold(HOLD) == said
