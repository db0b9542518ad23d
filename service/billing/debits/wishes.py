"""What people and calendars do to a debit: riders, support, operators, banks; the rest is time and the provider."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from service.billing.debits import dunning
from service.billing.debits.answers import asked_about, collected_yet, ends_when_lowered, unopened
from service.billing.debits.disputes import disputed, goes_on_at, to_be_noticed_again
from service.billing.debits.ended import settled_outside
from service.billing.debits.events import (
    GivenBack,
    GivenBackFailed,
    ImpossibleEventError,
    NetAgain,
    OperatorDecided,
    OwedChanged,
    PaidElsewhere,
    Post,
    RefundAsked,
    RefundEnded,
    RefundRefusedError,
    RefundReturned,
    Resumed,
    RetryAsked,
    StartRefund,
    Suspended,
)
from service.billing.debits.holding import taken_up
from service.billing.debits.money import (
    TOO_LITTLE,
    Step,
    brings_no_more,
    close_confirmed,
    give_back,
    receipt_of,
    take_money,
    waived,
    worth_a_debit,
)
from service.billing.debits.state import (
    CAN_BE_OVERDUE,
    FINAL,
    TO_OPEN,
    UNSURE,
    Debit,
    State,
    Terms,
    by_support,
    certain,
    gone_there,
    kept_from_hold,
    payable,
    refused_a_hold,
    refused_for_us,
    returned_minor,
)
from service.billing.debits.unanswered import unanswered
from service.billing.outcomes import Succeeded

FORGONE = (State.WAIVED, State.WRITTEN_OFF, State.CANCELLED, State.SETTLED, State.SETTLED_TWICE)
"""States in which something may have been given up that was not paid outside either: a rest that was too little for a
debit; money that came after an operator had cancelled goes back, and what was written off stays so."""


def retry_asked(debit: Debit, event: RetryAsked, now: datetime, terms: Terms) -> Step:
    """Now, not when the calendar says: tried where we try, asked about where the provider does. What a refused hold has
    kept from being tried asks for another one. Where the rider was given it to pay, his time for that is over; not
    where the provider can't end it."""
    if debit.suspended or disputed(debit) or debit.lowering_to is not None:
        raise ImpossibleEventError(debit, event)
    if debit.given and unopened(debit, now, terms):
        raise ImpossibleEventError(debit, event)
    if kept_from_hold(debit):
        return taken_up(debit, now), ()
    if debit.state not in (State.NEW, State.RETRY_WAIT, State.UNKNOWN, State.PENDING):
        raise ImpossibleEventError(debit, event)
    over = debit.state in (State.NEW, State.RETRY_WAIT)
    return replace(debit, payable_until=None if over else debit.payable_until, due_at=now), ()


def operator_decided(debit: Debit, event: OperatorDecided, now: datetime, terms: Terms) -> Step:
    """The way out of MANUAL, and of what its provider says nothing of that anybody has listed. What was never sent to
    anybody can't have been settled there."""
    if not (debit.state is State.MANUAL or unanswered(debit)) or (
        event.decision == "settled" and debit.submitted_at is None
    ):
        raise ImpossibleEventError(debit, event)
    for_hold = refused_for_us(debit)
    debit = replace(debit, reason=by_support(event.reason))
    if event.decision == "settled":
        told = Succeeded(debit.asked_minor, event.provider_ref)
        return take_money(debit, debit.provider_key, told, now, terms)
    if event.decision == "submit_again" and for_hold:  # Through a hold of its own, which is asked for first.
        return replace(taken_up(debit, now), reason=debit.reason), ()
    if event.decision == "submit_again":
        again = replace(debit, state=State.SUBMITTING, submitted_at=now, queries=1, due_at=now)
        return replace(again, not_found_at=None, resent=0), ()
    rest = debit.amount_minor - debit.paid_minor
    ended = replace(debit, state=State.CANCELLED, forgone_minor=rest, given=debit.submitted_at is not None)
    return ended, (Post("write_off", rest),)  # Nobody knows what becomes of its number: it is asked about, seldom.


def paid_elsewhere(debit: Debit, event: PaidElsewhere, now: datetime, terms: Terms) -> Step:
    """Paid outside: nothing more is asked, and the provider is told where he listens, until he has answered."""
    written_off = debit.state is State.WRITTEN_OFF
    told = certain(debit) or brings_no_more(debit)
    if debit.state not in CAN_BE_OVERDUE and not told and not written_off:
        raise ImpossibleEventError(debit, event)
    open_there = collected_yet(debit) if written_off else debit.state is State.PENDING or asked_about(debit, terms)
    stop_at = now if terms.capabilities.told_paid_elsewhere and open_there else None
    return settled_outside(debit, by_support(event.reason), open_there=open_there, stop_at=stop_at)


