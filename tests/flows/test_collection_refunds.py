"""Refunds that were lost, put off or refused: asked about before they are sent, tried again, and never forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from builders import Ride
from collecting_bench import Bench, assert_books_agree, open_bench

from service.adapters.postgres.reading import ReadingStore, TroubledRefund
from service.billing.capabilities import Capabilities
from service.billing.debits.events import DisputeClosed, DisputeOpened, PaidElsewhere, RefundDecided
from service.billing.keys import provider_key
from service.billing.outcomes import Declined
from service.flows.collection.restored import ask_after_restore

WINDOW = Capabilities(refund_window=timedelta(days=30))


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url, WINDOW) as bench:
        yield bench
        await bench.connection.execute("UPDATE installation SET cluster_timeline = NULL, restored_at = NULL")
        await assert_books_agree(bench)


async def paid(bench: Bench) -> Ride:
    ride = await bench.ride(await bench.party(), 300)
    await bench.settle_down(1)
    return ride


async def restore(bench: Bench) -> None:
    """The database is the one of an earlier instant from now on."""
    await bench.connection.execute("UPDATE installation SET cluster_timeline = 'another/00000001'")
    assert await ask_after_restore(bench.database, bench.now)


async def refunds(bench: Bench, ride: Ride) -> list[tuple[str, int, str | None]]:
    rows = await bench.connection.fetch(
        "SELECT state, amount_minor, code FROM refund WHERE ride_no = $1 ORDER BY refund_ordinal", ride.ride_no
    )
    return [(row["state"], row["amount_minor"], row["code"]) for row in rows]


async def troubled(bench: Bench, ride: Ride) -> list[TroubledRefund]:
    async with bench.database.reading(ReadingStore) as store:
        found = await store.troubled_refunds(ride.party.operator_no, 10_000)
    return [row for row in found if row.ride_no == ride.ride_no]


def calls(bench: Bench) -> list[str]:
    return [what for what, _ in bench.provider.calls if what in ("refund", "get_refund")]


@pytest.mark.parametrize("sent", [True, False])
async def test_after_a_restore_a_refund_that_is_opened_anew_is_asked_about_before_it_is_sent(
    bench: Bench, sent: bool
) -> None:
    """Its row, and its money, may be of the time that the database has lost."""
    ride = await paid(bench)
    [debit] = await bench.debits(ride)
    if sent:
        bench.provider.given_back[provider_key(debit["session_key"].bytes, "refund", 1001)] = 100
    await restore(bench)
    await bench.owe(ride, 2, -100)
    await bench.settle_down(4)
    assert await refunds(bench, ride) == [("succeeded", 100, None)]
    assert calls(bench) == (["get_refund"] if sent else ["get_refund", "get_refund", "refund"])
    assert list(bench.provider.given_back.values()) == [100]
    assert (await bench.debits(ride))[0]["refunded_minor"] == 100


async def test_refunds_of_rides_after_the_restore_are_sent_at_once(bench: Bench) -> None:
    await restore(bench)
    await bench.connection.execute("UPDATE installation SET restored_at = restored_at - interval '10 years'")
    ride = await paid(bench)
    await bench.owe(ride, 2, -100)
    await bench.settle_down(1)
    assert calls(bench) == ["refund"]


async def test_what_is_paid_twice_across_a_restore_is_asked_about_too(bench: Bench) -> None:
    bench.provider.faults["*"] = ["accepted"]
    ride = await paid(bench)
    [debit] = await bench.debits(ride)
    await bench.collection.happen([((ride.ride_no, 1), PaidElsewhere("cash"))])
    await restore(bench)
    bench.provider.collect(debit["provider_key"])
    await bench.settle_down(5)
    assert await bench.states(ride) == [("settled_twice", 300, 300)]
    assert calls(bench) == ["get_refund", "get_refund", "refund"]


async def test_a_refund_that_failed_stands_there_until_it_is_ordered_again(bench: Bench) -> None:
    ride = await paid(bench)
    bench.pass_time(timedelta(days=31))
    await bench.owe(ride, 2, -100)
    for _ in range(2):  # Still too late: it says so, and opens no more of them.
        assert not await bench.collection.refund_again((ride.ride_no, 1))
    assert await refunds(bench, ride) == [("failed", 100, "refund_window_over")]
    [stands] = await troubled(bench, ride)
    since, named = bench.now, (ride.ride_no, 100, "refund_window_over")
    assert (stands.ride_no, stands.amount_minor, stands.code, stands.since_at) == (*named, since)
    bench.provider.capabilities = Capabilities()
    bench.pass_time(timedelta(minutes=1))
    for _ in range(2):  # The second time it is on its way already.
        assert await bench.collection.refund_again((ride.ride_no, 1))
    waits = [(one.state, one.since_at) for one in await troubled(bench, ride)]
    assert waits == [("new", since)], "nobody has sent the other one yet, and the rider waits since then"
    await bench.settle_down(1)
    assert await troubled(bench, ride) == []
    assert await refunds(bench, ride) == [("failed", 100, "refund_window_over"), ("succeeded", 100, None)]
    assert not await bench.collection.refund_again((ride.ride_no, 1))
    assert sum(bench.provider.given_back.values()) == 100
    bench.pass_time(timedelta(days=1))
    await bench.owe(ride, 3, -50)
    assert [one.since_at for one in await troubled(bench, ride)] == [bench.now], "the first was given back"


async def test_what_is_paid_twice_long_after_goes_back_as_the_payment_itself_is_new(bench: Bench) -> None:
    """The window of a refund begins with its own payment, not with the debit's end."""
    bench.provider.faults["*"] = ["accepted"]
    ride = await paid(bench)
    [debit] = await bench.debits(ride)
    await bench.collection.happen([((ride.ride_no, 1), PaidElsewhere("cash"))])
    bench.pass_time(timedelta(days=31))
    bench.provider.collect(debit["provider_key"])
    await bench.settle_down(5)
    assert await bench.states(ride) == [("settled_twice", 300, 300)]
    assert await refunds(bench, ride) == [("succeeded", 300, None)]


