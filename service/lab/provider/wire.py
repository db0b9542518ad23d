"""What the sandbox's own JSON face says: views of the books' rows, problems, and the links a rider opens."""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b

import msgspec

from service.lab.provider.debits import RIDER_MUST_PAY
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Account, Agreement, Debit, Dispute, Hold, Refund


class AgreementView(msgspec.Struct, omit_defaults=True):
    """An agreement as the merchant sees it."""

    key: str
    ref: str
    state: str
    currency: str
    cap_minor: int
    code: str | None = None
    action_url: str | None = None
    valid_until: datetime | None = None


class HoldView(msgspec.Struct, omit_defaults=True):
    """A hold as the merchant sees it."""

    key: str
    ref: str
    state: str
    currency: str
    cap_minor: int
    expires_at: datetime
    code: str | None = None
    action_url: str | None = None


class DebitView(msgspec.Struct, omit_defaults=True):
    """A debit as the merchant sees it."""

    key: str
    ref: str
    state: str
    currency: str
    amount_minor: int
    paid_minor: int
    refunded_minor: int
    code: str | None = None
    action_url: str | None = None


class RefundView(msgspec.Struct, omit_defaults=True):
    """A refund as the merchant sees it."""

    key: str
    ref: str
    state: str
    currency: str
    amount_minor: int
    debit: str
    code: str | None = None


class DisputeView(msgspec.Struct):
    """A complaint or chargeback as the merchant sees it; `debit` is the provider's number of its debit."""

    ref: str
    debit: str
    kind: str
    state: str
    currency: str
    amount_minor: int


class Problem(msgspec.Struct, omit_defaults=True):
    """Why a call was refused."""

    code: str
    message: str
    cap_minor: int | None = None


class ProblemBody(msgspec.Struct):
    """The body of every refusal."""

    error: Problem


View = AgreementView | HoldView | DebitView | RefundView | DisputeView


def view(
    row: Agreement | Hold | Debit | Refund | Dispute, account: Account, public_url: str, *, debit_ref: str = ""
) -> View:
    """The merchant's view of a row; `action_url` where the rider must do something, `debit_ref` of a dispute."""
    match row:
        case Dispute():
            return DisputeView(row.ref, debit_ref, row.kind, row.state, row.currency, row.amount_minor)
        case Debit(asked=asked):
            url = rider_url(public_url, account, "debit", asked.key) if row.code == RIDER_MUST_PAY else None
            amounts = (row.amount_minor, row.paid_minor, row.refunded_minor)
            return DebitView(asked.key, row.ref, row.state, asked.currency, *amounts, row.code, url)
        case Hold(asked=asked):
            url = rider_url(public_url, account, "hold", asked.key) if row.state == "pending" else None
            end = (row.expires_at, row.code, url)
            return HoldView(asked.key, row.ref, row.state, asked.currency, row.cap_minor, *end)
        case Agreement(asked=asked):
            url = rider_url(public_url, account, "agreement", asked.key) if row.state == "pending" else None
            end_ = (row.code, url, row.valid_until)
            return AgreementView(asked.key, row.ref, row.state, asked.currency, row.cap_minor, *end_)
        case Refund(asked=asked):
            return RefundView(asked.key, row.ref, row.state, row.currency, asked.amount_minor, asked.debit, row.code)


def problem(refused: RefusedError) -> ProblemBody:
    """The body of a refusal."""
    return ProblemBody(Problem(refused.code, refused.message, refused.cap_minor))


def rider_url(public_url: str, account: Account, about: str, key: str) -> str:
    """The page on which the rider confirms or pays; only who was given it can open it."""
    return f"{public_url}/rider/{account.account_id}/{about}/{key}?token={rider_token(account, about, key)}"


def rider_token(account: Account, about: str, key: str) -> str:
    """What makes a rider's page his."""
    return blake2b(f"{about}/{key}".encode(), key=account.api_key.encode()[:64], digest_size=12).hexdigest()
