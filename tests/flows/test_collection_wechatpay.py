"""Rides paid to the operator himself, through the rules and the adapter, at the simulator's face of WeChat Pay.

Its books are the oracle: what nobody told it, it goes on collecting for ever (wechatpay-skills, 排障手册 3.1 #4).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from builders import Ride
from collecting_bench import Bench, only, open_bench
from sandbox_peer import peer
from wechatpay_peer import Merchant, merchant_at

from service.adapters.providers.port import DebitRef, HoldRef
from service.billing.debits.events import PaidElsewhere
from service.billing.outcomes import Accepted
from service.flows.collection import Collection
from service.flows.disputes import Disputes, announced
from service.flows.holds import Holds

PRICE = 300


class Shop:
    """A bench whose provider is the face, and a ride of a rider with an empty wallet."""

    def __init__(self, bench: Bench, merchant: Merchant) -> None:
        self.bench = bench
        self.merchant = merchant
        providers = only(merchant.provider)
        self.holds = Holds(bench.database, providers, lambda: bench.now, lambda: bench.machine)
        hear = bench.collection.disputed
        self.disputes = Disputes(bench.database, providers, hear, lambda: bench.now, lambda: bench.machine)

    async def ride(self) -> Ride:
        await self.merchant.wallet("ann", 0)
        agreement = await self.merchant.signed("AGREE", "ann")
        party = await self.bench.party()
        await self.bench.connection.execute(
            "UPDATE agreement SET provider_key = $2, provider_ref = $3 WHERE agreement_no = $1",
            party.agreement_no,
            agreement.key,
            agreement.provider_ref,
        )
        return await self.bench.ride(party, PRICE)

    async def go_on(self, rounds: int, step: timedelta) -> None:
        """Rounds of holds and debits, and time at both ends."""
        for _ in range(rounds):
            await self.holds.resolve_round(self.bench.account_no)
            await self.holds.release_round(self.bench.account_no)
            await self.bench.collection.submit_round(self.bench.account_no)
            self.bench.pass_time(step)
            await self.merchant.at(self.bench.now)

    async def days(self, count: int) -> None:
        """Days of everything, with what is announced and what the calendar says."""
        for _ in range(count):
            await self.go_on(1, timedelta(days=1))
            await self.disputes.ask_round(self.bench.account_no)
            await self.bench.collection.policy_round(self.bench.account_no)

    async def complains(self, ride: Ride, **more: str) -> None:
        """The rider complains about the ride's order, or his complaint is over; WeChat Pay says that something is."""
        await self.merchant.complains((await self.there(ride))["key"], **more)
        told = await self.merchant.ear.hears("dispute")
        assert await announced(self.bench.database, self.bench.account_no, told.key, self.bench.now)

    async def standing(self, ride: Ride) -> tuple[str, str | None, bool, int]:
        """The debit's state, its dispute, whether it is overdue, and how often the rider was reminded."""
        [row] = await self.bench.debits(ride)
        return row["state"], row["dispute"], row["overdue"], row["reminded"]

    async def there(self, ride: Ride) -> dict[str, Any]:
        """The debit of the ride's order in the provider's books."""
        key = await self.bench.connection.fetchval(
            "SELECT provider_key FROM hold WHERE session_id = $1 AND account_no = $2",
            ride.session_id,
            self.bench.account_no,
        )
        found = await self.merchant.peer.debit(key)
        assert isinstance(found, dict)
        return found

    async def hold_state(self, ride: Ride) -> str:
        state = await self.bench.connection.fetchval(
            "SELECT state FROM hold WHERE session_id = $1 AND account_no = $2", ride.session_id, self.bench.account_no
        )
        assert isinstance(state, str)
        return state

    async def books_agree(self) -> None:
        """What the ledger's clearing account says is what the provider's books do."""
        there = await self.merchant.peer.call("GET", "/books/debits")
        moved = sum(line["paid_minor"] - line["refunded_minor"] for line in there)
        assert await self.bench.balance(4, self.bench.account_no) == moved


AnyShop = TypeVar("AnyShop", bound=Shop)


