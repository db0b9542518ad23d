"""`farebox bench intake`: rides per second from Kafka to committed charges, beside the floor of the same run.

A topic is filled first (starts and ends interleaved, more rides open than the process remembers, duplicates, reversed
pairs, rides without an end); then the floor and the intake each read it into a database of their own. The first batch
is not counted: it holds the start of the process.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import asyncpg
import msgspec
from aiokafka import AIOKafkaProducer
from rich.console import Console

from service.adapters.migrate import migrate
from service.lab.kafka import create_topics
from service.lab.measure import Report, Section, this_machine
from service.lab.servers import Servers, lab

TOPIC = "rental.sessions"
PARTITIONS = 12
CACHED = 20_000
BATCH = 10_000
RIDERS = 1000
SETTINGS = {"shared_buffers": "1GB", "checkpoint_timeout": "15min"}
TARIFF = msgspec.json.encode(
    {
        "tariff_id": "bike",
        "valid_from": "2026-01-01T00:00:00Z",
        "time_zone": "Asia/Shanghai",
        "plan": {
            "plan_id": "bike",
            "name": "Bike",
            "currency": "CNY",
            "price": "1.50",
            "is_taxable": False,
            "description": "1.50 for the first 15 minutes, then 1 for every 15 minutes begun",
            "per_min_pricing": [{"start": 15, "rate": "1.00", "interval": 15}],
        },
    }
).decode()


async def bench_intake(rides: int, pairs: int, console: Console) -> Report:
    """Measures `pairs` times floor, one process, two processes, in turn, and reports the medians and their ratios."""
    async with lab(settings=SETTINGS, console=console) as servers:
        await create_topics(servers.brokers, {TOPIC: PARTITIONS})
        console.print(f"filling the topic with {rides:,} rides …")
        records = await _fill(servers.kafka_bootstrap, rides)
        rates: dict[str, list[float]] = {"floor": [], "one process": [], "two processes": []}
        for number in range(pairs):
            for what, measured in rates.items():
                name = f"bench_{what.replace(' ', '_')}_{number}"
                url = await _database(servers, name)
                measured.append(await _measure(what, url, servers.kafka_bootstrap, records) / 2)
                console.print(f"{what}: {measured[-1]:,.0f} rides/s")
                await servers.drop_database(name)
    medians = {what: sorted(measured)[len(measured) // 2] for what, measured in rates.items()}
    rows: list[tuple[object, ...]] = [
        (what, f"{median:,.0f}", f"{median / medians['floor']:.2f}", ", ".join(f"{rate:,.0f}" for rate in rates[what]))
        for what, median in medians.items()
    ]
    columns = ("what", "rides/s (median)", "× floor", "each run")
    settings = {"rides": f"{rides:,}", "records": f"{records:,}", "batch": str(BATCH), "rides cached": str(CACHED)}
    return Report(this_machine(), SETTINGS | settings, [Section("Intake", columns, rows)])


async def _measure(what: str, url: str, bootstrap: str, records: int) -> float:
    """Records per second of one way to read the topic."""
    if what == "floor":
        arguments = [sys.executable, "-m", "service.lab.bench_floor", url, bootstrap, TOPIC, str(records), str(BATCH)]
        process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"the floor ended with {process.returncode}; its error is above")
        return float(out.split()[0])
    environment = os.environ | {
        "FAREBOX_DATABASE_URL": url,
        "FAREBOX_KAFKA_BOOTSTRAP": bootstrap,
        "FAREBOX_RIDES_CACHED": str(CACHED),
        "FAREBOX_RECORDS_MAX": str(BATCH),
        "FAREBOX_GROUP": url.rpartition("/")[2],
        "FAREBOX_LOG_LEVEL": "error",
    }
    command = [sys.executable, "-m", "service", "intake"]
    processes = [
        await asyncio.create_subprocess_exec(*command, env=environment)
        for _ in range(2 if what.startswith("two") else 1)
    ]
    try:
        return await _rate(url, records, processes)
    finally:
        for process in processes:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _rate(url: str, records: int, processes: list[asyncio.subprocess.Process]) -> float:
    """Waits until every record is committed; records per second between the first commit and the last."""
    connection = await asyncpg.connect(url)
    try:
        while await connection.fetchval("SELECT coalesce(sum(next_offset), 0) FROM stream_offset") < records:
            if any(process.returncode is not None for process in processes):
                raise RuntimeError("an intake process ended before the topic was read")
            await asyncio.sleep(0.1)
        row = await connection.fetchrow(
            "SELECT extract(epoch FROM max(machine_at) - min(machine_at))::float8 AS seconds,"
            " sum(revisions) FILTER (WHERE machine_at > (SELECT min(machine_at) FROM batch))::float8 / sum(revisions)"
            " AS share FROM batch"
        )
        assert row is not None
        return float(records * row["share"] / row["seconds"])
    finally:
        await connection.close()


async def _database(servers: Servers, name: str) -> str:
    url = await servers.create_database(name)
    now = datetime.now(UTC)
    await migrate(url, now)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "INSERT INTO merchant_account (operator_no, account_id, provider, base_url, created_at)"
            " VALUES (1, 'bench', 'sandbox', 'http://127.0.0.1', $1)",
            now,
        )
        await connection.execute(
            "INSERT INTO rider (operator_no, rider_ref) SELECT 1, 'r' || n FROM generate_series(1, $1::int) n", RIDERS
        )
        await connection.execute(
            "INSERT INTO agreement (operator_no, agreement_id, rider_no, account_no, state, currency, time_zone,"
            " language, provider_key, created_at, updated_at) SELECT 1, 'a' || rider_no, rider_no, 1, 'active', 'CNY',"
            " 'Asia/Shanghai', 'zh', 'k' || rider_no, $1, $1 FROM rider",
            now,
        )
        await connection.execute("INSERT INTO tariff (operator_no, tariff_id) VALUES (1, 'bike')")
        await connection.execute(
            "INSERT INTO tariff_version (tariff_no, version, valid_from, document, digest, created_at)"
            " VALUES (1, 1, '2026-01-01T00:00:00Z', $1, '', $2)",
            TARIFF,
            now,
        )
    finally:
        await connection.close()
    return url


async def _fill(bootstrap: str, rides: int) -> int:
    """Puts the rides on the topic and returns how many records that took."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, linger_ms=20, max_batch_size=256 * 1024, compression_type="lz4", acks="all"
    )
    await producer.start()
    sent: deque[asyncio.Future[object]] = deque()
    count = 0
    try:
        for key, headers, value in _records(rides):
            sent.append(await producer.send(TOPIC, value=value, key=key, headers=headers))
            count += 1
            while len(sent) > 20_000:
                await sent.popleft()
        for acknowledgement in sent:
            await acknowledgement
    finally:
        await producer.stop()
    return count


