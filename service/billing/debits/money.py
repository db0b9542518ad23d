"""Money that came, money that goes back, and numbers that were closed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from service.billing.capabilities import Capabilities
from service.billing.debits import dunning
from service.billing.debits.events import Effect, Post, StartRefund
from service.billing.debits.state import Debit, Receipt, State, Terms
from service.billing.outcomes import Succeeded

Step = tuple[Debit, tuple[Effect, ...]]

ENDED = frozenset({State.CANCELLED, State.SETTLED_ELSEWHERE, State.WAIVED, State.SETTLED, State.SETTLED_TWICE})
"""States in which money that comes is too much."""
NO_MORE = "taken, and its number brings no more"
"""How the reason ends of a debit of which less was taken than was asked for."""
TOO_LITTLE = "too little for a debit"
"""Why something is waived."""
LIVE = frozenset({State.SUBMITTING, State.UNKNOWN, State.PENDING})
"""States in which the present key may still bring money."""


def take_money(debit: Debit, key: str, told: Succeeded, now: datetime, terms: Terms) -> Step:
    """The provider has taken what is told under `key` so far. Saying so twice, or an older total, changes nothing."""
    more = told.amount_minor - taken_minor(debit, key)
    if more <= 0:
        return debit, ()
    debit = replace(
        debit,
        receipts=_receipts(debit.receipts, key, told, more, now),
        paid_minor=debit.paid_minor + more,
        provider_ref=(told.provider_ref or debit.provider_ref) if key == debit.provider_key else debit.provider_ref,
    )
    if debit.state is State.WRITTEN_OFF:
        return _recovered(debit, more, now, terms)
    posted = Post("settlement", more)
    if debit.state in ENDED or debit.paid_minor > debit.amount_minor:
        excess = more if debit.state in ENDED else debit.paid_minor - debit.amount_minor
        twice, refunds = _twice(debit, excess, now, terms)
        return twice, (posted, *refunds)
    return _received(debit, key, told, now, terms), (posted,)


def falls_short(debit: Debit, told: Succeeded, terms: Terms) -> bool:
    """Whether less was taken under the present key than it asks for, and no more will be: where nothing is collected in
    parts, or the provider says so. While he is asked to lower it, it may be what it was lowered to."""
    whole_at_once = told.last or not terms.capabilities.partial_debit
    taken = taken_minor(debit, debit.provider_key)
    open_yet = debit.state in (*LIVE, State.NEW, State.RETRY_WAIT, State.NEEDS_RIDER) and debit.lowering_to is None
    return open_yet and whole_at_once and 0 < taken < debit.asked_minor


def ended_short(debit: Debit) -> Debit:
    """The debit whose present key has brought all that it will, which is less than it asked for: settled where no more
    is owed; else something has changed the amount that was not us, and a person must look."""
    if debit.paid_minor + debit.excess_minor >= debit.amount_minor:
        again = debit.net_again or debit.excess_minor > 0
        return replace(debit, state=State.SETTLED, amount_minor=debit.paid_minor, excess_minor=0, net_again=again)
    taken = taken_minor(debit, debit.provider_key)
    reason = f"{taken} of {debit.asked_minor} {NO_MORE}"
    return replace(debit, state=State.MANUAL, reason=reason, due_at=None)


def brings_no_more(debit: Debit) -> bool:
    """Whether a person is to say what becomes of a debit of which a part was taken, and nothing more will be."""
    return debit.state is State.MANUAL and (debit.reason or "").endswith(NO_MORE)


def worth_a_debit(amount_minor: int, able: Capabilities) -> bool:
    """Whether the provider debits, or lets be paid, as little as this: what is less is nobody's to pay."""
    return amount_minor >= able.debit_min_minor


def waived(debit: Debit, amount_minor: int) -> Step:
    """The debit at `amount_minor`, of which so little is unpaid that it is not asked for."""
    rest = amount_minor - debit.paid_minor
    state = State.SETTLED if debit.paid_minor else State.WAIVED
    ended = replace(debit, state=state, amount_minor=amount_minor, excess_minor=0, forgone_minor=rest)
    return replace(ended, reason=TOO_LITTLE), (Post("waiver", rest),)


def taken_minor(debit: Debit, key: str) -> int:
    """What is known to have been taken under a key, with all of its payments."""
    return sum(receipt.amount_minor for receipt in debit.receipts if receipt.key == key)


def receipt_of(receipts: Sequence[Receipt], key: str, provider_ref: str | None) -> Receipt | None:
    """The receipt of a key's payment; the key's first where that had no number, or another, when it was named."""
    own = [receipt for receipt in receipts if receipt.key == key]
    return next((receipt for receipt in own if receipt.provider_ref == provider_ref), own[0] if own else None)


