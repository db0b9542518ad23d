"""Rows as an audit reads them: the columns that can be derived again from something else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from service.billing.debits.lives import LifeRow
from service.billing.debits.refunds import Refund
from service.billing.debits.state import Debit
from service.billing.rides import StoredRevision


class StoredKey(msgspec.Struct, frozen=True):
    """A row of `session_key`."""

    session_key: UUID
    ride_no: int
    slot: int


class StoredObligation(msgspec.Struct, frozen=True):
    """A row of `obligation`."""

    ride_no: int
    revision: int
    slot: int
    operator_no: int
    agreement_no: int
    kind: str
    amount_minor: int
    currency: str
    occurred_at: datetime


class StoredCapUse(msgspec.Struct, frozen=True):
    """A row of `cap_use`."""

    ride_no: int
    revision: int
    balance_window: str
    slot: int
    operator_no: int
    rider_no: int
    before: Decimal
    after: Decimal


class StoredTransfer(msgspec.Struct, frozen=True):
    """A row of `transfer`."""

    ride_no: int
    fact: int
    ordinal: int
    line: int
    slot: int
    operator_no: int
    debit_account: int
    credit_account: int
    amount_minor: int
    currency: str
    posted_at: datetime


class StoredRefund(msgspec.Struct, frozen=True):
    """A row of `refund`."""

    ride_no: int
    refund: Refund
    digest: UUID


class StoredHold(msgspec.Struct, frozen=True):
    """What of a row of `hold` bounds its ride's debits: those that were begun since it was opened."""

    ride_no: int
    cap_minor: int
    opened_at: datetime


class SharedPayment(msgspec.Struct, frozen=True):
    """A provider's number of a payment that stands in more than one receipt of an account; `debits` names them."""

    operator_no: int
    account_no: int
    provider_ref: str
    debits: str


class StoredTariff(msgspec.Struct, frozen=True):
    """A row of `tariff` with one of its versions; those columns are None where it has none."""

    tariff_no: int
    operator_no: int
    tariff_id: str
    versions: int
    version: int | None
    valid_from: datetime | None
    document: str | None
    digest: bytes | None


class Unreadable(msgspec.Struct, frozen=True):
    """JSON of a debit that is not of its shape."""

    ride_no: int
    ordinal: int
    column: str
    text: str


class AuditedDebits(msgspec.Struct, frozen=True):
    """What is stored about a ride's collection, each in the order of its key."""

    debits: Sequence[Debit] = ()
    transitions: Sequence[LifeRow] = ()
    refunds: Sequence[StoredRefund] = ()
    unreadable: Sequence[Unreadable] = ()
    holds: Sequence[StoredHold] = ()


class RideRows(msgspec.Struct, kw_only=True):
    """Everything that is stored about one ride number."""

    ride_no: int
    revisions: Sequence[StoredRevision] = ()
    obligations: Sequence[StoredObligation] = ()
    transfers: Sequence[StoredTransfer] = ()
    cap_uses: Sequence[StoredCapUse] = ()
    debits: AuditedDebits = AuditedDebits()
