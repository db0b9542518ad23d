"""Debits through orders: which of a ride's debits goes through the hold, and when the hold ends."""

from __future__ import annotations

from datetime import timedelta

import pytest
from builders import Ride
from collecting_bench import Bench, assert_books_agree, open_bench
from fakes import KilledError
from msgspec.structs import replace

from service.adapters.postgres.holds import HoldStore
from service.billing.agreements.standing import HoldStatus
from service.billing.capabilities import Capabilities
from service.billing.debits.events import OperatorDecided
from service.billing.keys import provider_key
from service.billing.outcomes import OpenUrl, Succeeded
from service.flows.stops import What, resume, stop

ORDERS = Capabilities(hold_needed=True, further_debit=False, new_key_after_decline=False, closes_unpaid=False)
RETRYING = replace(ORDERS, provider_retries=True, nudges=True, reduces_pending=True)


async def hold_of(bench: Bench, ride: Ride) -> tuple[str, int]:
    row = await bench.connection.fetchrow(
        "SELECT state, ordinal FROM hold WHERE session_id = $1 AND account_no = $2", ride.session_id, bench.account_no
    )
    assert row is not None
    return row["state"], row["ordinal"]


async def go_on(bench: Bench, rounds: int = 6, step: timedelta = timedelta(minutes=6)) -> None:
    """Rounds of holds and debits, and time."""
    holds = bench.holder()
    for _ in range(rounds):
        await holds.resolve_round(bench.account_no)
        await holds.release_round(bench.account_no)
        await bench.collection.submit_round(bench.account_no)
        bench.pass_time(step)


async def waived_with_an_open_hold(bench: Bench) -> Ride:
    """A ride that came to nothing, and whose hold was opened before the unlock."""
    ride = await bench.ride(await bench.party(), 300)
    await bench.owe(ride, 2, -300)
    assert await bench.states(ride) == [("cancelled", 300, 0)]
    await bench.hold(ride, "completing", "FIRST", "first-ref", opened=True, due=True)
    bench.provider.holds["FIRST"] = HoldStatus("open", "first-ref", 1000)
    return ride


async def test_a_debit_that_comes_while_the_hold_ends_gets_a_hold_of_its_own(database_url: str) -> None:
    """They waited for each other: the hold for all debits, the new debit for the hold's end."""
    async with open_bench(database_url, ORDERS) as bench:
        ride = await waived_with_an_open_hold(bench)
        await bench.owe(ride, 3, 200)
        await go_on(bench)
        assert await bench.states(ride) == [("cancelled", 300, 0), ("settled", 200, 200)]
        assert await hold_of(bench, ride) in {("completing", 1), ("completed", 1)}
        await assert_books_agree(bench)


async def test_what_a_hold_brings_is_the_debits_that_goes_through_it(database_url: str) -> None:
    """The notification names the hold, and the ride's first debit was waived: it is not paid, nor paid back."""
    async with open_bench(database_url, ORDERS) as bench:
        ride = await waived_with_an_open_hold(bench)
        await bench.owe(ride, 3, 200)
        bench.provider.faults["*"] = ["accepted"]
        await go_on(bench, 4)
        [_, debit] = await bench.debits(ride)
        assert debit["state"] == "pending"
        bench.provider.collect(debit["provider_key"])
        named = await bench.connection.fetchval("SELECT provider_key FROM hold WHERE session_id = $1", ride.session_id)
        assert await bench.collection.noticed(bench.account_no, named, Succeeded(200, "paid"), "hold")
        await bench.settle_down(2)
        assert await bench.states(ride) == [("cancelled", 300, 0), ("settled", 200, 200)]
        assert bench.provider.given_back == {}
        await assert_books_agree(bench)


async def test_a_hold_stays_while_what_was_written_off_may_still_be_collected_on_it(database_url: str) -> None:
    async with open_bench(database_url, ORDERS) as bench:
        ride = await bench.ride(await bench.party(), 300)
        bench.provider.faults["*"] = ["accepted"]
        await go_on(bench, 3)
        assert await bench.states(ride) == [("pending", 300, 0)]
        for _ in range(30):
            bench.pass_time(timedelta(days=7))
            await bench.collection.policy_round(bench.account_no)
            await go_on(bench, 1)
        assert await bench.states(ride) == [("written_off", 300, 0)]
        assert await hold_of(bench, ride) == ("open", 0)
        [debit] = await bench.debits(ride)
        bench.provider.collect(debit["provider_key"])
        bench.pass_time(timedelta(days=7))
        await go_on(bench, 2)
        assert await bench.states(ride) == [("settled", 300, 300)]
        assert (await hold_of(bench, ride))[0] in ("completing", "completed")


