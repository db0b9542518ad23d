"""The rider's own part: he pays now, he is reminded, reported and cleared; a hold that a charged ride never had."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from builders import Ride
from collecting_bench import Bench, assert_books_agree, open_bench
from fakes import Fault, KilledError

from service.adapters.postgres.agreements import AgreementStore
from service.adapters.postgres.batches import FACTS_DECODER
from service.billing.agreements import Debt
from service.billing.agreements.standing import HoldStatus
from service.billing.capabilities import Capabilities
from service.billing.debits import ImpossibleEventError
from service.billing.debits.events import PaidElsewhere, Resumed, RetryAsked, Suspended
from service.billing.outcomes import AlreadyDone, OpenUrl, Succeeded
from service.flows.collection.hearing import NoPaymentError
from service.flows.holds import Holds

KINDS = {
    "new key": Capabilities(),
    "same key": Capabilities(new_key_after_decline=False, reduces_declined=True),
    "never closed": Capabilities(new_key_after_decline=False, closes_unpaid=False),
}


@pytest.fixture(params=KINDS)
async def bench(database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with open_bench(database_url, KINDS[request.param]) as bench:
        yield bench
        await assert_books_agree(bench)


async def declined(bench: Bench, amount_minor: int = 300) -> Ride:
    """A ride whose debit waits for the calendar's next attempt."""
    ride = await bench.ride(await bench.party(), amount_minor)
    bench.provider.faults["*"] = ["short"]
    await bench.collection.submit_round(bench.account_no)
    return ride


async def test_the_rider_pays_now_and_nothing_else_is_tried_meanwhile(bench: Bench) -> None:
    ride = await declined(bench)
    debit = await bench.collection.ask_payment((ride.ride_no, 1))
    assert debit.action == OpenUrl(f"https://pay.invalid/{debit.provider_key}")
    bench.provider.rider_pays(debit.provider_key)
    await bench.settle_down(3)
    assert await bench.states(ride) == [("settled", 300, 300)]
    assert [what for what, _ in bench.provider.calls].count("debit") == 1


async def test_what_he_leaves_undone_is_tried_again_and_both_are_never_paid(bench: Bench) -> None:
    ride = await declined(bench)
    debit = await bench.collection.ask_payment((ride.ride_no, 1))
    await bench.settle_down(60, timedelta(hours=1))
    assert await bench.states(ride) == [("settled", 300, 300)]
    again = [key for what, key in bench.provider.calls if what == "debit"][-1]
    if again != debit.provider_key:
        closed = bench.provider.calls.index(("close_debit", debit.provider_key))
        assert closed < bench.provider.calls.index(("debit", again))
        with pytest.raises(KeyError):
            bench.provider.rider_pays(debit.provider_key)
    assert sum(bench.provider.taken.values()) == 300


async def test_support_tries_it_though_the_rider_has_it_to_pay(bench: Bench) -> None:
    """It was answered with yes, and nothing was tried. A number of his that is another one is closed first."""
    ride = await declined(bench)
    given = await bench.collection.ask_payment((ride.ride_no, 1))
    bench.provider.faults.clear()
    await bench.collection.happen([((ride.ride_no, 1), RetryAsked())])
    await bench.settle_down(3)
    assert await bench.states(ride) == [("settled", 300, 300)]
    closed = [key for what, key in bench.provider.calls if what == "close_debit"]
    another = bench.provider.capabilities.new_key_after_decline
    assert closed == ([given.provider_key] if another else [])
    assert [key == given.provider_key for key in bench.provider.taken] == [not another]


async def test_what_he_was_given_under_an_order_s_number_is_his_debit_s_when_the_order_is_over(bench: Bench) -> None:
    """Alipay knows such a payment by the order alone, and he may make it weeks later."""
    given, other = await declined(bench), await declined(bench)
    for number, ride in enumerate((given, other)):
        await bench.hold(ride, "open", f"HOLD{number}", f"ORDER{number}")
    debit = await bench.collection.ask_payment((given.ride_no, 1))
    await bench.connection.execute("UPDATE hold SET state = 'released'")
    bench.provider.rider_pays(debit.provider_key)
    assert await bench.collection.noticed(bench.account_no, "ORDER0", Succeeded(300, "T0"), "hold_ref")
    assert await bench.states(given) == [("settled", 300, 300)]
    assert not await bench.collection.noticed(bench.account_no, "ORDER1", Succeeded(300, "T1"), "hold_ref")
    assert [paid for _, _, paid in await bench.states(other)] == [0]


