"""`ride_revision` in monthly partitions: appending at the right edge, and finding rides again."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console

from service.adapters.postgres import QUERIES
from service.adapters.postgres.rides import REVISION_COLUMNS, ride_number
from service.lab.measure import Copied, Spread, copied, copied_cells, spread, timed

if TYPE_CHECKING:
    from service.adapters.postgres import Connection

MONTHS = (3, 13, 40)
FILLED_MONTHS = 13
BATCH = 5_000
BATCHES = 40
OPEN_RIDES = 36_000  # A ride's second revision comes this many rides after its first.
AGREEMENTS = 1_000_000
DECIDED = "2026-11-22T10:15:31Z\t1\t\\\\x" + "5a" * 32  # When, the batch's number, and a digest.
APPENDED_ON = timedelta(days=25)  # within the month; `fill_months` leaves those days alone.
STARTED = (
    '[{"k":"started","s":"urn:rental:city","i":"01J9ZK3Q7X5V8W2R4T6Y8N1M3B","t":"2026-11-22T10:15:30.123456Z",'
    '"n":"01J9ZK3Q7X5V8W2R4T6Y8N1M3B","p":["rental.sessions",7,123456789],"ag":"agr-000000123456","ta":"bike-std",'
    '"ve":"bike-0012345","vt":"bike","lo":{"lat":31.230416,"lng":121.473701}}]'
)
ENDED = (
    '[{"k":"ended","s":"urn:rental:city","i":"01J9ZK4A7X5V8W2R4T6Y8N1M3C","t":"2026-11-22T10:47:02.654321Z",'
    '"n":"01J9ZK3Q7X5V8W2R4T6Y8N1M3B","p":["rental.sessions",7,123529876],"di":4210,'
    '"lo":{"lat":31.220001,"lng":121.480033}}]'
)
CHARGE = (
    '{"currency":"CNY","total_minor":350,"lines":[{"code":"unlock","quantity":"1","unit":"ride","unit_price":"1.50",'
    '"amount":"1.50","path":"/price"},{"code":"block","quantity":"2","unit":"block","unit_price":"1.00","amount":"2.00",'
    '"path":"/per_min_pricing/0"}],"usage":{"started_at":"2026-11-22T10:15:30.123456Z",'
    '"ended_at":"2026-11-22T10:47:02.654321Z","duration_us":1892530865,"meters":4210}}'
)
"""What the rows that are measured carry; those that only fill the table carry `[]`, to save the disk."""

FILL = """
INSERT INTO ride_revision (ride_no, revision, slot, operator_no, state, agreement_no, tariff_no, tariff_version, events,
  charge, amount_minor, currency, decided_at, batch_no, digest)
SELECT $1 + ((ride * $3::bigint) << 22), revision, ride % 1024, 1,
  (CASE revision WHEN 1 THEN 'open' ELSE 'closed' END)::session_state,
  CASE revision WHEN 1 THEN (hashint8(ride)::bigint + 2147483648) % 1000000 END, CASE revision WHEN 1 THEN 1 END,
  CASE revision WHEN 1 THEN 1 END, '[]', CASE revision WHEN 2 THEN '{}' END, CASE revision WHEN 2 THEN 350 END,
  CASE revision WHEN 2 THEN 'CNY' END, $4, 1, decode(repeat('5a', 32), 'hex')
