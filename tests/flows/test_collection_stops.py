"""Stops by command and by themselves, questions after a restore, disputes that providers tell of."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Literal

import pytest
from builders import Party, Ride
from collecting_bench import Bench, open_bench
from hypothesis import given, settings
from hypothesis import strategies as st

from service.adapters.postgres.collection import CollectionStore
from service.adapters.postgres.stops import Standing, StopRow
from service.adapters.providers.port import DisputeStatus
from service.billing.capabilities import Capabilities
from service.billing.debits import RefundRefusedError
from service.billing.debits.dunning import Calendar
from service.billing.debits.events import DisputeOpened, RefundAsked
from service.billing.debits.unusual import Usual, limit_minor
from service.flows.collection.restored import ask_after_restore
from service.flows.stops import UnknownStopError, What, list_stops, resume, stop


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url, Capabilities(dispute="chargeback")) as bench:
        await bench.connection.execute("UPDATE stop SET resumed_at = stopped_at WHERE resumed_at IS NULL")
        await bench.connection.execute("UPDATE operator SET calendar = '{}'")
        yield bench
        await bench.connection.execute("UPDATE installation SET cluster_timeline = NULL, restored_at = NULL")
        await bench.connection.execute("UPDATE stop SET resumed_at = stopped_at WHERE resumed_at IS NULL")
        await bench.connection.execute("UPDATE operator SET calendar = '{}'")


async def standing(bench: Bench, operator_no: int) -> list[StopRow]:
    return await list_stops(bench.database, operator_no)


async def halt(
    bench: Bench, party: Party, what: What, account_id: str | None = None, tariff_id: str | None = None
) -> bool:
    said = partial(stop, bench.database, party.operator_no, what, reason="price × 100", by="ops", now=bench.now)
    return await said(account_id=account_id, tariff_id=tariff_id)


async def tariff_of(bench: Bench, party: Party) -> str:
    name = await bench.connection.fetchval("SELECT tariff_id FROM tariff WHERE tariff_no = $1", party.tariff_no)
    assert isinstance(name, str)
    return name


@pytest.mark.parametrize("scope", ["operator", "account", "tariff"])
async def test_what_is_stopped_waits_and_goes_on_when_resumed(bench: Bench, scope: str) -> None:
    party = await bench.party()
    ride = await bench.ride(party, 300)
    account_id = await bench.connection.fetchval(
        "SELECT account_id FROM merchant_account WHERE account_no = $1", bench.account_no
    )
    named = {
        "account_id": account_id if scope == "account" else None,
        "tariff_id": await tariff_of(bench, party) if scope == "tariff" else None,
    }
    for first in (True, False):
        assert await halt(bench, party, "debits", **named) is first
    await bench.settle_down(2)
    assert bench.provider.calls == []
    assert await bench.states(ride) == [("new", 300, 0)]
    [stands] = await standing(bench, party.operator_no)
    assert (stands.what, stands.account_id, stands.tariff_id, stands.reason, stands.stopped_by) == (
        "debits",
        named["account_id"],
        named["tariff_id"],
        "price × 100",
        "ops",
    )
    await resume(bench.database, party.operator_no, stands.stop_no, reason="checked", by="ops", now=bench.now)
    with pytest.raises(UnknownStopError):
        await resume(bench.database, party.operator_no, stands.stop_no, reason="twice", by="ops", now=bench.now)
    await bench.settle_down(1)
    assert await bench.states(ride) == [("settled", 300, 300)]


KINDS = [
    (state, doubted, lowering, payable, submitted, lease, tariff)
    for state in ("new", "submitting", "pending", "unknown", "retry_wait", "needs_rider", "settled", "written_off")
    for doubted, lowering, payable, submitted in itertools.product((False, True), repeat=4)
    for lease in (None, timedelta(seconds=-1), timedelta(seconds=1))
    for tariff in (None, 1, 2)
]
OF_EACH_KIND = """
INSERT INTO debit (ride_no, ordinal, slot, operator_no, agreement_no, account_no, session_key, session_id, currency,
  amount_minor, provider_key, state, doubted_minor, lowering_to, payable_until, submitted_at, lease_until, tariff_no,
  due_at, created_at, updated_at)
