"""The sandbox provider's JSON, as a merchant reads it, and what each of its words means to us."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal

import msgspec

from service.adapters.providers.port import DisputeStatus, Statement, StatementRow
from service.billing.agreements.standing import AgreementState, AgreementStatus, HoldStatus, HoldStatusState
from service.billing.outcomes import (
    BARRED_FOR,
    Accepted,
    AlreadyDone,
    Barred,
    CapExceeded,
    Closed,
    Conflict,
    Declined,
    NeedsRider,
    NotFound,
    OpenUrl,
    Outcome,
    Postponed,
    Rejected,
    Succeeded,
    Unknown,
)

Instant = Annotated[datetime, msgspec.Meta(tz=True)]

AGREEMENT_STATES: dict[str, AgreementState] = {
    "pending": "pending",
    "active": "active",
    "refused": "refused",
    "revoked": "revoked",
    "expired": "expired",
}
HOLD_STATES: dict[str, HoldStatusState] = {
    "pending": "pending",
    "open": "open",
    "refused": "refused",
    "expired": "expired",
    "finished": "completed",
    "released": "released",
}
STATEMENT_KINDS: dict[str, Literal["debit", "refund"]] = {"debit": "debit", "refund": "refund"}
RIDER_MUST_PAY = "RIDER_MUST_PAY"
DECLINES_RETRYABLE = frozenset(
    {"BALANCE_NOT_ENOUGH", "CARD_BALANCE_NOT_ENOUGH", "DAY_LIMIT", "MONTH_LIMIT", "NO_PAYMENT_MEANS"}
)
HOLDS_PASSING = frozenset({"TOO_MANY_HOLDS", "TOO_MANY_UNPAID"})
"""Why a hold was refused that may be opened another day: the rider's limits."""
REFUNDS_LATER = frozenset({"REFUND_ABNORMAL"})
"""Why a refund failed that succeeds under the same key once the account is put right."""
DISPUTE_STATES: dict[str, Literal["opened", "won", "lost", "resolved"]] = {
    "open": "opened",
    "won": "won",
    "lost": "lost",
    "resolved": "resolved",
}
DECLINES_FINAL = frozenset(
    {"AGREEMENT_REVOKED", "AGREEMENT_EXPIRED", "AGREEMENT_REFUSED", "AGREEMENT_PENDING", "HOLD_CLOSED"}
)
REJECTIONS = frozenset(
    {
        "INVALID_REQUEST",
        "NO_SUCH_ADDRESS",
        "NOT_POSSIBLE",
        "AGREEMENT_UNKNOWN",
        "HOLD_NEEDED",
        "REFUND_TOO_MUCH",
        "REFUND_TOO_LATE",
        "REFUND_DISPUTED",
    }
)
CONFLICTS = frozenset({"KEY_CONFLICT", "WRONG_STATE", "DEBIT_NOT_FINAL"})
ANOTHER_KEY = Unknown("the answer is about another key")


class AgreementView(msgspec.Struct, frozen=True):
    """An agreement."""

    key: str
    ref: str
    state: str
    cap_minor: int | None = None
    code: str | None = None
    action_url: str | None = None
    valid_until: Instant | None = None
    currency: str | None = None


class HoldView(msgspec.Struct, frozen=True):
    """A hold."""

    key: str
    ref: str
    state: str
    cap_minor: int | None = None
    expires_at: Instant | None = None
    code: str | None = None
    action_url: str | None = None


class DebitView(msgspec.Struct, frozen=True):
    """A debit."""

    key: str
    ref: str
    state: str
    currency: str
    amount_minor: int
    paid_minor: int
    code: str | None = None
    action_url: str | None = None


class DisputeView(msgspec.Struct, frozen=True):
    """A complaint or chargeback; `debit` is the provider's number of its debit."""

    ref: str
    debit: str
    kind: Literal["complaint", "chargeback"]
    state: str
    currency: str
    amount_minor: int


class RefundView(msgspec.Struct, frozen=True):
    """A refund."""

    key: str
    ref: str
    state: str
    amount_minor: int
    code: str | None = None


class Problem(msgspec.Struct, frozen=True):
    """Why a call was refused."""

    code: str
    message: str = ""
    cap_minor: int | None = None


class ProblemBody(msgspec.Struct, frozen=True):
    """The body of every refusal."""

    error: Problem


class StatementLine(msgspec.Struct, frozen=True):
    """One movement on a statement."""

    kind: str
    key: str
    ref: str
    amount_minor: int
    fee_minor: int
    currency: str
    at: Instant


