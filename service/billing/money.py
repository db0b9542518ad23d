"""Money: minor units, ISO 4217 exponents, and the one rounding."""

from __future__ import annotations

import decimal
import re
from decimal import Decimal

import iso4217

DIGITS_MAX = 12
"""Whole digits a number in a tariff may have; more is a mistake, not a price."""

PLACES_MAX = 12
"""Decimal places a number in a tariff may have (the finest rate seen in a published fare has 8)."""

EXACT = decimal.Context(
    prec=120,
    rounding=decimal.ROUND_HALF_UP,
    traps=[decimal.Inexact, decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow, decimal.FloatOperation],
)
"""Arithmetic that would rather fail than lose a digit; `with localcontext(EXACT)` wraps all of rating."""

_NUMBER = re.compile(r"-?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,3})?", re.ASCII)
_EXPONENTS = {
    code: int(str(entry["CcyMnrUnts"]))
    for code, entry in iso4217.raw_table.items()
    if str(entry.get("CcyMnrUnts")).isdigit()
}
_ROUNDING = decimal.Context(prec=120, rounding=decimal.ROUND_HALF_UP, traps=[decimal.InvalidOperation])


class MoneyError(ValueError):
    """A text that is no usable number, or a currency nobody knows; says which."""


def exponent(currency: str) -> int:
    """How many decimal places the currency has (ISO 4217: CNY 2, JPY 0, KWD 3).

    Raises MoneyError for a code that is not in the standard or has no minor unit.
    """
    places = _EXPONENTS.get(currency)
    if places is None:
        raise MoneyError(f"unknown currency {currency!r}; give an ISO 4217 code such as CNY or EUR")
    return places


def to_minor(amount: Decimal, currency: str) -> int:
    """The amount in minor units, rounded HALF_UP (ties away from zero): the one rounding there is."""
    return int(amount.scaleb(exponent(currency), _ROUNDING).to_integral_value(decimal.ROUND_HALF_UP))


def from_minor(minor: int, currency: str) -> Decimal:
    """The exact amount in major units, with the currency's places: 250 CNY is 2.50."""
    return Decimal(minor).scaleb(-exponent(currency), _ROUNDING)


def format_amount(minor: int, currency: str) -> str:
    """Minor units as plain text without a symbol: "2.50"."""
    return format(from_minor(minor, currency), "f")


def parse_decimal(value: str | int | Decimal | bytes) -> Decimal:
    """An exact decimal from the text of a number, never by way of a binary float.

    Takes JSON's own number syntax only. Raises MoneyError for NaN, infinities, anything that is not a number, and
    numbers of more than DIGITS_MAX whole digits or PLACES_MAX decimal places.
    """
    if isinstance(value, float | bool):
        raise MoneyError(f"{value!r} is not the text of a number")
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    if _NUMBER.fullmatch(text) is None:
        raise MoneyError(f"{text[:40]!r} is not a number")
    number = Decimal(text)
    if number and (number.adjusted() >= DIGITS_MAX or _places(number) > PLACES_MAX):
        raise MoneyError(f"{text[:40]} is out of range: at most {DIGITS_MAX} digits and {PLACES_MAX} decimal places")
    return _plain(number)


def _places(number: Decimal) -> int:
    return max(0, -int(number.normalize(_ROUNDING).as_tuple().exponent))


def _plain(number: Decimal) -> Decimal:
    """The same value with an exponent between -PLACES_MAX and 0, so that it is written without an E."""
    power = int(number.as_tuple().exponent)
    if power > 0:
        return number.quantize(Decimal(1), context=_ROUNDING)
    return number if power >= -PLACES_MAX else number.quantize(Decimal(1).scaleb(-PLACES_MAX), context=_ROUNDING)
