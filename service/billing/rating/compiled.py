"""A tariff compiled for rating: its meters, clocks and taxes, once per version."""

from __future__ import annotations

from collections.abc import Hashable
from decimal import Decimal
from functools import lru_cache

import msgspec

from service.billing.rating.charges import Line, Taxes, TaxGroup
from service.billing.rating.meters import Meter, hours_label, meters_of
from service.billing.rating.timeline import Span, span_of
from service.billing.tariffs import Tariff
from service.billing.tariffs.gbfs import MINUTE_US
from service.billing.tariffs.rules import FreeMinutes

TARIFFS_MAX = 1024
"""How many compiled tariffs are kept."""


class Fare(msgspec.Struct, frozen=True, eq=False, weakref=True, kw_only=True):
    """A tariff compiled for rating.

    `plain` says that a ride's charge depends on nothing but its meters' counts; `memo` then keeps the charge for each
    set of counts (a charge is a value, so that sharing it changes nothing but the time it takes). `discount_spans` are
    the hours of each discount, in the order of the document.
    """

    tariff: Tariff
    meters: tuple[Meter, ...]
    taxes: Taxes | None
    price_spans: tuple[Span, ...]
    price_window: str | None
    free_abort_us: int
    free_us: int
    free_minutes: Decimal
    price_kept: bool
    grace_us: int
    completed: bool
    cap_us: int | None
    cut_minutes: tuple[int, ...]
    discount_spans: tuple[tuple[Span, ...], ...]
    by_day: bool
    plain: bool
    memo: dict[Hashable, object]

    def line(
        self,
        code: str,
        quantity: Decimal,
        unit: str,
        unit_price: Decimal,
        path: str,
        window: str | None = None,
        *,
        refundable: bool = False,
    ) -> Line:
        """A line with its amount and its tax rate."""
        rate = None if self.taxes is None else self.taxes.of(code).rate
        return Line(code, quantity, unit, unit_price, quantity * unit_price, path, window, refundable, rate)


@lru_cache(maxsize=TARIFFS_MAX)
def compiled(tariff: Tariff) -> Fare:
    """The tariff, compiled once."""
    return compile_tariff(tariff)


def compile_tariff(tariff: Tariff) -> Fare:
    """The tariff, compiled anew."""
    plan, rules = tariff.plan, tariff.rules
    meters = meters_of(plan, rules)
    capping = plan.fare_capping
    price_windows = tuple(window for window in rules.windows if window.segment == "/plan/price")
    price_spans = tuple(span_of(window) for window in price_windows)
    spans = {span for meter in meters for span in meter.spans} | set(price_spans)
    by_day = rules.day_cap is not None or rules.month_cap is not None
    minutes = {minute for span in spans for minute in (span.start, span.end % 1440, 0)} | ({0} if by_day else set())
    placed = capping is not None and any(meter.clock == "distance" for meter in meters)
    special = minutes or placed or rules.per_night or rules.discounts or rules.pause_rate is not None
    free = rules.free_minutes
    free_minutes = free.minutes if isinstance(free, FreeMinutes) else free or Decimal(0)
    return Fare(
        tariff=tariff,
        meters=meters,
        taxes=_taxes(tariff),
        price_spans=price_spans,
        price_window=hours_label(price_windows),
        free_abort_us=-1 if rules.free_abort_seconds is None else int(rules.free_abort_seconds * 1_000_000),
        free_us=int(free_minutes * MINUTE_US),
        free_minutes=free_minutes,
        price_kept=isinstance(free, FreeMinutes) and free.price == "kept",
        grace_us=int((rules.grace_seconds or 0) * 1_000_000),
        completed=rules.count == "completed",
        cap_us=None if capping is None else int(capping.duration * MINUTE_US),
        cut_minutes=tuple(sorted(minutes)),
        discount_spans=tuple(tuple(map(span_of, discount.hours)) for discount in rules.discounts),
        by_day=by_day,
        plain=not special,
        memo={},
    )


def depends_on_start(tariff: Tariff) -> bool:
    """Whether equal rides cost differently at different times: hours, nights, or caps over civil days."""
    rules = tariff.rules
    hours = any(discount.hours for discount in rules.discounts)
    return bool(compiled(tariff).cut_minutes) or rules.per_night is not None or hours


def _taxes(tariff: Tariff) -> Taxes | None:
    tax = tariff.rules.tax
    if tax is None:
        return None
    usual = not tariff.plan.is_taxable if tax.included is None else tax.included
    other: dict[str, TaxGroup] = {
        code: TaxGroup(terms.rate, usual if terms.included is None else terms.included, f"/rules/tax/lines/{code}")
        for code, terms in tax.lines.items()
    }
    return Taxes(TaxGroup(tax.rate, usual, "/rules/tax"), other)
