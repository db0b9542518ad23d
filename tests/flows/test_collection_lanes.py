"""Claims and saves go on while calls are under way: a call that hangs, or is not wanted now, holds up no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import msgspec
import pytest
from aiohttp import web
from builders import Ride
from collecting_bench import Bench, open_bench
from fakes import FakeProvider, Fault

from service.adapters.providers import open_provider
from service.adapters.providers.port import MerchantAccount, Provider
from service.flows.collection import Collection
from service.flows.collection.lanes import AHEAD

TURNS = 200


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url) as bench:
        yield bench


async def turn_until(collection: Collection, account_no: int, there: Callable[[], bool]) -> None:
    """Turns of the account's lane, each of which waits a moment for answers, until what must come has come."""
    for _ in range(TURNS):
        if there():
            return
        await collection.collect_round(account_no)
    raise AssertionError("it did not come about")


class GatedServer:
    """A provider that takes every debit at once, but hangs on those of `stuck_minor` until the gate opens."""

    def __init__(self, stuck_minor: int) -> None:
        self.stuck_minor = stuck_minor
        self.hanging: set[str] = set()
        self.paid: set[str] = set()
        self.gate = asyncio.Event()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = msgspec.json.decode(await request.read())
        if asked["amount_minor"] == self.stuck_minor:
            self.hanging.add(asked["key"])
            await self.gate.wait()
        self.paid.add(asked["key"])
        view = {"key": asked["key"], "ref": f"ref-{asked['key']}", "state": "paid", "currency": asked["currency"]}
        amounts = {"amount_minor": asked["amount_minor"], "paid_minor": asked["amount_minor"]}
        return web.Response(body=msgspec.json.encode(view | amounts), content_type="application/json")


