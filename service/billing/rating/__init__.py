"""rate(usage, tariff, balance) -> Charge: the one function behind quote, running fare, charge and back-test.

Order: free minutes and passes, price + segments, minimum, window cap, day and month cap, ride maximum, reservation and
penalties, discounts, coupons, clamp at 0, net rounded, tax rounded, total (design: tariffs.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from decimal import Decimal, localcontext
from typing import cast

from service.billing.balances import (
    EMPTY,
    NO_BENEFITS,
    Balance,
    BalanceUse,
    Benefits,
    Coupon,
    Pass,
    coupon_window,
    pass_window,
    serves,
)
from service.billing.money import EXACT
from service.billing.rating.charges import ONE, ZERO, Charge, Line, settle
from service.billing.rating.compiled import Fare, compile_tariff, compiled
from service.billing.rating.fares import RideFare, ride_fare
from service.billing.rating.meters import due
from service.billing.sessions import Usage
from service.billing.tariffs import Tariff, longest_reservation
from service.billing.tariffs.gbfs import MINUTE_US, pointer

__all__ = ["Charge", "Line", "rate", "rate_once"]

MEMO_MAX = 1024
"""How many charges a tariff keeps ready; it starts anew when it is full."""
MEMO_LINES_MAX = 100
"""A charge of as many lines is not kept: such rides are rare, and a thousand of them are much."""


def rate(usage: Usage, tariff: Tariff, balance: Balance = EMPTY, benefits: Benefits = NO_BENEFITS) -> Charge:
    """What a ride costs, line by line: pure, exact, and equal for equal inputs.

    `balance` holds what earlier rides of the rider used of the windows of `windows_of`; `benefits` the rider's passes
    and coupons, of which the ones that make the ride cheapest are taken. The charge is never below 0.
    """
    fare = compiled(tariff)
    if not _is_plain(usage, fare, balance, benefits):
        return _rate(usage, fare, balance, benefits)
    key = _counts(usage, fare)
    charge = fare.memo.get(key)
    if charge is None:
        charge = _rate(usage, fare, balance, benefits)
        if len(charge.lines) < MEMO_LINES_MAX:
            if len(fare.memo) >= MEMO_MAX:
                fare.memo.clear()
            fare.memo[key] = charge
    return cast(Charge, charge)


def rate_once(usage: Usage, tariff: Tariff, balance: Balance = EMPTY) -> Charge:
    """The same charge, by a tariff that nobody asks about again: nothing is kept of it, so that plans that somebody
    tries out do not crowd out those in use."""
    return _rate(usage, compile_tariff(tariff), balance, NO_BENEFITS)


def _is_plain(usage: Usage, fare: Fare, balance: Balance, benefits: Benefits) -> bool:
    """Whether nothing but the meters' counts decides the charge, so that an equal one may be there already."""
    return (
        fare.plain
        and usage.rode
        and usage.reserved_us is None
        and not usage.zone_fees
        and not balance.uses
        and (benefits is NO_BENEFITS or benefits == NO_BENEFITS)
        and (usage.parking_category is None or usage.parking_category not in fare.tariff.rules.parking_fees)
    )


def _counts(usage: Usage, fare: Fare) -> Hashable:
    """How many charges of each meter fall due, whether the free minutes cover the ride, and whether it took any time at
    all; None for a free abort."""
    duration = usage.duration_us
    if duration <= fare.free_abort_us:
        return None
    riding = max(0, duration - fare.free_us)
    length = usage.meters * 1000
    completed, grace = fare.completed, fare.grace_us
    counts = [
        due(meter, length if meter.clock == "distance" else riding, completed=completed, grace=grace)
        for meter in fare.meters
    ]
    return (duration == 0, riding == 0, *counts)


def _rate(usage: Usage, fare: Fare, balance: Balance, benefits: Benefits) -> Charge:
    with localcontext(EXACT):
        fees = _reservation(usage, fare) + _penalties(usage, fare)
        if not usage.rode:
            return _settled(usage, fare, balance, benefits, RideFare(()), fees, None)
        charges = [
            _settled(usage, fare, balance, benefits, ride_fare(usage, fare, balance, held), fees, held)
            for held in (None, *_usable_passes(usage, fare, balance, benefits))
        ]
        return min(charges, key=lambda charge: charge.total_minor)


