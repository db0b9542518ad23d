"""The floor of the intake: the same topic into the same tables in the cheapest way known, nothing decided or looked up.

Run as a process: `python -m service.lab.bench_floor <database url> <bootstrap> <topic> <records> <batch>`.
"""

from __future__ import annotations

import asyncio
import io
import sys
import time
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import asyncpg
import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from service.adapters.kafka import partitions_of
from service.adapters.kafka_access import Brokers
from service.adapters.postgres import connect
from service.adapters.postgres.rides import OBLIGATION_COLUMNS, REVISION_COLUMNS, TRANSFER_COLUMNS, ride_number

_CHARGE = (
    '{"usage":{"started_at":"2026-11-22T08:00:00Z","ended_at":"2026-11-22T08:20:00Z","duration_us":1200000000,'
    '"meters":1000},"charge":{"currency":"CNY","lines":[{"code":"price","quantity":"1","unit":"ride",'
    '"unit_price":"1.50","amount":"1.50","path":"/plan/price"},{"code":"time","quantity":"1","unit":"15 min",'
    '"unit_price":"1.00","amount":"1.00","path":"/plan/per_min_pricing/0"}],"total_minor":250}}'
)
_FACT = b"x" * 1100


class _Data(msgspec.Struct):
    session_id: str
    agreement_id: str | None = None
    tariff_id: str | None = None
    distance: int | None = None


class _Rows:
    """The rows of one batch as text for COPY."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.revisions: list[str] = []
        self.obligations: list[str] = []
        self.transfers: list[str] = []
        self.facts = 0


async def run(url: str, bootstrap: str, topic: str, records_max: int, batch: int) -> None:
    """Reads `records_max` records and prints `<records per second> <seconds>` of all batches but the first."""
    connection = await connect(url, name="floor", hot=True)
    writer_no = await connection.fetchval("INSERT INTO writer (name) VALUES ('floor') RETURNING writer_no")
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        fetch_max_bytes=16 << 20,
        max_partition_fetch_bytes=4 << 20,
    )
    await consumer.start()
    partitions = [TopicPartition(topic, number) for number in (await partitions_of(Brokers(bootstrap), [topic]))[topic]]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    decoder, done, counter, seq = msgspec.json.Decoder(_Data), 0, 0, 0
    began, skipped = 0.0, 0
    pending: asyncio.Task[None] | None = None
    while done < records_max:
        fetched = await consumer.getmany(timeout_ms=200, max_records=batch)
        rows = _Rows()
        counter = _format(rows, fetched, decoder, counter)
        if pending is not None:
            await pending
            if not began:
                began, skipped = time.perf_counter(), done
        done += sum(map(len, fetched.values()))
        seq += 1
        pending = asyncio.create_task(_write(connection, rows, writer_no, seq))
    assert pending is not None
    await pending
    seconds = time.perf_counter() - began
    print(f"{(done - skipped) / seconds:.0f} {seconds:.3f}")
    await consumer.stop()
    await connection.close()


def _format(rows: _Rows, fetched: Any, decoder: msgspec.json.Decoder[_Data], counter: int) -> int:
    now = datetime.now(UTC)
    base, instant = ride_number(now, 0), now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    for records in fetched.values():
        for record in records:
            data = decoder.decode(record.value)
            counter += 1
            ride_no = base | counter & 0x3FFFFF
            digest = blake2b(data.session_id.encode(), digest_size=16).hexdigest()
            slot = counter & 1023
            events = f'[{{"k":"x","n":"{data.session_id}","p":["{record.topic}",{record.partition},{record.offset}]}}]'
            if data.distance is None:
                key = blake2b(data.session_id.encode() + b"%d" % counter, digest_size=16).hexdigest()
                rows.keys.append(f"{key}\t{ride_no}\t{slot}\n")
                rows.revisions.append(
                    f"{ride_no}\t1\t{slot}\t1\topen\t{counter % 1000 + 1}\t1\t1\t\\N\t{events}{_PAD}\t\\N\t\\N\t\\N"
                    f"\t{instant}\t1\t\\\\x{digest}\n"
                )
            else:
                rows.revisions.append(
                    f"{ride_no}\t2\t{slot}\t1\tclosed\t\\N\t\\N\t\\N\t\\N\t{events}{_PAD}\t{_CHARGE}\t250\tCNY\t{instant}"
                    f"\t1\t\\\\x{digest}\n"
                )
                rows.obligations.append(f"{ride_no}\t2\t{slot}\t1\t7\tcharge\t250\tCNY\t{instant}\n")
                rows.transfers.append(
                    f"{ride_no}\t1\t2\t0\t{slot}\t1\t1000000000000007\t2000000000000001\t250\tCNY\t{instant}\n"
                )
                rows.facts += 1
    return counter


_PAD = " " * 230
"""The rest of a stored event's length."""


async def _write(connection: asyncpg.Connection[asyncpg.Record], rows: _Rows, writer_no: int, seq: int) -> None:
    async with connection.transaction():
        await _copy(connection, "session_key", ("session_key", "ride_no", "slot"), sorted(rows.keys))
        await _copy(connection, "ride_revision", REVISION_COLUMNS, rows.revisions)
        await _copy(connection, "obligation", OBLIGATION_COLUMNS, rows.obligations)
        await _copy(connection, "transfer", TRANSFER_COLUMNS, rows.transfers)
        now = datetime.now(UTC)
        await connection.execute(
            "INSERT INTO batch VALUES ($1, $2, nextval('batch_numbers'), $3, '', '', '{}', $4, $4)",
            writer_no,
            seq,
            len(rows.revisions),
            now,
        )
        await connection.execute("INSERT INTO batch_facts VALUES ($1, $2, $3)", writer_no, seq, _FACT * rows.facts)
        await connection.execute("UPDATE writer SET seq = $2 WHERE writer_no = $1", writer_no, seq)


async def _copy(
    connection: asyncpg.Connection[asyncpg.Record], table: str, columns: tuple[str, ...], rows: list[str]
) -> None:
    if rows:
        source = io.BytesIO("".join(rows).encode())
        await connection.copy_to_table(table, source=source, columns=columns, format="text")


if __name__ == "__main__":
    uvloop.run(run(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
