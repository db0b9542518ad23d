"""The benches of collection measure what is really there, and due debits are found by their index."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import asyncpg
import pytest
from aiohttp import web
from rich.console import Console

from service.adapters.postgres import QUERIES, connect
from service.adapters.providers import open_provider
from service.adapters.providers.port import AgreementRef, DebitRequest, MerchantAccount
from service.lab.bench_calls import bodies
from service.lab.bench_claims import claim_pages, claim_reads
from service.lab.bench_collection import COLUMNS, bench_collection
from service.lab.bench_debits import ACCOUNT, AMOUNT_MINOR, API_KEY, HEADERS, add_due, add_settled, furnished_database
from service.lab.bench_holds import bench_holds
from service.lab.servers import Servers

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
SINCE = datetime(2026, 9, 1, tzinfo=UTC)


@pytest.fixture
async def filled(servers: Servers) -> AsyncIterator[Connection]:
    """Three months of settled debits, the last of which has a few that are due; a connection like the role's."""
    url = await furnished_database(servers, "bench_of_claims", "http://127.0.0.1", SINCE)
    connection = await connect(url, name="test", hot=True)
    try:
        await add_settled(connection, SINCE, 3, 6_000)
        await add_due(connection, 300, "due", NOW)
        yield connection
    finally:
        await connection.close()
        await servers.drop_database("bench_of_claims")


async def test_due_debits_are_found_by_their_index_whatever_is_settled_beside_them(filled: Connection) -> None:
    assert await claim_reads(filled, NOW) == {"Index Scan by account_no_due_at_idx"}
    rows = await filled.fetch(QUERIES["claim_debits"], 1, NOW, NOW, 256)
    assert len({row["ride_no"] for row in rows}) == 256
    assert {row["state"] for row in rows} == {"new"}
    assert [row["due_at"] for row in rows] == sorted(row["due_at"] for row in rows)


async def test_an_idle_claim_reads_no_settled_debit(filled: Connection) -> None:
    await filled.execute("UPDATE debit SET due_at = NULL, state = 'settled' WHERE due_at IS NOT NULL")
    await filled.execute("VACUUM debit")
    assert await claim_pages(filled, NOW) < 100, "6,300 debits lie in many hundred pages"


@pytest.mark.parametrize(("going_on", "stopped", "found"), [(False, [], 10), (True, [1], 100)])
async def test_a_claim_under_a_stop_walks_over_nothing_that_waits(
    filled: Connection, going_on: bool, stopped: list[int], found: int
) -> None:
    """Of an account's 20,300 debits, the newest 100 are of a tariff that is not stopped; 10 of them are asked about."""
    await add_due(filled, 20_000, "waiting", NOW - timedelta(hours=1))
    for tariff in ("stopped", "live"):
        await filled.execute("INSERT INTO tariff (operator_no, tariff_id) VALUES (1, $1)", tariff)
    await filled.execute("UPDATE debit SET tariff_no = 1 WHERE due_at IS NOT NULL")
    await filled.execute(
        "UPDATE debit d SET tariff_no = 2, submitted_at = created_at,"
        " state = CASE WHEN newest.rank <= 10 THEN 'unknown' ELSE state END"
        " FROM (SELECT ride_no, rank() OVER (ORDER BY due_at DESC) FROM debit WHERE state = 'new') newest"
        " WHERE d.ride_no = newest.ride_no AND newest.rank <= 100"
    )
    await filled.execute("VACUUM (ANALYZE) debit")
    said = f"{going_on}, ARRAY{stopped}::integer[]"
    assert await claim_reads(filled, NOW, said) == {
        "Index Scan by account_no_due_at_idx1",
        "Index Scan by account_no_coalesce_due_at_idx",
        "Index Scan by pkey",
    }
    rows = await filled.fetch(QUERIES["claim_debits_stopped"], 1, NOW, NOW, 256, going_on, stopped)
    assert len(rows) == found
    assert await claim_pages(filled, NOW, said) < 50 + 20 * found, "what waits lies in 800 more"


