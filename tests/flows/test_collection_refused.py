"""Rides that took place though no hold was opened for them: what their debits do, and how everybody gets out of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from builders import Ride
from collecting_bench import Bench, assert_books_agree, open_bench
from msgspec.structs import replace

from service.adapters.postgres.holds import HoldStore
from service.billing.agreements.holds import HoldState
from service.billing.agreements.standing import HoldAnswer, HoldStatus, Refusal
from service.billing.capabilities import Capabilities
from service.billing.debits.events import DebitEvent, OperatorDecided, PaidElsewhere, RetryAsked
from service.billing.outcomes import CapExceeded, Conflict, Declined, OpenUrl, Rejected
from service.flows.collection.hearing import HOLD_ASKED, NoPaymentError

ORDERS = Capabilities(hold_needed=True, further_debit=False, new_key_after_decline=False, closes_unpaid=False)
CONFIRMED = replace(ORDERS, hold_confirmed_by_rider=True, payable_apart=False)
OPEN = HoldStatus("open", "hold-ref", 1000)


async def go_on(bench: Bench, rounds: int = 4, step: timedelta = timedelta(minutes=1)) -> None:
    for _ in range(rounds):
        await bench.holder().resolve_round(bench.account_no)
        await bench.collection.submit_round(bench.account_no)
        bench.pass_time(step)


async def refusing(bench: Bench, answer: HoldAnswer) -> Ride:
    """A ride that nobody asked a hold for before, and the provider's answer to the one that collection asks for."""
    bench.provider.next_hold = answer
    ride = await bench.ride(await bench.party(), 300)
    await go_on(bench)
    return ride


async def refused_before(bench: Bench, refusal: Refusal, reason: str) -> Ride:
    """A ride whose hold was refused, and whose vehicle was unlocked all the same."""
    ride = await bench.ride(await bench.party(), 300)
    await bench.hold(ride, "refused", "FIRST", reason=reason, refusal=refusal)
    return ride


async def told(bench: Bench, ride: Ride) -> tuple[str, str | None]:
    [row] = await bench.debits(ride)
    return row["state"], row["reason"]


def opened(bench: Bench) -> list[str]:
    """The holds that were asked for at the provider, each once."""
    return list(dict.fromkeys(key for what, key in bench.provider.calls if what == "open_hold"))


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [("rules", "overdue_debts"), ("fault", "rejected: SIGN_ERROR"), ("final", "TEEN_MODE"), ("passing", "LIMIT")],
)
async def test_a_ride_whose_hold_was_refused_before_it_gets_one_from_collection(
    database_url: str, refusal: Refusal, reason: str
) -> None:
    """It stood as a debt that nobody tried to collect, whoever had refused what."""
    async with open_bench(database_url, ORDERS) as bench:
        ride = await refused_before(bench, refusal, reason)
        await go_on(bench)
        assert await bench.states(ride) == [("settled", 300, 300)]
        assert "FIRST" not in opened(bench)
        await assert_books_agree(bench)


@pytest.mark.parametrize("answer", [Rejected("SIGN_ERROR"), Conflict("OUT_ORDER_NO_USED"), CapExceeded()])
@pytest.mark.parametrize("event", [RetryAsked(), OperatorDecided("submit_again", "put right")])
async def test_a_hold_that_is_refused_for_our_fault_waits_for_us_and_then_has_another_number(
    database_url: str, answer: HoldAnswer, event: DebitEvent
) -> None:
    async with open_bench(database_url, ORDERS) as bench:
        ride = await refusing(bench, answer)
        state, reason = await told(bench, ride)
        named = "cap_exceeded" if isinstance(answer, CapExceeded) else f"rejected: {getattr(answer, 'code', '')}"
        assert (state, reason) == ("manual", f"the hold was refused: {named}")
        bench.provider.next_hold = OPEN
        await bench.collection.happen([((ride.ride_no, 1), event)])
        await go_on(bench)
        assert await bench.states(ride) == [("settled", 300, 300)]
        assert len(opened(bench)) == 2
        await assert_books_agree(bench)


async def test_what_was_never_sent_can_be_settled_elsewhere(database_url: str) -> None:
    async with open_bench(database_url, ORDERS) as bench:
        ride = await refusing(bench, Rejected("SIGN_ERROR"))
        await bench.collection.happen([((ride.ride_no, 1), PaidElsewhere("cash"))])
        await go_on(bench)
        assert await bench.states(ride) == [("settled_elsewhere", 300, 0)]
        assert "debit" not in {what for what, _ in bench.provider.calls}
        await assert_books_agree(bench)


@pytest.mark.parametrize(
    "answer", [Declined(True, "ASSESSMENT_FAILED"), HoldStatus("refused", code="TOO_MANY_HOLDS", retryable=True)]
)
async def test_a_reason_that_passes_is_tried_on_the_calendars_next_day(database_url: str, answer: HoldAnswer) -> None:
    async with open_bench(database_url, ORDERS) as bench:
        ride = await refusing(bench, answer)
        assert (await told(bench, ride))[0] == "retry_wait"
        bench.provider.next_hold = OPEN
        await go_on(bench, 12, timedelta(hours=3))
        assert await bench.states(ride) == [("settled", 300, 300)]
        assert len(opened(bench)) == 2
        await assert_books_agree(bench)


