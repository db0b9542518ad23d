"""A debit whose hold is refused: whose matter that is decides what comes next, and every end has a way out."""

from __future__ import annotations

from datetime import timedelta

import pytest
from debit_makers import CARD, NOW, ORDER, debit, terms
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from service.billing.agreements.standing import Refusal
from service.billing.capabilities import Capabilities
from service.billing.debits import Debit, ImpossibleEventError, State, after
from service.billing.debits.dunning import RETRY_AFTER
from service.billing.debits.events import (
    Call,
    CloseAnswered,
    DisputeClosed,
    DisputeOpened,
    Due,
    Effect,
    OpenHold,
    OperatorDecided,
    OwedChanged,
    PaidElsewhere,
    PaymentAnswered,
    PaymentWanted,
    PolicyDue,
    Post,
    Publish,
    Resumed,
    RetryAsked,
    Suspended,
)
from service.billing.debits.obligations import Change, OpenDebit, net
from service.billing.debits.state import TO_CONFIRM, TO_OPEN, HoldSeen, Terms
from service.billing.debits.unanswered import ANSWERED_WITHIN
from service.billing.outcomes import Closed, NeedsRider, NotFound, OpenUrl

CONFIRMED = replace(ORDER, hold_confirmed_by_rider=True)
ONLY_CONFIRMED = replace(CONFIRMED, payable_apart=False)
MINUTE = timedelta(minutes=1)
OVER = NOW + 2 * terms().calendar.payment_open_for


def refused(refusal: Refusal, code: str = "NO", ordinal: int = 0) -> HoldSeen:
    return HoldSeen("refused", ordinal, reason=code, refusal=refusal)


def at(hold: HoldSeen | None, able: Capabilities = ORDER) -> Terms:
    return replace(terms(able), hold=hold)


def asked_for(effects: tuple[Effect, ...]) -> list[int]:
    return [effect.ordinal for effect in effects if isinstance(effect, OpenHold)]


@pytest.mark.parametrize("refusal", ["rules", "fault", "passing", "final"])
def test_what_was_refused_before_the_debit_asked_counts_as_never_asked(refusal: Refusal) -> None:
    """The vehicle was unlocked all the same: the ride was the rider's debt, for a reason of ours or of that day."""
    made, effects = after(debit(), Due(), NOW, at(refused(refusal, ordinal=2)))
    assert (asked_for(effects), made.state, made.reason) == ([3], State.NEW, TO_OPEN)


WAITING = {
    "new": debit(reason=TO_OPEN),
    "a retry": debit(State.RETRY_WAIT, attempts=0, begun_at=None, submitted_at=None, asked_minor=0, reason=TO_OPEN),
    "to confirm": debit(
        State.NEEDS_RIDER, attempts=0, begun_at=None, submitted_at=None, asked_minor=0, reason=TO_CONFIRM
    ),
}
"""Debits that have asked for a hold."""


@pytest.mark.parametrize("waiting", WAITING)
@pytest.mark.parametrize(
    ("refusal", "state"),
    [("fault", State.MANUAL), ("passing", State.RETRY_WAIT), ("final", State.NEEDS_RIDER)],
)
def test_what_is_refused_to_the_debit_is_told_by_whose_matter_it_is(
    waiting: str, refusal: Refusal, state: State
) -> None:
    made, effects = after(WAITING[waiting], Due(), NOW, at(refused(refusal, "rejected: SIGN_ERROR")))
    assert (made.state, made.reason) == (state, "the hold was refused: rejected: SIGN_ERROR")
    assert asked_for(effects) == []
    assert (made.due_at is not None) is (state is State.RETRY_WAIT)


@pytest.mark.parametrize("waiting", WAITING)
def test_what_our_own_rules_refuse_is_asked_for_again(waiting: str) -> None:
    made, effects = after(WAITING[waiting], Due(), NOW, at(refused("rules", "overdue_debts", 4)))
    assert (made.state, asked_for(effects)) == (WAITING[waiting].state, [5])


