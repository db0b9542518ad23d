"""What each answer of a provider makes of a debit: the rows of collection.md that begin with the provider."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from service.billing.capabilities import Capabilities
from service.billing.debits import dunning
from service.billing.debits.ended import ended_there
from service.billing.debits.events import NetAgain
from service.billing.debits.money import (
    ENDED,
    LIVE,
    Step,
    close_confirmed,
    ended_short,
    falls_short,
    take_money,
    worth_a_debit,
)
from service.billing.debits.state import Debit, State, Terms, payable, waits_for_hold
from service.billing.debits.unanswered import ASKED, answered, left_open, unanswered
from service.billing.outcomes import (
    NOT_ACCEPTED,
    Accepted,
    AlreadyDone,
    Barred,
    CapExceeded,
    Closed,
    Conflict,
    Declined,
    NeedsRider,
    NotFound,
    Outcome,
    Postponed,
    Prepared,
    Rejected,
    RiderAction,
    Succeeded,
    Unknown,
)

RESTORED = "asked about after a restore"
PREPARED_MAX = 3
"""How often a provider may say of a key that it has a number now, and is to be called with it."""
PREPARED_ONLY = "prepared again and again, and never executed"
ASKED_SOON = 12
"""After so many calls (half an hour) what is to be lowered or closed is asked for as seldom as a poll."""
THROTTLED = "throttled"
NEVER_SENT = frozenset({THROTTLED, NOT_ACCEPTED})
"""Why a debit waits that was provably not executed; before any question about its key, it was never even sent."""


def asked_about(debit: Debit, terms: Terms) -> bool:
    """Whether the debit's number may still be paid at the provider after a decline, so that it is polled and closed."""
    same_key = debit.submitted_at is not None and not terms.capabilities.new_key_after_decline
    return same_key or may_be_given(debit)


def collected_yet(debit: Debit) -> bool:
    """Whether a debt that was written off has a number that may still be paid at the provider: it is asked about."""
    return debit.state is State.WRITTEN_OFF and debit.due_at is not None


def ends_when_lowered(debit: Debit, able: Capabilities) -> bool:
    """Whether a debit of which a part was collected is over once its provider lowers it to that part: where he closes
    nothing that he collects."""
    return able.reduces_pending and not able.closes_unpaid and debit.state is State.PENDING and debit.paid_minor > 0


def unopened(debit: Debit, now: datetime, terms: Terms) -> bool:
    """Whether the number is not found at the provider only because its rider has not opened yet what he was given."""
    return terms.capabilities.opened_by_rider and payable(debit, now)


def may_be_given(debit: Debit) -> bool:
    """Whether the rider was given the present number to pay it, or may have been in the time that a restored database
    has lost."""
    lost = debit.verify == "present" and debit.state is not State.NEW and not waits_for_hold(debit)
    return debit.given or lost


def on_submitted(debit: Debit, outcome: Outcome, now: datetime, terms: Terms) -> Step:
    """SUBMITTING, and the provider has answered the submission."""
    match outcome:
        case Succeeded():
            return _paid_or_unknown(debit, outcome, now, terms)
        case Accepted():
            return accepted(debit, outcome.provider_ref, now), ()
        case Prepared():
            return prepared(debit, outcome, now), ()
        case Declined(retryable=True):
            return retry_wait(debit, outcome.code, now, terms), ()
        case Declined():
            return needs_rider(debit, outcome.code, None, now, terms), ()
        case Closed():
            return ended_there(debit, outcome) or (_ended(debit, outcome.code, now, terms), ())
        case NeedsRider():
            return needs_rider(debit, outcome.code, outcome.action, now, terms), ()
        case Rejected() | Conflict():
            return _refused(debit, outcome, now, terms), ()
        case CapExceeded():
            return _cut(debit, outcome.cap_minor, now, terms), ()
        case Postponed():
            reason = NOT_ACCEPTED if isinstance(outcome, Barred) else THROTTLED
            return replace(debit, due_at=now + outcome.retry_after, reason=reason), ()
        case AlreadyDone() | NotFound():
            return unknown(debit, type(outcome).__name__, now), ()
        case Unknown():
            return unknown(debit, outcome.reason, now), ()


def _refused(debit: Debit, outcome: Rejected | Conflict, now: datetime, terms: Terms) -> Debit:
    """Only a person can tell why; but a number that was declined, and is tried again for less, is asked about when it
    conflicts: its rider may have paid it meanwhile, as it was."""
    if isinstance(outcome, Conflict) and debit.attempts > 1 and not terms.capabilities.new_key_after_decline:
        return unknown(debit, outcome.code, now)
    return manual(debit, outcome.code)


