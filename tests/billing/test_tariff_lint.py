"""Lint finds the oddities of real feeds, with their paths; and a diff says what a new tariff changes."""

from __future__ import annotations

import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tariff_makers import per_min, tariff

from service.billing.linting import lint, lint_document
from service.billing.linting.changes import changes, fare_changes
from service.billing.tariffs import load

DATA = Path(__file__).parent.parent / "data"
METERED = per_min(1)
TAX_ON_TOP = {"rate": "0.2", "included": False}
TOO_DEAR, ENDLESS = ("error", "maximum_above_debit", "/rules/ride_max"), ("error", "no_maximum", "/rules")


@pytest.mark.parametrize(
    ("plan", "severity", "code", "path"),
    [
        ("gap", "warning", "gap", "/data/plans/0/per_km_pricing/1/start"),
        ("night", "warning", "nothing_after_end", "/data/plans/1/per_min_pricing/0/end"),
        ("night", "warning", "time_of_day", "/data/plans/1/name"),
        ("faked-cap", "warning", "free_after_end", "/data/plans/2/per_min_pricing/1/end"),
        ("prose", "warning", "prose_amount", "/data/plans/3/description"),
        ("prose", "warning", "prose_duration", "/data/plans/3/description"),
        ("odd-end", "warning", "end_off_interval", "/data/plans/4/per_min_pricing/0/end"),
        ("odd-end", "warning", "cap_by_free_segment", "/data/plans/4/per_min_pricing/1"),
        ("once", "warning", "interval_zero", "/data/plans/5/per_min_pricing/0/interval"),
        ("falls", "warning", "fare_falls", "/data/plans/6/per_min_pricing/1/rate"),
        ("twice", "warning", "overlap", "/data/plans/7/per_min_pricing/1/start"),
        ("backwards", "error", "refused", "/data/plans/8/per_min_pricing/0/end"),
        ("both", "error", "refused", "/data/plans/9/reservation_price_flat_rate"),
        ("taxable", "error", "refused", "/data/plans/10/is_taxable"),
    ],
)
def test_each_oddity_is_found_where_it_is(plan: str, severity: str, code: str, path: str) -> None:
    findings = lint_document((DATA / "plans/odd_v2.3.json").read_bytes())
    assert (severity, code, path) in [(f.severity, f.code, f.path) for f in findings if f.tariff_id == plan]


@pytest.mark.parametrize("file", ["plans/bike_v2.2.json", "tariff_bike.json"])
def test_a_tariff_in_order_is_left_in_peace(file: str) -> None:
    assert lint_document((DATA / file).read_bytes()) == []


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff\xfe", b'{"plan_id": "p"}', b'{"data": 1}'])
def test_an_unusable_document_is_a_finding_and_no_exception(data: bytes) -> None:
    assert [finding.severity for finding in lint_document(data)] == ["error"]


def test_segments_with_hours_of_their_own_neither_gap_nor_overlap() -> None:
    segments = [{"start": 0, "rate": rate, "interval": 1} for rate in (1, 2)]
    windows = [
        {"segment": "/plan/per_min_pricing/0", "from": "22:00", "to": "06:00"},
        {"segment": "/plan/per_min_pricing/1", "from": "06:00", "to": "22:00"},
    ]
    assert lint(tariff({"per_min_pricing": segments}, {"windows": windows})) == []