@pytest.mark.parametrize("fault", ["killed_before", "lost_before", "throttled"])
async def test_a_death_or_silence_while_the_provider_is_asked_does_no_harm(bench: Bench, fault: Fault) -> None:
    ride = await declined(bench)
    bench.provider.faults["*"] = [fault]
    with pytest.raises(KilledError if fault == "killed_before" else NoPaymentError):
        await bench.collection.ask_payment((ride.ride_no, 1))
    debit = await bench.collection.ask_payment((ride.ride_no, 1))
    bench.provider.rider_pays(debit.provider_key)
    await bench.settle_down(3)
    assert await bench.states(ride) == [("settled", 300, 300)]


async def test_what_he_must_approve_is_paid_under_its_own_key(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(cap_minor=200), 300)
    await bench.collection.submit_round(bench.account_no)
    assert await bench.states(ride) == [("settled", 200, 200), ("needs_rider", 100, 0)]
    debit = await bench.collection.ask_payment((ride.ride_no, 2))
    assert bench.provider.given == {debit.provider_key: 100}
    bench.provider.rider_pays(debit.provider_key)
    await bench.settle_down(3)
    assert await bench.states(ride) == [("settled", 200, 200), ("settled", 100, 100)]


async def test_what_he_was_given_to_approve_is_closed_when_it_is_owed_no_longer(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(cap_minor=200), 300)
    await bench.collection.submit_round(bench.account_no)
    debit = await bench.collection.ask_payment((ride.ride_no, 2))
    await bench.owe(ride, 2, -100)
    await bench.settle_down(2)
    assert await bench.states(ride) == [("settled", 200, 200), ("cancelled", 100, 0)]
    assert [key for what, key in bench.provider.calls if what == "close_debit"] == [debit.provider_key]
    with pytest.raises(KeyError):
        bench.provider.rider_pays(debit.provider_key)


async def test_less_is_owed_while_he_has_the_number_and_he_never_pays_more(bench: Bench) -> None:
    ride = await declined(bench)
    debit = await bench.collection.ask_payment((ride.ride_no, 1))
    await bench.owe(ride, 2, -100)
    bench.provider.rider_pays(debit.provider_key)
    await bench.settle_down(6)
    taken, given = sum(bench.provider.taken.values()), sum(bench.provider.given_back.values())
    assert taken - given == 200, await bench.transitions(ride)


async def test_what_is_paid_or_suspended_is_not_paid_by_him(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 300)
    with pytest.raises(ImpossibleEventError):
        await bench.collection.ask_payment((ride.ride_no, 1))
    await bench.settle_down(1)
    with pytest.raises(ImpossibleEventError):
        await bench.collection.ask_payment((ride.ride_no, 1))


async def test_paid_meanwhile_is_said_by_name_and_asked_about(bench: Bench) -> None:
    ride = await declined(bench)
    [row] = await bench.debits(ride)
    bench.provider.taken[row["provider_key"]] = 300
    with pytest.raises(NoPaymentError) as refused:
        await bench.collection.ask_payment((ride.ride_no, 1))
    assert refused.value.outcome == AlreadyDone()
    await bench.settle_down(1)
    assert await bench.states(ride) == [("settled", 300, 300)]


async def test_overdue_then_paid_by_him_he_may_ride_again_and_is_told_well_of(database_url: str) -> None:
    able = Capabilities(reports_performance="merchant", new_key_after_decline=False)
    async with open_bench(database_url, able) as bench:
        ride = await bench.ride(await bench.party(), 300)
        bench.provider.faults["*"] = ["short"] * 9
        for _ in range(30):
            await bench.collection.submit_round(bench.account_no)
            for _ in range(4):
                await bench.collection.policy_round(bench.account_no)
            bench.pass_time(timedelta(days=1))
        [row] = await bench.debits(ride)
        assert (row["state"], row["overdue"], row["record"]) == ("needs_rider", True, "violated")
        assert [debt.overdue for debt in await debts(bench, ride)] == [1]
        debit = await bench.collection.ask_payment((ride.ride_no, 1))
        bench.provider.rider_pays(debit.provider_key)
        bench.pass_time(timedelta(minutes=2))
        await bench.collection.submit_round(bench.account_no)
        assert await debts(bench, ride) == [], "he may ride again at once"
        bench.provider.faults["report"] = ["lost_after"]
        for _ in range(3):
            await bench.collection.policy_round(bench.account_no)
            bench.pass_time(timedelta(minutes=2))
        told = list(bench.provider.records.values())
        assert told == [f"{debit.provider_key} violated", f"{debit.provider_key} completed"]
        facts = await fact_names(bench, ride)
        assert [
            name for name in facts if not name.startswith(("debit.declined", "debit.submitted", "reminder.due"))
        ] == [
            *("debit.needs_rider", "debit.overdue", "reminder.overdue", "reminder.report_notice"),
            *("performance.reported", "debit.settled", "performance.reported"),
        ]


