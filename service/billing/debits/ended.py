"""What was paid outside; and what was ended at its provider in the merchant's name, though not by us.

The operator's own people can mark an order as paid there, or cancel it. Nobody can pay such a debit any more, and no
other number of it is begun by itself: his people may have had the money, or meant that none is owed.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from service.billing.debits.events import Post
from service.billing.debits.money import Step, close_confirmed
from service.billing.debits.state import CAN_BE_OVERDUE, GONE_THERE, Debit, State, by_provider
from service.billing.outcomes import Closed

MARKED_PAID = "marked as paid there, not by us"
WHAT_TO_DO = "settle it elsewhere if the rider has paid, else cancel it"
CAN_END = (State.SUBMITTING, State.UNKNOWN, *CAN_BE_OVERDUE, State.WRITTEN_OFF)
"""States in which money is still asked for, or would still be taken for a debt."""


def settled_outside(debit: Debit, reason: str, *, open_there: bool, stop_at: datetime | None = None) -> Step:
    """The debit whose rest was paid outside. `open_there`: its number may still be paid at the provider, who is told to
    stop at `stop_at`. What was owed no longer of a debit that can't be lowered was not paid outside either; what had
    been written off is paid."""
    written_off = debit.state is State.WRITTEN_OFF
    rest = max(debit.amount_minor - debit.paid_minor - debit.excess_minor, 0)  # A part may have brought too much.
    if written_off:
        rest = debit.forgone_minor
    ended = replace(
        debit,
        state=State.SETTLED_ELSEWHERE,
        amount_minor=debit.paid_minor + rest,
        excess_minor=0,
        forgone_minor=rest,
        outside_minor=rest,
        reason=reason,
        lowering_to=debit.paid_minor if stop_at is not None else None,
        given=open_there,
        queries=0,
        due_at=stop_at,
    )
    back = [Post("write_off_back", rest)] if written_off else []
    return ended, (*back, Post("elsewhere", rest))


def ended_there(debit: Debit, outcome: Closed) -> Step | None:
    """The debit once its provider says that it was ended there, and not by us; None: that is not what he says, or it
    makes no difference."""
    if outcome.ended is None or debit.state not in CAN_END:
        return None
    if outcome.ended == "paid":
        return settled_outside(debit, by_provider(f"{MARKED_PAID} ({outcome.code})"), open_there=False)
    if debit.state is State.WRITTEN_OFF:
        return None
    wanted = debit.amount_minor - debit.excess_minor if debit.lowering_to is None else debit.lowering_to
    if wanted <= debit.paid_minor:
        return close_confirmed(debit), ()
    gone = replace(debit, state=State.MANUAL, amount_minor=wanted, excess_minor=0, lowering_to=None)
    gone = replace(gone, reason=f"{GONE_THERE} ({outcome.code}): {WHAT_TO_DO}")
    return replace(gone, action=None, given=False, payable_until=None, due_at=None), ()
