"""What is asked about rides, debits and riders: each answer one statement, so one snapshot.

PostgreSQL makes the JSON and msgspec reads it into the rows below: one round trip, no row objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import asyncpg
import msgspec

from service.adapters.postgres import Store
from service.billing.debits.obligations import owed_of_minor
from service.billing.debits.state import Dispute
from service.billing.outcomes import RiderAction
from service.billing.rides import StoredRevision

SCAN_MAX = 2000
"""How many rides or debits one page looks at, at most; a page may come short and the next one goes on."""
BIGINT_MAX = 2**63 - 1


class AgreementRow(msgspec.Struct, frozen=True):
    """An agreement as a ride needs it; `rider_ref` is None once the rider was erased."""

    agreement_no: int
    rider_no: int
    currency: str
    agreement_id: str
    rider_ref: str | None
    language: str


class ObligationRow(msgspec.Struct, frozen=True):
    """What one revision made the ride owe more, or less."""

    revision: int
    kind: str
    amount_minor: int
    currency: str
    occurred_at: datetime


class DebitRow(msgspec.Struct, frozen=True):
    """A debit as it stands."""

    ride_no: int
    ordinal: int
    operator_no: int
    session_id: str
    agreement_id: str
    currency: str
    amount_minor: int
    paid_minor: int
    refunding_minor: int
    refunded_minor: int
    forgone_minor: int
    outside_minor: int
    given_back_minor: int
    state: str
    overdue: bool
    suspended: bool
    dispute: str | None
    provider_key: str
    provider_ref: str | None
    action: RiderAction | None
    reason: str | None
    attempts: int
    submitted_at: datetime | None
    settled_at: datetime | None
    due_at: datetime | None
    pay_by: datetime | None
    payable_until: datetime | None
    dunned: str | None
    dunned_at: datetime | None
    nudged_at: datetime | None
    record: str | None
    record_at: datetime | None
    created_at: datetime
    updated_at: datetime


class TransitionRow(msgspec.Struct, frozen=True):
    """One change of a debit."""

    ordinal: int
    transition: int
    from_state: str | None
    to_state: str
    why: str
    amount_minor: int
    provider_key: str
    provider_ref: str | None
    business_at: datetime


class RefundRow(msgspec.Struct, frozen=True):
    """A refund of a debit."""

    ordinal: int
    refund_ordinal: int
    amount_minor: int
    currency: str
    state: str
    provider_key: str
    provider_ref: str | None
    reason: str
    because: str | None
    code: str | None
    created_at: datetime
    updated_at: datetime


class DisputesRow(msgspec.Struct, frozen=True):
    """The disputes of a debit that has any, in the order of their last changes."""

    ordinal: int
    disputes: tuple[Dispute, ...]


class StopOfDebit(msgspec.Struct, frozen=True):
    """What keeps a debit, or a refund of it, from being sent that waits for it: a stop, or (0) its operator's mode."""

    ordinal: int
    what: str
    stop_no: int
    reason: str


class TroubledRefund(msgspec.Struct, frozen=True):
    """A refund that failed or had to wait, or (`refund_ordinal` 0, "paid_elsewhere") what of a debit that was paid
    elsewhere is owed back; amounts are minor units. `since_at` is when its money was first to be given back: what
    failed and is asked for again was owed before."""

    ride_no: int
    ordinal: int
    refund_ordinal: int
    session_id: str
    amount_minor: int
    currency: str
    state: str
    reason: str
    code: str | None
    since_at: datetime


class HoldRow(msgspec.Struct, frozen=True):
    """The hold of a session."""

    state: str
    cap_minor: int
    currency: str
    provider_key: str
    provider_ref: str | None
    action: RiderAction | None
    reason: str | None
    requested_at: datetime
    opened_at: datetime | None
    expires_at: datetime | None


