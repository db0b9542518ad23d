"""`farebox bench claims`: what it costs to find the debits that are due beside millions that are settled.

The settled debits fill the monthly partitions of half a year; then the claim of collection, its own named query, is
made and rolled back again and again: with debits due, and with none, which is what an idle process asks all the time.
"""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from rich.console import Console

from service.adapters.postgres import QUERIES, connect
from service.lab.bench_debits import add_due, add_settled, furnished_database
from service.lab.measure import Report, Section, Spread, spread, this_machine
from service.lab.servers import lab

SETTINGS = {"shared_buffers": "1GB", "checkpoint_timeout": "15min", "max_wal_size": "4GB"}
MONTHS = 6
DUE = 5_000
CLAIMED = 256
CLAIMS = 60
COLUMNS = ("settled debits", "claim of 256 due", "claim of none", "pages: 256 due", "none", "reads", "debits, GB")


async def bench_claims(settled: int, console: Console) -> Report:
    """Measures with none, a tenth of `settled` and `settled` debits in the table."""
    now = datetime.now(UTC)
    since = _months_before(now, MONTHS - 1)
    rows: list[tuple[Any, ...]] = []
    # No Kafka is needed here: an address that is given is not started.
    async with lab(settings=SETTINGS, kafka_bootstrap="none", console=console) as servers:
        url = await furnished_database(servers, "bench_claims", "http://127.0.0.1", since)
        connection = await connect(url, name="bench", hot=True)
        try:
            await connection.execute("SET transaction_timeout = 0")
            await add_settled(connection, since, MONTHS, 0)
            await add_due(connection, DUE, "due", now)
            filled = 0
            for series, there in enumerate((0, settled // 10, settled)):
                if there > filled:
                    console.print(f"filling up to {there:,} settled debits …")
                    await add_settled(connection, since, MONTHS, there - filled, series)
                    filled = there
                rows.append((there, *await _measured(connection, now)))
        finally:
            await connection.close()
    title = f"Claims in a table of {MONTHS} months, ms per claim: median (mean, 90th percentile)"
    return Report(this_machine(), SETTINGS | {"due": f"{DUE:,}"}, [Section(title, COLUMNS, rows)])


async def _measured(connection: asyncpg.Connection[asyncpg.Record], now: datetime) -> tuple[Any, ...]:
    early = now - timedelta(days=400)
    due, none = await claim_costs(connection, now), await claim_costs(connection, early)
    pages = await claim_pages(connection, now), await claim_pages(connection, early)
    reads = ", ".join(sorted(await claim_reads(connection, now)))
    size = await connection.fetchval(
        "SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits WHERE inhparent = 'debit'::regclass"
    )
    return due, none, *pages, reads, size / 2**30


async def claim_costs(connection: asyncpg.Connection[asyncpg.Record], now: datetime) -> Spread:
    """Milliseconds of one claim, its transaction rolled back; the first ten only warm up."""
    seconds = []
    for _ in range(CLAIMS + 10):
        transaction = connection.transaction()
        began = time.perf_counter()
        await transaction.start()
        rows = await connection.fetch(QUERIES["claim_debits"], *_asked(now))
        await transaction.rollback()
        seconds.append(time.perf_counter() - began)
        assert len(rows) in (0, CLAIMED)
    return spread([second * 1e-3 for second in seconds[10:]], 1)  # A Spread is in millionths of what it is given.


async def claim_reads(
    connection: asyncpg.Connection[asyncpg.Record], now: datetime, stopped: str | None = None, what: str = "debit"
) -> set[str]:
    """How the claim's plan, on a connection like the role's, reads the partitions of debits, or of what `what` names
    ("refund"): nodes and indexes.

    `stopped` is that of a claim under a stop: its last two arguments, as SQL.
    """
    return set(_reads(await _plan(connection, now, "FORMAT JSON", stopped, what), what))


async def claim_pages(connection: asyncpg.Connection[asyncpg.Record], now: datetime, stopped: str | None = None) -> int:
    """The pages that a claim looks at, rolled back: what its time goes by on a machine that does nothing else."""
    transaction = connection.transaction()
    await transaction.start()
    plan = await _plan(connection, now, "ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON", stopped)
    await transaction.rollback()
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def _plan(
    connection: asyncpg.Connection[asyncpg.Record],
    now: datetime,
    options: str,
    stopped: str | None,
    what: str = "debit",
) -> dict[str, Any]:
    query, more = (f"claim_{what}s", "") if stopped is None else (f"claim_{what}s_stopped", f", {stopped}")
    await connection.execute(f"PREPARE claim_plan AS {QUERIES[query]}")
    try:
        at = f"'{now.isoformat()}'"
        text = await connection.fetchval(f"EXPLAIN ({options}) EXECUTE claim_plan(1, {at}, {at}, {CLAIMED}{more})")
    finally:
        await connection.execute("DEALLOCATE claim_plan")
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return plan


def _reads(node: dict[str, Any], what: str) -> list[str]:
    found = [read for child in node.get("Plans", ()) for read in _reads(child, what)]
    if str(node.get("Relation Name", "")).startswith(what):
        kind, index = node["Node Type"], str(node.get("Index Name", ""))
        found.append(f"{kind} by {re.sub(rf'^{what}_[0-9_]*', '', index)}" if index else kind)
    return found


def _asked(now: datetime) -> tuple[Any, ...]:
    return 1, now, now, CLAIMED


def _months_before(now: datetime, months: int) -> datetime:
    years, month = divmod(now.month - 1 - months, 12)
    return now.replace(year=now.year + years, month=month + 1, day=1, hour=0, minute=0, second=0, microsecond=0)
