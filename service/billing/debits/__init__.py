"""The life of a debit (collection.md): one total function over states and events.

`after` is the whole table. The axes are kept apart: where collection stands (`state`), `overdue`, `suspended`, refunds
(counted on the debit, each with a life of its own in `service.billing.debits.refunds`) and `dispute`. What providers
differ in is in `Terms.capabilities`; a provider's name is never looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from service.billing.capabilities import Capabilities
from service.billing.debits import disputes, dunning, holding, payments, policy, truth, wishes
from service.billing.debits.answers import (
    NEVER_SENT,
    RESTORED,
    asked_about,
    manual,
    may_be_given,
    on_lower_answered,
    on_queried,
    on_submitted,
    unknown,
    window_over,
)
from service.billing.debits.ended import ended_there
from service.billing.debits.events import (
    Call,
    CloseAnswered,
    DebitEvent,
    DisputeClosed,
    DisputeOpened,
    Due,
    Effect,
    GivenBack,
    GivenBackFailed,
    ImpossibleEventError,
    LeaseOver,
    LowerAnswered,
    NetAgain,
    Notified,
    NudgeAnswered,
    OperatorDecided,
    OwedChanged,
    PaidElsewhere,
    PaymentAnswered,
    PaymentWanted,
    PolicyDue,
    Publish,
    Queried,
    RefundAsked,
    RefundEnded,
    RefundRefusedError,
    RefundReturned,
    ReportAnswered,
    Resumed,
    RetryAsked,
    Submitted,
    Suspended,
)
from service.billing.debits.money import Step, taken_minor, waived, worth_a_debit
from service.billing.debits.state import FINAL, UNSURE, Debit, Receipt, State, Terms, certain, payable, waits_for_hold
from service.billing.keys import provider_key
from service.billing.outcomes import Closed, Outcome

__all__ = [
    "FINAL",
    "UNSURE",
    "Capabilities",
    "Debit",
    "ImpossibleEventError",
    "Outcome",
    "Receipt",
    "RefundRefusedError",
    "State",
    "Terms",
    "after",
]


DISPUTED_AGAIN = timedelta(hours=1)
"""How soon it is looked at again whether what is to be sent once more is still disputed."""
LATE = timedelta(hours=1)
"""An attempt that was due longer ago than this is made at an hour when riders are charged."""


def after(debit: Debit, event: DebitEvent, now: datetime, terms: Terms) -> Step:
    """The debit once `event` has happened, and what follows from it.

    Total: every event is defined in every state. An answer or notification is never refused (older and repeated ones
    change nothing); a wish of a person that the table does not allow raises ImpossibleEventError or RefundRefusedError.
    """
    changed, effects = _HANDLERS[type(event)](debit, event, now, terms)
    if changed == debit:
        return debit, effects
    return _consequences(debit, changed, effects, now, terms)


def _due(debit: Debit, event: Due | LeaseOver, now: datetime, terms: Terms) -> Step:
    """Somebody must act: what he has to do is in the effects, and it is stored before it is done."""
    if isinstance(event, LeaseOver) and debit.state is State.SUBMITTING:
        return unknown(debit, "the process that submitted it did not come back", now), ()
    if debit.lowering_to is not None:
        return replace(debit, due_at=now), (Call("lower"),)
    if debit.state is State.UNKNOWN and terms.capabilities.same_key_is_query and window_over(debit, now, terms):
        return manual(debit, "the key's window is over and the outcome unknown"), ()
    if debit.doubted_minor is not None and debit.state is not State.SUBMITTING:
        return replace(debit, due_at=now), (Call("query"),)
    stopped = debit.state is State.NEEDS_RIDER and debit.suspended
    if debit.payable_until is not None and (stopped or debit.state in (State.RETRY_WAIT, State.WRITTEN_OFF)):
        return payments.payment_due(debit, now)
    match debit.state:
        case State.NEW | State.RETRY_WAIT:
            return _begin(debit, now, terms)
        case State.SUBMITTING:
            return _submit_again(debit, now, terms)
        case State.NEEDS_RIDER if waits_for_hold(debit):
            return _begin(debit, now, terms)
        case State.NEEDS_RIDER | State.MANUAL if holding.opened_after_all(debit, now, terms):
            return holding.taken_up(debit, now), ()
    polled = debit.state is State.NEEDS_RIDER and asked_about(debit, terms) and not debit.suspended
    if polled or debit.state in (State.UNKNOWN, State.PENDING) or truth.left_open(debit):
        return replace(debit, due_at=now), (Call("query"),)
    return replace(debit, due_at=None), ()


def _submit_again(debit: Debit, now: datetime, terms: Terms) -> Step:
    """The same request under the same key, while the provider remembers it.

    A key to which every answer so far was "too many", or "not you", has never been used there: its window begins anew
    when it is over, however long debits were stopped meanwhile. Nothing is sent while the rider objects: what has come
    here was not executed, or never arrived.
    """
    if debit.verify:
        return unknown(replace(debit, verify=None), RESTORED, now), ()
    over, never_sent = window_over(debit, now, terms), debit.reason in NEVER_SENT and not debit.queries
    if over and not never_sent:
        return manual(debit, "the key's window is over"), ()
    if disputes.disputed(debit):
        return replace(debit, due_at=now + DISPUTED_AGAIN), ()
    return replace(debit, submitted_at=now if over else debit.submitted_at, due_at=now), (Call("submit"),)


def _begin(debit: Debit, now: datetime, terms: Terms) -> Step:
    """A new attempt. Only here a debit gets another key, and only after a definite decline."""
    if debit.suspended or disputes.disputed(debit):
        return replace(debit, due_at=None), ()
    at = _morning(debit, now, terms)
    if at is not None:
        return replace(debit, due_at=at), ()
    fresh = debit.attempts > 0 and terms.capabilities.new_key_after_decline
    if payments.closes_before_hold(debit, terms) or (fresh and may_be_given(debit)):
        return payments.close_first(debit, now, terms)
    waits = holding.hold_first(debit, now, terms)
    if waits is not None:
        return waits
    if not debit.attempts and may_be_given(debit):
        return payments.close_first(debit, now, terms)
    cut = holding.cut_to_hold(debit, now, terms)
    if cut is not None:
        return cut, ()
    key = provider_key(debit.session_key.bytes, "debit", debit.ordinal, debit.attempts) if fresh else debit.provider_key
    asked_minor = debit.amount_minor - sum(receipt.amount_minor for receipt in debit.receipts if receipt.key != key)
    if not debit.verify and not worth_a_debit(asked_minor, terms.capabilities):  # Parts of it were paid before.
        return waived(debit, debit.amount_minor)
    begun = replace(
        debit,
        state=State.SUBMITTING,
        provider_key=key,
        asked_minor=asked_minor,
        attempts=debit.attempts + 1,
        begun_at=debit.begun_at or now,
        submitted_at=now,
        not_found_at=None,
        resent=0,
        given=False,
        payable_until=None,
        action=None,
        verify=None,
        queries=0,
        due_at=now,
    )
    if debit.verify:  # The database was restored: this may have been sent in the time that was lost.
        return unknown(begun, RESTORED, now), ()
    return begun, (Call("submit"),)


def _morning(debit: Debit, now: datetime, terms: Terms) -> datetime | None:
    """When an attempt is made that was due long ago (an outage, a stop) and would be made at night; None: now."""
    late = debit.due_at is not None and now - debit.due_at > LATE
    at = dunning.in_hours(now, terms.zone, terms.calendar)
    return at if debit.state is State.RETRY_WAIT and late and at > now else None


def _submitted(debit: Debit, event: Submitted, now: datetime, terms: Terms) -> Step:
    if debit.state is State.SUBMITTING and event.key == debit.provider_key:
        return on_submitted(debit, event.outcome, now, terms)
    return truth.heard(debit, event.key, event.outcome, now, terms)


def _queried(debit: Debit, event: Queried, now: datetime, terms: Terms) -> Step:
    over = ended_there(debit, event.outcome) if isinstance(event.outcome, Closed) else None
    if over is not None and event.key == debit.provider_key and debit.state is not State.SUBMITTING:
        return truth.told(over[0], event.outcome, now, terms), over[1]
    asked = debit.state in (State.UNKNOWN, State.PENDING, State.NEEDS_RIDER)
    asked = asked and (not debit.suspended or payable(debit, now))
    present = event.key == debit.provider_key
    left_to_him = truth.left_open(debit) or (debit.given and debit.state is State.RETRY_WAIT)
    if present and left_to_him and debit.doubted_minor is None:
        heard, effects = truth.heard(debit, event.key, event.outcome, now, terms)
        same = heard.state is debit.state
        return (payments.payment_queried(heard, event.outcome, now, terms) if same else heard), effects
    if asked and present:
        lowering = debit.lowering_to
        debit, effects = on_queried(debit, event.outcome, now, terms)
        if lowering is not None and debit.lowering_to == lowering:  # Less was owed while this was under way.
            debit = replace(debit, due_at=now)
    else:
        debit, effects = truth.heard(debit, event.key, event.outcome, now, terms)
    return (truth.told(debit, event.outcome, now, terms) if present else debit), effects


def _lower_answered(debit: Debit, event: LowerAnswered, now: datetime, terms: Terms) -> Step:
    if debit.lowering_to is not None and event.key == debit.provider_key:
        return on_lower_answered(debit, event.outcome, now, terms)
    return truth.heard(debit, event.key, event.outcome, now, terms)


def _notified(debit: Debit, event: Notified, now: datetime, terms: Terms) -> Step:
    return truth.news(debit, event.key, event.outcome, now, terms)


def _consequences(before: Debit, debit: Debit, effects: tuple[Effect, ...], now: datetime, terms: Terms) -> Step:
    """What follows from a change whatever its cause: deadlines, facts, obligations that waited."""
    debit, taken = disputes.taken_by_banks(truth.settled_doubt(debit))
    effects = (*effects, *taken)
    resting = debit.state in (State.NEW, State.RETRY_WAIT, State.NEEDS_RIDER) and debit.lowering_to is None
    if resting and 0 < debit.amount_minor == debit.paid_minor:
        debit = replace(debit, state=State.SETTLED)
    meant_for_before = debit.lowering_to is not None and before.lowering_to is not None
    if meant_for_before and debit.state is not before.state and debit.state not in FINAL:
        debit = replace(debit, lowering_to=None, net_again=True)  # Decided anew for the new state.
    if before.lowering_to is not None and debit.state in FINAL and debit.state is not before.state:
        debit = replace(debit, net_again=True)  # It ended before it was lowered: what is too much goes back.
    if debit.overdue and debit.amount_minor <= debit.paid_minor + debit.excess_minor:
        debit = replace(debit, overdue=False)  # What can't be lowered settles or not: the rider owes nothing.
    if debit.unanswered_since is not None and debit.state is not before.state:
        debit = replace(debit, unanswered_since=None)
    debit = policy.good_record(before, debit, terms)
    if debit.state is State.WRITTEN_OFF is not before.state:
        open_there = before.state is State.PENDING or asked_about(debit, terms)
        debit = replace(debit, queries=0, due_at=now + dunning.WRITTEN_OFF_POLL if open_there else None)
    debit = _ended(before, debit, now) if debit.state in FINAL else debit
    came = debit.state in (State.PENDING, State.SETTLED) and debit.state is not before.state
    if came and debit.reason == before.reason:
        debit = replace(debit, reason=None)  # Why it did not come before is history: its transitions tell.
    debit = replace(debit, policy_at=policy.policy_at(debit, now, terms))
    published = _published(before, debit)
    moved = debit.state is not before.state or debit.amount_minor != before.amount_minor
    clear = debit.state not in UNSURE or certain(debit)
    decided = debit.state in FINAL or (clear and debit.lowering_to is None)
    if debit.net_again and moved and decided:
        debit = replace(debit, net_again=False, excess_minor=0)
        effects = (*effects, NetAgain())
    return debit, (*effects, *published)


def _ended(before: Debit, debit: Debit, now: datetime) -> Debit:
    """Nothing more is asked of the rider; a debt that was written off stays a debt.

    A number that may still be paid at the provider is asked about, seldom: what comes is too much, and goes back.
    """
    closing = debit.state is not State.SETTLED_TWICE and before.state in FINAL
    stopping = debit.lowering_to is not None and (closing or debit.state is State.SETTLED_ELSEWHERE)
    written_off = debit.state is State.WRITTEN_OFF
    asking = stopping or debit.doubted_minor is not None or written_off
    brought = taken_minor(debit, debit.provider_key)
    given = debit.given and (written_off or brought < debit.asked_minor)
    if given and not asking:
        at = debit.due_at if before.state is debit.state else None
        debit, asking = replace(debit, due_at=at or now + dunning.WRITTEN_OFF_POLL), True
    if debit.doubted_minor is not None and debit.due_at is None:
        debit = replace(debit, due_at=now)
    settled = debit.state in (State.SETTLED, State.SETTLED_ELSEWHERE, State.SETTLED_TWICE)
    return replace(
        debit,
        settled_at=debit.settled_at or (now if settled else None),
        overdue=debit.overdue and written_off,
        suspended=False,
        action=debit.action if written_off else None,
        lowering_to=debit.lowering_to if stopping else None,
        due_at=debit.due_at if asking else None,
        payable_until=debit.payable_until if written_off or stopping else None,
        given=given,
    )


def _published(before: Debit, debit: Debit) -> tuple[Effect, ...]:
    """The facts of a change of state."""
    facts: list[Effect] = []
    if debit.overdue and not before.overdue:
        facts.append(Publish("debit.overdue"))
    if debit.state is before.state:
        return tuple(facts)
    match debit.state:
        case State.SUBMITTING if before.state in (State.NEW, State.RETRY_WAIT, State.NEEDS_RIDER):
            facts.append(Publish("debit.submitted"))
        case State.SETTLED | State.SETTLED_ELSEWHERE:
            facts.append(Publish("debit.settled"))
        case State.SETTLED_TWICE if before.state not in FINAL or before.state is State.WRITTEN_OFF:
            facts.append(Publish("debit.settled"))
        case State.RETRY_WAIT:
            facts.append(Publish("debit.declined"))
        case State.NEEDS_RIDER:
            facts.append(Publish("debit.needs_rider"))
        case State.WRITTEN_OFF:
            facts.append(Publish("debit.written_off"))
        case _:
            pass
    return tuple(facts)


_HANDLERS: dict[type[DebitEvent], Callable[[Debit, Any, datetime, Terms], Step]] = {
    Due: _due,
    LeaseOver: _due,
    PolicyDue: policy.policy_due,
    PaymentWanted: payments.payment_wanted,
    PaymentAnswered: payments.payment_answered,
    CloseAnswered: payments.close_answered,
    NudgeAnswered: policy.nudge_answered,
    ReportAnswered: policy.report_answered,
    Submitted: _submitted,
    Queried: _queried,
    LowerAnswered: _lower_answered,
    Notified: _notified,
    RetryAsked: wishes.retry_asked,
    OperatorDecided: wishes.operator_decided,
    PaidElsewhere: wishes.paid_elsewhere,
    GivenBack: wishes.given_back,
    GivenBackFailed: wishes.given_back_failed,
    OwedChanged: wishes.owed_changed,
    Suspended: wishes.suspended,
    Resumed: wishes.resumed,
    DisputeOpened: disputes.dispute_opened,
    DisputeClosed: disputes.dispute_closed,
    RefundAsked: wishes.refund_asked,
    RefundEnded: wishes.refund_ended,
    RefundReturned: wishes.refund_returned,
}