async def debts(bench: Bench, ride: Ride) -> list[Debt]:
    async with bench.database.reading(AgreementStore) as store:
        rider = await bench.connection.fetchval(
            "SELECT rider_no FROM agreement WHERE agreement_no = $1", ride.party.agreement_no
        )
        return list(await store.debts(rider))


async def fact_names(bench: Bench, ride: Ride) -> list[str]:
    rows = await bench.connection.fetch(
        "SELECT facts FROM batch_facts JOIN batch USING (writer_no, seq) ORDER BY number"
    )
    return [
        (dict(record.headers)["ce_type"] or b"").decode().removeprefix("io.farebox.billing.").removesuffix(".v1")
        for row in rows
        for record in FACTS_DECODER.decode(row["facts"])
        if record.key == ride.session_id.encode()
    ]


ORDERS = Capabilities(hold_needed=True, further_debit=False, new_key_after_decline=False)


@pytest.mark.parametrize("before", [None, "expired", "released"])
async def test_a_ride_that_was_charged_without_a_hold_gets_one_first(database_url: str, before: str | None) -> None:
    async with open_bench(database_url, ORDERS) as bench:
        ride = await bench.ride(await bench.party(), 300)
        if before is not None:
            await bench.hold(ride, before, "OLD", cap_minor=1)
        await bench.collection.submit_round(bench.account_no)
        assert await bench.states(ride) == [("new", 300, 0)], "it waits"
        assert bench.provider.calls == []
        await bench.holder().resolve_round(bench.account_no)
        await bench.settle_down(2)
        assert await bench.states(ride) == [("settled", 300, 300)]
        [sent] = bench.provider.asked.values()
        assert sent.hold is not None
        assert sent.hold.key in bench.provider.holds
        assert sent.hold.key != "OLD"


@pytest.mark.parametrize("before", [None, "refused"])
async def test_a_debit_whose_rider_has_not_signed_goes_on_by_itself_once_he_has(
    database_url: str, before: str | None
) -> None:
    async with open_bench(database_url, ORDERS) as bench:
        party, holds = await bench.party(), bench.holder()
        await bench.connection.execute(
            "UPDATE agreement SET state = 'pending' WHERE agreement_no = $1", party.agreement_no
        )
        ride = await bench.ride(party, 300)
        if before is not None:
            await bench.hold(ride, before, "OLD", cap_minor=1, reason="agreement_pending", refusal="rules")
        for _ in range(3):
            await bench.collection.submit_round(bench.account_no)
            await holds.resolve_round(bench.account_no)
            bench.pass_time(timedelta(minutes=1))
        assert await bench.states(ride) == [("new", 300, 0)], "it waits, and nothing was asked"
        assert bench.provider.holds == {}
        await bench.connection.execute(
            "UPDATE agreement SET state = 'active' WHERE agreement_no = $1", party.agreement_no
        )
        await bench.collection.happen([((ride.ride_no, 1), RetryAsked())])
        for _ in range(3):
            await bench.collection.submit_round(bench.account_no)
            await holds.resolve_round(bench.account_no)
            bench.pass_time(timedelta(minutes=5))
        await bench.settle_down(2)
        assert await bench.states(ride) == [("settled", 300, 300)]


