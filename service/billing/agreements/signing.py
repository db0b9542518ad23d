"""The life of an agreement: begun, signed by the rider at the provider, revoked by either side, or over."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal
from zlib import crc32

import msgspec
from msgspec.structs import replace

from service.billing.agreements.standing import AgreementAnswer, AgreementStatus
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

State = Literal["pending", "active", "suspended", "refused", "revoked", "expired"]
REVOKING = "revoking"
"""Why an agreement is suspended while the provider is asked to end it."""
SIGN_WITHIN = timedelta(days=1)
"""An agreement that the rider has not signed by then has expired."""
ASK_AFTER = tuple(timedelta(seconds=seconds) for seconds in (2, 5, 15, 60, 300, 1800))
"""Steps between questions about what is not decided; the last one repeats."""
OURS_AGAIN = timedelta(hours=1)
LOOK_SELDOM, SPREAD = timedelta(days=30), timedelta(days=7)
"""How soon a signed agreement is asked about though nobody said that it is over, and over how long such questions are
spread: a notification can be lost, and every answer that refuses a ride has it asked about at once, so that this finds
riders who ended it and have not ridden since. Of a million agreements it is a question every three seconds."""
NOT_THERE = "unknown at the provider"
"""Why an agreement is over that the rider had signed and its provider does not know, however often he is asked."""
LOOK_FIRST = timedelta(minutes=1)
"""How soon after its end an agreement is looked at whose provider is told when nothing is under way any more: what was
admitted in the same moment is seen by then."""
LOOK_AGAIN = timedelta(minutes=15)
READ_ANYWAY_AFTER = timedelta(hours=24)
"""By then rides that began before the end are taken to be known, even if the intake has not read that far."""


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """A rider's agreement on one merchant account. Amounts are minor units of `currency`, instants business time.

    `due_at` is when the provider is to be asked next; None: only when somebody wants to know. `ending_at`: it is over
    with us since then, and the provider, who would collect nothing on it any more, is still to be told.
    """

    agreement_no: int
    operator_no: int
    agreement_id: str
    rider_no: int
    rider_ref: str
    account_no: int
    state: State
    currency: str
    cap_asked_minor: int | None
    cap_minor: int | None
    time_zone: str
    language: str
    provider_key: str
    created_at: datetime
    provider_ref: str | None = None
    action: RiderAction | None = None
    reason: str | None = None
    valid_until: datetime | None = None
    asks: int = 0
    due_at: datetime | None = None
    ending_at: datetime | None = None
    version: int = 1


class UnderWay(msgspec.Struct, frozen=True):
    """What still goes on on an agreement: rides not closed or not wholly turned into debits, holds, debits that may
    yet be collected on it; and how far the intake has read."""

    rides: int
    holds: int
    debits: int
    read_through_at: datetime | None


def answered(agreement: Agreement, answer: AgreementAnswer, now: datetime) -> Agreement:
    """The agreement once the provider has answered. What is over stays over."""
    if agreement.ending_at is not None:
        return _told_of_its_end(agreement, answer, now)
    if agreement.state in ("refused", "revoked", "expired"):
        return agreement
    if not isinstance(answer, AgreementStatus):
        return _told_nothing(agreement, answer, now)
    agreement = replace(agreement, provider_ref=answer.provider_ref or agreement.provider_ref)
    match answer.state:
        case "active" if agreement.state == "suspended":
            return _again(agreement, now) if agreement.reason == REVOKING else replace(agreement, due_at=None)
        case "active":
            cap = answer.cap_minor if answer.cap_minor is not None else agreement.cap_minor
            end = answer.valid_until
            if end is not None and end <= now:
                return _ended(agreement, "expired", None)
            looked_at = _seldom(agreement, now)
            due_at = looked_at if end is None else min(end, looked_at)
            agreement = replace(agreement, cap_minor=cap, valid_until=end, due_at=due_at, asks=0)
            return replace(agreement, state="active", action=None, reason=None)
        case "pending" if agreement.state == "suspended":
            return _again(agreement, now)
        case "pending":
            return replace(_again(agreement, now), action=answer.action or agreement.action)
        case "refused":
            return _ended(agreement, "refused", answer.code or "refused")
        case "revoked":
            return _ended(agreement, "revoked", answer.code)
        case "expired":
            return _ended(agreement, "expired", answer.code)


def revoking(agreement: Agreement, now: datetime, *, ends_collection: bool = False) -> Agreement:
    """The agreement that is to end: no new ride from now on; what was ridden is still collected.

    Where the provider's revoking `ends_collection`, a signed one is over with us at once, and the provider is told
    later (`may_be_told`).
    """
    if agreement.state in ("refused", "revoked", "expired"):
        return agreement
    if ends_collection and agreement.state == "active":
        return replace(_ended(agreement, "revoked", None), ending_at=now, due_at=now + LOOK_FIRST, asks=0)
    return replace(agreement, state="suspended", reason=REVOKING, action=None, due_at=now, asks=0)


def may_be_told(agreement: Agreement, going_on: UnderWay, now: datetime, within: timedelta) -> bool:
    """Whether the provider may end it now: nothing is under way any more, as far as we know, or `within` is over.

    Then what is still unpaid is declined at its next attempt, and the rider's to pay.
    """
    assert agreement.ending_at is not None
    if now >= agreement.ending_at + within:
        return True
    if going_on.rides or going_on.holds or going_on.debits:
        return False
    read = going_on.read_through_at is not None and going_on.read_through_at >= agreement.ending_at
    return read or now >= agreement.ending_at + READ_ANYWAY_AFTER


def not_yet(agreement: Agreement, now: datetime) -> Agreement:
    """The agreement whose provider can't be told yet."""
    return replace(agreement, due_at=now + LOOK_AGAIN)