async def test_what_was_written_off_and_is_asked_about_no_more_lets_its_hold_go(database_url: str) -> None:
    async with open_bench(database_url, ORDERS) as bench:
        ride = await bench.ride(await bench.party(), 300)
        await bench.hold(ride, "open", "FIRST", opened=True)
        async with bench.database.reading(HoldStore) as store:
            key = (await bench.debits(ride))[0]["session_key"]
            assert (await store.rides_of_holds([key]))[key].debits_final == 0
            await bench.connection.execute(
                "UPDATE debit SET state = 'written_off', forgone_minor = 300, due_at = NULL WHERE ride_no = $1",
                ride.ride_no,
            )
            assert (await store.rides_of_holds([key]))[key].debits_final == 1


@pytest.mark.parametrize("state", ["open", "requested", "completing", "released"])
@pytest.mark.parametrize("needed", [True, False])
async def test_nobody_pays_through_a_hold_of_somebody_else(database_url: str, state: str, needed: bool) -> None:
    """The app asked for a hold for one rider, and another's agreement is named by the ride: it pays, on its own hold,
    and the first one's is given up."""
    async with open_bench(database_url, ORDERS if needed else Capabilities()) as bench:
        ride = await bench.ride(await bench.party(), 300)
        anna = await bench.party()
        opened = state in ("open", "completing")
        await bench.hold(
            ride, state, "ANNA", "anna-ref", cap_minor=100, opened=opened, due=state != "released", party=anna
        )
        bench.provider.holds["ANNA"] = HoldStatus("open", "anna-ref", 100)
        await go_on(bench, 30)
        assert await bench.states(ride) == [("settled", 300, 300)], "its cap is not the ride's either"
        [request] = bench.provider.asked.values()
        [debit] = await bench.debits(ride)
        own = provider_key(debit["session_key"].bytes, "hold", 1)
        assert (request.hold.key if request.hold is not None else None) == (own if needed else None)
        assert (("release_hold", "ANNA") in bench.provider.calls) == (state != "released" and needed)
        rows = await bench.connection.fetch(
            "SELECT agreement_no = $2 AS whose, state FROM hold WHERE session_id = $1",
            *(ride.session_id, ride.party.agreement_no if needed else anna.agreement_no),
        )
        assert [tuple(row) for row in rows] == [(True, "completed" if needed else "released")]
        await assert_books_agree(bench)


async def two_days(bench: Bench) -> None:
    for _ in range(8):
        bench.pass_time(timedelta(hours=6))
        await bench.collection.policy_round(bench.account_no)


async def overdue_at_a_provider_that_retries(bench: Bench) -> Ride:
    ride = await bench.ride(await bench.party(), 300)
    bench.provider.faults["*"] = ["accepted"]
    await go_on(bench, 4)
    for _ in range(3):
        bench.pass_time(timedelta(days=7))
        await bench.collection.policy_round(bench.account_no)
    assert [(debit["state"], debit["overdue"]) for debit in await bench.debits(ride)] == [("pending", True)]
    return ride


async def test_who_owes_nothing_any_more_is_refused_nothing(database_url: str) -> None:
    """The order can't be closed, and stays: its rider was refused for 300 days after the void."""
    async with open_bench(database_url, RETRYING) as bench:
        ride = await overdue_at_a_provider_that_retries(bench)
        party = ride.party
        asked = "SELECT v.* FROM rider_debt v JOIN agreement a USING (rider_no) WHERE a.agreement_no = $1"
        owed = await bench.connection.fetchrow(asked, party.agreement_no)
        assert owed is not None
        assert (owed["overdue"], owed["overdue_minor"], owed["open_minor"]) == (1, 300, 300)
        await bench.owe(ride, 2, -300)
        owed = await bench.connection.fetchrow(asked, party.agreement_no)
        assert owed is not None
        assert (owed["overdue"], owed["overdue_minor"], owed["open_minor"]) == (0, 0, 0)
        assert [debit["overdue"] for debit in await bench.debits(ride)] == [False]
        await assert_books_agree(bench)


