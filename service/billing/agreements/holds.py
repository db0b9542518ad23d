"""The life of a hold: asked for before the unlock, open while the rider rides, completed when its debits are final."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal
from uuid import UUID

import msgspec
from msgspec.structs import replace

from service.billing.agreements.standing import HoldAnswer, HoldStatus, Refusal
from service.billing.outcomes import (
    CapExceeded,
    Closed,
    Conflict,
    Declined,
    NeedsRider,
    NotFound,
    Postponed,
    Rejected,
    RiderAction,
)

ASK_AFTER = tuple(timedelta(seconds=seconds) for seconds in (1, 2, 5, 10, 30, 60, 300))
"""Steps between calls that brought no answer; the last one repeats."""
ASKED_SOON = 24
"""After so many calls (an hour and a half) a hold that the provider does not end is asked to end seldom."""
CONFIRMED_SOON = timedelta(hours=2)
"""A hold that its rider has not confirmed by then is asked about hourly, after a day seldom, after `DUNNED_FOR` rarely:
that he confirms it is told, and what he opens his debts for is asked about at once."""
CONFIRMED_LATE = timedelta(days=1)
HOURLY = timedelta(hours=1)
LOOK_AGAIN = timedelta(minutes=10)
"""How soon an open hold whose ride goes on is looked at again; collection makes it due when its debits are final."""
LOOK_SELDOM = timedelta(hours=6)
"""And one whose ride is being debited: dunning takes days."""
LOOK_RARELY = timedelta(days=7)
"""And one that has been open for longer than `DUNNED_FOR`: what was written off is asked about for years."""
DUNNED_FOR = timedelta(days=30)
UNOPENED_SOON = timedelta(minutes=5)
"""How soon what a rider may still open of a hold that was given up is looked for, at first."""
UNOPENED_UNKNOWN = timedelta(hours=1)
"""And how soon at the latest where its provider says nothing clear."""
OURS_AGAIN = timedelta(hours=1)
"""How soon a call that was refused as our fault is made again."""


class HoldState(StrEnum):
    """Where a hold stands."""

    REQUESTED = "requested"
    OPEN = "open"
    REFUSED = "refused"
    EXPIRED = "expired"
    COMPLETING = "completing"
    COMPLETED = "completed"
    RELEASED = "released"


ENDED = frozenset({HoldState.REFUSED, HoldState.EXPIRED, HoldState.COMPLETED, HoldState.RELEASED})


class HoldPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's policy on holds; durations are ISO 8601 and business time, unless said."""

    cap_minor: int = 100_000
    """The cap of a hold on an agreement that has none."""
    answer_within: timedelta = timedelta(seconds=3)
    """How long the app waits for the provider, machine time; after it the answer is `pending`."""
    unlock_while_pending: bool = False
    """Whether the vehicle may be unlocked before the provider has answered."""
    give_up_after: timedelta = timedelta(minutes=10)
    """A hold that is not open by then is not wanted any more."""
    release_after: timedelta = timedelta(minutes=30)
    """A hold whose ride has not started by then, as far as the intake has read, is released."""
    release_anyway_after: timedelta = timedelta(hours=24)
    """And by then even if the intake has not read that far."""


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """A hold for a session id. Amounts are minor units of `currency`, instants business time.

    `due_at` is when the provider is to be called next; None: nothing to do. `asks` counts calls without an answer,
    `ordinal` the holds that the ride had before. `refusal` is whose matter it is that it was refused.
    `title` and `subject` are what the rider reads at the provider, as they were said first: they are said again.
    """

    session_key: UUID
    slot: int
    operator_no: int
    session_id: str
    agreement_no: int
    account_no: int
    tariff_id: str
    vehicle_id: str | None
    state: HoldState
    cap_minor: int
    currency: str
    provider_key: str
    requested_at: datetime
    provider_ref: str | None = None
    action: RiderAction | None = None
    reason: str | None = None
    opened_at: datetime | None = None
    expires_at: datetime | None = None
    asks: int = 0
    due_at: datetime | None = None
    version: int = 1
    ordinal: int = 0
    refusal: Refusal | None = None
    title: str = ""
    subject: str = ""