def test_a_reason_that_passes_is_tried_on_the_calendars_days_and_then_the_riders() -> None:
    """As often as a debit that is declined, and no more: each time he is reminded before."""
    made, now, holds, days, facts = debit(created_at=NOW, due_at=NOW), NOW, 0, [], list[str]()
    while made.due_at is not None:
        now = made.due_at
        made, effects = after(made, Due(), now, at(refused("passing", ordinal=holds)))
        assert asked_for(effects) == [holds + 1]
        holds += 1
        now += MINUTE
        made, _ = after(made, Due(), now, at(refused("passing", ordinal=holds)))
        days.append((now - NOW).days)
        for _ in range(2):
            if made.policy_at is not None and made.due_at is not None and made.policy_at < made.due_at:
                made, told = after(made, PolicyDue(), made.policy_at, at(refused("passing", ordinal=holds)))
                facts += [effect.fact for effect in told if isinstance(effect, Publish)]
    assert (made.state, made.attempts) == (State.NEEDS_RIDER, 0)
    assert holds == 1 + len(RETRY_AFTER)
    assert days == [0, 0, 1, 3, 5, 7, 10, 14]
    assert facts.count("reminder.due") == len(RETRY_AFTER)


@pytest.mark.parametrize("event", [RetryAsked(), OperatorDecided("submit_again", "put right")])
def test_once_we_have_put_it_right_another_hold_is_asked_for(event: RetryAsked | OperatorDecided) -> None:
    hold = refused("fault", "rejected: SIGN_ERROR", 1)
    made, _ = after(debit(reason=TO_OPEN), Due(), NOW, at(hold))
    made, effects = after(made, event, NOW, at(hold))
    assert (made.state, effects, made.due_at) == (State.NEW, (), NOW)
    made, effects = after(made, Due(), NOW, at(hold))
    assert (asked_for(effects), [effect for effect in effects if isinstance(effect, Call)]) == ([2], [])


def test_what_was_never_sent_is_not_settled_by_word_but_elsewhere_or_given_up() -> None:
    stuck, _ = after(debit(reason=TO_OPEN), Due(), NOW, at(refused("fault")))
    with pytest.raises(ImpossibleEventError):
        after(stuck, OperatorDecided("settled", "so it says"), NOW, at(refused("fault")))
    elsewhere, effects = after(stuck, PaidElsewhere("cash"), NOW, at(refused("fault")))
    assert (elsewhere.state, elsewhere.due_at, effects[0]) == (State.SETTLED_ELSEWHERE, None, Post("elsewhere", 1000))
    given_up, effects = after(stuck, OperatorDecided("cancel", "our fault"), NOW, at(refused("fault")))
    assert (given_up.state, given_up.given, effects[0]) == (State.CANCELLED, False, Post("write_off", 1000))


def left() -> Debit:
    """A debit whose hold was refused for good."""
    made, _ = after(debit(reason=TO_OPEN), Due(), NOW, at(refused("final")))
    return made


def test_a_hold_that_opens_after_all_takes_the_debit_up() -> None:
    made, effects = after(left(), Due(), NOW, at(refused("final")))
    assert (made.state, effects, made.due_at) == (State.NEEDS_RIDER, (), None)
    made, _ = after(left(), Due(), NOW, at(HoldSeen("open")))
    made, effects = after(made, Due(), NOW, at(HoldSeen("open")))
    assert (made.state, made.attempts, effects[0]) == (State.SUBMITTING, 1, Call("submit"))


def test_what_stood_still_meanwhile_is_taken_up_when_it_goes_on() -> None:
    opened = at(HoldSeen("open"))
    still, _ = after(left(), Suspended("the lock failed"), NOW, opened)
    assert after(still, Due(), NOW, opened)[0].state is State.NEEDS_RIDER
    going_on, _ = after(still, Resumed(), NOW, opened)
    assert after(going_on, Due(), NOW, opened)[0].state is State.NEW
    disputed, _ = after(left(), DisputeOpened("complaint"), NOW, opened)
    assert after(disputed, Due(), NOW, opened)[0].state is State.NEEDS_RIDER
    going_on, _ = after(disputed, DisputeClosed("resolved"), NOW, opened)
    assert after(going_on, Due(), NOW, opened)[0].state is State.NEW


