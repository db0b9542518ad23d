"""`farebox bench tables`: what the identity table and the range partitions cost when they are full.

Runs on the lab's PostgreSQL with fsync and an installation's checkpoints, on the migrated schema and, where the intake
asks, with its own named queries. COPY is in text format from bytes made before: without Python's part of the cost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
from rich.console import Console

from service.adapters.migrate import migrate
from service.adapters.postgres import connect
from service.lab.bench_keys import identity_growth, key_types
from service.lab.bench_partitions import (
    BATCH,
    BATCHES,
    FILLED_MONTHS,
    MONTHS,
    append,
    append_to_full,
    fill_months,
    look_ups,
    make_months,
    right_edge,
)
from service.lab.measure import COPIED_COLUMNS, Copied, Report, Section, copied_cells, this_machine
from service.lab.servers import Servers, lab

if TYPE_CHECKING:
    from service.adapters.postgres import Connection

SINCE = datetime(2025, 11, 1, tzinfo=UTC)  # The first month.
SETTINGS = {"shared_buffers": "1GB", "checkpoint_timeout": "15min"}
SHOWN = ("server_version", "fsync", "shared_buffers", "max_wal_size", "checkpoint_timeout", "wal_compression")


async def bench_tables(rows: int, console: Console) -> Report:
    """Measure with `rows` keys and `rows` revisions; progress goes to the console."""
    # No Kafka is needed here: an address that is given is not started.
    async with lab(settings=SETTINGS, kafka_bootstrap="none", console=console) as servers:
        settings = await _shown(servers)
        async with _database(servers, "identity") as connection:
            sections = await identity_growth(connection, rows, console)
        async with _database(servers, "key_types") as connection:
            sections.append(await key_types(connection, rows // 10, console))
        sections += await _partitions(servers, rows, console)
    return Report(this_machine(), settings, sections)


async def _shown(servers: Servers) -> dict[str, str]:
    connection = await asyncpg.connect(servers.database_url)
    try:
        return {name: await connection.fetchval(f"SHOW {name}") for name in SHOWN}
    finally:
        await connection.close()


@asynccontextmanager
async def _database(servers: Servers, name: str) -> AsyncIterator[Connection]:
    """A migrated database of its own, and a connection as a role has it, but with all the time it wants."""
    url = await servers.create_database(name)
    await migrate(url, SINCE)
    connection = await connect(url, name="bench")
    try:
        await connection.execute("SET transaction_timeout = 0")
        yield connection
    finally:
        await connection.close()
        await servers.drop_database(name)


async def _partitions(servers: Servers, rows: int, console: Console) -> list[Section]:
    """The same table with few, a year's and many months; the year's is filled, the others a tenth of it."""
    points: list[tuple[Any, ...]] = []
    many: list[tuple[Any, ...]] = []
    async with AsyncExitStack() as stack:
        tables = {}
        for months in MONTHS:
            connection = await stack.enter_async_context(_database(servers, f"months_{months}"))
            await make_months(connection, SINCE, months)
            tables[months] = connection, right_edge(SINCE, months)
        console.print("empty partitions: appending")
        appends = await _append_to_empty(tables)
        for months, (connection, batches) in tables.items():
            filled = rows if months == FILLED_MONTHS else rows // 10
            await fill_months(connection, SINCE, months, filled, console)
            if months == FILLED_MONTHS:
                appends += await append_to_full(connection, batches, f"{months} months, {rows:,} rows")
            console.print(f"{months} months: looking up")
            point, asked = await look_ups(connection, SINCE, months)
            points.append((months, filled, *point))
            many += asked
    spread = "median (mean, 90th percentile)"
    return [
        Section(
            f"ride_revision: COPY of 5,000 rows at the right edge, µs per row: {spread}",
            ("table", "", *COPIED_COLUMNS),
            appends,
        ),
        Section(
            "ride_revision: every revision of a ride, by ride_no = $1, ms (median)",
            ("months", "rows", "planning", "execution", "prepared, client to client"),
            points,
        ),
        Section(
            f"ride_revision: many rides in one query, µs per ride: {spread}",
            ("months", "rides", "query", "plan", "µs"),
            many,
        ),
    ]


async def _append_to_empty(tables: dict[int, tuple[Connection, Iterator[bytes]]]) -> list[tuple[Any, ...]]:
    """Batch by batch in turn, so that a noisy machine is as noisy to each."""
    samples: dict[str, list[Copied]] = defaultdict(list)
    floor = right_edge(SINCE, MONTHS[0])
    for _ in range(BATCHES):
        for months, (connection, batches) in tables.items():
            samples[f"{months} months"].append(await append(connection, batches))
        connection, _ = tables[MONTHS[0]]
        samples["no partitions, no index (floor)"].append(await append(connection, floor, "floor"))
    return [(name, "empty", *copied_cells(batches, BATCH)) for name, batches in samples.items()]