def owed_changed(debit: Debit, event: OwedChanged, now: datetime, terms: Terms) -> Step:
    """The ride's obligations leave another amount to this debit; less than what was paid is a matter of refunds."""
    if debit.forgone_minor > debit.outside_minor and debit.state in FORGONE:
        return _less_forgone(debit, event, now, terms)
    if debit.state in FINAL or (event.amount_minor > debit.amount_minor and debit.attempts > 0):
        raise ImpossibleEventError(debit, event)
    if (debit.state in UNSURE and not certain(debit)) or debit.lowering_to is not None:
        return replace(debit, net_again=True), ()
    wanted = max(event.amount_minor, debit.paid_minor)
    if wanted == debit.amount_minor:
        return replace(debit, excess_minor=0, net_again=False), ()
    able = terms.capabilities
    pending = debit.state is State.PENDING
    open_there = pending or (asked_about(debit, terms) and not gone_there(debit))
    if wanted == debit.paid_minor or not worth_a_debit(wanted - debit.paid_minor, able):
        never_closed = debit.state is State.RETRY_WAIT and not able.closes_unpaid
        if not open_there or never_closed:
            doubted = debit.asked_minor or debit.amount_minor if debit.verify and not open_there else None
            closed, effects = waived(debit, wanted) if wanted > debit.paid_minor else (close_confirmed(debit), ())
            # What may have been sent in the time that was lost is asked about all the same.
            return replace(closed, given=open_there, net_again=False, doubted_minor=doubted), effects
        if _closed_on_wish(debit, terms) or ends_when_lowered(debit, able):
            return replace(debit, lowering_to=debit.paid_minor, net_again=False, queries=0, due_at=now), ()
    elif pending and able.reduces_pending:
        return replace(debit, lowering_to=wanted, net_again=False, queries=0, due_at=now), ()
    elif not open_there or (able.reduces_declined and not pending):
        return replace(debit, amount_minor=wanted, excess_minor=0), ()
    return replace(debit, net_again=True, excess_minor=debit.amount_minor - wanted), ()


def _closed_on_wish(debit: Debit, terms: Terms) -> bool:
    """Whether the provider is asked to close the debit's number: also where he closes nothing that he collects, if only
    the rider can pay it (WeChat Pay: an order stays open, the rider's own payment is closed)."""
    return terms.capabilities.closes_unpaid or not debit.attempts


def _less_forgone(debit: Debit, event: OwedChanged, now: datetime, terms: Terms) -> Step:
    """What was given up is owed no longer: so much less was given up. A number that is still open is closed."""
    back = min(debit.amount_minor - event.amount_minor, debit.forgone_minor - debit.outside_minor)
    if back <= 0:
        return debit, ()
    less = replace(debit, amount_minor=debit.amount_minor - back, forgone_minor=debit.forgone_minor - back)
    if debit.state is State.WRITTEN_OFF and not less.forgone_minor:
        open_there = collected_yet(debit)
        less = replace(less, state=State.SETTLED if less.paid_minor else State.CANCELLED, given=open_there)
        if open_there and _closed_on_wish(debit, terms):
            less = replace(less, lowering_to=less.paid_minor, queries=0, due_at=now)
    waived_before = debit.state is State.WAIVED or debit.reason == TOO_LITTLE
    return less, (Post("waiver_back" if waived_before else "write_off_back", back),)


def suspended(debit: Debit, event: Suspended, now: datetime, _terms: Terms) -> Step:
    """Support stops what is not submitted; a doubt whether money was taken is asked about all the same, and so is what
    the rider was given to pay by himself, for as long as it is his. Why it waits
    for its rider, if it does, stays what it was: that is so again once it goes on."""
    if debit.state not in (State.NEW, State.RETRY_WAIT, State.NEEDS_RIDER) or debit.lowering_to is not None:
        raise ImpossibleEventError(debit, event)
    reason = debit.reason if debit.state is State.NEEDS_RIDER else by_support(event.reason)
    due_at = now if debit.doubted_minor is not None else None
    if due_at is None and debit.payable_until is not None and payable(debit, now):
        due_at = min(debit.due_at or now, debit.payable_until)
    return replace(debit, suspended=True, reason=reason, due_at=due_at), ()


