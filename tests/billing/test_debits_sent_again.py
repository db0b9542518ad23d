"""What a provider refuses in words that nobody has listed may have executed: asked about, sent again, given up."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

from debit_makers import KEY, NOW, ORDER, debit, terms

from service.billing.debits import State, after
from service.billing.debits.events import Call, Due, OperatorDecided, Post, Queried, RefundDecided, Submitted
from service.billing.debits.refunds import Refund, RefundState, refund_after, refund_call
from service.billing.outcomes import Barred, Conflict, NotFound, Succeeded, Unknown

REFUSED = Unknown("code NOBODY_KNOWS")
GIVEN_UP = "sent 8 times and never found: code NOBODY_KNOWS"


def assert_ever_later(sent: list[datetime], asked: int) -> None:
    waits = [later - sooner for sooner, later in pairwise(sent)]
    assert len(waits) == 7 and waits == sorted(waits)
    assert waits[0] < timedelta(minutes=3) and timedelta(days=2) < waits[-1] < timedelta(days=3)
    assert asked < 40


def test_a_debit_that_is_never_found_is_sent_seven_times_again_ever_later_then_a_person_is_told_why() -> None:
    """It was sent 12,000 times and asked about 72,000 times in the 15 days of the key's window."""
    made, at, sent, asked = debit(due_at=NOW), NOW, list[datetime](), 0
    while made.due_at is not None:
        at = max(at, made.due_at)
        made, effects = after(made, Due(), at, terms(ORDER))
        if Call("submit") in effects:
            sent.append(at)
            made, _ = after(made, Submitted(KEY, REFUSED), at, terms(ORDER))
        elif Call("query") in effects:
            asked += 1
            made, _ = after(made, Queried(KEY, NotFound()), at, terms(ORDER))
    assert (made.state, made.reason, made.provider_key) == (State.MANUAL, GIVEN_UP, KEY)
    assert_ever_later(sent, asked)
    decided, _ = after(made, OperatorDecided("submit_again", "mended there"), at, terms(ORDER))
    assert (decided.state, decided.resent) == (State.SUBMITTING, 0)


def test_a_new_key_begins_anew() -> None:
    made, _ = after(debit(State.RETRY_WAIT, resent=6), Due(), NOW, terms())
    assert (made.state, made.resent) == (State.SUBMITTING, 0)


def test_a_number_that_is_tried_again_for_less_and_conflicts_is_asked_about() -> None:
    """Its rider had paid it as it was, and nobody had told: a person booked the lower amount, and the rest was lost."""
    sent = debit(State.SUBMITTING, amount_minor=440, asked_minor=440, attempts=2)
    told, _ = after(sent, Submitted(KEY, Conflict("KEY_CONFLICT")), NOW, terms(ORDER))
    assert (told.state, told.reason) == (State.UNKNOWN, "KEY_CONFLICT")
    paid, effects = after(told, Queried(KEY, Succeeded(1000, "ref")), NOW, terms(ORDER))
    assert (paid.state, paid.paid_minor, paid.refunding_minor) == (State.SETTLED_TWICE, 1000, 560)
    assert Post("settlement", 1000) in effects


def test_a_number_that_conflicts_for_ever_is_given_up() -> None:
    made, at = debit(State.SUBMITTING, attempts=2), NOW
    for _ in range(100):
        made, effects = after(made, Due(), at, terms(ORDER))
        if Call("submit") in effects:
            made, _ = after(made, Submitted(KEY, Conflict("KEY_CONFLICT")), at, terms(ORDER))
        elif Call("query") in effects:
            made, _ = after(made, Queried(KEY, NotFound()), at, terms(ORDER))
        at = max(at, made.due_at or at)
    assert made.state is State.MANUAL


def test_a_refund_that_is_never_found_is_sent_seven_times_again_ever_later_then_a_person_is_told_why() -> None:
    """It was sent 24,000 times and asked about 144,000 times in 30 days, and went on."""
    made, at, sent, asked = refund(), NOW, list[datetime](), 0
    while made.due_at is not None:
        at = max(at, made.due_at)
        made = refund_after(made, Due(), at)
        if refund_call(made) == "submit":
            sent.append(at)
            made = refund_after(made, Submitted("BACK", REFUSED), at)
        else:
            asked += 1
            made = refund_after(made, Queried("BACK", NotFound()), at)
    assert (made.state, made.code, made.provider_key) == (RefundState.MANUAL, GIVEN_UP, "BACK")
    assert_ever_later(sent, asked)
    decided = refund_after(made, RefundDecided("submit_again", "mended there"), at)
    assert (decided.state, decided.resent) == (RefundState.SUBMITTING, 0)


def refund() -> Refund:
    return Refund(
        ride_no=1,
        ordinal=1,
        refund_ordinal=1,
        slot=1,
        operator_no=1,
        agreement_no=1,
        account_no=1,
        currency="CNY",
        amount_minor=100,
        provider_key="BACK",
        debit_key=KEY,
        created_at=NOW,
        reason="goodwill",
        due_at=NOW,
    )


def test_a_refund_that_is_not_let_in_waits_under_its_key_and_is_not_given_up() -> None:
    made = refund_after(refund(), Due(), NOW)
    told = refund_after(made, Submitted("BACK", Barred(timedelta(minutes=1), "UNAUTHORIZED")), NOW)
    assert (told.state, told.due_at, told.attempts) == (RefundState.SUBMITTING, NOW + timedelta(minutes=1), 1)
    assert refund_call(refund_after(told, Due(), NOW + timedelta(days=9))) == "submit"
