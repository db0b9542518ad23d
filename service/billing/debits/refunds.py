"""The life of a refund: a second, smaller total function, under one key from beginning to end."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from service.billing.debits import dunning
from service.billing.debits.events import Due, LeaseOver, Notified, Queried, RefundDecided, RetryAsked, Submitted
from service.billing.debits.state import Debit, by_support, returned_minor
from service.billing.debits.unanswered import ANSWERED_WITHIN, told
from service.billing.outcomes import (
    Accepted,
    AlreadyDone,
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
    Succeeded,
    Unknown,
)

AGAIN_AFTER = timedelta(hours=1)
"""A refund that may work later (the merchant's balance is short) is tried again under the same key, `TRIES` times so
soon, then daily for as long as it takes: what is owed to a rider is never given up."""
AGAIN_SELDOM, TRIES = timedelta(days=1), 24
STILL_THERE = 3
"""So many answers (1, 5 and 15 minutes apart) that a refund has succeeded must follow a notification that it failed: an
answer may be older than that."""
ASKED_FIRST = "asked about after a restore"
CHARGEBACK = "chargeback"
"""The bank takes, or has, the money itself: giving it back as well would give it twice."""


class RefundState(StrEnum):
    """Where a refund stands."""

    NEW = "new"
    SUBMITTING = "submitting"
    PENDING = "pending"
    UNKNOWN = "unknown"
    MANUAL = "manual"
    SUCCEEDED = "succeeded"
    RETURNED = "returned"
    FAILED = "failed"


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """One refund against one receipt (`debit_key`, `debit_ref`) of a debit; it is given back whole or not at all.

    Where the provider says otherwise an operator decides, and `amount_minor` is what he found was given back. `resent`
    counts how often it was sent again since nobody found it; `unanswered_since`: its provider has said nothing of it
    since then that anybody has listed; `denied`: a notification has said that it failed, which an answer of before does
    not outweigh; `tariff_no` is its debit's, by which it may be stopped.
    `reason` is why it was opened, `because` what support has said of that, and `told` what the provider is told of it,
    always the same. One that is `returned` had succeeded, and came back: the rider's bank did not take it.
    """

    ride_no: int
    ordinal: int
    refund_ordinal: int
    slot: int
    operator_no: int
    agreement_no: int
    account_no: int
    currency: str
    amount_minor: int
    provider_key: str
    debit_key: str
    created_at: datetime
    reason: str
    debit_ref: str | None = None
    tariff_no: int | None = None
    state: RefundState = RefundState.NEW
    provider_ref: str | None = None
    code: str | None = None
    attempts: int = 0
    queries: int = 0
    not_found_at: datetime | None = None
    resent: int = 0
    unanswered_since: datetime | None = None
    due_at: datetime | None = None
    because: str | None = None
    told: str = ""
    denied: bool = False


RefundEvent = Due | LeaseOver | Submitted | Queried | Notified | RetryAsked | RefundDecided
REFUND_FINAL = frozenset({RefundState.SUCCEEDED, RefundState.RETURNED, RefundState.FAILED})
"""Only a refund that has succeeded goes on from here: it may be returned."""
UNPAID = frozenset({RefundState.RETURNED, RefundState.FAILED})
"""Over, and the rider has nothing of it."""


def refund_after(refund: Refund, event: RefundEvent, now: datetime) -> Refund:
    """The refund once `event` has happened; total. A refund that is final stays as it is, and so does one that is not
    manual, or of less than was given back, when somebody decides."""
    match event:
        case Due() | LeaseOver():
            return _due(refund, event, now)
        case RetryAsked():
            put_off = refund.state is RefundState.SUBMITTING and refund.due_at is not None and refund.due_at > now
            waits = refund.state in (RefundState.NEW, RefundState.UNKNOWN, RefundState.PENDING) or put_off
            return replace(refund, due_at=now) if waits else refund
        case RefundDecided():
            return _decided(refund, event, now)
        case _ if event.key != refund.provider_key or refund.state in UNPAID:
            return refund
        case _ if refund.state is RefundState.SUCCEEDED:
            return _told_after_all(refund, event, now)
        case Notified(outcome=Succeeded(amount_minor=told)) if told != refund.amount_minor:
            asked = refund.state in (RefundState.UNKNOWN, RefundState.PENDING)
            return replace(refund, due_at=now) if asked else refund  # Never believed: the truth is asked.
        case Notified(outcome=Declined(retryable=False) | Closed()):
            asked = refund.state in (RefundState.UNKNOWN, RefundState.PENDING)
            return replace(refund, denied=True, due_at=now if asked else refund.due_at)
        case _ if isinstance(event.outcome, Succeeded):
            return _succeeded(refund, event.outcome, now)
        case Submitted() if refund.state is RefundState.SUBMITTING:
            return _submitted(refund, event.outcome, now)
        case Queried() if refund.state in (RefundState.UNKNOWN, RefundState.PENDING):
            return _queried(refund, event.outcome, now)
        case _ if refund.state in (RefundState.UNKNOWN, RefundState.PENDING):
            return replace(refund, due_at=now)
        case _:
            return refund


def withheld(debit: Debit) -> Postponed | Rejected | None:
    """Why a refund of the debit is not sent, as if its provider had said so: it waits while a bank takes the money, and
    ends where what the bank has for good, and the rider has from us, leaves too little. None: nothing is in its way."""
    if debit.dispute == "chargeback":
        return Postponed(AGAIN_AFTER)
    too_much = returned_minor(debit) + debit.disputed_minor > debit.paid_minor
    return Rejected(CHARGEBACK) if debit.disputed_minor and too_much else None


def asked_first(refund: Refund) -> Refund:
    """A new refund whose key may have been used before: it is asked about, and sent when there is none."""
    return replace(refund, state=RefundState.UNKNOWN, code=ASKED_FIRST)


def stands_still(refund: Refund) -> bool:
    """Whether the provider has the refund, and goes no further with it until somebody acts there, or says nothing of it
    that anybody has listed."""
    return refund.state is RefundState.PENDING and refund.code is not None


def refund_call(refund: Refund) -> str | None:
    """What the provider is called for once a due refund is stored: "submit", "query" or nothing."""
    if refund.state is RefundState.SUBMITTING:
        return "submit"
    return "query" if refund.state in (RefundState.UNKNOWN, RefundState.PENDING, RefundState.SUCCEEDED) else None


def _due(refund: Refund, event: Due | LeaseOver, now: datetime) -> Refund:
    match refund.state:
        case RefundState.SUBMITTING if isinstance(event, LeaseOver):
            return _unknown(refund, "the process that submitted it did not come back", now)
        case RefundState.NEW:
            return replace(refund, state=RefundState.SUBMITTING, attempts=refund.attempts + 1, due_at=now)
        case RefundState.SUBMITTING | RefundState.UNKNOWN | RefundState.PENDING:
            return replace(refund, due_at=now)
        case RefundState.SUCCEEDED if refund.due_at is not None:  # Somebody said that it came back.
            return replace(refund, due_at=now)
        case RefundState.MANUAL | RefundState.SUCCEEDED | RefundState.RETURNED | RefundState.FAILED:
            return replace(refund, due_at=None)


def _told_after_all(refund: Refund, event: Submitted | Queried | Notified, now: datetime) -> Refund:
    """A refund that has succeeded. A notification that it failed is asked about, and the answer believed: the rider's
    bank did not take it, and the money is with the provider again."""
    match event:
        case Notified(outcome=Declined(retryable=False) | Closed()):
            return replace(refund, denied=True, queries=0, due_at=now)
        case Queried() if refund.due_at is None:  # An answer from before it succeeded.
            return refund
        case Queried(outcome=Declined(retryable=False, code=code)):
            return replace(refund, state=RefundState.RETURNED, code=code, due_at=None)
        case Queried(outcome=Closed(code=code)):
            return replace(refund, state=RefundState.RETURNED, code=code or "closed", due_at=None)
        case Queried(outcome=Succeeded()) if refund.queries == STILL_THERE:
            return replace(refund, denied=False, due_at=None)
        case Queried(outcome=Postponed(retry_after=wait)):
            return replace(refund, due_at=now + wait)
        case Queried():
            return replace(refund, queries=refund.queries + 1, due_at=dunning.poll_at(refund.queries, now))
    return refund


def _succeeded(refund: Refund, outcome: Succeeded, now: datetime) -> Refund:
    if outcome.amount_minor != refund.amount_minor:  # Not what was asked: only a person can tell.
        return _manual(refund, f"the provider says {outcome.amount_minor} were given back")
    ref = outcome.provider_ref or refund.provider_ref
    made = replace(refund, state=RefundState.SUCCEEDED, provider_ref=ref, code=None, due_at=None)
    return replace(made, queries=0, due_at=dunning.poll_at(0, now)) if refund.denied else made


def _submitted(refund: Refund, outcome: Outcome, now: datetime) -> Refund:
    match outcome:
        case Accepted():
            return _pending(refund, outcome, now)
        case Declined(retryable=True):
            return _later(refund, outcome.code, now)
        case Declined() | NeedsRider() | Rejected():
            return _failed(refund, outcome.code)
        case CapExceeded():
            return _failed(refund, "cap_exceeded")
        case Closed():
            return _failed(refund, outcome.code or "closed")
        case Postponed():
            return replace(refund, due_at=now + outcome.retry_after)
        case Conflict() if refund.code == outcome.code:  # Said before, and asked about since: nobody found it.
            return _manual(refund, outcome.code)
        case Conflict():
            return _unknown(refund, outcome.code, now)
        case AlreadyDone() | NotFound() | Prepared() | Succeeded():
            return _unknown(refund, type(outcome).__name__, now)
        case Unknown():
            return _unknown(refund, outcome.reason, now)


def _queried(refund: Refund, outcome: Outcome, now: datetime) -> Refund:
    match outcome:
        case Accepted():
            return _pending(refund, outcome, now)
        case Declined(retryable=True):
            return _later(refund, outcome.code, now)
        case Declined():
            return _failed(refund, outcome.code)
        case Closed():
            return _failed(refund, outcome.code or "closed")
        case NotFound():
            return _not_found(refund, now)
        case Postponed():
            return replace(refund, due_at=now + outcome.retry_after)
        case _:
            wait = dunning.query_at if refund.state is RefundState.UNKNOWN else dunning.poll_at
            since = refund.unanswered_since or now
            if refund.state is RefundState.PENDING and now >= since + ANSWERED_WITHIN and refund.code is None:
                refund = replace(refund, code=told(outcome))
            refund = replace(refund, unanswered_since=since)
            return replace(refund, queries=refund.queries + 1, due_at=wait(refund.queries + 1, now))


def _later(refund: Refund, code: str, now: datetime) -> Refund:
    wait = AGAIN_AFTER if refund.attempts < TRIES else AGAIN_SELDOM
    return replace(refund, state=RefundState.NEW, code=code, due_at=now + wait)


def _not_found(refund: Refund, now: datetime) -> Refund:
    first_at = refund.not_found_at or now
    if dunning.never_arrived(first_at, refund.resent, now):
        if refund.resent == len(dunning.NOT_FOUND_APART):
            return _manual(refund, dunning.given_up(refund.code or "unknown"))
        again = replace(refund, state=RefundState.SUBMITTING, resent=refund.resent + 1)
        return replace(again, not_found_at=None, due_at=now)
    at = dunning.asked_again_at(first_at, refund.resent, refund.queries + 1, now)
    asked = replace(refund, state=RefundState.UNKNOWN, not_found_at=first_at)
    return replace(asked, queries=refund.queries + 1, due_at=at)


def _pending(refund: Refund, outcome: Accepted, now: datetime) -> Refund:
    queries = refund.queries + 1 if refund.state is RefundState.PENDING else 0
    return replace(
        refund,
        state=RefundState.PENDING,
        provider_ref=outcome.provider_ref or refund.provider_ref,
        code=outcome.code or None,
        unanswered_since=None,
        queries=queries,
        due_at=dunning.poll_at(queries, now),
    )


def _unknown(refund: Refund, code: str, now: datetime) -> Refund:
    return replace(
        refund, state=RefundState.UNKNOWN, code=code, queries=0, not_found_at=None, due_at=dunning.query_at(0, now)
    )


def _manual(refund: Refund, code: str) -> Refund:
    """Only an operator can tell."""
    return replace(refund, state=RefundState.MANUAL, code=code, due_at=None)


def _decided(refund: Refund, event: RefundDecided, now: datetime) -> Refund:
    """An operator has looked into the provider's books. The rest of what was to be given back is owed anew."""
    told = refund.amount_minor if event.amount_minor is None else event.amount_minor
    if refund.state is not RefundState.MANUAL or not 0 < told <= refund.amount_minor:
        return refund
    code = by_support(event.reason)
    if event.decision == "cancel":
        return _failed(refund, code)
    if event.decision == "submit_again":
        again = replace(refund, state=RefundState.SUBMITTING, code=code, due_at=now)
        return replace(again, queries=0, not_found_at=None, resent=0)
    ref = event.provider_ref or refund.provider_ref
    return replace(refund, state=RefundState.SUCCEEDED, amount_minor=told, provider_ref=ref, code=code)


def _failed(refund: Refund, code: str) -> Refund:
    return replace(refund, state=RefundState.FAILED, code=code, due_at=None)
