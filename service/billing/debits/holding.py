"""A debit of a provider that debits through orders, and what it waits for while its ride has no open one."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from service.billing.capabilities import Capabilities
from service.billing.debits import dunning
from service.billing.debits.answers import needs_rider
from service.billing.debits.events import OpenHold
from service.billing.debits.money import Step
from service.billing.debits.state import TO_CONFIRM, TO_OPEN, Debit, State, Terms, waits_for_hold

UNSIGNED = "agreement_pending"
"""Why a hold was refused whose agreement the rider had not signed then (`billing.agreements.refusal`)."""


def goes_through_holds(able: Capabilities) -> bool:
    """Whether every debit needs an open hold."""
    return able.hold_needed and not able.debits_without_hold


def hold_first(debit: Debit, now: datetime, terms: Terms) -> Step | None:
    """What comes before the next attempt: a hold is opened, or waited for; None where nothing does.

    A ride that was charged without a hold, or whose hold was given up too early, gets one now; so does one whose hold
    was refused because the rider had not signed: no hold is asked for while his agreement is pending, and the debit
    waits for that. A number that stays the same stays on the hold it was first sent on.

    Where the rider confirms each hold it is for the debit's amount: he has ridden, and what is above that would only be
    frozen. What comes to be owed on top of it before it is over he pays himself; what is owed no longer is released
    with the rest. Where nobody confirms it, it is for the cap, as one that is asked for before the ride.
    """
    hold, able = terms.hold, terms.capabilities
    if not goes_through_holds(able) or (hold is not None and hold.state == "open"):
        return None
    if debit.attempts and not terms.capabilities.new_key_after_decline:
        if hold is not None and hold.state == "completing":
            return None
        return needs_rider(debit, "the hold is over", None, now, terms), ()  # Its number may still be paid.
    waits = replace(debit, queries=debit.queries + 1, due_at=dunning.query_at(debit.queries, now))
    unsigned = hold is not None and hold.state == "refused" and hold.reason == UNSIGNED
    if hold is None or unsigned or hold.state in ("expired", "completing", "completed", "released"):
        if hold is not None and hold.state == "completing":
            return waits, ()
        amount_minor = debit.amount_minor if able.hold_confirmed_by_rider else None
        wanted = OpenHold(0 if hold is None else hold.ordinal + 1, amount_minor)
        if waits_for_hold(debit):  # Whoever did not confirm in time is asked anew.
            return replace(waits, action=None), (wanted,)
        return replace(waits, reason=TO_OPEN), (wanted,)
    if hold.state == "requested":
        if hold.action is None:
            return waits, ()
        asked = replace(debit, state=State.NEEDS_RIDER, reason=TO_CONFIRM, action=hold.action)
        return replace(asked, queries=debit.queries + 1, due_at=dunning.poll_at(debit.queries, now)), ()
    return _for_rider(debit, f"the hold was refused: {hold.reason or ''}".rstrip(": "), None), ()


def cut_to_hold(debit: Debit, now: datetime, terms: Terms) -> Debit | None:
    """The debit at what its open hold allows, where it was netted before that was known; None: it fits.

    What it leaves of the ride is netted again, for the rider to approve. A number that stays the same was sent with its
    amount before.
    """
    hold, able = terms.hold, terms.capabilities
    sent = debit.attempts > 0 and not able.new_key_after_decline
    if sent or hold is None or hold.state != "open" or hold.cap_minor is None:
        return None
    if debit.amount_minor <= hold.cap_minor:
        return None
    if hold.cap_minor <= 0:
        return _for_rider(debit, "cap_exceeded", None)
    cut = max(hold.cap_minor, debit.paid_minor)
    return replace(debit, amount_minor=cut, capped=True, net_again=True, due_at=now)


def _for_rider(debit: Debit, reason: str, due_at: datetime | None) -> Debit:
    return replace(debit, state=State.NEEDS_RIDER, reason=reason, action=None, queries=0, due_at=due_at)
