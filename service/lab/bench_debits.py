"""Debits for the benches: riders who have signed at the simulator, and rides whose debits are due, or settled."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import asyncpg
import msgspec

from service.adapters.migrate import migrate
from service.adapters.postgres.rides import ride_number
from service.lab.processes import Children, wait_for_line
from service.lab.provider.rows import Account, AskAgreement, Terms
from service.lab.servers import Servers

ACCOUNT = "bench"
API_KEY = "key-of-the-bench"
HEADERS = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
RIDERS = 500
BALANCE_MINOR = 10**12
AMOUNT_MINOR = 250
BEFORE = timedelta(hours=1)
"""How long ago the first ride of a bench was: what is due is due at once."""

_DUE = """
WITH due AS (
  INSERT INTO debit (ride_no, ordinal, slot, operator_no, agreement_no, account_no, session_key, session_id, currency,
    amount_minor, state, provider_key, due_at, pay_by, transitions, created_at, updated_at)
  SELECT $1::bigint + n, 1, n % 1024, 1, n % $3::int + 1, $7::int, md5($4::text || n)::uuid, $4 || '-' || n, 'CNY',
    $6::bigint, 'new', $4 || 'd' || n, $5::timestamptz + n * interval '1 microsecond', $5 + interval '7 days', 1, $5, $5
  FROM generate_series(0, $2::bigint - 1) AS n RETURNING *
)
INSERT INTO debit_transition (ride_no, ordinal, transition, slot, to_state, why, amount_minor, provider_key,
  business_at, machine_at, told, digest)
SELECT ride_no, ordinal, 1, slot, 'new', 'owed', amount_minor, provider_key, $5, $5, digest, digest FROM due
"""
_SETTLED = """
INSERT INTO debit (ride_no, ordinal, slot, operator_no, agreement_no, account_no, session_key, session_id, currency,
  amount_minor, paid_minor, receipts, asked_minor, state, provider_key, provider_ref, attempts, begun_at, submitted_at,
  settled_at, pay_by, transitions, created_at, updated_at)
SELECT $1::bigint + ((n * $3::bigint) << 22), 1, n % 1024, 1, n % $4::int + 1, 1, md5(n::text)::uuid, 'settled-' || n,
  'CNY', 250, 250, jsonb_build_array(jsonb_build_object('key', 's' || n, 'amount_minor', 250)), 250, 'settled',
  's' || n, 'DE' || n, 1, $5::timestamptz, $5, $5, $5 + interval '7 days', 3, $5, $5
FROM generate_series(0, $2::bigint - 1) AS n
"""


def farebox(*words: str) -> list[str]:
    """The command line of one of our own processes."""
    return [sys.executable, "-m", "service", *words]


@asynccontextmanager
async def provider_process(terms: Terms) -> AsyncIterator[str]:
    """The simulator as a process of its own, books in memory, with an account whose riders have signed; its address."""
    account = msgspec.json.encode(Account(ACCOUNT, API_KEY, terms)).decode()
    options = ["--account", account, "--balance", str(BALANCE_MINOR)]
    with TemporaryDirectory(prefix="farebox-bench-") as logs:
        async with Children() as children:
            child = children.start("provider", farebox("provider-simulator", *options), Path(logs) / "provider.log")
            url = await wait_for_line(child, "http://")
            async with aiohttp.ClientSession(headers=HEADERS) as session:
                for number in range(1, RIDERS + 1):
                    asked = AskAgreement(f"k{number}", f"r{number}", "CNY")
                    async with session.post(f"{url}/v1/agreements", data=msgspec.json.encode(asked)) as answer:
                        answer.raise_for_status()
            yield url


async def books(url: str) -> dict[str, Any]:
    """What the simulator's own books say; LabError is not for this: a problem in them is a bug."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/books") as answer:
        summary: dict[str, Any] = await answer.json()
        assert summary["problems"] == [], summary["problems"]
        return summary


async def furnished_database(
    servers: Servers, name: str, provider: str, now: datetime, settings: dict[str, Any] | None = None
) -> str:
    """A migrated database whose account 1 is the simulator's, with the agreements signed there."""
    url = await servers.create_database(name)
    await migrate(url, now)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "INSERT INTO merchant_account (operator_no, account_id, provider, base_url, settings, created_at)"
            " VALUES (1, $1, 'sandbox', $2, $3, $4)",
            ACCOUNT,
            provider,
            msgspec.json.encode({"api_key": API_KEY, **(settings or {})}).decode(),
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
    finally:
        await connection.close()
    return url


async def add_due(
    connection: asyncpg.Connection[asyncpg.Record], debits: int, name: str, now: datetime, account_no: int = 1
) -> None:
    """Debits that are due, as the planning leaves them; their keys begin with `name`."""
    first, due_at = ride_number(now - BEFORE, 0), now - BEFORE
    await connection.execute(_DUE, first, debits, RIDERS, name, due_at, AMOUNT_MINOR, account_no, timeout=600)
    await connection.execute("ANALYZE debit, debit_transition", timeout=600)


async def add_settled(
    connection: asyncpg.Connection[asyncpg.Record], since: datetime, months: int, debits: int, series: int = 0
) -> None:
    """Debits that were settled, spread over whole months from the month of `since` on; made by the server itself.

    Each `series` (0, 1, …) is a further one beside those before.
    """
    await connection.execute("SELECT make_ride_partitions($1, $2)", since, months)
    for index in range(months):
        years, month = divmod(since.month - 1 + index, 12)
        begin = since.replace(year=since.year + years, month=month + 1, day=1)
        share = debits // months + (index < debits % months)
        spacing_ms = 27 * 86_400_000 // max(share, 1)
        await connection.execute(
            _SETTLED, ride_number(begin, series), share, max(spacing_ms, 1), RIDERS, begin, timeout=1800
        )
    await connection.execute("VACUUM (ANALYZE) debit", timeout=1800)
