"""`farebox bench holds`: how long an app waits for `POST /v1/holds`, beside what its provider takes by itself.

The role `serve` and the simulator are processes of their own. Holds are asked for at a steady rate, as riders come: who
comes while others wait is not kept back, and is timed from the instant at which he came. In between, as many holds are
asked for at the simulator itself, in the same shape and at the same rate: that is the provider's own time, which is
taken off percentile by percentile. And as often, at the same rate, two rows are committed one after the other: what the
disk takes by itself where the intent is kept before the call and the answer after it.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import asyncpg
import msgspec
from rich.console import Console

from service.adapters.postgres.access import pooled
from service.adapters.postgres.tokens import TokenStore, token_hash
from service.billing.capabilities import Capabilities
from service.flows.each import each
from service.lab.bench_debits import HEADERS, RIDERS, farebox, furnished_database, provider_process
from service.lab.bench_intake import TARIFF
from service.lab.measure import Report, Section, this_machine
from service.lab.processes import Children, LabError, free_ports, wait_for_port
from service.lab.provider.mirror import terms_of
from service.lab.provider.rows import AskHold
from service.lab.servers import lab

SETTINGS = {"shared_buffers": "1GB", "checkpoint_timeout": "15min"}
COLUMNS = ("ms", "p50", "p90", "p99", "most")
CAP_MINOR = 10_000
ROUND = 50
"""Holds asked for one way before it is the other way's turn."""
WARM = 100

Ask = Callable[[int], Awaitable[None]]


async def bench_holds(holds: int, rate: int, console: Console) -> Report:
    """Measures `holds` of each kind, `rate` of them a second, after some that only warm up."""
    capabilities = Capabilities(hold_needed=True)
    async with (
        # No Kafka is needed here: an address that is given is not started.
        lab(settings=SETTINGS, kafka_bootstrap="none", console=console) as servers,
        provider_process(terms_of(capabilities, confirm_agreement=False)) as provider,
    ):
        abilities = {"capabilities": {"hold_needed": True}}
        url = await furnished_database(servers, "bench_holds", provider, datetime.now(UTC), abilities)
        token = await _tariff_and_token(url)
        with TemporaryDirectory(prefix="farebox-bench-") as logs:
            async with Children() as children:
                (port,) = free_ports(1)
                environment = {
                    "FAREBOX_DATABASE_URL": url,
                    "FAREBOX_KAFKA_BOOTSTRAP": "127.0.0.1:1",
                    "FAREBOX_HTTP_PORT": str(port),
                    "FAREBOX_LOG_LEVEL": "warning",
                }
                child = children.start("serve", farebox("serve"), Path(logs) / "serve.log", env=environment)
                await wait_for_port(child, port)
                async with aiohttp.ClientSession() as session, await pooled(url) as pool:
                    await pool.execute("CREATE TABLE two_commits (number bigint)")
                    served = _served(session, f"http://127.0.0.1:{port}/v1/holds", token)
                    own = _own(session, f"{provider}/v1/holds")
                    ways = {"served": served, "provider": own, "disk": _disk(pool)}
                    times = await _in_turn(ways, holds, rate)
    settings = {"holds": f"{holds:,}", "a second": str(rate), "fsync": "on"}
    return Report(this_machine(), SETTINGS | settings, [Section("POST /v1/holds", COLUMNS, _rows(times))])


def _rows(times: dict[str, list[float]]) -> list[tuple[object, ...]]:
    """The percentiles of each, and what is ours: the difference of each percentile."""
    figures = {what: _percentiles(seconds) for what, seconds in times.items()}
    ours = [served - own for served, own in zip(figures["served"], figures["provider"], strict=True)]
    named = [
        ("through the service", figures["served"]),
        ("the provider alone", figures["provider"]),
        ("ours", ours),
        ("two commits alone", figures["disk"]),
    ]
    return [(name, *cells) for name, cells in named]


def _percentiles(seconds: list[float]) -> list[float]:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return [round(1000 * value, 3) for value in (cuts[49], cuts[89], cuts[98], max(seconds))]


async def _in_turn(ways: dict[str, Ask], holds: int, rate: int) -> dict[str, list[float]]:
    """Seconds of each hold, by way."""
    times: dict[str, list[float]] = {what: [] for what in ways}
    for begin in range(0, WARM + holds, ROUND):
        for what, ask in ways.items():
            now = time.perf_counter()
            numbers = range(begin, min(begin + ROUND, WARM + holds))
            await each(_timed(ask, number, now + at / rate, times[what]) for at, number in enumerate(numbers))
    return {what: seconds[WARM:] for what, seconds in times.items()}


async def _timed(ask: Ask, number: int, comes_at: float, seconds: list[float]) -> None:
    await asyncio.sleep(max(comes_at - time.perf_counter(), 0.0))
    await ask(number)
    seconds.append(time.perf_counter() - comes_at)


def _served(session: aiohttp.ClientSession, url: str, token: str) -> Ask:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    async def ask(number: int) -> None:
        asked = {"session_id": f"ride-{number}", "agreement_id": f"a{number % RIDERS + 1}", "tariff_id": "bike"}
        own = {"Idempotency-Key": f"hold-{number}"}
        async with session.post(url, data=msgspec.json.encode(asked), headers=headers | own) as answer:
            told = msgspec.json.decode(await answer.read())
            if answer.status != 200 or told["status"] != "allowed":
                raise LabError(f"a hold was not allowed: {answer.status} {told}")

    return ask


def _own(session: aiohttp.ClientSession, url: str) -> Ask:
    async def ask(number: int) -> None:
        asked = AskHold(f"own{number}", f"k{number % RIDERS + 1}", "CNY", CAP_MINOR, f"ride own-{number}")
        async with session.post(url, data=msgspec.json.encode(asked), headers=HEADERS) as answer:
            await answer.read()
            answer.raise_for_status()

    return ask


def _disk(pool: asyncpg.Pool[asyncpg.Record]) -> Ask:
    async def ask(number: int) -> None:
        for _ in range(2):
            await pool.execute("INSERT INTO two_commits VALUES ($1)", number)

    return ask


async def _tariff_and_token(url: str) -> str:
    """A tariff in force and an app's token."""
    secret, now = secrets.token_urlsafe(24), datetime.now(UTC)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("INSERT INTO tariff (operator_no, tariff_id) VALUES (1, 'bike')")
        await connection.execute(
            "INSERT INTO tariff_version (tariff_no, version, valid_from, document, digest, created_at)"
            " VALUES (1, 1, '2026-01-01T00:00:00Z', $1, '', $2)",
            TARIFF,
            now,
        )
        scopes = ["status:read", "billing:write"]
        await TokenStore(connection).add(token_hash(secret), "default", "bench", scopes, None, now, None)
    finally:
        await connection.close()
    return secret
