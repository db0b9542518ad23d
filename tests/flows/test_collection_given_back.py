"""What is given back outside: booked once, no more than is the rider's, in no refund, and listed until then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from builders import Ride
from collecting_bench import Bench, assert_books_agree, open_bench

from service.adapters.postgres.reading import ReadingStore
from service.adapters.postgres.unordered import UnorderedStore
from service.billing.capabilities import Capabilities
from service.billing.debits.events import (
    DisputeClosed,
    DisputeOpened,
    GivenBack,
    ImpossibleEventError,
    PaidElsewhere,
    RefundRefusedError,
)
from service.billing.keys import provider_key
from service.billing.ledger import Account
from service.billing.outcomes import Declined, Succeeded, Unknown
from service.flows.debit_wishes import WishRefusedError, give_back
from service.telemetry import UNORDERED
from service.web.views import money_of

WINDOW = Capabilities(refund_window=timedelta(days=30), dispute="chargeback")


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url, WINDOW) as bench:
        yield bench
        await assert_books_agree(bench)


async def refused(bench: Bench) -> Ride:
    """A ride of 300 that owes 200, and whose refund of 100 its provider has refused."""
    ride = await bench.ride(await bench.party(), 300)
    await bench.settle_down(1)
    bench.pass_time(timedelta(days=31))
    await bench.owe(ride, 2, -100)
    return ride


async def in_cash(bench: Bench) -> Ride:
    """A ride of 300 that was paid at the desk."""
    bench.provider.faults["*"] = ["accepted"]
    ride = await bench.ride(await bench.party(), 300)
    await bench.settle_down(1)
    await bench.collection.happen([((ride.ride_no, 1), PaidElsewhere("cash"))])
    await bench.settle_down(2)
    return ride


async def listed(bench: Bench, ride: Ride) -> list[tuple[int, int, str]]:
    """(debit, amount, state) of what `farebox debit refunds` shows of the ride."""
    async with bench.database.reading(ReadingStore) as store:
        found = await store.troubled_refunds(ride.party.operator_no, 10_000)
    return [(row.ordinal, row.amount_minor, row.state) for row in found if row.ride_no == ride.ride_no]


async def wish(bench: Bench, ride: Ride, amount_minor: int, reason: str = "T-1") -> None:
    async with bench.database.reading(ReadingStore) as store:
        rows = await store.ride(ride.ride_no)
    assert rows.debits is not None
    await give_back(bench.collection, rows.debits[0], GivenBack(amount_minor, reason))


async def elsewhere(bench: Bench, ride: Ride) -> int:
    return await bench.balance(Account.ELSEWHERE, ride.party.operator_no)


async def test_what_a_provider_refused_to_give_back_is_handed_to_the_rider_once_and_in_no_refund(bench: Bench) -> None:
    ride = await refused(bench)
    before = await elsewhere(bench, ride)
    assert await listed(bench, ride) == [(1, 100, "failed")]
    for _ in range(2):  # It is typed twice.
        await wish(bench, ride, 100)
    with pytest.raises(WishRefusedError, match=r"1\.00 CNY .* nothing of it is still to go back to the rider"):
        await wish(bench, ride, 100, "T-2")
    [debit] = await bench.debits(ride)
    assert (debit["given_back_minor"], debit["refunded_minor"]) == (100, 0)
    assert (await listed(bench, ride), await elsewhere(bench, ride)) == ([], before - 100)
    bench.provider.capabilities = Capabilities()
    assert not await bench.collection.refund_again((ride.ride_no, 1))
    await bench.owe(ride, 3, -50)
    await bench.settle_down(2)
    assert list(bench.provider.given_back.values()) == [50], "the next refund carries it no more"
    async with bench.database.reading(ReadingStore) as store:
        rows = await store.ride(ride.ride_no)
    money = money_of(rows)
    assert (money.owed_minor, money.paid_minor, money.refunded_minor, money.given_back_minor) == (150, 300, 50, 100)
    assert (money.to_refund_minor, money.outside_minor, money.given_up_minor, money.open_minor) == (0, 0, 0, 0)


async def test_what_is_said_twice_at_one_moment_is_booked_once(bench: Bench) -> None:
    ride = await refused(bench)
    await asyncio.gather(*(wish(bench, ride, 40) for _ in range(4)))
    assert (await bench.debits(ride))[0]["given_back_minor"] == 40
    await wish(bench, ride, 40, "T-2")
    assert (await bench.debits(ride))[0]["given_back_minor"] == 80


async def test_of_what_failed_a_part_is_handed_back_and_the_rest_is_still_listed_and_asked_for(bench: Bench) -> None:
    ride = await refused(bench)
    await wish(bench, ride, 30)
    with pytest.raises(WishRefusedError, match=r"only 0\.70 of it"):
        await wish(bench, ride, 71)
    assert await listed(bench, ride) == [(1, 70, "failed")], "no more is handed out by that list than is still owed"
    bench.provider.capabilities = Capabilities()
    bench.pass_time(timedelta(minutes=1))
    assert await bench.collection.refund_again((ride.ride_no, 1))
    await bench.settle_down(2)
    assert list(bench.provider.given_back.values()) == [70]
    assert await listed(bench, ride) == []


async def test_what_was_paid_in_cash_and_is_owed_less_is_listed_until_it_is_handed_back(bench: Bench) -> None:
    ride = await in_cash(bench)
    before = await elsewhere(bench, ride)
    assert await listed(bench, ride) == []
    await bench.owe(ride, 2, -100)
    assert await listed(bench, ride) == [(1, 100, "paid_elsewhere")]
    await wish(bench, ride, 100)
    assert (await listed(bench, ride), await elsewhere(bench, ride)) == ([], before - 100)
    [debit] = await bench.debits(ride)
    assert (debit["outside_minor"], debit["forgone_minor"], debit["given_back_minor"]) == (200, 200, 0)
    await bench.owe(ride, 3, 100)
    await bench.settle_down(2)
    assert (await bench.states(ride))[1:] == [("settled", 100, 100)], "owed again, it is asked for again"


async def test_of_two_payments_in_cash_the_newest_is_listed_first_and_no_more_than_is_owed_back(bench: Bench) -> None:
    ride = await in_cash(bench)
    bench.provider.faults["*"] = ["accepted"]
    await bench.owe(ride, 2, 100)
    await bench.settle_down(1)
    await bench.collection.happen([((ride.ride_no, 2), PaidElsewhere("cash"))])
    await bench.settle_down(2)
    await bench.owe(ride, 3, -150)
    assert await listed(bench, ride) == [(1, 50, "paid_elsewhere"), (2, 100, "paid_elsewhere")]


async def test_nothing_is_handed_back_that_a_refund_or_a_bank_may_still_give(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    with pytest.raises(ImpossibleEventError):
        await bench.collection.given_back((ride.ride_no, 1), GivenBack(100, "cash"))
    await bench.settle_down(1)
    bench.provider.faults["*"] = ["lost_before"]
    await bench.owe(ride, 2, -100)
    for _ in range(2):  # It is new, then unknown.
        with pytest.raises(RefundRefusedError, match=r"nothing of it .* beside what a refund may still bring him"):
            await bench.collection.given_back((ride.ride_no, 1), GivenBack(100, "cash"))
        await bench.collection.submit_round(bench.account_no)
    await bench.settle_down(4)
    assert (await bench.debits(ride))[0]["refunded_minor"] == 100
    other = await refused(bench)
    await bench.collection.happen([((other.ride_no, 1), DisputeOpened("chargeback", 50))])
    with pytest.raises(RefundRefusedError, match="nothing of it"):
        await bench.collection.given_back((other.ride_no, 1), GivenBack(100, "cash"))
    await bench.collection.happen([((other.ride_no, 1), DisputeClosed("won"))])


async def test_no_refund_gives_what_the_rider_has_in_cash_and_of_his_bank(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    await bench.settle_down(1)
    bench.pass_time(timedelta(days=31))
    await bench.owe(ride, 2, -300)
    await wish(bench, ride, 150)
    bench.provider.capabilities = Capabilities(dispute="chargeback")
    bench.pass_time(timedelta(minutes=1))
    assert await bench.collection.refund_again((ride.ride_no, 1))
    await bench.collection.happen([((ride.ride_no, 1), DisputeOpened("chargeback", 150))])
    await bench.collection.happen([((ride.ride_no, 1), DisputeClosed("lost"))])
    await bench.settle_down(4, timedelta(hours=1))
    [debit] = await bench.debits(ride)
    assert (debit["given_back_minor"], debit["disputed_minor"], bench.provider.given_back) == (150, 150, {})
    assert (debit["refunding_minor"], debit["refunded_minor"]) == (0, 0)
    bench.provider.given_back["the bank's"] = 150


async def in_the_console(bench: Bench, ride: Ride, refund: str, amount_minor: int | None) -> bool:
    """Somebody gives back in the provider's console, and it is told."""
    [debit, *_] = await bench.debits(ride)
    told = Unknown("it was refunded") if amount_minor is None else Succeeded(amount_minor, refund)
    named = (bench.account_no, refund, told, "key", "refund", debit["provider_ref"])
    return await bench.collection.noticed(*named)  # type: ignore[arg-type]  # A tuple of them.