async def test_a_refund_that_is_put_off_is_tried_again_under_its_key_soon_then_daily_or_when_somebody_asks(
    bench: Bench,
) -> None:
    ride = await paid(bench)
    bench.provider.faults["*"] = ["short"] * 26
    await bench.owe(ride, 2, -100)
    waits = []
    for _ in range(26):
        await bench.collection.submit_round(bench.account_no)
        row = await bench.connection.fetchrow("SELECT * FROM refund WHERE ride_no = $1", ride.ride_no)
        assert row is not None
        waits.append(row["due_at"] - bench.now)
        bench.pass_time(waits[-1])
    assert waits == [timedelta(hours=1)] * 23 + [timedelta(days=1)] * 3
    assert [stands.state for stands in await troubled(bench, ride)] == ["new"]
    bench.pass_time(timedelta(hours=-2))
    await bench.collection.submit_round(bench.account_no)
    assert (await refunds(bench, ride))[0][0] == "new"
    assert await bench.collection.refund_again((ride.ride_no, 1))
    await bench.collection.submit_round(bench.account_no)
    assert await refunds(bench, ride) == [("succeeded", 100, None)]
    assert len({key for what, key in bench.provider.calls if what == "refund"}) == 1


async def test_a_refund_that_stands_still_at_its_provider_is_told_to_people_until_it_goes_on(bench: Bench) -> None:
    """WeChat Pay's ABNORMAL: it was asked about daily, and nobody heard that somebody had to send it elsewhere."""
    ride = await paid(bench)
    bench.provider.stand_still = True
    await bench.owe(ride, 2, -100)
    await bench.settle_down(3)
    assert await refunds(bench, ride) == [("pending", 100, "ABNORMAL")]
    assert [(stands.state, stands.code) for stands in await troubled(bench, ride)] == [("pending", "ABNORMAL")]
    bench.provider.stand_still = False
    bench.pass_time(timedelta(days=1))
    await bench.settle_down(1)
    assert (await refunds(bench, ride), await troubled(bench, ride)) == ([("succeeded", 100, None)], [])


async def manual(bench: Bench) -> tuple[Ride, str]:
    """A refund of 100 of which its provider says that it was another amount."""
    ride = await paid(bench)
    await bench.owe(ride, 2, -100)
    key = await bench.connection.fetchval("SELECT provider_key FROM refund WHERE ride_no = $1", ride.ride_no)
    assert isinstance(key, str)
    bench.provider.given_back[key] = 60
    await bench.settle_down(2)
    said = "the provider says 60 were given back"
    assert await refunds(bench, ride) == [("manual", 100, said)]
    assert [(stands.state, stands.code) for stands in await troubled(bench, ride)] == [("manual", said)]
    bench.provider.calls.clear()
    await bench.settle_down(3)
    assert calls(bench) == [], "nobody is asked what he has said"
    return ride, key


