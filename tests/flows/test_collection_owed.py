"""What is owed more or less while, before and after a debit: corrections, voids, caps, refunds, holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import cast

import pytest
from collecting_bench import Bench, assert_books_agree, open_bench
from fakes import KilledError

from service.adapters.postgres.collection import CollectionStore
from service.adapters.providers.port import Provider
from service.billing.capabilities import Capabilities
from service.billing.debits.collecting import Book
from service.billing.debits.events import Notified, OperatorDecided
from service.billing.outcomes import Succeeded
from service.flows.collection.keeping import keep, net_rides

CLEARING, RECEIVABLE, WRITE_OFFS = 4, 1, 7


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url) as bench:
        yield bench
        await assert_books_agree(bench)


async def test_a_correction_upwards_is_a_further_debit(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    await bench.collection.submit_round(bench.account_no)
    await bench.owe(ride, 2, 50)
    await bench.collection.submit_round(bench.account_no)
    assert await bench.states(ride) == [("settled", 300, 300), ("settled", 50, 50)]


async def test_a_debit_that_another_process_opens_meanwhile_is_netted_too(bench: Bench) -> None:
    """Its row was inserted while this process waited for the lock of the ride's first debit."""
    ride = await bench.ride(await bench.party(), 300)
    await bench.collection.submit_round(bench.account_no)
    await bench.owe_unplanned(ride, 2, 50)
    providers = {bench.account_no: cast(Provider, bench.provider)}
    async with bench.database.transaction(CollectionStore) as store:
        book = Book(bench.now)
        rows = await net_rides(store, providers, book, [ride.ride_no])
        await keep(store, providers, book, rows, {}, bench.machine, "collection/wishes", {})
        await bench.owe_unplanned(ride, 3, -70)
        planning = asyncio.create_task(bench.collector().plan_round())
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        async with asyncio.timeout(20):
            while not await bench.connection.fetchval(waits):
                assert not planning.done()
    await planning
    assert await bench.states(ride) == [("settled", 300, 300), ("cancelled", 50, 0)]
    await bench.settle_down(2)
    assert list(bench.provider.given_back.values()) == [20]