class NoticeBody(msgspec.Struct, frozen=True):
    """A notification; the shape of `data` goes by `about`."""

    id: str
    account_id: str
    about: str
    data: msgspec.Raw


def agreement_status(view: AgreementView) -> AgreementStatus | Unknown:
    """What the provider says about an agreement; a state nobody listed is not believed."""
    state = AGREEMENT_STATES.get(view.state)
    if state is None:
        return Unknown(f"agreement state {view.state}")
    action = OpenUrl(view.action_url) if view.action_url else None
    return AgreementStatus(state, view.ref, view.cap_minor, view.valid_until, action, view.code, view.currency)


def hold_status(view: HoldView) -> HoldStatus | Unknown:
    """What the provider says about a hold; a state nobody listed is not believed."""
    state = HOLD_STATES.get(view.state)
    if state is None:
        return Unknown(f"hold state {view.state}")
    action = OpenUrl(view.action_url) if view.action_url else None
    passing = view.code in HOLDS_PASSING
    return HoldStatus(state, view.ref, view.cap_minor, view.expires_at, action, view.code, passing)


def debit_outcome(view: DebitView) -> Outcome:
    """What the provider says about a debit. Partly paid: Succeeded with that part, more may follow."""
    match view.state:
        case "paid":
            return Succeeded(view.paid_minor, view.ref)
        case "accepted":
            return Succeeded(view.paid_minor, view.ref) if view.paid_minor else Accepted(view.ref)
        case "closed":
            return Closed(view.code or "")
        case "declined" if view.code == RIDER_MUST_PAY:
            return NeedsRider(RIDER_MUST_PAY, OpenUrl(view.action_url) if view.action_url else None)
        case "declined":
            code = view.code or ""
            return Declined(code in DECLINES_RETRYABLE, code)
    return Unknown(f"debit state {view.state}")


def refund_outcome(view: RefundView) -> Outcome:
    """What the provider says about a refund."""
    match view.state:
        case "paid":
            return Succeeded(view.amount_minor, view.ref)
        case "pending":
            return Accepted(view.ref)
        case "failed":
            return Declined(view.code in REFUNDS_LATER, view.code or "")
    return Unknown(f"refund state {view.state}")


def statement(day: date, lines: list[StatementLine]) -> Statement | Unknown:
    """The provider's statement; a row of a kind nobody listed makes all of it unreadable, since money is in it."""
    rows = []
    for line in lines:
        kind = STATEMENT_KINDS.get(line.kind)
        if kind is None:
            return Unknown(f"statement row of kind {line.kind}")
        amounts = (line.amount_minor, line.fee_minor, line.currency, line.at)
        rows.append(StatementRow(kind, line.key, line.ref, *amounts))
    return Statement(day, tuple(rows))


def of_query(answer: Outcome) -> Outcome:
    """A query that failed says nothing about what was asked for, whatever its code."""
    if isinstance(answer, NotFound | Postponed | Unknown):
        return answer
    return Unknown(getattr(answer, "code", type(answer).__name__))


def refusal(problem: Problem, *, refused_unread: bool) -> Outcome:
    """What a problem means. A code nobody listed may have executed, unless its HTTP status says that it did not."""
    code = problem.code
    outcomes: dict[str, Outcome] = {
        "NOT_FOUND": NotFound(),
        "ALREADY_PAID": AlreadyDone(),
        "DEBIT_CLOSED": Closed(code),
        "CAP_EXCEEDED": CapExceeded(problem.cap_minor),
        "UNAUTHORIZED": Barred(BARRED_FOR, code, problem.message),
    }
    if code in outcomes:
        return outcomes[code]
    if code in DECLINES_FINAL or code in DECLINES_RETRYABLE:
        return Declined(code in DECLINES_RETRYABLE, code, problem.message)
    if code in CONFLICTS:
        return Conflict(code)
    if code in REJECTIONS or refused_unread:
        return Rejected(code, problem.message)
    return Unknown(f"code {code}")


def dispute_status(view: DisputeView) -> DisputeStatus | None:
    """What a dispute's view means; None for a state that nobody listed."""
    state = DISPUTE_STATES.get(view.state)
    if state is None:
        return None
    moved = None
    if view.kind == "chargeback":
        moved = 0 if state == "won" else view.amount_minor
    return DisputeStatus(view.debit, view.kind, state, view.amount_minor, view.currency, view.ref, moved_minor=moved)
