"""Nights, and the caps over civil days and months."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from tariff_makers import amounts, per_min, ride, tariff

from service.billing.balances import Balance, BalanceUse
from service.billing.rating import rate


@pytest.mark.parametrize(
    ("start", "end", "late", "lines"),
    [
        ("2026-11-20T15:00", "2026-11-20T15:00", "night", {"price": "0"}),
        ("2026-11-20T15:00", "2026-11-20T19:00", "night", {"per_night": "100"}),
        ("2026-11-20T15:00", "2026-11-21T12:00", "night", {"per_night": "100"}),
        ("2026-11-20T15:00", "2026-11-21T12:01", "night", {"per_night": "100", "late_check_out": "100"}),
        ("2026-11-20T15:00", "2026-11-21T12:01", "half_day", {"per_night": "100", "late_check_out": "50.0"}),
        ("2026-11-20T15:00", "2026-11-22T00:00", "half_day", {"per_night": "100", "late_check_out": "50.0"}),
        ("2026-11-20T15:00", "2026-11-22T00:01", "half_day", {"per_night": "200"}),
        ("2026-11-20T23:59", "2026-11-23T09:00", "night", {"per_night": "300"}),
        # The nights of the clock changes are 23 and 25 hours long, and one night each.
        ("2026-03-28T15:00", "2026-03-29T12:00", "night", {"per_night": "100"}),
        ("2026-10-24T15:00", "2026-10-25T12:00", "night", {"per_night": "100"}),
        ("2026-10-24T15:00", "2026-10-25T12:01", "half_day", {"per_night": "100", "late_check_out": "50.0"}),
    ],
)
def test_nights_are_civil(start: str, end: str, late: str, lines: dict[str, str]) -> None:
    terms = tariff({}, {"per_night": {"rate": 100, "check_out": "12:00", "late": late}}, zone="Europe/Berlin")
    from_, to = (datetime.fromisoformat(text).replace(tzinfo=terms.zone).astimezone(UTC) for text in (start, end))
    assert amounts(rate(ride((to - from_).total_seconds() / 60, start=from_), terms)) == lines


def test_a_day_cap_counts_each_charge_by_its_own_day_and_what_earlier_rides_used() -> None:
    terms = tariff(per_min(1, 60), {"day_cap": {"price": 3}})
    start = datetime(2026, 11, 22, 12, tzinfo=UTC)  # 20:00 in Shanghai
    balance = Balance((BalanceUse("day:t:2026-11-22", Decimal("1.50")),))
    charge = rate(ride(8 * 60, start=start), terms, balance)
    assert amounts(charge) == {"per_min": "8", "day_cap day:t:2026-11-22": "-2.50", "day_cap day:t:2026-11-23": "-1"}
    assert [(use.window, str(use.used)) for use in charge.used] == [
        ("day:t:2026-11-22", "1.50"),
        ("day:t:2026-11-23", "3"),
    ]
    assert charge.balance == balance


def test_caps_apply_in_order_and_the_ride_maximum_takes_off_the_end() -> None:
    rules = {"day_cap": 20, "month_cap": 30, "ride_max": 12}
    terms = tariff({**per_min(1, 60), "fare_capping": {"duration": 360, "price": 5}}, rules)
    start = datetime(2026, 11, 30, 12, tzinfo=UTC)  # 20:00 in Shanghai, the last of the month
    charge = rate(ride(24 * 60, start=start), terms, Balance((BalanceUse("month:t:2026-11", Decimal(27)),)))
    assert amounts(charge) == {
        "per_min": "24",
        **{f"fare_capping cap:{number}": "-1" for number in range(4)},
        "month_cap month:t:2026-11": "-1",
        "ride_max": "-7",
    }
    used = {use.window: str(use.used) for use in charge.used}
    assert used == {
        "day:t:2026-11-30": "3",
        "day:t:2026-12-01": "9",
        "month:t:2026-11": "3",
        "month:t:2026-12": "9",
    }
