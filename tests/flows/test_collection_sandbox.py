"""Collection through the sandbox adapter against the simulator: its books are the oracle, its faults are real ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from builders import Party, Ride
from collecting_bench import Bench, open_bench
from sandbox_peer import Peer, peer, provider_at, sign

from service.adapters.providers.port import AgreementRef
from service.flows.collection import Collection

FAULTS = [
    *("drop", "lost", "error_before", "error_after", "throttle", "html", "truncated", "unknown_enum", "unknown_code"),
    *("decline", "later"),
]
KINDS: dict[str, dict[str, Any]] = {
    "card": {},
    "order": {"provider_retries": True, "new_key_after_decline": False, "further_debit": False},
    "able": {"reduces_pending": True, "reduces_declined": True},
    "resending": {"same_key_is_query": True, "same_key_window": timedelta(days=30)},
}


class Sandbox:
    """A bench whose provider is the simulator; `name` is the merchant account there."""

    def __init__(self, bench: Bench, simulator: Peer, name: str, agreement: AgreementRef) -> None:
        self.bench = bench
        self.peer = simulator
        self.name = name
        self.agreement = agreement

    async def party(self) -> Party:
        """A rider whose agreement the simulator knows."""
        party = await self.bench.party()
        await self.bench.connection.execute(
            "UPDATE agreement SET provider_key = $2, provider_ref = $3 WHERE agreement_no = $1",
            party.agreement_no,
            self.agreement.key,
            self.agreement.provider_ref,
        )
        return party

    async def pass_time(self, step: timedelta) -> None:
        """The provider's clock goes with ours, and it decides what has become due."""
        self.bench.pass_time(step)
        await self.peer.call("PUT", "/clock", {"now": self.bench.now.isoformat(), "speed": 0})

    async def settle_down(self) -> None:
        """A few minutes of questions, then some days of polls and retries."""
        for step in [timedelta(seconds=61)] * 6 + [timedelta(hours=9)] * 8:
            await self.bench.collection.submit_round(self.bench.account_no)
            await self.pass_time(step)

    async def taken(self, ride: Ride) -> int:
        """What the simulator took for a ride, by every key that was ever used for it, less what it gave back."""
        keys = await self.bench.connection.fetch(
            "SELECT DISTINCT provider_key FROM debit_transition WHERE ride_no = $1", ride.ride_no
        )
        lines = [await self.peer.debit(row["provider_key"]) for row in keys]
        return sum(line["paid_minor"] - line["refunded_minor"] for line in lines if line is not None)


@asynccontextmanager
async def sandbox(url: str, kind: str) -> AsyncIterator[Sandbox]:
    name = f"shop-{kind}"
    async with open_bench(url) as bench, peer() as simulator, provider_at(simulator, name, **KINDS[kind]) as provider:
        providers = {bench.account_no: provider}
        bench.collection = Collection(bench.database, providers, lambda: bench.now, lambda: bench.machine)
        made = Sandbox(bench, simulator, name, await sign(simulator, provider, f"agreement-{kind}"))
        await made.pass_time(timedelta())
        yield made


@pytest.fixture(params=KINDS)
async def it(database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    async with sandbox(database_url, request.param) as made:
        yield made


@pytest.mark.parametrize("fault", FAULTS)
async def test_whatever_a_provider_does_a_ride_is_paid_once(it: Sandbox, fault: str) -> None:
    ride = await it.bench.ride(await it.party(), 300)
    await it.peer.script(fault, op="debit.take", seconds=600.0 if fault == "later" else 1.0)
    await it.settle_down()
    assert await it.bench.states(ride) == [("settled", 300, 300)], await it.bench.transitions(ride)
    assert await it.taken(ride) == 300
    await it.peer.books()


@pytest.mark.parametrize("fault", ["drop", "lost", "error_after", "later", "throttle"])
async def test_whatever_a_provider_does_a_refund_is_given_once(it: Sandbox, fault: str) -> None:
    ride = await it.bench.ride(await it.party(), 300)
    await it.settle_down()
    await it.bench.owe(ride, 2, -120)
    await it.peer.script(fault, op="refund.make", seconds=600.0 if fault == "later" else 1.0)
    await it.settle_down()
    [debit] = await it.bench.debits(ride)
    assert (debit["state"], debit["paid_minor"], debit["refunded_minor"]) == ("settled", 300, 120)
    assert await it.taken(ride) == 180


async def test_a_void_while_pending_leaves_nothing_taken(it: Sandbox) -> None:
    ride = await it.bench.ride(await it.party(), 300)
    await it.peer.script("later", seconds=3600.0)
    await it.bench.collection.submit_round(it.bench.account_no)
    await it.bench.owe(ride, 2, -300)
    await it.settle_down()
    assert [state for state, _, _ in await it.bench.states(ride)] == ["cancelled"]
    assert await it.taken(ride) == 0


async def test_less_while_pending_is_lowered_where_the_provider_can(database_url: str) -> None:
    async with sandbox(database_url, "able") as it:
        ride = await it.bench.ride(await it.party(), 300)
        await it.peer.script("later", seconds=3600.0)
        await it.bench.collection.submit_round(it.bench.account_no)
        await it.bench.owe(ride, 2, -100)
        await it.settle_down()
        assert await it.bench.states(ride) == [("settled", 200, 200)]
        assert await it.taken(ride) == 200


async def test_a_cap_that_was_lowered_behind_our_back_cuts_the_debit_and_the_rest_is_the_riders(
    database_url: str,
) -> None:
    async with sandbox(database_url, "card") as it:
        party = await it.party()
        limit = {"account_id": it.name, "key": it.agreement.key, "cap_minor": 200}
        await it.peer.call("POST", "/agreements", limit)
        ride = await it.bench.ride(party, 300)
        for _ in range(4):
            await it.bench.collection.submit_round(it.bench.account_no)
            await it.pass_time(timedelta(seconds=61))
        assert await it.bench.states(ride) == [("settled", 200, 200), ("needs_rider", 100, 0)]
        assert await it.taken(ride) == 200
        await it.peer.books()