SELECT ride_no, $2, slot, operator_no, agreement_no, account_no, session_key, session_id, currency, amount_minor,
  provider_key || $2::smallint, $3, $4, $5, $6, $7, $8, $9, created_at, created_at, created_at
FROM debit WHERE ride_no = $1 AND ordinal = 1
"""


def asked(state: str, doubted: bool, lowering: bool, payable: bool, submitted: bool, leased: bool) -> bool:
    """Whether something must be asked about a debit that is due, so that a stop of debits doesn't stop it."""
    match state:
        case "new":
            return doubted
        case "submitting":
            return leased
        case "retry_wait":
            return doubted or lowering or payable
        case "needs_rider":
            return submitted or doubted
    return True


@pytest.mark.parametrize(("going_on", "stopped"), [(True, []), (False, []), (False, [0]), (True, [0]), (True, [0, 1])])
async def test_a_stop_stops_what_would_be_sent_and_nothing_else(
    bench: Bench, going_on: bool, stopped: list[int]
) -> None:
    parties = [await bench.party() for _ in range(2)]
    tariffs = [party.tariff_no for party in parties]
    ride, at = await bench.ride(parties[0], 300), bench.now
    rows, due = [], set()
    for ordinal, (state, doubted, lowering, payable, submitted, lease, tariff) in enumerate(KINDS, start=2):
        flags = [1 if doubted else None, 1 if lowering else None, at if payable else None, at if submitted else None]
        until, tariff_no = None if lease is None else at + lease, None if tariff is None else tariffs[tariff - 1]
        rows.append((ride.ride_no, ordinal, state, *flags, until, tariff_no))
        held = lease is not None and lease > timedelta(0)
        sent = going_on and (tariff is None or tariff - 1 not in stopped)
        if not held and (sent or asked(state, doubted, lowering, payable, submitted, lease is not None)):
            due.add(ordinal)
    await bench.connection.executemany(OF_EACH_KIND, rows)
    await bench.connection.execute("UPDATE debit SET due_at = NULL WHERE ride_no = $1 AND ordinal = 1", ride.ride_no)
    standing = Standing(False, not going_on, False, False, [tariffs[index] for index in stopped], [], [])
    async with bench.database.transaction(CollectionStore) as store:
        claimed = await store.claim_debits(bench.account_no, at, at, 10_000, standing)
        few = await store.claim_debits(bench.account_no, at, at, 5, standing)
    assert {row.debit.ordinal for row in claimed} == due
    assert len(claimed) == len(due)
    assert len(few) == 5


@pytest.mark.parametrize("by_tariff", [False, True])
async def test_stopped_refunds_wait_while_debits_go_on(bench: Bench, by_tariff: bool) -> None:
    party = await bench.party()
    ride = await bench.ride(party, 300)
    tariff_id = await tariff_of(bench, party) if by_tariff else None
    await halt(bench, party, "refunds", tariff_id=tariff_id)
    await bench.settle_down(1)
    await bench.owe(ride, 2, -100)
    await bench.settle_down(2)
    [debit] = await bench.debits(ride)
    assert (debit["state"], debit["refunding_minor"], bench.provider.given_back) == ("settled", 100, {})
    [stands] = await standing(bench, party.operator_no)
    await resume(bench.database, party.operator_no, stands.stop_no, reason="r", by="ops", now=bench.now)
    await bench.settle_down(1)
    assert list(bench.provider.given_back.values()) == [100]


async def test_a_stop_of_what_is_not_there_is_refused(bench: Bench) -> None:
    party = await bench.party()
    with pytest.raises(UnknownStopError):
        await halt(bench, party, "debits", tariff_id="no-such")


