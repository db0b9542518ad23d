"""What the tests of the Stripe adapter at localstripe share: an account there, a rider who signs, a debit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from localstripe_door import Localstripe

from service.adapters.providers import open_provider
from service.adapters.providers.port import (
    AgreementRef,
    AgreementRequest,
    DebitRef,
    DebitRequest,
    MerchantAccount,
    Provider,
)
from service.billing.agreements.standing import AgreementStatus
from service.billing.outcomes import ClientSecret, Prepared

WEBHOOK_SECRET = "whsec_of_the_tests"  # noqa: S105  # The tests' own.
DECLINED_CARD = "4000000000000341"
"""Can be attached, and is declined when it is charged (docs.stripe.com/testing)."""


@asynccontextmanager
async def provider_at(url: str, **settings: str) -> AsyncIterator[Provider]:
    given = {"secret_key_env": "STRIPE_KEY", "webhook_secret_env": "STRIPE_WEBHOOK", "currency": "EUR", "mode": "test"}
    provider = open_provider(MerchantAccount(1, "cards", "stripe", url, given | settings))
    try:
        yield provider
    finally:
        await provider.close()


async def sign(
    server: Localstripe, provider: Provider, key: str, number: str = "4242424242424242", currency: str = "EUR"
) -> AgreementRef:
    """An agreement that the rider has signed in his app, with the client secret that he was given."""
    begun = await provider.begin_agreement(AgreementRequest(key, "rider", currency))
    assert isinstance(begun, AgreementStatus) and begun.state == "pending", begun
    assert isinstance(begun.action, ClientSecret) and begun.provider_ref is not None
    customer, setup = begun.provider_ref.split(":")
    card = await server.card(customer, number)
    secret = begun.action.client_secret
    await server.call("POST", f"v1/setup_intents/{setup}/confirm", client_secret=secret, payment_method=card)
    signed = await provider.get_agreement(AgreementRef(key, begun.provider_ref))
    assert isinstance(signed, AgreementStatus), signed
    assert (signed.state, signed.provider_ref) == ("active", f"{customer}:{setup}:{card}")
    assert signed.valid_until == datetime(2031, 1, 1, tzinfo=UTC)
    return AgreementRef(key, signed.provider_ref)


def request(key: str, agreement: AgreementRef, amount_minor: int = 1250, **more: object) -> DebitRequest:
    fields = {"provider_ref": None, "attempt": 1, "hold": None} | more
    return DebitRequest(key, agreement, amount_minor, "EUR", "Ride 7", **fields)  # type: ignore[arg-type]  # As named.


def ref(request: DebitRequest, number: str | None) -> DebitRef:
    return DebitRef(request.key, request.amount_minor, "EUR", number, request.agreement, request.hold)


async def prepared(provider: Provider, asked: DebitRequest) -> str:
    outcome = await provider.debit(asked)
    assert isinstance(outcome, Prepared), outcome
    return outcome.provider_ref
