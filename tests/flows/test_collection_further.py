"""Payments that WeChat Pay's rider makes himself and lets lapse, or that we have closed, through rules and adapter.

The books of the simulator's face are the oracle. No notification reaches us: what is paid is found by asking, or never.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from builders import Ride
from test_collection_wechatpay import PRICE, Shop, shop_at

from service.billing.debits import Debit
from service.billing.debits.events import PaidElsewhere, RetryAsked, Suspended
from service.billing.outcomes import MiniProgram

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
EXTRA = 200
OK, FAIL = "openBusinessView:ok", "openBusinessView:fail"
Key = tuple[int, int]


class Riders(Shop):
    """A shop whose rider has paid his ride, and is to pay by himself what it came to owe besides; or whose order was
    refused, so that he pays all of it himself."""

    ridden: Ride

    async def owing(self) -> Key:
        """What the ride came to owe besides, which he alone can pay."""
        self.ridden = await self.ride()
        await self.merchant.wallet("ann", PRICE)
        await self.rounds(8)
        await self.bench.owe(self.ridden, 2, EXTRA)
        assert await self.bench.states(self.ridden) == [("settled", PRICE, PRICE), ("needs_rider", EXTRA, 0)]
        return self.ridden.ride_no, 2

    async def refused(self) -> Key:
        """The debit of a ride whose order was refused for good."""
        await self.merchant.peer.script("refuse", op="hold.open", code="268560785", times=1)
        self.ridden = await self.ride()
        await self.rounds(8)
        assert await self.bench.states(self.ridden) == [("needs_rider", PRICE, 0)]
        return self.ridden.ride_no, 1

    async def rounds(self, count: int, step: timedelta = MINUTE) -> None:
        """Rounds of everything, the calendar's too."""
        for _ in range(count):
            await self.go_on(1, step)
            await self.bench.collection.policy_round(self.bench.account_no)

    async def given(self, key: Key) -> Debit:
        """The debit whose rider was handed something to pay it with."""
        return await self.bench.collection.ask_payment(key)

    async def opens(self, given: Debit) -> str:
        """He pays what he was handed, from other means than his wallet."""
        assert isinstance(given.action, MiniProgram)
        return await self.merchant.opens(given.action, "ann")

    async def lapsed(self, key: Key) -> Debit:
        """He is given a payment, and lets a week pass, in which WeChat Pay closes it."""
        given = await self.given(key)
        await self.rounds(8, DAY)
        assert await self.opens(given) == FAIL
        return given

    async def begun(self, debit: Debit) -> list[tuple[str, str]]:
        """The payments of his own that were begun for a debit, and how each stands there."""
        lines = await self.merchant.peer.call("GET", f"/books/debits?account={self.merchant.account_id}")
        own = [line for line in lines if line["key"].startswith(debit.provider_key)]
        return [(line["key"].removeprefix(debit.provider_key), line["state"]) for line in own]

    async def one(self, key: Key) -> dict[str, Any]:
        """The debit as we have it."""
        row = await self.bench.connection.fetchrow("SELECT * FROM debit WHERE ride_no = $1 AND ordinal = $2", *key)
        assert row is not None
        return dict(row)

    async def stands(self, key: Key) -> tuple[str, int, int]:
        """(state, paid, given back) of a debit; the ledger says what the provider does."""
        await self.books_agree()
        row = await self.one(key)
        return row["state"], row["paid_minor"], row["refunded_minor"]


riders = partial(shop_at, Riders)


@pytest.mark.parametrize("alone", [True, False])
async def test_a_rider_who_lets_his_payment_lapse_again_and_again_is_given_another_number_each_time(
    database_url: str, tmp_path: Path, *, alone: bool
) -> None:
    """His ride's order was refused, or what he owes is a further debit of it, which he alone can pay."""
    async with riders(database_url, tmp_path) as shop:
        key, amount = (await shop.refused(), PRICE) if alone else (await shop.owing(), EXTRA)
        for _ in range(3):
            await shop.lapsed(key)
        given = await shop.given(key)
        assert await shop.begun(given) == [("", "closed"), ("_B", "closed"), ("_C", "closed"), ("_D", "declined")]
        assert await shop.opens(given) == OK
        await shop.rounds(12, 10 * MINUTE)
        assert await shop.stands(key) == ("settled", amount, 0)
        assert await shop.opens(given) == FAIL