async def comes_to_nothing(bench: Bench, ride: Ride, refund: str) -> bool:
    """Its bank does not take it, days later."""
    [debit, *_] = await bench.debits(ride)
    told = (bench.account_no, refund, Declined(False, "failed"), "key", "refund", debit["provider_ref"])
    return await bench.collection.noticed(*told)  # type: ignore[arg-type]  # A tuple of them.


async def not_ordered(bench: Bench, ride: Ride) -> list[tuple[str, int | None]]:
    async with bench.database.reading(UnorderedStore) as store:
        found = await store.of_operator(ride.party.operator_no, 100)
    return [(row.refund_ref, row.amount_minor) for row in found if row.ride_no == ride.ride_no]


async def test_a_refund_of_the_console_is_shown_by_name_and_amount_until_a_person_books_it(bench: Bench) -> None:
    ride = await refused(bench)
    counted, cash = UNORDERED._value.get(), await elsewhere(bench, ride)
    for _ in range(3):  # A repeated notification is the rule.
        assert await in_the_console(bench, ride, "re_9", 100)
    assert (await not_ordered(bench, ride), UNORDERED._value.get()) == ([("re_9", 100)], counted + 1)
    assert (await bench.debits(ride))[0]["given_back_minor"] == 0, "nothing is booked by itself"
    for wrong in (GivenBack(99, "r", "re_9"), GivenBack(100, "r", "re_8")):
        with pytest.raises(RefundRefusedError, match="waits to be booked"):
            await bench.collection.given_back((ride.ride_no, 1), wrong)
    bench.provider.given_back["re_9"] = 100
    await bench.collection.given_back((ride.ride_no, 1), GivenBack(100, "made in the console", "re_9"))
    assert (await not_ordered(bench, ride), await listed(bench, ride)) == ([], [])
    assert (await bench.debits(ride))[0]["given_back_minor"] == 100
    assert await elsewhere(bench, ride) == cash, "it went by the provider's own account"
    assert await in_the_console(bench, ride, "re_9", 100)
    assert await not_ordered(bench, ride) == []