@pytest.mark.parametrize("amount_minor", [60, 100, None])
async def test_a_refund_of_another_amount_is_decided_by_hand_and_what_is_missing_is_asked_for(
    bench: Bench, amount_minor: int | None
) -> None:
    ride, key = await manual(bench)
    told = bench.provider.given_back[key] = 100 if amount_minor is None else amount_minor
    decision = RefundDecided("given_back", "in his books", amount_minor, "R-9")
    for first in (True, False):
        assert await bench.collection.decide_refund((ride.ride_no, 1, 1), decision) is first
    rest = [("new", 100 - told, None)] if told < 100 else []
    assert await refunds(bench, ride) == [("succeeded", told, "support: in his books"), *rest]
    await bench.settle_down(2)
    [debit] = await bench.debits(ride)
    assert (debit["refunded_minor"], debit["refunding_minor"]) == (100, 0)


@pytest.mark.parametrize("again", [True, False])
async def test_a_refund_of_which_nothing_was_given_back_is_sent_again_or_begun_anew(bench: Bench, again: bool) -> None:
    ride, key = await manual(bench)
    del bench.provider.given_back[key]
    decision = RefundDecided("submit_again" if again else "cancel", "nothing there")
    assert await bench.collection.decide_refund((ride.ride_no, 1, 1), decision)
    if not again:
        bench.pass_time(timedelta(minutes=1))
        assert await bench.collection.refund_again((ride.ride_no, 1))
    await bench.settle_down(2)
    assert [state for state, _, _ in await refunds(bench, ride)] == ["succeeded"] if again else ["failed", "succeeded"]
    assert ("refund ended: failed, 1.00 CNY" in await bench.whys(ride)) is not again
    assert (await bench.debits(ride))[0]["refunded_minor"] == 100
    assert (key in bench.provider.given_back, len(bench.provider.given_back)) == (again, 1)
    told = await bench.connection.fetch("SELECT facts FROM batch_facts ORDER BY writer_no, seq")
    assert not any(b"nothing there" in record["facts"] for record in told), "support's words are not published"


@pytest.mark.parametrize("amount_minor", [0, 101])
async def test_more_than_was_asked_for_or_nothing_is_no_decision(bench: Bench, amount_minor: int) -> None:
    ride, key = await manual(bench)
    decision = RefundDecided("given_back", "r", amount_minor)
    assert not await bench.collection.decide_refund((ride.ride_no, 1, 1), decision)
    with pytest.raises(KeyError):
        await bench.collection.decide_refund((ride.ride_no, 1, 2), decision)
    bench.provider.given_back[key] = 100
    assert await bench.collection.decide_refund((ride.ride_no, 1, 1), RefundDecided("given_back", "r"))


async def test_a_refund_whose_key_stands_for_something_else_ends_with_people(bench: Bench) -> None:
    """The provider knows the key with other parameters, and nothing under it: asked, sent, asked, and no more."""
    ride = await paid(bench)
    await bench.owe(ride, 2, -100)
    key = await bench.connection.fetchval("SELECT provider_key FROM refund WHERE ride_no = $1", ride.ride_no)
    bench.provider.conflicts.add(key)
    await bench.settle_down(8)
    assert await refunds(bench, ride) == [("manual", 100, "OTHER_PARAMETERS")]
    assert calls(bench).count("refund") == 2


REFUSED = Declined(False, "expired_or_canceled_card")
"""What Stripe tells of a card's refund that it had called succeeded, up to thirty days later."""


async def came_back(bench: Bench) -> Ride:
    """100 of 300 were given back, and the rider's bank did not take them."""
    ride = await paid(bench)
    await bench.owe(ride, 2, -100)
    await bench.settle_down(1)
    key = await bench.connection.fetchval("SELECT provider_key FROM refund WHERE ride_no = $1", ride.ride_no)
    bench.provider.come_back.add(key)
    del bench.provider.given_back[key]
    bench.pass_time(timedelta(days=5))
    assert await bench.collection.noticed(bench.account_no, key, REFUSED, about="refund")
    assert await bench.states(ride) == [("settled", 300, 300)]
    await bench.settle_down(2)
    assert await refunds(bench, ride) == [("returned", 100, "expired_or_canceled_card")]
    return ride


