"""Money is exact, and rounded in one way."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.billing.money import (
    MoneyError,
    exponent,
    format_amount,
    from_minor,
    parse_decimal,
    to_minor,
)


@pytest.mark.parametrize(("currency", "places"), [("CNY", 2), ("JPY", 0), ("KWD", 3), ("EUR", 2), ("CLF", 4)])
def test_exponents_are_those_of_iso_4217(currency: str, places: int) -> None:
    assert exponent(currency) == places


@pytest.mark.parametrize("currency", ["", "EUX", "eur", "XAU", "€"])
def test_a_currency_nobody_knows_is_named(currency: str) -> None:
    with pytest.raises(MoneyError, match="unknown currency"):
        exponent(currency)


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("8.625", "EUR", 863),
        ("8.6249999999", "EUR", 862),
        ("0.005", "CNY", 1),
        ("-0.005", "CNY", -1),
        ("0.5", "JPY", 1),
        ("1.4995", "KWD", 1500),
        ("21.12662046", "USD", 2113),
    ],
)
def test_rounding_is_half_up(amount: str, currency: str, minor: int) -> None:
    assert to_minor(Decimal(amount), currency) == minor


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.475", "1.475"),
        ("1.50", "1.50"),
        ("15", "15"),
        ("1e3", "1000"),
        ("-0.25", "-0.25"),
        ("1E-3", "0.001"),
        ("007", "7"),
    ],
)
def test_numbers_keep_every_digit(text: str, value: str) -> None:
    assert str(parse_decimal(text)) == value


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "Infinity",
        "-inf",
        "",
        " 1",
        "1_000",
        "1,5",
        "٣",
        "0x10",
        "1e400",
        "1e-400",
        "1234567890123",
        "0.0000000000001",
        "--1",
    ],
)
def test_what_is_no_number_or_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(MoneyError):
        parse_decimal(text)


def test_a_binary_float_is_refused() -> None:
    with pytest.raises(MoneyError, match="not the text of a number"):
        parse_decimal(1.475)  # type: ignore[arg-type]  # The refusal is the claim.


@given(st.integers(1 - 10**12, 10**12 - 1), st.sampled_from(["CNY", "JPY", "KWD"]))
def test_minor_units_and_back_are_the_same(minor: int, currency: str) -> None:
    assert to_minor(from_minor(minor, currency), currency) == minor
    assert to_minor(parse_decimal(format_amount(minor, currency)), currency) == minor


@given(st.decimals(-1000, 1000, places=6))
def test_rounding_is_never_off_by_more_than_half_a_unit(amount: Decimal) -> None:
    assert abs(Fraction(to_minor(amount, "CNY"), 100) - Fraction(amount)) <= Fraction(1, 200)