def on_queried(debit: Debit, outcome: Outcome, now: datetime, terms: Terms) -> Step:
    """UNKNOWN, PENDING or NEEDS_RIDER, and the provider has answered what became of the present key."""
    if isinstance(outcome, Succeeded):
        return _paid_or_unknown(debit, outcome, now, terms)
    if debit.state is State.UNKNOWN:
        return _unknown_queried(debit, outcome, now, terms), ()
    if debit.state is State.PENDING:
        return _pending_queried(debit, outcome, now, terms), ()
    if debit.verify == "present" and isinstance(outcome, NotFound | Closed):
        debit = replace(debit, verify="next")  # The rider was not given it in the time that was lost.
        if not asked_about(debit, terms):
            return replace(debit, due_at=None), ()
    return _poll_again(debit, outcome, now), ()


def on_lower_answered(debit: Debit, outcome: Outcome, now: datetime, terms: Terms) -> Step:
    """The provider has answered the wish to lower the debit, or to close it where nothing more is left to pay."""
    assert debit.lowering_to is not None
    match outcome:
        case Succeeded():
            paid, effects = _paid_or_unknown(debit, outcome, now, terms)
            over = outcome.amount_minor > 0 and (outcome.last or not terms.capabilities.partial_debit)
            return (_ended_meanwhile(paid, now) if over else paid), effects
        case Closed():
            return ended_there(debit, outcome) or (close_confirmed(debit), ())
        case NotFound() if unopened(debit, now, terms):
            return replace(debit, due_at=debit.payable_until), ()
        case NotFound() if debit.state in ENDED:
            return _left_to_settle(debit, now, terms), ()
        case NotFound() if debit.state is not State.PENDING:
            return close_confirmed(debit), ()
        case Accepted() if ends_when_lowered(debit, terms.capabilities):
            return replace(close_confirmed(debit), given=True), ()  # What comes all the same goes back.
        case Accepted() if debit.lowering_to > debit.paid_minor and debit.state not in ENDED:
            less = debit.amount_minor - debit.lowering_to
            lowered = replace(debit, amount_minor=debit.lowering_to, asked_minor=debit.asked_minor - less)
            polled = replace(lowered, lowering_to=None, net_again=True, queries=0, due_at=dunning.poll_at(0, now))
            return polled, ()
        case Postponed():
            return replace(debit, due_at=now + outcome.retry_after), ()
        case Unknown() | Accepted() | NotFound():
            wait = dunning.query_at if debit.queries < ASKED_SOON else dunning.poll_at
            if isinstance(outcome, Unknown) and debit.state is State.PENDING:
                debit = left_open(debit, outcome, now)
            return replace(debit, queries=debit.queries + 1, due_at=wait(debit.queries, now)), ()
        case AlreadyDone() if debit.state in ENDED:  # It was paid there, too: how much, only a question can tell.
            asked = replace(debit, lowering_to=None, doubted_minor=debit.asked_minor, queries=0, due_at=now)
            return asked, ()
        case _:  # It can't be lowered: it is left to settle, and what is too much is given back then.
            left = _left_to_settle(debit, now, terms)
            if isinstance(outcome, AlreadyDone) and left.state is not State.PENDING:  # Paid: that is asked about now.
                left = replace(left, doubted_minor=left.asked_minor, queries=0, due_at=now)
            if debit.net_again and left.state not in ENDED:  # The ride came to owe something else meanwhile.
                return replace(left, net_again=False, excess_minor=0), (NetAgain(),)
            return left, ()


def _ended_meanwhile(debit: Debit, now: datetime) -> Debit:
    """The debit once its provider says that no more comes, where it was still to be lowered: at what was wished for, or
    above it, it is over; what ended below that is asked about as if nothing had been wished."""
    if debit.state is not State.PENDING or debit.lowering_to is None:
        return debit
    if debit.paid_minor >= debit.lowering_to:
        return close_confirmed(debit)
    return replace(debit, lowering_to=None, net_again=True, queries=0, due_at=now)


def accepted(debit: Debit, provider_ref: str | None, now: datetime) -> Debit:
    """The provider is collecting: PENDING, and polled."""
    return replace(
        debit,
        state=State.PENDING,
        provider_ref=provider_ref or debit.provider_ref,
        reason=None,
        queries=0,
        due_at=dunning.poll_at(0, now),
    )


def prepared(debit: Debit, outcome: Prepared, now: datetime) -> Debit:
    """Nothing has moved: the same key again, with the provider's number for it; not for ever. Where nobody knew whether
    it had, less and less often: a provider may keep the error of an outage under the key for a day."""
    again = debit.state is not State.SUBMITTING
    times = 1 if again else debit.queries + 1
    if times > PREPARED_MAX:
        return manual(replace(debit, provider_ref=outcome.provider_ref), PREPARED_ONLY)
    numbered = replace(debit, state=State.SUBMITTING, provider_ref=outcome.provider_ref, queries=times)
    due_at = dunning.query_at(debit.resent - 1, now) if again and debit.resent else now
    return replace(numbered, not_found_at=None, resent=debit.resent + again, due_at=due_at)


