"""What was ended at the provider in the merchant's name, and not by us: paid to him, or cancelled."""

from __future__ import annotations

from typing import Any

import pytest
from debit_makers import KEY, NOW, ORDER, debit, terms

from service.billing.debits import ImpossibleEventError, State, after
from service.billing.debits.events import (
    DebitEvent,
    LowerAnswered,
    NetAgain,
    OwedChanged,
    PaidElsewhere,
    Post,
    Publish,
    Queried,
    Submitted,
)
from service.billing.debits.obligations import net
from service.billing.debits.state import GONE_THERE, Debit, Receipt, gone_there
from service.billing.outcomes import Closed

PAID, GONE, JUST_CLOSED = Closed("PAID_ELSEWHERE", "paid"), Closed("REVOKED", "cancelled"), Closed("CLOSED")
PARTLY: dict[str, Any] = {"receipts": (Receipt(KEY, 400, NOW, "ref"),), "paid_minor": 400}
OPEN = (State.UNKNOWN, State.PENDING, State.RETRY_WAIT, State.NEEDS_RIDER)


def cancelled(**fields: Any) -> Debit:
    """A debit that was cancelled at its provider."""
    gone, _ = after(debit(State.PENDING, **fields), Queried(KEY, GONE), NOW, terms(ORDER))
    assert gone_there(gone)
    return gone


@pytest.mark.parametrize("state", OPEN)
def test_what_is_marked_as_paid_there_is_settled_elsewhere_and_booked_so(state: State) -> None:
    settled, effects = after(debit(state, overdue=True), Queried(KEY, PAID), NOW, terms(ORDER))
    assert (settled.state, settled.outside_minor, settled.paid_minor) == (State.SETTLED_ELSEWHERE, 1000, 0)
    assert (settled.lowering_to, settled.due_at, settled.overdue) == (None, None, False)
    assert settled.reason == "provider: marked as paid there, not by us (PAID_ELSEWHERE)"
    assert Post("elsewhere", 1000) in effects and Publish("debit.settled") in effects


@pytest.mark.parametrize("state", OPEN)
def test_what_is_cancelled_there_is_nobodys_to_pay(state: State) -> None:
    gone, effects = after(debit(state, action=None, given=True), Queried(KEY, GONE), NOW, terms(ORDER))
    assert (gone.state, gone.due_at, gone.payable_until, gone.given) == (State.MANUAL, None, None, False)
    assert gone.reason is not None and gone.reason.startswith(f"{GONE_THERE} (REVOKED): ")
    assert effects == ()


@pytest.mark.parametrize("event", [Submitted(KEY, GONE), Submitted(KEY, PAID)])
def test_it_may_be_the_answer_to_what_is_sent(event: Submitted) -> None:
    ended, _ = after(debit(State.SUBMITTING), event, NOW, terms(ORDER))
    assert ended.state is (State.MANUAL if event.outcome == GONE else State.SETTLED_ELSEWHERE)


def test_what_was_only_closed_is_the_riders_as_before() -> None:
    closed, _ = after(debit(State.PENDING), Queried(KEY, JUST_CLOSED), NOW, terms(ORDER))
    assert closed.state is State.NEEDS_RIDER


@pytest.mark.parametrize("state", [State.SETTLED, State.SETTLED_ELSEWHERE, State.CANCELLED, State.MANUAL])
@pytest.mark.parametrize("outcome", [PAID, GONE])
def test_what_is_over_stays_as_it_is(state: State, outcome: Closed) -> None:
    before = debit(state)
    assert after(before, Queried(KEY, outcome), NOW, terms(ORDER))[0].state is state


def test_a_written_off_debt_that_is_marked_as_paid_there_is_paid_and_one_that_is_cancelled_stays() -> None:
    debt = debit(State.WRITTEN_OFF, due_at=NOW)
    settled, effects = after(debt, Queried(KEY, PAID), NOW, terms(ORDER))
    assert (settled.state, settled.outside_minor) == (State.SETTLED_ELSEWHERE, 1000)
    assert {Post("write_off_back", 1000), Post("elsewhere", 1000)} <= set(effects)
    assert after(debt, Queried(KEY, GONE), NOW, terms(ORDER))[0].state is State.WRITTEN_OFF


@pytest.mark.parametrize("event", [LowerAnswered(KEY, GONE), Queried(KEY, GONE)])
@pytest.mark.parametrize(("wanted", "state"), [(700, State.MANUAL), (400, State.SETTLED)])
def test_what_was_being_lowered_asks_for_what_is_owed_or_is_over(event: DebitEvent, wanted: int, state: State) -> None:
    lowering = debit(State.PENDING, lowering_to=wanted, **PARTLY)
    ended, _ = after(lowering, event, NOW, terms(ORDER))
    assert (ended.state, ended.amount_minor, ended.lowering_to) == (state, wanted, None)
    assert state is not State.MANUAL or net(wanted, [ended], ORDER, None) == ()


def test_what_is_owed_no_longer_of_what_could_not_be_lowered_is_given_up() -> None:
    ended, effects = after(debit(State.PENDING, excess_minor=1000), Queried(KEY, GONE), NOW, terms(ORDER))
    assert (ended.state, [one for one in effects if isinstance(one, Post)]) == (State.CANCELLED, [])


@pytest.mark.parametrize(("owed", "state", "amount"), [(0, State.CANCELLED, 1000), (300, State.MANUAL, 300)])
def test_nothing_is_unclear_about_it_so_that_it_follows_what_is_owed(owed: int, state: State, amount: int) -> None:
    [change] = net(owed, [cancelled()], ORDER, None)
    assert getattr(change, "event", None) == OwedChanged(owed)
    changed, _ = after(cancelled(), OwedChanged(owed), NOW, terms(ORDER))
    assert (changed.state, changed.amount_minor) == (state, amount)


def test_what_came_to_be_owed_while_nobody_knew_is_netted_then() -> None:
    unknown = debit(State.UNKNOWN, net_again=True)
    gone, effects = after(unknown, Queried(KEY, GONE), NOW, terms(ORDER))
    assert gone_there(gone) and NetAgain() in effects


def test_a_person_may_say_that_it_was_paid_also_of_what_brings_no_more() -> None:
    short = debit(State.MANUAL, reason="400 of 1000 taken, and its number brings no more", **PARTLY)
    for told, outside in ((cancelled(), 1000), (short, 600)):
        settled, effects = after(told, PaidElsewhere("cash"), NOW, terms(ORDER))
        assert (settled.state, settled.outside_minor) == (State.SETTLED_ELSEWHERE, outside)
        assert Post("elsewhere", outside) in effects
    with pytest.raises(ImpossibleEventError):
        after(debit(State.MANUAL, reason="271316598"), PaidElsewhere("cash"), NOW, terms(ORDER))