async def test_a_tariff_times_a_hundred_stops_its_own_debits_and_no_others(bench: Bench) -> None:
    await bench.connection.execute("UPDATE operator SET calendar = '{\"stop_run\": 3}'")
    party, other = await bench.party(), await bench.party()
    for _ in range(20):
        await bench.unplanned(party, 250)
    await bench.collection.plan_round()
    bench.pass_time(timedelta(hours=1))
    high = [await bench.ride(party, 25_000) for _ in range(2)]
    assert await standing(bench, party.operator_no) == []
    high.append(await bench.ride(party, 25_000))
    [stands] = await standing(bench, party.operator_no)
    assert (stands.what, stands.tariff_id, stands.stopped_by) == ("debits", await tariff_of(bench, party), "farebox")
    assert "3 debits above 5000" in stands.reason
    usual = await bench.ride(other, 25_000)
    await bench.settle_down(2)
    assert {(await bench.states(ride))[0][0] for ride in high} == {"new"}
    assert await bench.states(usual) == [("settled", 25_000, 25_000)]


@given(debits=st.integers(0, 50), each=st.integers(1, 10**6), above=st.none() | st.integers(1, 10**6))
@settings(deadline=None)
def test_the_lower_limit_counts_and_few_debits_say_nothing(debits: int, each: int, above: int | None) -> None:
    limit = limit_minor(Usual(debits, debits * each), Calendar(stop_above_minor=above))
    usual = 20 * each if debits >= 20 else None
    assert limit == min((one for one in (usual, above) if one is not None), default=None)


async def test_the_first_database_is_remembered_and_the_same_one_asks_nothing(bench: Bench) -> None:
    await bench.connection.execute("UPDATE installation SET cluster_timeline = NULL, restored_at = NULL")
    assert not await ask_after_restore(bench.database, bench.now)
    assert not await ask_after_restore(bench.database, bench.now)


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("when", ["new", "declined", "lost ride"])
async def test_after_a_restore_nothing_is_sent_before_it_is_asked_about(bench: Bench, when: str, sent: bool) -> None:
    """The provider may have taken the money in the time that the database has lost; it is never taken twice."""
    await ask_after_restore(bench.database, bench.now)
    ride = await bench.unplanned(await bench.party(), 300)
    if when != "lost ride":
        await bench.collection.plan_round()
    if when == "declined":
        bench.provider.faults["*"] = ["short"]
        await bench.collection.submit_round(bench.account_no)
    await bench.connection.execute("UPDATE installation SET cluster_timeline = 'another/00000001'")
    assert await ask_after_restore(bench.database, bench.now)
    await bench.collection.plan_round()
    bench.provider.calls.clear()
    if sent:
        bench.provider.taken = EverythingTaken(300)
    bench.pass_time(timedelta(hours=24))
    await bench.settle_down(8)
    assert await bench.states(ride) == [("settled", 300, 300)]
    asked = [what for what, _ in bench.provider.calls]
    closed = ["close_debit"] if when == "declined" else []  # The rider may have been given what was declined.
    assert asked[: len(closed) + 1] == [*closed, "get_debit"]
    assert asked.count("debit") == (0 if sent else 1)


class EverythingTaken(dict[str, int]):
    """Whatever key is asked for: it was paid in the time that was lost."""

    def __init__(self, amount_minor: int) -> None:
        super().__init__()
        self.amount_minor = amount_minor

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> int:
        return self.amount_minor


def news(ref: str, state: Literal["opened", "won", "lost"], amount_minor: int = 300) -> DisputeStatus:
    return DisputeStatus(ref, "chargeback", state, amount_minor, "CNY")


async def settled(bench: Bench) -> tuple[Ride, str]:
    ride = await bench.ride(await bench.party(), 300)
    await bench.settle_down(1)
    return ride, (await bench.debits(ride))[0]["provider_ref"]