async def test_a_refund_that_came_back_is_booked_back_and_told_and_given_back_when_it_is_ordered(bench: Bench) -> None:
    ride = await came_back(bench)
    [debit] = await bench.debits(ride)
    assert (debit["refunded_minor"], debit["refunding_minor"]) == (0, 0)
    assert [(stands.state, stands.amount_minor) for stands in await troubled(bench, ride)] == [("returned", 100)]
    await assert_books_agree(bench)
    bench.provider.calls.clear()
    await bench.settle_down(3)
    assert calls(bench) == [], "the same card would not take it again"
    assert await bench.collection.refund_again((ride.ride_no, 1))
    await bench.settle_down(1)
    assert [state for state, _, _ in await refunds(bench, ride)] == ["returned", "succeeded"]
    assert (await bench.debits(ride))[0]["refunded_minor"] == 100
    assert await troubled(bench, ride) == []
    assert [why for why in await bench.whys(ride) if why.startswith(("refund ended", "refund returned"))] == [
        "refund ended: succeeded, 1.00 CNY",
        "refund returned: 1.00 CNY",
        "refund ended: succeeded, 1.00 CNY",
    ]


async def test_what_came_back_is_asked_for_less_where_the_rider_owes_something(bench: Bench) -> None:
    ride = await came_back(bench)
    await bench.owe(ride, 3, 150)
    await bench.settle_down(1)
    assert await bench.states(ride) == [("settled", 300, 300), ("settled", 50, 50)]


@pytest.mark.parametrize("owed", [40, 100])
async def test_what_was_never_given_back_is_what_the_ride_owes_since_and_nothing_of_it_is_taken_again(
    bench: Bench, owed: int
) -> None:
    """The ride came to owe more while its refund was under way: what was asked for then was taken beside what had never
    left."""
    ride, key = await manual(bench)
    del bench.provider.given_back[key]
    bench.provider.faults["*"] = ["short"]
    await bench.owe(ride, 3, owed)
    await bench.settle_down(1)
    assert (await bench.states(ride))[1:] == [("retry_wait", owed, 0)]
    assert await bench.collection.decide_refund((ride.ride_no, 1, 1), RefundDecided("cancel", "nothing there"))
    await bench.settle_down(4, timedelta(days=1))
    assert await bench.states(ride) == [("settled", 300, 300), ("cancelled", owed, 0)]
    assert [state for state, _, _ in await refunds(bench, ride)] == ["failed"], (
        "what is left of it is asked for by hand"
    )
    assert [stands.state for stands in await troubled(bench, ride)] == (["failed"] if owed < 100 else [])


async def test_a_refund_that_is_put_off_until_a_chargeback_is_over_is_sent_when_somebody_asks(bench: Bench) -> None:
    bench.provider.capabilities = Capabilities(dispute="chargeback")
    ride = await paid(bench)
    await bench.owe(ride, 2, -100)
    await bench.collection.happen([((ride.ride_no, 1), DisputeOpened("chargeback", 50))])
    await bench.settle_down(1)
    assert (await refunds(bench, ride), calls(bench)) == ([("submitting", 100, None)], [])
    await bench.collection.happen([((ride.ride_no, 1), DisputeClosed("won"))])
    assert await bench.collection.refund_again((ride.ride_no, 1))
    await bench.collection.submit_round(bench.account_no)
    assert await refunds(bench, ride) == [("succeeded", 100, None)]


async def test_a_notification_that_a_refund_failed_is_not_believed_against_the_provider(bench: Bench) -> None:
    ride = await paid(bench)
    await bench.owe(ride, 2, -100)
    await bench.settle_down(1)
    key = await bench.connection.fetchval("SELECT provider_key FROM refund WHERE ride_no = $1", ride.ride_no)
    bench.provider.calls.clear()
    await bench.collection.noticed(bench.account_no, key, REFUSED, about="refund")
    for _ in range(6):
        await bench.settle_down(1)
        bench.pass_time(timedelta(hours=1))
    assert calls(bench) == ["get_refund"] * 4
    assert await refunds(bench, ride) == [("succeeded", 100, None)]


async def test_there_is_no_refund_of_a_debit_that_is_not_there(bench: Bench) -> None:
    with pytest.raises(KeyError):
        await bench.collection.refund_again((987654321, 1))
