"""A debit that its provider prepares, and one that he collects with several payments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from debit_makers import KEY, NOW, debit, terms

from service.billing.debits import Debit, State, after
from service.billing.debits.answers import PREPARED_ONLY
from service.billing.debits.events import (
    DebitEvent,
    Effect,
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
from service.billing.outcomes import NotFound, Part, Prepared, Succeeded

PAYMENTS = (Part("first", 400), Part("second", 600))
IN_PART = Succeeded(400, "first", PAYMENTS[:1])


def live(made: Debit, events: Sequence[tuple[timedelta, DebitEvent]]) -> tuple[Debit, list[Effect]]:
    """The debit after events at instants counted from NOW, and all effects."""
    told: list[Effect] = []
    for step, event in events:
        made, effects = after(made, event, NOW + step, terms())
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
    assert whole.receipts == (Receipt(KEY, 400, "first"), Receipt(KEY, 600, "second"))
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
