"""One ride or debit that trips over a bug of ours is set aside, and stops no other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from builders import Ride
from collecting_bench import Bench, assert_books_agree, open_bench
from fakes import FakeProvider

from service.adapters.providers.port import DebitRequest
from service.billing.outcomes import Outcome
from service.flows.collection.apart import BUG_AGAIN

NOWHERE = "UPDATE agreement SET time_zone = $2 WHERE agreement_no = $1"
"""A zone that nobody knows trips every rule that looks at the rider's calendar."""
UNHEARD = "UPDATE debit SET state = $2, submitted_at = NULL, due_at = $3, lease_until = NULL WHERE ride_no = $1"
"""A debit that was sent, but at no time: no rule makes one, and all of them trip over it."""


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url) as it:
        yield it


async def asides(bench: Bench, ride: Ride) -> list[tuple[str, int, str]]:
    rows = await bench.connection.fetch("SELECT * FROM set_aside WHERE ride_no = $1", ride.ride_no)
    return [(row["what"], row["times"], row["reason"].partition(":")[0]) for row in rows]


async def sent(bench: Bench, ride: Ride) -> None:
    """The debit as it never is, due now."""
    await bench.connection.execute(UNHEARD, ride.ride_no, "submitting", bench.now)


async def test_a_ride_that_cannot_be_netted_holds_up_no_other_and_is_netted_once_it_can(bench: Bench) -> None:
    parties = [await bench.party() for _ in range(3)]
    rides = [await bench.unplanned(party, 500) for party in parties]
    await bench.connection.execute(NOWHERE, parties[1].agreement_no, "Nowhere/Nowhere")
    assert await bench.collection.plan_round()
    assert [len(await bench.debits(ride)) for ride in rides] == [1, 0, 1]
    assert await asides(bench, rides[1]) == [("owing", 1, "ZoneInfoNotFoundError")]
    assert not await bench.collection.plan_round()
    bench.pass_time(BUG_AGAIN)
    assert await bench.collection.aside_round() == 0
    assert await asides(bench, rides[1]) == [("owing", 2, "ZoneInfoNotFoundError")]
    await bench.connection.execute(NOWHERE, parties[1].agreement_no, "Asia/Shanghai")
    assert await bench.collection.aside_round() == 0
    bench.pass_time(BUG_AGAIN)
    assert await bench.collection.aside_round() == 1
    await bench.settle_down(3)
    assert [await bench.states(ride) for ride in rides] == [[("settled", 500, 500)]] * 3
    assert [await asides(bench, ride) for ride in rides] == [[], [], []]
    await assert_books_agree(bench)


async def test_what_has_piled_up_is_netted_in_rounds_of_some_rides(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round that took all there was would meet the time limit of its transaction, each time anew."""
    monkeypatch.setattr("service.flows.collection.planning.PLANNED_MAX", 2)
    parties = [await bench.party() for _ in range(5)]
    rides = [await bench.unplanned(party, 500) for party in parties]
    netted = []
    while await bench.collection.plan_round():
        netted.append(sum([len(await bench.debits(ride)) for ride in rides]))
    assert netted == [2, 4, 5]


async def test_a_debit_whose_rule_trips_holds_up_no_other_of_its_account(bench: Bench) -> None:
    broken, whole = await bench.ride(await bench.party(), 500), await bench.ride(await bench.party(), 700)
    await sent(bench, broken)
    await bench.settle_down(3)
    assert await bench.states(whole) == [("settled", 700, 700)]
    assert await bench.states(broken) == [("submitting", 500, 0)]
    assert await asides(bench, broken) == [("debit", 1, "AssertionError")]
    await bench.connection.execute(
        "UPDATE debit SET submitted_at = created_at, asked_minor = 500 WHERE ride_no = $1", broken.ride_no
    )
    bench.pass_time(BUG_AGAIN * 3)
    await bench.settle_down(3)
    assert await bench.states(broken) == [("settled", 500, 500)]
    await bench.collection.aside_round()
    assert await asides(bench, broken) == []
    await assert_books_agree(bench)


async def test_an_answer_that_trips_is_dropped_and_asked_for_again_and_the_others_are_saved(bench: Bench) -> None:
    broken, whole = await bench.ride(await bench.party(), 500), await bench.ride(await bench.party(), 700)
    await bench.connection.execute(UNHEARD, broken.ride_no, "unknown", bench.now)
    await bench.settle_down(3)
    assert await bench.states(whole) == [("settled", 700, 700)]
    assert await asides(bench, broken) == [("debit", 1, "AssertionError")]
    await bench.connection.execute(
        "UPDATE debit SET submitted_at = created_at, asked_minor = 500 WHERE ride_no = $1", broken.ride_no
    )
    bench.pass_time(BUG_AGAIN)
    await bench.settle_down(6)
    assert await bench.states(broken) == [("settled", 500, 500)]
    await assert_books_agree(bench)


async def test_a_calendar_that_trips_holds_up_no_other(bench: Bench) -> None:
    parties = [await bench.party() for _ in range(2)]
    rides = [await bench.ride(party, 500) for party in parties]
    await bench.connection.execute(
        "UPDATE debit SET state = 'needs_rider', due_at = NULL, policy_at = $2 WHERE ride_no = ANY($1::bigint[])",
        [ride.ride_no for ride in rides],
        bench.now,
    )
    await bench.connection.execute(NOWHERE, parties[0].agreement_no, "Nowhere/Nowhere")
    bench.pass_time(timedelta(days=20))
    assert await bench.collection.policy_round(bench.account_no) == 2
    assert await asides(bench, rides[0]) == [("policy", 1, "ZoneInfoNotFoundError")]
    assert [(await bench.debits(ride))[0]["overdue"] for ride in rides] == [False, True]
    await bench.connection.execute(NOWHERE, parties[0].agreement_no, "Asia/Shanghai")
    bench.pass_time(BUG_AGAIN)
    assert await bench.collection.policy_round(bench.account_no) > 0
    assert (await bench.debits(rides[0]))[0]["overdue"]


class Stumbling(FakeProvider):
    """An adapter with a bug: after the provider has taken the money for 500, it trips over his answer."""

    async def debit(self, request: DebitRequest) -> Outcome:
        outcome = await super().debit(request)
        if request.amount_minor == 500:
            raise LookupError("a field that nobody expected to be missing")
        return outcome


async def test_a_call_that_trips_is_no_answer_and_the_truth_is_asked(database_url: str) -> None:
    async with open_bench(database_url) as bench:
        bench.provider = Stumbling(bench.account_no, bench.provider.capabilities)
        bench.collection = bench.collector()
        rides = [await bench.ride(await bench.party(), amount) for amount in (500, 700)]
        await bench.settle_down(4)
        assert [await bench.states(ride) for ride in rides] == [[("settled", 500, 500)], [("settled", 700, 700)]]
        assert "unknown" in await bench.transitions(rides[0])
        await assert_books_agree(bench)
