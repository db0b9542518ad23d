"""Collection on a real PostgreSQL, against a provider with books of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from collecting_bench import Bench, open_bench
from fakes import Fault, KilledError

from service.adapters.postgres.batches import FACTS_DECODER
from service.billing.capabilities import Capabilities
from service.billing.debit_events import Notified, OperatorDecided, PaidElsewhere, Suspended
from service.billing.debits import ImpossibleEventError
from service.billing.outcomes import Succeeded

CLEARING, RECEIVABLE = 4, 1


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url) as bench:
        yield bench
        await assert_books_agree(bench)


async def assert_books_agree(bench: Bench) -> None:
    """We believe what the provider did; no debit is paid beyond its amount; no transition is lost."""
    taken, given = sum(bench.provider.taken.values()), sum(bench.provider.given_back.values())
    assert await bench.balance(CLEARING, bench.account_no) == taken - given
    over = await bench.connection.fetch(
        "SELECT * FROM debit WHERE paid_minor > amount_minor AND state <> 'settled_twice'"
    )
    assert over == []
    gaps = await bench.connection.fetch(
        "SELECT ride_no FROM debit d WHERE transitions <> (SELECT count(*) FROM debit_transition t"
        " WHERE t.ride_no = d.ride_no AND t.ordinal = d.ordinal)"
    )
    assert gaps == []


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


async def test_a_correction_upwards_is_a_further_debit(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    await bench.collection.submit_round(bench.account_no)
    await bench.owe(ride, 2, 50)
    await bench.collection.submit_round(bench.account_no)
    assert await bench.states(ride) == [("settled", 300, 300), ("settled", 50, 50)]


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
    await bench.connection.execute("UPDATE merchant_account SET paused = true WHERE account_no = $1", bench.account_no)
    waiting = await bench.ride(party, 400)
    await bench.settle_down(3)
    assert [await bench.states(ride) for ride in (lost, waiting)] == [[("settled", 300, 300)], [("new", 400, 0)]]


async def test_a_hold_is_completed_when_its_last_debit_is_final(database_url: str) -> None:
    async with open_bench(database_url, Capabilities(hold_needed=True)) as bench:
        ride = await bench.ride(await bench.party(), 300)
        [debit] = await bench.debits(ride)
        await bench.connection.execute(
            "INSERT INTO hold (session_key, slot, operator_no, session_id, agreement_no, account_no, tariff_id, state,"
            " cap_minor, currency, provider_key, provider_ref, requested_at, opened_at, updated_at)"
            " VALUES ($1, $2, $3, $4, $5, $6, 't', 'open', 500, 'CNY', 'hold-key', 'hold-ref', $7, $7, $7)",
            debit["session_key"],
            debit["slot"],
            debit["operator_no"],
            ride.session_id,
            debit["agreement_no"],
            debit["account_no"],
            bench.now,
        )
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