class RideSeen(msgspec.Struct, frozen=True):
    """What is known of a hold's ride: its state (None: no ride); what it owes by the hold's agreement, and its debits
    of that; how far the intake read.

    `debits_final` may bring no more money; `debits_on_hold` were begun and may. `another`: it was charged to another
    agreement.
    """

    state: str | None = None
    owed_minor: int = 0
    debits: int = 0
    debits_final: int = 0
    debits_minor: int = 0
    paid_minor: int = 0
    read_through_at: datetime | None = None
    debits_on_hold: int = 0
    another: bool = False


Step = Literal["ask", "release", "finish", "wait"]

OVER = frozenset({"closed", "cancelled", "voided", "not_billable"})
BEFORE_ITS_END = frozenset({None, "reserved", "open"})
"""Where a session's ride stands while a vehicle may be unlocked for it: elsewhere it has ended, or nobody can say."""


def answered(hold: Hold, answer: HoldAnswer, now: datetime, policy: HoldPolicy) -> Hold:
    """The hold once the provider has answered a question about it, or a call that opens, releases or finishes it.

    One that has ended stays as it is, whatever comes late.
    """
    if hold.state in ENDED:
        return hold
    if not isinstance(answer, HoldStatus):
        return _told_nothing(hold, answer, now)
    hold = replace(hold, provider_ref=answer.provider_ref or hold.provider_ref, action=None)
    match answer.state:
        case "open" if hold.state is HoldState.REQUESTED:
            cap = hold.cap_minor if answer.cap_minor is None else min(answer.cap_minor, hold.cap_minor)
            due_at, expires_at = now + policy.release_after, answer.expires_at or hold.expires_at
            hold = replace(hold, cap_minor=cap, opened_at=now, expires_at=expires_at, due_at=due_at, asks=0)
            return replace(hold, state=HoldState.OPEN, reason=None)
        case "open" | "pending" if (
            hold.state is not HoldState.REQUESTED
        ):  # It was not released or finished: something at the provider is not done yet.
            return _again(hold, now)
        case "pending":
            return _again(replace(hold, action=answer.action), now)
        case "refused" if hold.state is HoldState.REQUESTED:
            return _refused(hold, "passing" if answer.retryable else "final", answer.code or "refused")
        case "completed":
            return _ended(hold, HoldState.COMPLETED, hold.reason)
        case "expired":
            return _ended(hold, HoldState.EXPIRED, "expired at the provider")
        case _:
            return _ended(hold, HoldState.RELEASED, hold.reason or answer.code)


def next_step(hold: Hold, ride: RideSeen, now: datetime, policy: HoldPolicy) -> tuple[Step, str | None]:
    """What is to be done about a hold whose time has come, and why."""
    if ride.another and not ride.debits:
        return "release", "the ride is another agreement's"
    if hold.state is HoldState.REQUESTED:
        if ride.state in OVER and not _to_debit(ride):  # Paid in another way, owed no longer, or never owed at all.
            return "release", "nothing to debit"
        return ("ask", None) if _wanted(hold, ride, now, policy) else ("release", "not answered in time")
    if hold.state is HoldState.COMPLETING:
        if ride.debits_on_hold:  # One that is not begun yet waits for the end of this hold, and gets one of its own.
            return "wait", None
        return ("finish", hold.reason) if ride.paid_minor else ("release", hold.reason)
    if hold.expires_at is not None and hold.expires_at <= now:
        return "ask", None
    if ride.state is None:
        return ("release", "the ride did not start") if _abandoned(hold, ride, now, policy) else ("wait", None)
    if ride.state not in OVER or _to_debit(ride):
        return "wait", None
    return ("finish", None) if ride.paid_minor else ("release", "nothing to debit")


def waiting(hold: Hold, ride: RideSeen, now: datetime) -> Hold:
    """The hold when there is nothing to do yet."""
    if ride.debits_final == ride.debits:
        return replace(hold, due_at=now + LOOK_AGAIN)
    old = hold.opened_at is not None and now >= hold.opened_at + DUNNED_FOR
    return replace(hold, due_at=now + (LOOK_RARELY if old else LOOK_SELDOM))


def completing(hold: Hold, reason: str | None, now: datetime) -> Hold:
    """The hold that is being finished or given up: no debit is begun on it any more."""
    return replace(hold, state=HoldState.COMPLETING, reason=reason, action=None, due_at=now)


