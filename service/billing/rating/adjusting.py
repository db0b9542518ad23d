"""A charge with support's adjustments: extra charges, goodwill and refunds as lines after the fare's own.

They come after the fare's total, so that each is what the rider owes more or less, tax included. Reductions lower the
tax of the charge in proportion: all of it given back is all of its tax given back.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import msgspec

from service.billing.events import Adjustment, AdjustmentKind
from service.billing.money import from_minor
from service.billing.rating.charges import ONE, Charge, Line
from service.billing.words import Label

ADDING = frozenset({"extra", "opening"})
"""The kinds by which more is owed; the others take something off."""


class Adjusted(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What came of an adjustment: signed minor units, and the tax within them.

    A reduction counts up to what there is to reduce, so it may come to less than was granted.
    """

    adjustment_id: str
    kind: AdjustmentKind
    amount_minor: int
    tax_minor: int
    label: Label | None = None


def adjust_charge(
    fare: Charge, adjustments: Sequence[Adjustment], owed_max_minor: int | None = None
) -> tuple[Charge, tuple[Adjusted, ...]]:
    """The charge of a fare and its adjustments, and what came of each. The charge is never below 0.

    Reductions are taken in their order until nothing is left. `owed_max_minor` is for a ride whose fare was taken back
    (`fare` is empty, and of the extra charges those are given that are owed regardless): it then owes no more than
    before, so that reductions ate first what is gone now, and the later ones what is left.
    """
    extras = [(one, _tax_within(one)) if one.kind in ADDING else (one, 0) for one in adjustments]
    gross_minor = fare.total_minor + sum(one.amount_minor for one, _ in extras if one.kind in ADDING)
    gross_tax = fare.tax_minor + sum(tax for _, tax in extras)
    cuts = _cuts(adjustments, gross_minor, owed_max_minor)
    rate = _one_rate(fare, adjustments)
    lines, adjusted, cut_minor = list(fare.lines), list[Adjusted](), 0
    for (one, tax_minor), cut in zip(extras, cuts, strict=True):
        if one.kind in ADDING:
            adjusted.append(Adjusted(one.adjustment_id, one.kind, one.amount_minor, tax_minor, one.label))
        else:
            before = _share(gross_tax, cut_minor, gross_minor)
            cut_minor += cut
            adjusted.append(
                Adjusted(
                    one.adjustment_id, one.kind, -cut, before - _share(gross_tax, cut_minor, gross_minor), one.label
                )
            )
        lines += _lines(one, cut, fare.currency, rate, lapsed=owed_max_minor is not None)
    total_minor, tax = gross_minor - cut_minor, gross_tax - _share(gross_tax, cut_minor, gross_minor)
    return Charge(fare.currency, tuple(lines), total_minor, tax, fare.balance, fare.used), tuple(adjusted)


def _cuts(adjustments: Sequence[Adjustment], gross_minor: int, owed_max_minor: int | None) -> list[int]:
    """How much each reduction comes to; 0 for an extra charge."""
    cuts = [0] * len(adjustments)
    places = [index for index, one in enumerate(adjustments) if one.kind not in ADDING]
    left = gross_minor
    if owed_max_minor is not None:
        left = max(gross_minor - owed_max_minor, 0)
        places.reverse()
    for index in places:
        cuts[index] = min(adjustments[index].amount_minor, left)
        left -= cuts[index]
    return cuts


def _lines(one: Adjustment, cut_minor: int, currency: str, rate: Decimal | None, *, lapsed: bool) -> list[Line]:
    """The line of an adjustment, and one for what of it does not count."""
    path = f"adjustment:{one.adjustment_id}"
    amount = from_minor(one.amount_minor, currency)
    if one.kind in ADDING:
        return [Line(one.kind, ONE, "fee", amount, amount, path, one.code, refundable=True, tax_rate=one.tax_rate)]
    lines = [Line(one.kind, ONE, "ride", -amount, -amount, path, one.code, tax_rate=rate)]
    if cut_minor < one.amount_minor:
        rest = from_minor(one.amount_minor - cut_minor, currency)
        lines.append(Line("lapsed" if lapsed else "zero_floor", ONE, "ride", rest, rest, path, one.code, tax_rate=rate))
    return lines


def _one_rate(fare: Charge, adjustments: Sequence[Adjustment]) -> Decimal | None:
    """The tax rate of what is reduced, where that has a single one."""
    rates = {line.tax_rate for line in fare.lines if line.code != "tax_rounding"}
    rates |= {one.tax_rate for one in adjustments if one.kind in ADDING}
    return rates.pop() if len(rates) == 1 else None


def _share(tax_minor: int, part_minor: int, whole_minor: int) -> int:
    """The tax within a part of a whole, rounded HALF_UP; of nothing there is none."""
    return (2 * tax_minor * part_minor + whole_minor) // (2 * whole_minor) if whole_minor else 0


def _tax_within(extra: Adjustment) -> int:
    """The tax within an extra charge, in minor units, rounded HALF_UP."""
    if extra.tax_rate is None:
        return 0
    rate = Fraction(extra.tax_rate)
    return int(extra.amount_minor * rate / (1 + rate) + Fraction(1, 2))
