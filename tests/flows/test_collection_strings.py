"""Order strings that Alipay's rider opens and lets lapse, or has not opened yet, through the rules and the adapter.

The books of the simulator's face are the oracle. No notification reaches us: what is paid is found by asking, or never.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alipay_double import opened
from alipay_peer import Merchant, merchant_at
from builders import Ride
from collecting_bench import Bench, only, open_bench
from sandbox_peer import peer

from service.adapters.providers.port import AgreementRef
from service.billing.debits import Debit, ImpossibleEventError
from service.billing.debits.events import PaidElsewhere, RetryAsked, Suspended
from service.flows.collection import Collection
from service.flows.holds import Holds

PRICE = 300
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
PAID, LEFT, GONE = "9000", "6001", "4000"
"""What the rider's app hands back: he has paid; he went back without; the string can't be paid."""


class Shop:
    """A bench whose provider is the face, and one ride."""

    agreement: AgreementRef
    ridden: Ride

    def __init__(self, bench: Bench, merchant: Merchant) -> None:
        self.bench = bench
        self.merchant = merchant
        self.holds = Holds(bench.database, only(merchant.provider), lambda: bench.now, lambda: bench.machine)
        accounts = {bench.account_no: merchant.provider}
        bench.collection = Collection(bench.database, accounts, lambda: bench.now, lambda: bench.machine)

    async def ride(self, balance_minor: int = 0) -> Ride:
        """The ride, of a rider with so much in his wallet; it has been tried."""
        await self.merchant.at(self.bench.now.isoformat())
        await self.merchant.wallet("ann", balance_minor)
        self.agreement = await self.merchant.signed(f"AGREE{self.bench.account_no}", "ann")
        party = await self.bench.party()
        await self.bench.connection.execute(
            "UPDATE agreement SET provider_key = $2, provider_ref = $3 WHERE agreement_no = $1",
            *(party.agreement_no, self.agreement.key, self.agreement.provider_ref),
        )
        self.ridden = await self.bench.ride(party, PRICE)
        await self.rounds(8)
        return self.ridden

    async def rounds(self, count: int, step: timedelta = MINUTE) -> None:
        """Rounds of holds, debits and the calendar, and time at both ends."""
        for _ in range(count):
            await self.holds.resolve_round(self.bench.account_no)
            await self.holds.release_round(self.bench.account_no)
            await self.bench.collection.submit_round(self.bench.account_no)
            await self.bench.collection.policy_round(self.bench.account_no)
            self.bench.pass_time(step)
            await self.merchant.at(self.bench.now.isoformat())

    async def refused_ride(self) -> tuple[int, int]:
        """The debit of a ride whose order was refused for good: its rider can pay it, and nobody else."""
        await self.merchant.peer.script("refuse", op="hold.open", code="USER_NOT_ADMITTED", times=1)
        ride = await self.ride()
        assert await self.bench.states(ride) == [("needs_rider", PRICE, 0)]
        return ride.ride_no, 1

    async def voided(self) -> None:
        """Nothing of the ride is owed any more."""
        await self.bench.owe(self.ridden, 2, -PRICE)

    async def given(self, key: tuple[int, int]) -> Debit:
        """The debit whose rider was handed something to pay it with."""
        return await self.bench.collection.ask_payment(key)

    async def opens(self, given: Debit, answer: str = "confirm") -> str:
        """The rider opens his string."""
        return await self.merchant.opens(given.action, "ann", answer=answer)

    async def lapsed(self, key: tuple[int, int]) -> str:
        """He is given a string, looks at it and lets its time pass; the number that Alipay has closed then."""
        given = await self.given(key)
        number = number_of(given)
        assert await self.opens(given, "look") == LEFT
        there = await self.merchant.peer.debit(number)
        assert (there["state"], there["paid_minor"]) == ("declined", 0)
        await self.rounds(8, 10 * MINUTE)
        assert (await self.merchant.peer.debit(number))["state"] == "closed"
        assert await self.opens(given) == GONE
        return number

    async def further_string(self) -> tuple[tuple[int, int], Debit]:
        """The debit of a refused order: its rider let one string lapse, and has the next one, not opened yet."""
        key = await self.refused_ride()
        await self.lapsed(key)
        return key, await self.given(key)

    async def one(self, key: tuple[int, int]) -> dict[str, Any]:
        """The debit as we have it."""
        row = await self.bench.connection.fetchrow("SELECT * FROM debit WHERE ride_no = $1 AND ordinal = $2", *key)
        assert row is not None
        return dict(row)

    async def standing(self, key: tuple[int, int]) -> tuple[str, int, int]:
        """(state, paid, given back) of a debit."""
        row = await self.one(key)
        return row["state"], row["paid_minor"], row["refunded_minor"]

    async def moved(self) -> list[tuple[int, int]]:
        """(paid, given back) of what moved at the provider; what our ledger says of it is the same."""
        lines = await self.merchant.peer.call("GET", "/books/debits")
        moved = [(line["paid_minor"], line["refunded_minor"]) for line in lines if line["paid_minor"]]
        ours = await self.bench.balance(4, self.bench.account_no)
        assert ours == sum(paid - returned for paid, returned in moved), (ours, lines)
        return moved


def number_of(given: Debit) -> str:
    """What a string that the rider was handed asks him to pay."""
    number = opened(given.action)["biz"]["out_trade_no"]
    assert isinstance(number, str)
    return number


@asynccontextmanager
async def alipay(url: str, directory: Path, **terms: Any) -> AsyncIterator[Shop]:
    async with (
        open_bench(url) as bench,
        peer() as there,
        merchant_at(there, "zhima", f"zhima{bench.account_no}", directory, **terms) as merchant,
    ):
        yield Shop(bench, merchant)


@pytest.mark.parametrize("ordinal", [1, 2])
async def test_a_rider_who_lets_his_payment_lapse_again_and_again_is_given_another_number_each_time(
    database_url: str, tmp_path: Path, ordinal: int
) -> None:
    """His ride's order was refused, or what he owes is a further debit of it, which he alone can pay."""
    async with alipay(database_url, tmp_path) as shop:
        if ordinal == 1:
            key, before = await shop.refused_ride(), []
        else:
            ride = await shop.ride(PRICE)
            await shop.bench.owe(ride, 2, PRICE)
            key, before = (ride.ride_no, 2), [(PRICE, 0)]
        numbers = [await shop.lapsed(key) for _ in range(4)]
        first = (await shop.one(key))["provider_key"]
        assert numbers == [first, f"{first}_B", f"{first}_C", f"{first}_D"]
        given = await shop.given(key)
        assert number_of(given) == f"{first}_E"
        assert await shop.opens(given) == PAID
        await shop.rounds(10, 10 * MINUTE)
        assert await shop.standing(key) == ("settled", PRICE, 0)
        assert await shop.moved() == [*before, (PRICE, 0)]
        assert await shop.opens(given) == GONE


