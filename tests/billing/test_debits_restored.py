"""After a restore to an earlier instant: what became of a debit in the time that was lost is found before more is done.

The rider may have been given its number, and paid it; another number may have been tried; nothing of that is known.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from debit_makers import CARD, KEY, NOW, ORDER, debit, terms
from msgspec.structs import replace

from service.billing.capabilities import Capabilities
from service.billing.debits import Debit, State, after
from service.billing.debits.answers import RESTORED
from service.billing.debits.events import (
    Call,
    CloseAnswered,
    DebitEvent,
    Due,
    Effect,
    LowerAnswered,
    OwedChanged,
    Queried,
    StartRefund,
)
from service.billing.debits.state import TO_CONFIRM
from service.billing.outcomes import AlreadyDone, Closed, Declined, NotFound, Outcome, Succeeded

LOW = Declined(retryable=True, code="LOW")
GONE = Declined(retryable=False, code="GONE")
UNSENT = debit(State.NEEDS_RIDER, attempts=0, begun_at=None, submitted_at=None, asked_minor=0, reason="too much")


def lived(made: Debit, *events: DebitEvent, able: Capabilities = CARD, at: datetime = NOW) -> tuple[Debit, Effect]:
    """The debit after these events, and what the last one makes be done."""
    effects: tuple[Effect, ...] = ()
    for event in events:
        made, effects = after(made, event, at, terms(able))
    return made, effects[0] if effects else NotImplemented


def lost(made: Debit) -> Debit:
    return replace(made, verify="present")


@pytest.mark.parametrize("answer", [Closed(), NotFound()])
def test_the_number_that_the_rider_may_have_is_closed_before_the_next_one_is_even_asked_about(answer: Outcome) -> None:
    waits, call = lived(lost(debit(State.RETRY_WAIT)), Due())
    assert (waits.state, call) == (State.RETRY_WAIT, Call("close"))
    asked, _ = lived(waits, CloseAnswered(KEY, answer), Due())
    assert (asked.state, asked.verify, asked.attempts) == (State.UNKNOWN, None, 2)
    assert asked.provider_key != KEY
    again, call = lived(asked, Due())
    assert call == Call("query")
    for minutes in (0, 2):
        again, _ = lived(again, Queried(again.provider_key, NotFound()), at=NOW + timedelta(minutes=minutes))
    assert (again.state, again.provider_key) == (State.SUBMITTING, asked.provider_key)


def test_what_the_rider_paid_in_the_lost_time_is_found_and_nothing_more_is_taken() -> None:
    paid, call = lived(lost(debit(State.RETRY_WAIT)), Due(), CloseAnswered(KEY, AlreadyDone()), Due())
    assert (paid.state, call) == (State.UNKNOWN, Call("query"))
    assert paid.provider_key == KEY
    settled, _ = lived(paid, Queried(KEY, Succeeded(1000)))
    assert (settled.state, settled.paid_minor) == (State.SETTLED, 1000)


def test_where_nothing_is_closed_the_number_is_left_to_the_rider_and_asked_about() -> None:
    left, _ = lived(lost(debit(State.RETRY_WAIT)), Due(), able=replace(CARD, closes_unpaid=False))
    assert (left.state, left.due_at is not None) == (State.NEEDS_RIDER, True)


@pytest.mark.parametrize("state", [State.PENDING, State.UNKNOWN])
def test_what_was_under_way_then_and_is_declined_now_may_have_been_tried_under_the_next_number(state: State) -> None:
    waits, _ = lived(lost(debit(state)), Queried(KEY, LOW))
    assert waits.state is State.RETRY_WAIT and waits.due_at is not None
    asked, _ = lived(waits, Due(), CloseAnswered(KEY, Closed()), Due(), at=waits.due_at)
    assert (asked.state, asked.reason) == (State.UNKNOWN, RESTORED)


@pytest.mark.parametrize("answer", [Declined(True, "LOW"), Closed("TIMEOUT")])
def test_after_a_restore_the_next_key_is_asked_about_too_until_one_is_not_known(answer: Outcome) -> None:
    used = debit(State.UNKNOWN, reason=RESTORED)
    waits, _ = after(used, Queried(KEY, answer), NOW, terms())
    assert waits.state is State.RETRY_WAIT and waits.due_at is not None
    if isinstance(answer, Declined):  # What was closed nobody can pay.
        waits, _ = lived(waits, Due(), CloseAnswered(KEY, Closed()), at=waits.due_at)
    assert waits.due_at is not None
    asked, effects = after(waits, Due(), waits.due_at, terms())
    assert (asked.state, effects) == (State.UNKNOWN, ())
    assert asked.provider_key != KEY
    for minutes in (0, 2):
        at = waits.due_at + timedelta(minutes=minutes)
        asked, _ = after(asked, Queried(asked.provider_key, NotFound()), at, terms())
    assert asked.state is State.SUBMITTING and asked.verify is None
    waits, _ = after(debit(State.UNKNOWN), Queried(KEY, answer), NOW, terms())
    assert waits.due_at is not None
    assert after(waits, Due(), waits.due_at, terms())[0].state is State.SUBMITTING


@pytest.mark.parametrize(("answer", "call"), [(LOW, Call("close")), (GONE, Call("query"))])
def test_a_number_that_was_used_in_the_lost_time_may_have_been_given_to_him_too(answer: Outcome, call: Call) -> None:
    used, _ = lived(debit(State.UNKNOWN, reason=RESTORED), Queried(KEY, answer))
    assert used.due_at is not None
    assert lived(used, Due(), at=used.due_at)[1] == call


def test_what_he_must_approve_is_asked_about_until_the_provider_says_that_he_was_given_nothing() -> None:
    asked, call = lived(lost(UNSENT), Due())
    assert call == Call("query")
    rests, _ = lived(asked, Queried(KEY, NotFound()))
    assert (rests.state, rests.due_at, rests.verify) == (State.NEEDS_RIDER, None, "next")
    paid, _ = lived(asked, Queried(KEY, Succeeded(1000)))
    assert (paid.state, paid.paid_minor) == (State.SETTLED, 1000)


@pytest.mark.parametrize("able", [CARD, ORDER])
@pytest.mark.parametrize("made", [debit(State.NEW), replace(UNSENT, reason=TO_CONFIRM)], ids=["new", "to confirm"])
def test_what_is_owed_no_longer_is_asked_about_all_the_same(made: Debit, able: Capabilities) -> None:
    """Sent and paid in the lost time, voided after the restore: the money goes back."""
    over, _ = lived(lost(made), OwedChanged(0), able=able)
    assert (over.state, over.due_at) == (State.CANCELLED, NOW)
    asked, call = lived(over, Due(), able=able)
    assert call == Call("query")
    paid, back = after(asked, Queried(KEY, Succeeded(1000)), NOW, terms(able))
    assert paid.state is State.SETTLED_TWICE
    assert [effect.amount_minor for effect in back if isinstance(effect, StartRefund)] == [1000]
    assert lived(asked, Queried(KEY, NotFound()), able=able)[0].due_at is None
    never, _ = lived(made, OwedChanged(0), able=able)
    assert (never.state, never.due_at) == (State.CANCELLED, None)


def test_a_declined_debit_that_is_owed_no_longer_is_closed_first() -> None:
    closing, call = lived(lost(debit(State.RETRY_WAIT)), OwedChanged(0), Due())
    assert (closing.state, call) == (State.RETRY_WAIT, Call("lower"))
    assert lived(closing, LowerAnswered(KEY, Closed()))[0].state is State.CANCELLED


def test_what_no_hold_has_let_be_tried_goes_on_by_the_calendar_once_a_doubt_about_it_is_settled() -> None:
    """A notification had named it: the answer to the question about that tripped, again and again. A world found it."""
    waits = replace(UNSENT, state=State.RETRY_WAIT, reason="the hold was refused: LAPSED", created_at=NOW, due_at=NOW)
    goes_on, _ = lived(replace(waits, doubted_minor=100), Queried(KEY, NotFound()))
    assert (goes_on.state, goes_on.doubted_minor) == (State.RETRY_WAIT, None)
    assert goes_on.due_at is not None
    assert goes_on.due_at > NOW
