"""The rider pays now: he is given the number of his debit to pay it himself, and nothing else is tried meanwhile.

Where a further attempt takes a new key, the number that he was given is closed at the provider before that attempt
begins, so that both can't be paid; where the key stays, it is the same number that can be paid once. So is the number
that he was given while there was no hold to debit through: before that is done, or he is asked to confirm a hold.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from service.billing.debits import dunning, holding
from service.billing.debits.answers import asked_about, collected_yet, may_be_given, needs_rider, unknown, unopened
from service.billing.debits.disputes import disputed
from service.billing.debits.events import (
    Call,
    CloseAnswered,
    Effect,
    ImpossibleEventError,
    NetAgain,
    PaymentAnswered,
    PaymentWanted,
)
from service.billing.debits.money import LIVE, Step, take_money
from service.billing.debits.state import CAN_BE_OVERDUE, Debit, State, Terms, payable, refused_a_hold, waits_for_hold
from service.billing.debits.truth import goes_on, left_open
from service.billing.keys import provider_key
from service.billing.outcomes import (
    Accepted,
    AlreadyDone,
    Closed,
    NeedsRider,
    NotFound,
    Outcome,
    Postponed,
    Prepared,
    Succeeded,
    Unknown,
)


def payment_wanted(debit: Debit, event: PaymentWanted, now: datetime, terms: Terms) -> Step:
    """The intent, stored before the provider is asked: the number is the rider's until `payable_until`.

    Where he is asked to confirm a hold he pays by that alone: what he pays beside it has another number at the
    provider, and once he confirms, both could be taken. Where he can only pay through a hold that he confirms, and it
    was refused, another one is asked for.
    """
    unpaid = debit.amount_minor - debit.paid_minor - debit.excess_minor
    payable = debit.state in (*CAN_BE_OVERDUE, State.WRITTEN_OFF) and not debit.suspended and unpaid > 0
    to_confirm = waits_for_hold(debit)
    if not payable or debit.lowering_to is not None or (to_confirm and disputed(debit)):
        raise ImpossibleEventError(debit, event)
    if to_confirm:
        return holding.wanted_now(debit, now, terms)
    if refused_a_hold(debit) and debit.state is not State.WRITTEN_OFF and not terms.capabilities.payable_apart:
        return holding.taken_up(debit, now), ()
    until = now + terms.calendar.payment_open_for
    if debit.state is State.PENDING:
        return replace(debit, given=True, payable_until=until, queries=0, due_at=dunning.poll_at(0, now)), ()
    debit = _numbered(debit, now, terms)
    return replace(debit, given=True, payable_until=until, queries=0, due_at=dunning.poll_at(0, now)), ()


def payment_answered(debit: Debit, event: PaymentAnswered, now: datetime, terms: Terms) -> Step:
    """What the provider gave the rider to do; where he gave nothing, collection goes on as before."""
    outcome = event.outcome
    if isinstance(outcome, Succeeded) and outcome.amount_minor > 0:
        return take_money(debit, event.key, outcome, now, terms)
    if event.key != debit.provider_key or debit.state not in (*CAN_BE_OVERDUE, State.WRITTEN_OFF):
        return debit, ()
    match outcome:
        case NeedsRider(action=action) if action is not None:
            return replace(debit, action=action), ()
        case Prepared():
            return replace(debit, provider_ref=outcome.provider_ref), ()
        case AlreadyDone() | Accepted():
            return replace(debit, due_at=now), ()
        case Unknown():
            return debit, ()  # He may have been given it: the number stays his for a while.
    return goes_on(replace(debit, payable_until=None), now, terms), ()


def payment_due(debit: Debit, now: datetime) -> Step:
    """He was given something to do: has he done it? Asked a last time when his time is over."""
    if payable(debit, now):
        return replace(debit, due_at=now), (Call("query"),)
    return replace(debit, payable_until=None, action=None, due_at=now), (Call("query"),)


def payment_queried(debit: Debit, outcome: Outcome, now: datetime, terms: Terms) -> Debit:
    """Not paid yet: asked again while he has time, then collection goes on."""
    if isinstance(outcome, Unknown | Postponed):
        wait = outcome.retry_after if isinstance(outcome, Postponed) else None
        at = now + wait if wait is not None else dunning.query_at(debit.queries, now)
        return replace(debit, queries=debit.queries + 1, due_at=at)
    if left_open(debit):
        over = isinstance(outcome, Closed | NotFound) or debit.queries >= dunning.WRITTEN_OFF_POLLS
        if over and not unopened(debit, now, terms):
            return replace(debit, given=False, payable_until=None, due_at=None)
        if not payable(debit, now):
            polled = replace(debit, payable_until=None, queries=debit.queries + 1)
            return replace(polled, due_at=now + dunning.WRITTEN_OFF_POLL)
    if debit.payable_until is None or now >= debit.payable_until:
        return goes_on(replace(debit, payable_until=None, queries=0), now, terms)
    at = min(dunning.poll_at(debit.queries + 1, now), debit.payable_until)
    return replace(debit, queries=debit.queries + 1, due_at=at)


def closes_before_hold(debit: Debit, terms: Terms) -> bool:
    """Whether the rider's number is closed before he is asked to confirm a hold, and does both."""
    asks = terms.hold is None or terms.hold.state != "open"
    by_him = terms.capabilities.hold_needed and terms.capabilities.hold_confirmed_by_rider
    return not debit.attempts and asks and by_him and may_be_given(debit)