def resumed(debit: Debit, _event: Resumed, now: datetime, terms: Terms) -> Step:
    """The clock begins anew: what stood still does not become overdue for it. Why it stood still is history."""
    if not debit.suspended:
        return debit, ()
    pay_by = (
        debit.pay_by if debit.overdue else max(debit.pay_by or now, dunning.pay_by(now, terms.zone, terms.calendar))
    )
    waits = debit.state is State.NEEDS_RIDER or refused_a_hold(debit) or debit.reason == TO_OPEN
    going_on = replace(debit, suspended=False, pay_by=pay_by, reason=debit.reason if waits else None)
    going_on = to_be_noticed_again(going_on)
    return replace(going_on, due_at=goes_on_at(going_on, now, terms)), ()


def refund_asked(debit: Debit, event: RefundAsked, now: datetime, terms: Terms) -> Step:
    """Up to what was paid, but not while the bank takes it anyway."""
    if debit.state not in FINAL:
        raise ImpossibleEventError(debit, event)
    if debit.dispute == "chargeback":
        raise RefundRefusedError("the bank is taking this money back: no refund during a chargeback")
    left = refundable_minor(debit)
    if not 0 < event.amount_minor <= left:
        raise RefundRefusedError(f"{event.amount_minor} can't be given back: {left} is left of what was paid")
    given, refunds = give_back(debit, event.amount_minor, event.reason, now, terms)
    return given, tuple(replace(one, because=event.because) if isinstance(one, StartRefund) else one for one in refunds)


def given_back(debit: Debit, event: GivenBack, _now: datetime, _terms: Terms) -> Step:
    """Given back outside: of what was paid there first, and then of what the provider has taken, unless he gave it back
    himself. How much is the rider's at all, only his ride can tell (`obligations.owed_back_minor`)."""
    if debit.state not in FINAL:
        raise ImpossibleEventError(debit, event)
    outside = min(event.amount_minor, debit.outside_minor) if event.refund is None else 0
    rest = event.amount_minor - outside
    if not 0 <= rest <= refundable_minor(debit) or not event.amount_minor:
        raise RefundRefusedError(f"{event.amount_minor} can't be given back: it is more than it has brought")
    given = replace(
        debit,
        forgone_minor=debit.forgone_minor - outside,
        outside_minor=debit.outside_minor - outside,
        given_back_minor=debit.given_back_minor + rest,
    )
    effects = [Post("elsewhere_back", outside)] if outside else []
    from_paid = Post("given_back" if event.refund is None else "given_back_there", rest)
    return given, (*effects, from_paid) if rest else tuple(effects)


def given_back_failed(debit: Debit, event: GivenBackFailed, _now: datetime, _terms: Terms) -> Step:
    """What was booked as given back in the provider's console is ours again, and owed to the rider: it is netted, and
    what is still owed back is a refund of our own."""
    left = replace(debit, given_back_minor=debit.given_back_minor - event.amount_minor)
    return left, (Post("given_back_failed", event.amount_minor), NetAgain())


def refundable_minor(debit: Debit) -> int:
    """What can still be given back: what was paid, less what the rider has back already, or is to get back."""
    return max(debit.paid_minor - returned_minor(debit) - debit.disputed_minor, 0)


def refund_ended(debit: Debit, event: RefundEnded, _now: datetime, _terms: Terms) -> Step:
    """A refund's amount leaves what is under way, for good or back to its receipt."""
    debit = replace(debit, refunding_minor=debit.refunding_minor - event.amount_minor)
    if event.succeeded:
        return replace(debit, refunded_minor=debit.refunded_minor + event.amount_minor), ()
    return _not_returned(debit, event), ()


def refund_returned(debit: Debit, event: RefundReturned, _now: datetime, _terms: Terms) -> Step:
    """What was given back has come back."""
    debit = replace(debit, refunded_minor=debit.refunded_minor - event.amount_minor)
    return _not_returned(debit, event), ()


def _not_returned(debit: Debit, event: RefundEnded | RefundReturned) -> Debit:
    """The debit whose receipt can be given back by so much again."""
    named = receipt_of(debit.receipts, event.key, event.provider_ref)
    if named is None:
        return debit
    again = replace(named, returned_minor=named.returned_minor - event.amount_minor, refused=named.refused + 1)
    return replace(debit, receipts=tuple(again if receipt is named else receipt for receipt in debit.receipts))
