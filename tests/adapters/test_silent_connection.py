"""A half-open connection to PostgreSQL: it is let go of when an answer does not come, and not waited for twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from proxy import Proxy

from service.adapters.postgres import UNAVAILABLE, Database, Store, access, let_go_in_silence
from service.adapters.postgres.access import dial, pooled

SILENCE_S = 0.2


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    url = urlsplit(database_url)
    proxy = Proxy(url.hostname or "", url.port or 0)
    yield proxy
    await proxy.stop()


async def through(proxy: Proxy, database_url: str) -> str:
    """The database's URL by way of the proxy."""
    url = urlsplit(database_url)
    return url._replace(netloc=f"{url.username}:{url.password}@127.0.0.1:{await proxy.start()}").geturl()


async def test_no_rollback_is_waited_for_on_a_connection_that_is_silent(proxy: Proxy, database_url: str) -> None:
    connection = await dial(await through(proxy, database_url), command_timeout=SILENCE_S)
    with pytest.raises(UNAVAILABLE):
        async with Store(connection).transaction():
            proxy.strand()
            await connection.execute("SELECT 1")
    assert connection.is_closed()


async def test_a_pool_gives_a_silent_connection_up_and_opens_another(proxy: Proxy, database_url: str) -> None:
    pool = await pooled(await through(proxy, database_url), min_size=1, max_size=1, command_timeout=SILENCE_S)
    database = Database(pool)
    with pytest.raises(UNAVAILABLE):
        async with database.reading(Store) as store:
            proxy.strand()
            await store.connection.execute("SELECT 1")
    proxy.mend()
    async with database.transaction(Store) as store:
        assert await store.connection.fetchval("SELECT 1") == 1
    await database.close()


async def test_a_connection_is_not_waited_for_where_nobody_answers(
    proxy: Proxy, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "DIAL_SECONDS", SILENCE_S)
    url = await through(proxy, database_url)
    proxy.strand()
    async with asyncio.timeout(30):
        with pytest.raises(UNAVAILABLE):
            await dial(url)
        with pytest.raises(UNAVAILABLE):
            await pooled(url, min_size=1, max_size=1)


async def test_what_else_fails_leaves_the_connection_as_it_is(proxy: Proxy, database_url: str) -> None:
    connection = await dial(await through(proxy, database_url), command_timeout=SILENCE_S)
    with pytest.raises(ValueError, match="nothing to do with it"), let_go_in_silence(connection):
        raise ValueError("nothing to do with it")
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()
