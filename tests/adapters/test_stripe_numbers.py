"""A debit at Stripe of which the number is not known: the answer was lost, or a restored database has forgotten it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from stripe_double import AGREEMENT, Double, double, intent, provider_at

from service.adapters.providers.port import AgreementRef, DebitRef, Provider
from service.billing.outcomes import Accepted, Closed, NotFound, Outcome, Prepared, Succeeded, Unknown


@pytest.fixture
async def stripe() -> AsyncIterator[Double]:
    async with double() as it:
        yield it


@pytest.fixture
async def provider(stripe: Double, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Provider]:
    monkeypatch.setenv("STRIPE_KEY", "sk_test_1")
    monkeypatch.setenv("STRIPE_WEBHOOK", "whsec_1")
    async with provider_at(stripe.url) as it:
        yield it


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([], NotFound()),
        ([intent("succeeded", metadata={"farebox_key": "D2"})], NotFound()),
        ([intent("succeeded")], Succeeded(1250, "pi_1")),
        ([intent("requires_payment_method", id="pi_2"), intent("succeeded")], Succeeded(1250, "pi_1")),
        ([intent("processing")], Accepted("pi_1")),
        ([intent("canceled")], Closed("canceled")),
        ([intent("requires_payment_method")], Prepared("pi_1")),
        ([intent("requires_action")], Prepared("pi_1")),
    ],
)
async def test_a_number_that_a_restored_database_has_lost_is_found_among_the_riders_latest_payments(
    stripe: Double, provider: Provider, found: list[Any], said: Outcome
) -> None:
    """Long after Stripe has forgotten the idempotency key, which would make another payment."""
    lost = DebitRef("D1", 1250, "EUR", None, AGREEMENT)
    stripe.says("GET payment_intents", {"data": found, "has_more": True})
    assert await provider.get_debit(lost) == said
    assert stripe.calls == ["GET payment_intents"]
    assert stripe.asked[0].form | {"expand[]": ""} == {"customer": "cus_1", "limit": "100", "expand[]": ""}
    assert await provider.get_debit(DebitRef("D1", 1250, "EUR", None, AgreementRef("A1"))) == NotFound(), "not signed"
    stripe.forget()
    stripe.says("GET payment_intents", {}, 500)
    assert isinstance(await provider.get_debit(lost), Unknown)