def _settled(
    usage: Usage,
    fare: Fare,
    balance: Balance,
    benefits: Benefits,
    ride: RideFare,
    fees: Sequence[Line],
    held: Pass | None,
) -> Charge:
    """The charge with one pass or without, and with the coupon that takes most off it."""
    tariff = fare.tariff
    used = ride.used if held is None else ride.used + _counted(pass_window(held, usage, tariff))
    lines = _discounted(usage, fare, [*ride.lines, *fees])
    if benefits is NO_BENEFITS:
        return settle(lines, tariff.currency, fare.taxes, balance, used)
    owed = sum((line.amount for line in lines), ZERO)
    usable = [
        coupon
        for coupon in sorted(benefits.coupons, key=lambda coupon: (coupon.valid_until, coupon.coupon_id))
        if benefits.coupon_id in (None, coupon.coupon_id)
        and serves(coupon, usage, tariff)
        and not balance.of(coupon_window(coupon))
        and owed >= (coupon.fare_min or ZERO)
    ]
    best = max(usable, key=lambda coupon: _taken(coupon, owed), default=None)
    if best is not None and (taken := _taken(best, owed)) > 0:
        lines.append(fare.line("coupon", ONE, "ride", -taken, f"coupon:{best.coupon_id}"))
        used += _counted(coupon_window(best))
    elif benefits.coupon_id is not None:
        lines.append(fare.line("coupon_not_used", ONE, "ride", ZERO, f"coupon:{benefits.coupon_id}"))
    return settle(lines, tariff.currency, fare.taxes, balance, used)


def _usable_passes(usage: Usage, fare: Fare, balance: Balance, benefits: Benefits) -> list[Pass]:
    """The rider's passes that serve this ride and have rides left: the uncounted and the soonest to end first."""
    usable = []
    for held in benefits.passes:
        window = pass_window(held, usage, fare.tariff)
        left = held.rides is None or window is None or balance.of(window) < held.rides
        if left and serves(held, usage, fare.tariff):
            usable.append(held)
    return sorted(usable, key=lambda held: (held.rides is not None, held.valid_until, held.pass_id))


def _counted(window: str | None) -> tuple[BalanceUse, ...]:
    return () if window is None else (BalanceUse(window, ONE),)


def _taken(coupon: Coupon, owed: Decimal) -> Decimal:
    """What a coupon takes off: never more than what is owed."""
    share = max(ZERO, owed) * (coupon.share or ZERO)
    taken = (coupon.amount or ZERO) + (share if coupon.amount_max is None else min(share, coupon.amount_max))
    return min(taken, max(ZERO, owed))


def _reservation(usage: Usage, fare: Fare) -> list[Line]:
    """The reservation's started minutes, up to when it runs out, or its flat rate."""
    plan = fare.tariff.plan
    if usage.reserved_us is None:
        return []
    if plan.reservation_price_flat_rate is not None:
        price = plan.reservation_price_flat_rate
        return [fare.line("reservation", ONE, "reservation", price, "/plan/reservation_price_flat_rate")]
    longest = round(longest_reservation(fare.tariff).total_seconds() * 1_000_000)
    minutes = -(-min(usage.reserved_us, longest) // MINUTE_US)
    if plan.reservation_price_per_min is None or minutes <= 0:
        return []
    price = plan.reservation_price_per_min
    return [fare.line("reservation", Decimal(minutes), "min", price, "/plan/reservation_price_per_min")]


def _penalties(usage: Usage, fare: Fare) -> list[Line]:
    """Fees by code, each a line that can be refunded by itself; a code the tariff does not know costs nothing."""
    rules = fare.tariff.rules
    if not usage.zone_fees and usage.parking_category is None:
        return []
    lines = []
    for code, count in Counter(usage.zone_fees).items():
        price, known = rules.zone_fees.get(code, ZERO), code in rules.zone_fees
        name, path = "zone_fee" if known else "unknown_zone_fee", pointer("/rules/zone_fees", code)
        lines.append(fare.line(name, Decimal(count), "fee", price, path, refundable=known))
    if usage.parking_category is not None and usage.parking_category in rules.parking_fees:
        price, path = rules.parking_fees[usage.parking_category], pointer("/rules/parking_fees", usage.parking_category)
        lines.append(fare.line("parking_fee", ONE, "fee", price, path, refundable=True))
    return lines


def _discounted(usage: Usage, fare: Fare, lines: list[Line]) -> list[Line]:
    """The lines and a negative one for each discount whose conditions hold, each on what is left by the one before."""
    for index, discount in enumerate(fare.tariff.rules.discounts):
        started = usage.started_at.astimezone(fare.tariff.zone)
        holds = (
            (not discount.vehicle_types or usage.vehicle_type in discount.vehicle_types)
            and (not discount.parking_categories or usage.parking_category in discount.parking_categories)
            and (not discount.hours or any(span.holds(started) for span in fare.discount_spans[index]))
        )
        if holds:
            owed = sum((line.amount for line in lines), ZERO)
            taken = discount.amount if discount.amount is not None else max(ZERO, owed) * (discount.share or ZERO)
            lines.append(fare.line("discount", ONE, "ride", -taken, f"/rules/discounts/{index}", discount.code))
    return lines