FROM generate_series(0, $2::bigint - 1) AS ride, generate_series(1, 2) AS revision
"""
QUERY_OF_ONE = QUERIES["find_revisions"].replace("= ANY($1::bigint[])", "= $1")
QUERY_OF_MANY = {
    "= ANY($1)": QUERIES["find_revisions"],
    "JOIN unnest($1)": QUERIES["find_revisions"].replace(
        "FROM ride_revision WHERE ride_no = ANY($1::bigint[])",
        "FROM unnest($1::bigint[]) AS asked(ride_no) JOIN ride_revision USING (ride_no)",
    ),
}


async def make_months(connection: Connection, since: datetime, months: int) -> None:
    """Exactly so many partitions from this month on, of a freshly migrated database."""
    await connection.execute("SELECT make_ride_partitions($1, $2)", since, months)
    parts = await connection.fetch(
        "SELECT inhrelid::regclass::text AS part FROM pg_inherits"
        " WHERE inhparent = 'ride_revision'::regclass ORDER BY part"
    )
    for row in parts[months:]:
        await connection.execute(f"DROP TABLE {row['part']}")
    await connection.execute("CREATE TABLE floor (LIKE ride_revision)")  # No partitions, no index.


def right_edge(since: datetime, months: int) -> Iterator[bytes]:
    """Batches for the last of the months, as the intake makes them: half opens rides, half closes earlier ones.

    In COPY's text format; a ride opens each millisecond.
    """
    edge, dice = _edge(since, months), random.Random(months)
    for first in count(OPEN_RIDES, BATCH // 2):
        rows = []
        for ride in range(first, first + BATCH // 2):
            agreement_no, closed = dice.randrange(AGREEMENTS), ride - OPEN_RIDES
            opened = f"{ride % 1024}\t1\topen\t{agreement_no}\t1\t1\t\\N\t{STARTED}\t\\N\t\\N\t\\N\t{DECIDED}"
            ended = f"{closed % 1024}\t1\tclosed\t\\N\t\\N\t\\N\t\\N\t{ENDED}\t{CHARGE}\t350\tCNY\t{DECIDED}"
            rows.append(f"{edge + (ride << 22)}\t1\t{opened}\n{edge + (closed << 22)}\t2\t{ended}\n")
        yield "".join(rows).encode()


async def append(connection: Connection, batches: Iterator[bytes], table: str = "ride_revision") -> Copied:
    """COPY the next batch."""
    return await copied(connection, table, REVISION_COLUMNS, next(batches))


async def append_to_full(connection: Connection, batches: Iterator[bytes], label: str) -> list[tuple[Any, ...]]:
    """Just after a checkpoint, later, and then without the index on agreements, beside the floor."""
    await connection.execute("CHECKPOINT", timeout=600)
    stressed = [await append(connection, batches) for _ in range(BATCHES)]
    later = [await append(connection, batches) for _ in range(BATCHES)]
    await connection.execute("DROP INDEX ride_revision_by_agreement")
    bare = [await append(connection, batches) for _ in range(BATCHES)]
    floor = [await append(connection, batches, "floor") for _ in range(BATCHES)]
    named = {"just after a checkpoint": stressed, "later": later, "no index on agreements": bare, "floor": floor}
    return [(label, name, *copied_cells(samples, BATCH)) for name, samples in named.items()]


async def fill_months(connection: Connection, since: datetime, months: int, rows: int, console: Console) -> None:
    """Spread `rows` revisions, two per ride, evenly over the months."""
    rides = rows // months // 2
    spacing_ms = APPENDED_ON // timedelta(milliseconds=1) // max(rides, 1)
    for index in range(months):
        month = _month(since, index)
        console.print(f"{months} months: filling {month:%Y-%m}")
        await connection.execute(FILL, ride_number(month, 0), rides, max(spacing_ms, 1), month, timeout=900)
    await connection.execute("ANALYZE ride_revision", timeout=600)


async def look_ups(
    connection: Connection, since: datetime, months: int
) -> tuple[tuple[Any, ...], list[tuple[Any, ...]]]:
    """Find rides of the last month that were appended: one, and many at once."""
    edge, dice = _edge(since, months), random.Random(months)

    def some(number: int) -> list[int]:
        return [
            edge + (ride << 22) for ride in dice.sample(range(OPEN_RIDES, OPEN_RIDES + BATCHES * BATCH // 2), number)
        ]

    many = []
    for mode in ("force_custom_plan", "force_generic_plan"):
        await connection.execute(f"SET plan_cache_mode = {mode}")
        for name, query in QUERY_OF_MANY.items():
            for rides in (500, 5_000):
                cost = await _asked(connection, query, [some(rides) for _ in range(12)])
                many.append((months, rides, name, mode.removeprefix("force_").removesuffix("_plan"), cost))
    return (*await _planned(connection, some(200)), await _prepared(connection, some(300))), many


async def _planned(connection: Connection, rides: list[int]) -> tuple[float, float]:
    """Planning and execution of one ride's query as the server tells them, in ms (median)."""
    plans = []
    for ride in rides:
        explained = await connection.fetchval(
            "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + QUERY_OF_ONE.replace("$1", str(ride))
        )
        plans.append(json.loads(explained)[0])
    return median(plan["Planning Time"] for plan in plans), median(plan["Execution Time"] for plan in plans)


async def _prepared(connection: Connection, rides: list[int]) -> float:
    """One ride's query, prepared, as its client sees it, in ms (median)."""
    statement = await connection.prepare(QUERY_OF_ONE)
    return 1e3 * median([await timed(partial(statement.fetch, ride)) for ride in rides])


async def _asked(connection: Connection, query: str, batches: list[list[int]]) -> Spread:
    """µs per ride; the first two batches only warm up. Every ride has to be found."""
    steps = []
    for rides in batches:
        began = time.perf_counter()
        rows = await connection.fetch(query, rides)
        steps.append(time.perf_counter() - began)
        assert {row["ride_no"] for row in rows} == set(rides)
    return spread(steps[2:], len(batches[0]))


def _edge(since: datetime, months: int) -> int:
    return ride_number(_month(since, months - 1) + APPENDED_ON, 0)


def _month(since: datetime, index: int) -> datetime:
    """The first instant of the month so many months after `since`."""
    years, month = divmod(since.month - 1 + index, 12)
    return since.replace(year=since.year + years, month=month + 1, day=1)