def asked_early(before: Agreement, after: Agreement, now: datetime) -> Agreement:
    """What an answer made of a pending agreement that somebody wanted to know about before its time: that puts off no
    later question, or those who ask often would be told late."""
    waits = before.state == after.state == "pending"
    if not waits or before.due_at is None or before.due_at <= now:
        return after
    return replace(after, asks=before.asks, due_at=before.due_at)


def overslept(agreement: Agreement, now: datetime) -> bool:
    """Whether the rider has not signed for so long that nobody waits any more."""
    return agreement.state == "pending" and now >= agreement.created_at + SIGN_WITHIN


def never_signed(agreement: Agreement) -> Agreement:
    """The agreement that nobody signed."""
    return _ended(agreement, "expired", "never signed")


def _told_of_its_end(agreement: Agreement, answer: AgreementAnswer, now: datetime) -> Agreement:
    """The agreement that is over with us, after what the provider says of it."""
    match answer:
        case AgreementStatus(state="revoked" | "refused" | "expired") | NotFound() | Closed():
            return replace(agreement, ending_at=None, due_at=None)
        case Postponed(retry_after=wait):
            return replace(agreement, due_at=now + wait)
        case Rejected() | Conflict():
            return replace(agreement, due_at=now + OURS_AGAIN)
    return _again(agreement, now)


def _told_nothing(agreement: Agreement, answer: AgreementAnswer, now: datetime) -> Agreement:
    """The agreement after an answer that is not a status."""
    signing = agreement.state == "pending"
    match answer:
        case Postponed(retry_after=wait):
            return replace(agreement, due_at=now + wait)
        case NeedsRider(action=action) if signing:
            return replace(_again(agreement, now), action=action or agreement.action)
        case Declined(code=code) if signing:
            return _ended(agreement, "refused", code)
        case Rejected(code=code) | Conflict(code=code) | Closed(code=code) if signing:
            return _ended(agreement, "refused", f"rejected: {code}")
        case CapExceeded() if signing:
            return _ended(agreement, "refused", "cap_exceeded")
        case NotFound() | Closed() if agreement.reason == REVOKING:
            return _ended(agreement, "revoked", None)
        case NotFound() | Closed() if agreement.state == "active" and agreement.asks >= len(ASK_AFTER):
            return _ended(agreement, "revoked", NOT_THERE)
        case Rejected() | Conflict():
            return replace(agreement, due_at=now + OURS_AGAIN)
    return _again(agreement, now)


def _seldom(agreement: Agreement, now: datetime) -> datetime:
    """When a signed agreement is asked about next, each at a time of its own: many are imported at once."""
    return now + LOOK_SELDOM + SPREAD * (crc32(agreement.provider_key.encode()) / 2**32)


def _again(agreement: Agreement, now: datetime) -> Agreement:
    wait = ASK_AFTER[min(agreement.asks, len(ASK_AFTER) - 1)]
    return replace(agreement, asks=agreement.asks + 1, due_at=now + wait)


def _ended(agreement: Agreement, state: State, reason: str | None) -> Agreement:
    return replace(agreement, state=state, reason=reason, action=None, due_at=None)
