"""A provider who answers for days in words that nobody has listed: people hear of it, nothing is sent, it goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from collecting_bench import Bench, assert_books_agree, open_bench

from service.adapters.postgres.reading import ReadingStore
from service.telemetry import DEBITS, REFUNDS

HALF_A_DAY = timedelta(hours=12)


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url) as bench:
        yield bench
        await assert_books_agree(bench)


async def test_a_debit_is_counted_once_sent_once_and_settled_by_itself_in_the_end(bench: Bench) -> None:
    bench.provider.faults["*"] = ["accepted"]
    ride = await bench.ride(await bench.party(), 300)
    await bench.settle_down(1)
    counted = DEBITS.labels("unanswered")._value.get()
    bench.provider.mute = True
    await bench.settle_down(12, HALF_A_DAY)
    [debit] = await bench.debits(ride)
    assert (debit["state"], debit["reason"]) == ("pending", "its provider says neither yes nor no: code NEVER_HEARD")
    assert DEBITS.labels("unanswered")._value.get() == counted + 1
    assert [what for what, _ in bench.provider.calls].count("debit") == 1
    bench.provider.mute = False
    bench.provider.collect(debit["provider_key"])
    await bench.settle_down(4, HALF_A_DAY)
    assert await bench.states(ride) == [("settled", 300, 300)]
    assert (await bench.debits(ride))[0]["reason"] is None


async def test_a_refund_is_listed_and_succeeds_by_itself_in_the_end(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    await bench.settle_down(1)
    bench.provider.stand_still, bench.provider.mute = True, True
    counted = REFUNDS.labels("stands_still")._value.get()
    await bench.owe(ride, 2, -100)
    await bench.settle_down(12, HALF_A_DAY)
    async with bench.database.reading(ReadingStore) as store:
        [row] = await store.troubled_refunds(ride.party.operator_no, 10)
    assert (row.state, row.code) == ("pending", "its provider says neither yes nor no: code NEVER_HEARD")
    assert REFUNDS.labels("stands_still")._value.get() > counted
    bench.provider.stand_still, bench.provider.mute = False, False
    await bench.settle_down(4, HALF_A_DAY)
    assert (await bench.debits(ride))[0]["refunded_minor"] == 100
    async with bench.database.reading(ReadingStore) as store:
        assert await store.troubled_refunds(ride.party.operator_no, 10) == []