async def test_what_he_was_given_is_good_for_two_hours_and_then_asked_for_again_under_the_same_number(
    database_url: str, tmp_path: Path
) -> None:
    async with riders(database_url, tmp_path) as shop:
        key = await shop.owing()
        before = await shop.given(key)
        await shop.rounds(13, 10 * MINUTE)
        assert await shop.opens(before) == FAIL
        given = await shop.given(key)
        assert await shop.begun(given) == [("", "declined")]
        assert await shop.opens(given) == OK
        await shop.rounds(12, 10 * MINUTE)
        assert await shop.stands(key) == ("settled", EXTRA, 0)


@pytest.mark.parametrize("pays", [True, False])
async def test_his_further_number_is_closed_before_an_order_that_opens_after_all_is_collected(
    database_url: str, tmp_path: Path, *, pays: bool
) -> None:
    """Support has another order asked for; what he pays before his number is closed is all that is taken."""
    async with riders(database_url, tmp_path) as shop:
        key = await shop.refused()
        await shop.lapsed(key)
        given = await shop.given(key)
        await shop.merchant.wallet("ann", PRICE)
        await shop.bench.collection.happen([(key, RetryAsked())])
        if pays:
            assert await shop.opens(given) == OK
        await shop.rounds(30)
        assert await shop.begun(given) == [("", "closed"), ("_B", "paid" if pays else "closed")]
        assert await shop.opens(given) == FAIL
        assert await shop.stands(key) == ("settled", PRICE, 0)


@pytest.mark.parametrize("lapses", [0, 1, 2])
@pytest.mark.parametrize("how", ["cash", "void"])
async def test_whichever_number_is_open_is_closed_once_nothing_is_owed_any_more(
    database_url: str, tmp_path: Path, how: str, lapses: int
) -> None:
    async with riders(database_url, tmp_path) as shop:
        key = await shop.owing()
        for _ in range(lapses):
            await shop.lapsed(key)
        given = await shop.given(key)
        if how == "cash":
            await shop.bench.collection.happen([(key, PaidElsewhere("cash"))])
        else:
            await shop.bench.owe(shop.ridden, 3, -EXTRA)
        await shop.rounds(3)
        assert {state for _, state in await shop.begun(given)} == {"closed"}
        assert await shop.opens(given) == FAIL
        await shop.rounds(3, DAY)
        assert await shop.stands(key) == ("settled_elsewhere" if how == "cash" else "cancelled", 0, 0)


@pytest.mark.parametrize("how", ["cash", "void", None])
async def test_what_he_pays_under_a_further_number_is_found_and_goes_back_where_it_is_owed_no_longer(
    database_url: str, tmp_path: Path, how: str | None
) -> None:
    """He pays before anybody at WeChat Pay was told that he need not."""
    async with riders(database_url, tmp_path) as shop:
        key = await shop.owing()
        await shop.lapsed(key)
        assert await shop.opens(await shop.given(key)) == OK
        if how == "cash":
            await shop.bench.collection.happen([(key, PaidElsewhere("cash"))])
        elif how == "void":
            await shop.bench.owe(shop.ridden, 3, -EXTRA)
        await shop.rounds(12, 10 * MINUTE)
        await shop.rounds(2, DAY)
        wanted = {
            "cash": ("settled_twice", EXTRA, EXTRA),
            "void": ("settled", EXTRA, EXTRA),
            None: ("settled", EXTRA, 0),
        }
        assert await shop.stands(key) == wanted[how]


async def test_what_he_pays_of_a_written_off_or_suspended_debit_under_a_further_number_is_found(
    database_url: str, tmp_path: Path
) -> None:
    async with riders(database_url, tmp_path) as shop:
        key = await shop.owing()
        await shop.lapsed(key)
        given = await shop.given(key)
        await shop.rounds(1)
        await shop.bench.collection.happen([(key, Suspended("the rider is being heard"))])
        assert await shop.opens(given) == OK
        await shop.rounds(10, 10 * MINUTE)
        assert await shop.stands(key) == ("settled", EXTRA, 0)
    async with riders(database_url, tmp_path) as shop:
        key = await shop.owing()
        await shop.lapsed(key)
        await shop.rounds(210, DAY)
        assert (await shop.one(key))["state"] == "written_off"
        given = await shop.given(key)
        assert (await shop.begun(given))[-1] == ("_B", "declined")
        await shop.rounds(3, 10 * MINUTE)
        assert await shop.opens(given) == OK
        await shop.rounds(10, 10 * MINUTE)
        assert await shop.stands(key) == ("settled", EXTRA, 0)
