"""Documents become tariffs, or are refused with what is wrong, where, and what to do."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tariff_makers import per_min, tariff

from service.billing.catalog import Catalog, TariffVersion
from service.billing.extent import LENGTH_HOURS_MAX, METERS_MAX, TARIFF_BYTES_MAX, ZONES_MAX
from service.billing.rating import rate
from service.billing.sessions import Usage
from service.billing.tariffs import (
    Tariff,
    TariffError,
    build,
    free_abort,
    has_balance_rules,
    import_document,
    load,
    longest_reservation,
    lost_end_rule,
    valid_from_problem,
)
from service.billing.tariffs.dearest import KEPT_MAX_MINOR
from service.billing.tariffs.gbfs import text_of

DATA = Path(__file__).parent.parent / "data"
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


def refusal(document: Any) -> TariffError:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(TariffError) as caught:
        for draft in import_document(data):
            build(draft, valid_from=NOW, time_zone="Asia/Shanghai")
    return caught.value


@pytest.mark.parametrize(
    ("file", "ids"),
    [
        ("plans/bike_v2.2.json", ["bike", "ebike"]),
        ("plans/car_v3.1.json", ["car"]),
        ("tariff_bike.json", ["bike-std"]),
    ],
)
def test_each_kind_of_document_is_read(file: str, ids: list[str]) -> None:
    drafts = import_document((DATA / file).read_bytes())
    assert [draft.tariff_id for draft in drafts] == ids
    for draft in drafts:
        build(draft, valid_from=NOW, time_zone="Europe/Berlin")


def test_a_bare_plan_is_a_tariff_without_rules_under_its_plan_id() -> None:
    (draft,) = import_document(b'{"plan_id": "p", "currency": "EUR", "price": 1}')
    assert (draft.tariff_id, draft.rules) == ("p", b"{}")


def test_the_plan_is_stored_verbatim_and_loads_again() -> None:
    plan = b'{"plan_id": "p", "currency": "EUR", "price": 1.475, "x_own": {"k": [1.10]}}'
    (draft,) = import_document(plan)
    built = build(draft, version=3, valid_from=NOW, time_zone="Europe/Berlin")
    assert plan in built.document
    again = load(built.document, 3)
    assert (again.plan, again.rules, again.valid_from, again.version) == (built.plan, built.rules, NOW, 3)
    assert again.plan.price == Decimal("1.475")


def test_a_document_holds_its_own_start_and_zone() -> None:
    (draft,) = import_document((DATA / "tariff_bike.json").read_bytes())
    built = build(draft, valid_from=NOW, time_zone="UTC")
    assert built.time_zone == "Asia/Shanghai"
    assert built.valid_from == datetime(2026, 10, 31, 16, tzinfo=UTC)


def test_numbers_as_strings_and_as_numbers_are_the_same_price() -> None:
    texts = tariff({"price": "1.50", **per_min("0.475", 1)})
    numbers = tariff({"price": 1.5, **per_min(0.475, 1)})
    assert texts.plan == numbers.plan


def test_a_name_in_several_languages_is_read() -> None:
    (draft,) = import_document((DATA / "plans/car_v3.1.json").read_bytes())
    name = build(draft, valid_from=NOW, time_zone="Europe/Berlin").plan.name
    assert [text_of(name, language) for language in ("de", "en", "zh")] == ["Stadtauto", "City car", "Stadtauto"]


SEGMENT = {"start": 0, "rate": 1, "interval": 1}
FEES = {f"z{number}": 1 for number in range(1001)}
NAMES = [f"n{number}" for number in range(101)]


@pytest.mark.parametrize(
    ("plan", "path"),
    [
        ({"price": "1,50"}, "/price"),
        ({"price": "NaN"}, "/price"),
        ({"price": "1e400"}, "/price"),
        ({"price": 10**13}, "/price"),
        ({"price": None}, "/price"),
        ({"price": True}, "/price"),
        ({"price": -1}, "/price"),
        ({"currency": "EUX"}, "/currency"),
        ({"currency": 5}, "/currency"),
        ({"is_taxable": "yes"}, "/is_taxable"),
        ({"is_taxable": True}, "/is_taxable"),
        ({"per_min_pricing": SEGMENT}, "/per_min_pricing"),
        ({"per_min_pricing": [SEGMENT, {"start": 0, "rate": 1}]}, "/per_min_pricing/1"),
        ({"per_km_pricing": [{**SEGMENT, "end": 0}]}, "/per_km_pricing/0/end"),
        ({"per_km_pricing": [{**SEGMENT, "interval": -1}]}, "/per_km_pricing/0/interval"),
        ({"per_min_pricing": [{**SEGMENT, "start": "1e-9"}]}, "/per_min_pricing/0/start"),
        ({"per_min_pricing": [{**SEGMENT, "rate": "1__0"}]}, "/per_min_pricing/0/rate"),
        ({"reservation_price_per_min": 1, "reservation_price_flat_rate": 1}, "/reservation_price_flat_rate"),
        ({"per_min_pricing": [SEGMENT] * 51}, "/per_min_pricing"),
        ({"per_km_pricing": [SEGMENT] * 51}, "/per_km_pricing"),
        ({"fare_capping": {"duration": "9.9", "price": 1}}, "/fare_capping/duration"),
        ({"fare_capping": {"duration": 60, "price": -1}}, "/fare_capping/price"),
    ],
)
def test_a_wrong_plan_is_refused_at_its_place_in_any_kind_of_document(plan: dict[str, Any], path: str) -> None:
    whole = {"plan_id": "p", "currency": "EUR", "price": 1, **plan}
    assert refusal(whole).path == path
    assert (
        refusal({"data": {"plans": [{"plan_id": "q", "currency": "EUR", "price": 1}, whole]}}).path
        == f"/data/plans/1{path}"
    )
    assert refusal({"tariff_id": "t", "plan": whole}).path == f"/plan{path}"


@pytest.mark.parametrize(
    ("rules", "path", "words"),
    [
        ({"ridemax": 30}, "/rules", "unknown rule `ridemax`"),
        ({"ride_max": -1}, "/rules/ride_max", "negative"),
        ({"day_cap": {"prize": 1}}, "/rules/day_cap", "prize"),
        ({"count": "rounded"}, "/rules/count", "invalid enum value"),
        ({"count": "completed", "grace_seconds": 30}, "/rules/grace_seconds", "no meaning"),
        ({"fare_min": 5, "ride_max": 4}, "/rules/fare_min", "above ride_max"),
        ({"free_minutes": "0.0000001"}, "/rules/free_minutes", "too fine"),
        ({"zone_fees": {"a/b": -1}}, "/rules/zone_fees/a~1b", "negative"),
        ({"windows": [{"segment": "/plan/per_min_pricing/0"}]}, "/rules/windows/0/segment", "no segment"),
        ({"windows": [{"segment": "/plan/price", "from": "25:00"}]}, "/rules/windows/0/from", "no time of day"),
        ({"windows": [{"segment": "/plan/price", "from": "24:00"}]}, "/rules/windows/0/from", "no time of day"),
        (
            {"windows": [{"segment": "/plan/price", "days": ["monday"]}]},
            "/rules/windows/0/days/0",
            "invalid enum value",
        ),
        ({"windows": [{"segment": "/plan/price", "days": []}]}, "/rules/windows/0/days", "no day"),
        ({"tax": {"rate": 13}}, "/rules/tax/rate", "no tax rate"),
        (
            {"tax": {"rate": 0.1, "lines": {"parking_fee": {"rate": -1}}}},
            "/rules/tax/lines/parking_fee/rate",
            "no tax rate",
        ),
        ({"discounts": [{"code": "x"}]}, "/rules/discounts/0", "amount or a share"),
        ({"discounts": [{"code": "x", "share": 2}]}, "/rules/discounts/0/share", "no share"),
        ({"discounts": [{"code": "x", "amount": -2}]}, "/rules/discounts/0/amount", "negative"),
        ({"lost_end": {"after_hours": 24, "charge": "ride_max"}}, "/rules/lost_end/charge", "no cap"),
        ({"lost_end": {"after_hours": 0, "charge": "review"}}, "/rules/lost_end/after_hours", "no length"),
        ({"pause_rate": [{"start": 5, "end": 5, "rate": 1, "interval": 1}]}, "/rules/pause_rate/0/end", "not after"),
        ({"lost_end": {"after_hours": 8785, "charge": "review"}}, "/rules/lost_end/after_hours", "too long"),
        ({"lost_end": {"after_hours": -1, "charge": "review"}}, "/rules/lost_end/after_hours", "negative"),
        ({"lost_end": {"after_hours": "0.0000001", "charge": "review"}}, "/rules/lost_end/after_hours", "too fine"),
        ({"default_reserve_time": 527041}, "/rules/default_reserve_time", "too long"),
        ({"free_abort_seconds": 31622401}, "/rules/free_abort_seconds", "too long"),
        ({"per_night": {"rate": 1, "check_out": "noon"}}, "/rules/per_night/check_out", "no time of day"),
        ({"per_night": {"rate": -1}}, "/rules/per_night/rate", "negative"),
        ({"windows": [{"segment": "/plan/price"}] * 51}, "/rules/windows", "length <= 50"),
        ({"windows": [{"segment": "/plan/price", "days": ["mon"] * 8}]}, "/rules/windows/0/days", "length <= 7"),
        ({"discounts": [{"code": "x", "share": 1}] * 51}, "/rules/discounts", "length <= 50"),
        ({"discounts": [{"code": "x", "share": 1, "hours": [{}] * 51}]}, "/rules/discounts/0/hours", "length <= 50"),
        ({"pause_rate": [SEGMENT] * 51}, "/rules/pause_rate", "length <= 50"),
        ({"zone_fees": FEES}, "/rules/zone_fees", "length <= 1000"),
        ({"parking_fees": FEES}, "/rules/parking_fees", "length <= 1000"),
        (
            {"discounts": [{"code": "x", "share": 1, "vehicle_types": NAMES}]},
            "/rules/discounts/0/vehicle_types",
            "length <= 100",
        ),
        (
            {"discounts": [{"code": "x", "share": 1, "parking_categories": NAMES}]},
            "/rules/discounts/0/parking_categories",
            "length <= 100",
        ),
    ],
)
def test_a_wrong_rule_is_refused_at_its_place(rules: dict[str, Any], path: str, words: str) -> None:
    error = refusal({"tariff_id": "t", "plan": {"currency": "EUR", "price": 1}, "rules": rules})
    assert error.path == path
    assert words in error.problem
    assert error.remedy


def test_a_tariff_is_at_most_64_kib_as_it_is_stored_and_a_feed_of_many_may_be_longer() -> None:
    plan = {"plan_id": "p", "currency": "EUR", "price": 1, "name": ""}
    (draft,) = import_document(json.dumps(plan).encode())
    spare = TARIFF_BYTES_MAX - len(build(draft, valid_from=NOW, time_zone="Asia/Shanghai").document)
    longest, longer = ({**plan, "name": "n" * length} for length in (spare, spare + 1))
    (draft,) = import_document(json.dumps(longest).encode())
    stored = build(draft, valid_from=NOW, time_zone="Asia/Shanghai").document
    assert len(stored) == TARIFF_BYTES_MAX
    assert load(stored, 1).document == stored
    for document, path in (
        (longer, ""),
        ({"tariff_id": "p", "plan": plan, "rules": {"zone_fees": {"z" * 70_000: 1}}}, ""),
        ({"data": {"plans": [longest, {**longer, "plan_id": "q"}]}}, "/data/plans/1"),
    ):
        error = refusal(document)
        assert error.path == path
        assert error.problem.startswith("the tariff has ")
        assert error.remedy == "give a tariff of at most 65536 bytes"


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (b"", ""),
        (b"\xff", ""),
        (b"[]", ""),
        ({}, ""),
        ({"data": {}}, "/data"),
        ({"data": {"plans": {}}}, "/data/plans"),
        ({"data": {"plans": [{"currency": "EUR", "price": 1}]}}, "/data/plans/0/plan_id"),
        ({"data": {"plans": [{"plan_id": "p", "currency": "EUR", "price": 1}] * 2}}, "/data/plans/1/plan_id"),
        ({"tariff_id": "", "plan": {}}, "/tariff_id"),
        ({"tariff_id": "a\u0000", "plan": {}}, "/tariff_id"),
        ({"tariff_id": "a b", "plan": {}}, "/tariff_id"),
        (b'{"plan_id": "p", "currency": "EUR", "price": 6.90, "price": 0.90}', ""),
        ({"tariff_id": "t", "plan": {"currency": "EUR", "price": 1}, "time_zone": "Mars/Olympus"}, "/time_zone"),
        (
            {"tariff_id": "t", "plan": {"currency": "EUR", "price": 1}, "valid_from": "2026-11-01T00:00:00"},
            "/valid_from",
        ),
        (
            {"tariff_id": "t", "plan": {"currency": "EUR", "price": 1}, "valid_from": "2200-01-01T00:00:00Z"},
            "/valid_from",
        ),
        ({"tariff_id": "t", "plan": {"currency": "EUR", "price": 1}, "rule": {}}, ""),
    ],
)
def test_what_is_no_tariff_document_is_refused(document: Any, path: str) -> None:
    assert refusal(document).path == path


@pytest.mark.parametrize(
    ("plan", "rules", "path"),
    [
        ({"price": 999_999_999_999}, {}, ""),
        ({"price": 999_999_999_999, "currency": "KWD"}, {}, "/plan/price"),
        ({"per_min_pricing": [{"start": 0, "rate": 9_000_000, "interval": 1}]}, {}, ""),
        ({"per_min_pricing": [{"start": 0, "rate": 10_000_000, "interval": 1}]}, {}, "/plan/per_min_pricing/0"),
        ({"per_min_pricing": [{"start": 0, "rate": 9_000, "interval": "0.001"}]}, {}, ""),
        ({"per_min_pricing": [{"start": 0, "rate": 10_000, "interval": "0.001"}]}, {}, "/plan/per_min_pricing/0"),
        ({"per_min_pricing": [{"start": 0, "rate": 999_999_999_999, "interval": 0}]}, {}, ""),
        ({"per_min_pricing": [{"start": 0, "rate": -999_999_999_999, "interval": 1}]}, {}, ""),
        ({"per_km_pricing": [{"start": 0, "rate": 3_000_000, "interval": 1}]}, {}, "/plan/per_km_pricing/0"),
        ({"reservation_price_per_min": 10_000_000}, {}, "/plan/reservation_price_per_min"),
        ({}, {"pause_rate": 10_000_000}, "/rules/pause_rate/0"),
        ({}, {"zone_fees": {"z": 99_999_999_999}}, "/rules/zone_fees"),
        ({}, {"per_night": {"rate": 99_999_999_999}}, "/rules/per_night/rate"),
    ],
)
def test_a_tariff_by_which_a_ride_costs_more_than_can_be_kept_is_refused(
    plan: dict[str, Any], rules: dict[str, Any], path: str
) -> None:
    document = {"tariff_id": "t", "plan": {"currency": "EUR", "price": 0} | plan, "rules": rules}
    if path:
        assert refusal(document).path == path
        return
    (draft,) = import_document(json.dumps(document).encode())
    dear = build(draft, valid_from=NOW, time_zone="Asia/Shanghai")
    longest = timedelta(hours=LENGTH_HOURS_MAX)
    used = Usage(
        started_at=NOW,
        ended_at=NOW + longest,
        duration_us=longest // timedelta(microseconds=1),
        meters=METERS_MAX,
        zone_fees=("z",) * ZONES_MAX,
    )
    assert rate(used, dear).total_minor < KEPT_MAX_MINOR


def test_a_fee_is_an_amount_whatever_its_zone_is_called() -> None:
    document = {
        "tariff_id": "t",
        "plan": {"currency": "IDR", "price": 1},
        "rules": {"zone_fees": {"night_time": 600000}},
    }
    (draft,) = import_document(json.dumps(document).encode())
    assert build(draft, valid_from=NOW, time_zone="Asia/Jakarta").rules.zone_fees == {"night_time": 600000}


def test_a_refusal_can_be_printed_whatever_it_quotes() -> None:
    assert refusal({"tariff_id": "t", "plan": {"currency": "EUR", "price": 1}, "ru\x1b[1mles\0": {}}).problem == (
        "object contains unknown field `ru\\x1b[1mles\\x00`"
    )
    assert refusal({"plans": {"a\0": {}}}).path.isprintable()


def test_a_tariff_needs_a_start_and_a_zone_from_somewhere() -> None:
    (draft,) = import_document(b'{"plan_id": "p", "currency": "EUR", "price": 1}')
    with pytest.raises(TariffError, match="valid_from"):
        build(draft, time_zone="UTC")
    with pytest.raises(TariffError, match="time_zone"):
        build(draft, valid_from=NOW)


def test_the_version_in_force_is_the_last_to_have_begun() -> None:
    (draft,) = import_document(b'{"plan_id": "p", "currency": "EUR", "price": 1}')
    versions = [
        build(draft, version=number, valid_from=NOW + timedelta(days=number), time_zone="UTC") for number in (2, 1, 3)
    ]
    at = [NOW, NOW + timedelta(days=1), NOW + timedelta(days=2, hours=-1), NOW + timedelta(days=9)]
    known = catalog_of(versions)
    found = [known.tariff_at(1, "p", instant) for instant in at]
    assert [version.version if version else None for version in found] == [None, 1, 1, 3]


def test_of_two_versions_that_begin_together_the_later_one_holds() -> None:
    (draft,) = import_document(b'{"plan_id": "p", "currency": "EUR", "price": 1}')
    versions = [build(draft, version=number, valid_from=NOW, time_zone="UTC") for number in (2, 1)]
    found = catalog_of(versions).tariff_at(1, "p", NOW)
    assert found is not None
    assert found.version == 2


def catalog_of(versions: list[Tariff]) -> Catalog:
    """What a process knows that has read these versions, in this order."""
    known = Catalog()
    known.add_tariffs({(1, "p"): [TariffVersion(1, one.version, one.valid_from, one) for one in versions]})
    return known


def test_only_a_first_version_may_begin_before_everybody_knows_it() -> None:
    lead = timedelta(minutes=10)
    assert valid_from_problem(NOW - timedelta(days=1), NOW, lead, first=True) is None
    assert "too soon" in (valid_from_problem(NOW + lead, NOW, lead, first=False) or "")
    assert valid_from_problem(NOW + lead + timedelta(seconds=1), NOW, lead, first=False) is None


def test_what_a_tariff_says_beyond_fares_has_defaults() -> None:
    bare = tariff()
    assert (lost_end_rule(bare).after, lost_end_rule(bare).charge) == (timedelta(hours=24), "review")
    assert longest_reservation(bare) == timedelta(hours=24)
    assert (free_abort(bare), has_balance_rules(bare)) == (None, False)
    full = tariff(
        rules={
            "lost_end": {"after_hours": "1.5", "charge": "last_sign"},
            "default_reserve_time": 15,
            "free_abort_seconds": 60,
            "ride_max": "30.00",
            "month_cap": 100,
        }
    )
    assert (lost_end_rule(full).after, lost_end_rule(full).charge) == (timedelta(minutes=90), "last_sign")
    assert longest_reservation(full) == timedelta(minutes=15)
    assert (free_abort(full), has_balance_rules(full)) == (timedelta(seconds=60), True)
