"""A hold that its rider does not confirm: asked for again as a debit is tried, and at once when he wants to pay."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from debit_makers import NOW, ORDER, debit, terms
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from service.billing.agreements.standing import Refusal
from service.billing.debits import Debit, ImpossibleEventError, State, after
from service.billing.debits.dunning import RETRY_AFTER
from service.billing.debits.events import (
    Call,
    DisputeOpened,
    Due,
    Effect,
    OpenHold,
    PaymentWanted,
    PolicyDue,
    Suspended,
)
from service.billing.debits.state import HOLD_REFUSED, TO_CONFIRM, TO_OPEN, HoldSeen, Terms
from service.billing.outcomes import OpenUrl

CONFIRMED = replace(ORDER, hold_confirmed_by_rider=True)
MINUTE, QUARTER = timedelta(minutes=1), timedelta(minutes=15)
PAGE, OTHER_PAGE = OpenUrl("https://confirm.invalid/1"), OpenUrl("https://confirm.invalid/2")


def at(hold: HoldSeen | None) -> Terms:
    return replace(terms(CONFIRMED), hold=hold)


def shown() -> Debit:
    """A debit whose rider was asked to confirm a hold."""
    made = debit(State.NEEDS_RIDER, attempts=0, begun_at=None, submitted_at=None, asked_minor=0, reason=TO_CONFIRM)
    return replace(made, created_at=NOW, action=PAGE, due_at=NOW)


def holds_asked(effects: tuple[Effect, ...]) -> list[int]:
    return [effect.ordinal for effect in effects if isinstance(effect, OpenHold)]


class Unconfirmed:
    """A debit, and a provider who ends each of its holds a quarter of an hour after it was asked for."""

    def __init__(self) -> None:
        self.debit = debit(created_at=NOW, due_at=NOW)
        self.hold: HoldSeen | None = None
        self.now = NOW
        self.asked: list[datetime] = []
        self.looks = 0

    def run(self) -> None:
        """Until there is nothing to do but for the calendar."""
        while (ends_at := self._ends_at()) is not None or self.debit.due_at is not None:
            due_at = min(at for at in (ends_at, self.debit.due_at) if at is not None)
            self.now = max(self.now, due_at)
            if ends_at is not None and ends_at <= self.now:
                assert self.hold is not None
                self.hold = replace(self.hold, state="expired", action=None)
                self.debit = replace(self.debit, due_at=self.now)  # News of its hold wakes it.
            self.happen(Due())
            self.looks += 1
            assert self.looks < 100, "asked about for ever"

    def happen(self, event: Due | PaymentWanted) -> None:
        self.debit, effects = after(self.debit, event, self.now, at(self.hold))
        if holds_asked(effects):
            ordinal = 0 if self.hold is None else self.hold.ordinal + 1
            assert holds_asked(effects) == [ordinal]
            self.asked.append(self.now)
            self.hold = HoldSeen("requested", ordinal, action=PAGE, requested_at=self.now)

    def _ends_at(self) -> datetime | None:
        asked = self.hold is not None and self.hold.state == "requested"
        return self.asked[-1] + QUARTER if asked else None


def test_another_one_is_asked_for_on_the_calendars_days_and_then_he_must_want_to() -> None:
    """Every five minutes, or as soon as the provider had ended the one before, until the debt was written off."""
    it = Unconfirmed()
    it.run()
    assert [(asked - NOW).days for asked in it.asked] == [0, 0, 1, 3, 5, 7, 10, 14]
    assert len(it.asked) == 1 + len(RETRY_AFTER)
    assert (it.debit.state, it.debit.reason, it.debit.action) == (State.NEEDS_RIDER, TO_CONFIRM, None)
    it.happen(PaymentWanted())
    it.happen(PaymentWanted())
    assert len(it.asked) == 2 + len(RETRY_AFTER)
    assert (it.debit.state, it.debit.action) == (State.NEEDS_RIDER, PAGE)


def test_what_he_does_not_confirm_becomes_overdue_and_is_written_off_like_any_debt() -> None:
    it = Unconfirmed()
    it.run()
    while it.debit.policy_at is not None and it.debit.state is State.NEEDS_RIDER:
        it.debit, _ = after(it.debit, PolicyDue(), it.debit.policy_at, at(it.hold))
    assert (it.debit.state, it.debit.overdue) == (State.WRITTEN_OFF, True)


@given(st.lists(st.integers(0, 20 * 24 * 60), max_size=6))
def test_whenever_he_wants_to_pay_he_has_something_to_confirm_at_once(minutes: list[int]) -> None:
    for minute in sorted(minutes):
        it = Unconfirmed()
        it.run()
        it.now = max(it.now, NOW + minute * MINUTE)
        it.happen(PaymentWanted())
        it.happen(PaymentWanted())
        assert (it.debit.state, it.debit.action) == (State.NEEDS_RIDER, PAGE)
        assert it.hold is not None and it.hold.state == "requested"


@pytest.mark.parametrize("state", ["expired", "released"])
def test_what_the_ride_had_before_the_debit_asked_is_no_refusal_of_his(state: str) -> None:
    before = HoldSeen(state, 0, requested_at=NOW - MINUTE)
    assert holds_asked(after(debit(created_at=NOW, reason=TO_OPEN), Due(), NOW, at(before))[1]) == [1]
    assert holds_asked(after(shown(), Due(), NOW, at(before))[1]) == [1]


def test_one_that_ended_before_it_was_ever_shown_waits_for_the_calendar_too() -> None:
    over = HoldSeen("expired", 3, reason="expired at the provider", requested_at=NOW)
    made, effects = after(debit(created_at=NOW, reason=TO_OPEN), Due(), NOW + MINUTE, at(over))
    assert (made.state, made.reason, effects[:-1]) == (
        State.RETRY_WAIT, f"{HOLD_REFUSED}: expired at the provider", ()
    )  # fmt: skip
    assert made.due_at is not None and made.due_at > NOW + timedelta(hours=1)
    assert holds_asked(after(made, Due(), made.due_at, at(over))[1]) == [4]
    another = HoldSeen("completed", 3, requested_at=NOW)
    assert holds_asked(after(debit(created_at=NOW, reason=TO_OPEN), Due(), NOW, at(another))[1]) == [4]


@pytest.mark.parametrize("refusal", [None, "rules"])
def test_who_wants_to_pay_is_given_the_hold_that_stands_or_another_one_and_nothing_beside_it(
    refusal: Refusal | None,
) -> None:
    standing = HoldSeen("requested", 1, action=OTHER_PAGE, requested_at=NOW)
    made, effects = after(shown(), PaymentWanted(), NOW, at(standing))
    assert (made.action, made.payable_until, made.given, effects) == (OTHER_PAGE, None, False, ())
    over = HoldSeen("released" if refusal is None else "refused", 1, refusal=refusal, requested_at=NOW)
    made, effects = after(shown(), PaymentWanted(), NOW, at(over))
    assert (made.state, made.action, made.payable_until, holds_asked(effects)) == (State.NEEDS_RIDER, None, None, [2])


def test_what_he_has_confirmed_or_was_refused_goes_on_by_itself() -> None:
    confirmed, _ = after(shown(), PaymentWanted(), NOW, at(HoldSeen("open", 1)))
    assert (confirmed.action, confirmed.due_at) == (None, NOW)
    assert Call("submit") in after(confirmed, Due(), NOW, at(HoldSeen("open", 1)))[1]
    final = HoldSeen("refused", 1, refusal="final", reason="NO")
    refused, _ = after(shown(), PaymentWanted(), NOW, at(final))
    assert after(refused, Due(), NOW, at(final))[0].reason == f"{HOLD_REFUSED}: NO"


@pytest.mark.parametrize("event", [Suspended("the lock failed"), DisputeOpened("complaint")])
def test_nothing_is_asked_for_while_it_stands_still(event: Suspended | DisputeOpened) -> None:
    still, _ = after(shown(), event, NOW, at(HoldSeen("expired", 1)))
    with pytest.raises(ImpossibleEventError):
        after(still, PaymentWanted(), NOW, at(HoldSeen("expired", 1)))


def test_who_can_pay_in_no_other_way_gets_another_one_at_once_between_two_tries() -> None:
    only = replace(at(HoldSeen("refused", 1, refusal="passing")), capabilities=replace(CONFIRMED, payable_apart=False))
    waits, _ = after(debit(created_at=NOW, reason=TO_OPEN), Due(), NOW, only)
    assert waits.state is State.RETRY_WAIT
    made, _ = after(waits, PaymentWanted(), NOW, only)
    assert holds_asked(after(made, Due(), NOW, only)[1]) == [2]


def test_what_is_written_off_stays_so_though_its_rider_wants_to_pay_and_its_hold_was_refused() -> None:
    """It was new again, and its loss stood in the ledger beside it. Histories found it."""
    over = debit(State.WRITTEN_OFF, reason=f"{HOLD_REFUSED}: TOO_MANY_HOLDS", forgone_minor=1000)
    only = replace(at(None), capabilities=replace(CONFIRMED, payable_apart=False))
    wanted, _ = after(over, PaymentWanted(), NOW, only)
    assert (wanted.state, wanted.forgone_minor) == (State.WRITTEN_OFF, 1000)
