"""The process dies before any statement, before any commit, around any call: nothing is lost, nothing taken twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar, cast

import asyncpg
import pytest
from collecting_bench import Bench, open_bench
from fakes import Fault, KilledError

from service.adapters.postgres import Database, Store
from service.adapters.providers.port import Provider
from service.billing.capabilities import Capabilities
from service.flows.collection import Collection

StoreT = TypeVar("StoreT", bound=Store)


class Life:
    """How many statements and commits a process has left; dying is what a SIGKILL would do there."""

    def __init__(self, left: int) -> None:
        self.left = left

    def step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KilledError


class MortalConnection:
    """A connection to PostgreSQL whose process dies before one of its statements; the server rolls back, as it does."""

    def __init__(self, connection: Any, life: Life) -> None:
        self._connection = connection
        self._life = life

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._connection, name)

        async def statement(*arguments: Any, **options: Any) -> Any:
            self._life.step()
            return await call(*arguments, **options)

        return statement


class MortalDatabase(Database):
    """Transactions of a process that dies when its life is over: before a statement, or before the commit."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], life: Life) -> None:
        super().__init__(pool)
        self._life = life

    @asynccontextmanager
    async def transaction(self, store: type[StoreT], *, snapshot: bool = False) -> AsyncIterator[StoreT]:
        async with super().transaction(store, snapshot=snapshot) as made:
            made.connection = cast("asyncpg.Connection[asyncpg.Record]", MortalConnection(made.connection, self._life))
            yield made
            self._life.step()


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url, Capabilities(same_key_window=timedelta(days=60))) as bench:
        yield bench


async def die_everywhere(bench: Bench, url: str, story: Callable[[Collection], Awaitable[None]]) -> int:
    """Plays a story again and again, its process dying one step later each time; returns how often it died."""
    pool = await asyncpg.create_pool(url, min_size=1, max_size=2)
    deaths = 0
    try:
        while True:
            life = Life(deaths)
            mortal = MortalDatabase(pool, life)
            providers = {bench.account_no: cast(Provider, bench.provider)}
            collector = Collection(mortal, providers, lambda: bench.now, lambda: bench.machine, concurrency=8)
            with suppress(KilledError):
                await story(collector)
            if life.left >= 0:
                return deaths
            deaths += 1
            assert deaths < 500, "the story never comes to its end"
    finally:
        await pool.close()


@pytest.mark.parametrize("fault", [None, "lost_before", "lost_after", "accepted", "throttled", "short"])
async def test_a_debit_and_its_refund_survive_a_death_at_any_step(
    bench: Bench, database_url: str, fault: Fault | None
) -> None:
    rides = []

    async def story(collector: Collection) -> None:
        bench.provider.faults["*"] = [fault] if fault else []
        party = await bench.party()
        ride = await bench.unplanned(party, 300)
        rides.append(ride)
        await collector.plan_round()
        await collector.submit_round(bench.account_no)
        bench.pass_time(timedelta(seconds=1))
        await collector.submit_round(bench.account_no)
        await bench.owe_unplanned(ride, 2, -100)
        await collector.plan_round()
        await collector.submit_round(bench.account_no)

    deaths = await die_everywhere(bench, database_url, story)
    bench.provider.faults.clear()
    for key in list(bench.provider.pending):
        bench.provider.collect(key)
    await bench.collection.plan_round()
    await bench.settle_down(60, timedelta(hours=6))
    assert deaths > 20
    for ride in rides:
        debits = await bench.debits(ride)
        corrected = (
            await bench.connection.fetchval("SELECT count(*) FROM obligation WHERE ride_no = $1", ride.ride_no) == 2
        )
        assert [row["state"] for row in debits] == ["settled"]
        assert sum(row["paid_minor"] - row["refunded_minor"] for row in debits) == (200 if corrected else 300)
        assert await bench.balance(1, ride.party.agreement_no) == 0
    assert sum(bench.provider.taken.values()) - sum(bench.provider.given_back.values()) == await bench.balance(
        4, bench.account_no
    )