@pytest.mark.parametrize("pays", [True, False])
async def test_nothing_is_tried_beside_a_further_string_that_its_rider_may_still_open(
    database_url: str, tmp_path: Path, *, pays: bool
) -> None:
    """Support's retry would have opened another order; one that opens after all waits as well."""
    async with alipay(database_url, tmp_path) as shop:
        key, given = await shop.further_string()
        await shop.merchant.wallet("ann", PRICE)
        with pytest.raises(ImpossibleEventError):
            await shop.bench.collection.happen([(key, RetryAsked())])
        await opens_after_all(shop)
        await shop.rounds(50)
        assert (await shop.standing(key), await shop.moved()) == (("needs_rider", 0, 0), [])
        if pays:
            assert await shop.opens(given) == PAID
        await shop.rounds(12, 10 * MINUTE)
        assert (await shop.standing(key), await shop.moved()) == (("settled", PRICE, 0), [(PRICE, 0)])
        assert await shop.opens(given) == GONE


@pytest.mark.parametrize("pays", [True, False])
async def test_the_riders_numbers_are_closed_before_an_order_is_collected_once_his_time_is_over(
    database_url: str, tmp_path: Path, *, pays: bool
) -> None:
    """The retry was taken while that was not refused yet: the debit is to be tried, and its rider has a string."""
    async with alipay(database_url, tmp_path) as shop:
        key, given = await shop.further_string()
        await shop.merchant.wallet("ann", PRICE)
        await opens_after_all(shop)
        taken_up = "UPDATE debit SET state = 'new', reason = NULL, action = NULL, due_at = $3"
        await shop.bench.connection.execute(f"{taken_up} WHERE ride_no = $1 AND ordinal = $2", *key, shop.bench.now)
        await shop.rounds(1)
        row = await shop.one(key)
        assert (row["state"], row["due_at"], row["given"]) == ("new", given.payable_until, True)
        await shop.rounds(40)
        assert (await shop.standing(key), await shop.moved()) == (("new", 0, 0), [])
        if pays:
            assert await shop.opens(given) == PAID
        await shop.rounds(6, 10 * MINUTE)
        assert (await shop.standing(key), await shop.moved()) == (("settled", PRICE, 0), [(PRICE, 0)])
        assert await shop.opens(given) == GONE


