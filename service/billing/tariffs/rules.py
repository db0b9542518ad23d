"""Our rules: what a tariff says beyond its GBFS plan. The field names are the JSON names; unknown ones are refused.

Amounts are major units of the plan's currency, before any tax that goes on top; they come as numbers or strings and
are exact. The order in which rules apply is told in `rating`.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from service.billing.extent import FEES_MAX, KINDS_MAX, LENGTH_HOURS_MAX, SEGMENTS_MAX
from service.billing.tariffs.gbfs import (
    MINUTE_US,
    Plan,
    Segment,
    Segments,
    TariffError,
    check_segment,
    pointer,
    read_struct,
)

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

TAXED_LINES = ("reservation", "zone_fee", "parking_fee")
"""The lines that may have a tax of their own; all others are the ride's and carry the main rate."""

_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00", re.ASCII)


class Price(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """An amount written as an object: `{"price": "30.00"}`."""

    price: Decimal


class FreeMinutes(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The first `minutes` are free; `price` says whether the plan's base price is `waived` for a ride within them."""

    minutes: Decimal
    price: Literal["waived", "kept"] = "waived"


class Hours(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Local hours `from` (inclusive) `to` (exclusive), as HH:MM in the tariff's zone, on `days` (all when left out).

    `from` after `to` wraps midnight, and the day is the one the hours begin on: fri 22:00-06:00 holds until Saturday
    morning. `from` equal to `to` is the whole day.
    """

    from_: str = msgspec.field(name="from", default="00:00")
    to: str = "24:00"
    days: Annotated[tuple[Day, ...], Meta(max_length=7)] = DAYS


class SegmentWindow(Hours, frozen=True, gc=False, forbid_unknown_fields=True, kw_only=True):
    """Hours outside of which a segment charges nothing; decided for each charge at the instant it falls due.

    `segment` is the JSON pointer of a segment in the tariff document, such as `/plan/per_min_pricing/0`, or
    `/plan/price` for the base price. Several windows of one segment add up; a segment without any holds at all times.
    """

    segment: str


class TaxTerms(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A tax rate (0.13 is 13 %), `included` in the amounts or on top (by default: on top where `is_taxable`)."""

    rate: Decimal
    included: bool | None = None


class Tax(TaxTerms, frozen=True, gc=False, forbid_unknown_fields=True):
    """The tariff's tax; `lines` gives other terms to `reservation`, `zone_fee` or `parking_fee`."""

    lines: dict[Literal["reservation", "zone_fee", "parking_fee"], TaxTerms] = {}


class Discount(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Takes an `amount`, or a `share` of what is owed so far (0.1 is 10 %), off every ride that meets its conditions.

    Conditions, each of which holds when left out: the vehicle's type, the parking category, and the hours in which
    the ride starts. Discounts apply one after the other in the order written.
    """

    code: str
    amount: Decimal | None = None
    share: Decimal | None = None
    vehicle_types: Annotated[tuple[str, ...], Meta(max_length=KINDS_MAX)] = ()
    parking_categories: Annotated[tuple[str, ...], Meta(max_length=KINDS_MAX)] = ()
    hours: Annotated[tuple[Hours, ...], Meta(max_length=SEGMENTS_MAX)] = ()


class LostEndRule(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What becomes of a ride whose end never comes: `after_hours` from its start it is closed and charged as one of
    that length under its caps (`ride_max`), as one to its last event (`last_sign`), or looked at (`review`)."""

    after_hours: Decimal
    charge: Literal["ride_max", "last_sign", "review"]


class PerNight(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """`rate` for each civil night in the tariff's zone (at least one), and for leaving after `check_out`.

    Nights are the local midnights passed, at least one; leaving after `check_out` on the last day costs half a rate
    (`half_day`) or a whole one (`night`). A stay that begins and ends on one day is one night and never late.
    """

    rate: Decimal
    check_out: str = "12:00"
    late: Literal["half_day", "night"] = "night"


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything under `rules` in a tariff document; a length of time is at most 366 days."""

    free_abort_seconds: Annotated[
        Decimal | None, Meta(description="A ride no longer than this, or cancelled within it, is free.")
    ] = None
    grace_seconds: Annotated[
        Decimal | None,
        Meta(description="So far a ride may run into a further interval before that is charged; not into its first."),
    ] = None
    count: Annotated[
        Literal["started", "completed"],
        Meta(description="Which intervals of a segment are charged: those that began (as GBFS), or that are over."),
    ] = "started"
    fare_min: Annotated[
        Decimal | Price | None, Meta(description="What a ride costs at least, before caps, fees and discounts.")
    ] = None
    ride_max: Annotated[
        Decimal | Price | None, Meta(description="What a ride costs at most, before reservation, fees and discounts.")
    ] = None
    day_cap: Annotated[
        Decimal | Price | None,
        Meta(
            description="The most that all rides of a rider cost in a civil day of the tariff's zone, before"
            " reservations and fees."
        ),
    ] = None
    month_cap: Annotated[Decimal | Price | None, Meta(description="The same of a civil month.")] = None
    free_minutes: Annotated[
        Decimal | FreeMinutes | None,
        Meta(description="So many minutes of each ride cost nothing; a ride within them, no base price either."),
    ] = None
    windows: Annotated[
        tuple[SegmentWindow, ...],
        Meta(max_length=SEGMENTS_MAX, description="Local hours in which segments, or the base price, are charged."),
    ] = ()
    pause_rate: Annotated[
        Decimal | Segments | None,
        Meta(description="What paused time costs, on a clock of its own; without it, what riding costs."),
    ] = None
    zone_fees: Annotated[
        dict[str, Decimal], Meta(max_length=FEES_MAX, description="Fees by the codes in an end's `zone_fees`.")
    ] = {}
    parking_fees: Annotated[
        dict[str, Decimal], Meta(max_length=FEES_MAX, description="Fees by an end's `parking_category`.")
    ] = {}
    tax: Annotated[Tax | None, Meta(description="The tax on all lines; none where it is left out.")] = None
    discounts: Annotated[
        tuple[Discount, ...], Meta(max_length=SEGMENTS_MAX, description="Taken off in this order, before tax.")
    ] = ()
    lost_end: Annotated[
        LostEndRule | None, Meta(description="What becomes of a ride without an end; review after 24 hours without it.")
    ] = None
    per_night: Annotated[PerNight | None, Meta(description="A rate by the night, for cars and rooms.")] = None
    default_reserve_time: Annotated[
        Decimal | None,
        Meta(description="So many minutes a vehicle stays reserved, and is charged for; 1440 without it."),
    ] = None


def read_rules(raw: bytes, plan: Plan, at: str = "/rules") -> Rules:
    """The rules in `raw`, checked against the plan they stand beside; raises TariffError with the path."""
    try:
        rules = read_struct(raw, Rules, at)
    except TariffError as error:
        if error.path == at and "unknown field" in error.problem:
            known = ", ".join(Rules.__struct_fields__)
            raise TariffError(at, error.problem.replace("field", "rule"), f"known rules are {known}") from error
        raise
    _check_amounts(rules, at)
    _check_windows(rules, plan, at)
    _check_tax(rules, plan, at)
    _check_discounts(rules, at)
    _check_pause(rules, at)
    _check_lost_end(rules, plan, at)
    _check_night(rules, at)
    return rules


def amount_of(value: Decimal | Price | None) -> Decimal | None:
    """The amount, written either way."""
    return value.price if isinstance(value, Price) else value


def minutes_of_day(text: str) -> int:
    """Minutes since midnight of an HH:MM that was checked; 24:00 is 1440."""
    return int(text[:2]) * 60 + int(text[3:])


def pause_segments(rules: Rules) -> tuple[Segment, ...]:
    """The segments of the pause clock; a bare rate is per started minute."""
    if isinstance(rules.pause_rate, Decimal):
        return (Segment(start=Decimal(0), rate=rules.pause_rate, interval=Decimal(1)),)
    return rules.pause_rate or ()


def _check_amounts(rules: Rules, at: str) -> None:
    free = rules.free_minutes.minutes if isinstance(rules.free_minutes, FreeMinutes) else rules.free_minutes
    lengths = (
        ("free_abort_seconds", rules.free_abort_seconds, 1_000_000),
        ("grace_seconds", rules.grace_seconds, 1_000_000),
        ("free_minutes", free, MINUTE_US),
        ("default_reserve_time", rules.default_reserve_time, MINUTE_US),
    )
    for name, value, unit_us in lengths:
        if value is not None:
            _check_length(value, unit_us, pointer(at, name))
    amounts = [
        (pointer(at, name), amount_of(getattr(rules, name)))
        for name in ("fare_min", "ride_max", "day_cap", "month_cap")
    ]
    amounts += [(pointer(at, "zone_fees", code), fee) for code, fee in rules.zone_fees.items()]
    amounts += [(pointer(at, "parking_fees", code), fee) for code, fee in rules.parking_fees.items()]
    for path, amount in amounts:
        if amount is not None and amount < 0:
            raise TariffError(path, f"{amount} is negative", "give 0 or more")
    if rules.count == "completed" and rules.grace_seconds:
        problem = "a grace has no meaning where only completed intervals are charged"
        raise TariffError(f"{at}/grace_seconds", problem, "drop grace_seconds or count")
    least, most = amount_of(rules.fare_min), amount_of(rules.ride_max)
    if least is not None and most is not None and least > most:
        raise TariffError(
            f"{at}/fare_min", f"fare_min {least} is above ride_max {most}", "lower one or raise the other"
        )


def _check_length(value: Decimal, unit_us: int, path: str) -> None:
    if value < 0:
        raise TariffError(path, f"{value} is negative", "give 0 or more")
    if value * MINUTE_US % 60 != 0:
        raise TariffError(path, f"{value} is too fine", "give at most 6 decimal places")
    if value * unit_us > LENGTH_HOURS_MAX * 60 * MINUTE_US:
        raise TariffError(path, f"{value} is too long", f"give at most {LENGTH_HOURS_MAX * 60 * MINUTE_US // unit_us}")


def _check_windows(rules: Rules, plan: Plan, at: str) -> None:
    segments = {"/plan/price"}
    segments |= {f"/plan/per_km_pricing/{index}" for index in range(len(plan.per_km_pricing or ()))}
    segments |= {f"/plan/per_min_pricing/{index}" for index in range(len(plan.per_min_pricing or ()))}
    for index, window in enumerate(rules.windows):
        if window.segment not in segments:
            problem = f"{window.segment!r} is no segment of the plan"
            raise TariffError(f"{at}/windows/{index}/segment", problem, f"give one of {', '.join(sorted(segments))}")
        _check_hours(window, f"{at}/windows/{index}")


def _check_hours(hours: Hours, at: str) -> None:
    for name, text in (("from", hours.from_), ("to", hours.to)):
        if _CLOCK.fullmatch(text) is None or (name, text) == ("from", "24:00"):
            raise TariffError(f"{at}/{name}", f"{text!r} is no time of day", "give HH:MM, such as 06:30")
    if not hours.days:
        raise TariffError(f"{at}/days", "no day is named", "name days from mon to sun, or leave days out")


def _check_tax(rules: Rules, plan: Plan, at: str) -> None:
    if rules.tax is None:
        if plan.is_taxable:
            remedy = 'give rules.tax, such as {"rate": "0.13"}'
            raise TariffError("/plan/is_taxable", "the plan is taxable and no tax rate is given", remedy)
        return
    for path, terms in ((f"{at}/tax", rules.tax), *((f"{at}/tax/lines/{k}", v) for k, v in rules.tax.lines.items())):
        if not 0 <= terms.rate < 1:
            raise TariffError(f"{path}/rate", f"{terms.rate} is no tax rate", "give a share of 1: 0.13 for 13 %")
    if plan.is_taxable and rules.tax.included:
        problem = "the plan adds tax to its price (is_taxable true), the rule includes it"
        raise TariffError(f"{at}/tax/included", problem, "make the two agree")


def _check_discounts(rules: Rules, at: str) -> None:
    for index, discount in enumerate(rules.discounts):
        path = f"{at}/discounts/{index}"
        if (discount.amount is None) == (discount.share is None):
            raise TariffError(path, "a discount is an amount or a share", "give exactly one of amount and share")
        if discount.amount is not None and discount.amount < 0:
            raise TariffError(f"{path}/amount", f"{discount.amount} is negative", "give what is taken off, 0 or more")
        if discount.share is not None and not 0 <= discount.share <= 1:
            raise TariffError(f"{path}/share", f"{discount.share} is no share", "give a share of 1: 0.1 for 10 %")
        for number, hours in enumerate(discount.hours):
            _check_hours(hours, f"{path}/hours/{number}")


def _check_pause(rules: Rules, at: str) -> None:
    if isinstance(rules.pause_rate, tuple):
        for index, segment in enumerate(rules.pause_rate):
            check_segment(segment, MINUTE_US, f"{at}/pause_rate/{index}")


def _check_lost_end(rules: Rules, plan: Plan, at: str) -> None:
    lost = rules.lost_end
    if lost is None:
        return
    path = f"{at}/lost_end/after_hours"
    if lost.after_hours == 0:
        raise TariffError(path, "0 is no length of time", "give hours above 0")
    _check_length(lost.after_hours, 60 * MINUTE_US, path)
    if lost.charge == "ride_max" and rules.ride_max is None and rules.day_cap is None and plan.fare_capping is None:
        problem = "ride_max closes a lost ride as capped, and the tariff has no cap"
        raise TariffError(f"{at}/lost_end/charge", problem, "add ride_max, day_cap or fare_capping, or charge review")


def _check_night(rules: Rules, at: str) -> None:
    night = rules.per_night
    if night is None:
        return
    if night.rate < 0:
        raise TariffError(f"{at}/per_night/rate", f"rate {night.rate} is negative", "give 0 or more")
    if _CLOCK.fullmatch(night.check_out) is None:
        raise TariffError(f"{at}/per_night/check_out", f"{night.check_out!r} is no time of day", "give HH:MM")
