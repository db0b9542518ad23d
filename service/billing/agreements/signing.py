"""The life of an agreement: begun, signed by the rider at the provider, revoked by either side, or over."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

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
    Rejected,
    RiderAction,
    Throttled,
)

State = Literal["pending", "active", "suspended", "refused", "revoked", "expired"]
REVOKING = "revoking"
"""Why an agreement is suspended while the provider is asked to end it."""
SIGN_WITHIN = timedelta(days=1)
"""An agreement that the rider has not signed by then has expired."""
ASK_AFTER = tuple(timedelta(seconds=seconds) for seconds in (2, 5, 15, 60, 300, 1800))
"""Steps between questions about what is not decided; the last one repeats."""
OURS_AGAIN = timedelta(hours=1)


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """A rider's agreement on one merchant account. Amounts are minor units of `currency`, instants business time.

    `due_at` is when the provider is to be asked next; None: only when somebody wants to know.
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
    version: int = 1


def answered(agreement: Agreement, answer: AgreementAnswer, now: datetime) -> Agreement:
    """The agreement once the provider has answered. What is over stays over."""
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
            agreement = replace(agreement, cap_minor=cap, valid_until=end, due_at=end, asks=0)
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


def revoking(agreement: Agreement, now: datetime) -> Agreement:
    """The agreement that is to end: no new ride from now on; what was ridden is still collected."""
    if agreement.state in ("refused", "revoked", "expired"):
        return agreement
    return replace(agreement, state="suspended", reason=REVOKING, action=None, due_at=now, asks=0)


def overslept(agreement: Agreement, now: datetime) -> bool:
    """Whether the rider has not signed for so long that nobody waits any more."""
    return agreement.state == "pending" and now >= agreement.created_at + SIGN_WITHIN


def never_signed(agreement: Agreement) -> Agreement:
    """The agreement that nobody signed."""
    return _ended(agreement, "expired", "never signed")


def _told_nothing(agreement: Agreement, answer: AgreementAnswer, now: datetime) -> Agreement:
    """The agreement after an answer that is not a status."""
    signing = agreement.state == "pending"
    match answer:
        case Throttled(retry_after=wait):
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
        case Rejected() | Conflict():
            return replace(agreement, due_at=now + OURS_AGAIN)
    return _again(agreement, now)


def _again(agreement: Agreement, now: datetime) -> Agreement:
    wait = ASK_AFTER[min(agreement.asks, len(ASK_AFTER) - 1)]
    return replace(agreement, asks=agreement.asks + 1, due_at=now + wait)


def _ended(agreement: Agreement, state: State, reason: str | None) -> Agreement:
    return replace(agreement, state=state, reason=reason, action=None, due_at=None)
