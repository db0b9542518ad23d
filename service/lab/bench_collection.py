"""`farebox bench collection`: debits per second from due to settled and posted, beside the floor of the same run.

Due debits are there first; then the role `collect`, a process as in production, takes them through the simulator, which
is a process of its own, over HTTP. The floor makes the same calls to the same simulator and keeps nothing. The first
outcomes are not counted: they hold the start of the process.

A simulator that answers at once leaves nothing to wait for: floor and collection then differ by what each takes of the
processors that all of them share. One that answers after some milliseconds is what a provider over a network is like.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import aiohttp
import asyncpg
import msgspec
from rich.console import Console

from service.lab.bench_debits import AMOUNT_MINOR, add_due, books, farebox, furnished_database, provider_process
from service.lab.measure import Report, Section, this_machine
from service.lab.processes import LabError
from service.lab.provider.faults import Fault
from service.lab.provider.rows import Terms
from service.lab.servers import Servers, lab

SETTINGS = {"shared_buffers": "1GB", "checkpoint_timeout": "15min"}
COLUMNS = ("what", "debits/s (median)", "× floor", "each run")
AT_ONCE_AND_AS_A_NETWORK = (0, 50)
"""Milliseconds after which the simulator answers."""


async def bench_collection(
    debits: int, pairs: int, concurrency: int, answers_ms: Sequence[int], console: Console
) -> Report:
    """Measures floor and collection `pairs` times in turn for each of `answers_ms`; the medians and their ratios."""
    # No Kafka is needed here: an address that is given is not started.
    async with (
        lab(settings=SETTINGS, kafka_bootstrap="none", console=console) as servers,
        provider_process(Terms(confirm_agreement=False)) as provider,
    ):
        sections = []
        for answer_ms in answers_ms:
            await _answer_after(provider, answer_ms)
            name = f"a{answer_ms}"
            rates: dict[str, list[float]] = {"floor": [], "collection": []}
            for number in range(pairs):
                rates["floor"].append(await _floor(provider, debits, concurrency, f"{name}f{number}"))
                rates["collection"].append(
                    await _collection(servers, provider, debits, concurrency, f"{name}c{number}")
                )
                console.print(", ".join(f"{what}: {measured[-1]:,.0f} debits/s" for what, measured in rates.items()))
            sections.append(_section(answer_ms, rates))
        taken = sum(account["paid_minor"] for account in (await books(provider))["accounts"])
        if taken != 2 * len(answers_ms) * pairs * debits * AMOUNT_MINOR:
            raise LabError(f"the simulator has taken {taken}, which is not what was due")
    settings = {"debits": f"{debits:,}", "concurrency": str(concurrency), "fsync": "on"}
    return Report(this_machine(), SETTINGS | settings, sections)


def _section(answer_ms: int, rates: Mapping[str, Sequence[float]]) -> Section:
    medians = {what: statistics.median(measured) for what, measured in rates.items()}
    rows: list[tuple[object, ...]] = [
        (what, round(median), median / medians["floor"], ", ".join(f"{rate:,.0f}" for rate in rates[what]))
        for what, median in medians.items()
    ]
    return Section(f"Collection, the provider answers after {answer_ms} ms", COLUMNS, rows)


async def _answer_after(provider: str, answer_ms: int) -> None:
    slow = Fault("slow", op="debit.take", times=sys.maxsize, seconds=answer_ms / 1000)
    async with aiohttp.ClientSession() as session:
        async with session.delete(f"{provider}/script") as answer:
            answer.raise_for_status()
        if answer_ms:
            async with session.post(f"{provider}/script", data=msgspec.json.encode([slow])) as answer:
                answer.raise_for_status()


async def _floor(provider: str, calls: int, concurrency: int, name: str) -> float:
    arguments = ["-m", "service.lab.bench_calls", provider, str(calls), str(concurrency), name]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    if process.returncode:
        raise LabError(f"the floor ended with {process.returncode}; its error is above")
    return float(out)


async def _collection(servers: Servers, provider: str, debits: int, concurrency: int, name: str) -> float:
    """Debits per second of the role, in a database of its own."""
    now = datetime.now(UTC)
    url = await furnished_database(servers, f"bench_{name}", provider, now, {"connections_max": concurrency})
    connection = await asyncpg.connect(url)
    try:
        await add_due(connection, debits, name, now)
        environment = os.environ | {
            "FAREBOX_DATABASE_URL": url,
            "FAREBOX_KAFKA_BOOTSTRAP": "127.0.0.1:1",
            "FAREBOX_COLLECT_CONCURRENCY": str(concurrency),
            "FAREBOX_LOG_LEVEL": "error",
        }
        process = await asyncio.create_subprocess_exec(*farebox("collect"), env=environment)
        try:
            await _until_settled(connection, debits, process)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
        return await _rate(connection, debits)
    finally:
        await connection.close()
        await servers.drop_database(f"bench_{name}")


async def _until_settled(
    connection: asyncpg.Connection[asyncpg.Record], debits: int, process: asyncio.subprocess.Process
) -> None:
    while await connection.fetchval("SELECT EXISTS (SELECT FROM debit WHERE account_no = 1 AND due_at IS NOT NULL)"):
        if process.returncode is not None:
            raise LabError(f"collection ended with {process.returncode} before all was settled")
        await asyncio.sleep(0.2)


async def _rate(connection: asyncpg.Connection[asyncpg.Record], debits: int) -> float:
    """Settled debits per second between the first outcomes that were kept and the last; everything has to be there."""
    row = await connection.fetchrow(
        "SELECT count(*) FILTER (WHERE t.machine_at > o.first_at) /"
        " extract(epoch FROM max(t.machine_at) - max(o.first_at))::float8 AS rate, count(*) AS settled,"
        " (SELECT count(*) FROM transfer WHERE fact = 2) AS posted,"
        " (SELECT count(*) FROM batch_facts) AS batches,"
        " (SELECT max(transitions) FROM debit) AS transitions"
        " FROM debit_transition t,"
        " (SELECT min(machine_at) AS first_at FROM debit_transition WHERE to_state = 'settled') o"
        " WHERE t.to_state = 'settled'"
    )
    assert row is not None
    if not row["settled"] == row["posted"] == debits or row["transitions"] != 3 or not row["batches"]:
        raise LabError(f"not every one of {debits} debits was settled and posted at once: {dict(row)}")
    return float(row["rate"])
