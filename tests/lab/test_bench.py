"""What the bench measures is what is really there; how fast it is is no test."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from service.adapters.postgres import QUERIES, connect
from service.adapters.postgres.rides import REVISION_COLUMNS
from service.lab.bench_keys import COLUMNS, FILL, key_of, key_rows
from service.lab.bench_partitions import BATCH, fill_months, right_edge
from service.lab.measure import Machine, Report, Section, Spread, show, spread, this_machine, write

if TYPE_CHECKING:
    from service.adapters.postgres import Connection

SINCE = datetime(2026, 11, 1, tzinfo=UTC)  # The month at which a test's database was migrated.


@pytest.fixture(scope="module")
async def connection(database_url: str) -> AsyncIterator[Connection]:
    connection = await connect(database_url, name="test")
    yield connection
    await connection.close()


@given(st.lists(st.floats(min_value=0, max_value=10), min_size=1), st.integers(min_value=1, max_value=10_000))
def test_a_spread_lies_between_the_fastest_and_the_slowest(seconds: list[float], size: int) -> None:
    cost = spread(seconds, size)
    low, high = 1e6 * min(seconds) / size, 1e6 * max(seconds) / size
    slack = 1e-9 * high
    assert all(low - slack <= figure <= high + slack for figure in (cost.median, cost.mean, cost.p90))


def test_a_report_is_written_and_shown_whole(tmp_path: Path) -> None:
    section = Section("Keys", ("there", "µs"), [(20_000_000, Spread(1.25, 2.0, 3.0))])
    report = Report(this_machine(), {"fsync": "on"}, [section])
    write(report, tmp_path / "new" / "report.json")
    written = msgspec.json.decode((tmp_path / "new" / "report.json").read_bytes())
    assert msgspec.convert(written["machine"], Machine) == report.machine
    assert written["sections"][0]["rows"] == [[20_000_000, {"median": 1.25, "mean": 2.0, "p90": 3.0}]]
    screen = io.StringIO()
    show(report, Console(file=screen, width=100))
    assert all(text in screen.getvalue() for text in ("fsync on", "20,000,000", "1.2 (2.0, 3.0)"))


async def test_keys_that_fill_the_table_are_found_by_their_numbers(connection: Connection) -> None:
    await connection.execute(FILL, 0, 9)
    copied = io.BytesIO(key_rows(range(10, 20), in_order=True, binary=False))
    await connection.copy_to_table("session_key", source=copied, columns=COLUMNS)
    asked = [UUID(bytes=key_of(number)) for number in range(20)]
    found = await connection.fetch(QUERIES["find_session_keys"], asked)
    assert sorted(row["ride_no"] for row in found) == list(range(20))


async def test_the_appended_rows_are_rides_that_open_and_close_in_the_last_month(connection: Connection) -> None:
    await fill_months(connection, SINCE, 3, 60, Console(quiet=True))
    rows = io.BytesIO(next(right_edge(SINCE, 3)))
    await connection.copy_to_table("ride_revision", source=rows, columns=REVISION_COLUMNS)
    months = await connection.fetch(
        "SELECT tableoid::regclass::text, count(*) FROM ride_revision GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(row) for row in months] == [
        ("ride_revision_2026_11", 20),
        ("ride_revision_2026_12", 20),
        ("ride_revision_2027_01", 20 + BATCH),
    ]
    states = "SELECT state::text, count(*) FROM ride_revision GROUP BY 1 ORDER BY 1"
    assert [tuple(row) for row in await connection.fetch(states)] == [("closed", 2530), ("open", 2530)]
