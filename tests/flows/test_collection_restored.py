"""Debits on a database that is the one of an earlier instant: what its rider paid in the lost time is taken in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import cast

import asyncpg
import pytest
from builders import Ride
from collecting_bench import Bench, assert_books_agree, open_bench

from service.adapters.providers.port import Provider
from service.billing.capabilities import Capabilities
from service.flows.collection.lost import Lost, NotAsked, lost_time
from service.flows.collection.restored import ask_after_restore

KINDS = {
    "new key": Capabilities(),
    "same key": Capabilities(new_key_after_decline=False, reduces_declined=True),
    "never closed": Capabilities(closes_unpaid=False),
}


@pytest.fixture(params=KINDS)
async def bench(database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with open_bench(database_url, KINDS[request.param]) as bench:
        yield bench
        await bench.connection.execute("UPDATE installation SET cluster_timeline = NULL, restored_at = NULL")
        await assert_books_agree(bench)


async def declined(bench: Bench) -> Ride:
    ride = await bench.ride(await bench.party(), 300)
    bench.provider.faults["*"] = ["short"]
    await bench.settle_down(1)
    return ride


async def to_approve(bench: Bench) -> Ride:
    ride = await bench.ride(await bench.party(cap_minor=100), 400)
    await bench.settle_down(1)
    return ride


async def written_off(bench: Bench) -> Ride:
    ride = await bench.ride(await bench.party(), 300)
    bench.provider.faults["*"] = ["short"] * 8
    await bench.settle_down(30, timedelta(hours=12))
    bench.pass_time(timedelta(days=200))
    for _ in range(3):
        await bench.collection.policy_round(bench.account_no)
    assert await bench.states(ride) == [("written_off", 300, 0)]
    return ride


WAITING = {"retry_wait": declined, "needs_rider": to_approve, "written_off": written_off}


async def restore(bench: Bench) -> None:
    """The database is the one of an earlier instant from now on."""
    await bench.connection.execute("UPDATE installation SET cluster_timeline = 'another/00000001'")
    assert await ask_after_restore(bench.database, bench.now)


async def test_all_is_marked_in_portions_before_it_is_remembered_that_it_was(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one transaction half a million debits and agreements met its time limit, and nobody collected any more."""
    monkeypatch.setattr("service.flows.collection.restored.PORTION", 2)
    rides = [(await declined(bench)).ride_no for _ in range(5)]
    marked = "SELECT count(*) FROM debit WHERE verify = 'present' AND ride_no = ANY($1)"
    due = "SELECT count(*) FROM agreement a JOIN debit USING (agreement_no) WHERE ride_no = ANY($1) AND a.due_at = $2"
    await bench.connection.execute("UPDATE installation SET cluster_timeline = 'another/00000001'")
    await bench.connection.execute(
        "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'cut'; END $$;"
        " CREATE TRIGGER cut BEFORE UPDATE ON agreement FOR EACH STATEMENT EXECUTE FUNCTION cut()"
    )
    with pytest.raises(asyncpg.RaiseError, match="cut"):
        await ask_after_restore(bench.database, bench.now)
    assert await bench.connection.fetchval(marked, rides) == 5, "what was marked stays"
    await bench.connection.execute("DROP TRIGGER cut ON agreement; DROP FUNCTION cut()")
    told = await asyncio.gather(*(ask_after_restore(bench.database, bench.now) for _ in range(3)))
    assert any(told), "who comes when all is marked finds nothing to do"
    assert await bench.connection.fetchval(due, rides, bench.now) == 5
    assert not await ask_after_restore(bench.database, bench.now)


@pytest.mark.parametrize("state", WAITING)
async def test_what_its_rider_paid_in_the_lost_time_is_not_taken_again(bench: Bench, state: str) -> None:
    ride = await WAITING[state](bench)
    debit = (await bench.debits(ride))[-1]
    assert debit["state"] == state
    taken = dict(bench.provider.taken)
    bench.provider.taken[debit["provider_key"]] = 300  # Nobody here knows that he was given it.
    await restore(bench)
    await bench.settle_down(6, timedelta(hours=12))
    assert (await bench.states(ride))[-1] == ("settled", 300, 300)
    assert bench.provider.taken == taken | {debit["provider_key"]: 300}


@pytest.mark.parametrize("state", ["needs_rider", "written_off"])
async def test_what_he_did_not_pay_is_as_it_was_and_not_asked_about_for_ever(bench: Bench, state: str) -> None:
    ride = await WAITING[state](bench)
    before = await bench.states(ride)
    await restore(bench)
    bench.provider.calls.clear()
    await bench.settle_down(20, timedelta(days=2))
    assert await bench.states(ride) == before
    if bench.provider.capabilities.new_key_after_decline:
        assert [what for what, _ in bench.provider.calls] == ["get_debit"]


async def test_accounts_that_could_not_be_asked_are_named(bench: Bench) -> None:
    first, second = await declined(bench), await declined(bench)
    told = [one async for one in lost_time(bench.database, {}, first.ride_no)]
    asked = await bench.connection.fetchrow(
        "SELECT o.operator_id, m.account_id FROM merchant_account m JOIN operator o USING (operator_no)"
        " WHERE account_no = $1",
        bench.account_no,
    )
    assert asked is not None and second.ride_no > first.ride_no
    assert NotAsked(asked["operator_id"], asked["account_id"], 2) in told
    (debit,) = await bench.debits(first)
    bench.provider.taken[debit["provider_key"]] = 300
    providers = {bench.account_no: cast(Provider, bench.provider)}
    found = [one async for one in lost_time(bench.database, providers, first.ride_no) if isinstance(one, Lost)]
    assert [(one.session_id, one.what, one.told_minor) for one in found] == [(debit["session_id"], "taken", 300)]
    await bench.settle_down(1, timedelta())
    bench.provider.taken.clear()