def unopened_at(given_up_at: datetime, answer: HoldAnswer, now: datetime) -> datetime | None:
    """When what a rider may still open of a hold that was given up is looked for again, after his provider was told to
    end it; None: he has, and nobody can open it any more.

    Nobody knows for how long it can be opened: the time between two looks is as long as it has been given up, so that
    what is frozen then is free after as long again at the latest, though no notification comes, and a few questions
    reach over years.
    """
    if isinstance(answer, Postponed):
        return now + answer.retry_after
    since = max(now - given_up_at, UNOPENED_SOON)
    if isinstance(answer, NotFound) or (isinstance(answer, HoldStatus) and answer.unopened):
        return now + since
    if isinstance(answer, HoldStatus) and answer.state not in ("open", "pending"):
        return None
    return now + min(since, UNOPENED_UNKNOWN)


def refused_by_us(hold: Hold, reason: str) -> Hold:
    """The hold that our own rules refuse; asking again decides anew."""
    return _refused(hold, "rules", reason)


def _told_nothing(hold: Hold, answer: HoldAnswer, now: datetime) -> Hold:
    """The hold after an answer that is not a status."""
    asking = hold.state is HoldState.REQUESTED
    match answer:
        case Postponed(retry_after=wait):
            return replace(hold, due_at=now + wait)
        case NeedsRider(action=action) if asking:
            return _again(replace(hold, action=action), now)
        case Declined(code=code, retryable=retryable) if asking:
            return _refused(hold, "passing" if retryable else "final", code)
        case CapExceeded() if asking:  # More than the contract allows: the operator has said too high a cap.
            return _refused(hold, "fault", "cap_exceeded")
        case Rejected(code=code) | Conflict(code=code) if asking:
            return _refused(hold, "fault", f"rejected: {code}")
        case Closed() | NotFound() if not asking:
            return _ended(hold, HoldState.RELEASED, hold.reason or "not open at the provider")
        case Rejected() | Conflict():
            return replace(hold, due_at=now + OURS_AGAIN)
    return _again(hold, now)


def _again(hold: Hold, now: datetime) -> Hold:
    wait = ASK_AFTER[min(hold.asks, len(ASK_AFTER) - 1)]
    if hold.state is HoldState.COMPLETING and hold.asks >= ASKED_SOON:
        wait = LOOK_SELDOM
    if hold.state is HoldState.REQUESTED and hold.action is not None:
        wait = max(wait, _unconfirmed(now - hold.requested_at))
    return replace(hold, asks=hold.asks + 1, due_at=now + wait)


def _unconfirmed(age: timedelta) -> timedelta:
    """How long a hold that has been its rider's to confirm for so long is left alone, at least."""
    if age < CONFIRMED_SOON:
        return timedelta()
    if age < CONFIRMED_LATE:
        return HOURLY
    return LOOK_SELDOM if age < DUNNED_FOR else LOOK_RARELY


def _refused(hold: Hold, refusal: Refusal, reason: str) -> Hold:
    return replace(_ended(hold, HoldState.REFUSED, reason), refusal=refusal)


def _ended(hold: Hold, state: HoldState, reason: str | None) -> Hold:
    return replace(hold, state=state, reason=reason, action=None, due_at=None)


def _wanted(hold: Hold, ride: RideSeen, now: datetime, policy: HoldPolicy) -> bool:
    """Whether somebody still waits for the hold: for the answer, for the rider to confirm; or he rides already."""
    patience = policy.release_after if hold.action else policy.give_up_after
    return ride.state is not None or now < hold.requested_at + patience


def _to_debit(ride: RideSeen) -> bool:
    """Whether a debit of the ride may still bring money, or is still to be opened."""
    return ride.debits_final < ride.debits or ride.owed_minor > ride.debits_minor


def _abandoned(hold: Hold, ride: RideSeen, now: datetime, policy: HoldPolicy) -> bool:
    """The ride has not started by the deadline, as far as the intake has read."""
    opened_at = hold.opened_at or hold.requested_at
    deadline = opened_at + policy.release_after
    if now < deadline:
        return False
    read = ride.read_through_at is not None and ride.read_through_at >= deadline
    return read or now >= opened_at + policy.release_anyway_after
