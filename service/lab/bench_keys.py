"""The identity table under 20 million random keys, and which type a key should have."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from rich.console import Console

from service.adapters.postgres import QUERIES
from service.lab.measure import COPIED_COLUMNS, Copied, Section, Spread, copied, copied_cells, spread, timed

if TYPE_CHECKING:
    from service.adapters.postgres import Connection

BATCH = 5_000
BATCHES = 40
CHUNK = 500_000
RECENT = 36_000  # As many rides as are open at a time.
COLUMNS = ("session_key", "ride_no", "slot")
MISSING = 10**12  # Keys of numbers from here on are never stored.
FILL = """
INSERT INTO session_key
SELECT md5(number::text)::uuid AS key, number, number % 1024 FROM generate_series($1::bigint, $2::bigint) AS number
ORDER BY key
"""
FLOOR_LOOK_UP = "SELECT key AS session_key, 1::bigint AS ride_no FROM unnest($1::uuid[]) AS key"


async def identity_growth(connection: Connection, rows: int, console: Console) -> list[Section]:
    """COPY and look-up of 5,000 keys while the table grows to `rows`, beside a table without an index (the floor)."""
    await connection.execute("CREATE TABLE floor (LIKE session_key)")
    copies: list[tuple[Any, ...]] = []
    looked_up: list[tuple[Any, ...]] = []
    have = 0
    for size in (0, rows // 20, rows // 4, rows // 2, rows):
        console.print(f"identity table: {size:,} keys")
        have = await _fill(connection, have, size)
        batches = BATCHES if size else 4
        for compression in ("pglz", "off"):
            await connection.execute(f"SET wal_compression = {compression}")
            copies.append(
                (size, f"just after a checkpoint, {compression}", *await _stressed(connection, have, batches))
            )
            have += batches * BATCH
        await connection.execute("RESET wal_compression")
        copies += [(size, *row) for row in await _alternating(connection, have, batches)]
        have += 2 * batches * BATCH
        looked_up.append((size, *await _looked_up(connection, have), await _size_mb(connection, "session_key")))
    per_key = "of 5,000 keys, µs per key: median (mean, 90th percentile)"
    return [
        Section(f"session_key: COPY {per_key}", ("keys there", "batch", *COPIED_COLUMNS), copies),
        Section(
            f"session_key: look-up {per_key}", ("keys there", "floor", "recent", "any", "missing", "MB"), looked_up
        ),
    ]


async def key_types(connection: Connection, rows: int, console: Console) -> Section:
    """The same random keys as uuid and as bytea, growing side by side: COPY of all and look-ups."""
    copies: dict[str, list[Copied]] = {"uuid": [], "bytea": []}
    for kind in copies:
        shape = f"session_key {kind}, ride_no bigint NOT NULL, slot smallint NOT NULL, PRIMARY KEY (session_key, slot)"
        await connection.execute(f"CREATE TABLE key_{kind} ({shape})")
    console.print(f"uuid and bytea: {rows:,} keys each")
    for first in range(0, rows, BATCH):
        for kind, batches in copies.items():
            given = key_rows(range(first, first + BATCH), in_order=True, binary=kind == "bytea")
            batches.append(await copied(connection, f"key_{kind}", COLUMNS, given))
    results = []
    for kind, batches in copies.items():
        await connection.execute(f"VACUUM key_{kind}", timeout=600)
        query = f"SELECT session_key, ride_no FROM key_{kind} WHERE session_key = ANY($1::{kind}[])"  # noqa: S608  Ours.
        found = [
            await _asked(connection, query, range(low, low + rows), binary=kind == "bytea") for low in (0, MISSING)
        ]
        results.append((kind, *copied_cells(batches, BATCH), *found, await _size_mb(connection, f"key_{kind}")))
    return Section(
        f"A 16-byte key as uuid or as bytea, {rows:,} keys, µs per key: median (mean, 90th percentile)",
        ("type", *COPIED_COLUMNS, "any", "missing", "MB"),
        results,
    )


def key_of(number: int) -> bytes:
    """The same as `FILL` makes: random to every index, and known again from the number."""
    return hashlib.md5(str(number).encode(), usedforsecurity=False).digest()


def key_rows(numbers: range, *, in_order: bool, binary: bool) -> bytes:
    """The rows of these numbers in COPY's text format."""
    keys = [(key_of(number).hex(), number) for number in numbers]
    if in_order:
        keys.sort()
    mark = "\\\\x" if binary else ""
    return "".join(f"{mark}{key}\t{number}\t{number % 1024}\n" for key, number in keys).encode()


async def _fill(connection: Connection, have: int, size: int) -> int:
    for first in range(have, size, CHUNK):
        await connection.execute(FILL, first, min(first + CHUNK, size) - 1, timeout=600)
    await connection.execute("VACUUM ANALYZE session_key", timeout=600)  # As autovacuum does in time.
    return max(have, size)


async def _stressed(connection: Connection, first: int, batches: int) -> tuple[Spread, Spread, int]:
    """Just after a checkpoint the first touch of each page of the index writes the whole page to the WAL."""
    await connection.execute("CHECKPOINT", timeout=600)
    return copied_cells([await _copied(connection, first + step * BATCH) for step in range(batches)], BATCH)


async def _alternating(connection: Connection, first: int, batches: int) -> list[tuple[Any, ...]]:
    """Batch by batch in turn, so that a noisy machine is as noisy to each."""
    came, in_order, floor = [], [], []
    for step in range(first, first + 2 * batches * BATCH, 2 * BATCH):
        came.append(await _copied(connection, step, in_order=False))
        in_order.append(await _copied(connection, step + BATCH))
        floor.append(await _copied(connection, step, table="floor"))
    measured = {"in the order of arrival": came, "sorted": in_order, "sorted, no index (floor)": floor}
    return [(name, *copied_cells(samples, BATCH)) for name, samples in measured.items()]


async def _copied(connection: Connection, first: int, *, in_order: bool = True, table: str = "session_key") -> Copied:
    rows = key_rows(range(first, first + BATCH), in_order=in_order, binary=False)
    return await copied(connection, table, COLUMNS, rows)


async def _looked_up(connection: Connection, have: int) -> list[Spread]:
    """The floor (the same keys sent and back, no table), recent keys, keys from all over, and keys that are missing."""
    query = QUERIES["find_session_keys"]
    return [
        await _asked(connection, FLOOR_LOOK_UP, range(have)),
        await _asked(connection, query, range(max(have - RECENT, 0), have)),
        await _asked(connection, query, range(have)),
        await _asked(connection, query, range(MISSING, MISSING + have)),
    ]


async def _asked(connection: Connection, query: str, numbers: range, *, binary: bool = False) -> Spread:
    """Look up batches of the keys of these numbers, sorted, as the intake does."""
    dice, steps = random.Random(len(numbers)), []
    for _ in range(BATCHES):
        keys = sorted(key_of(number) for number in dice.sample(numbers, BATCH))
        given: Sequence[Any] = keys if binary else [UUID(bytes=key) for key in keys]
        steps.append(await timed(partial(connection.fetch, query, given)))
    return spread(steps, BATCH)


async def _size_mb(connection: Connection, table: str) -> int:
    return int(await connection.fetchval("SELECT pg_total_relation_size($1::text::regclass) / 1000000", table))
