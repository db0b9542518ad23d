"""What comes between: a wish while a question is under way, a doubt, a dispute, a night."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest
from debit_makers import CARD, NOW, ORDER, debit, terms
from msgspec.structs import replace

from service.billing.capabilities import Capabilities
from service.billing.debits import State, after
from service.billing.debits.events import (
    Call,
    DisputeClosed,
    DisputeOpened,
    Due,
    NetAgain,
    Notified,
    OwedChanged,
    PaidElsewhere,
    Post,
    Queried,
    Suspended,
)
from service.billing.debits.obligations import covered_minor
from service.billing.outcomes import Accepted, NotFound, Succeeded

KEY = debit().provider_key
ASKS_BY_SENDING = replace(CARD, same_key_is_query=True)


@dataclass
class Night:
    """An attempt that was due `late` ago, at an hour of the rider's night or day."""

    late: timedelta
    at_night: bool
    attempts: int
    waits: bool


def test_a_doubt_does_not_send_a_key_that_may_be_forgotten() -> None:
    """Sending the same key again asks only for as long as the provider remembers it: after that it would be taken."""
    late = debit(State.UNKNOWN, submitted_at=NOW - timedelta(hours=25), begun_at=NOW - timedelta(hours=25))
    doubted, _ = after(late, Notified(KEY, Succeeded(900)), NOW, terms(ASKS_BY_SENDING))
    assert doubted.doubted_minor == 900
    asked, effects = after(doubted, Due(), NOW, terms(ASKS_BY_SENDING))
    assert (asked.state, effects) == (State.MANUAL, ())
    asked, effects = after(doubted, Due(), NOW, terms(CARD))
    assert (asked.state, effects) == (State.UNKNOWN, (Call("query"),))


def test_less_is_owed_while_a_question_is_under_way_and_the_provider_is_told_at_once() -> None:
    able = replace(ORDER, reduces_pending=True)
    lowering, _ = after(debit(State.PENDING), OwedChanged(400), NOW, terms(able))
    polled, _ = after(lowering, Queried(KEY, Accepted()), NOW, terms(able))
    assert (polled.lowering_to, polled.due_at) == (400, NOW)
    untouched, _ = after(debit(State.PENDING), Queried(KEY, Accepted()), NOW, terms(able))
    assert untouched.due_at is not None and untouched.due_at > NOW


def test_what_is_owed_no_longer_was_not_paid_outside_either() -> None:
    left, _ = after(debit(State.PENDING), OwedChanged(600), NOW, terms(ORDER))
    assert left.excess_minor == 400
    outside, effects = after(left, PaidElsewhere("cash"), NOW, terms(ORDER))
    assert Post("elsewhere", 600) in effects
    assert (outside.amount_minor, outside.forgone_minor, covered_minor(outside)) == (600, 600, 600)
    late, effects = after(outside, Notified(KEY, Succeeded(1000)), NOW, terms(ORDER))
    late, effects = after(late, Queried(KEY, Succeeded(1000)), NOW, terms(ORDER))
    assert (late.state, late.refunding_minor) == (State.SETTLED_TWICE, 1000)


@pytest.mark.parametrize("state", [State.NEW, State.RETRY_WAIT, State.NEEDS_RIDER])
def test_support_may_stop_a_debit_but_not_the_question_whether_it_was_taken(state: State) -> None:
    doubted = replace(debit(state), doubted_minor=700)
    stopped, _ = after(doubted, Suspended("the lock failed"), NOW, terms())
    assert stopped.due_at == NOW
    asked, effects = after(stopped, Due(), NOW, terms())
    assert effects == (Call("query"),)
    answered, _ = after(asked, Queried(KEY, NotFound()), NOW, terms())
    resting, effects = after(answered, Due(), NOW, terms())
    assert (resting.due_at, resting.state, resting.suspended, effects) == (None, state, True, ())


@pytest.mark.parametrize("result", ["won", "lost"])
def test_what_was_owed_back_while_the_bank_had_it_is_netted_when_the_chargeback_is_over(result: str) -> None:
    taken, _ = after(debit(State.SETTLED), DisputeOpened("chargeback"), NOW, terms())
    closed = DisputeClosed("won") if result == "won" else DisputeClosed("lost")
    _, effects = after(taken, closed, NOW, terms())
    assert NetAgain() in effects


@pytest.mark.parametrize(
    "night",
    [
        Night(timedelta(hours=9), at_night=True, attempts=1, waits=True),
        Night(timedelta(hours=9), at_night=False, attempts=1, waits=False),
        Night(timedelta(minutes=5), at_night=True, attempts=1, waits=False),
        Night(timedelta(hours=9), at_night=True, attempts=0, waits=False),
    ],
)
def test_an_attempt_that_an_outage_delayed_is_not_made_at_night(night: Night) -> None:
    """Noon is in the rider's hours; so many hours later is night."""
    now = NOW + timedelta(hours=14 if night.at_night else 0)
    made = debit(State.RETRY_WAIT if night.attempts else State.NEW, due_at=now - night.late)
    tried, effects = after(made, Due(), now, terms(Capabilities()))
    if night.waits:
        assert (tried.state, effects) == (State.RETRY_WAIT, ())
        assert tried.due_at == NOW + timedelta(hours=22), "ten in the rider's morning"
    else:
        assert (tried.state, effects[0]) == (State.SUBMITTING, Call("submit"))
