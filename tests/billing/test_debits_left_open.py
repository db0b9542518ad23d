"""A debit that has ended while its number may still be paid at the provider: what comes is found out and goes back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from debit_makers import CARD, KEY, NOW, ORDER, debit, terms
from msgspec.structs import replace

from service.billing.capabilities import Capabilities
from service.billing.debits import Debit, ImpossibleEventError, State, after
from service.billing.debits.dunning import WRITTEN_OFF_POLL, WRITTEN_OFF_POLLS
from service.billing.debits.events import (
    Call,
    CloseAnswered,
    DebitEvent,
    Due,
    LowerAnswered,
    NetAgain,
    Notified,
    OperatorDecided,
    OwedChanged,
    PaidElsewhere,
    PaymentWanted,
    Queried,
    RetryAsked,
    StartRefund,
    Suspended,
)
from service.billing.debits.state import HOLD_REFUSED
from service.billing.outcomes import Accepted, AlreadyDone, Closed, NotFound, Rejected, Succeeded, Unknown

ELSEWHERE = PaidElsewhere("cash")
HOUR = timedelta(hours=1)
DEAF = replace(ORDER, told_paid_elsewhere=False)
"""An order that is collected for ever, whatever the rider paid to whom."""
CANCEL = OperatorDecided("cancel", "nobody knows")
REFUSED = LowerAnswered(KEY, Rejected("TRADE_STATUS_ERROR"))

OPEN: dict[str, tuple[Debit, tuple[DebitEvent, ...], Capabilities]] = {
    "paid elsewhere, and can't be closed": (debit(State.PENDING), (ELSEWHERE,), DEAF),
    "paid elsewhere after a decline, and can't be closed": (debit(State.NEEDS_RIDER), (ELSEWHERE,), DEAF),
    "paid elsewhere, and does not listen": (debit(State.PENDING), (ELSEWHERE, REFUSED), ORDER),
    "told of what he does not know yet": (debit(State.NEEDS_RIDER), (ELSEWHERE, LowerAnswered(KEY, NotFound())), ORDER),
    "paid elsewhere, and the close is refused": (debit(State.PENDING), (ELSEWHERE, REFUSED), CARD),
    "cancelled by hand": (debit(State.MANUAL), (CANCEL,), CARD),
    "owed no longer, and can't be closed": (debit(State.RETRY_WAIT), (OwedChanged(0),), ORDER),
    "written off, then owed no longer": (
        debit(State.WRITTEN_OFF, due_at=NOW + WRITTEN_OFF_POLL), (OwedChanged(0),), ORDER
    ),
    "paid under an older number": (
        debit(State.RETRY_WAIT, provider_key="KEY1", attempts=2, given=True), (Notified(KEY, Succeeded(1000)),), CARD
    ),
}  # fmt: skip
SHUT: dict[str, tuple[Debit, tuple[DebitEvent, ...], Capabilities]] = {
    "never sent": (debit(State.NEW), (OwedChanged(0),), ORDER),
    "declined, and the next number is another": (debit(State.RETRY_WAIT), (ELSEWHERE,), CARD),
    "closed": (debit(State.PENDING), (ELSEWHERE, LowerAnswered(KEY, Closed())), CARD),
    "told": (debit(State.PENDING), (ELSEWHERE, LowerAnswered(KEY, Closed("PAID_ELSEWHERE"))), ORDER),
    "paid": (debit(State.NEEDS_RIDER, given=True), (Notified(KEY, Succeeded(1000)),), CARD),
}


def ended(made: Debit, events: tuple[DebitEvent, ...], able: Capabilities) -> Debit:
    for event in events:
        made, _ = after(made, event, NOW, terms(able))
    return made


@pytest.mark.parametrize("row", OPEN)
def test_an_open_number_is_asked_about_and_what_it_brings_goes_back(row: str) -> None:
    made, events, able = OPEN[row]
    over = ended(made, events, able)
    key, at = over.provider_key, NOW + WRITTEN_OFF_POLL
    assert over.due_at == at
    asking, effects = after(over, Due(), at, terms(able))
    assert effects == (Call("query"),)
    unsure, _ = after(asking, Queried(key, Unknown("timeout")), at, terms(able))
    assert unsure.due_at is not None
    assert unsure.due_at < at + WRITTEN_OFF_POLL
    waiting, _ = after(asking, Queried(key, Accepted()), at, terms(able))
    assert (waiting.state, waiting.due_at) == (over.state, at + WRITTEN_OFF_POLL)
    for closed in (Closed(), NotFound()):
        assert after(waiting, Queried(key, closed), at, terms(able))[0].due_at is None
    paid, effects = after(waiting, Queried(key, Succeeded(1000, "late")), at, terms(able))
    assert (paid.state, paid.due_at) == (State.SETTLED_TWICE, None)
    assert [effect.amount_minor for effect in effects if isinstance(effect, StartRefund)] == [1000]


@pytest.mark.parametrize("row", OPEN)
def test_a_notification_in_a_state_that_nobody_listed_is_asked_about_when_all_is_over(row: str) -> None:
    """It may be money: nobody asks for long, or ever again."""
    over = replace(ended(*OPEN[row]), due_at=None)
    asked, effects = after(over, Notified(over.provider_key, Unknown("state NOVEL")), NOW, terms(OPEN[row][2]))
    assert (asked.due_at, effects) == (NOW, ())
    assert after(asked, Due(), NOW, terms(OPEN[row][2]))[1] == (Call("query"),)


@pytest.mark.parametrize("row", SHUT)
def test_a_number_that_brings_nothing_any_more_is_left_alone(row: str) -> None:
    assert ended(*SHUT[row]).due_at is None


@pytest.mark.parametrize("able", [CARD, ORDER])
def test_a_payment_that_only_the_rider_makes_is_closed_when_it_is_owed_no_longer(able: Capabilities) -> None:
    """An order that nobody closes is another matter: it goes through none."""
    given = debit(State.NEEDS_RIDER, attempts=0, begun_at=None, given=True, payable_until=NOW + HOUR)
    closing, _ = after(given, OwedChanged(0), NOW, terms(able))
    assert after(closing, Due(), NOW, terms(able))[1] == (Call("lower"),)
    closed, _ = after(closing, LowerAnswered(KEY, Closed()), NOW, terms(able))
    assert (closed.state, closed.given, closed.due_at) == (State.CANCELLED, False, None)
    left, _ = after(closing, REFUSED, NOW, terms(able))
    assert (left.state, left.excess_minor, left.due_at) == (State.NEEDS_RIDER, 1000, NOW), "asked about, not dunned"
    assert left.policy_at is None


def test_what_was_written_off_and_is_owed_no_longer_is_closed_where_it_can_be() -> None:
    given = debit(State.WRITTEN_OFF, given=True, due_at=NOW + WRITTEN_OFF_POLL)
    closing, _ = after(given, OwedChanged(0), NOW, terms())
    assert after(closing, Due(), NOW, terms())[1] == (Call("lower"),)
    closed, _ = after(closing, LowerAnswered(KEY, Closed()), NOW, terms())
    assert (closed.state, closed.given, closed.due_at) == (State.CANCELLED, False, None)
    doubted, _ = after(closing, LowerAnswered(KEY, AlreadyDone()), NOW, terms())
    assert after(doubted, Due(), NOW, terms())[1] == (Call("query"),)
    paid, _ = after(doubted, Queried(KEY, Succeeded(1000)), NOW, terms())
    assert (paid.state, paid.refunding_minor, paid.due_at) == (State.SETTLED_TWICE, 1000, None)


def test_what_was_written_off_while_it_was_pending_is_paid_under_its_number_and_no_other() -> None:
    """Of less than it was asked for, too: another number beside it could be paid, and its provider collects both."""
    pending = debit(State.WRITTEN_OFF, attempts=1, due_at=NOW + WRITTEN_OFF_POLL)
    less, _ = after(pending, OwedChanged(700), NOW, terms(CARD))
    wanted, _ = after(less, PaymentWanted(), NOW, terms(CARD))
    assert (wanted.provider_key, wanted.given, wanted.asked_minor) == (KEY, True, 1000)
    paid, effects = after(wanted, Notified(KEY, Succeeded(1000)), NOW, terms(CARD))
    assert (paid.paid_minor, paid.refunding_minor) == (1000, 300)
    assert any(isinstance(effect, StartRefund) for effect in effects), "what he does not owe goes back"
    declined = replace(less, due_at=None)
    renewed, _ = after(declined, PaymentWanted(), NOW, terms(CARD))
    assert (renewed.provider_key != KEY, renewed.asked_minor) == (True, 700)


def test_what_comes_to_be_owed_while_the_debit_is_lowered_waits_no_longer_than_for_that_answer() -> None:
    """A provider who never collects the rest (a rider without money) would have kept it unasked for ever."""
    able, refused = terms(Capabilities(reduces_pending=True)), LowerAnswered(KEY, Rejected("NOT_POSSIBLE"))
    lowering, _ = after(debit(State.PENDING, net_again=True), OwedChanged(700), NOW, able)
    waits, effects = after(lowering, refused, NOW, able)
    assert (waits.net_again, waits.excess_minor, NetAgain() in effects) == (True, 300, False), "nothing else is owed"
    changed, _ = after(lowering, OwedChanged(1000), NOW, able)
    netted, effects = after(changed, refused, NOW, able)
    assert (netted.state, netted.net_again, netted.excess_minor) == (State.PENDING, False, 0)
    assert NetAgain() in effects


def test_nobody_is_asked_for_ever() -> None:
    over = replace(ended(debit(State.PENDING), (ELSEWHERE,), DEAF), queries=WRITTEN_OFF_POLLS)
    last, _ = after(over, Queried(KEY, Accepted()), NOW, terms(DEAF))
    assert last.due_at is None


def test_a_provider_who_does_not_answer_is_told_again_soon_then_seldom() -> None:
    told, effects = after(debit(State.PENDING), ELSEWHERE, NOW, terms(ORDER))
    assert told.due_at == NOW
    now, waits = NOW, list[float]()
    for _ in range(60):
        told, effects = after(told, Due(), now, terms(ORDER))
        assert effects == (Call("lower"),)
        told, _ = after(told, LowerAnswered(KEY, Unknown("timeout")), now, terms(ORDER))
        assert told.due_at is not None
        waits.append((told.due_at - now).total_seconds())
        now = told.due_at
    assert waits == sorted(waits)
    assert (waits[0], waits[10], waits[15], waits[-1]) == (1.0, 300.0, 3600.0, 86_400.0)


@pytest.mark.parametrize("state", [State.NEW, State.RETRY_WAIT])
@pytest.mark.parametrize("suspended", [False, True])
def test_what_is_paid_while_it_is_closed_is_asked_about_at_once(state: State, suspended: bool) -> None:
    """The rider has paid what he was given, and the ride comes to owe nothing: the provider closes it no more."""
    made, _ = after(debit(state, given=True, submitted_at=NOW, asked_minor=1000), OwedChanged(0), NOW, terms())
    made, _ = after(replace(made, suspended=suspended), LowerAnswered(KEY, AlreadyDone()), NOW + HOUR, terms())
    assert made.due_at == NOW + HOUR
    asked, effects = after(made, Due(), NOW + HOUR, terms())
    assert effects == (Call("query"),)
    paid, _ = after(asked, Queried(KEY, Succeeded(1000)), NOW + HOUR, terms())
    assert (paid.paid_minor, paid.state, paid.doubted_minor) == (1000, State.SETTLED, None)


@pytest.mark.parametrize("state", [State.RETRY_WAIT, State.NEEDS_RIDER])
def test_what_he_was_given_to_pay_is_asked_about_while_the_debit_is_suspended(state: State) -> None:
    given, _ = after(debit(state), PaymentWanted(), NOW, terms())
    made, _ = after(given, Suspended("he says that he has paid"), NOW, terms())
    assert made.due_at == given.due_at is not None
    asked, effects = after(made, Due(), NOW + HOUR / 60, terms())
    assert effects == (Call("query"),)
    unpaid, _ = after(asked, Queried(KEY, Unknown("slow")), NOW + HOUR / 60, terms())
    assert unpaid.due_at is not None
    paid, _ = after(asked, Queried(KEY, Succeeded(1000)), NOW + HOUR / 60, terms())
    assert paid.state is State.SETTLED


OPENED_BY_HIM = replace(ORDER, opened_by_rider=True, closes_unpaid=True)
"""Like Alipay: what the rider is given to pay is no payment there before he opens it."""


def unopened() -> Debit:
    """Its hold was refused, so that we never tried it; the rider was given it to pay."""
    reason = f"{HOLD_REFUSED}: OVER_LIMIT"
    never = debit(State.RETRY_WAIT, attempts=0, begun_at=None, submitted_at=None, asked_minor=0, reason=reason)
    given, _ = after(never, PaymentWanted(), NOW, terms(OPENED_BY_HIM))
    assert given.payable_until == NOW + HOUR
    return given


def test_what_he_has_not_opened_yet_is_not_closed_by_not_being_found() -> None:
    """Opened later, it would be a second payment under the same number."""
    made = unopened()
    closing, _ = after(made, CloseAnswered(KEY, NotFound()), NOW, terms(OPENED_BY_HIM))
    assert (closing.given, closing.due_at) == (True, NOW + HOUR)
    less, _ = after(made, OwedChanged(0), NOW, terms(OPENED_BY_HIM))
    waiting, _ = after(less, LowerAnswered(KEY, NotFound()), NOW, terms(OPENED_BY_HIM))
    assert (waiting.state, waiting.lowering_to, waiting.due_at) == (State.RETRY_WAIT, 0, NOW + HOUR)
    over, _ = after(waiting, LowerAnswered(KEY, NotFound()), NOW + HOUR, terms(OPENED_BY_HIM))
    assert over.state is State.CANCELLED
    with pytest.raises(ImpossibleEventError):
        after(made, RetryAsked(), NOW, terms(OPENED_BY_HIM))
    assert after(made, RetryAsked(), NOW + HOUR, terms(OPENED_BY_HIM))[0].due_at == NOW + HOUR
