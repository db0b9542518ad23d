"""Amounts that people type: exact, or refused."""

from __future__ import annotations

from service.billing.money import MoneyError, from_minor, parse_decimal, to_minor
from service.flows.operators import OperatorError


def exact_minor(amount: str, currency: str) -> int:
    """The amount in minor units; raises OperatorError for one that can't be paid exactly."""
    try:
        number = parse_decimal(amount)
    except MoneyError as error:
        raise OperatorError(f"AMOUNT: {error}") from None
    minor = to_minor(number, currency)
    if number < 0 or from_minor(minor, currency) != number:
        raise OperatorError(f"AMOUNT {amount}: give an amount of {currency} that can be paid, such as 200.00")
    return minor
