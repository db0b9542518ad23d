"""What a debit is for, as the provider shows it to the rider in his language: a title, lines that sum to its amount.

It is said once, when the debit is opened, and kept: the same key is always sent with the same words.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from zoneinfo import ZoneInfo

from service.billing.charged import StoredCharge
from service.billing.debits.state import Debit, Item
from service.billing.money import to_minor
from service.billing.rating import Line
from service.billing.words import (
    LINES,
    Language,
    is_adjustment,
    line_text,
    price_text,
    quantity_text,
    title_of,
    unit_text,
)

ITEMS_MAX = 100
"""More lines than this are shown as one (WeChat Pay Score, post_payments: 1 to 100 lines)."""


class Content(NamedTuple):
    """The standing charge of a ride and the tariff it was rated by; how its rides are called, and to whom."""

    charge: StoredCharge | None = None
    tariff_no: int | None = None
    title: str = ""
    language: Language = "zh"
    because: str | None = None
    """Why the ride's last decision was made, as whoever made it has said."""


def subject_of(content: Content, ordinal: int, now: datetime, zone: ZoneInfo) -> str:
    """The title of a ride's debit: when the ride was, by the rider's clock. What was brought over is called so."""
    charge = content.charge
    at = now if charge is None else charge.usage.started_at
    title = LINES["opening"][content.language] if _brought_over(charge) else content.title
    return title_of(title, at, zone, content.language, further=ordinal > 1)


def items_of(charge: StoredCharge, amount_minor: int, language: Language) -> tuple[Item, ...]:
    """The charge's lines in minor units, which sum to `amount_minor`; none where that is not the charge's total.

    Lines are exact: each gets what it adds to the rounded sum of those before it, so that nothing is lost or made.
    """
    if charge.charge.total_minor != amount_minor:
        return ()
    items, exact, told = [], Decimal(0), 0
    labels = {one.adjustment_id: one.label for one in charge.adjusted}
    for line in charge.charge.lines:
        exact += line.amount
        minor = to_minor(exact, charge.charge.currency)
        if minor != told:
            name = line_text(line.code, line.path, line.window, language, labels)
            items.append(Item(name, minor - told, _described(line, charge.charge.currency, language)))
            told = minor
    return tuple(items) if told == amount_minor and len(items) <= ITEMS_MAX else ()


def sent_items(debit: Debit) -> tuple[Item, ...]:
    """The items that the present key is sent with; none where the amount is not the charge's any more: the provider is
    then told the title alone."""
    return debit.items if sum(item.amount_minor for item in debit.items) == debit.asked_minor else ()


def _described(line: Line, currency: str, language: Language) -> str:
    """How a line's amount comes about; "" where its name says all, as of a rounding or a fine."""
    if line.unit == currency or is_adjustment(line.path):
        return ""
    quantity = quantity_text(f"{line.quantity.normalize():f}", unit_text(line.unit, language))
    return f"{quantity} × {price_text(f'{line.unit_price.normalize():f}', currency, language)}"


def _brought_over(charge: StoredCharge | None) -> bool:
    return charge is not None and any(line.code == "opening" for line in charge.charge.lines)
