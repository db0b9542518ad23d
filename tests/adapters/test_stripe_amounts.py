"""Stripe's units beside ISO 4217's: exact both ways, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.adapters.providers.stripe.amounts import (
    CHARGE_MIN,
    THREE_DECIMAL,
    WHOLE_UNITS,
    ZERO_DECIMAL,
    UnitsError,
    charge_min_minor,
    from_stripe,
    to_stripe,
)

CURRENCIES = sorted({"EUR", "USD", "CNY", "HUF", "TWD"} | ZERO_DECIMAL | THREE_DECIMAL | WHOLE_UNITS)


@pytest.mark.parametrize(
    ("minor", "currency", "amount"),
    [
        (1250, "EUR", 1250),
        (500, "JPY", 500),  # No decimals at either.
        (5, "ISK", 500),  # None by ISO, two at Stripe.
        (5, "UGX", 500),
        (300, "MGA", 3),  # Two by ISO, none at Stripe.
        (5120, "KWD", 5120),  # Three at both, the last of them 0.
        (1000, "HUF", 1000),  # Two at both; whole ones are asked of payouts only.
        (0, "EUR", 0),
    ],
)
def test_amounts_are_said_in_stripes_units(minor: int, currency: str, amount: int) -> None:
    assert to_stripe(minor, currency) == amount
    assert from_stripe(amount, currency) == minor


@pytest.mark.parametrize(
    ("minor", "currency", "why"),
    [
        (5124, "KWD", "the last of the three decimals must be 0"),
        (150, "MGA", "has decimals that can't be written"),
        (1000, "LYD", "Stripe does not say"),
        (1000, "XTS", "unknown currency"),
        (1000, "eur", "unknown currency"),
    ],
)
def test_what_cannot_be_said_exactly_is_refused(minor: int, currency: str, why: str) -> None:
    with pytest.raises(UnitsError, match=why):
        to_stripe(minor, currency)


def test_half_a_krona_is_not_rounded_away() -> None:
    with pytest.raises(UnitsError):
        from_stripe(550, "ISK")


@given(st.sampled_from(CURRENCIES), st.integers(0, 10**12))
def test_there_and_back_is_the_same_or_refused(currency: str, minor: int) -> None:
    try:
        amount = to_stripe(minor, currency)
    except UnitsError:
        assert currency in THREE_DECIMAL or currency == "MGA"
        return
    assert from_stripe(amount, currency) == minor


def test_the_least_charge_of_every_listed_currency_can_be_charged() -> None:
    for currency, least in CHARGE_MIN.items():
        assert to_stripe(charge_min_minor(currency), currency) == least
    assert (charge_min_minor("EUR"), charge_min_minor("JPY"), charge_min_minor("ISK")) == (50, 50, 1)
