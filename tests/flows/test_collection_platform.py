"""What the merchant's own people do at WeChat Pay's merchant platform: they mark an order as paid, or cancel it.

Nobody tells us, so that it is found by asking. The books of the simulator's face are the oracle.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from builders import Ride
from test_collection_wechatpay import PRICE, Shop, shop_at

from service.billing.debits.events import OperatorDecided, PaidElsewhere, RetryAsked
from service.billing.debits.state import GONE_THERE
from service.billing.ledger import KIND, Account
from service.flows.collection.hearing import NoPaymentError

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
PART = 100


class Office(Shop):
    """A shop whose people have the merchant platform open."""

    async def pending(self) -> Ride:
        """A ride whose order is completed, and collected for as long as it takes."""
        ride = await self.ride()
        await self.go_on(6, MINUTE)
        assert await self.bench.states(ride) == [("pending", PRICE, 0)]
        return ride

    async def partly(self) -> Ride:
        """Of which a part was taken."""
        ride = await self.pending()
        await self.merchant.wallet("ann", PART)
        await self.go_on(3, DAY)
        assert await self.bench.states(ride) == [("pending", PRICE, PART)]
        return ride

    async def at_platform(self, does: str, ride: Ride) -> None:
        """What somebody does there, and that nobody collects it any more."""
        await self.merchant.at_platform(does, await self.order(ride))
        await self.merchant.wallet("ann", 10_000)

    async def order(self, ride: Ride) -> str:
        """Our number of the ride's order."""
        key = await self.bench.connection.fetchval(
            "SELECT provider_key FROM hold WHERE session_id = $1", ride.session_id
        )
        assert isinstance(key, str)
        return key

    async def one(self, ride: Ride) -> dict[str, Any]:
        """The only debit of a ride: never is a second one opened by itself."""
        [row] = await self.bench.debits(ride)
        return row

    async def books(self, ride: Ride) -> tuple[int, int]:
        """What of the ride was (paid elsewhere, written off); what the provider has is what the ledger says."""
        await self.books_agree()
        kinds = await self.bench.connection.fetch(
            "SELECT debit_account / $2 AS taken, credit_account / $2 AS given, amount_minor FROM transfer"
            " WHERE ride_no = $1",
            *(ride.ride_no, KIND),
        )
        sums = dict.fromkeys((Account.ELSEWHERE, Account.WRITE_OFFS), 0)
        for row in kinds:
            for kind in sums:
                sums[kind] += ((row["taken"] == kind) - (row["given"] == kind)) * row["amount_minor"]
        return sums[Account.ELSEWHERE], sums[Account.WRITE_OFFS]


office = partial(shop_at, Office)


async def test_an_order_that_is_marked_as_paid_there_is_settled_elsewhere(database_url: str, tmp_path: Path) -> None:
    """As `farebox debit elsewhere` books it, and the provider is who says so."""
    async with office(database_url, tmp_path) as shop:
        ride = await shop.pending()
        await shop.at_platform("paid", ride)
        await shop.days(3)
        row = await shop.one(ride)
        assert (row["state"], row["paid_minor"], row["outside_minor"]) == ("settled_elsewhere", 0, PRICE)
        assert row["reason"] == "provider: marked as paid there, not by us (PAID_ELSEWHERE)"
        assert await shop.books(ride) == (PRICE, 0)
        assert "needs_rider" not in await shop.bench.transitions(ride)
        assert await shop.hold_state(ride) == "completed"


@pytest.mark.parametrize("when", ["collected", "ridden"])
async def test_an_order_that_is_cancelled_there_is_for_a_person_and_never_debited_anew(
    database_url: str, tmp_path: Path, when: str
) -> None:
    """Its rider can't pay it, whatever anybody asks for; one that was cancelled before it was completed can't be."""
    async with office(database_url, tmp_path) as shop:
        if when == "collected":
            ride = await shop.pending()
        else:
            ride = await shop.ride()
            await shop.bench.collection.submit_round(shop.bench.account_no)  # It asks for its order.
            await shop.holds.resolve_round(shop.bench.account_no)
            assert (await shop.hold_state(ride), (await shop.one(ride))["attempts"]) == ("open", 0)
        await shop.at_platform("cancel", ride)
        await shop.days(3)
        row = await shop.one(ride)
        assert (row["state"], row["paid_minor"], row["action"]) == ("manual", 0, None)
        assert row["reason"] == f"{GONE_THERE} (REVOKED): settle it elsewhere if the rider has paid, else cancel it"
        assert "needs_rider" not in await shop.bench.transitions(ride)
        await shop.bench.collection.happen([((ride.ride_no, 1), OperatorDecided("submit_again", "once more"))])
        await shop.days(3)
        assert (await shop.one(ride))["state"] == "manual"
        assert (await shop.books(ride), await shop.hold_state(ride)) == ((0, 0), "open")


