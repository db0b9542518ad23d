"""The offline tariff commands, run as a user runs them."""

from __future__ import annotations

import csv
import json
import socket
import subprocess
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import nursery
import pytest
import rich_click as click
from click.testing import CliRunner

from service.cli.tariffs import register

DATA = Path(__file__).parent.parent / "data"
BIKES = str(DATA / "plans/bike_v2.2.json")
TRIPS = str(DATA / "trips/small.csv")
CARS = str(DATA.parent.parent / "service/lab/data/tariffs/car.json")


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def farebox(*arguments: str) -> Done:
    group = click.Group("farebox")
    register(group)
    result = CliRunner().invoke(group, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return Done(result.exit_code, result.stdout, result.stderr)


def test_the_projects_own_worked_fares_agree() -> None:
    command = nursery.farebox("fares", DATA / "fares.json")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "12 passed, 0 failed\n"
    assert done.returncode == 0


def test_a_fare_that_disagrees_shows_its_lines_and_fails(tmp_path: Path) -> None:
    plan = {"currency": "EUR", "price": "2.00", "per_min_pricing": [{"start": 0, "rate": "1.475", "interval": 15}]}
    fares = [
        {"id": "right", "plan": plan, "duration_s": 0, "distance_m": 0, "expected": "2.00"},
        {"id": "wrong", "plan": plan, "duration_s": 60, "distance_m": 0, "expected": "3.47"},
        {"id": "broken", "plan": {**plan, "price": "x"}, "duration_s": 60, "distance_m": 0, "expected": "3.47"},
        {"id": "never", "plan": plan, "duration_s": 60, "expected": "3.47", "started_at": "0001-01-01T00:00:00+14:00"},
    ]
    file = tmp_path / "fares.json"
    file.write_text(json.dumps({"fares": fares}))
    done = farebox("fares", str(file))
    assert done.returncode == 1
    assert "FAILED wrong: expected 3.47 EUR, got 3.48" in done.stdout
    assert "/plan/per_min_pricing/0" in done.stdout
    assert "FAILED broken: /plan/price" in done.stdout
    assert "FAILED never: started_at is outside the years 1970 to 2199" in done.stdout
    assert done.stdout.endswith("1 passed, 3 failed\n")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"duration_s": "1e-7"}, "duration_s: 1E-7 is too fine"),
        ({"duration_s": -1}, "duration_s: -1 is out of range"),
        ({"reserved_s": "NaN"}, "reserved_s: 'NaN' is not a number"),
        ({"expected": "NaN"}, "expected: 'NaN' is not a number; give an amount such as 6.90"),
        ({"time_zone": "Mars"}, "/time_zone"),
    ],
)
def test_a_fare_that_cannot_be_rated_fails_by_name_and_the_others_are_looked_at(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    right = {"id": "right", "plan": {"currency": "EUR", "price": "2.00"}, "duration_s": 0, "expected": "2"}
    file = tmp_path / "fares.json"
    file.write_text(json.dumps({"fares": [{**right, "id": "wrong", **change}, right]}))
    done = farebox("fares", str(file))
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(f"FAILED wrong: {said}")
    assert done.stdout.endswith("1 passed, 1 failed\n")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"distance_m": -1}, "fares[0].distance_m: expected a whole number >= 0"),
        ({"disance_m": 1}, "fares[0]: object contains unknown field `disance_m`; allowed are id, plan"),
    ],
)
def test_a_file_of_fares_with_a_field_that_is_none_is_refused(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    fare = {"id": "one", "plan": {"currency": "EUR", "price": "2.00"}, "duration_s": 0, "expected": "2"}
    file = tmp_path / "fares.json"
    file.write_text(json.dumps({"fares": [fare | change]}))
    done = farebox("fares", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"farebox: {file}: {said}")


def test_a_quote_is_lines_and_a_total_in_minor_units() -> None:
    done = farebox("quote", "--plan", BIKES, "--plan-id", "ebike", "--seconds", "61", "--json")
    told = json.loads(done.stdout)
    assert (told["currency"], told["amount_minor"]) == ("CNY", 295)
    assert [(line["code"], line["quantity"], line["unit_price"], line["amount"]) for line in told["lines"]] == [
        ("price", "1", "2", "2"),
        ("per_min", "2", "0.475", "0.950"),
    ]
    assert done.returncode == 0


def test_a_quote_for_people_names_rule_and_total() -> None:
    done = farebox(
        "quote", "--plan", str(DATA / "tariff_bike.json"), "--seconds", "30", "--at", "2026-11-22T12:00:00+08:00"
    )
    assert "free_abort" in done.stdout
    assert done.stdout.endswith("total 0.00 CNY\n")


def test_a_ride_before_its_tariff_begins_has_no_price(tmp_path: Path) -> None:
    """It was priced without a word; a plan that names no start holds at any time."""
    bike = str(DATA / "tariff_bike.json")
    said = "tariff 'bike-std' holds from 2026-11-01T00:00:00+08:00 on, and a ride begins at 2026-10-31T23:59:59+08:00"
    done = farebox("quote", "--plan", bike, "--seconds", "30", "--at", "2026-10-31T15:59:59Z")
    assert done == (2, "", f"farebox: --at: {said}; give an instant from then on\n")
    assert farebox("quote", "--plan", bike, "--seconds", "30", "--at", "2026-10-31T16:00:00Z").returncode == 0
    old = ("quote", "--plan", BIKES, "--plan-id", "bike", "--seconds", "30", "--at", "2013-06-01T00:00:00-04:00")
    assert farebox(*old).returncode == 0
    trips = tmp_path / "trips.csv"
    trips.write_text("ride_id,started_at,ended_at\nfirst,2026-10-31 23:59:59,2026-11-01 00:09:59\n")
    done = farebox("replay", str(trips), "--plan", bike, "--time-zone", "Asia/Shanghai")
    told = f"farebox: {trips}: {said}, first: replay it on the tariff that held then; nothing was written\n"
    assert done == (2, "", told)
    trips.write_text(trips.read_text().replace("2026-10-31 23:59:59", "2026-11-01 00:00:00"))
    assert farebox("replay", str(trips), "--plan", bike, "--time-zone", "Asia/Shanghai").returncode == 0


def test_what_a_quote_assumes_is_told_in_the_tariffs_zone(tmp_path: Path) -> None:
    tariff = json.loads((DATA / "tariff_bike.json").read_text())
    tariff["rules"]["windows"] = [{"segment": "/plan/per_min_pricing/0", "from": "22:00", "to": "06:00"}]
    (tmp_path / "night.json").write_text(json.dumps(tariff))
    done = farebox("quote", "--plan", str(tmp_path / "night.json"), "--seconds", "60")
    assert "assumed: the ride starts at 2026-11-01 00:00:00+08:00; say when with --at" in done.stderr


def test_a_quote_of_years_is_a_few_lines_for_people_and_every_line_in_json() -> None:
    """A day cap has a line for each day: alike but for the day, they are one with their exact sum."""
    asked = ("quote", "--plan", CARS, "--seconds", str(1041 * 86_400), "--at", "2026-11-22T18:30:00+01:00")
    lines = json.loads(farebox(*asked, "--json").stdout)["lines"]
    caps = [Decimal(line["amount"]) for line in lines if line["code"] == "day_cap"]
    assert (len(caps), caps[1], set(caps[1:])) == (1041, Decimal("-305.00"), {Decimal("-305.00")})
    rows = [line.split() for line in farebox(*asked).stdout.splitlines()]
    assert [row[0] for row in rows] == ["per_min", "day_cap", "day_cap", "total"]
    assert rows[1][1:] == ["1", "window", "x", "-273.50", "-273.50", "/rules/day_cap", "[day:city-car:2026-11-23]"]
    assert rows[2][1:6] == ["1040", "window", "x", "-305.00", str(sum(caps[1:]))]
    assert " ".join(rows[2][7:]) == "[day:city-car:2026-11-24 to day:city-car:2029-09-28, 1040 lines]"
    assert sum(Decimal(row[5]) for row in rows[:-1]) == Decimal(rows[-1][1])


def test_a_tariff_comes_on_standard_input_even_where_that_cannot_be_opened_again() -> None:
    """As in a container, whose standard input is a socket or another user's pipe: `/dev/stdin` is refused there."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(Path(CARS).read_bytes())
        ours.shutdown(socket.SHUT_WR)
        command = nursery.farebox("quote", "--plan", "-", "--seconds", "60")
        done = subprocess.run(command, stdin=theirs.fileno(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1].split()[:1]) == (0, ["total"]), done.stderr


def test_a_quote_counts_distance_and_hours_of_the_day(tmp_path: Path) -> None:
    plan = {"plan_id": "p", "currency": "EUR", "price": 0, "per_km_pricing": [{"start": 0, "rate": 1, "interval": 1}]}
    rules = {"windows": [{"segment": "/plan/per_km_pricing/0", "from": "22:00", "to": "06:00"}]}
    file = tmp_path / "night.json"
    file.write_text(json.dumps({"tariff_id": "p", "plan": plan, "rules": rules}))
    common = (
        "quote",
        "--plan",
        str(file),
        "--seconds",
        "60",
        "--meters",
        "1500",
        "--json",
        "--time-zone",
        "Europe/Berlin",
    )
    night = json.loads(farebox(*common, "--at", "2026-11-22T23:00:00+01:00").stdout)
    day = json.loads(farebox(*common, "--at", "2026-11-22T23:00:00+09:00").stdout)
    assert (night["amount_minor"], day["amount_minor"]) == (200, 0)


def replayed(*arguments: str) -> list[dict[str, Any]]:
    done = farebox("replay", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_replay_agrees_with_a_few_lines_of_arithmetic() -> None:
    zone = ZoneInfo("America/New_York")
    with Path(TRIPS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    trips = replayed(TRIPS, "--plan", BIKES, "--plan-id", "bike", "--time-zone", "America/New_York")
    assert [trip["session_id"] for trip in trips] == [row["ride_id"] for row in rows]
    for row, trip in zip(rows, trips, strict=True):
        start, end = (
            datetime.fromisoformat(row[name]).replace(tzinfo=zone).timestamp() for name in ("started_at", "ended_at")
        )
        seconds = end - start
        assert trip["seconds"] == seconds
        assert (trip["meters"], trip["currency"]) == (0, "CNY")
        if seconds < 0:
            assert (trip["amount_minor"], trip["reason"]) == (None, "ended_before_start")
        elif seconds > 720 * 3600:
            assert (trip["amount_minor"], trip["reason"]) == (None, "longer_than_ride_hours_max")
        else:
            begun = sum(1 for block in range(3000) if 900 + block * 900 < seconds)
            assert trip["amount_minor"] == 150 + 100 * begun


def test_a_replay_counts_metres_where_the_file_has_them() -> None:
    car = str(DATA / "plans/car_v3.1.json")
    trips = replayed(str(DATA / "trips/distances.csv"), "--plan", car, "--time-zone", "Europe/Berlin")
    assert [(trip["meters"], trip["amount_minor"], trip.get("reason")) for trip in trips] == [
        (5000, 725, None),
        (0, 600, None),
        (-1, None, "negative_distance"),
    ]
    done = farebox("replay", str(DATA / "trips/distances.csv"), "--plan", car, "--time-zone", "Europe/Berlin")
    assert done.stderr.endswith("replay: 1 without a distance, taken as 0\n")
    bike = farebox("replay", TRIPS, "--plan", BIKES, "--plan-id", "bike", "--time-zone", "America/New_York")
    assert "without a distance" not in bike.stderr


def test_a_replay_writes_its_file_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    common = ("--plan", BIKES, "--plan-id", "bike", "--time-zone", "America/New_York", "--json-lines", str(out))
    done = farebox("replay", TRIPS, *common)
    assert (done.returncode, done.stdout, len(out.read_text().splitlines())) == (0, "", 9)
    assert "9 trips, 7 priced, 2 to review" in done.stderr
    bad = tmp_path / "bad.csv"
    bad.write_text(Path(TRIPS).read_text() + "R1,bike,2026-03-02 25:00:00,2026-03-02 09:00:00,,,,,,,,,\n")
    before = out.read_text()
    nowhere = str(tmp_path / "none" / "x.jsonl")
    done = farebox("replay", TRIPS, *common[:-1], nowhere)
    assert (done.returncode, done.stderr) == (
        2,
        f"farebox: {nowhere}: No such file or directory; nothing was written\n",
    )
    done = farebox("replay", str(bad), *common)
    assert done.returncode == 2
    assert f"{bad}:11: started_at '2026-03-02 25:00:00'" in done.stderr
    assert "nothing was written" in done.stderr
    assert (out.read_text(), sorted(path.name for path in tmp_path.iterdir())) == (before, ["bad.csv", "out.jsonl"])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("R1,2026-03-02 08:00:00", "not as many cells"),
        ("R1,2026-03-02 08:00:00,2026-03-02 09:00:00,1,2", "not as many cells"),
        (",2026-03-02 08:00:00,2026-03-02 09:00:00,1", "ride_id: allowed are 1 to 64 visible characters"),
        ("R1\x1b[1m,2026-03-02 08:00:00,2026-03-02 09:00:00,1", "ride_id: allowed are 1 to 64 visible characters"),
        ("R1,2026-03-02 08:00:00,9999-12-31 09:00:00,1", "is outside the years 1970 to 2199"),
        ("R1,2026-03-02 08:00:00,,1", "ended_at ''"),
        ("R1,2026-03-02 08:00:00,2026-03-02 09:00:00,far", "distance_m 'far'"),
    ],
)
def test_a_row_that_cant_be_read_is_named_by_line_and_column(tmp_path: Path, row: str, words: str) -> None:
    file = tmp_path / "trips.csv"
    file.write_text(f"ride_id,started_at,ended_at,distance_m\n{row}\n")
    done = farebox("replay", str(file), "--plan", BIKES, "--plan-id", "bike", "--time-zone", "UTC")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{file}:2" in done.stderr
    assert words in done.stderr


def test_lint_says_what_is_odd_and_fails_only_for_errors() -> None:
    odd = farebox("tariff", "lint", str(DATA / "plans/odd_v2.3.json"))
    assert odd.returncode == 1
    assert odd.stdout.endswith("3 errors, 12 warnings\n")
    assert "warning: /data/plans/0/per_km_pricing/1/start (gap): nothing is charged from km 100 to km 101" in odd.stdout
    fine = farebox("tariff", "lint", BIKES)
    assert (fine.returncode, fine.stdout) == (0, "0 errors, 0 warnings\n")
    dear = farebox("tariff", "lint", str(DATA / "tariff_bike.json"), "--debit-max", "20.00")
    assert (dear.returncode, "/rules/ride_max" in dear.stdout) == (1, True)
    endless = farebox("tariff", "lint", BIKES, "--debit-max", "1000")
    assert (endless.returncode, endless.stdout.count("[no_maximum]")) == (1, 2)
    assert endless.stdout.endswith("\n2 errors, 0 warnings\n")


def test_a_diff_says_what_changes() -> None:
    done = farebox("tariff", "diff", str(DATA / "tariff_bike.json"), str(DATA / "tariff_bike_dearer.json"))
    assert done.returncode == 0
    assert '/plan/per_min_pricing/0/rate: "1" -> "1.2"' in done.stdout
    assert "ride of 30 min: 2.50 CNY -> 2.70 CNY" in done.stdout
    other = farebox("tariff", "diff", BIKES, str(DATA / "plans/car_v3.1.json"))
    assert other.stdout == "bike: removed\nebike: removed\ncar: added\n"


def test_a_file_without_a_worked_fare_proves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "fares.json"
    file.write_text('{"fares": []}')
    assert farebox("fares", str(file)) == (2, "", f"farebox: {file}: there is no case in it; give at least one fare\n")


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        (
            "ride_id,started_at,ended_at,ride_id",
            ["1,{0},{0},2"],
            ": the column 'ride_id' stands twice in the first line",
        ),
        ("ride_id,started_at,ended_at", ["1,{0},{0}", "2,{0},{0}", "1,{0},{0}"], ":4: ride_id: the same as on line 2"),
    ],
)
def test_trips_that_say_something_twice_are_refused(tmp_path: Path, header: str, rows: list[str], said: str) -> None:
    file = tmp_path / "trips.csv"
    file.write_text("\n".join([header, *rows]).format("2026-11-22 18:30:00"))
    done = farebox("replay", str(file), "--plan", BIKES, "--plan-id", "bike", "--time-zone", "UTC")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{file}{said}" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fares", "missing.json"), "missing.json"),
        (("fares", TRIPS), "fares"),
        (("quote", "--plan", "missing.json", "--seconds", "1"), "missing.json"),
        (("quote", "--plan", BIKES, "--seconds", "1"), "one of bike, ebike"),
        (("quote", "--plan", BIKES, "--plan-id", "boat", "--seconds", "1"), "no plan 'boat'"),
        (("quote", "--plan", TRIPS, "--seconds", "1"), "not JSON"),
        (("quote", "--plan", BIKES, "--plan-id", "bike", "--seconds", "-1"), "out of range"),
        (("quote", "--plan", BIKES, "--plan-id", "bike", "--seconds", "1e99"), "out of range"),
        (("quote", "--plan", BIKES, "--plan-id", "bike", "--seconds", "NaN"), "not a number"),
        (("quote", "--plan", BIKES, "--plan-id", "bike", "--seconds", "5000000000"), "give 0 to 3162240000"),
        (("quote", "--plan", BIKES, "--plan-id", "bike", "--seconds", "1", "--meters", "2147483648"), "2147483647"),
        (("quote", "--plan", BIKES, "--plan-id", "bike", "--seconds", "1", "--meters", "-1"), "negative"),
        (("quote", "--plan", BIKES, "--plan-id", "bike", "--seconds", "1", "--at", "noon"), "RFC 3339"),
        (
            ("quote", "--plan", BIKES, "--plan-id", "bike", "--seconds", "1", "--at", "2026-11-22T12:00:00"),
            "its offset",
        ),
        (("quote", "--plan", BIKES, "--plan-id", "bike", "--seconds", "1", "--time-zone", "Mars"), "tz database"),
        (("replay", "missing.csv", "--plan", BIKES, "--plan-id", "bike", "--time-zone", "UTC"), "missing.csv"),
        (("replay", BIKES, "--plan", BIKES, "--plan-id", "bike", "--time-zone", "UTC"), "no column ride_id"),
        (("replay", TRIPS, "--plan", BIKES, "--plan-id", "bike", "--time-zone", "Mars"), "tz database"),
        (("tariff", "lint", "missing.json"), "missing.json"),
        (("tariff", "lint", BIKES, "--debit-max", "much"), "--debit-max"),
        (("tariff", "diff", BIKES, "missing.json"), "missing.json"),
    ],
)
def test_input_that_cant_be_used_is_one_line_and_exit_2(arguments: tuple[str, ...], words: str) -> None:
    done = farebox(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
