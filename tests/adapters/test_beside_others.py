"""What a request or a chore reads does not grow with what other operators and riders have.

The plans are the generic ones, as `serve` has them: made once, without a look at who asks.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from service.adapters.postgres import QUERIES

MANY = 20_000
PAGES_MAX = 300
"""Pages of 8 KiB: for fifty rows of four tables; those of the many take thousands."""
FILLED = """
INSERT INTO operator (operator_id, name, time_zone, currency, created_at)
  SELECT id, id, 'Asia/Shanghai', 'CNY', now() FROM unnest(ARRAY['large', 'small']) id;
INSERT INTO merchant_account (operator_no, account_id, provider, base_url, created_at)
  SELECT operator_no, 'a', 'sandbox', 'http://127.0.0.1:1', now() FROM operator WHERE operator_id IN ('large', 'small');
INSERT INTO rider (operator_no, rider_ref)
  SELECT operator_no, 'r-' || n FROM operator, generate_series(1, $many) n
  WHERE operator_id = 'large' OR operator_id = 'small' AND n <= 3;
INSERT INTO agreement (operator_no, agreement_id, rider_no, account_no, state, currency, time_zone, language,
    provider_key, created_at, updated_at)
  SELECT operator_no, 'a-' || rider_ref, rider_no, account_no, 'active', 'CNY', 'Asia/Shanghai', 'zh', 'k-' || rider_no,
    now(), now()
  FROM rider JOIN merchant_account USING (operator_no) ORDER BY operator_no DESC, rider_no;
INSERT INTO quarantine (operator_no, topic, partition, record_offset, record_timestamp_ms, record_headers, record_value,
    fault, reason, path, source, state, created_at)
  SELECT operator_no, 'rides', 0, n, operator_no, '\\x90', '\\x7b7d', fault, 'r', '', 'urn:nobody', state, now()
  FROM (SELECT operator_no, n, CASE WHEN n % 2 = 0 THEN 'record' ELSE 'unmapped_source' END AS fault,
          CASE WHEN n % 3 = 0 THEN 'replayed' ELSE 'held' END AS state
        FROM operator, generate_series(1, $many) n
        WHERE operator_id = 'large' OR operator_id = 'small' AND n <= 3) held
  ORDER BY operator_no DESC, n;
UPDATE installation SET default_operator_no = NULL;
ANALYZE;
""".replace("$many", str(MANY))


@pytest.fixture(scope="module")
async def asking(database_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(database_url)
    await connection.execute(FILLED)
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    yield connection
    await connection.close()


LARGE, SMALL = 2, 3
"""Operators; the first is that of every installation."""
LAST_RIDER = f"'r-{MANY}'"
STATES = "ARRAY['pending', 'active', 'suspended', 'refused', 'revoked', 'expired']"
NEWEST = str(2**62)


@pytest.mark.parametrize(
    ("name", "first", "arguments", "rows"),
    [
        ("list_agreements", SMALL, f"0, {STATES}, 50", 3),
        ("list_agreements", LARGE, f"0, {STATES}, 50", 50),
        ("list_agreements", LARGE, "0, ARRAY['revoked'], 50", 0),
        ("list_agreements_of_rider", LARGE, f"0, {STATES}, 50, {LAST_RIDER}", 1),
        ("list_agreements_of_rider", SMALL, f"0, {STATES}, 50, 'r-3'", 1),
        ("list_agreements_of_rider", SMALL, f"0, {STATES}, 50, {LAST_RIDER}", 0),
        ("agreement_numbers", LARGE, f"'a-r-{MANY}', NULL", 1),
        ("agreement_numbers", LARGE, f"'a-r-{MANY}', {LAST_RIDER}", 1),
        ("agreement_numbers", LARGE, f"'a-r-{MANY}', 'r-1'", 0),
        ("agreement_numbers_of_rider", LARGE, LAST_RIDER, 1),
        ("agreement_numbers_of_rider", SMALL, LAST_RIDER, 0),
        ("held_records", SMALL, f"false, {NEWEST}, NULL, 50", 3),
        ("held_records", SMALL, f"true, {NEWEST}, 'held', 50", 2),
        ("held_records", SMALL, f"true, {NEWEST}, 'discarded', 50", 0),
        ("held_records", LARGE, f"false, {NEWEST}, NULL, 50", 50),
        ("held_records", LARGE, f"true, {NEWEST}, 'discarded', 50", 0),
        ("held_for_a_mapped_source", 500, "16777216", 0),
    ],
)
async def test_a_page_reads_little_of_what_others_have(
    asking: asyncpg.Connection[Any], name: str, first: int, arguments: str, rows: int
) -> None:
    await asking.execute(f"PREPARE asked AS {QUERIES[name]}")
    told = await asking.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE asked ({first}, {arguments})")
    await asking.execute("DEALLOCATE asked")
    plan = json.loads(told)[0]["Plan"]
    assert plan["Actual Rows"] == rows
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] <= PAGES_MAX, told


async def test_what_goes_back_to_the_stream_is_bounded_by_its_bytes(asking: asyncpg.Connection[Any]) -> None:
    """Five hundred records of a megabyte were half a gigabyte in one batch."""
    await asking.execute(
        "INSERT INTO operator_source (topic, source, operator_no, created_at)"
        " VALUES ('rides', 'urn:bytes', 3, now());"
        " INSERT INTO quarantine (topic, partition, record_offset, record_timestamp_ms, record_headers, record_value,"
        " fault, reason, path, source, created_at) SELECT 'rides', 1, n, 0, '\\x90', decode(repeat('7b', 1000), 'hex'),"
        " 'unmapped_source', 'r', '', 'urn:bytes', now() FROM generate_series(1, 20) n"
    )
    for bytes_max, count in ((1, 1), (1001, 1), (1002, 2), (10_000, 10), (1 << 24, 20)):
        held = await asking.fetch(QUERIES["held_for_a_mapped_source"], 500, bytes_max)
        assert len(held) == count
        assert [row["quarantine_no"] for row in held] == sorted(row["quarantine_no"] for row in held)
    assert len(await asking.fetch(QUERIES["held_for_a_mapped_source"], 7, 1 << 24)) == 7
    await asking.execute("UPDATE installation SET default_operator_no = 3")
    assert len(await asking.fetch(QUERIES["held_for_a_mapped_source"], 500, 1 << 24)) == 500
