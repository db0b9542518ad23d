"""Rides without a hold where the rider confirms each one: what they owe is frozen, and no more than that is debited."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from alipay_peer import merchant_at
from builders import Ride
from collecting_bench import Bench, assert_books_agree, only, open_bench
from msgspec.structs import replace
from sandbox_peer import peer

from service.adapters.postgres.collection import CollectionStore
from service.adapters.providers.port import Provider
from service.billing.agreements.standing import HoldStatus
from service.billing.capabilities import Capabilities
from service.billing.outcomes import OpenUrl, SignString
from service.flows.collection import Collection
from service.flows.holds import Holds

CONFIRMED = Capabilities(
    hold_needed=True, hold_confirmed_by_rider=True, further_debit=False, new_key_after_decline=False
)
PENDING = HoldStatus("pending", action=OpenUrl("https://confirm.invalid"))
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url, CONFIRMED) as it:
        it.provider.next_hold = PENDING
        yield it


def holds_of(bench: Bench, provider: Provider | None = None) -> Holds:
    return Holds(bench.database, only(provider or bench.provider), lambda: bench.now, lambda: bench.machine)


async def go_on(bench: Bench, rounds: int = 4, provider: Provider | None = None) -> None:
    """Rounds of holds and debits, and minutes."""
    holds = holds_of(bench, provider)
    for _ in range(rounds):
        await holds.resolve_round(bench.account_no)
        await holds.release_round(bench.account_no)
        await bench.collection.submit_round(bench.account_no)
        bench.pass_time(MINUTE * 6)


def confirms(bench: Bench) -> None:
    """Riders confirm what they are shown."""
    opened = HoldStatus("open", "hold-ref", 100_000)
    bench.provider.holds = {key: opened if hold == PENDING else hold for key, hold in bench.provider.holds.items()}


async def hold_of(bench: Bench, ride: Ride) -> tuple[str, int, int]:
    """State, ordinal and cap."""
    async with bench.database.reading(CollectionStore) as store:
        row = await store.connection.fetchrow(
            "SELECT state, ordinal, cap_minor FROM hold WHERE session_id = $1 AND account_no = $2",
            ride.session_id,
            bench.account_no,
        )
    assert row is not None
    return row["state"], row["ordinal"], row["cap_minor"]


async def test_what_it_owes_is_frozen_within_the_caps(bench: Bench) -> None:
    riders = [(300, None, 300), (300, 500, 300), (300, 100, 100), (150_000, None, 100_000)]
    rides = [await bench.ride(await bench.party(cap_minor=agreed), owed) for owed, agreed, _ in riders]
    await go_on(bench)
    assert [await hold_of(bench, ride) for ride in rides] == [("requested", 0, cap) for _, _, cap in riders]
    confirms(bench)
    await go_on(bench)
    for ride, (owed, _, cap) in zip(rides, riders, strict=True):
        left = [("needs_rider", owed - cap, 0)] if owed > cap else []
        assert await bench.states(ride) == [("settled", cap, cap), *left]
    await assert_books_agree(bench)


@pytest.mark.parametrize("when", ["asked for", "shown", "frozen", "settled"])
async def test_what_comes_to_be_owed_on_top_of_a_freeze_is_his_to_pay(bench: Bench, when: str) -> None:
    """A freeze can't be raised, and pays one debit: the ride's debit is never more than what he has confirmed."""
    ride = await bench.ride(await bench.party(), 300)
    await bench.collection.submit_round(bench.account_no)
    if when != "asked for":
        await go_on(bench, 2)
    if when in ("frozen", "settled"):
        confirms(bench)
        await go_on(bench, 1 if when == "frozen" else 4)
    states = {"asked for": "new", "settled": "settled"}
    [(state, amount, _)] = await bench.states(ride)
    assert (state, amount) == (states.get(when, state), 300)
    await bench.owe(ride, 2, 200)
    assert [(state, amount) for state, amount, _ in await bench.states(ride)] == [(state, 300), ("needs_rider", 200)]
    await go_on(bench)
    confirms(bench)
    await go_on(bench)
    assert await bench.states(ride) == [("settled", 300, 300), ("needs_rider", 200, 0)]
    assert (await hold_of(bench, ride))[2] == 300
    given = await bench.collection.ask_payment((ride.ride_no, 2))
    bench.provider.rider_pays(given.provider_key)
    await bench.settle_down(2)
    assert await bench.states(ride) == [("settled", 300, 300), ("settled", 200, 200)]
    await assert_books_agree(bench)


@pytest.mark.parametrize("less", [100, 300])
async def test_what_is_owed_no_longer_of_a_freeze_is_not_debited(bench: Bench, less: int) -> None:
    """And what is owed again, up to what he is asked to confirm, is."""
    ride = await bench.ride(await bench.party(), 300)
    await go_on(bench, 2)
    await bench.owe(ride, 2, -less)
    state = "needs_rider" if less < 300 else "cancelled"
    assert await bench.states(ride) == [(state, 300 - less or 300, 0)]
    if less < 300:
        await bench.owe(ride, 3, 50)
        confirms(bench)
    await go_on(bench, 4)
    assert await bench.states(ride) == ([("settled", 250, 250)] if less < 300 else [("cancelled", 300, 0)])
    assert (await hold_of(bench, ride))[0] == ("completed" if less < 300 else "released")
    await assert_books_agree(bench)


async def test_who_lets_a_freeze_go_by_is_asked_for_what_he_owes_then(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    await go_on(bench, 2)
    assert await bench.states(ride) == [("needs_rider", 300, 0)]
    bench.provider.holds = dict.fromkeys(bench.provider.holds, HoldStatus("expired"))
    await bench.holder().resolve_round(bench.account_no)
    await bench.owe(ride, 2, 200)
    await go_on(bench, 3)
    [debit] = await bench.debits(ride)
    assert (debit["state"], debit["amount_minor"], debit["action"]) == ("needs_rider", 500, None)
    assert await hold_of(bench, ride) == ("expired", 0, 300)
    shown = await bench.collection.ask_payment((ride.ride_no, 1))
    assert (shown.state, shown.amount_minor, shown.action) == ("needs_rider", 500, PENDING.action)
    assert await hold_of(bench, ride) == ("requested", 1, 500)
    confirms(bench)
    await go_on(bench, 3)
    assert await bench.states(ride) == [("settled", 500, 500)]
    await assert_books_agree(bench)


async def test_a_further_debit_gets_a_freeze_of_its_own_once_the_first_is_over(bench: Bench) -> None:
    """Where the agreement allows one: no real provider whose holds the rider confirms does."""
    bench.provider.capabilities = replace(CONFIRMED, further_debit=True)
    ride = await bench.ride(await bench.party(), 300)
    await go_on(bench, 2)
    confirms(bench)
    await go_on(bench)
    assert await hold_of(bench, ride) == ("completed", 0, 300)
    await bench.owe(ride, 2, 200)
    await go_on(bench, 2)
    assert [state for state, _, _ in await bench.states(ride)] == ["settled", "needs_rider"]
    assert await hold_of(bench, ride) == ("requested", 1, 200)
    confirms(bench)
    await go_on(bench)
    assert await bench.states(ride) == [("settled", 300, 300), ("settled", 200, 200)]
    await assert_books_agree(bench)


async def test_at_alipay_the_rider_confirms_a_freeze_of_what_the_ride_cost(database_url: str, tmp_path: Path) -> None:
    """The simulator's gateway and its books: 3.00 are frozen and paid, 2.00 more he pays himself."""
    async with (
        open_bench(database_url) as bench,
        peer() as simulator,
        merchant_at(simulator, "preauth", "shop", tmp_path) as shop,
    ):
        opened: dict[int, Provider] = {bench.account_no: shop.provider}
        bench.collection = Collection(bench.database, opened, lambda: bench.now, lambda: bench.machine)
        await shop.at(bench.now.isoformat())
        await shop.wallet("ann", 10_000)
        ride = await bench.ride(await bench.party(), 300)
        await go_on(bench, 2, shop.provider)
        shown = await bench.collection.ask_payment((ride.ride_no, 1))
        assert isinstance(shown.action, SignString) and "%223.00%22" in shown.action.order_string
        assert await shop.opens(shown.action, "ann") == "9000"
        await go_on(bench, 3, shop.provider)
        assert await bench.states(ride) == [("settled", 300, 300)]
        assert await hold_of(bench, ride) == ("completed", 0, 300)
        await bench.owe(ride, 2, 200)
        more = await bench.collection.ask_payment((ride.ride_no, 2))
        await shop.at((bench.now + timedelta(hours=1)).isoformat())
        assert await shop.opens(more.action, "ann") == "4000", "something else may be tried from then on"
        await shop.at(bench.now.isoformat())
        assert await shop.opens(more.action, "ann") == "9000"
        await go_on(bench, 2, shop.provider)
        assert await bench.states(ride) == [("settled", 300, 300), ("settled", 200, 200)]
        assert await bench.balance(4, bench.account_no) == 500
        await simulator.books()