@asynccontextmanager
async def gated_server(stuck_minor: int) -> AsyncIterator[tuple[GatedServer, str]]:
    server = GatedServer(stuck_minor)
    runner = web.ServerRunner(web.Server(server.answer, access_log=None), shutdown_timeout=0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield server, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        server.gate.set()
        await runner.cleanup()


async def state_of(bench: Bench, ride: Ride) -> Any:
    return (await bench.debits(ride))[0]["state"]


async def test_over_http_a_hanging_call_holds_up_neither_its_account_nor_another(database_url: str) -> None:
    async with gated_server(300) as (server, url), open_bench(database_url) as bench, open_bench(database_url) as other:
        providers: dict[int, Provider] = {
            at.account_no: open_provider(MerchantAccount(at.account_no, "main", "sandbox", url, {"api_key": "k"}))
            for at in (bench, other)
        }
        collection = Collection(bench.database, providers, lambda: bench.now, lambda: bench.machine, concurrency=2)
        party = await bench.party()
        stuck = await bench.ride(party, 300)
        await turn_until(collection, bench.account_no, lambda: len(server.hanging) == 1)
        later = [await bench.ride(party, 100 + number) for number in range(6)]
        elsewhere = await other.ride(await other.party(), 200)
        await turn_until(collection, bench.account_no, lambda: len(server.paid) == 6)
        await turn_until(collection, other.account_no, lambda: len(server.paid) == 7)
        await collection.end(other.account_no)
        assert await state_of(other, elsewhere) == "settled"
        assert await state_of(bench, stuck) == "submitting"
        server.gate.set()
        await collection.end(bench.account_no)
        assert [await state_of(bench, ride) for ride in [stuck, *later]] == ["settled"] * 7
        for provider in providers.values():
            await provider.close()


async def test_no_more_calls_than_allowed_are_under_way_and_no_more_claimed_than_can_wait(bench: Bench) -> None:
    party = await bench.party()
    for number in range(60):
        await bench.unplanned(party, 100 + number)
    while await bench.collection.plan_round():
        pass
    bench.provider.faults["*"] = ["slow"] * 60
    await turn_until(bench.collection, bench.account_no, lambda: len(bench.provider.calls) == 8)
    for _ in range(5):
        await bench.collection.collect_round(bench.account_no)
    assert len(bench.provider.calls) == 8, "the concurrency of the bench"
    submitting = "SELECT count(*) FROM debit WHERE account_no = $1 AND state = 'submitting'"
    assert await bench.connection.fetchval(submitting, bench.account_no) == 8 * (1 + AHEAD)
    bench.provider.gate.set()
    await turn_until(bench.collection, bench.account_no, lambda: len(bench.provider.taken) == 60)
    await bench.collection.end(bench.account_no)
    settled = "SELECT count(*) FROM debit WHERE account_no = $1 AND state = 'settled' AND lease_until IS NULL"
    assert await bench.connection.fetchval(settled, bench.account_no) == 60


async def test_what_waits_for_its_turn_at_the_end_is_not_called_and_is_due_at_once(bench: Bench) -> None:
    rides = [await bench.ride(await bench.party(), 100 + number) for number in range(20)]
    bench.provider.faults["*"] = ["slow"] * 8
    await turn_until(bench.collection, bench.account_no, lambda: len(bench.provider.calls) == 8)
    ending = asyncio.create_task(bench.collection.end(bench.account_no))
    bench.provider.gate.set()
    await ending
    assert len(bench.provider.calls) == 8
    assert await bench.collector().submit_round(bench.account_no) == 8, "another process goes on with them"
    await bench.settle_down(4)
    assert [await state_of(bench, ride) for ride in rides] == ["settled"] * 20
    assert len(bench.provider.calls) == len(bench.provider.taken) == 20


async def test_after_too_many_nothing_that_waits_is_called_and_no_key_changes(bench: Bench) -> None:
    rides = [await bench.ride(await bench.party(), 100 + number) for number in range(20)]
    bench.provider.faults["*"] = ["throttled"] * 8
    await turn_until(bench.collection, bench.account_no, lambda: len(bench.provider.calls) == 8)
    for _ in range(5):
        await bench.collection.collect_round(bench.account_no)
    assert len(bench.provider.calls) == 8, "the others were claimed, and not called"
    bench.pass_time(timedelta(seconds=31))
    await bench.settle_down(4)
    assert [await state_of(bench, ride) for ride in rides] == ["settled"] * 20
    assert len({key for _, key in bench.provider.calls}) == 20


@pytest.mark.parametrize(("said", "goes_on"), [("throttled", False), ("postponed", True)])
async def test_a_call_that_is_to_come_later_holds_up_no_other_of_its_account(
    bench: Bench, said: Fault, goes_on: bool
) -> None:
    """WeChat Pay's minute between two refunds of one payment silenced its whole account for a minute."""
    first = await bench.ride(await bench.party(), 300)
    bench.provider.faults["*"] = [said]
    await bench.collection.submit_round(bench.account_no)
    assert await state_of(bench, first) == "submitting"
    second = await bench.ride(await bench.party(), 200)
    await bench.collection.submit_round(bench.account_no)
    assert await state_of(bench, second) == ("settled" if goes_on else "new")
    bench.pass_time(timedelta(seconds=31))
    await bench.collection.submit_round(bench.account_no)
    assert [await state_of(bench, ride) for ride in (first, second)] == ["settled"] * 2
    assert len({key for _, key in bench.provider.calls}) == 2


async def test_a_claim_whose_lease_runs_out_before_its_turn_is_given_back(bench: Bench) -> None:
    rides = [await bench.ride(await bench.party(), 100 + number) for number in range(9)]
    bench.provider.faults["*"] = ["slow"] * 8
    await turn_until(bench.collection, bench.account_no, lambda: len(bench.provider.calls) == 8)
    bench.pass_time(timedelta(seconds=40))
    bench.provider.gate.set()
    await bench.collection.end(bench.account_no)
    assert len(bench.provider.calls) == 8
    await bench.settle_down(4)
    assert [await state_of(bench, ride) for ride in rides] == ["settled"] * 9


async def test_answers_that_could_not_be_saved_are_saved_later_and_asked_for_no_second_time(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    provider = FakeProvider(bench.account_no)
    provider.faults["*"] = ["slow"]
    providers = {bench.account_no: cast(Provider, provider)}
    collection = Collection(bench.database, providers, lambda: bench.now, lambda: bench.machine)
    await turn_until(collection, bench.account_no, lambda: len(provider.calls) == 1)
    provider.gate.set()
    blocker = bench.connection.transaction()
    await blocker.start()
    await bench.connection.execute("ALTER TABLE debit_transition RENAME TO away")
    await blocker.commit()
    with pytest.raises(Exception, match="debit_transition"):
        await turn_until(collection, bench.account_no, lambda: False)
    await bench.connection.execute("ALTER TABLE away RENAME TO debit_transition")
    await collection.end(bench.account_no)
    assert await state_of(bench, ride) == "settled"
    assert len(provider.calls) == 1


async def test_a_call_that_takes_too_long_is_unknown_and_its_late_answer_is_not_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.flows.collection.lanes.CALL_SECONDS", 0.0)
    ride = await bench.ride(await bench.party(), 300)
    bench.provider.faults["*"] = ["slow"]
    assert await bench.collection.submit_round(bench.account_no) == 1
    assert await state_of(bench, ride) == "unknown"
    monkeypatch.undo()
    bench.provider.gate.set()
    await bench.settle_down()
    assert await state_of(bench, ride) == "settled"
    assert list(bench.provider.taken.values()) == [300]