@pytest.mark.parametrize(("going_on", "stopped", "found"), [(False, [], 10), (True, [1], 100)])
async def test_a_claim_of_refunds_under_a_stop_walks_over_nothing_that_waits(
    filled: Connection, going_on: bool, stopped: list[int], found: int
) -> None:
    """Of 6,000 refunds the newest 100 are of a tariff that is not stopped; 10 of them are asked about."""
    for tariff in ("stopped", "live"):
        await filled.execute("INSERT INTO tariff (operator_no, tariff_id) VALUES (1, $1)", tariff)
    await filled.execute(
        "INSERT INTO refund (ride_no, ordinal, refund_ordinal, slot, operator_no, agreement_no, account_no, currency,"
        " amount_minor, state, provider_key, debit_key, tariff_no, reason, due_at, created_at, updated_at)"
        " SELECT ride_no, ordinal, 1, slot, operator_no, agreement_no, account_no, currency, 1,"
        " CASE WHEN rank <= 10 THEN 'unknown' ELSE 'new' END, provider_key, provider_key,"
        " CASE WHEN rank <= 100 THEN 2 ELSE 1 END, 'x', $1::timestamptz - interval '1 s' * rank, created_at, updated_at"
        " FROM (SELECT *, row_number() OVER (ORDER BY ride_no DESC) AS rank FROM debit WHERE state = 'settled') d",
        NOW,
    )
    await filled.execute("VACUUM (ANALYZE) refund")
    said = f"{going_on}, ARRAY{stopped}::integer[]"
    reads = await claim_reads(filled, NOW, said, "refund")
    assert reads - {"Index Scan by account_no_due_at_idx"} == {  # That of a month without refunds may be either.
        "Index Scan by account_no_due_at_idx1",
        "Index Scan by account_no_coalesce_due_at_idx",
        "Index Scan by pkey",
    }
    rows = await filled.fetch(QUERIES["claim_refunds_stopped"], 1, NOW, NOW, 256, going_on, stopped)
    assert len(rows) == found


async def test_the_settled_debits_of_a_bench_lie_in_whole_months(filled: Connection) -> None:
    months = await filled.fetch(
        "SELECT tableoid::regclass::text, count(*) FROM debit WHERE state = 'settled' GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(row) for row in months] == [(f"debit_2026_{month:02d}", 2_000) for month in (9, 10, 11)]


async def test_the_floor_sends_what_collection_sends() -> None:
    seen: list[tuple[bytes, dict[str, str]]] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        headers = {name: request.headers[name] for name in HEADERS}
        seen.append((await request.read(), headers))
        return web.Response(status=500)

    runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    provider = open_provider(MerchantAccount(1, ACCOUNT, "sandbox", url, {"api_key": API_KEY}))
    try:
        await provider.debit(DebitRequest("x1d0", AgreementRef("k1"), AMOUNT_MINOR, "CNY", "Ride x1-0"))
    finally:
        await provider.close()
        await runner.cleanup()
    assert seen == [(bodies(1, "x1")[0], HEADERS)]


async def test_the_bench_of_collection_settles_everything_and_says_how_fast_beside_its_floor() -> None:
    report = await bench_collection(300, 1, 8, (0, 10), Console(quiet=True))
    at_once, later = report.sections
    for section in (at_once, later):
        assert section.columns == COLUMNS
        assert [row[0] for row in section.rows] == ["floor", "collection"]
        floor, collection = (row[1] for row in section.rows)
        assert isinstance(floor, int) and floor > 0 and isinstance(collection, int) and collection > 0
        assert section.rows[1][2] == pytest.approx(collection / floor, rel=0.05)
    assert later.rows[0][1] <= 8 / 0.010, "eight calls under way, none answered before 10 ms"
    assert (report.settings["debits"], report.settings["fsync"]) == ("300", "on")


async def test_the_bench_of_holds_takes_off_what_the_provider_takes_by_itself() -> None:
    report = await bench_holds(60, 1000, Console(quiet=True))
    (section,) = report.sections
    names = ["through the service", "the provider alone", "ours", "two commits alone"]
    assert [row[0] for row in section.rows] == names
    served, provider, ours, disk = (row[1:] for row in section.rows)
    assert ours == pytest.approx([ms - own for ms, own in zip(served, provider, strict=True)], abs=0.01)
    assert sorted(served) == list(served) and min(provider) > 0 and min(disk) > 0