def test_what_he_was_given_to_pay_is_closed_before_the_hold_that_opened_is_used() -> None:
    """Its number is another one at the provider: both could be taken."""
    given, _ = after(left(), PaymentWanted(), NOW, at(refused("final")))
    given, _ = after(given, PaymentAnswered(given.provider_key, NeedsRider("PAY", OpenUrl("u"))), NOW, at(None))
    paying, effects = after(given, Due(), NOW + MINUTE, at(HoldSeen("open")))
    assert (paying.state, effects) == (State.NEEDS_RIDER, (Call("query"),))
    made, _ = after(given, Due(), OVER, at(HoldSeen("open")))
    made, effects = after(made, Due(), OVER, at(HoldSeen("open")))
    assert (made.state, effects) == (State.NEW, (Call("close"),))
    made, _ = after(made, CloseAnswered(made.provider_key, Closed()), OVER, at(HoldSeen("open")))
    made, effects = after(made, Due(), OVER, at(HoldSeen("open")))
    assert (made.state, made.given, effects[0]) == (State.SUBMITTING, False, Call("submit"))


@pytest.mark.parametrize("closed", [Closed(), NotFound()])
def test_a_number_that_was_closed_on_him_is_not_sent_again_where_each_attempt_has_its_own(
    closed: Closed | NotFound,
) -> None:
    """It was a conflict there, and a person's for ever: support had offered a payment, and tried the debit again."""
    able = replace(CARD, hold_needed=True)
    opened = at(HoldSeen("open"), able)
    given, _ = after(left(), PaymentWanted(), NOW, at(refused("final"), able))
    made, _ = after(given, RetryAsked(), NOW, opened)
    assert after(made, Due(), NOW, opened)[1] == (Call("close"),)
    made, _ = after(made, CloseAnswered(made.provider_key, closed), NOW, opened)
    made, effects = after(made, Due(), NOW, opened)
    assert (made.state, effects[0], made.asked_minor) == (State.SUBMITTING, Call("submit"), made.amount_minor)
    used = closed == Closed()
    assert (made.provider_key != given.provider_key, made.attempts) == ((True, 2) if used else (False, 1))


def test_what_he_was_given_is_closed_before_he_is_asked_to_confirm_another_hold() -> None:
    passing = at(refused("passing"), CONFIRMED)
    made, _ = after(debit(reason=TO_OPEN), Due(), NOW, passing)
    made, _ = after(made, PaymentWanted(), NOW, passing)
    made, effects = after(made, Due(), OVER, passing)
    assert effects == (Call("query"),)
    made, _ = after(replace(made, payable_until=None), Due(), OVER, passing)
    assert after(made, Due(), OVER, passing)[1] == (Call("close"),)
    made, _ = after(made, CloseAnswered(made.provider_key, NotFound()), OVER, passing)
    made, effects = after(made, Due(), OVER, passing)
    assert (asked_for(effects), made.submitted_at, made.asked_minor) == ([1], None, 0)


def test_who_can_only_pay_by_confirming_an_order_is_asked_to_confirm_another() -> None:
    """WeChat Pay with confirmed orders knows no openid of him: "pay now" was an error, for good."""
    made, effects = after(left(), PaymentWanted(), NOW, at(refused("final"), ONLY_CONFIRMED))
    assert (made.state, made.payable_until, effects) == (State.NEW, None, ())
    made, effects = after(made, Due(), NOW, at(refused("final"), ONLY_CONFIRMED))
    assert asked_for(effects) == [1]
    confirm = HoldSeen("requested", 1, OpenUrl("https://confirm.invalid"))
    made, _ = after(made, Due(), NOW, at(confirm, ONLY_CONFIRMED))
    assert (made.state, made.reason, made.action) == (State.NEEDS_RIDER, TO_CONFIRM, confirm.action)


ENDS: dict[str, HoldSeen] = {
    "lapsed": HoldSeen("expired"),
    "rules": refused("rules"),
    "fault": refused("fault"),
    "passing": refused("passing"),
    "final": refused("final"),
}
"""How a hold that was asked for can end without having opened."""


