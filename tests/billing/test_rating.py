"""What each rule does to a fare, line by line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from tariff_makers import START, amounts, per_min, ride, tariff

from service.billing.balances import Balance, BalanceUse
from service.billing.rating import rate, rate_once
from service.billing.rating.charges import Charge
from service.billing.rating.compiled import compiled


def total(plan: dict[str, Any], rules: dict[str, Any], **ridden: Any) -> int:
    return rate(ride(**ridden), tariff(plan, rules)).total_minor


BLOCKS = {"price": "1.50", **per_min("1.00", 15, 15)}


@pytest.mark.parametrize(
    ("plan", "rules", "minutes", "minor"),
    [
        (BLOCKS, {}, 0, 150),
        (BLOCKS, {}, 15, 150),
        (BLOCKS, {}, 15.0001, 250),
        (BLOCKS, {}, 30, 250),
        (BLOCKS, {}, 60, 450),
        (BLOCKS, {"free_abort_seconds": 60}, 1, 0),
        (BLOCKS, {"free_abort_seconds": 60}, 1.001, 150),
        (BLOCKS, {"grace_seconds": 120}, 32, 250),
        (BLOCKS, {"grace_seconds": 120}, 32.001, 350),
        (per_min(1), {"grace_seconds": 30}, 0.1, 100),
        (per_min(1), {"grace_seconds": 30}, 1.5, 100),
        (per_min(1), {"grace_seconds": 30}, 1.51, 200),
        (BLOCKS, {"count": "completed"}, 29.99, 150),
        (BLOCKS, {"count": "completed"}, 30, 250),
        (per_min(3, 60, 0, end=400), {"count": "completed"}, 1000, 1800),
        (per_min(3, 60, 0, end=400), {}, 1000, 2100),
        (per_min(3, 0, 30), {}, 30, 0),
        (per_min(3, 0, 30), {}, 300, 300),
        (BLOCKS, {"fare_min": 2}, 5, 200),
        (BLOCKS, {"fare_min": {"price": "2.00"}}, 20, 250),
        (BLOCKS, {"ride_max": 3}, 600, 300),
        (BLOCKS, {"free_minutes": 10}, 10, 0),
        (BLOCKS, {"free_minutes": 10}, 10.01, 150),
        (BLOCKS, {"free_minutes": 10}, 26, 250),
        (BLOCKS, {"free_minutes": {"minutes": 10, "price": "kept"}}, 10, 150),
        (BLOCKS, {"free_minutes": 10, "fare_min": 5}, 10, 0),
        ({"price": 3, **per_min(-1)}, {}, 2, 100),
        ({"price": 3, **per_min(-1)}, {}, 9, 0),
    ],
)
def test_time_is_charged_as_the_rules_say(
    plan: dict[str, Any], rules: dict[str, Any], minutes: float, minor: int
) -> None:
    assert total(plan, rules, minutes=minutes) == minor


def test_a_charge_is_a_receipt_with_a_path_for_every_line() -> None:
    charge = rate(ride(40, 3500), tariff({**BLOCKS, "per_km_pricing": [{"start": 2, "rate": 0.475, "interval": 1}]}))
    told = [(line.code, str(line.quantity), line.unit, str(line.amount), line.path) for line in charge.lines]
    assert told == [
        ("price", "1", "ride", "1.50", "/plan/price"),
        ("per_min", "2", "15 min", "2.00", "/plan/per_min_pricing/0"),
        ("per_km", "2", "km", "0.950", "/plan/per_km_pricing/0"),
    ]
    assert charge.total_minor == 445


def test_a_charge_survives_json() -> None:
    charge = rate(
        ride(1), tariff(per_min("1.475"), {"day_cap": 1}), Balance((BalanceUse("day:t:2026-11-22", Decimal("0.5")),))
    )
    assert msgspec.json.decode(msgspec.json.encode(charge), type=Charge) == charge


def test_rounding_is_a_line_of_its_own_only_when_it_is_not_zero() -> None:
    assert amounts(rate(ride(1), tariff(per_min("1.475")))) == {"per_min": "1.475", "rounding": "0.005"}
    assert amounts(rate(ride(2), tariff(per_min("1.475")))) == {"per_min": "2.950"}


def test_a_cap_holds_in_each_window_and_places_distance_at_uniform_speed() -> None:
    plan = {
        **per_min(1, 10),
        "per_km_pricing": [{"start": 0, "rate": 1, "interval": 1}],
        "fare_capping": {"duration": 60, "price": 7},
    }
    charge = rate(ride(90, 9000), tariff(plan))
    assert amounts(charge) == {"per_min": "9", "per_km": "9", "fare_capping cap:0": "-5"}
    assert charge.total_minor == 1300


@pytest.mark.parametrize(
    ("windows", "rest"),
    [(100, {}), (101, {"cap:100": "-1"}), (102, {"cap:100-101": "-2"}), (4320, {"cap:100-4319": "-4220"})],
)
def test_after_a_hundred_windows_one_line_tells_what_the_cap_takes_in_the_others(
    windows: int, rest: dict[str, str]
) -> None:
    terms = tariff({**per_min(1), "fare_capping": {"duration": 10, "price": 9}})
    charge = rate(ride(10 * windows), terms)
    each = {f"fare_capping cap:{number}": "-1" for number in range(100)}
    assert amounts(charge) == {
        "per_min": str(10 * windows),
        **each,
        **{f"fare_capping {window}": amount for window, amount in rest.items()},
    }
    assert charge.total_minor == 900 * windows
    assert not compiled(terms).memo, "a charge of so many lines is not kept"
    rate(ride(11), terms)
    assert len(compiled(terms).memo) == 1


def test_a_ride_of_no_length_is_not_charged_as_one_within_the_free_minutes() -> None:
    rules = {"free_minutes": {"minutes": 30, "price": "kept"}}
    for minutes in ([10, 0, 10], [0, 10, 0]):
        terms = tariff(BLOCKS, rules)
        assert [rate(ride(length), terms).total_minor for length in minutes] == [150 if it else 0 for it in minutes]


def test_of_a_plan_that_is_tried_out_nothing_is_kept() -> None:
    before = compiled.cache_info()
    charge = rate_once(ride(40), tariff(BLOCKS))
    assert (charge.total_minor, compiled.cache_info()) == (350, before)


def test_the_price_belongs_to_the_first_window() -> None:
    plan = {"price": 130, "currency": "JPY", **per_min(100, 15, 30), "fare_capping": {"duration": 720, "price": 1800}}
    assert [rate(ride(hours * 60), tariff(plan)).total_minor for hours in (10, 12, 13)] == [1800, 1800, 2200]


HOURS = {"segment": "/plan/per_min_pricing/0", "from": "22:00", "to": "06:00", "days": ["fri", "sat"]}


@pytest.mark.parametrize(
    ("local", "hours", "minor"),
    [
        ("2026-11-20T21:00", 3, 200),  # Friday evening: two of three charges are due at 22:00 or later.
        ("2026-11-21T04:30", 3, 200),  # Friday's night, on Saturday morning: 4:30 and 5:30.
        ("2026-11-22T04:30", 3, 200),  # Saturday's night, on Sunday.
        ("2026-11-23T04:30", 3, 0),  # Sunday's night is not named.
        ("2026-11-19T23:00", 3, 0),  # Thursday's neither, not even on Friday after midnight.
    ],
)
def test_hours_wrap_midnight_and_belong_to_the_day_they_begin_on(local: str, hours: int, minor: int) -> None:
    start = datetime.fromisoformat(local + "+08:00").astimezone(UTC)
    assert total(per_min(1, 60), {"windows": [HOURS]}, minutes=hours * 60, start=start) == minor


@pytest.mark.parametrize(
    ("window", "start", "minutes", "minor"),
    [
        # 2026-10-25 in Berlin: 02:00 to 03:00 comes twice, and so do the hours within it.
        (("02:15", "02:45"), "2026-10-25T00:00Z", 120, 6000),
        (("01:30", "02:30"), "2026-10-24T23:00Z", 240, 9000),
        # 2026-03-29: the clock jumps from 02:00 to 03:00, into the hours.
        (("02:30", "04:00"), "2026-03-29T00:30Z", 180, 6000),
        (("02:15", "02:45"), "2026-03-29T00:00Z", 180, 0),
    ],
)
def test_hours_are_those_of_the_civil_clock_when_it_changes(
    window: tuple[str, str], start: str, minutes: int, minor: int
) -> None:
    rules = {"windows": [{"segment": "/plan/per_min_pricing/0", "from": window[0], "to": window[1]}]}
    terms = tariff(per_min(1), rules, zone="Europe/Berlin")
    assert rate(ride(minutes, start=datetime.fromisoformat(start)), terms).total_minor == minor


def test_the_base_price_may_have_hours_too() -> None:
    rules = {"windows": [{"segment": "/plan/price", "from": "07:00", "to": "09:00"}]}
    assert total({"price": 2}, rules, minutes=5) == 0
    assert total({"price": 2}, rules, minutes=5, start=START - timedelta(hours=4)) == 200


def test_duration_is_real_time_when_the_clock_is_put_back() -> None:
    start = datetime.fromisoformat("2026-10-25T01:30+02:00").astimezone(UTC)
    end = datetime.fromisoformat("2026-10-25T03:30+01:00").astimezone(UTC)
    minutes = (end - start).total_seconds() / 60
    assert rate(ride(minutes, start=start), tariff(per_min("3.3", 60), zone="Europe/Berlin")).total_minor == 990


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, {"per_min": "30"}),
        ({"pause_rate": "0.10"}, {"per_min": "20", "pause": "1.00"}),
        ({"pause_rate": [{"start": 5, "rate": 1, "interval": 0}]}, {"per_min": "20", "pause": "1"}),
    ],
)
def test_a_pause_has_its_own_clock_where_the_tariff_gives_it_a_rate(
    rules: dict[str, Any], expected: dict[str, str]
) -> None:
    assert amounts(rate(ride(30, pauses=[(5, 9), (10, 16)]), tariff(per_min(1), rules))) == expected


@pytest.mark.parametrize(
    ("plan", "rules", "reserved_s", "expected"),
    [
        ({"reservation_price_per_min": "0.1"}, {"default_reserve_time": 10}, 61, "0.2"),
        ({"reservation_price_per_min": "0.1"}, {"default_reserve_time": 10}, 3600, "1.0"),
        ({"reservation_price_per_min": "0.1"}, {"count": "completed"}, 61, "0.2"),
        ({"reservation_price_flat_rate": "3"}, {}, 0, "3"),
    ],
)
def test_a_reservation_is_charged_with_a_ride_and_without(
    plan: dict[str, Any], rules: dict[str, Any], reserved_s: int, expected: str
) -> None:
    terms = tariff({"price": 2, **plan, "fare_capping": {"duration": 60, "price": 1}}, {"fare_min": 1, **rules})
    with_ride = rate(ride(5, reserved_us=reserved_s * 10**6), terms)
    assert amounts(with_ride) == {"price": "2", "fare_capping cap:0": "-1", "reservation": expected}
    without = rate(ride(0, reserved_us=reserved_s * 10**6, rode=False), terms)
    assert amounts(without) == {"reservation": expected}


def test_fees_are_refundable_lines_outside_of_caps_and_an_unknown_code_costs_nothing() -> None:
    terms = tariff({"price": 5}, {"ride_max": 3, "zone_fees": {"Z1": 4}, "parking_fees": {"invalid": "10.00"}})
    charge = rate(ride(5, zone_fees=("Z1", "Z9", "Z1"), parking_category="invalid"), terms)
    told = [(line.code, f"{line.amount:f}", line.path, line.refundable) for line in charge.lines]
    assert told == [
        ("price", "5", "/plan/price", False),
        ("ride_max", "-2", "/rules/ride_max", False),
        ("zone_fee", "8", "/rules/zone_fees/Z1", True),
        ("unknown_zone_fee", "0", "/rules/zone_fees/Z9", False),
        ("parking_fee", "10.00", "/rules/parking_fees/invalid", True),
    ]
    assert amounts(rate(ride(5, parking_category="rack"), terms)) == {"price": "5", "ride_max": "-2"}


@pytest.mark.parametrize(
    ("taxable", "tax", "total_minor", "tax_minor", "lines"),
    [
        (True, {"rate": "0.19"}, 1189, 190, {"price": "9.99", "tax": "1.8981", "tax_rounding": "0.0019"}),
        (False, {"rate": "0.19"}, 999, 160, {"price": "9.99"}),
        (
            False,
            {"rate": "0.19", "included": False},
            1189,
            190,
            {"price": "9.99", "tax": "1.8981", "tax_rounding": "0.0019"},
        ),
        (False, {"rate": "0"}, 999, 0, {"price": "9.99"}),
    ],
)
def test_tax_goes_on_top_or_is_split_out_of_the_total(
    taxable: bool, tax: dict[str, Any], total_minor: int, tax_minor: int, lines: dict[str, str]
) -> None:
    charge = rate(ride(5), tariff({"price": "9.99", "is_taxable": taxable}, {"tax": tax}))
    assert (charge.total_minor, charge.tax_minor, amounts(charge)) == (total_minor, tax_minor, lines)
    assert charge.lines[0].tax_rate == Decimal(tax["rate"])


def test_fees_may_have_a_tax_of_their_own_and_discounts_come_off_the_ride_first() -> None:
    rules = {
        "tax": {"rate": "0.10", "included": False, "lines": {"parking_fee": {"rate": "0"}}},
        "parking_fees": {"invalid": 10},
        "discounts": [{"code": "five", "amount": 5}],
    }
    charge = rate(ride(5, parking_category="invalid"), tariff({"price": 2}, rules))
    assert (charge.total_minor, charge.tax_minor) == (700, 0)
    dearer = rate(ride(5, parking_category="invalid"), tariff({"price": 8}, rules))
    assert (dearer.total_minor, dearer.tax_minor) == (1330, 30)


def test_discounts_apply_one_after_the_other_when_their_conditions_hold() -> None:
    discounts = [
        {"code": "cargo", "share": "0.5", "vehicle_types": ["cargo_bicycle"]},
        {"code": "corral", "amount": 1, "parking_categories": ["corral"]},
        {"code": "noon", "share": "0.1", "hours": [{"from": "12:00", "to": "13:00"}]},
    ]
    terms = tariff({"price": 10}, {"discounts": discounts})
    whole = rate(ride(5, vehicle_type="cargo_bicycle", parking_category="corral"), terms)
    assert amounts(whole) == {
        "price": "10",
        "discount cargo": "-5.0",
        "discount corral": "-1",
        "discount noon": "-0.40",
    }
    assert rate(ride(5, start=START + timedelta(hours=1)), terms).total_minor == 1000


def test_a_total_below_zero_is_lifted_to_zero_by_a_line() -> None:
    charge = rate(ride(5), tariff({"price": 2}, {"discounts": [{"code": "gift", "amount": 5}]}))
    assert (charge.total_minor, amounts(charge)["zero_floor"]) == (0, "3")


def test_equal_rides_of_a_plain_tariff_share_one_charge() -> None:
    terms = tariff(BLOCKS)
    assert rate(ride(20, 1), terms) is rate(ride(29, 700), terms)
    assert rate(ride(20), terms) != rate(ride(31), terms)
