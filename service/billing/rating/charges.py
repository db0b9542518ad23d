"""A charge is its lines. Here the lines are settled: clamped at 0, rounded, taxed, added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

import msgspec

from service.billing.balances import Balance, BalanceUse
from service.billing.money import exponent, from_minor, to_minor

ONE = Decimal(1)
ZERO = Decimal(0)


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line of a receipt: `quantity` of `unit` at `unit_price`, together `amount` in exact major units.

    `path` is the JSON pointer of the rule in the tariff document, or `pass:<id>` and `coupon:<id>`; `window` says which
    day, month, cap window or hours it is about. A `refundable` line is a fee that support may give back by itself.
    `tax_rate` is the rate that applies to the line, None where nothing is taxed.
    """

    code: str
    quantity: Decimal
    unit: str
    unit_price: Decimal
    amount: Decimal
    path: str
    window: str | None = None
    refundable: bool = False
    tax_rate: Decimal | None = None


class Charge(msgspec.Struct, frozen=True, gc=False):
    """What a ride costs, explained: the lines sum exactly to `total_minor`; `tax_minor` is the tax within it.

    `balance` is what earlier rides had used, as it was assumed; `used` is what this ride adds to it.
    """

    currency: str
    lines: tuple[Line, ...]
    total_minor: int
    tax_minor: int = 0
    balance: Balance = Balance()
    used: tuple[BalanceUse, ...] = ()


class TaxGroup(msgspec.Struct, frozen=True, gc=False):
    """Lines that are taxed alike."""

    rate: Decimal
    included: bool
    path: str


class Taxes(msgspec.Struct, frozen=True):
    """Which lines are taxed how: `main`, unless the line's code is named in `other`."""

    main: TaxGroup
    other: Mapping[str, TaxGroup]

    def of(self, code: str) -> TaxGroup:
        """The group of a line."""
        return self.other.get(code, self.main)


def settle(
    lines: Sequence[Line], currency: str, taxes: Taxes | None, balance: Balance, used: tuple[BalanceUse, ...]
) -> Charge:
    """The charge of the lines: clamped at 0, the net rounded, tax on top added and rounded, each as a line."""
    settled = list(lines)
    net = sum((line.amount for line in settled), ZERO)
    rate = taxes.main.rate if taxes is not None else None
    if net < 0:
        settled.append(Line("zero_floor", ONE, "ride", -net, -net, "/plan/price", tax_rate=rate))
        net = ZERO
    net_minor = to_minor(net, currency)
    rounding = from_minor(net_minor, currency) - net
    if rounding:
        settled.append(Line("rounding", ONE, currency, rounding, rounding, "/plan/currency", tax_rate=rate))
    if taxes is None:
        return Charge(currency, tuple(settled), net_minor, 0, balance, used)
    bases = _bases(settled, taxes)
    on_top = _tax_on_top(bases, currency, settled)
    included = _tax_included(bases, currency)
    return Charge(currency, tuple(settled), net_minor + on_top, on_top + included, balance, used)


def _bases(lines: Sequence[Line], taxes: Taxes) -> dict[TaxGroup, Decimal]:
    """What each group of lines comes to, never below 0: a discount above the ride's fare eats into the fees next."""
    bases = {taxes.main: ZERO}
    for line in lines:
        group = taxes.of(line.code)
        bases[group] = bases.get(group, ZERO) + line.amount
    for debtor, owed in list(bases.items()):
        for group in bases if owed < 0 else ():
            moved = min(bases[group], -bases[debtor])
            if group != debtor and moved > 0:
                bases[group] -= moved
                bases[debtor] += moved
    return bases


def _tax_on_top(bases: dict[TaxGroup, Decimal], currency: str, settled: list[Line]) -> int:
    """Appends a line for each tax on top, and one for rounding their sum; returns that sum in minor units."""
    exact = ZERO
    for group, base in bases.items():
        amount = base * group.rate
        if not group.included and amount:
            settled.append(Line("tax", base, currency, group.rate, amount, group.path, tax_rate=group.rate))
            exact += amount
    minor = to_minor(exact, currency)
    rounding = from_minor(minor, currency) - exact
    if rounding:
        settled.append(Line("tax_rounding", ONE, currency, rounding, rounding, "/plan/currency"))
    return minor


def _tax_included(bases: dict[TaxGroup, Decimal], currency: str) -> int:
    """The tax that the amounts hold already, in minor units, rounded HALF_UP once."""
    exact = sum(
        (
            Fraction(base) * Fraction(group.rate) / (1 + Fraction(group.rate))
            for group, base in bases.items()
            if group.included
        ),
        Fraction(0),
    )
    return int(exact * 10 ** exponent(currency) + Fraction(1, 2))
