"""A second opinion: a naive loop over every single charge, in fractions, must agree with `rate` on random tariffs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from service.billing.balances import Balance, BalanceUse, windows_of
from service.billing.rating import Charge, rate, rate_once
from service.billing.sessions import Usage
from service.billing.tariffs import Tariff, TariffDraft, build

DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


@dataclass
class Case:
    plan: dict[str, Any]
    rules: dict[str, Any]
    zone: str
    start: datetime
    seconds: int
    meters: int
    pauses: list[tuple[int, int]] = field(default_factory=list)
    earlier: Fraction = Fraction(0)

    def usage(self) -> Usage:
        def at(second: int) -> datetime:
            return self.start + timedelta(seconds=second)

        return Usage(
            started_at=self.start,
            ended_at=at(self.seconds),
            duration_us=self.seconds * 10**6,
            meters=self.meters,
            pauses=tuple((at(a), at(b)) for a, b in self.pauses),
        )

    def tariff(self) -> Tariff:
        draft = TariffDraft(
            tariff_id="t",
            plan=json.dumps(self.plan).encode(),
            rules=json.dumps(self.rules).encode(),
            time_zone=self.zone,
        )
        return build(draft, valid_from=datetime(2020, 1, 1, tzinfo=UTC))


def oracle(case: Case) -> tuple[Fraction, dict[str, Fraction]]:
    """The net fare before rounding, and what it adds to each civil day, from every charge by itself."""
    rules, zone = case.rules, ZoneInfo(case.zone)
    if "free_abort_seconds" in rules and case.seconds <= rules["free_abort_seconds"]:
        return Fraction(0), {}
    pausing = case.pauses if "pause_rate" in rules else []
    riding_spans, last = [], 0
    for a, b in [*pausing, (case.seconds, case.seconds)]:
        riding_spans.append((last, a))
        last = b
    free = Fraction(rules.get("free_minutes", 0)) * 60
    riding = sum(b - a for a, b in riding_spans)
    covered = free > 0 and riding <= free
    grace = rules.get("grace_seconds", 0)
    charges: list[tuple[Fraction, Fraction]] = []
    if not covered:
        charges.append((Fraction(0), Fraction(case.plan["price"])))
    for index, segment in enumerate(case.plan.get("per_min_pricing", [])):
        used = max(Fraction(0), riding - free)
        for t in falling_due(segment, 60, used, rules.get("count", "started"), grace):
            at = place(riding_spans, t + free)
            if holds(rules, f"/plan/per_min_pricing/{index}", local(case, at, zone)):
                charges.append((at, Fraction(segment["rate"])))
    for index, segment in enumerate(case.plan.get("per_km_pricing", [])):
        for d in falling_due(segment, 1000, Fraction(case.meters), rules.get("count", "started"), 0):
            at = place(riding_spans, d / case.meters * riding) if riding else Fraction(0)
            if holds(rules, f"/plan/per_km_pricing/{index}", local(case, at, zone)):
                charges.append((at, Fraction(segment["rate"])))
    if "pause_rate" in rules:
        segment = {"start": 0, "interval": 1, "rate": rules["pause_rate"]}
        paused = Fraction(sum(b - a for a, b in pausing))
        for t in falling_due(segment, 60, paused, rules.get("count", "started"), 0):
            charges.append((place(pausing, t), Fraction(rules["pause_rate"])))
    total = sum((amount for _, amount in charges), Fraction(0))
    if "fare_min" in rules and not covered and total < Fraction(rules["fare_min"]):
        charges.append((Fraction(0), Fraction(rules["fare_min"]) - total))
    return capped(case, sorted(charges), zone)


def falling_due(segment: dict[str, Any], one: int, used: Fraction, count: str, grace: int) -> Iterator[Fraction]:
    start, interval = Fraction(segment["start"]) * one, Fraction(segment["interval"]) * one
    end = Fraction(segment["end"]) * one if "end" in segment else None
    t = start
    while (end is None or t < end) and t < used:
        if count == "completed" and interval:
            if t + interval > (used if end is None else min(used, end)):
                return
        elif t > 0 and t + grace >= used:
            return
        yield t
        if not interval:
            return
        t += interval


def place(spans: list[tuple[int, int]], clock: Fraction) -> Fraction:
    """The instant at which a clock that runs only within the spans begins to run beyond a reading."""
    before = Fraction(0)
    for a, b in spans:
        if clock < before + (b - a):
            return a + clock - before
        before += b - a
    raise AssertionError("a charge beyond the end")


def local(case: Case, at: Fraction, zone: ZoneInfo) -> datetime:
    return (case.start + timedelta(microseconds=int(at * 10**6))).astimezone(zone)


def holds(rules: dict[str, Any], segment: str, now: datetime) -> bool:
    windows = [window for window in rules.get("windows", []) if window["segment"] == segment]
    clock, yesterday = f"{now:%H:%M}", DAYS[now.weekday() - 1]
    for window in windows:
        days = window.get("days", DAYS)
        if window["from"] < window["to"]:
            inside = DAYS[now.weekday()] in days and window["from"] <= clock < window["to"]
        else:
            inside = (DAYS[now.weekday()] in days and clock >= window["from"]) or (
                yesterday in days and clock < window["to"]
            )
        if inside:
            return True
    return not windows


def capped(
    case: Case, charges: list[tuple[Fraction, Fraction]], zone: ZoneInfo
) -> tuple[Fraction, dict[str, Fraction]]:
    """Each charge in the order of time, as much of it as the caps leave."""
    capping, rules = case.plan.get("fare_capping"), case.rules
    in_window: dict[int, Fraction] = defaultdict(Fraction)
    in_day: dict[str, Fraction] = defaultdict(Fraction)
    in_month: dict[str, Fraction] = defaultdict(Fraction)
    total = Fraction(0)
    days: dict[str, Fraction] = defaultdict(Fraction)
    for at, asked in charges:
        amount = asked
        if capping:
            window = int(at // (capping["duration"] * 60))
            amount = min(amount, Fraction(capping["price"]) - in_window[window])
            in_window[window] += amount
        day = local(case, at, zone).date().isoformat()
        if "day_cap" in rules:
            amount = min(amount, max(Fraction(0), Fraction(rules["day_cap"]["price"]) - case.earlier) - in_day[day])
            in_day[day] += amount
        if "month_cap" in rules:
            amount = min(amount, Fraction(rules["month_cap"]) - in_month[day[:7]])
            in_month[day[:7]] += amount
        if "ride_max" in rules:
            amount = min(amount, Fraction(rules["ride_max"]) - total)
        total += amount
        days[day] += amount
    return total, days


amounts = st.decimals(0, 5, places=3).map(str)
hours = st.tuples(st.integers(0, 23), st.sampled_from([0, 15, 30])).map(lambda t: f"{t[0]:02}:{t[1]:02}")


@st.composite
def segments(draw: st.DrawFn) -> dict[str, Any]:
    start, interval = draw(st.integers(0, 40)), draw(st.sampled_from([0, 1, 5, 15, 60]))
    segment = {"start": start, "interval": interval, "rate": draw(amounts)}
    if draw(st.booleans()):
        segment["end"] = start + draw(st.integers(1, 200))
    return segment


def windows(segments: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    days = st.sets(st.sampled_from(DAYS), min_size=1).map(sorted)
    always: dict[str, st.SearchStrategy[Any]] = {"segment": st.sampled_from(segments), "from": hours, "to": hours}
    return st.fixed_dictionaries(always, optional={"days": days})


@st.composite
def cases(draw: st.DrawFn) -> Case:
    plan: dict[str, Any] = {"currency": "EUR", "price": draw(amounts)}
    plan["per_min_pricing"] = draw(st.lists(segments(), max_size=3))
    plan["per_km_pricing"] = draw(st.lists(segments(), max_size=2))
    if draw(st.booleans()):
        plan["fare_capping"] = {"duration": draw(st.sampled_from([30, 60, 720])), "price": draw(st.integers(0, 40))}
    optional: dict[str, st.SearchStrategy[Any]] = {
        "free_abort_seconds": st.integers(0, 120),
        "grace_seconds": st.integers(0, 90),
        "fare_min": st.integers(0, 5),
        "ride_max": st.integers(5, 60),
        "day_cap": st.integers(0, 30).map(lambda price: {"price": price}),
        "month_cap": st.integers(0, 60),
        "free_minutes": st.integers(0, 30),
        "pause_rate": amounts,
    }
    rules = {name: draw(values) for name, values in optional.items() if draw(st.integers(0, 3)) == 0}
    if "grace_seconds" not in rules and draw(st.booleans()):
        rules["count"] = "completed"
    names = [f"/plan/per_min_pricing/{index}" for index in range(len(plan["per_min_pricing"]))]
    names += [f"/plan/per_km_pricing/{index}" for index in range(len(plan["per_km_pricing"]))]
    if draw(st.booleans()) and names:
        rules["windows"] = draw(st.lists(windows(names), min_size=1, max_size=3))
    zone = draw(st.sampled_from(["UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]))
    changes = ["2026-03-28", "2026-10-24", "2026-10-31", "2026-03-07", "2026-04-04", "2026-10-03", "2026-06-30"]
    day = datetime.fromisoformat(draw(st.sampled_from(changes))).replace(tzinfo=UTC)
    start = day + timedelta(seconds=draw(st.integers(0, 2 * 86400)))
    seconds = draw(st.one_of(st.integers(0, 7200), st.integers(0, 3 * 86400)))
    marks = draw(st.lists(st.integers(0, seconds), max_size=4, unique=True).map(sorted))
    pauses = list(zip(marks[::2], marks[1::2], strict=False))
    meters = draw(st.integers(0, 60_000))
    return Case(plan, rules, zone, start, seconds, meters, pauses, Fraction(draw(st.integers(0, 20))))


def rated(case: Case) -> Charge:
    tariff, usage = case.tariff(), case.usage()
    days = [window for window in windows_of(usage, tariff) if window.startswith("day:")]
    uses = tuple(BalanceUse(window, Decimal(case.earlier.numerator)) for window in days)
    return rate(usage, tariff, Balance(uses))


@given(cases())
@settings(max_examples=400, deadline=None)
def test_rate_agrees_with_a_loop_over_every_charge(case: Case) -> None:
    charge = rated(case)
    net, days = oracle(case)
    exact = sum((Fraction(line.amount) for line in charge.lines if line.code != "rounding"), Fraction(0))
    assert exact == net
    assert Fraction(charge.total_minor, 100) == Fraction(int(net * 100 + Fraction(1, 2)), 100)
    used = {use.window: Fraction(use.used) for use in charge.used if use.window.startswith("day:")}
    expected = {f"day:t:{day}": amount for day, amount in days.items() if amount > 0}
    assert used == (expected if "day_cap" in case.rules else {})


@given(cases())
@settings(max_examples=100, deadline=None)
def test_lines_sum_exactly_to_the_total_and_each_is_quantity_times_price(case: Case) -> None:
    charge = rated(case)
    assert sum((line.amount for line in charge.lines), Decimal(0)) * 100 == charge.total_minor
    assert all(line.amount == line.quantity * line.unit_price for line in charge.lines)
    assert charge == rated(case)


@given(cases(), st.sampled_from([10, 12, 15]), st.integers(86_400, 3 * 86_400), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_a_cap_of_short_windows_is_told_in_101_lines_at_most_and_takes_what_it_takes_from_each(
    case: Case, duration: int, seconds: int, price: int
) -> None:
    case.seconds = max(case.seconds, seconds)
    case.plan["fare_capping"] = {"duration": duration, "price": price}
    case.plan["per_min_pricing"].append({"start": 0, "interval": 1, "rate": "0.475"})
    charge = rated(case)
    net, _ = oracle(case)
    assert sum((Fraction(line.amount) for line in charge.lines if line.code != "rounding"), Fraction(0)) == net
    assert sum((line.amount for line in charge.lines), Decimal(0)) * 100 == charge.total_minor
    assert sum(line.code == "fare_capping" for line in charge.lines) <= 101


@given(cases())
@settings(max_examples=100, deadline=None)
def test_a_plan_that_is_tried_out_gives_the_same_charge(case: Case) -> None:
    usage, tariff = case.usage(), case.tariff()
    assert rate_once(usage, tariff) == rate(usage, tariff)


@given(cases(), st.lists(st.integers(0, 3600), min_size=2, max_size=6), st.booleans())
@settings(max_examples=100, deadline=None)
def test_no_ride_is_charged_as_another_one_was(case: Case, lengths: list[int], kept: bool) -> None:
    """The charges that a tariff keeps ready: of rides of no length, within free minutes, and longer ones."""
    case.pauses = []
    case.rules["free_minutes"] = {"minutes": 30, "price": "kept"} if kept else 30
    tariff = case.tariff()
    for seconds in [0, *lengths, 0]:
        case.seconds = seconds
        usage = case.usage()
        assert rate(usage, tariff) == rate_once(usage, tariff)


@given(cases(), st.integers(0, 86400))
@settings(max_examples=100, deadline=None)
def test_a_longer_ride_never_costs_less_where_no_rate_is_negative(case: Case, more: int) -> None:
    case.pauses, case.meters = [], 0
    shorter = rated(case).total_minor
    case.seconds += more
    assert rated(case).total_minor >= shorter