async def test_a_hold_that_is_refused_leaves_the_debit_to_the_rider(database_url: str) -> None:
    async with open_bench(database_url, ORDERS) as bench:
        bench.provider.next_hold = HoldStatus("refused", code="TOO_MANY_ORDERS")
        ride = await bench.ride(await bench.party(), 300)
        for _ in range(3):
            await bench.collection.submit_round(bench.account_no)
            await bench.holder().resolve_round(bench.account_no)
            bench.pass_time(timedelta(minutes=1))
        assert [row["reason"] for row in await bench.debits(ride)] == ["the hold was refused: TOO_MANY_ORDERS"]
        debit = await bench.collection.ask_payment((ride.ride_no, 1))
        bench.provider.rider_pays(debit.provider_key)
        await bench.settle_down(2)
        assert await bench.states(ride) == [("settled", 300, 300)]


async def unconfirmed(bench: Bench, minutes: int) -> tuple[Ride, Holds]:
    """A ride whose hold waits so long for its rider, and who looks after holds."""
    bench.provider.next_hold = HoldStatus("pending", action=OpenUrl("https://confirm.invalid"))
    ride, holds = await bench.ride(await bench.party(), 300), bench.holder()
    for _ in range(minutes):
        await bench.collection.submit_round(bench.account_no)
        await holds.resolve_round(bench.account_no)
        bench.pass_time(timedelta(minutes=1))
    return ride, holds


async def test_a_hold_that_he_must_confirm_says_so_and_goes_on_when_he_has(database_url: str) -> None:
    async with open_bench(database_url, ORDERS) as bench:
        ride, holds = await unconfirmed(bench, 3)
        [row] = await bench.debits(ride)
        assert row["state"] == "needs_rider"
        assert "confirm.invalid" in row["action"]
        bench.provider.holds = dict.fromkeys(bench.provider.holds, HoldStatus("open", "hold-ref", 1000))
        for _ in range(8):
            await holds.resolve_round(bench.account_no)
            await bench.collection.submit_round(bench.account_no)
            bench.pass_time(timedelta(minutes=5))
        assert await bench.states(ride) == [("settled", 300, 300)]


async def test_a_hold_that_he_has_not_confirmed_when_the_debit_is_paid_elsewhere_is_given_up_at_once(
    database_url: str,
) -> None:
    async with open_bench(database_url, ORDERS) as bench:
        ride, holds = await unconfirmed(bench, 9)
        assert await bench.states(ride) == [("needs_rider", 300, 0)]
        await bench.collection.happen([((ride.ride_no, 1), PaidElsewhere("cash"))])
        await holds.resolve_round(bench.account_no)
        assert "release_hold" in [what for what, _ in bench.provider.calls]
        state = await bench.connection.fetchval("SELECT state FROM hold WHERE session_id = $1", ride.session_id)
        assert state == "released"
        assert await bench.states(ride) == [("settled_elsewhere", 300, 0)]


async def test_a_debit_that_is_suspended_while_its_hold_waits_for_the_rider_goes_on_when_it_is_resumed(
    database_url: str,
) -> None:
    async with open_bench(database_url, ORDERS) as bench:
        ride, holds = await unconfirmed(bench, 3)
        await bench.collection.happen([((ride.ride_no, 1), Suspended("the lock failed"))])
        bench.provider.holds = dict.fromkeys(bench.provider.holds, HoldStatus("open", "hold-ref", 1000))
        for _ in range(4):
            await holds.resolve_round(bench.account_no)
            await bench.settle_down(2)
        assert await bench.states(ride) == [("needs_rider", 300, 0)]
        assert "debit" not in [what for what, _ in bench.provider.calls]
        await bench.collection.happen([((ride.ride_no, 1), Resumed())])
        await bench.settle_down(2)
        assert await bench.states(ride) == [("settled", 300, 300)]


async def test_what_he_must_approve_is_never_tried_by_us_whatever_a_notification_says(database_url: str) -> None:
    async with open_bench(database_url, ORDERS) as bench:
        ride = await bench.ride(await bench.party(cap_minor=200), 300)
        key = (await bench.debits(ride))[1]["provider_key"]
        assert await bench.collection.noticed(bench.account_no, key, Succeeded(900))
        for _ in range(6):
            await bench.holder().resolve_round(bench.account_no)
            await bench.settle_down(1)
        assert ("get_debit", key) in bench.provider.calls
        assert ("debit", key) not in bench.provider.calls
        assert await bench.states(ride) == [("settled", 200, 200), ("needs_rider", 100, 0)]