async def test_a_correction_before_the_debit_changes_its_amount(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    await bench.owe(ride, 2, -100)
    await bench.collection.submit_round(bench.account_no)
    assert await bench.states(ride) == [("settled", 200, 200)]


async def test_a_correction_downwards_after_the_debit_is_refunded(bench: Bench) -> None:
    party = await bench.party()
    ride = await bench.ride(party, 300)
    await bench.collection.submit_round(bench.account_no)
    await bench.owe(ride, 2, -100)
    bench.provider.faults["*"] = ["lost_after"]
    await bench.settle_down(5)
    [debit] = await bench.debits(ride)
    assert (debit["state"], debit["paid_minor"], debit["refunded_minor"], debit["refunding_minor"]) == (
        "settled",
        300,
        100,
        0,
    )
    assert list(bench.provider.given_back.values()) == [100]
    assert await bench.balance(RECEIVABLE, party.agreement_no) == 0


async def test_a_refund_survives_a_process_that_dies(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    await bench.collection.submit_round(bench.account_no)
    await bench.owe(ride, 2, -300)
    bench.provider.faults["*"] = ["killed_before"]
    with pytest.raises(KilledError):
        await bench.collection.submit_round(bench.account_no)
    await bench.settle_down()
    assert list(bench.provider.given_back.values()) == [300]
    assert (await bench.debits(ride))[0]["refunded_minor"] == 300


async def test_obligations_wait_while_the_outcome_is_unknown(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    bench.provider.faults["*"] = ["lost_after"]
    await bench.collection.submit_round(bench.account_no)
    assert await bench.states(ride) == [("unknown", 300, 0)]
    await bench.owe(ride, 2, -300)
    assert await bench.states(ride) == [("unknown", 300, 0)]
    await bench.settle_down(8)
    assert (await bench.debits(ride))[0]["refunded_minor"] == 300


async def test_a_void_before_the_debit_cancels_it(bench: Bench) -> None:
    party = await bench.party()
    ride = await bench.ride(party, 300)
    await bench.owe(ride, 2, -300)
    assert await bench.states(ride) == [("cancelled", 300, 0)]
    assert await bench.collection.submit_round(bench.account_no) == 0
    assert await bench.balance(RECEIVABLE, party.agreement_no) == 0


async def test_a_void_while_pending_closes_it_at_the_provider(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    bench.provider.faults["*"] = ["accepted"]
    await bench.collection.submit_round(bench.account_no)
    await bench.owe(ride, 2, -300)
    await bench.collection.submit_round(bench.account_no)
    assert await bench.states(ride) == [("cancelled", 300, 0)]
    assert bench.provider.pending == {}


async def test_a_void_that_comes_too_late_for_closing_is_refunded(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    bench.provider.faults["*"] = ["accepted"]
    await bench.collection.submit_round(bench.account_no)
    bench.provider.collect((await bench.debits(ride))[0]["provider_key"])
    await bench.owe(ride, 2, -300)
    await bench.settle_down(6)
    [debit] = await bench.debits(ride)
    assert (debit["state"], debit["refunded_minor"]) == ("settled", 300)


async def test_above_the_cap_the_remainder_needs_the_rider(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(cap_minor=200), 300)
    await bench.collection.submit_round(bench.account_no)
    assert await bench.states(ride) == [("settled", 200, 200), ("needs_rider", 100, 0)]


async def test_money_that_comes_for_a_cancelled_debit_goes_back_by_itself(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    await bench.owe(ride, 2, -300)
    [debit] = await bench.debits(ride)
    bench.provider.taken[debit["provider_key"]] = 300
    news = ((ride.ride_no, 1), Notified(debit["provider_key"], Succeeded(300, "late")))
    await bench.collection.happen([news])
    await bench.collection.happen([news])
    await bench.settle_down(3)
    [debit] = await bench.debits(ride)
    assert (debit["state"], debit["refunded_minor"]) == ("settled_twice", 300)


async def test_a_hold_is_completed_when_its_last_debit_is_final(database_url: str) -> None:
    async with open_bench(database_url, Capabilities(hold_needed=True)) as bench:
        ride = await bench.ride(await bench.party(), 300)
        [debit] = await bench.debits(ride)
        await bench.hold(ride, "open", "hold-key", "hold-ref", cap_minor=500, opened=True)
        await bench.collection.submit_round(bench.account_no)
        hold = await bench.connection.fetchrow("SELECT * FROM hold WHERE session_key = $1", debit["session_key"])
        assert hold is not None
        assert (hold["state"], hold["reason"], hold["due_at"]) == ("completing", "settled", bench.now)
        assert next(iter(bench.provider.asked.values())).hold is not None


async def test_a_refund_too_late_for_the_provider_fails_at_once(database_url: str) -> None:
    async with open_bench(database_url, Capabilities(refund_window=timedelta(days=30))) as bench:
        ride = await bench.ride(await bench.party(), 300)
        await bench.collection.submit_round(bench.account_no)
        bench.pass_time(timedelta(days=31))
        await bench.owe(ride, 2, -100)
        refund = await bench.connection.fetchrow("SELECT state, code FROM refund WHERE ride_no = $1", ride.ride_no)
        assert refund is not None
        assert tuple(refund) == ("failed", "refund_window_over")
        assert (await bench.debits(ride))[0]["refunding_minor"] == 0


async def test_what_was_written_off_is_owed_less_even_when_it_was_paid_after_all(bench: Bench) -> None:
    """Money that comes after an operator's end goes back; that he wrote the ride off stands, as far as it is owed."""
    party = await bench.party()
    ride = await bench.ride(party, 300)
    (debit,) = await bench.debits(ride)
    key, number = (ride.ride_no, 1), debit["provider_key"]
    await bench.connection.execute(
        "UPDATE debit SET state = 'manual', attempts = 1, submitted_at = $2, begun_at = $2, asked_minor = 300,"
        " due_at = NULL WHERE ride_no = $1",
        ride.ride_no,
        bench.now,
    )
    await bench.collection.happen([(key, OperatorDecided("cancel", "too old"))])
    bench.provider.taken[number] = 300
    await bench.collection.happen([(key, Notified(number, Succeeded(300, "late")))])
    await bench.settle_down(3)
    assert await bench.states(ride) == [("settled_twice", 300, 300)]
    for revision, less, written_off in ((2, -100, 200), (3, -200, 0)):
        await bench.owe(ride, revision, less)
        await bench.settle_down(3)
        assert await bench.balance(WRITE_OFFS, party.operator_no) == written_off
        assert await bench.balance(RECEIVABLE, party.agreement_no) == 0
    assert sum(bench.provider.given_back.values()) == 300
