"""Freezes that riders do not confirm: nobody is asked endlessly, and who wants to pay has something good at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from builders import Ride
from collecting_bench import Bench, open_bench

from service.billing.agreements.standing import HoldStatus
from service.billing.capabilities import Capabilities
from service.billing.debits.dunning import RETRY_AFTER
from service.billing.outcomes import OpenUrl, Unknown
from service.flows.collection.hearing import NoPaymentError

CONFIRMED = Capabilities(
    hold_needed=True, hold_confirmed_by_rider=True, further_debit=False, new_key_after_decline=False
)
PENDING = HoldStatus("pending", action=OpenUrl("https://confirm.invalid"))
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
WRITTEN_OFF_AFTER = 200 * DAY


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url, CONFIRMED) as it:
        it.provider.next_hold = PENDING
        yield it


async def go_on(bench: Bench, by: timedelta, ends_after: timedelta | None = None) -> None:
    """Every round when it has something to do; the provider ends what is not confirmed in that time."""
    until, holder = bench.now + by, bench.holder()
    opened: dict[str, datetime] = {}
    while bench.now < until:
        for key, status in bench.provider.holds.items():
            asked_at = opened.setdefault(key, bench.now)
            if ends_after is not None and status == PENDING and bench.now >= asked_at + ends_after:
                bench.provider.holds[key] = HoldStatus("expired")
        await holder.resolve_round(bench.account_no)
        await holder.release_round(bench.account_no)
        await bench.collection.submit_round(bench.account_no)
        await bench.collection.policy_round(bench.account_no)
        next_at = await bench.connection.fetchval(
            "SELECT min(at) FROM (SELECT due_at AS at FROM hold WHERE account_no = $1 AND state = 'requested'"
            " UNION ALL SELECT due_at FROM debit WHERE account_no = $1"
            " UNION ALL SELECT policy_at FROM debit WHERE account_no = $1) due",
            bench.account_no,
        )
        bench.pass_time(min(max((next_at or until) - bench.now, timedelta(seconds=1)), until - bench.now))


def calls(bench: Bench, what: str) -> int:
    return sum(1 for called, _ in bench.provider.calls if called == what)


async def shown(bench: Bench) -> Ride:
    """A ride whose rider was shown a freeze."""
    ride = await bench.ride(await bench.party(), 300)
    await go_on(bench, 5 * MINUTE)
    assert await bench.states(ride) == [("needs_rider", 300, 0)]
    return ride


async def test_a_freeze_that_stands_is_asked_about_seldom_until_the_debt_is_written_off(bench: Bench) -> None:
    """Every five minutes: 57,600 questions."""
    ride = await shown(bench)
    await go_on(bench, WRITTEN_OFF_AFTER)
    assert await bench.states(ride) == [("written_off", 300, 0)]
    assert (calls(bench, "open_hold"), calls(bench, "get_hold") < 300) == (1, True)
    assert len(await bench.transitions(ride)) < 12
    [hold] = await bench.connection.fetch("SELECT state FROM hold WHERE account_no = $1", bench.account_no)
    assert hold["state"] == "released"


async def test_where_the_provider_ends_them_soon_he_is_asked_as_often_as_a_debit_is_tried(bench: Bench) -> None:
    """Another freeze was asked for each time: some ten thousand."""
    ride = await bench.ride(await bench.party(), 300)
    await go_on(bench, WRITTEN_OFF_AFTER, 15 * MINUTE)
    assert await bench.states(ride) == [("written_off", 300, 0)]
    assert calls(bench, "open_hold") == 1 + len(RETRY_AFTER)
    assert calls(bench, "get_hold") < 300


@pytest.mark.parametrize("after", [20 * MINUTE, 2 * DAY, 30 * DAY])
async def test_who_wants_to_pay_has_another_one_at_once_and_pays_by_it(bench: Bench, after: timedelta) -> None:
    """Also where it ended since it was last asked about."""
    ride = await shown(bench)
    await go_on(bench, after)
    bench.provider.holds = dict.fromkeys(bench.provider.holds, HoldStatus("expired"))
    given = await bench.collection.ask_payment((ride.ride_no, 1))
    assert (given.state, given.action, calls(bench, "open_hold")) == ("needs_rider", PENDING.action, 2)
    again = await bench.collection.ask_payment((ride.ride_no, 1))
    assert (again.action, calls(bench, "open_hold")) == (PENDING.action, 2)
    opened = HoldStatus("open", "hold-ref", 300)
    bench.provider.holds = {key: opened if at == PENDING else at for key, at in bench.provider.holds.items()}
    with pytest.raises(NoPaymentError):
        await bench.collection.ask_payment((ride.ride_no, 1))
    await go_on(bench, MINUTE)
    assert await bench.states(ride) == [("settled", 300, 300)]


async def test_news_of_it_is_asked_about_at_once_however_seldom_it_is_asked_about(bench: Bench) -> None:
    ride = await shown(bench)
    await go_on(bench, 10 * DAY)
    [key] = bench.provider.holds
    bench.provider.holds[key] = HoldStatus("open", "hold-ref", 300)
    assert await bench.holder().noticed(bench.account_no, key, Unknown("it has changed"))
    await go_on(bench, MINUTE)
    assert await bench.states(ride) == [("settled", 300, 300)]


async def test_a_provider_that_does_not_answer_leaves_what_was_shown(bench: Bench) -> None:
    ride = await shown(bench)
    [key] = bench.provider.holds
    del bench.provider.holds[key]
    bench.provider.next_hold = Unknown("timeout")
    given = await bench.collection.ask_payment((ride.ride_no, 1))
    assert (given.state, given.action) == ("needs_rider", PENDING.action)
