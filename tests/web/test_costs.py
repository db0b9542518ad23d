"""What one request may cost: neither many names that nobody knows nor many large rows make it dear."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import pytest
from ride_builders import at
from ride_builders import tariff as bike
from web_world import WebWorld, web_world

from service.adapters.postgres.rides import RideStore
from service.web.doors import UNKNOWN_EVERY, Doors

SOON = UNKNOWN_EVERY - timedelta(milliseconds=1)
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%merchant_account%'"


class Hand:
    """A machine's clock that stands until it is moved."""

    def __init__(self) -> None:
        self.shown = at(0)

    def __call__(self) -> datetime:
        return self.shown


@pytest.fixture(scope="module")
async def it(database_url: str) -> AsyncIterator[WebWorld]:
    async with web_world(database_url) as it:
        yield it


@asynccontextmanager
async def doors_by(it: WebWorld, clock: Hand) -> AsyncIterator[Doors]:
    """Another serving process of the same installation, by a clock of its own, which has read what there is."""
    doors = Doors(it.doors.settings, clock)
    await doors.open()
    try:
        await doors.refresh()
        yield doors
    finally:
        await doors.close()


async def test_an_account_that_nobody_knows_is_looked_for_once_in_a_second(it: WebWorld) -> None:
    clock = Hand()
    async with doors_by(it, clock) as doors:
        await it.open_account(1, "acc-first")
        assert await doors.provider_of("sandbox", "default.acc-first") is not None  # Nobody had asked in vain before.
        await it.open_account(1, "acc-second")
        clock.shown += SOON
        assert await doors.provider_of("sandbox", "default.acc-second") is None
        assert await doors.provider_of("sandbox", "default.acc-first") is not None
        clock.shown += UNKNOWN_EVERY - SOON
        assert await doors.provider_of("sandbox", "default.acc-second") is not None
        await it.open_account(1, "acc-third")
        clock.shown -= timedelta(hours=1)
        assert await doors.provider_of("sandbox", "default.acc-third") is not None  # A clock set back locks nobody out.
        await it.open_account(1, "acc-fourth")
        assert await doors.provider_of("sandbox", "default.acc-fourth") is None
        await doors.refresh()
        assert await doors.provider_of("sandbox", "default.acc-fourth") is not None


async def test_a_tariff_that_nobody_knows_is_looked_for_once_in_a_second(it: WebWorld) -> None:
    clock = Hand()
    async with doors_by(it, clock) as doors:

        def knows(name: str) -> bool:
            return doors.knowledge.catalog.knows_tariff(1, name)

        await it.publish(1, bike(name="first"))
        await doors.look_again()
        assert knows("first")
        await it.publish(1, bike(name="second"))
        clock.shown += SOON
        await doors.look_again()
        assert not knows("second")
        clock.shown += UNKNOWN_EVERY - SOON
        await doors.look_again()
        assert knows("second")
        await it.publish(1, bike(name="third"))
        await doors.refresh()
        assert knows("third")


async def test_who_asks_for_an_unknown_account_during_a_look_waits_for_it_and_goes_by_it(it: WebWorld) -> None:
    async with doors_by(it, Hand()) as doors:
        async with it.database.transaction(RideStore) as store:
            await store.connection.execute("LOCK TABLE merchant_account IN ACCESS EXCLUSIVE MODE")
            asked = [asyncio.create_task(doors.provider_of("sandbox", f"default.none-{n}")) for n in range(5)]
            async with asyncio.timeout(10):
                while not await store.connection.fetchval(WAITING):  # noqa: ASYNC110  It happens in PostgreSQL.
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            assert await store.connection.fetchval(WAITING) == 1
            assert not any(task.done() for task in asked)
            asked.pop(0).cancel()  # The others don't depend on who came first.
        assert await asyncio.gather(*asked) == [None] * 4
        async with it.database.transaction(RideStore) as store:
            await store.connection.execute("LOCK TABLE merchant_account IN ACCESS EXCLUSIVE MODE")
            async with asyncio.timeout(10):
                assert await doors.provider_of("sandbox", "default.none") is None


async def test_a_look_that_failed_was_none(it: WebWorld) -> None:
    async with doors_by(it, Hand()) as doors:
        await it.open_account(1, "acc-hidden")
        await it.sql("ALTER TABLE merchant_account RENAME TO hidden")
        try:
            with pytest.raises(Exception, match="merchant_account"):
                await doors.provider_of("sandbox", "default.acc-hidden")
        finally:
            await it.sql("ALTER TABLE hidden RENAME TO merchant_account")
        assert await doors.provider_of("sandbox", "default.acc-hidden") is not None


async def test_a_rider_is_told_a_hundred_agreements_the_newest_first(it: WebWorld) -> None:
    await it.sql(
        "INSERT INTO agreement (operator_no, agreement_id, rider_no, account_no, state, currency, time_zone, language,"
        " provider_key, created_at, updated_at)"
        " SELECT operator_no, 'agr-more-' || lpad(n::text, 3, '0'), rider_no, account_no, 'revoked', currency,"
        " time_zone, language, 'more-' || n, created_at, updated_at FROM agreement, generate_series(100, 1, -1) n"
        " WHERE operator_no = 1 AND agreement_id = 'agr-1' ORDER BY n DESC"
    )
    told = [agreement["agreement_id"] for agreement in (await it.get("/v1/riders/anna"))["agreements"]]
    assert told == [f"agr-more-{n:03}" for n in range(1, 101)]


async def test_a_tariff_of_many_large_versions_costs_no_more_than_the_one_that_is_shown(it: WebWorld) -> None:
    """Every document was read for the summaries: a thousand large ones were a gigabyte, and a rider's token may ask."""
    megabyte = 1_000_000
    await it.sql("INSERT INTO tariff (operator_no, tariff_id) VALUES (1, 'large')")
    await it.sql(
        "INSERT INTO tariff_version (tariff_no, version, valid_from, document, digest, created_at)"
        " SELECT tariff_no, n, now(), json_build_object('version', n, 'words', repeat('a', $1)), '', now()"
        " FROM tariff, generate_series(1, 60) n WHERE tariff_id = 'large'",
        megabyte,
    )
    tracemalloc.start()
    try:
        newest = await it.get("/v1/tariffs/large", by="anna")
        oldest = await it.get("/v1/tariffs/large?version=1", by="anna")
        listed = await it.get("/v1/tariffs", by="anna")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (newest["version"], newest["document"]["version"]) == (60, 60)
    assert (oldest["version"], oldest["document"]["version"]) == (1, 1)
    assert [told["version"] for told in newest["versions"]] == list(range(60, 0, -1))
    assert newest["versions"] == oldest["versions"]
    assert [told for told in listed["items"] if told["tariff_id"] == "large"] == newest["versions"][:1]
    assert peak < 30 * megabyte