class RideRows(msgspec.Struct, frozen=True):
    """Everything stored about one ride; None where there is nothing."""

    revisions: list[StoredRevision] | None
    agreement: AgreementRow | None
    obligations: list[ObligationRow] | None = None
    debits: list[DebitRow] | None = None
    transitions: list[TransitionRow] | None = None
    refunds: list[RefundRow] | None = None
    disputes: list[DisputesRow] | None = None
    stops: list[StopOfDebit] | None = None
    hold: HoldRow | None = None

    def owed_of_minor(self, debit: DebitRow) -> int:
        """How much of one of its debits the ride owes now."""
        owed_minor = sum(obligation.amount_minor for obligation in self.obligations or ())
        before = [one for one in self.debits or () if one.ordinal < debit.ordinal]
        return owed_of_minor(owed_minor, before, debit)


class Numbers(msgspec.Struct, frozen=True):
    """The rides of a page; `through_no` is where the next page goes on, None where there is nothing more."""

    ride_nos: list[int]
    through_no: int | None


class DebitPage(msgspec.Struct, frozen=True):
    """The debits of a page; `through` is (ride number, ordinal) where the next page goes on."""

    debits: list[DebitRow]
    through: tuple[int, int] | None


class AgreementOfRider(msgspec.Struct, frozen=True):
    """One of a rider's agreements."""

    agreement_id: str
    state: str
    currency: str
    cap_minor: int | None
    time_zone: str
    language: str
    valid_until: datetime | None
    reason: str | None


class HoldOfRider(msgspec.Struct, frozen=True):
    """A hold under way on one of a rider's agreements."""

    session_id: str
    agreement_id: str
    state: str
    cap_minor: int
    currency: str


class RiderRows(msgspec.Struct, frozen=True):
    """A rider: at most 100 agreements, what is not settled of at most 100 debits, at most 100 holds under way, his
    operator's limit on what is ridden and not paid (None: none)."""

    rider_no: int
    exposure_max_minor: int | None
    exposure_currency: str
    agreements: list[AgreementOfRider] | None
    debits: list[DebitRow] | None
    holds: list[HoldOfRider] | None


class VersionRow(msgspec.Struct, frozen=True):
    """A version of a tariff without its document."""

    tariff_no: int
    tariff_id: str
    version: int
    valid_from: datetime
    digest: bytes
    created_at: datetime