def close_first(debit: Debit, now: datetime, terms: Terms) -> Step:
    """The rider's number before another one is tried: closed, or left to him where the provider closes nothing. What
    was never tried by us is his alone, and closed everywhere (`wishes.owed_changed`)."""
    if debit.attempts and not terms.capabilities.closes_unpaid:
        return needs_rider(debit, debit.reason or "the rider was given it to pay", debit.action, now, terms), ()
    return replace(debit, due_at=now), (Call("close"),)


def close_answered(debit: Debit, event: CloseAnswered, now: datetime, terms: Terms) -> Step:
    """The number that the rider was given is closed, or it is paid, or one must ask again."""
    outcome = event.outcome
    if isinstance(outcome, Succeeded) and outcome.amount_minor > 0:
        return take_money(debit, event.key, outcome, now, terms)
    tried = debit.state is State.RETRY_WAIT or (debit.state is State.NEW and not debit.attempts)
    if event.key != debit.provider_key or not tried or not may_be_given(debit):
        return debit, ()
    match outcome:
        case NotFound() if unopened(debit, now, terms):
            return replace(debit, due_at=debit.payable_until), ()
        case Closed() | NotFound():
            effects: tuple[Effect, ...] = (NetAgain(),) if debit.net_again else ()
            closed = replace(debit, given=False, payable_until=None, action=None, queries=0, due_at=now)
            closed = replace(closed, verify="next" if debit.verify else None)
            if not debit.attempts:
                closed = _never_ours(closed, outcome, terms)
            return replace(closed, net_again=False, excess_minor=0), effects
        case AlreadyDone():
            return unknown(debit, "paid while it was being closed", now), ()
        case Postponed():
            return replace(debit, due_at=now + outcome.retry_after), ()
        case Unknown() | Accepted():
            return replace(debit, queries=debit.queries + 1, due_at=dunning.query_at(debit.queries, now)), ()
    return needs_rider(debit, "the rider's number can't be closed", debit.action, now, terms), ()


def _never_ours(debit: Debit, outcome: Closed | NotFound, terms: Terms) -> Debit:
    """The debit whose number was the rider's alone: used where it was closed and a further attempt takes a further one;
    else as if it had never been asked for, as far as we know. Where he confirms holds, these have numbers of their own.
    """
    able = terms.capabilities
    if isinstance(outcome, Closed) and able.new_key_after_decline and not able.hold_confirmed_by_rider:
        return replace(debit, attempts=1, asked_minor=0)
    return replace(debit, submitted_at=None, asked_minor=0)


def _numbered(debit: Debit, now: datetime, terms: Terms) -> Debit:
    """The debit with a number that asks for what is unpaid: the present one, its first, or a new one."""
    others = sum(receipt.amount_minor for receipt in debit.receipts if receipt.key != debit.provider_key)
    asked = debit.amount_minor - others
    if debit.submitted_at is None:
        return replace(debit, submitted_at=now, asked_minor=asked)
    able = terms.capabilities
    if asked == debit.asked_minor or debit.state in LIVE or (asked_about(debit, terms) and not able.reduces_declined):
        return debit
    if not able.new_key_after_decline:
        return replace(debit, asked_minor=asked)
    if collected_yet(debit):
        return debit  # Its number was pending when it was written off: beside it, another one could be paid too.
    key = provider_key(debit.session_key.bytes, "debit", debit.ordinal, debit.attempts)
    asked = debit.amount_minor - debit.paid_minor
    numbered = replace(debit, provider_key=key, attempts=debit.attempts + 1, asked_minor=asked)
    return replace(numbered, submitted_at=now, resent=0)
