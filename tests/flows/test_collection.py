"""Collection on a real PostgreSQL, against a provider with books of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from collecting_bench import Bench, assert_books_agree, open_bench
from fakes import Fault, KilledError
from prometheus_client import REGISTRY

from service.adapters.postgres.batches import FACTS_DECODER
from service.billing.debits import ImpossibleEventError
from service.billing.debits.events import Notified, OperatorDecided, PaidElsewhere, Suspended
from service.billing.outcomes import Accepted, Succeeded

CLEARING, RECEIVABLE = 4, 1


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url) as bench:
        yield bench
        await assert_books_agree(bench)


async def test_a_charged_ride_is_debited_once(bench: Bench) -> None:
    party = await bench.party()
    ride = await bench.ride(party, 250)
    assert await bench.states(ride) == [("new", 250, 0)]
    assert await bench.collection.submit_round(bench.account_no) == 1
    assert await bench.states(ride) == [("settled", 250, 250)]
    assert await bench.transitions(ride) == ["new", "submitting", "settled"]
    assert await bench.balance(RECEIVABLE, party.agreement_no) == 0
    assert await bench.collection.submit_round(bench.account_no) == 0
    assert await bench.collection.plan_round() == 0


async def test_facts_are_published_in_causal_order(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 250)
    await bench.collection.submit_round(bench.account_no)
    rows = await bench.connection.fetch(
        "SELECT facts FROM batch_facts JOIN batch USING (writer_no, seq) ORDER BY number"
    )
    types = [
        dict(record.headers)["ce_type"]
        for row in rows
        for record in FACTS_DECODER.decode(row["facts"])
        if record.key == ride.session_id.encode()
    ]
    assert types == [b"io.farebox.billing.debit.submitted.v1", b"io.farebox.billing.debit.settled.v1"]


@pytest.mark.parametrize("fault", ["lost_before", "lost_after"])
async def test_a_lost_answer_is_asked_for_and_never_charged_twice(bench: Bench, fault: Fault) -> None:
    ride = await bench.ride(await bench.party(), 300)
    bench.provider.faults["*"] = [fault]
    await bench.settle_down()
    assert await bench.states(ride) == [("settled", 300, 300)]
    assert len({key for what, key in bench.provider.calls if what == "debit"}) == 1
    assert sum(bench.provider.taken.values()) == 300


@pytest.mark.parametrize("fault", ["killed_before", "killed_after"])
async def test_a_process_that_dies_between_intent_and_saving_does_no_harm(bench: Bench, fault: Fault) -> None:
    ride = await bench.ride(await bench.party(), 300)
    bench.provider.faults["*"] = [fault]
    with pytest.raises(KilledError):
        await bench.collection.submit_round(bench.account_no)
    assert await bench.states(ride) == [("submitting", 300, 0)], "the intent was committed before the call"
    assert await bench.collector().submit_round(bench.account_no) == 0, "the lease is still somebody's"
    await bench.settle_down()
    assert await bench.states(ride) == [("settled", 300, 300)]
    assert "unknown" in await bench.transitions(ride)
    assert list(bench.provider.taken.values()) == [300]


async def test_two_collectors_never_take_the_same_debit(bench: Bench) -> None:
    party = await bench.party()
    rides = [await bench.ride(party, 100 + number) for number in range(20)]
    others = [bench.collector() for _ in range(3)]
    made = 0
    for _ in range(4):
        made += sum(await asyncio.gather(*(other.submit_round(bench.account_no) for other in others)))
    assert made == 20
    assert sorted(bench.provider.taken.values()) == sorted(100 + number for number in range(20))
    assert [(await bench.states(ride))[0][0] for ride in rides] == ["settled"] * 20


async def test_short_balance_is_tried_again_on_the_calendar_under_a_new_key(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    bench.provider.faults["*"] = ["short", "short"]
    await bench.collection.submit_round(bench.account_no)
    assert await bench.states(ride) == [("retry_wait", 300, 0)]
    assert await bench.collection.submit_round(bench.account_no) == 0
    bench.pass_time(timedelta(hours=40))
    await bench.collection.submit_round(bench.account_no)
    bench.pass_time(timedelta(days=3))
    await bench.collection.submit_round(bench.account_no)
    assert await bench.states(ride) == [("settled", 300, 300)]
    assert len({key for what, key in bench.provider.calls if what == "debit"}) == 3


async def test_an_accepted_debit_is_polled_until_it_is_paid(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    bench.provider.faults["*"] = ["accepted"]
    await bench.collection.submit_round(bench.account_no)
    bench.pass_time(timedelta(minutes=2))
    await bench.collection.submit_round(bench.account_no)
    assert await bench.states(ride) == [("pending", 300, 0)]
    bench.provider.collect((await bench.debits(ride))[0]["provider_key"])
    bench.pass_time(timedelta(minutes=6))
    await bench.collection.submit_round(bench.account_no)
    assert await bench.states(ride) == [("settled", 300, 300)]


async def test_a_notification_settles_what_is_pending_and_repeats_change_nothing(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    bench.provider.faults["*"] = ["accepted"]
    await bench.collection.submit_round(bench.account_no)
    key = (await bench.debits(ride))[0]["provider_key"]
    bench.provider.collect(key)
    assert await bench.collection.noticed(bench.account_no, key, Succeeded(300, "ref"))
    assert await bench.states(ride) == [("settled", 300, 300)]
    before = unexplained()
    for late in (Succeeded(300, "ref"), Accepted("ref")):
        assert await bench.collection.noticed(bench.account_no, key, late)
    assert unexplained() == before
    assert not await bench.collection.noticed(bench.account_no, key, Succeeded(300, "another payment"))
    assert unexplained() == before + 1
    assert await bench.states(ride) == [("settled", 300, 300)]


def unexplained() -> float:
    return REGISTRY.get_sample_value("farebox_unexplained_payments_total") or 0


async def test_a_throttled_provider_is_left_alone_and_gets_the_same_key(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    bench.provider.faults["*"] = ["throttled"]
    await bench.collection.submit_round(bench.account_no)
    assert await bench.states(ride) == [("submitting", 300, 0)]
    bench.now += timedelta(hours=1)
    assert await bench.collection.submit_round(bench.account_no) == 0, "the machine's clock has not reached it"
    bench.pass_time(timedelta(seconds=31))
    await bench.collection.submit_round(bench.account_no)
    assert await bench.states(ride) == [("settled", 300, 300)]
    assert len({key for _, key in bench.provider.calls}) == 1


async def test_overdue_is_marked_published_and_forgotten_when_paid_elsewhere(bench: Bench) -> None:
    party = await bench.party(cap_minor=0)
    ride = await bench.ride(party, 300)
    assert await bench.collection.policy_round(bench.account_no) == 0
    bench.pass_time(timedelta(days=16))
    assert await bench.collection.policy_round(bench.account_no) == 1
    assert (await bench.debits(ride))[0]["overdue"]
    await bench.collection.happen([((ride.ride_no, 1), PaidElsewhere("cash"))])
    [debit] = await bench.debits(ride)
    assert (debit["state"], debit["overdue"]) == ("settled_elsewhere", False)
    assert await bench.balance(RECEIVABLE, party.agreement_no) == 0


async def test_an_old_debt_is_written_off_and_recovered(bench: Bench) -> None:
    party = await bench.party(cap_minor=0)
    ride = await bench.ride(party, 300)
    bench.pass_time(timedelta(days=16))
    await bench.collection.policy_round(bench.account_no)
    bench.pass_time(timedelta(days=180))
    await bench.collection.policy_round(bench.account_no)
    assert await bench.states(ride) == [("written_off", 300, 0)]
    assert await bench.balance(RECEIVABLE, party.agreement_no) == 0
    bench.provider.taken["rider"] = 300
    await bench.collection.happen([((ride.ride_no, 1), Notified("rider", Succeeded(300, "late")))])
    assert await bench.states(ride) == [("settled", 300, 300)]
    assert await bench.balance(7, party.operator_no) == 0


async def test_an_impossible_wish_changes_nothing(bench: Bench) -> None:
    party = await bench.party()
    ride, other = await bench.ride(party, 300), await bench.ride(party, 400)
    with pytest.raises(ImpossibleEventError):
        await bench.collection.happen(
            [
                ((other.ride_no, 1), Suspended("locked late")),
                ((ride.ride_no, 1), OperatorDecided("cancel", "not in manual")),
            ]
        )
    assert not (await bench.debits(other))[0]["suspended"]


async def test_a_suspended_debit_is_not_submitted(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    await bench.collection.happen([((ride.ride_no, 1), Suspended("the lock failed"))])
    assert await bench.collection.submit_round(bench.account_no) == 0


async def test_a_paused_account_submits_nothing_but_still_asks(bench: Bench) -> None:
    party = await bench.party()
    lost = await bench.ride(party, 300)
    bench.provider.faults["*"] = ["lost_after"]
    await bench.collection.submit_round(bench.account_no)
    await bench.connection.execute(
        "INSERT INTO stop (operator_no, account_no, what, reason, stopped_by, stopped_at)"
        " SELECT operator_no, account_no, 'debits', 'r', 'me', created_at FROM merchant_account WHERE account_no = $1",
        bench.account_no,
    )
    waiting = await bench.ride(party, 400)
    await bench.settle_down(3)
    assert [await bench.states(ride) for ride in (lost, waiting)] == [[("settled", 300, 300)], [("new", 400, 0)]]


async def test_a_provider_that_hangs_slows_no_other(bench: Bench, database_url: str) -> None:
    async with open_bench(database_url) as other:
        stuck, quick = await bench.ride(await bench.party(), 300), await other.ride(await other.party(), 400)
        bench.provider.faults["*"] = ["slow"]
        hanging = asyncio.create_task(bench.collection.submit_round(bench.account_no))
        assert await other.collection.submit_round(other.account_no) == 1
        assert await other.states(quick) == [("settled", 400, 400)]
        assert not hanging.done()
        bench.provider.gate.set()
        await hanging
        assert await bench.states(stuck) == [("settled", 300, 300)]


async def test_a_notification_of_another_amount_moves_nothing_and_the_truth_is_asked(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    bench.provider.faults["*"] = ["accepted"]
    await bench.collection.submit_round(bench.account_no)
    [debit] = await bench.debits(ride)
    key = debit["provider_key"]
    for told in (900, 299):
        assert await bench.collection.noticed(bench.account_no, key, Succeeded(told, "ref"))
    assert await bench.states(ride) == [("pending", 300, 0)]
    await bench.settle_down(2)
    assert ("get_debit", key) in bench.provider.calls
    assert await bench.states(ride) == [("pending", 300, 0)]
    bench.provider.collect(key)
    assert await bench.collection.noticed(bench.account_no, key, Succeeded(300, "ref"))
    assert await bench.states(ride) == [("settled", 300, 300)]
    assert not await bench.collection.noticed(bench.account_no, "0" * 30, Succeeded(300))


async def test_a_debit_is_found_by_the_hold_it_goes_through(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    await bench.hold(ride, "open", "HOLDKEY", "HOLDREF")
    bench.provider.faults["*"] = ["accepted"]
    await bench.collection.submit_round(bench.account_no)
    [debit] = await bench.debits(ride)
    bench.provider.collect(debit["provider_key"])
    assert not await bench.collection.noticed(bench.account_no, "HOLDKEY", Succeeded(300), "hold_ref")
    assert await bench.collection.noticed(bench.account_no, "HOLDREF", Succeeded(300), "hold_ref")
    assert await bench.states(ride) == [("settled", 300, 300)]
    assert (await bench.debits(ride))[0]["provider_key"] == debit["provider_key"]


async def test_a_notification_about_a_refund_is_taken_in(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    await bench.settle_down(1)
    await bench.owe(ride, 2, -100)
    bench.provider.faults["*"] = ["lost_after"]
    await bench.collection.submit_round(bench.account_no)
    key = await bench.connection.fetchval("SELECT provider_key FROM refund WHERE ride_no = $1", ride.ride_no)
    assert await bench.collection.noticed(bench.account_no, key, Succeeded(40), about="refund")
    assert (await bench.debits(ride))[0]["refunded_minor"] == 0
    assert await bench.collection.noticed(bench.account_no, key, Succeeded(100), about="refund")
    assert (await bench.debits(ride))[0]["refunded_minor"] == 100
    assert await bench.collection.noticed(bench.account_no, key, Succeeded(100), about="refund")
    assert (await bench.debits(ride))[0]["refunded_minor"] == 100
    assert not await bench.collection.noticed(bench.account_no, "0" * 30, Succeeded(100), about="refund")
