"""A debit that its provider prepares, and one that he collects with several payments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from debit_makers import CARD, KEY, NOW, ORDER, debit, terms
from msgspec.structs import replace

from service.billing.capabilities import Capabilities
from service.billing.debits import Debit, State, after
from service.billing.debits.answers import PREPARED_ONLY
from service.billing.debits.events import (
    Call,
    DebitEvent,
    Due,
    Effect,
    LowerAnswered,
    NetAgain,
    Notified,
    OperatorDecided,
    Post,
    Queried,
    RefundAsked,
    RefundEnded,
    StartRefund,
    Submitted,
)
from service.billing.debits.state import Receipt
from service.billing.outcomes import AlreadyDone, NotFound, Part, Prepared, Succeeded, Unknown

PARTS = replace(CARD, partial_debit=True)
PAYMENTS = (Part("first", 400), Part("second", 600))
IN_PART = Succeeded(400, "first", PAYMENTS[:1])


def live(made: Debit, events: Sequence[tuple[timedelta, DebitEvent]]) -> tuple[Debit, list[Effect]]:
    """The debit after events at instants counted from NOW, and all effects."""
    told: list[Effect] = []
    for step, event in events:
        made, effects = after(made, event, NOW + step, terms(PARTS))
        told += effects
    return made, told


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def paid_in_parts() -> Debit:
    made, _ = live(debit(State.PENDING, provider_ref="order"), [(seconds(0), Queried(KEY, IN_PART))])
    whole, _ = live(made, [(seconds(1), Queried(KEY, Succeeded(1000, "first", PAYMENTS)))])
    assert (made.state, whole.state, whole.paid_minor) == (State.PENDING, State.SETTLED, 1000)
    return whole


def test_no_payment_of_a_debit_is_asked_to_give_back_more_than_it_took() -> None:
    """A receipt for each payment: after 500 of the second, it gives 100 and the first the rest."""
    whole = paid_in_parts()
    assert whole.receipts == (Receipt(KEY, 400, NOW, "first"), Receipt(KEY, 600, NOW + seconds(1), "second"))
    made, effects = live(whole, [(seconds(2), RefundAsked(500, "void")), (seconds(3), RefundAsked(500, "void"))])
    started = [(e.receipt.provider_ref, e.amount_minor) for e in effects if isinstance(e, StartRefund)]
    assert started == [("second", 500), ("second", 100), ("first", 400)]
    failed, _ = live(made, [(seconds(4), RefundEnded(KEY, 400, False, "first"))])
    assert [receipt.returned_minor for receipt in failed.receipts] == [0, 600]


def test_a_payment_told_again_or_late_is_the_same_payment() -> None:
    whole = paid_in_parts()
    backwards = Succeeded(1000, "second", PAYMENTS[::-1])
    same, effects = live(whole, [(seconds(2), Queried(KEY, IN_PART)), (seconds(3), Notified(KEY, backwards))])
    assert same.receipts == whole.receipts
    assert not [effect for effect in effects if isinstance(effect, Post)]
    late, _ = live(debit(State.PENDING), [(seconds(0), Queried(KEY, backwards))])
    assert sorted((one.provider_ref, one.amount_minor) for one in late.receipts) == [("first", 400), ("second", 600)]


def test_a_debit_that_is_only_ever_prepared_needs_a_person() -> None:
    """It was called again at once, for as long as its key was remembered."""
    told = [(seconds(0), Submitted(KEY, Prepared("pi_1")))] * 3
    made, effects = live(debit(State.SUBMITTING), told)
    assert (made.state, made.provider_ref, made.due_at, effects) == (State.SUBMITTING, "pi_1", NOW, [])
    over, _ = live(made, told[:1])
    assert (over.state, over.reason, over.due_at) == (State.MANUAL, PREPARED_ONLY, None)
    again, _ = live(over, [(seconds(1), OperatorDecided("submit_again", "his console says so")), *told[:1]])
    assert (again.state, again.provider_key) == (State.SUBMITTING, KEY)


def test_a_key_that_was_long_unknown_is_prepared_as_any_other() -> None:
    missing = [(seconds(at), Queried(KEY, NotFound())) for at in (0, 1, 3, 8, 70)]
    made, _ = live(debit(State.UNKNOWN), [*missing, (seconds(71), Submitted(KEY, Prepared("pi_1")))])
    assert (made.state, made.provider_ref) == (State.SUBMITTING, "pi_1")
    unknown = debit(State.UNKNOWN, queries=9)
    made, _ = live(unknown, [(seconds(71), Queried(KEY, Prepared("pi_1")))])
    assert made.state is State.SUBMITTING


SHORT = "300 of 1000 taken, and its number brings no more"


@pytest.mark.parametrize(
    ("able", "told"),
    [(CARD, Succeeded(300, "r")), (ORDER, Succeeded(300, "r")), (PARTS, Succeeded(300, "r", last=True))],
)
def test_another_amount_than_was_asked_for_is_booked_and_a_person_looks(able: Capabilities, told: Succeeded) -> None:
    """It was polled for ever, and the rider who wanted to pay the rest was told that it was paid."""
    made, [post] = after(debit(State.PENDING), Queried(KEY, told), NOW, terms(able))
    assert (made.state, made.paid_minor, made.reason, made.due_at) == (State.MANUAL, 300, SHORT, None)
    assert post == Post("settlement", 300)
    settled, [rest, _] = after(made, OperatorDecided("settled", "the rest, too"), NOW, terms(able))
    assert (settled.state, rest) == (State.SETTLED, Post("settlement", 700))
    given_up, [rest] = after(made, OperatorDecided("cancel", "a coupon of theirs"), NOW, terms(able))
    assert (given_up.state, given_up.paid_minor, rest) == (State.CANCELLED, 300, Post("write_off", 700))
    again, _ = after(made, OperatorDecided("submit_again", "ask"), NOW, terms(able))
    asked, _ = after(again, Submitted(KEY, told), NOW, terms(able))
    assert (asked.state, asked.reason, asked.paid_minor) == (State.MANUAL, SHORT, 300)


def test_what_was_lowered_without_our_hearing_of_it_is_settled_by_what_was_left() -> None:
    """The answer to lowering it was lost, then it could not be lowered any more, since it was paid."""
    lowering = debit(State.PENDING, lowering_to=300)
    made, _ = live(lowering, [(seconds(0), Queried(KEY, Succeeded(300, "r", last=True)))])
    assert (made.state, made.lowering_to) == (State.PENDING, 300)
    made, effects = live(
        made,
        [(seconds(1), LowerAnswered(KEY, AlreadyDone())), (seconds(2), Queried(KEY, Succeeded(300, "r", last=True)))],
    )
    assert (made.state, made.amount_minor, made.paid_minor) == (State.SETTLED, 300, 300)
    assert [effect for effect in effects if isinstance(effect, NetAgain)] == [NetAgain()]


def test_a_part_that_is_told_again_of_what_the_rider_is_to_pay_is_no_reason_to_ask_at_once() -> None:
    waits = debit(State.NEEDS_RIDER, receipts=(Receipt(KEY, 300, NOW, "r"),), paid_minor=300, due_at=NOW)
    made, _ = live(waits, [(seconds(0), Queried(KEY, Succeeded(300, "r")))])
    assert made.due_at is not None and made.due_at > NOW


def test_an_error_that_a_provider_keeps_under_a_key_is_met_less_and_less_often() -> None:
    """Stripe repeats a 500 for a day: the payment stays unconfirmed, and nobody knew whether it was."""
    made, at, submitted = debit(State.UNKNOWN, provider_ref="pi_1"), NOW, 0
    while at < NOW + timedelta(days=1):
        made, effects = after(made, Due(), at, terms())
        [call] = [effect for effect in effects if isinstance(effect, Call)]
        submitted += call.what == "submit"
        told = Submitted(KEY, Unknown("HTTP 500")) if call.what == "submit" else Queried(KEY, Prepared("pi_1"))
        made, _ = after(made, told, at, terms())
        assert made.due_at is not None
        at = made.due_at
    assert submitted < 300
    assert made.state in (State.UNKNOWN, State.SUBMITTING)
