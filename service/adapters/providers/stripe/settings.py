"""What a merchant account at Stripe says about itself: which key, which mode, which currency, whether it holds."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

import msgspec

from service.adapters.providers.given import given_settings
from service.adapters.providers.port import MerchantAccount
from service.adapters.providers.secrets import account_error
from service.adapters.providers.stripe.amounts import UnitsError, charge_min_minor, to_stripe
from service.adapters.providers.titles import Title
from service.billing.capabilities import Capabilities

API_VERSION = "2025-09-30.clover"
"""The version of Stripe's interface that this is written for (docs.stripe.com/changelog). Later ones drop parameters
that are sent here: stripe-python 16.1.0 (2026-10-28.endive) knows no `payment_method_types` any more."""

SECRETS = ("secret_key", "webhook_secret")
"""Named by reference: `<name>_file` or `<name>_env`."""


class StripeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of an account beside `secret_key_*`, `webhook_secret_*` and those of `exchange.Limits`.

    `currency`: the one in which this account debits (ISO 4217, capitals); an operator with several has several
    accounts, which may share a key. `hold`: whether a ride begins with an authorisation of the cap. `mode`: which keys
    and which notifications belong here. `title`: what the rider reads of a payment, before the time of his ride.
    """

    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]
    mode: Literal["live", "test"] = "live"
    hold: Literal["none", "manual_capture"] = "none"
    payment_method_types: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("card",)
    api_version: Annotated[str, msgspec.Meta(min_length=1)] = API_VERSION
    debit_min_minor: Annotated[int, msgspec.Meta(gt=0)] | None = None
    title: Title | None = None


def read_settings(account: MerchantAccount) -> StripeSettings:
    """The account's settings. Raises AccountSettingsError naming what is wrong, unknown names included.

    A live account needs the webhook's secret: a chargeback takes money back and is told by webhook alone.
    """
    live = account.settings.get("mode", "live") == "live"
    settings = given_settings(account, StripeSettings, SECRETS, SECRETS if live else SECRETS[:1])
    try:
        to_stripe(0, settings.currency)  # A currency that Stripe has.
    except UnitsError as error:
        raise account_error(account.account_id, f"settings: {error}") from None
    return settings


def capabilities_of(settings: StripeSettings) -> Capabilities:
    """What an account at Stripe can do.

    `new_key_after_decline` is False although Stripe replays a decline under its idempotency key: the debit's number is
    its PaymentIntent, which succeeds at most once, and each confirmation of it has an idempotency key of its own.
    `same_key_window` is therefore not the 24 hours for which Stripe keeps idempotency keys (docs.stripe.com/api,
    Idempotent requests): the number is remembered, and what the forgotten key could make again is one more
    PaymentIntent that nobody confirms. `refund_window` None: Stripe names no limit for cards, other ways to pay have
    one of their own (docs.stripe.com/refunds) and answer with a refusal. Chargebacks: docs.stripe.com/disputes.
    """
    return Capabilities(
        hold_needed=settings.hold == "manual_capture",
        debits_without_hold=True,
        further_debit=True,
        reduces_declined=True,
        closes_unpaid=True,
        same_key_window=timedelta(days=365),
        new_key_after_decline=False,
        debit_min_minor=settings.debit_min_minor or charge_min_minor(settings.currency),
        refund_window=None,
        reports_performance="provider",
        dispute="chargeback",
        revoking_ends_collection=True,
    )
