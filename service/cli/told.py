"""What people are told of charges: exact amounts with their currency, made from what the doors show as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import groupby

from msgspec.structs import replace

from service.billing.money import format_amount
from service.web.shapes import ChargeView, LineView


def charge_lines(charge: ChargeView) -> Iterator[str]:
    """A charge line by line, and its total. Lines that follow each other and differ only in their window are one, with
    how many they are: their sum is exact."""
    for _, alike in groupby(charge.lines, lambda line: replace(line, window=None)):
        yield _charge_line(list(alike))
    tax = f" (tax {format_amount(charge.tax_minor, charge.currency)})" if charge.tax_minor else ""
    yield f"  total {format_amount(charge.amount_minor, charge.currency)} {charge.currency}{tax}"


def _charge_line(alike: Sequence[LineView]) -> str:
    """One line, or several that are alike but for their window."""
    line, last = alike[0], alike[-1]
    quantity, amount = _sum(one.quantity for one in alike), _sum(one.amount for one in alike)
    about = f" [{line.window}]" if line.window else ""
    if len(alike) > 1:
        through = f"{line.window} to {last.window}, " if line.window and last.window else ""
        about = f" [{through}{len(alike)} lines]"
    price = f"{quantity} {line.unit} x {line.unit_price}"
    return f"  {line.code:<16} {price:<28} {amount:>12}  {line.path}{about}"


def _sum(numbers: Iterable[str]) -> str:
    """The exact sum of decimals, as text without an exponent."""
    return format(sum(map(Decimal, numbers), Decimal(0)), "f")