def unknown(debit: Debit, reason: str, now: datetime) -> Debit:
    """The money may have moved: ask, under the same key."""
    return replace(
        debit, state=State.UNKNOWN, reason=reason, queries=0, not_found_at=None, due_at=dunning.query_at(0, now)
    )


def manual(debit: Debit, reason: str) -> Debit:
    """Only an operator can tell."""
    return replace(debit, state=State.MANUAL, reason=reason, due_at=None)


def retry_wait(debit: Debit, reason: str, now: datetime, terms: Terms) -> Debit:
    """Declined, or refused its hold, and waiting may help: the calendar's next day, or the rider when it is used up."""
    at = next_retry_at(debit, now, terms)
    if at is None:
        return needs_rider(debit, reason, None, now, terms)
    reminded = min(debit.reminded, debit.attempts)  # What is announced is the next try, also where none was an attempt.
    return replace(debit, state=State.RETRY_WAIT, reason=reason, reminded=reminded, due_at=at)


def next_retry_at(debit: Debit, after_at: datetime, terms: Terms) -> datetime | None:
    """The calendar's next day after an instant, None when it is used up. It counts from the first attempt; of a debit
    that never came to one, from when it was first due: a day that passed is no day to come."""
    zone, rules = terms.zone, terms.calendar
    begun_at = debit.begun_at or dunning.first_attempt_at(debit.created_at, zone, rules)
    return dunning.retry_at(begun_at, max(debit.attempts, 1), after_at, zone, rules)


def needs_rider(debit: Debit, reason: str, action: RiderAction | None, now: datetime, terms: Terms) -> Debit:
    """Nothing moves until the rider does something; where he can pay the open number himself it is polled."""
    due_at = dunning.poll_at(0, now) if asked_about(debit, terms) else None
    return replace(debit, state=State.NEEDS_RIDER, reason=reason, action=action, queries=0, due_at=due_at)


def _paid_or_unknown(debit: Debit, outcome: Succeeded, now: datetime, terms: Terms) -> Step:
    """An amount of nothing is not to be believed."""
    if outcome.amount_minor <= 0:
        return _told_nothing(debit, "succeeded with no amount", outcome, now), ()
    before, debit = debit.paid_minor, answered(debit)
    debit, effects = take_money(debit, debit.provider_key, outcome, now, terms)
    if debit.paid_minor == before and falls_short(debit, outcome, terms):
        debit = ended_short(debit)
    elif debit.paid_minor == before and debit.state in (State.PENDING, State.NEEDS_RIDER):
        debit = _poll_again(debit, outcome, now)  # A part that was known: it goes on.
    elif debit.paid_minor == before and debit.state in LIVE:
        debit = accepted(debit, outcome.provider_ref, now)
    return debit, effects


def _left_to_settle(debit: Debit, now: datetime, terms: Terms) -> Debit:
    """What can't be lowered: nobody is dunned for what is owed no longer of it."""
    assert debit.lowering_to is not None
    left = replace(debit, lowering_to=None)
    if debit.state not in ENDED:
        left = replace(left, net_again=True, excess_minor=debit.amount_minor - max(debit.lowering_to, debit.paid_minor))
    if left.state is State.RETRY_WAIT and not left.suspended:
        return retry_wait(left, left.reason or "", now, terms)
    if left.state in ENDED:  # It may still be paid there: that is too much then.
        return replace(left, given=True, due_at=None)
    asked = left.state is State.PENDING or (left.state is State.NEEDS_RIDER and asked_about(left, terms))
    return replace(left, due_at=now if asked else None)


def _unknown_queried(debit: Debit, outcome: Outcome, now: datetime, terms: Terms) -> Debit:
    match outcome:
        case Accepted():
            return accepted(debit, outcome.provider_ref, now)
        case Prepared():
            return prepared(debit, outcome, now)
        case Declined(retryable=True):
            return retry_wait(_used(debit, terms), outcome.code, now, terms)
        case Declined():
            return needs_rider(_used(debit, terms), outcome.code, None, now, terms)
        case Closed():
            return _ended(replace(_used(debit, terms), given=False), outcome.code, now, terms)
        case NeedsRider():
            return needs_rider(_used(debit, terms), outcome.code, outcome.action, now, terms)
        case Conflict():
            return manual(debit, outcome.code)
        case Barred():  # However late: once we are let in again, he can be asked.
            return replace(debit, due_at=now + outcome.retry_after)
        case _ if window_over(debit, now, terms):
            return manual(debit, f"the key's window is over and the outcome unknown: {debit.reason or 'no answer'}")
        case NotFound():
            return _not_found(debit, now)
        case Postponed():
            return replace(debit, due_at=now + outcome.retry_after)
        case _:
            return _told_nothing(debit, debit.reason or "unknown", outcome, now)


