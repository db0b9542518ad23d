"""Balances across a rider's rides, passes and coupons."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tariff_makers import START, amounts, per_min, ride, tariff

from service.billing.balances import Balance, BalanceUse, Benefits, Coupon, Pass, windows_of
from service.billing.rating import rate

FROM, UNTIL = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
PLAN = {"price": "1.50", **per_min("1.00", 15, 15)}


def month_pass(name: str = "p", **terms: Any) -> Pass:
    return Pass(**{"pass_id": name, "valid_from": FROM, "valid_until": UNTIL, **terms})


def coupon(name: str = "c", **terms: Any) -> Coupon:
    return Coupon(**{"coupon_id": name, "valid_from": FROM, "valid_until": UNTIL, **terms})


@pytest.mark.parametrize(
    ("rules", "start", "minutes", "windows"),
    [
        ({}, START, 60, ()),
        ({"day_cap": 1}, START, 60, ("day:t:2026-11-22",)),
        ({"day_cap": 1}, START, 12 * 60, ("day:t:2026-11-22",)),
        ({"day_cap": 1}, START, 12 * 60 + 1, ("day:t:2026-11-22", "day:t:2026-11-23")),
        ({"month_cap": 1}, datetime(2026, 11, 30, 15, tzinfo=UTC), 120, ("month:t:2026-11", "month:t:2026-12")),
        (
            {"month_cap": 1, "day_cap": 1},
            datetime(2026, 11, 30, 1, tzinfo=UTC),
            60,
            ("day:t:2026-11-30", "month:t:2026-11"),
        ),
    ],
)
def test_a_ride_needs_the_windows_it_may_be_charged_in(
    rules: dict[str, Any], start: datetime, minutes: int, windows: tuple[str, ...]
) -> None:
    assert windows_of(ride(minutes, start=start), tariff(PLAN, rules)) == windows


def test_counted_passes_and_coupons_have_windows_while_they_serve() -> None:
    held = Benefits(
        passes=(
            month_pass("a", rides=10),
            month_pass("b", rides=1, rides_per="day"),
            month_pass("c", rides=9, rides_per="month"),
            month_pass("free"),
            month_pass("other", rides=1, tariff_ids=("car",)),
        ),
        coupons=(coupon("k"), coupon("old", valid_until=START)),
    )
    assert windows_of(ride(5), tariff(PLAN), held) == ("coupon:k", "pass:a", "pass:b:2026-11-22", "pass:c:2026-11")


@given(st.lists(st.integers(0, 300), max_size=8), st.integers(0, 20))
def test_over_a_day_a_rider_never_pays_more_than_the_day_cap(rides: list[int], cap: int) -> None:
    terms = tariff(PLAN, {"day_cap": {"price": cap}})
    used, paid = Decimal(0), 0
    for minutes in rides:
        charge = rate(ride(minutes), terms, Balance((BalanceUse("day:t:2026-11-22", used),)))
        used += sum((use.used for use in charge.used), Decimal(0))
        paid += charge.total_minor
    alone = sum(rate(ride(minutes), tariff(PLAN)).total_minor for minutes in rides)
    assert paid == min(alone, cap * 100)
    assert used * 100 == paid


@pytest.mark.parametrize(
    ("held", "minutes", "expected"),
    [
        (month_pass(free_minutes=Decimal(30)), 30, {"free_minutes": "0"}),
        (month_pass(free_minutes=Decimal(30)), 31, {"price": "1.50", "free_minutes": "0"}),
        (month_pass(free_minutes=Decimal(30)), 46, {"price": "1.50", "per_min": "1.00", "free_minutes": "0"}),
        (month_pass(), 40, {"price": "1.50", "per_min": "2.00", "pass": "-3.50"}),
        (month_pass(share=Decimal("0.2")), 40, {"price": "1.50", "per_min": "2.00", "pass": "-0.700"}),
        (month_pass(tariff_ids=("car",)), 5, {"price": "1.50"}),
        (month_pass(tariff_ids=("t",)), 5, {"price": "1.50", "pass": "-1.50"}),
        (month_pass(valid_until=START), 5, {"price": "1.50"}),
        (month_pass(valid_from=START), 5, {"price": "1.50", "pass": "-1.50"}),
    ],
)
def test_a_pass_gives_what_it_says_while_it_holds(held: Pass, minutes: int, expected: dict[str, str]) -> None:
    charge = rate(ride(minutes), tariff(PLAN), benefits=Benefits(passes=(held,)))
    assert amounts(charge) == expected


def test_a_counted_pass_serves_its_rides_and_no_more() -> None:
    held = Benefits(passes=(month_pass(rides=2),))
    first = rate(ride(5), tariff(PLAN), benefits=held)
    assert (first.total_minor, first.used) == (0, (BalanceUse("pass:p", Decimal(1)),))
    third = rate(ride(5), tariff(PLAN), Balance((BalanceUse("pass:p", Decimal(2)),)), held)
    assert (third.total_minor, third.used) == (150, ())


def test_the_pass_that_makes_the_ride_cheapest_is_taken_and_none_is_spent_for_nothing() -> None:
    counted, uncounted = month_pass("a", rides=5), month_pass("b", share=Decimal("0.5"))
    both = Benefits(passes=(uncounted, counted))
    assert rate(ride(5), tariff(PLAN), benefits=both).used == (BalanceUse("pass:a", Decimal(1)),)
    aborted = rate(ride(0.5), tariff(PLAN, {"free_abort_seconds": 60}), benefits=both)
    assert (aborted.total_minor, aborted.used) == (0, ())
    equal = Benefits(passes=(counted, month_pass("z")))
    assert rate(ride(5), tariff(PLAN), benefits=equal).used == ()


def test_a_pass_comes_before_minimum_and_caps() -> None:
    held = Benefits(passes=(month_pass(share=Decimal("0.5")),))
    assert rate(ride(5), tariff(PLAN, {"fare_min": 1}), benefits=held).total_minor == 100
    assert rate(ride(600), tariff(PLAN, {"ride_max": 10}), benefits=held).total_minor == 1000


@pytest.mark.parametrize(
    ("coupons", "named", "minor", "used"),
    [
        ((coupon(amount=Decimal(1)),), None, 250, "coupon:c"),
        ((coupon(amount=Decimal(9)),), None, 0, "coupon:c"),
        ((coupon(share=Decimal("0.1")),), None, 315, "coupon:c"),
        ((coupon(share=Decimal("0.5"), amount_max=Decimal(1)),), None, 250, "coupon:c"),
        ((coupon(amount=Decimal(1), fare_min=Decimal(4)),), None, 350, None),
        ((coupon("a", amount=Decimal(1)), coupon("b", amount=Decimal(2))), None, 150, "coupon:b"),
        ((coupon("a", amount=Decimal(1)), coupon("b", amount=Decimal(2))), "a", 250, "coupon:a"),
        ((coupon("a", amount=Decimal(1)),), "zzz", 350, None),
        ((coupon("a", amount=Decimal(1), valid_until=START),), "a", 350, None),
        ((coupon("b", amount=Decimal(1)), coupon("a", amount=Decimal(1), valid_until=UNTIL)), None, 250, "coupon:a"),
    ],
)
def test_the_named_coupon_or_the_best_one_is_taken(
    coupons: tuple[Coupon, ...], named: str | None, minor: int, used: str | None
) -> None:
    charge = rate(ride(40), tariff(PLAN), benefits=Benefits(coupons=coupons, coupon_id=named))
    assert charge.total_minor == minor
    assert [use.window for use in charge.used] == ([used] if used else [])


def test_a_coupon_is_used_once() -> None:
    held = Benefits(coupons=(coupon(amount=Decimal(1)),))
    assert rate(ride(40), tariff(PLAN), Balance((BalanceUse("coupon:c", Decimal(1)),)), held).total_minor == 350
