"""What earlier rides of a rider used of caps, passes and coupons; and the passes and coupons themselves.

A balance is an input of `rate` and is stored with the charge, so that the charge can be derived again.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Literal

import msgspec

from service.billing.sessions import Usage
from service.billing.tariffs import Tariff, has_balance_rules
from service.billing.tariffs.rules import amount_of


class BalanceUse(msgspec.Struct, frozen=True, gc=False):
    """What is used of one window: an amount in major units for a cap, a number of rides for a pass or coupon.

    Windows are `day:<tariff_id>:2026-11-22`, `month:<tariff_id>:2026-11`, `pass:<pass_id>[:2026-11[-22]]` and
    `coupon:<coupon_id>`; days and months are civil, in the tariff's zone.
    """

    window: str
    used: Decimal


class Balance(msgspec.Struct, frozen=True, gc=False):
    """What earlier rides used of the windows this ride needs; a window that is not named is unused."""

    uses: tuple[BalanceUse, ...] = ()

    def of(self, window: str) -> Decimal:
        """What is used of a window."""
        return next((use.used for use in self.uses if use.window == window), Decimal(0))


EMPTY = Balance()


class Pass(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A rider's pass (月卡): what it gives to each ride that starts in [valid_from, valid_until) on its tariffs.

    `free_minutes` of every ride, or a `share` off price and segments (0.2 is 20 %), or both; with neither, price and
    segments are free. `rides` limits how many rides it serves per `rides_per`. No tariff ids means every tariff.
    """

    pass_id: str
    valid_from: datetime
    valid_until: datetime
    tariff_ids: tuple[str, ...] = ()
    free_minutes: Decimal | None = None
    share: Decimal | None = None
    rides: int | None = None
    rides_per: Literal["pass", "day", "month"] = "pass"


class Coupon(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A rider's coupon: an `amount`, or a `share` of at most `amount_max`, off one ride; used once.

    `fare_min` is the least total it is good for. Validity and tariffs are as for a pass.
    """

    coupon_id: str
    valid_from: datetime
    valid_until: datetime
    tariff_ids: tuple[str, ...] = ()
    amount: Decimal | None = None
    share: Decimal | None = None
    amount_max: Decimal | None = None
    fare_min: Decimal | None = None


class Benefits(msgspec.Struct, frozen=True):
    """What a rider holds. `coupon_id` is the coupon the event names; without one, the best one is taken."""

    passes: tuple[Pass, ...] = ()
    coupons: tuple[Coupon, ...] = ()
    coupon_id: str | None = None


NO_BENEFITS = Benefits()


def windows_of(usage: Usage, tariff: Tariff, benefits: Benefits = NO_BENEFITS) -> tuple[str, ...]:
    """The balance windows a ride needs, sorted; () at once for tariffs without rules across rides and no benefits."""
    if not has_balance_rules(tariff) and benefits is NO_BENEFITS:
        return ()
    windows: set[str] = set()
    if usage.rode and has_balance_rules(tariff):
        for day in _civil_days(usage, tariff):
            if tariff.rules.day_cap is not None:
                windows.add(day_window(tariff, day))
            if tariff.rules.month_cap is not None:
                windows.add(month_window(tariff, day))
    passes = (held for held in benefits.passes if serves(held, usage, tariff))
    windows.update(window for held in passes if (window := pass_window(held, usage, tariff)) is not None)
    windows.update(coupon_window(held) for held in benefits.coupons if serves(held, usage, tariff))
    return tuple(sorted(windows))


def day_window(tariff: Tariff, day: date) -> str:
    """The window of a day cap."""
    return f"day:{tariff.tariff_id}:{day.isoformat()}"


def month_window(tariff: Tariff, day: date) -> str:
    """The window of a month cap that a day is in."""
    return f"month:{tariff.tariff_id}:{day.isoformat()[:7]}"


def cap_of(window: str, tariff: Tariff) -> Decimal | None:
    """What a cap's window holds by this version of its tariff; None for a window that is no cap's."""
    caps = {"day": tariff.rules.day_cap, "month": tariff.rules.month_cap}
    return amount_of(caps.get(window.partition(":")[0]))


def pass_window(held: Pass, usage: Usage, tariff: Tariff) -> str | None:
    """The window that counts the rides of a pass, or None where it serves any number."""
    if held.rides is None:
        return None
    day = usage.started_at.astimezone(tariff.zone).date().isoformat()
    return f"pass:{held.pass_id}" + {"pass": "", "day": f":{day}", "month": f":{day[:7]}"}[held.rides_per]


def coupon_window(held: Coupon) -> str:
    """The window that counts the uses of a coupon."""
    return f"coupon:{held.coupon_id}"


def serves(held: Pass | Coupon, usage: Usage, tariff: Tariff) -> bool:
    """Whether a pass or coupon is valid when the ride starts, and for its tariff."""
    return held.valid_from <= usage.started_at < held.valid_until and (
        not held.tariff_ids or tariff.tariff_id in held.tariff_ids
    )


def _civil_days(usage: Usage, tariff: Tariff) -> Iterator[date]:
    """Each civil day of the tariff's zone in which the ride may have been charged something."""
    last_used = max(usage.started_at, usage.ended_at - timedelta(microseconds=1))
    day = usage.started_at.astimezone(tariff.zone).date()
    last = last_used.astimezone(tariff.zone).date()
    yield day
    while day < last:
        day += timedelta(days=1)
        yield day
