"""What a debit is for, as the provider shows it to the rider: the ride's instants, and lines that sum to its amount."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from service.billing.charged import StoredCharge
from service.billing.debits.state import Debit, Item
from service.billing.money import to_minor

ITEMS_MAX = 100
"""More lines than this are shown as one (WeChat Pay Score, post_payments: 1 to 100 lines)."""


class Content(NamedTuple):
    """The standing charge of a ride and the tariff it was rated by."""

    charge: StoredCharge | None = None
    tariff_no: int | None = None


def items_of(charge: StoredCharge, amount_minor: int) -> tuple[Item, ...]:
    """The charge's lines in minor units, which sum to `amount_minor`; none where that is not the charge's total.

    Lines are exact: each gets what it adds to the rounded sum of those before it, so that nothing is lost or made.
    """
    if charge.charge.total_minor != amount_minor:
        return ()
    items, exact, told = [], Decimal(0), 0
    for line in charge.charge.lines:
        exact += line.amount
        minor = to_minor(exact, charge.charge.currency)
        if minor != told:
            described = f"{line.quantity.normalize():f} {line.unit} × {line.unit_price.normalize():f}"
            items.append(Item(line.code, minor - told, described))
            told = minor
    return tuple(items) if told == amount_minor and len(items) <= ITEMS_MAX else ()


def sent_items(debit: Debit) -> tuple[Item, ...]:
    """The items that the present key is sent with: one line where the amount is not the charge's any more."""
    if debit.items and sum(item.amount_minor for item in debit.items) == debit.asked_minor:
        return debit.items
    return (Item("ride", debit.asked_minor),)