def _records(rides: int) -> Iterator[tuple[bytes, list[tuple[str, bytes]], bytes]]:
    """Twice as many rides are open at any time as a process remembers; 5 % duplicates, 2 % reversed, 0.5 % endless."""
    random = Random(7)
    now = datetime.now(UTC)
    waiting: deque[tuple[str, str, datetime, bool]] = deque()
    for number in range(rides + 2 * CACHED):
        if number < rides:
            session_id = str(UUID(int=random.getrandbits(128), version=4))
            agreement_id, started_at = (
                f"a{random.randint(1, RIDERS)}",
                now - timedelta(seconds=random.randint(4000, 9000)),
            )
            backwards = random.random() < 0.02
            waiting.append((session_id, agreement_id, started_at, backwards))
            if not backwards:
                yield _record("started", session_id, agreement_id, started_at)
                if random.random() < 0.05:
                    yield _record("started", session_id, agreement_id, started_at)
        if number >= 2 * CACHED and waiting:
            session_id, agreement_id, started_at, backwards = waiting.popleft()
            if random.random() >= 0.005:
                ended_at = started_at + timedelta(seconds=random.randint(60, 3500))
                yield _record("ended", session_id, agreement_id, ended_at, random.randint(100, 9000))
            if backwards:
                yield _record("started", session_id, agreement_id, started_at)


def _record(
    kind: str, session_id: str, agreement_id: str, at: datetime, distance: int | None = None
) -> tuple[bytes, list[tuple[str, bytes]], bytes]:
    data = {"session_id": session_id, "agreement_id": agreement_id, "tariff_id": "bike"}
    rest = {"vehicle_id": "v-1729", "vehicle_type": "bicycle", "location": {"lat": 26.08712, "lng": 119.29644}}
    value = msgspec.json.encode(data | rest | ({} if distance is None else {"distance": distance}))
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", f"{session_id}/{kind}".encode()),
        ("ce_source", b"urn:mds:provider:6a2b7c1e-5c0d-4a8e-9d0e-fa2eb0c5c1a1"),
        ("ce_type", f"io.farebox.session.{kind}.v1".encode()),
        ("ce_time", at.isoformat().encode()),
        ("content-type", b"application/json"),
    ]
    return session_id.encode(), headers, value