def _used(debit: Debit, terms: Terms) -> Debit:
    """The debit whose key was used in the time that a restored database has lost: the rider may have been given it, and
    the next one may have been used too."""
    able = terms.capabilities
    if debit.reason != RESTORED or not able.new_key_after_decline:
        return debit
    return replace(debit, given=True, verify=None if able.same_key_is_query else "next")


def window_over(debit: Debit, now: datetime, terms: Terms) -> bool:
    """Whether the provider may have forgotten the present key."""
    assert debit.submitted_at is not None
    return now >= debit.submitted_at + terms.capabilities.same_key_window


def _not_found(debit: Debit, now: datetime) -> Debit:
    first_at = debit.not_found_at or now
    if dunning.never_arrived(first_at, debit.resent, now):
        if debit.resent >= len(dunning.NOT_FOUND_APART):
            return manual(debit, dunning.given_up(debit.reason or "unknown"))
        # The same request again, under the same key.
        again = replace(debit, state=State.SUBMITTING, resent=debit.resent + 1, reason="not found twice", queries=1)
        return replace(again, not_found_at=None, due_at=now)
    at = dunning.asked_again_at(first_at, debit.resent, debit.queries + 1, now)
    return replace(debit, not_found_at=first_at, queries=debit.queries + 1, due_at=at)


def _told_nothing(debit: Debit, reason: str, outcome: Outcome, now: datetime) -> Debit:
    if debit.state is State.SUBMITTING:
        return unknown(debit, reason, now)
    if debit.state in ASKED and debit.reason != RESTORED:
        debit = left_open(debit, outcome, now)
    wait = dunning.query_at if debit.state is State.UNKNOWN else dunning.poll_at
    reason = (debit.reason or "") if unanswered(debit) else reason
    return replace(debit, reason=reason, queries=debit.queries + 1, due_at=wait(debit.queries + 1, now))


def _pending_queried(debit: Debit, outcome: Outcome, now: datetime, terms: Terms) -> Debit:
    match outcome:
        case Declined(retryable=True) if not terms.capabilities.provider_retries:
            return retry_wait(debit, outcome.code, now, terms)
        case Declined():
            return needs_rider(debit, outcome.code, None, now, terms)
        case Closed():
            if debit.lowering_to is not None:
                return close_confirmed(debit)
            return _ended(debit, outcome.code, now, terms)
        case NeedsRider():
            return needs_rider(debit, outcome.code, outcome.action, now, terms)
        case Conflict():
            return manual(debit, outcome.code)
        case NotFound():
            return replace(unknown(debit, "accepted, then not found", now), not_found_at=now)
        case Accepted():
            return _poll_again(answered(debit), outcome, now)
        case Postponed():
            return _poll_again(debit, outcome, now)
        case _:
            return _poll_again(left_open(debit, outcome, now), outcome, now)


def _poll_again(debit: Debit, outcome: Outcome, now: datetime) -> Debit:
    if isinstance(outcome, Postponed):
        return replace(debit, due_at=now + outcome.retry_after)
    at = dunning.poll_at(debit.queries + 1, now)
    if debit.suspended and debit.payable_until is not None:  # He is asked about while it is his, and no longer.
        at = min(at, debit.payable_until)
    return replace(debit, queries=debit.queries + 1, due_at=at)


def _ended(debit: Debit, reason: str, now: datetime, terms: Terms) -> Debit:
    """The present key is closed at the provider and will bring nothing."""
    if terms.capabilities.new_key_after_decline and not terms.capabilities.provider_retries:
        return retry_wait(debit, reason or "closed", now, terms)
    return needs_rider(debit, reason or "closed", None, now, terms)


def _cut(debit: Debit, cap_minor: int | None, now: datetime, terms: Terms) -> Debit:
    """Over the cap: the cap is debited, the ride's remainder is for the rider to approve."""
    if cap_minor is None or cap_minor >= debit.asked_minor:
        return manual(debit, "over a cap that the provider does not name")
    if cap_minor <= 0 or not worth_a_debit(cap_minor, terms.capabilities):
        return needs_rider(debit, "cap_exceeded", None, now, terms)
    unpaid = debit.amount_minor - debit.paid_minor
    return replace(
        debit,
        state=State.RETRY_WAIT,
        amount_minor=debit.paid_minor + min(cap_minor, unpaid),
        capped=cap_minor < unpaid,
        net_again=True,
        reason="cap_exceeded",
        due_at=now,
    )
