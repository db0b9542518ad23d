"""Stripe's minor units beside ISO 4217's, and the least that it charges (docs.stripe.com/currencies).

Stripe's `amount` is not always what ISO 4217 calls the minor unit. Where the two differ an amount is converted exactly,
or not at all: nothing is ever rounded here.
"""

from __future__ import annotations

from service.billing.money import MoneyError, exponent

ZERO_DECIMAL = frozenset(
    ["BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"]
)
"""Currencies whose amounts have no decimals (docs.stripe.com/currencies, Zero-decimal currencies). ISO gives MGA
two."""
THREE_DECIMAL = frozenset(["BHD", "JOD", "KWD", "OMR", "TND"])
"""Amounts have three decimals, of which the last must be 0 (the same page, Three-decimal currencies)."""
WHOLE_UNITS = frozenset({"ISK", "UGX"})
"""Without decimals by ISO and by the card networks, yet written with two that must be 00: 5 ISK is 500 (the same page,
Special cases; support.stripe.com, Deprecation of fractional ISK charges and refunds). For UGX `unverified`: older
editions of the page list it among the zero-decimal ones (and 5 UGX would be 5): ask Stripe before going live with
it."""

CHARGE_MIN = {
    "AED": 200,
    "AUD": 50,
    "BRL": 50,
    "CAD": 50,
    "CHF": 50,
    "CZK": 1500,
    "DKK": 250,
    "EUR": 50,
    "GBP": 30,
    "HKD": 400,
    "HUF": 17500,
    "INR": 50,
    "JPY": 50,
    "MXN": 1000,
    "MYR": 200,
    "NOK": 300,
    "NZD": 50,
    "PLN": 200,
    "RON": 200,
    "SEK": 300,
    "SGD": 50,
    "USD": 50,
}
"""The least that can be charged, in Stripe's units (docs.stripe.com/currencies, Minimum and maximum charge amounts;
the figures as mozilla/fxa keeps them, without BGN, which is no currency any more). It is that of the currency the
account is paid out in; where that is another one, Stripe converts first, so the account's setting `debit_min_minor`
overrules this table."""


class UnitsError(ValueError):
    """An amount that can't be said in the other units without a remainder, or a currency that Stripe does not know."""


def to_stripe(minor: int, currency: str) -> int:
    """Stripe's amount for ISO minor units: 500 JPY is 500, 5 ISK is 500, 5.120 KWD is 5120.

    Raises UnitsError: 5.124 KWD and 1.50 MGA can't be charged.
    """
    amount = _rescaled(minor, _iso_places(currency), _places(currency), currency)
    step = 10 if currency in THREE_DECIMAL else 1
    if amount % step:
        raise UnitsError(f"{currency}: the last of the three decimals must be 0")
    return amount


def from_stripe(amount: int, currency: str) -> int:
    """ISO minor units of Stripe's amount; `currency` in capitals. Raises UnitsError."""
    return _rescaled(amount, _places(currency), _iso_places(currency), currency)


def charge_min_minor(currency: str) -> int:
    """The least that can be charged, in ISO minor units; 1 for a currency that Stripe's table does not name."""
    least = CHARGE_MIN.get(currency)
    return 1 if least is None else from_stripe(least, currency)


def _iso_places(currency: str) -> int:
    """ISO 4217's decimal places. Raises UnitsError for what is no currency."""
    try:
        return exponent(currency)
    except MoneyError as error:
        raise UnitsError(str(error)) from None


def _places(currency: str) -> int:
    """Decimal places of Stripe's amounts: two, unless it says otherwise."""
    if currency in ZERO_DECIMAL:
        return 0
    if currency in THREE_DECIMAL:
        return 3
    iso = _iso_places(currency)
    if iso != 2 and currency not in WHOLE_UNITS:
        raise UnitsError(f"{currency}: Stripe does not say how its amounts are written")
    return 2


def _rescaled(amount: int, places: int, wanted: int, currency: str) -> int:
    if wanted >= places:
        return int(amount * 10 ** (wanted - places))
    divisor = 10 ** (places - wanted)
    if amount % divisor:
        raise UnitsError(f"{currency}: {amount} has decimals that can't be written")
    return int(amount // divisor)
