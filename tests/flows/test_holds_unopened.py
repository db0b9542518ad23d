"""Strings of Alipay's freezes that are opened after their hold was given up: nothing stays frozen.

The books of the simulator's face are the oracle; what is told reaches us only where a test says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alipay_peer import Merchant, merchant_at
from collecting_bench import only
from rider_world import World, world
from sandbox_peer import Peer, peer

from service.adapters.postgres.unopened import UnopenedStore
from service.billing.agreements.standing import HoldStatus
from service.billing.outcomes import SignString, Unknown
from service.flows.holds import Holds

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
OPENED, GONE = "9000", "4000"


class Deposits:
    """A world whose account freezes at the simulator's Alipay."""

    def __init__(self, it: World, simulator: Peer, shop: Merchant) -> None:
        self.it = it
        self.simulator = simulator
        self.shop = shop

    async def asked(self, session_id: str = "s1") -> SignString:
        """What a rider is given to confirm."""
        reply = await self.it.ask(session_id)
        assert isinstance(reply.action, SignString), reply
        return reply.action

    async def given_up(self, session_id: str = "s1") -> SignString:
        """A string whose hold is given up, unopened."""
        string = await self.asked(session_id)
        await self.go(31 * MINUTE)
        assert await self.it.state(session_id) == "released"
        return string

    async def go(self, by: timedelta) -> None:
        """Time at both ends, then the rounds of holds."""
        self.it.pass_time(by)
        await self.shop.at(self.it.now().isoformat())
        for _ in range(3):
            await self.it.holds.resolve_round(self.it.account_no)
            await self.it.holds.release_round(self.it.account_no)

    async def left(self) -> list[str]:
        """Keys that are still looked for."""
        rows = await self.it.connection.fetch(
            "SELECT provider_key FROM hold_unopened WHERE account_no = $1", self.it.account_no
        )
        return [row["provider_key"] for row in rows]

    async def frozen(self) -> int:
        """How many freezes stand in the face's books."""
        books = await self.simulator.books()
        return int(books["holds"].get("open", 0))


@pytest.fixture
async def deposits(database_url: str, tmp_path: Path) -> AsyncIterator[Deposits]:
    async with (
        world(database_url, hold_needed=True, hold_confirmed_by_rider=True) as it,
        peer() as simulator,
        merchant_at(simulator, "preauth", "shop", tmp_path) as shop,
    ):
        await it.sign()
        found = Deposits(it, simulator, shop)
        it.holds = Holds(it.database, only(shop.provider), it.now, it.machine_now)
        await shop.at(it.now().isoformat())
        await shop.wallet("rider", 1_000_000)
        yield found


@pytest.mark.parametrize("later", [MINUTE, 2 * HOUR, 3 * DAY, 40 * DAY])
async def test_what_is_frozen_after_its_hold_was_given_up_is_free_again_though_nobody_tells(
    deposits: Deposits, later: timedelta
) -> None:
    """It stayed frozen, and no list of ours named it."""
    string = await deposits.given_up()
    for _ in range(4):
        await deposits.go(later / 4)
    assert await deposits.shop.opens(string, "rider") == OPENED
    assert await deposits.frozen() == 1
    await deposits.go(later + 5 * MINUTE)
    assert (await deposits.frozen(), await deposits.left()) == (0, [])
    assert await deposits.shop.opens(string, "rider") == GONE, "its number is used up"
    assert (await deposits.it.ask("s1")).status == "ended"
    assert await deposits.it.facts("s1") == ["hold.released"]


@pytest.mark.parametrize("told", [HoldStatus("open", "2026A", 100), Unknown("Alipay says it has changed")])
async def test_news_of_it_frees_it_at_once(deposits: Deposits, told: Any) -> None:
    string = await deposits.given_up()
    await deposits.go(5 * DAY)
    assert await deposits.shop.opens(string, "rider") == OPENED
    [key] = await deposits.left()
    assert await deposits.it.holds.noticed(deposits.it.account_no, key, told)
    await deposits.go(timedelta(seconds=1))
    assert (await deposits.frozen(), await deposits.left()) == (0, [])
    assert not await deposits.it.holds.noticed(deposits.it.account_no, key, told)