async def test_support_tries_again_after_it_offered_a_payment_and_the_money_comes(database_url: str) -> None:
    """The number that he was given is closed there: sent again, it was a conflict that nobody got out of."""
    async with open_bench(database_url, Capabilities(hold_needed=True)) as bench:
        ride = await refused_before(bench, "final", "NOT_ELIGIBLE")
        bench.provider.next_hold = HoldStatus("refused", code="NOT_ELIGIBLE")
        await go_on(bench)
        assert (await told(bench, ride))[0] == "needs_rider"
        given = await bench.collection.ask_payment((ride.ride_no, 1))
        bench.provider.next_hold = OPEN
        await bench.collection.happen([((ride.ride_no, 1), RetryAsked())])
        await go_on(bench)
        assert await bench.states(ride) == [("settled", 300, 300)]
        called = [call for call in bench.provider.calls if call[0] in ("close_debit", "debit")]
        [debited] = bench.provider.taken
        assert called == [("close_debit", given.provider_key), ("debit", debited)]
        assert debited != given.provider_key
        await assert_books_agree(bench)


async def test_a_reason_that_never_passes_is_the_riders_in_the_end(database_url: str) -> None:
    async with open_bench(database_url, ORDERS) as bench:
        ride = await refusing(bench, Declined(True, "ASSESSMENT_FAILED"))
        await go_on(bench, 80, timedelta(hours=6))
        assert await told(bench, ride) == ("needs_rider", "the hold was refused: ASSESSMENT_FAILED")
        assert len(opened(bench)) == 7  # The calendar's first two steps fall on one morning.
        given = await bench.collection.ask_payment((ride.ride_no, 1))
        bench.provider.rider_pays(given.provider_key)
        await go_on(bench)
        assert await bench.states(ride) == [("settled", 300, 300)]
        await assert_books_agree(bench)


@pytest.mark.parametrize(
    ("answer", "state", "given"),
    [
        (Declined(False, "TEEN_MODE"), "needs_rider", False),
        (Declined(False, "TEEN_MODE"), "needs_rider", True),
        (CapExceeded(), "manual", False),
    ],
)
async def test_a_hold_that_the_app_brings_later_takes_the_debit_up(
    database_url: str, answer: HoldAnswer, state: str, given: bool
) -> None:
    async with open_bench(database_url, ORDERS) as bench:
        ride = await refusing(bench, answer)
        assert (await told(bench, ride))[0] == state
        if given:
            await bench.collection.ask_payment((ride.ride_no, 1))
        async with bench.database.transaction(HoldStore) as store:
            [debit] = await bench.debits(ride)
            row = await store.find_hold(debit["session_key"], debit["slot"])
            assert row is not None
            hold = replace(row.hold, state=HoldState.OPEN, refusal=None, reason=None, opened_at=bench.now)
            saved = await store.save_hold(replace(hold, provider_ref="hold-ref", due_at=bench.now), bench.now)
            assert saved is not None
            await store.wake_debits(saved, bench.now)
        bench.provider.holds[row.hold.provider_key] = OPEN
        await go_on(bench, 2)
        if given:
            assert (await told(bench, ride))[0] == "needs_rider", "while he pays, nothing else is tried"
            await go_on(bench, 12, timedelta(minutes=10))
            [key] = [key for what, key in bench.provider.calls if what == "close_debit"]
            assert bench.provider.calls.index(("close_debit", key)) < bench.provider.calls.index(("debit", key))
        assert await bench.states(ride) == [("settled", 300, 300)]
        await assert_books_agree(bench)


async def test_who_can_only_confirm_orders_pays_by_confirming_another(database_url: str) -> None:
    """WeChat Pay's way, where no openid of him is known: he had no way to pay, and was blocked for it."""
    async with open_bench(database_url, CONFIRMED) as bench:
        ride = await refusing(bench, Declined(False, "TEEN_MODE"))
        bench.provider.next_hold = HoldStatus("pending", action=OpenUrl("https://confirm.invalid"))
        with pytest.raises(NoPaymentError) as nothing:
            await bench.collection.ask_payment((ride.ride_no, 1))
        assert nothing.value.outcome == HOLD_ASKED
        await go_on(bench, 3)
        asked = await bench.collection.ask_payment((ride.ride_no, 1))
        assert asked.action == OpenUrl("https://confirm.invalid")
        bench.provider.holds[opened(bench)[-1]] = OPEN
        await go_on(bench, 12, timedelta(minutes=10))
        assert await bench.states(ride) == [("settled", 300, 300)]
        assert "request_payment" not in {what for what, _ in bench.provider.calls}
        await assert_books_agree(bench)