@asynccontextmanager
async def shop_at(shop: Callable[[Bench, Merchant], AnyShop], url: str, directory: Path) -> AsyncIterator[AnyShop]:
    """A shop of that kind, its bench and its merchant at a simulator of its own."""
    async with (
        open_bench(url) as bench,
        peer() as simulator,
        merchant_at(simulator, f"shop{bench.account_no}", directory) as merchant,
    ):
        providers = {bench.account_no: merchant.provider}
        bench.collection = Collection(bench.database, providers, lambda: bench.now, lambda: bench.machine)
        await merchant.at(bench.now)
        yield shop(bench, merchant)


wechat = partial(shop_at, Shop)


async def test_a_rider_who_complains_before_he_has_paid_is_neither_reminded_nor_overdue_until_it_is_over(
    database_url: str, tmp_path: Path
) -> None:
    """The complaint names the order alone; it ends when the order is long paid and gone, and says no more even then."""
    async with wechat(database_url, tmp_path) as shop:
        ride = await shop.ride()
        await shop.go_on(6, timedelta(minutes=1))
        await shop.complains(ride)
        await shop.days(20)
        assert await shop.standing(ride) == ("pending", "complaint", False, 0)
        await shop.merchant.wallet("ann", 10_000)
        await shop.merchant.pays((await shop.there(ride))["key"])
        await shop.days(2)
        assert (await shop.standing(ride), await shop.hold_state(ride)) == (
            ("settled", "complaint", False, 0),
            "completed",
        )
        await shop.complains(ride, state="resolved")
        await shop.days(1)
        assert await shop.standing(ride) == ("settled", "resolved", False, 0)
        assert await shop.bench.connection.fetchval("SELECT count(*) FROM dispute_unheard") == 0
        await shop.books_agree()


@pytest.mark.parametrize("paid", [False, True])
async def test_an_order_that_is_lowered_at_the_merchant_platform_is_for_people_to_decide(
    database_url: str, tmp_path: Path, *, paid: bool
) -> None:
    """It will bring what it says there, and never what we have asked for."""
    async with wechat(database_url, tmp_path) as shop:
        ride = await shop.ride()
        await shop.go_on(6, timedelta(minutes=1))
        key = (await shop.there(ride))["key"]
        lowered = DebitRef("K", PRICE, "CNY", hold=HoldRef(key))
        assert isinstance(await shop.merchant.provider.reduce_debit(lowered, PRICE - 100), Accepted)
        if paid:  # Before anybody asks.
            await shop.merchant.pays(key)
        await shop.go_on(2, timedelta(days=1))
        assert await shop.bench.states(ride) == [("manual", PRICE, PRICE - 100 if paid else 0)]
        await shop.books_agree()


async def test_wechat_pay_is_told_that_an_order_was_paid_elsewhere_and_never_collects_it(
    database_url: str, tmp_path: Path
) -> None:
    async with wechat(database_url, tmp_path) as shop:
        ride = await shop.ride()
        await shop.go_on(6, timedelta(minutes=1))
        assert await shop.bench.states(ride) == [("pending", PRICE, 0)]
        await shop.bench.collection.happen([((ride.ride_no, 1), PaidElsewhere("cash"))])
        await shop.go_on(1, timedelta(minutes=1))
        assert (await shop.there(ride))["state"] == "closed"
        await shop.merchant.wallet("ann", 10_000)
        await shop.go_on(6, timedelta(hours=12))
        assert (await shop.there(ride))["paid_minor"] == 0
        assert await shop.bench.states(ride) == [("settled_elsewhere", PRICE, 0)]
        assert await shop.hold_state(ride) == "completed"
        await shop.books_agree()


async def test_until_wechat_pay_has_answered_that_it_knows_the_hold_stays_and_it_is_told_again(
    database_url: str, tmp_path: Path
) -> None:
    async with wechat(database_url, tmp_path) as shop:
        ride = await shop.ride()
        await shop.go_on(6, timedelta(minutes=1))
        faults = [
            {"kind": "error_before", "op": "debit.settle_elsewhere", "account": shop.merchant.account_id, "times": 2}
        ]
        await shop.merchant.peer.call("POST", "/script", faults)
        await shop.bench.collection.happen([((ride.ride_no, 1), PaidElsewhere("cash"))])
        await shop.go_on(2, timedelta(seconds=61))
        assert ((await shop.there(ride))["state"], await shop.hold_state(ride)) == ("accepted", "open")
        await shop.go_on(4, timedelta(minutes=6))
        assert ((await shop.there(ride))["state"], await shop.hold_state(ride)) == ("closed", "completed")


