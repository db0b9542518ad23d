"""The doors of whoever runs it: tariffs and GBFS feeds, files that are brought over, trips, settings, accounts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from os import fsdecode
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
from fuzz_parts import DATA, EXAMPLES, TOP, Door, in_words, parts, room, storable
from ride_builders import tariff as bike

from service.adapters.csv_file import Columns, CsvFileError, Line, read_lines
from service.adapters.providers import PROVIDER_NAMES, declared_capabilities
from service.adapters.providers.port import MerchantAccount
from service.adapters.providers.secrets import AccountSettingsError
from service.billing.agreements.asking import AskError
from service.billing.linting import lint, lint_document
from service.billing.linting.changes import changes, fare_changes
from service.billing.money import exponent
from service.billing.rating import rate
from service.billing.sessions import Usage
from service.billing.tariffs import (
    Tariff,
    TariffError,
    build,
    free_abort,
    import_document,
    load,
    longest_reservation,
    lost_end_rule,
)
from service.flows.imports.lines import AGREEMENT_COLUMNS, DEBT_COLUMNS, agreement_line, debt_line
from service.lab.replay import TripsError, price_trip, read_trips
from service.settings import SettingsError, read_settings

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
SHANGHAI = ZoneInfo("Asia/Shanghai")
PLANS_MAX = 4
RIDES = (
    (timedelta(0), 0),
    (timedelta(seconds=61), 999),
    (timedelta(minutes=59, seconds=59, microseconds=1), 12_345),
    (timedelta(hours=30), 100_000),
    (timedelta(days=30), 2**31 - 1),
)
"""How long and how far the rides are that a tariff is tried with: as the doors allow."""
TARIFF_WORDS = (
    *("per_min_pricing", "per_km_pricing", "start", "end", "rate", "interval", "reservation_price_per_min"),
    *("reservation_price_flat_rate", "fare_capping", "duration", "price", "is_taxable", "surge_pricing", "rules"),
    *("free_abort_seconds", "grace_seconds", "count", "completed", "fare_min", "ride_max", "day_cap", "month_cap"),
    *("free_minutes", "windows", "segment", "from", "to", "days", "pause_rate", "zone_fees", "parking_fees", "tax"),
    *(
        "included",
        "lines",
        "discounts",
        "share",
        "amount",
        "hours",
        "lost_end",
        "after_hours",
        "per_night",
        "check_out",
    ),
    *("default_reserve_time", "999999999999", "0.000000000001", "1e11", "1e-12", "-1", "KWD", "JPY", "valid_from"),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "America/New_York", "\\ud800", "\\u0000", "24:00"),
)


def enter_tariff(data: bytes) -> None:
    """A document is a tariff that can be stored, read back, explained and charged with, or refused with a place."""
    for finding in lint_document(data):
        in_words(finding.message)
        storable(finding)
    try:
        drafts = import_document(data)
    except TariffError as error:
        in_words(str(error))
        return
    for draft in drafts[:PLANS_MAX]:
        try:
            tariff = build(draft, valid_from=NOW, time_zone="Asia/Shanghai")
        except TariffError as error:
            in_words(str(error))
        else:
            _usable(tariff)


def _usable(tariff: Tariff) -> None:
    storable([tariff.tariff_id, tariff.document.decode()])
    assert b"\\u0000" not in tariff.document, "jsonb takes no NUL"
    again = load(tariff.document, 1)
    assert (again.plan, again.rules, again.valid_from) == (tariff.plan, tariff.rules, tariff.valid_from)
    for rule in (lost_end_rule(tariff).after, free_abort(tariff), longest_reservation(tariff)):
        assert rule is None or NOW + rule
    for length, meters in RIDES:
        micros = length // timedelta(microseconds=1)
        usage = Usage(started_at=NOW, ended_at=NOW + length, duration_us=micros, meters=meters, reserved_us=61_000_000)
        charge = rate(usage, tariff)
        storable(charge)
        places = 10**12
        assert sum(line.amount for line in charge.lines) * places == charge.total_minor * places // _unit(tariff), (
            charge
        )
    if tariff.currency == "CNY":
        changes(_bike(), tariff)
        fare_changes(_bike(), tariff)
    lint(tariff, 1_000)


@cache
def _bike() -> Tariff:
    return bike()


def _unit(tariff: Tariff) -> int:
    return int(10 ** exponent(tariff.currency))


def _file(data: bytes) -> Path:
    path = room() / "file.csv"
    path.write_bytes(data)
    return path


def enter_lines(columns: Columns, read: Callable[[Line], object], data: bytes) -> None:
    """A file that is brought over: each line is taken whole, or refused by its number, column and reason."""
    try:
        for line in read_lines(_file(data), columns):
            try:
                storable(read(line))
            except AskError as error:
                in_words(error.message)
                assert error.field in ("", *columns.known)
    except CsvFileError as error:
        in_words(str(error))


def enter_trips(data: bytes) -> None:
    """An export of trips: each is priced, or the file is refused by line and column."""
    try:
        for trip in read_trips(_file(data), SHANGHAI):
            msgspec.json.encode(price_trip(trip, _bike()))
    except TripsError as error:
        assert str(error).strip()


def enter_settings(data: bytes) -> None:
    """The environment, a line for each variable."""
    named, _ = parts(data)
    environment = {fsdecode(name): fsdecode(value) for name, value in named if b"\0" not in name + value}
    try:
        settings = read_settings({"FAREBOX_KAFKA_BOOTSTRAP": "k:1", **environment})
    except SettingsError as error:
        assert str(error).splitlines() == [str(error)]
    else:
        assert "pssst" not in f"{settings!r} {settings} {settings.brokers!r}"


def enter_account(data: bytes) -> None:
    """The settings of a merchant account at each provider, as `farebox account add --setting` takes them."""
    try:
        settings = msgspec.json.decode(data, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return
    for provider in PROVIDER_NAMES:
        try:
            storable(declared_capabilities(MerchantAccount(1, "city", provider, "http://127.0.0.1", settings)))
        except AccountSettingsError as error:
            assert "merchant account city" in str(error)


def seeds_of_tariffs() -> list[bytes]:
    """Every tariff and feed of the repository, and one with every rule."""
    files = [*sorted(DATA.glob("plans/*.json")), *sorted(DATA.glob("tariff_*.json"))]
    files += sorted((TOP / "service" / "lab" / "data" / "tariffs").glob("*.json"))
    return [*(file.read_bytes() for file in files), msgspec.json.encode(EVERY_RULE)]


def seeds_of_trips() -> list[bytes]:
    """The exports of the tests, a few trips of each."""
    texts = [file.read_bytes() for file in sorted(DATA.glob("trips/*.csv"))]
    return [*texts, b"ride_id,started_at,ended_at,distance_m\nr,2026-11-22 18:30:00,2026-11-22T19:00:00+08:00,1234.5\n"]


def seeds_of_settings() -> list[bytes]:
    """A good environment with everything set, another with SASL."""
    url = b"FAREBOX_DATABASE_URL: postgresql://u:pssst@h/f"
    sasl = b"FAREBOX_KAFKA_SECURITY_PROTOCOL: SASL_SSL\nFAREBOX_KAFKA_USER: u\nFAREBOX_KAFKA_PASSWORD: pssst"
    knobs = b"FAREBOX_HTTP_PORT: 8080\nFAREBOX_STALL_SECONDS: 1.5\nFAREBOX_START_FROM: 2026-11-01T00:00:00+08:00"
    return [url, url + b"\n" + sasl, url + b"\n" + knobs + b"\nFAREBOX_TIME_ZONE: Europe/Berlin"]


EVERY_RULE = {
    "tariff_id": "all",
    "valid_from": "2026-11-01T00:00:00+01:00",
    "time_zone": "Europe/Berlin",
    "plan": {
        "plan_id": "all",
        "name": [{"text": "All", "language": "en"}],
        "currency": "EUR",
        "price": "1.00",
        "is_taxable": True,
        "description": "1.00, then 0.20 per minute",
        "per_min_pricing": [
            {"start": 0, "end": 60, "rate": 0.2, "interval": 1},
            {"start": 60, "rate": 1, "interval": 0},
        ],
        "per_km_pricing": [{"start": 2, "rate": "0.5", "interval": 1}],
        "fare_capping": {"duration": 1440, "price": "30.00"},
        "reservation_price_per_min": "0.05",
    },
    "rules": {
        "free_abort_seconds": 60,
        "grace_seconds": 30,
        "fare_min": "0.50",
        "ride_max": {"price": "50"},
        "day_cap": {"price": "59.00"},
        "month_cap": "300",
        "free_minutes": {"minutes": 5, "price": "kept"},
        "windows": [{"segment": "/plan/per_min_pricing/0", "from": "22:00", "to": "06:00", "days": ["fri"]}],
        "pause_rate": [{"start": 0, "rate": "0.1", "interval": 1}],
        "zone_fees": {"OUT": "5"},
        "parking_fees": {"invalid": "3"},
        "tax": {"rate": "0.19", "lines": {"zone_fee": {"rate": "0.07"}}},
        "discounts": [{"code": "early", "share": "0.1", "hours": [{"from": "05:00", "to": "07:00"}]}],
        "lost_end": {"after_hours": 24, "charge": "ride_max"},
        "per_night": {"rate": "10", "check_out": "11:00", "late": "half_day"},
        "default_reserve_time": 15,
    },
}
ACCOUNTS = (
    b'{"product":"zhima","app_id":"2021000122671080","seller_id":"2088","notify_url":"https://e.test/n",'
    b'"zm_service_id":"1","category_id":"RENT_BICYCLE","app_private_key_file":"a","alipay_public_key_file":"b"}',
    b'{"mchid":"1900007291","appid":"wx","service_id":"2002","merchant_serial_no":"1D","notify_url":"https://e.test/n",'
    b'"service_introduction":"x","merchant_private_key_file":"a","api_v3_key_file":"b","public_key_id":"PUB_KEY_ID_1"}',
    b'{"secret_key_env":"STRIPE_KEY","webhook_secret_env":"W","currency":"EUR","mode":"test","timeout_s":5}',
    b'{"api_key_env":"K","notify_secret_env":"S","capabilities":{"holds":"optional"},"connections_max":8}',
)
AGREEMENTS = partial(enter_lines, AGREEMENT_COLUMNS, lambda line: agreement_line(line, "city", NOW))
DEBTS = partial(enter_lines, DEBT_COLUMNS, lambda line: debt_line(line, NOW))
CSV_WORDS = ('"', '""', "\r\n", "\ufeff", ",,", "'", "2026-11-22T18:30:00+08:00", "provider_key", "cap_minor", "\x00")
DOORS = (
    Door("tariff", enter_tariff, seeds_of_tariffs, 700, TARIFF_WORDS),
    Door("agreements", AGREEMENTS, lambda: [(EXAMPLES / "imports/agreements.csv").read_bytes()], 4_000, CSV_WORDS),
    Door("debts", DEBTS, lambda: [(EXAMPLES / "imports/debts.csv").read_bytes()], 4_000, CSV_WORDS),
    Door("trips", enter_trips, seeds_of_trips, 3_000, CSV_WORDS),
    Door("settings", enter_settings, seeds_of_settings, 3_000, ("FAREBOX_HTTP_RIDER_RATE", "nan", "1e400", "inf")),
    Door("account", enter_account, lambda: ACCOUNTS, 4_000, ("calls_per_second", "1e400", "capabilities", "_file")),
)
