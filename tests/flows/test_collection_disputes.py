"""Disputes as a provider tells them, by his number: a second one, a reversed end, and his fee, on the real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Literal

import msgspec
import pytest
from builders import Ride
from collecting_bench import Bench, assert_books_agree, open_bench
from fakes import Fault

from service.adapters.providers.port import DisputeStatus
from service.billing.capabilities import Capabilities
from service.billing.debits.events import DisputeClosed, DisputeOpened

CLEARING, FEES, CHARGEBACKS = 4, 5, 10
State = Literal["opened", "won", "lost"]


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url, Capabilities(dispute="chargeback")) as it:
        yield it


class Card:
    """A ride of 500 that was paid, and what its provider tells of disputes."""

    def __init__(self, bench: Bench, ride: Ride, ref: str) -> None:
        self.bench = bench
        self.ride = ride
        self.ref = ref

    async def told(self, number: str, state: State, minute: int, fee_minor: int | None = None) -> None:
        at = self.bench.now + timedelta(minutes=minute)
        status = DisputeStatus(self.ref, "chargeback", state, 500, "CNY", number, fee_minor, "CNY", at)
        assert await self.bench.collection.disputed(self.bench.account_no, status)

    async def stands(self) -> tuple[str, int]:
        """How the debit's disputes stand, and what banks have of it."""
        [debit] = await self.bench.debits(self.ride)
        return debit["dispute"], debit["disputed_minor"]

    async def books(self) -> tuple[int, int, int]:
        """What the provider holds, his fees, what banks took."""
        bench, operator_no = self.bench, self.ride.party.operator_no
        held, fees = await bench.balance(CLEARING, bench.account_no), await bench.balance(FEES, bench.account_no)
        return held, fees, await bench.balance(CHARGEBACKS, operator_no)


async def paid(bench: Bench) -> Card:
    ride = await bench.ride(await bench.party(), 500)
    await bench.settle_down(1)
    return Card(bench, ride, (await bench.debits(ride))[0]["provider_ref"])


async def test_a_second_chargeback_is_booked_and_late_news_of_the_first_is_not(bench: Bench) -> None:
    card = await paid(bench)
    before = await card.books()
    await card.told("D1", "opened", 0)
    await card.told("D1", "won", 1)
    await card.told("D1", "opened", 0)
    assert (await card.stands(), await card.books()) == (("won", 0), before)
    await card.told("D2", "opened", 2)
    await card.told("D1", "opened", 0)
    await card.told("D1", "won", 1)
    assert await card.stands() == ("chargeback", 500)
    assert await card.books() == (before[0] - 500, before[1], before[2] + 500)
    await card.told("D2", "won", 3)
    assert (await card.stands(), await card.books()) == (("won", 0), before)
    await assert_books_agree(bench)


async def test_what_the_first_chargeback_gives_back_the_second_takes_though_it_was_told_before(bench: Bench) -> None:
    card = await paid(bench)
    held, fees, taken = await card.books()
    await card.told("D1", "opened", 0)
    await card.told("D2", "opened", 2)
    await card.told("D1", "won", 1)
    await card.told("D2", "lost", 3)
    assert (await card.stands(), await card.books()) == (("lost", 500), (held - 500, fees, taken + 500))
    await bench.owe(card.ride, 2, -500)
    await bench.settle_down(2)
    assert bench.provider.given_back == {}, "the bank has given it back"


@pytest.mark.parametrize("fault", [None, "short", "lost_before"])
@pytest.mark.parametrize("result", ["won", "lost"])
async def test_a_refund_that_is_not_there_yet_waits_while_a_bank_takes_the_money(
    bench: Bench, fault: Fault | None, result: State
) -> None:
    card = await paid(bench)
    await bench.owe(card.ride, 2, -100)
    if fault is not None:
        bench.provider.faults["*"] = [fault]
        await bench.collection.submit_round(bench.account_no)
    await card.told("D1", "opened", 0)
    for _ in range(30):
        await bench.settle_down(1, timedelta(minutes=30))
    assert bench.provider.given_back == {}
    await card.told("D1", result, 1)
    for _ in range(30):
        await bench.settle_down(1, timedelta(minutes=30))
    given = sum(bench.provider.given_back.values())
    ends = await bench.connection.fetch("SELECT state, code FROM refund WHERE ride_no = $1", card.ride.ride_no)
    assert (given, [tuple(row) for row in ends]) == (
        (100, [("succeeded", None)]) if result == "won" else (0, [("failed", "chargeback")])
    )