@pytest.mark.parametrize("said", ["elsewhere", "cancel", "void", "less"])
async def test_what_becomes_of_it_is_said_by_a_person_or_by_what_the_ride_owes(
    database_url: str, tmp_path: Path, said: str
) -> None:
    async with office(database_url, tmp_path) as shop:
        ride = await shop.pending()
        await shop.at_platform("cancel", ride)
        await shop.days(3)
        key, owed = (ride.ride_no, 1), PRICE
        if said in ("void", "less"):
            owed = 0 if said == "void" else PRICE - 100
            await shop.bench.owe(ride, 2, owed - PRICE)
        if said in ("elsewhere", "less"):
            await shop.bench.collection.happen([(key, PaidElsewhere("cash"))])
        elif said == "cancel":
            await shop.bench.collection.happen([(key, OperatorDecided("cancel", "meant so"))])
        await shop.days(3)
        states = {"elsewhere": "settled_elsewhere", "less": "settled_elsewhere"}
        row = await shop.one(ride)
        assert (row["state"], row["paid_minor"]) == (states.get(said, "cancelled"), 0)
        wanted = {"elsewhere": (PRICE, 0), "less": (PRICE - 100, 0), "cancel": (0, PRICE), "void": (0, 0)}
        assert await shop.books(ride) == wanted[said]
        assert await shop.hold_state(ride) == "released"


@pytest.mark.parametrize("does", ["paid", "cancel"])
@pytest.mark.parametrize("heard", [True, False])
async def test_the_rest_of_what_was_taken_in_part_is_for_a_person_who_may_say_that_it_was_paid(
    database_url: str, tmp_path: Path, does: str, *, heard: bool
) -> None:
    async with office(database_url, tmp_path) as shop:
        ride = await (shop.partly() if heard else shop.pending())
        if not heard:
            await shop.merchant.wallet("ann", PART)
            shop.bench.pass_time(DAY)
            await shop.merchant.at(shop.bench.now)
        await shop.at_platform(does, ride)
        await shop.days(3)
        row = await shop.one(ride)
        assert (row["state"], row["paid_minor"]) == ("manual", PART)
        await shop.bench.collection.happen([((ride.ride_no, 1), PaidElsewhere("cash"))])
        await shop.days(3)
        row = await shop.one(ride)
        assert (row["state"], row["paid_minor"], row["outside_minor"]) == ("settled_elsewhere", PART, PRICE - PART)
        assert await shop.books(ride) == (PRICE - PART, 0)


@pytest.mark.parametrize("does", ["paid", "cancel"])
@pytest.mark.parametrize("owed", [PRICE - 100, 0])
async def test_what_is_lowered_when_it_has_ended_there_asks_nobody_for_another_payment(
    database_url: str, tmp_path: Path, does: str, owed: int
) -> None:
    """What was paid outside of a ride that then owes less stands: it goes back outside."""
    async with office(database_url, tmp_path) as shop:
        ride = await shop.pending()
        await shop.at_platform(does, ride)
        await shop.bench.owe(ride, 2, owed - PRICE)
        await shop.days(3)
        row = await shop.one(ride)
        if does == "paid":
            assert (row["state"], row["outside_minor"]) == ("settled_elsewhere", PRICE if owed else 0)
        else:
            assert (row["state"], row["amount_minor"]) == ("manual" if owed else "cancelled", owed or PRICE)
        assert row["paid_minor"] == 0
        await shop.books_agree()


@pytest.mark.parametrize("does", ["paid", "cancel"])
async def test_a_written_off_debt_that_is_marked_as_paid_there_is_paid(
    database_url: str, tmp_path: Path, does: str
) -> None:
    async with office(database_url, tmp_path) as shop:
        ride = await shop.pending()
        await shop.days(210)
        assert (await shop.one(ride))["state"] == "written_off"
        assert await shop.books(ride) == (0, PRICE)
        await shop.at_platform(does, ride)
        await shop.days(60)
        row = await shop.one(ride)
        assert row["state"] == ("settled_elsewhere" if does == "paid" else "written_off")
        assert await shop.books(ride) == ((PRICE, 0) if does == "paid" else (0, PRICE))


async def test_a_rider_who_wants_to_pay_what_was_cancelled_there_is_given_nothing(
    database_url: str, tmp_path: Path
) -> None:
    async with office(database_url, tmp_path) as shop:
        ride = await shop.pending()
        await shop.at_platform("cancel", ride)
        with pytest.raises(NoPaymentError):
            await shop.bench.collection.ask_payment((ride.ride_no, 1))
        await shop.bench.collection.happen([((ride.ride_no, 1), RetryAsked())])
        await shop.go_on(3, MINUTE)
        assert (await shop.one(ride))["state"] == "manual"