@pytest.mark.parametrize("scope", ["operator", "account", "tariff"])
async def test_while_debits_are_stopped_nobody_is_nudged(database_url: str, scope: str) -> None:
    """A tariff that was published × 100 went on being pushed."""
    async with open_bench(database_url, RETRYING) as bench:
        ride = await overdue_at_a_provider_that_retries(bench)
        assert "nudge_debit" in {what for what, _ in bench.provider.calls}
        names = await bench.connection.fetchrow(
            "SELECT m.account_id, t.tariff_id FROM merchant_account m, tariff t"
            " WHERE m.account_no = $1 AND t.tariff_no = $2",
            bench.account_no,
            ride.party.tariff_no,
        )
        assert names is not None
        operator_no = ride.party.operator_no
        named = {f"{scope}_id": names[f"{scope}_id"]} if scope != "operator" else {}
        assert await stop(bench.database, operator_no, "debits", reason="× 100", by="ops", now=bench.now, **named)
        bench.provider.calls.clear()
        await two_days(bench)
        assert bench.provider.calls == []
        stop_no = await bench.connection.fetchval("SELECT max(stop_no) FROM stop WHERE resumed_at IS NULL")
        await resume(bench.database, operator_no, stop_no, reason="put right", by="ops", now=bench.now)
        await two_days(bench)
        assert "nudge_debit" in {what for what, _ in bench.provider.calls}


@pytest.mark.parametrize("what", ["confirmed hold", "died", "paid by himself", "died refund"])
async def test_a_stop_sends_nothing_and_leaves_nothing_unasked(database_url: str, what: str) -> None:
    able = ORDERS if what == "confirmed hold" else Capabilities()
    async with open_bench(database_url, able) as bench:
        ride = await bench.ride(await bench.party(), 300)
        if what == "confirmed hold":
            bench.provider.next_hold = HoldStatus("pending", action=OpenUrl("https://confirm.invalid"))
            await go_on(bench, 3, timedelta(minutes=1))
            assert (await bench.states(ride))[0][0] == "needs_rider"
            bench.provider.holds = dict.fromkeys(bench.provider.holds, HoldStatus("open", "hold-ref", 1000))
        elif what == "paid by himself":
            bench.provider.faults["*"] = ["short"]
            await bench.collection.submit_round(bench.account_no)
            debit = await bench.collection.ask_payment((ride.ride_no, 1))
            bench.provider.rider_pays(debit.provider_key)
        else:
            if what == "died refund":
                await bench.settle_down(1)
                await bench.owe(ride, 2, -100)
            bench.provider.faults["*"] = ["killed_after"]
            with pytest.raises(KilledError):
                await bench.collection.submit_round(bench.account_no)
        halted: What = "refunds" if what == "died refund" else "debits"
        operator_no = ride.party.operator_no
        assert await stop(bench.database, operator_no, halted, reason="r", by="ops", now=bench.now)
        bench.provider.calls.clear()
        await go_on(bench, 4, timedelta(minutes=3))
        [debit_row] = await bench.debits(ride)
        stop_no = await bench.connection.fetchval("SELECT max(stop_no) FROM stop WHERE resumed_at IS NULL")
        await resume(bench.database, operator_no, stop_no, reason="r", by="ops", now=bench.now)
        assert not {"debit", "refund"} & {called for called, _ in bench.provider.calls}
        told = (debit_row["state"], debit_row["paid_minor"], debit_row["refunded_minor"])
        assert (
            told
            == {
                "confirmed hold": ("needs_rider", 0, 0),
                "died": ("settled", 300, 0),
                "paid by himself": ("settled", 300, 0),
                "died refund": ("settled", 300, 100),
            }[what]
        )
        await go_on(bench, 3, timedelta(minutes=5))
        assert await bench.states(ride) == [("settled", 300, 300)]


async def test_a_debit_given_up_by_hand_is_no_reason_for_a_second_on_the_same_order(database_url: str) -> None:
    """It was sent: whatever became of it, the order has been used, and more is the rider's to approve."""
    async with open_bench(database_url, ORDERS) as bench:
        ride = await bench.ride(await bench.party(), 300)
        await go_on(bench, 1, timedelta(seconds=5))
        await bench.connection.execute(
            "UPDATE debit SET state = 'manual', attempts = 1, submitted_at = $2, begun_at = $2, asked_minor = 300,"
            " due_at = NULL WHERE ride_no = $1",
            ride.ride_no,
            bench.now,
        )
        await bench.collection.happen([((ride.ride_no, 1), OperatorDecided("cancel", "nothing taken"))])
        await bench.owe(ride, 2, 200)
        assert [state for state, _, _ in await bench.states(ride)] == ["cancelled", "needs_rider"]