@pytest.mark.parametrize("answer", ["confirm", "look", None])
@pytest.mark.parametrize("ended", ["cancelled", "settled_elsewhere"])
async def test_what_he_pays_by_a_further_string_for_what_is_owed_no_longer_is_found_and_goes_back(
    database_url: str, tmp_path: Path, ended: str, answer: str | None
) -> None:
    """The ride is voided, or paid at the desk; then he opens his string while its time runs, and nobody tells us."""
    async with alipay(database_url, tmp_path) as shop:
        key, given = await shop.further_string()
        await shop.rounds(3)
        if ended == "cancelled":
            await shop.voided()
        else:
            await shop.bench.collection.happen([(key, PaidElsewhere("cash"))])
        await shop.rounds(30)
        if answer is not None:
            assert await shop.opens(given, answer) in (PAID, LEFT)
        await shop.rounds(4, 20 * MINUTE)
        await shop.rounds(3, DAY)
        if paid := answer == "confirm":
            ended = "settled" if ended == "cancelled" else "settled_twice"
        assert await shop.moved() == ([(PRICE, PRICE)] if paid else [])
        assert await shop.standing(key) == (ended, PRICE if paid else 0, PRICE if paid else 0)
        assert await shop.opens(given) == GONE


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("voided", [True, False])
async def test_what_is_paid_of_a_written_off_debt_in_the_hour_that_its_rider_has_is_found(
    database_url: str, tmp_path: Path, *, sent: bool, voided: bool
) -> None:
    """Its trade was closed by Alipay months ago, or it was never sent; the first question finds nothing new."""
    async with alipay(database_url, tmp_path, give_up_s=15 * 86_400) as shop:
        key = ((await shop.ride()).ride_no, 1) if sent else await shop.refused_ride()
        await shop.rounds(210, DAY)
        assert await shop.standing(key) == ("written_off", 0, 0)
        given = await shop.given(key)
        assert number_of(given).endswith("_B") == sent
        await shop.rounds(5)
        if voided:
            await shop.voided()
        await shop.rounds(5)
        assert await shop.opens(given) == PAID
        await shop.rounds(6, 10 * MINUTE)
        await shop.rounds(10, DAY)
        assert await shop.moved() == [(PRICE, PRICE if voided else 0)]
        row = await shop.one(key)
        assert (row["paid_minor"], row["forgone_minor"], row["overdue"]) == (PRICE, 0, False)


async def test_a_written_off_debt_that_he_did_not_pay_after_all_is_asked_about_no_more_and_can_be_paid_later(
    database_url: str, tmp_path: Path
) -> None:
    async with alipay(database_url, tmp_path, give_up_s=15 * 86_400) as shop:
        key = await shop.refused_ride()
        await shop.rounds(210, DAY)
        for _ in range(2):
            await shop.lapsed(key)
            row = await shop.one(key)
            assert (row["state"], row["payable_until"], row["due_at"]) == ("written_off", None, None)
        assert await shop.opens(await shop.given(key)) == PAID
        await shop.rounds(6, 10 * MINUTE)
        assert await shop.moved() == [(PRICE, 0)]


@pytest.mark.parametrize("lapses", [0, 1])
async def test_what_is_paid_of_a_suspended_debit_while_its_riders_time_runs_is_found(
    database_url: str, tmp_path: Path, lapses: int
) -> None:
    async with alipay(database_url, tmp_path) as shop:
        key = await shop.refused_ride()
        for _ in range(lapses):
            await shop.lapsed(key)
        given = await shop.given(key)
        await shop.rounds(1)
        await shop.bench.collection.happen([(key, Suspended("the rider is being heard"))])
        await shop.rounds(39)
        assert await shop.opens(given) == PAID
        await shop.rounds(22)
        assert (await shop.standing(key), await shop.moved()) == (("settled", PRICE, 0), [(PRICE, 0)])


async def opens_after_all(shop: Shop) -> None:
    """The order that was refused is open."""
    order = await shop.merchant.ordered("AFTERALL", shop.agreement)
    await shop.bench.connection.execute(
        "UPDATE hold SET state = 'open', provider_key = $2, provider_ref = $3, cap_minor = 10000, opened_at = $4,"
        " reason = NULL, refusal = NULL, due_at = NULL"
        " WHERE session_key = (SELECT session_key FROM debit WHERE ride_no = $1 AND ordinal = 1)",
        *(shop.ridden.ride_no, order.key, order.provider_ref, shop.bench.now),
    )