@pytest.mark.parametrize("order", [("opened", "won"), ("won", "opened"), ("won",), ("opened", "opened", "won", "won")])
async def test_chargebacks_in_any_order_and_number_end_the_same(
    bench: Bench, order: tuple[Literal["opened", "won", "lost"], ...]
) -> None:
    ride, ref = await settled(bench)
    before = await bench.balance(4, bench.account_no)
    for state in order:
        assert await bench.collection.disputed(bench.account_no, news(ref, state))
    [debit] = await bench.debits(ride)
    assert (debit["dispute"], await bench.balance(4, bench.account_no)) == ("won", before)
    assert not await bench.collection.disputed(bench.account_no, news("no such", "opened"))


async def test_what_a_bank_took_for_good_is_not_given_back_once_more(bench: Bench) -> None:
    ride, ref = await settled(bench)
    await bench.collection.disputed(bench.account_no, news(ref, "opened", 200))
    assert await bench.balance(10, ride.party.operator_no) >= 200
    with pytest.raises(RefundRefusedError):
        await bench.collection.happen([((ride.ride_no, 1), RefundAsked(50, "goodwill"))])
    await bench.collection.disputed(bench.account_no, news(ref, "lost", 200))
    with pytest.raises(RefundRefusedError):
        await bench.collection.happen([((ride.ride_no, 1), RefundAsked(101, "goodwill"))])
    await bench.collection.happen([((ride.ride_no, 1), RefundAsked(100, "goodwill"))])


@pytest.mark.parametrize(("result", "back"), [("won", 100), ("lost", 0)])
async def test_what_was_owed_back_meanwhile_is_given_back_once_the_bank_has_returned_it(
    bench: Bench, result: Literal["won", "lost"], back: int
) -> None:
    ride, ref = await settled(bench)
    await bench.collection.disputed(bench.account_no, news(ref, "opened"))
    await bench.owe(ride, 2, -100)
    await bench.settle_down(2)
    assert bench.provider.given_back == {}
    await bench.collection.disputed(bench.account_no, news(ref, result))
    await bench.settle_down(2)
    assert sum(bench.provider.given_back.values()) == back


async def test_a_disputes_fee_is_the_providers(bench: Bench) -> None:
    ride, _ = await settled(bench)
    await bench.collection.happen([((ride.ride_no, 1), DisputeOpened("chargeback", 300, fee_minor=15))])
    assert await bench.balance(5, bench.account_no) == 15
    assert await bench.balance(4, bench.account_no) == 300 - 300 - 15


async def test_an_inquiry_that_becomes_a_chargeback_takes_the_money(bench: Bench) -> None:
    ride, ref = await settled(bench)
    inquiry = DisputeStatus(ref, "complaint", "opened", 300, "CNY")
    for status in (inquiry, news(ref, "opened"), news(ref, "opened"), inquiry):
        assert await bench.collection.disputed(bench.account_no, status)
    [debit] = await bench.debits(ride)
    assert (debit["dispute"], debit["disputed_minor"]) == ("chargeback", 300)


async def test_a_chargeback_in_the_banks_own_currency_is_about_all_of_the_debit(bench: Bench) -> None:
    """20 JPY are not 20 fen."""
    ride, ref = await settled(bench)
    assert await bench.collection.disputed(bench.account_no, DisputeStatus(ref, "chargeback", "opened", 20, "JPY"))
    assert (await bench.debits(ride))[0]["disputed_minor"] == 300


async def test_a_chargeback_where_there_are_none_is_not_believed(database_url: str) -> None:
    async with open_bench(database_url, Capabilities(dispute="complaint")) as bench:
        ride, ref = await settled(bench)
        assert not await bench.collection.disputed(bench.account_no, news(ref, "opened"))
        assert (await bench.debits(ride))[0]["dispute"] is None
