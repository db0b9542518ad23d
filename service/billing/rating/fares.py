"""The fare of the ride itself: price, segments and nights, the minimum, and the caps, each placed in time.

Charges are placed in buckets of time (`timeline`), because caps are about time: a cap takes away what falls due after
it is reached. Fees, discounts and tax come later, in `rating`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from service.billing.balances import Balance, BalanceUse, Pass
from service.billing.rating.caps import cap_days, cap_ride, cap_windows, raise_to_minimum, used_by
from service.billing.rating.charges import ONE, ZERO, Line
from service.billing.rating.compiled import Fare
from service.billing.rating.meters import Meter, begun, due
from service.billing.rating.timeline import Pauses, Span, civil_instant, cuts, elapsed, local_at
from service.billing.sessions import Usage
from service.billing.tariffs.gbfs import MINUTE_US
from service.billing.tariffs.rules import minutes_of_day


class RideFare(msgspec.Struct, frozen=True, gc=False):
    """The lines of the ride itself, and what it adds to the rider's caps."""

    lines: tuple[Line, ...]
    used: tuple[BalanceUse, ...] = ()


def ride_fare(usage: Usage, fare: Fare, balance: Balance, held: Pass | None = None) -> RideFare:
    """What the ride costs with a pass or without: before fees, discounts, rounding and tax."""
    if usage.duration_us <= fare.free_abort_us:
        return RideFare((fare.line("free_abort", ONE, "ride", ZERO, "/rules/free_abort_seconds"),))
    place = _Placement(usage, fare, held)
    lines, amounts, free = _metered(place)
    if held is not None:
        amounts = _with_pass(held, fare, amounts, lines)
    if not free:
        raise_to_minimum(fare, amounts, lines)
    days = [local.date() for local in place.locals] if fare.by_day else []
    amounts = cap_windows(fare, place.starts, amounts, lines)
    amounts = cap_days(fare, days, amounts, lines, balance)
    amounts = cap_ride(fare, amounts, lines)
    return RideFare(tuple(lines), used_by(fare, days, amounts))