async def test_news_that_comes_while_it_is_looked_for_is_not_lost(deposits: Deposits) -> None:
    """Whoever looks for it asked before it was opened, and would leave it for as long again."""
    await deposits.given_up()
    [key] = await deposits.left()
    await deposits.go(40 * DAY)
    now, machine_at, account_no = deposits.it.now() + 90 * DAY, deposits.it.machine_now(), deposits.it.account_no
    async with deposits.it.database.transaction(UnopenedStore) as store:
        [taken] = await store.claim_unopened(account_no, now, machine_at, machine_at + MINUTE, 9)
        assert await store.wake_unopened(key, account_no, now)
        await store.unopened_later(taken, now + 130 * DAY)
        assert [one.provider_key for one in await store.claim_unopened(account_no, now, machine_at, machine_at, 9)] == [
            key
        ]


async def test_news_that_its_provider_does_not_bear_out_yet_is_asked_about_again(deposits: Deposits) -> None:
    string = await deposits.given_up()
    [key] = await deposits.left()
    await deposits.simulator.script("query_lag", on=key, op="hold.get", seconds=3600)
    assert await deposits.shop.opens(string, "rider") == OPENED
    assert await deposits.it.holds.noticed(deposits.it.account_no, key, HoldStatus("open", "2026A", 100))
    await deposits.go(MINUTE)
    await deposits.simulator.call("DELETE", "/script")
    await deposits.go(5 * MINUTE)
    assert (await deposits.frozen(), await deposits.left()) == (0, [])


@pytest.mark.parametrize("fault", ["lost", "drop", "error_before", "error_after", "html"])
async def test_a_call_that_frees_it_and_is_not_answered_is_made_again(deposits: Deposits, fault: str) -> None:
    string = await deposits.given_up()
    assert await deposits.shop.opens(string, "rider") == OPENED
    [key] = await deposits.left()
    await deposits.simulator.script(fault, on=key, times=1)
    for _ in range(4):
        await deposits.go(HOUR)
    assert (await deposits.frozen(), await deposits.left()) == (0, [])


async def test_one_that_he_only_looks_at_is_closed_and_cannot_be_confirmed(deposits: Deposits) -> None:
    string = await deposits.given_up()
    assert await deposits.shop.opens(string, "rider", answer="look") == "6001"
    await deposits.go(5 * MINUTE)
    assert (await deposits.frozen(), await deposits.left()) == (0, [])
    assert await deposits.shop.opens(string, "rider") == GONE


async def test_nobody_is_asked_for_ever_about_what_is_never_opened(deposits: Deposits) -> None:
    await deposits.given_up()
    looked = 0
    due = "SELECT due_at FROM hold_unopened WHERE account_no = $1"
    begun_at = deposits.it.now()
    while (due_at := await deposits.it.connection.fetchval(due, deposits.it.account_no)) < begun_at + 365 * DAY:
        await deposits.go(max(due_at - deposits.it.now(), timedelta()))
        looked += 1
    assert 10 < looked < 20
    assert await deposits.frozen() == 0


async def test_a_process_that_dies_while_it_looks_leaves_it_to_the_next(deposits: Deposits) -> None:
    string = await deposits.given_up()
    assert await deposits.shop.opens(string, "rider") == OPENED
    dead = "UPDATE hold_unopened SET due_at = $1, lease_until = $2 WHERE account_no = $3"
    leased = deposits.it.machine_now() + 90 * timedelta(seconds=1)
    await deposits.it.connection.execute(dead, deposits.it.now(), leased, deposits.it.account_no)
    await deposits.go(timedelta(seconds=1))
    assert await deposits.frozen() == 1
    await deposits.go(timedelta(seconds=1))
    assert await deposits.frozen() == 0


async def test_a_ride_that_began_after_all_has_a_freeze_of_its_own_and_the_first_one_is_freed(
    deposits: Deposits,
) -> None:
    """Its debit asks for another number: beside it, the old string would have frozen the cap as well."""
    string = await deposits.given_up()
    assert await deposits.shop.opens(string, "rider") == OPENED
    another = (
        "UPDATE hold SET state = 'requested', ordinal = 1, provider_key = 'SECOND', due_at = $1 WHERE account_no = $2"
    )
    await deposits.it.connection.execute(another, deposits.it.now(), deposits.it.account_no)
    await deposits.it.ride("s1", "open")
    await deposits.go(timedelta(seconds=1))
    again = (await deposits.it.holds.get(deposits.it.operator_no, "s1")).action
    assert await deposits.shop.opens(again, "rider") == OPENED
    assert await deposits.frozen() == 2
    await deposits.go(6 * MINUTE)
    assert (await deposits.it.state("s1"), await deposits.frozen(), await deposits.left()) == ("open", 1, [])