async def test_an_appeal_that_is_won_brings_the_money_back_and_what_was_owed_back_is_given(bench: Bench) -> None:
    """Stripe: lost, then charge.dispute.funds_reinstated and closed as won."""
    card = await paid(bench)
    before = await card.books()
    await card.told("D1", "opened", 0)
    await bench.owe(card.ride, 2, -100)
    await card.told("D1", "lost", 1)
    await bench.settle_down(2)
    assert (await card.stands(), bench.provider.given_back) == (("lost", 500), {})
    await card.told("D1", "opened", 2)
    await card.told("D1", "won", 3)
    await bench.settle_down(2)
    assert (await card.stands(), sum(bench.provider.given_back.values())) == (("won", 0), 100)
    assert await card.books() == (before[0] - 100, before[1], before[2])
    await assert_books_agree(bench)


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
async def test_funds_that_are_withdrawn_once_more_after_won_are_gone(bench: Bench, order: tuple[int, ...]) -> None:
    card = await paid(bench)
    before = await card.books()
    ends: dict[int, State] = {1: "won", 2: "lost"}
    for minute in (*order, 1):
        await card.told("D1", ends[minute], minute)
    assert await card.stands() == ("lost", 500)
    assert await card.books() == (before[0] - 500, before[1], before[2] + 500)


async def test_a_disputes_fee_is_posted_once_and_back_where_it_is_given_back(bench: Bench) -> None:
    card = await paid(bench)
    held, fees, taken = await card.books()
    for minute in (0, 0, 1):
        await card.told("D1", "opened", minute, 15)
    assert await card.books() == (held - 500 - 15, fees + 15, taken + 500)
    await card.told("D1", "won", 2, 0)
    await card.told("D1", "opened", 1, 15)
    assert await card.books() == (held, fees, taken)
    await card.told("D2", "opened", 3, 15)
    await card.told("D2", "lost", 4, 15)
    assert await card.books() == (held - 500 - 15, fees + 15, taken + 500)


async def test_each_dispute_of_a_debit_that_is_not_known_yet_is_kept(bench: Bench) -> None:
    bench.provider.faults["*"] = ["lost_after"]
    ride = await bench.ride(await bench.party(), 500)
    await bench.collection.submit_round(bench.account_no)
    [row] = await bench.debits(ride)
    card = Card(bench, ride, f"ref-{row['provider_key']}")
    now = bench.now
    news: list[tuple[str, State, int]] = [("D1", "won", 1), ("D1", "lost", 0), ("D2", "opened", 2)]
    for number, state, minute in news:
        at = now + timedelta(minutes=minute)
        status = DisputeStatus(card.ref, "chargeback", state, 500, "CNY", number, 15, "CNY", at)
        assert not await bench.collection.disputed(bench.account_no, status)
    bench.pass_time(timedelta(hours=5))
    await bench.settle_down(3)
    bench.pass_time(timedelta(hours=5))
    await bench.collection.policy_round(bench.account_no)
    assert await card.stands() == ("chargeback", 500)
    [debit] = await bench.debits(ride)
    assert {one["ref"]: one["state"] for one in msgspec.json.decode(debit["disputes"])} == {"D1": "won", "D2": "opened"}
    assert await bench.balance(FEES, bench.account_no) == 30


async def test_a_debits_life_says_how_its_disputes_ended_and_about_how_much(bench: Bench) -> None:
    """It said "dispute opened" and "dispute closed"."""
    card = await paid(bench)
    await card.told("D1", "opened", 0)
    await card.told("D2", "lost", 1)
    await card.told("D1", "won", 2)
    for what in (DisputeOpened("complaint"), DisputeClosed("resolved")):
        await bench.collection.happen([((card.ride.ride_no, 1), what)])
    assert [why for why in await bench.whys(card.ride) if why.startswith("dispute")] == [
        "dispute opened: chargeback, about 5.00 CNY",
        "dispute opened: chargeback, about 5.00 CNY",
        "dispute closed: chargeback lost, about 5.00 CNY",
        "dispute closed: chargeback won, about 5.00 CNY",
        "dispute opened: complaint",
        "dispute closed: complaint resolved",
    ]
