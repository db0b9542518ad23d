"""A debit of a provider that debits through orders, and what it waits for while its ride has no open one."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from service.billing.capabilities import Capabilities
from service.billing.debits import dunning
from service.billing.debits.answers import manual, may_be_given, needs_rider, next_retry_at, retry_wait
from service.billing.debits.disputes import disputed
from service.billing.debits.events import OpenHold
from service.billing.debits.money import Step, worth_a_debit
from service.billing.debits.state import (
    HOLD_REFUSED,
    TO_CONFIRM,
    TO_OPEN,
    Debit,
    HoldSeen,
    State,
    Terms,
    kept_from_hold,
    payable,
    waits_for_hold,
)
from service.billing.debits.unanswered import ANSWERED_WITHIN, UNANSWERED

OVER = ("expired", "completed", "released")
"""States of a hold that is over, and was not refused."""


def goes_through_holds(able: Capabilities) -> bool:
    """Whether every debit needs an open hold."""
    return able.hold_needed and not able.debits_without_hold


def hold_first(debit: Debit, now: datetime, terms: Terms) -> Step | None:
    """What comes before the next attempt: a hold is opened, or waited for; None where nothing does.

    A ride that was charged without a hold, or whose hold was given up too early, gets one now; so does one whose hold
    was refused before the debit asked for any: by our own rules (none is asked for while its agreement is pending, and
    the debit waits for that), or by the provider, who may say otherwise now. What he refuses to the debit itself is
    that debit's matter. What it asked for and nobody confirmed is asked for again as often as a debit is tried. A
    number that stays the same stays on the hold it was first sent on.
    """
    hold, able = terms.hold, terms.capabilities
    if not goes_through_holds(able) or (hold is not None and hold.state == "open"):
        return None
    if debit.attempts and not able.new_key_after_decline:
        if hold is not None and hold.state == "completing":
            return None
        return needs_rider(debit, "the hold is over", None, now, terms), ()  # Its number may still be paid.
    waits = replace(debit, queries=debit.queries + 1, due_at=dunning.query_at(debit.queries, now))
    if hold is None or hold.state in OVER:
        return _in_its_turn(debit, waits, now, terms)
    if hold.state == "refused":
        waited = debit.reason in (TO_OPEN, TO_CONFIRM)
        return _refused(debit, hold, now, terms) if waited and hold.refusal != "rules" else _asked(debit, waits, terms)
    if hold.state == "completing" or hold.action is None:
        asked_at = hold.requested_at if hold.state == "requested" else None
        if asked_at is not None and now >= asked_at + ANSWERED_WITHIN:
            return manual(replace(debit, queries=0), f"{HOLD_REFUSED}: {UNANSWERED}"), ()
        return waits, ()
    asked = replace(debit, state=State.NEEDS_RIDER, reason=TO_CONFIRM, action=hold.action)
    return replace(asked, queries=debit.queries + 1, due_at=dunning.poll_at(debit.queries, now)), ()


def taken_up(debit: Debit, now: datetime) -> Debit:
    """The debit that a refused hold has kept from being tried, from its beginning: it opened all the same, or somebody
    wants another one to be asked for."""
    state = State.RETRY_WAIT if debit.attempts else State.NEW
    given = may_be_given(debit)
    return replace(debit, state=state, reason=None, action=None, given=given, queries=0, due_at=now)


def opened_after_all(debit: Debit, now: datetime, terms: Terms) -> bool:
    """Whether the hold that was refused to the debit is open now, and nobody need do anything any more; not while its
    rider is paying otherwise."""
    opened = terms.hold is not None and terms.hold.state == "open"
    return kept_from_hold(debit) and opened and not (payable(debit, now) or debit.suspended or disputed(debit))


def wanted_now(debit: Debit, now: datetime, terms: Terms) -> Step:
    """The rider wants to pay what he pays by confirming a hold: that which waits for him now, or another one at once in
    the place of what is over, whatever the calendar says. What stands otherwise goes on by itself."""
    hold, waits = terms.hold, replace(debit, action=None, queries=0, due_at=now)
    if hold is None or hold.state in OVER or (hold.state == "refused" and hold.refusal == "rules"):
        return _asked(debit, replace(waits, queries=1, due_at=dunning.query_at(0, now)), terms)
    if hold.state == "requested" and hold.action is not None:
        return replace(waits, action=hold.action, due_at=dunning.poll_at(0, now)), ()
    return waits, ()


def _in_its_turn(debit: Debit, waits: Debit, now: datetime, terms: Terms) -> Step:
    """Another hold in the place of none, or of one that is over.

    Where that was asked for by the debit, and was of no use to it (its rider did not confirm it, and its provider has
    ended it), the next one waits for the calendar's day after it was asked for: he is not to be asked more often than
    a debit is tried. After the last of them it is for him to ask (`wanted_now`).
    """
    hold = terms.hold
    at: datetime | None = now
    if hold is not None and hold.state != "completed" and debit.reason in (TO_OPEN, TO_CONFIRM):
        asked_at = hold.requested_at
        at = next_retry_at(debit, asked_at, terms) if asked_at is not None and asked_at >= debit.created_at else now
    if hold is None or (at is not None and at <= now):
        return _asked(debit, waits, terms)
    lapsed = replace(debit, action=None, queries=0, due_at=at)
    if waits_for_hold(debit):
        return lapsed, ()
    return retry_wait(lapsed, f"{HOLD_REFUSED}: {hold.reason or hold.state}", now, terms), ()


def _asked(debit: Debit, waits: Debit, terms: Terms) -> Step:
    """Another hold is asked for.

    Where the rider confirms each hold it is for the debit's amount: he has ridden, and what is above that would only be
    frozen. What comes to be owed on top of it before it is over he pays himself; what is owed no longer is released
    with the rest. Where nobody confirms it, it is for the cap, as one that is asked for before the ride.
    """
    amount_minor = debit.amount_minor if terms.capabilities.hold_confirmed_by_rider else None
    wanted = OpenHold(0 if terms.hold is None else terms.hold.ordinal + 1, amount_minor)
    if waits_for_hold(debit):  # Whoever did not confirm in time is asked anew.
        return replace(waits, action=None), (wanted,)
    return replace(waits, reason=TO_OPEN), (wanted,)


def _refused(debit: Debit, hold: HoldSeen, now: datetime, terms: Terms) -> Step:
    """The hold that the debit asked for was refused: because of us, for now, or for good."""
    reason = f"{HOLD_REFUSED}: {hold.reason or ''}".rstrip(": ")
    asked = replace(debit, action=None, queries=0)
    match hold.refusal:
        case "fault":
            return manual(asked, reason), ()
        case "passing":
            return retry_wait(asked, reason, now, terms), ()
    return needs_rider(asked, reason, None, now, terms), ()


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
    if hold.cap_minor <= 0 or not worth_a_debit(hold.cap_minor, able):
        return _for_rider(debit, "cap_exceeded", None)
    cut = max(hold.cap_minor, debit.paid_minor)
    return replace(debit, amount_minor=cut, capped=True, net_again=True, due_at=now)


def _for_rider(debit: Debit, reason: str, due_at: datetime | None) -> Debit:
    return replace(debit, state=State.NEEDS_RIDER, reason=reason, action=None, queries=0, due_at=due_at)