def give_back(debit: Debit, amount_minor: int, reason: str, now: datetime, terms: Terms) -> Step:
    """Refunds of `amount_minor` against the receipts, the newest first, but last those of which refunds came to
    nothing; the caller has seen that there is enough."""
    window = terms.capabilities.refund_window
    receipts, refunds, left, begun_minor = list(debit.receipts), list[StartRefund](), amount_minor, 0
    for index in sorted(range(len(receipts)), key=lambda place: (receipts[place].refused, -place)):
        receipt = receipts[index]
        part = min(left, receipt.amount_minor - receipt.returned_minor)
        if part > 0:
            late = window is not None and now > receipt.taken_at + window
            refused = "refund_window_over" if late else None
            refunds.append(StartRefund(debit.refunds + len(refunds) + 1, receipt, part, reason, refused))
            given = replace(receipt, returned_minor=receipt.returned_minor + part)
            receipts[index] = replace(receipt, refused=receipt.refused + 1) if late else given
            left -= part
            begun_minor += 0 if late else part
    assert left == 0, "more is to be given back than was taken"
    changed = replace(
        debit,
        receipts=tuple(receipts),
        refunds=debit.refunds + len(refunds),
        refunding_minor=debit.refunding_minor + begun_minor,
    )
    return changed, tuple(refunds)


def close_confirmed(debit: Debit) -> Debit:
    """Nothing more will be taken under the present key: cancelled, or settled by what was paid."""
    if debit.state in ENDED:
        return replace(debit, lowering_to=None, given=False, due_at=None)
    state = State.SETTLED if debit.paid_minor else State.CANCELLED
    amount_minor = debit.paid_minor or debit.amount_minor
    closed = replace(debit, state=state, amount_minor=amount_minor, lowering_to=None, given=False)
    return replace(closed, excess_minor=0, net_again=True)


def _receipts(
    receipts: tuple[Receipt, ...], key: str, told: Succeeded, more_minor: int, now: datetime
) -> tuple[Receipt, ...]:
    """The receipts with `more_minor` more under a key: each payment's own, as far as payments are told."""
    by_payment = {(receipt.key, receipt.provider_ref): receipt for receipt in receipts}
    for part in told.parts:
        payment = (key, part.provider_ref)
        told_yet = by_payment.get(payment) or Receipt(key, 0, now, part.provider_ref)
        added = min(more_minor, part.amount_minor - told_yet.amount_minor)
        if added > 0:
            by_payment.pop(payment, None)  # the newest stands last
            by_payment[payment] = replace(told_yet, amount_minor=told_yet.amount_minor + added, taken_at=now)
            more_minor -= added
    receipts = tuple(by_payment.values())
    if not more_minor:
        return receipts
    known = receipt_of(receipts, key, told.provider_ref)
    raised = known or Receipt(key, 0, now)
    named = told.provider_ref is not None and sum(receipt.key == key for receipt in receipts) <= 1
    ref = told.provider_ref if named else raised.provider_ref
    more = replace(raised, amount_minor=raised.amount_minor + more_minor, taken_at=now, provider_ref=ref)
    return (*(receipt for receipt in receipts if receipt is not known), more)


def _received(debit: Debit, key: str, told: Succeeded, now: datetime, terms: Terms) -> Debit:
    """Money came, not more than is owed. The order in which it came under several keys makes no difference."""
    if key == debit.provider_key and falls_short(debit, told, terms):
        return ended_short(debit)
    whole = debit.paid_minor == debit.amount_minor
    brought = taken_minor(debit, debit.provider_key)
    if debit.state not in LIVE or (whole and brought >= debit.asked_minor):
        return replace(debit, state=State.SETTLED) if whole else debit
    if brought and debit.state is not State.PENDING:
        debit = replace(debit, state=State.PENDING, queries=0, due_at=dunning.poll_at(0, now))
    if whole and debit.state is State.PENDING and terms.capabilities.closes_unpaid:
        # The present key could bring the same money again: it is closed before the debit is settled.
        return replace(debit, lowering_to=debit.paid_minor, queries=0, due_at=now)
    return debit


def _recovered(debit: Debit, more: int, now: datetime, terms: Terms) -> Step:
    """Money came for a debt that was written off."""
    recovered = min(more, debit.forgone_minor)
    effects: tuple[Effect, ...] = (Post("recovery", recovered),) if recovered else ()
    debit = replace(debit, forgone_minor=debit.forgone_minor - recovered)
    if debit.forgone_minor:
        return debit, effects
    if more == recovered:
        return replace(debit, state=State.SETTLED), effects
    twice, refunds = _twice(debit, more - recovered, now, terms)
    return twice, (*effects, Post("settlement", more - recovered), *refunds)


def _twice(debit: Debit, excess_minor: int, now: datetime, terms: Terms) -> Step:
    return give_back(replace(debit, state=State.SETTLED_TWICE), excess_minor, "settled_twice", now, terms)