async def test_what_wechat_pay_collected_before_it_could_be_told_goes_back(database_url: str, tmp_path: Path) -> None:
    async with wechat(database_url, tmp_path) as shop:
        ride = await shop.ride()
        await shop.go_on(6, timedelta(minutes=1))
        await shop.bench.collection.happen([((ride.ride_no, 1), PaidElsewhere("cash"))])
        await shop.merchant.wallet("ann", 10_000)
        await shop.merchant.pays((await shop.there(ride))["key"])
        await shop.go_on(12, timedelta(minutes=6))
        there = await shop.there(ride)
        assert (there["paid_minor"], there["refunded_minor"]) == (PRICE, PRICE)
        assert await shop.bench.states(ride) == [("settled_twice", PRICE, PRICE)]
        await shop.books_agree()


async def test_a_part_that_wechat_pay_collected_before_it_was_told_goes_back_though_nobody_told_of_it(
    database_url: str, tmp_path: Path
) -> None:
    async with wechat(database_url, tmp_path) as shop:
        ride = await shop.ride()
        await shop.go_on(6, timedelta(minutes=1))
        await shop.merchant.wallet("ann", 100)
        shop.bench.pass_time(timedelta(days=1))
        await shop.merchant.at(shop.bench.now)
        assert ((await shop.there(ride))["paid_minor"], await shop.bench.states(ride)) == (100, [("pending", PRICE, 0)])
        await shop.bench.collection.happen([((ride.ride_no, 1), PaidElsewhere("cash"))])
        await shop.go_on(12, timedelta(minutes=6))
        there = await shop.there(ride)
        assert (there["paid_minor"], there["refunded_minor"]) == (100, 100)
        assert await shop.bench.states(ride) == [("settled_twice", PRICE, 100)]
        await shop.books_agree()


@pytest.mark.parametrize("owed", [0, 50, 100])
async def test_wechat_pay_collects_no_more_of_an_order_of_which_a_part_was_taken_once_no_more_is_owed(
    database_url: str, tmp_path: Path, owed: int
) -> None:
    """What is owed no longer of that part goes back, though the wallet is empty and the order would not end."""
    async with wechat(database_url, tmp_path) as shop:
        ride = await shop.ride()
        await shop.merchant.wallet("ann", 100)
        await shop.go_on(12, timedelta(hours=6))
        assert await shop.bench.states(ride) == [("pending", PRICE, 100)]
        await shop.bench.owe(ride, 2, owed - PRICE)
        await shop.go_on(4, timedelta(hours=6))
        there = await shop.there(ride)
        assert (there["state"], there["paid_minor"], there["refunded_minor"]) == ("paid", 100, 100 - owed)
        await shop.merchant.wallet("ann", 10_000)
        await shop.go_on(60, timedelta(days=7))
        assert await shop.there(ride) == there
        assert (await shop.bench.states(ride), await shop.hold_state(ride)) == ([("settled", 100, 100)], "completed")
        await shop.books_agree()


async def test_a_payment_that_the_rider_was_given_is_closed_when_he_pays_elsewhere(
    database_url: str, tmp_path: Path
) -> None:
    """What he must approve goes through no order: he could still pay it in WeChat, the day after."""
    async with wechat(database_url, tmp_path) as shop:
        ride = await shop.ride()
        await shop.merchant.wallet("ann", 10_000)
        await shop.go_on(6, timedelta(minutes=1))
        assert await shop.bench.states(ride) == [("settled", PRICE, PRICE)]
        await shop.bench.owe(ride, 2, 200)
        assert (await shop.bench.states(ride))[1] == ("needs_rider", 200, 0)
        given = await shop.bench.collection.ask_payment((ride.ride_no, 2))
        assert (await shop.merchant.peer.debit(given.provider_key) or {})["state"] == "declined"
        await shop.bench.collection.happen([((ride.ride_no, 2), PaidElsewhere("cash"))])
        await shop.go_on(2, timedelta(minutes=1))
        assert (await shop.merchant.peer.debit(given.provider_key) or {})["state"] == "closed"
        assert (await shop.bench.states(ride))[1] == ("settled_elsewhere", 200, 0)
        await shop.books_agree()
