"""A pool's connection goes to its next user without a question to the server in between."""

from __future__ import annotations

import re

import pytest

from service.adapters.postgres import QUERIES, Database, Store
from service.adapters.postgres.access import pooled

LASTING = re.compile(
    r"(?i)pg_(try_)?advisory_lock|set_config\([^)]*false\)|create temp|\A(\s*--.*\n)*\s*(set|listen|prepare|declare)\b"
)
"""What a session keeps when its transaction is over."""


async def test_what_a_torn_transaction_did_is_undone_before_the_next_one_uses_its_connection(database_url: str) -> None:
    database = Database(await pooled(database_url, min_size=1, max_size=1))
    async with database.reading(Store) as store:
        await store.connection.execute("BEGIN; SET LOCAL lock_timeout = '7s'; CREATE TEMP TABLE torn (x int)")
    async with database.reading(Store) as store:
        assert await store.connection.fetchval("SHOW lock_timeout") != "7s"
        assert await store.connection.fetchval("SELECT to_regclass('torn')") is None
    await database.close()


async def test_a_connection_is_waited_for_no_longer_than_is_said(database_url: str) -> None:
    """Two hundred requests waited behind slow ones for the whole minute that a request may take."""
    database = Database(await pooled(database_url, min_size=1, max_size=1), within_seconds=0.05)
    async with database.reading(Store):
        with pytest.raises(TimeoutError):
            async with database.transaction(Store):
                raise AssertionError
    async with database.transaction(Store) as store:
        assert await store.connection.fetchval("SELECT 1") == 1
    await database.close()


def test_no_query_leaves_anything_behind_in_the_session_that_runs_it() -> None:
    assert [name for name, text in QUERIES.items() if LASTING.search(text)] == []
    assert LASTING.search("-- Says who we are.\nSET application_name = 'x'")