@pytest.mark.parametrize("amount_minor", [100, None])
async def test_a_refund_of_the_console_that_comes_to_nothing_is_owed_again_once_it_was_booked(
    bench: Bench, amount_minor: int | None
) -> None:
    """The books said that the rider had it, and nobody heard that he had not."""
    ride = await refused(bench)
    assert await in_the_console(bench, ride, "re_9", amount_minor)
    await bench.collection.given_back((ride.ride_no, 1), GivenBack(100, "made in the console", "re_9"))
    bench.provider.capabilities = Capabilities()
    for _ in range(2):  # A repeated notification is the rule.
        assert await comes_to_nothing(bench, ride, "re_9")
    await bench.settle_down(2)
    [debit] = await bench.debits(ride)
    assert (debit["given_back_minor"], debit["refunded_minor"]) == (0, 100)
    assert list(bench.provider.given_back.values()) == [100], "by a refund of our own"
    assert (await bench.whys(ride))[-3] == "given back failed: refund re_9, 1.00 CNY"
    assert (await not_ordered(bench, ride), await listed(bench, ride)) == ([], [])


@pytest.mark.parametrize("first", ["told", "failed"])
async def test_one_that_has_come_to_nothing_before_that_is_neither_shown_nor_booked(bench: Bench, first: str) -> None:
    ride = await refused(bench)
    tellings = [in_the_console(bench, ride, "re_9", 100), comes_to_nothing(bench, ride, "re_9")]
    for telling in tellings if first == "told" else reversed(tellings):
        assert await telling
    assert (await not_ordered(bench, ride), await listed(bench, ride)) == ([], [(1, 100, "failed")])
    with pytest.raises(RefundRefusedError, match="waits to be booked"):
        await bench.collection.given_back((ride.ride_no, 1), GivenBack(100, "r", "re_9"))


async def test_a_refund_of_which_no_amount_is_told_is_shown_and_one_of_a_stranger_is_not(bench: Bench) -> None:
    ride = await refused(bench)
    assert await in_the_console(bench, ride, "alipay-1", None)
    assert await not_ordered(bench, ride) == [("alipay-1", None)]
    assert await in_the_console(bench, ride, "alipay-1", 40)
    assert await not_ordered(bench, ride) == [("alipay-1", 40)]
    for payment in (None, "another's"):
        named = (bench.account_no, "re_x", Succeeded(40), "key", "refund", payment)
        assert not await bench.collection.noticed(*named)  # type: ignore[arg-type]  # A tuple of them.


async def test_one_of_ours_that_a_restored_database_had_forgotten_is_shown_until_it_is_known_again(
    bench: Bench,
) -> None:
    ride = await bench.ride(await bench.party(), 300)
    await bench.settle_down(1)
    [debit] = await bench.debits(ride)
    key = provider_key(debit["session_key"].bytes, "refund", 1001)
    assert await in_the_console(bench, ride, key, 100)
    assert await not_ordered(bench, ride) == [(key, 100)]
    await bench.owe(ride, 2, -100)
    await bench.settle_down(1)
    assert await not_ordered(bench, ride) == []