class _Placement:
    """A ride cut into buckets, and the clocks at the end of each."""

    def __init__(self, usage: Usage, fare: Fare, held: Pass | None) -> None:
        self.usage, self.fare, self.zone = usage, fare, fare.tariff.zone
        self.held_us = 0
        self.free_us, self.free_minutes, self.free_path = fare.free_us, fare.free_minutes, "/rules/free_minutes"
        if held is not None and held.free_minutes is not None:
            self.held_us = int(held.free_minutes * MINUTE_US)
            if self.held_us > self.free_us:
                self.free_us, self.free_minutes = self.held_us, held.free_minutes
                self.free_path = f"pass:{held.pass_id}"
        rated = usage.pauses and fare.tariff.rules.pause_rate is not None
        self.pauses = Pauses(usage) if rated else None
        self.starts = cuts(usage, self.zone, fare.cut_minutes, fare.cap_us)
        self.ends = [*self.starts[1:], usage.duration_us]
        civil = fare.cut_minutes or fare.by_day
        self.locals: list[datetime] = [local_at(usage, at, self.zone) for at in self.starts] if civil else []
        self.riding_us = usage.duration_us - self.paused_before(usage.duration_us)

    def within_free(self) -> bool:
        """Whether the ride lies within its free minutes."""
        return self.free_us > 0 and self.riding_us <= self.free_us

    def owed(self, meter: Meter) -> list[int]:
        """How many charges of the meter fall due in each bucket."""
        fare = self.fare
        total = due(meter, self._clock(meter, self.usage.duration_us), completed=fare.completed, grace=fare.grace_us)
        if len(self.starts) == 1:
            counts = [total]
        else:
            reached = [min(total, self._begun(meter, end)) for end in self.ends[:-1]]
            counts = [after - before for before, after in zip([0, *reached], [*reached, total], strict=True)]
        if not meter.spans:
            return counts
        return [count if self.open(meter.spans, bucket) else 0 for bucket, count in enumerate(counts)]

    def open(self, spans: Sequence[Span], bucket: int) -> bool:
        """Whether the bucket lies in any of the hours; always where there are none."""
        return not spans or any(span.holds(self.locals[bucket]) for span in spans)

    def bucket_at(self, at: int) -> int:
        """The bucket of an instant of the ride."""
        return max(0, bisect_right(self.starts, at) - 1)

    def paused_before(self, at: int) -> int:
        """How long the ride had been paused, `at` microseconds into it; 0 where pauses are no matter."""
        return 0 if self.pauses is None else self.pauses.before(at)

    def _clock(self, meter: Meter, at: int) -> int:
        if meter.clock == "distance":
            return self.usage.meters * 1000
        paused = self.paused_before(at)
        return paused if meter.clock == "pause" else max(0, at - paused - self.free_us)

    def _begun(self, meter: Meter, at: int) -> int:
        """Charges before an instant within the ride; the distance is placed at uniform speed, exactly."""
        if meter.clock != "distance":
            return begun(meter, self._clock(meter, at))
        if not self.riding_us:
            return begun(meter, self.usage.meters * 1000)
        ridden = at - self.paused_before(at)
        return begun(meter, -(-self.usage.meters * 1000 * ridden // self.riding_us))


def _metered(place: _Placement) -> tuple[list[Line], list[Decimal], bool]:
    """The lines of price, segments and nights, the amount of each bucket, and whether free minutes cover the ride."""
    fare, plan = place.fare, place.fare.tariff.plan
    amounts = [ZERO] * len(place.starts)
    lines: list[Line] = []
    free = place.within_free()
    kept = fare.price_kept and place.riding_us > place.held_us
    if place.open(fare.price_spans, 0) and (not free or kept) and plan.price:
        lines.append(fare.line("price", ONE, "ride", plan.price, "/plan/price", fare.price_window))
        amounts[0] += plan.price
    for meter in fare.meters:
        counts = place.owed(meter)
        quantity = sum(counts)
        if quantity:
            line = fare.line(meter.code, Decimal(quantity), meter.unit, meter.rate, meter.path, meter.window)
            lines.append(line)
            for bucket, count in enumerate(counts):
                amounts[bucket] += count * meter.rate
    if fare.tariff.rules.per_night is not None and not free:
        _add_nights(place, amounts, lines)
    if place.free_us:
        lines.append(fare.line("free_minutes", place.free_minutes, "min", ZERO, place.free_path))
    elif not lines:
        lines.append(fare.line("price", ONE, "ride", plan.price * 0, "/plan/price", fare.price_window))
    return lines, amounts, free


def _add_nights(place: _Placement, amounts: list[Decimal], lines: list[Line]) -> None:
    """Civil nights: at least one, one for each further midnight passed, and what leaving late costs."""
    fare, usage, zone = place.fare, place.usage, place.zone
    rule = fare.tariff.rules.per_night
    if rule is None or usage.duration_us == 0:
        return
    first = usage.started_at.astimezone(zone).date()
    last = (usage.ended_at - timedelta(microseconds=1)).astimezone(zone).date()
    instants = [0] + [
        elapsed(usage, civil_instant(first + timedelta(days=night), 0, zone))
        for night in range(2, (last - first).days + 1)
    ]
    for at in instants:
        amounts[place.bucket_at(at)] += rule.rate
    lines.append(fare.line("per_night", Decimal(len(instants)), "night", rule.rate, "/rules/per_night/rate"))
    check_out = elapsed(usage, civil_instant(last, minutes_of_day(rule.check_out), zone))
    if last > first and usage.duration_us > check_out:
        price = rule.rate * Decimal("0.5") if rule.late == "half_day" else rule.rate
        amounts[place.bucket_at(check_out)] += price
        lines.append(fare.line("late_check_out", ONE, rule.late, price, "/rules/per_night/late"))


def _with_pass(held: Pass, fare: Fare, amounts: list[Decimal], lines: list[Line]) -> list[Decimal]:
    """What the pass leaves of each bucket; its own line says what it takes."""
    otherwise = ONE if held.free_minutes is None else ZERO
    share = otherwise if held.share is None else held.share
    taken = sum(amounts, ZERO) * share
    if taken:
        lines.append(fare.line("pass", ONE, "ride", -taken, f"pass:{held.pass_id}"))
    return [amount - amount * share for amount in amounts]