class Waiting:
    """A debit and the holds that it asks for, of which none has opened."""

    def __init__(self, able: Capabilities) -> None:
        self.able = able
        self.debit = debit(created_at=NOW)
        self.hold: HoldSeen | None = None
        self.now = NOW

    def look(self) -> tuple[Effect, ...]:
        """Its time has come, or somebody wants it to; the hold that it asks for is the ride's next."""
        if self.debit.due_at is None:
            self.debit, _ = after(self.debit, RetryAsked(), self.now, at(self.hold, self.able))
        assert self.debit.due_at is not None
        self.now = max(self.now, self.debit.due_at)
        self.debit, effects = after(self.debit, Due(), self.now, at(self.hold, self.able))
        if asked_for(effects):
            assert asked_for(effects) == [0 if self.hold is None else self.hold.ordinal + 1]
            self.hold = HoldSeen("requested", asked_for(effects)[0])
        return effects


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(sorted(ENDS)), max_size=12), st.sampled_from([ORDER, CONFIRMED, ONLY_CONFIRMED]))
def test_whatever_became_of_its_holds_the_debit_gets_another_and_is_sent_on_an_open_one_only(
    ends: list[str], able: Capabilities
) -> None:
    it = Waiting(able)
    for end in [*ends, "open"]:
        for _ in range(3):
            assert Call("submit") not in it.look()
            if it.hold is not None and it.hold.state == "requested":
                break
        assert it.hold is not None and it.hold.state == "requested", it.debit
        it.hold = replace(ENDS.get(end, HoldSeen("open")), ordinal=it.hold.ordinal)
    assert Call("submit") in it.look()


def stuck() -> Debit:
    """A debit whose hold was refused for our fault: nothing is unclear about it, and it was never sent."""
    made, _ = after(debit(reason=TO_OPEN), Due(), NOW, at(refused("fault")))
    return made


def test_obligations_do_not_wait_for_what_was_never_sent() -> None:
    """A ride that was voided stayed an operator's to decide, and what was owed on top of it another debit."""
    assert net(1300, [stuck()], ORDER, None) == (Change(1, OwedChanged(1300)),)
    more, _ = after(stuck(), OwedChanged(1300), NOW, at(refused("fault")))
    less, _ = after(stuck(), OwedChanged(700), NOW, at(refused("fault")))
    assert [(made.state, made.amount_minor) for made in (more, less)] == [(State.MANUAL, 1300), (State.MANUAL, 700)]
    nothing, _ = after(stuck(), OwedChanged(0), NOW, at(refused("fault")))
    assert (nothing.state, nothing.due_at, nothing.given) == (State.CANCELLED, None, False)


def test_what_was_paid_in_cash_before_it_was_sent_is_not_the_one_debit_that_there_may_be() -> None:
    cash, _ = after(stuck(), PaidElsewhere("cash"), NOW, at(refused("fault")))
    assert net(1300, [cash], ORDER, None) == (OpenDebit(2, 300, State.NEW),)


def test_a_hold_that_nobody_answers_for_days_is_a_persons_to_look_at_and_goes_on_by_itself_once_it_opens() -> None:
    """A code that nobody listed: it was asked about every five minutes, for ever, and nobody was told."""
    asked = HoldSeen("requested", 1, requested_at=NOW)
    made, _ = after(debit(reason=TO_OPEN), Due(), NOW + ANSWERED_WITHIN - MINUTE, at(asked))
    assert (made.state, made.due_at is not None) == (State.NEW, True)
    made, _ = after(made, Due(), NOW + ANSWERED_WITHIN, at(asked))
    assert (made.state, made.reason, made.due_at) == (
        State.MANUAL, "the hold was refused: its provider says neither yes nor no", None
    )  # fmt: skip
    for hold in (asked, HoldSeen("open", 1)):
        again, effects = after(made, Due(), NOW + 2 * ANSWERED_WITHIN, at(hold))
        assert (again.state, effects) == ((State.MANUAL if hold is asked else State.NEW), ())