class ReadingStore(Store):
    """Read-only questions about rides and money."""

    async def ride_no(self, session_key: bytes) -> int | None:
        """The number of a ride, by its key."""
        number: int | None = await self.value("ride_number_of", UUID(bytes=session_key))
        return number

    async def ride(self, ride_no: int, session_key: bytes | None = None, slot: int = 0) -> RideRows:
        """Everything about a ride; the hold only where the key is given."""
        key = None if session_key is None else UUID(bytes=session_key)
        return _RIDE.decode(await self.value("session_status", ride_no, key, slot))

    async def rides(self, ride_nos: Sequence[int]) -> list[RideRows]:
        """The revisions of some rides, newest ride first."""
        return _RIDES.decode(await self.value("session_revisions", ride_nos)) if ride_nos else []

    async def newest_sessions(
        self,
        operator_no: int,
        before: int,
        limit: int,
        *,
        state: str | None = None,
        agreement_id: str | None = None,
        rider_ref: str | None = None,
    ) -> Numbers:
        """An operator's newest rides, those of an agreement, or those of a rider."""
        if agreement_id is not None or rider_ref is not None:
            agreements = await self.agreement_numbers(operator_no, agreement_id, rider_ref)
            if not agreements:
                return Numbers([], None)
            row = await self.one("newest_sessions_of_agreements", agreements, before, state, limit + 1, SCAN_MAX)
        elif state in ("parked", "review"):
            row = await self.one("newest_sessions_to_attend", operator_no, before, state, limit + 1, SCAN_MAX)
        else:
            row = await self.one("newest_sessions", operator_no, before, state, limit + 1, SCAN_MAX)
        return _numbers(row, limit)

    async def agreement_numbers(self, operator_no: int, agreement_id: str | None, rider_ref: str | None) -> list[int]:
        """An operator's agreements by id, by rider, or both."""
        if agreement_id is None:
            rows = await self.all("agreement_numbers_of_rider", operator_no, rider_ref)
        else:
            rows = await self.all("agreement_numbers", operator_no, agreement_id, rider_ref)
        return [row["agreement_no"] for row in rows]

    async def agreement(self, operator_no: int, agreement_id: str) -> AgreementRow | None:
        """What of an agreement never changes, and whose it is."""
        row = await self.one("rider_of_agreement", operator_no, agreement_id)
        return None if row is None else AgreementRow(**dict(row))

    async def rider_no(self, operator_no: int, rider_ref: str) -> int | None:
        """The rider of an operator's reference."""
        number: int | None = await self.value("rider_number", operator_no, rider_ref)
        return number

    async def rider(self, operator_no: int, rider_ref: str) -> RiderRows | None:
        """A rider's agreements, debts and holds."""
        text = await self.value("rider_status", operator_no, rider_ref)
        return None if text is None else _RIDER.decode(text)

    async def balances(self, operator_no: int, rider_no: int, windows: Sequence[str]) -> dict[str, Decimal]:
        """What earlier rides used of these windows."""
        rows = await self.all("balances_used", operator_no, rider_no, windows)
        return {row["balance_window"]: row["used"] for row in rows}

    async def tariffs(self, operator_no: int, tariff_id: str | None, after: str | None, limit: int) -> list[VersionRow]:
        """Every version of one tariff, the newest first; without an id the newest of each, by id."""
        return [
            VersionRow(**dict(row)) for row in await self.all("tariff_versions", operator_no, tariff_id, after, limit)
        ]

    async def operator_contact(self, operator_no: int) -> tuple[str, str, str]:
        """An operator's name, the contact that riders are shown, and its time zone."""
        row = await self.one("operator_contact", operator_no)
        assert row is not None
        return row["name"], row["contact"], row["time_zone"]

    async def newest_debits(
        self, operator_no: int, before: tuple[int, int], state: str | None, overdue: bool | None, limit: int
    ) -> DebitPage:
        """An operator's newest debits."""
        return _debits(
            await self.one("newest_debits", operator_no, *before, state, overdue, limit + 1, SCAN_MAX), limit
        )

    async def newest_debits_of(
        self, agreement_nos: Sequence[int], before: tuple[int, int], state: str | None, overdue: bool | None, limit: int
    ) -> DebitPage:
        """The newest debits of some agreements."""
        asked = (agreement_nos, *before, state, overdue, limit + 1, SCAN_MAX)
        return _debits(await self.one("newest_debits_of_agreements", *asked), limit)

    async def debits_of_number(self, number: str) -> list[tuple[int, int]]:
        """The debits (ride number, ordinal) that a provider knows, or knew, by a number."""
        return [(row["ride_no"], row["ordinal"]) for row in await self.all("debits_of_number", number)]

    async def troubled_refunds(self, operator_no: int, limit: int) -> list[TroubledRefund]:
        """An operator's refunds whose money is still owed, and what is to be given back elsewhere, the longest first;
        looks at every refund there is."""
        return [TroubledRefund(**dict(row)) for row in await self.all("troubled_refunds", operator_no, limit)]


def _numbers(row: asyncpg.Record | None, limit: int) -> Numbers:
    assert row is not None
    found: list[int] = row["ride_nos"]
    if len(found) > limit:
        return Numbers(found[:limit], found[limit - 1])
    return Numbers(found, row["through_no"] if row["scanned"] == SCAN_MAX else None)


def _debits(row: asyncpg.Record | None, limit: int) -> DebitPage:
    assert row is not None
    found = _DEBITS.decode(row["debits"]) if row["debits"] else []
    if len(found) > limit:
        return DebitPage(found[:limit], (found[limit - 1].ride_no, found[limit - 1].ordinal))
    if row["scanned"] < SCAN_MAX:
        return DebitPage(found, None)
    ride_no, _, ordinal = row["through"].partition("-")
    return DebitPage(found, (int(ride_no), int(ordinal)))


_RIDE = msgspec.json.Decoder(RideRows)
_RIDES = msgspec.json.Decoder(list[RideRows])
_RIDER = msgspec.json.Decoder(RiderRows)
_DEBITS = msgspec.json.Decoder(list[DebitRow])