@pytest.mark.parametrize(
    ("plan", "rules", "debit_max", "found"),
    [
        ({}, {"ride_max": "30.01"}, 3000, [TOO_DEAR]),
        ({}, {"ride_max": "30.00"}, 3000, []),
        (METERED, {"ride_max": "30.00"}, 3000, []),
        (
            METERED,
            {"ride_max": "30.00", "tax": TAX_ON_TOP},
            3000,
            [TOO_DEAR],
        ),
        (METERED, {"ride_max": "25.00", "tax": TAX_ON_TOP}, 3000, []),
        (METERED, {}, 3000, [ENDLESS]),
        (METERED, {"day_cap": "9.00"}, 3000, [ENDLESS]),
        ({"per_km_pricing": METERED["per_min_pricing"]}, {}, 3000, [ENDLESS]),
        (METERED, {}, None, []),
        ({}, {}, 100, []),
        ({}, {}, 99, [("error", "maximum_above_debit", "/plan/price")]),
    ],
)
def test_a_ride_that_can_cost_more_than_may_be_debited_refuses_the_tariff(
    plan: dict[str, Any], rules: dict[str, Any], debit_max: int | None, found: list[tuple[str, str, str]]
) -> None:
    """Also where nothing bounds it: that was a warning, and the command said that all was well."""
    findings = lint(tariff({"price": 1, **plan}, rules), debit_max)
    assert [(f.severity, f.code, f.path) for f in findings if f.severity == "error"] == found


def test_a_maximum_is_compared_in_the_tariffs_own_currency() -> None:
    document = b'{"tariff_id": "t", "plan": {"currency": "JPY", "price": 1}, "rules": {"ride_max": 3001}}'
    assert [finding.code for finding in lint_document(document, Decimal(3000))] == ["maximum_above_debit"]


def test_a_negative_rate_that_never_makes_a_fare_fall_is_no_finding() -> None:
    segments = [{"start": 0, "rate": "0.5", "interval": 1}, {"start": 10, "rate": "-0.25", "interval": 1, "end": 20}]
    assert [f.code for f in lint(tariff({"per_min_pricing": segments})) if f.code == "fare_falls"] == []


@pytest.mark.parametrize(("start", "found"), [(43_100, ["fare_falls"]), (43_300, [])])
def test_where_a_fare_falls_is_sought_within_the_longest_ride_that_is_not_reviewed(
    start: int, found: list[str]
) -> None:
    segments = [{"start": 0, "rate": 1, "interval": 0}, {"start": start, "rate": "-0.1", "interval": 60}]
    assert [f.code for f in lint(tariff({"per_min_pricing": segments})) if f.code == "fare_falls"] == found


@pytest.mark.parametrize(("segments", "start"), [(1, 40_000), (50, 1)])
def test_a_laborious_tariff_is_looked_through_in_so_many_steps(segments: int, start: int) -> None:
    """Each of its negative rates was rated 400 times, over weeks in pieces of minutes: for longer than an hour."""
    plan = {
        "per_min_pricing": [{"start": start + at, "rate": "-0.1", "interval": 1} for at in range(segments)],
        "fare_capping": {"duration": 10, "price": 30},
        "description": "9" * 50_000,
    }
    hours = [{"segment": "/plan/price", "from": f"{at % 24:02}:{at:02}", "to": f"{at % 24:02}:59"} for at in range(50)]
    laborious = tariff(plan, {"day_cap": 100, "month_cap": 1000, "windows": hours})
    steps = Counter[str]()
    sys.setprofile(lambda _, event, __: steps.update((event,)))
    try:
        lint(laborious)
    finally:
        sys.setprofile(None)
    assert steps["call"] < 1_000_000, steps


def test_a_diff_names_fields_and_what_rides_cost() -> None:
    before = load((DATA / "tariff_bike.json").read_bytes(), 1)
    after = load((DATA / "tariff_bike_dearer.json").read_bytes(), 2)
    assert [change.path for change in changes(before, after)] == [
        "/valid_from",
        "/plan/per_min_pricing/0/rate",
        "/rules/day_cap",
    ]
    fares = {fare.minutes: (fare.before_minor, fare.after_minor) for fare in fare_changes(before, after)}
    assert (fares[30], fares[480]) == ((250, 270), (3000, 2000))
    assert 15 not in fares


def test_writing_a_number_otherwise_changes_nothing() -> None:
    before, after = tariff({"price": "1.50", **per_min("1.0", 1)}), tariff({"price": 1.5, **per_min(1, 1)})
    assert changes(before, after) == []
    assert fare_changes(before, after) == []