async def test_a_hold_that_trips_over_a_bug_of_ours_holds_up_no_other(database_url: str) -> None:
    async with open_bench(database_url, ORDERS) as bench:
        rides = [await bench.ride(await bench.party(), 300) for _ in range(3)]
        await bench.collection.submit_round(bench.account_no)
        trips = await bench.connection.fetchval(
            "SELECT max(provider_key) FROM hold WHERE state = 'requested' AND account_no = $1", bench.account_no
        )

        def trip(what: str, key: str) -> None:
            if key == trips:
                raise ZeroDivisionError

        bench.provider.on_call = trip
        with pytest.raises(ZeroDivisionError):
            await bench.holder().resolve_round(bench.account_no)
        assert sorted([(await hold_of(bench, ride))[0] for ride in rides]) == ["open", "open", "requested"]


@pytest.mark.parametrize(
    ("policy", "agreed", "opened_at", "taken"),
    [
        ('{"cap_minor": 10000}', None, 100_000, 10_000),
        ("{}", None, 500_000, 100_000),
        ('{"cap_minor": 10000}', 30_000, 100_000, 30_000),
        ('{"cap_minor": 200000}', None, 20_000, 20_000),
        ('{"cap_minor": 200000}', None, 200_000, 150_000),
    ],
)
async def test_a_ride_without_a_hold_is_debited_up_to_its_holds_cap_and_the_rest_is_the_riders(
    database_url: str, policy: str, agreed: int | None, opened_at: int, taken: int
) -> None:
    """The cap is the agreement's, else the operator's, and never more than the provider opens the hold with."""
    async with open_bench(database_url, ORDERS) as bench:
        bench.provider.next_hold = HoldStatus("open", "hold-ref", opened_at)
        party = await bench.party(cap_minor=agreed)
        await bench.connection.execute(
            "UPDATE operator SET hold_policy = $2 WHERE operator_no = $1", party.operator_no, policy
        )
        ride = await bench.ride(party, 150_000)
        await go_on(bench, 6, timedelta(minutes=1))
        left = [("needs_rider", 150_000 - taken, 0)] if taken < 150_000 else []
        assert await bench.states(ride) == [("settled", taken, taken), *left]
        await assert_books_agree(bench)


async def test_what_waits_for_the_rider_to_confirm_a_hold_is_cut_to_it_with_what_came_meanwhile(
    database_url: str,
) -> None:
    async with open_bench(database_url, replace(ORDERS, further_debit=True)) as bench:
        bench.provider.next_hold = HoldStatus("pending", action=OpenUrl("https://confirm.invalid"))
        ride = await bench.ride(await bench.party(), 300)
        await go_on(bench, 3, timedelta(minutes=1))
        await bench.owe(ride, 2, 200)
        assert await bench.states(ride) == [("needs_rider", 500, 0)]
        bench.provider.holds = dict.fromkeys(bench.provider.holds, HoldStatus("open", "hold-ref", 400))
        await go_on(bench, 6)
        assert await bench.states(ride) == [("settled", 400, 400), ("needs_rider", 100, 0)]
        await assert_books_agree(bench)


async def test_a_rider_who_confirms_the_hold_that_a_debit_waits_for_pays_at_once(database_url: str) -> None:
    """The debit's own next look at its hold is minutes away; what he must do for that is how he pays now."""
    async with open_bench(database_url, ORDERS) as bench:
        confirm = OpenUrl("https://confirm.invalid")
        bench.provider.next_hold = HoldStatus("pending", action=confirm)
        ride, holds = await bench.ride(await bench.party(), 300), bench.holder()
        await bench.collection.submit_round(bench.account_no)
        assert await bench.states(ride) == [("new", 300, 0)]
        await holds.resolve_round(bench.account_no)
        await bench.collection.submit_round(bench.account_no)
        assert await bench.states(ride) == [("needs_rider", 300, 0)]
        for _ in range(8):
            bench.pass_time(timedelta(minutes=10))
            await bench.collection.submit_round(bench.account_no)
        given = await bench.collection.ask_payment((ride.ride_no, 1))
        assert (given.action, given.payable_until) == (confirm, None)
        bench.provider.holds = dict.fromkeys(bench.provider.holds, HoldStatus("open", "hold-ref", 1000))
        key = await bench.connection.fetchval("SELECT provider_key FROM hold WHERE session_id = $1", ride.session_id)
        assert await holds.noticed(bench.account_no, key, HoldStatus("open", "hold-ref", 1000))
        await bench.collection.submit_round(bench.account_no)
        assert await bench.states(ride) == [("settled", 300, 300)]
        await assert_books_agree(bench)
