"""A ride as its writers know it, and a revision: one decision about it with all that is appended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache

import msgspec

from service.billing.catalog import AgreementRef, Operator
from service.billing.charged import StoredCharge, charge_moves, charged_usage, owed_minor, settled_owed, standing_charge
from service.billing.events import RideEvent, decode_events, encode_events
from service.billing.keys import slot_of
from service.billing.ledger import Transfer
from service.billing.proofs import revision_digest
from service.billing.sessions import FINAL, Session, SessionState, decided, take_all
from service.billing.verdicts import Verdict


class Ride(msgspec.Struct, frozen=True, gc=False):
    """What a writer knows of a ride: its session and its last revision. `charge` is the one that stands, if any; `owed`
    whether the rider owes what it is charged, as its first charge settled it."""

    key: bytes
    ride_no: int
    operator: Operator
    session: Session = Session()
    revision: int = 0
    state: SessionState = SessionState.OPEN
    reason: str | None = None
    digest: bytes = b""
    agreement: AgreementRef | None = None
    tariff: tuple[int, int] | None = None
    charge: StoredCharge | None = None
    owed: bool | None = None


class CapUse(msgspec.Struct, frozen=True, gc=False):
    """One movement of a rider's balance, in the window's own unit."""

    rider_no: int
    window: str
    before: Decimal
    after: Decimal


class Revision(msgspec.Struct, frozen=True, gc=False):
    """One decision about a ride, and all that is appended with it.

    `ride` is the ride after it, `before` the one it was decided on. `row` is the canonical text that the digest is
    over (`canonical_row`). `owing_minor` is what the ride owes more, or less, because of it.
    """

    before: Ride
    ride: Ride
    slot: int
    row: str
    verdict: Verdict
    events: tuple[RideEvent, ...] = ()
    charge: StoredCharge | None = None
    owing_minor: int = 0
    transfers: tuple[Transfer, ...] = ()
    cap_uses: tuple[CapUse, ...] = ()
    conflicts: tuple[RideEvent, ...] = ()


class StoredRevision(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a revision as the database gives them back."""

    ride_no: int
    revision: int
    slot: int
    operator_no: int
    state: str
    agreement_no: int | None
    tariff_no: int | None
    tariff_version: int | None
    reason: str | None
    events: str
    charge: str | None
    amount_minor: int | None
    currency: str | None
    decided_at: datetime
    batch_no: int
    digest: bytes


NULL = "\\N"
_CHARGE = msgspec.json.Encoder()
_STORED_CHARGE = msgspec.json.Decoder(StoredCharge)


def compose(
    ride: Ride,
    session: Session,
    fresh: tuple[RideEvent, ...],
    verdict: Verdict,
    charge: StoredCharge | None,
    now: datetime,
    cap_uses: tuple[CapUse, ...] = (),
) -> Revision:
    """The revision that a verdict makes of a ride: its canonical row and the money that it moves."""
    terms, state = verdict.terms, verdict.state
    agreement, tariff = ride.agreement, ride.tariff
    named: tuple[int | None, int | None, int | None] = (None, None, None)
    if terms is not None and (agreement != terms.agreement or terms.version.key != tariff):
        agreement, tariff = terms.agreement, terms.version.key
        named = (agreement.agreement_no, *tariff)
    standing = standing_charge(state, charge, ride.charge)
    owing_minor = owed_minor(standing) - owed_minor(ride.charge)
    slot = slot_of(ride.key)
    row = canonical_row(
        ride.ride_no,
        ride.revision + 1,
        slot,
        ride.operator.operator_no,
        state,
        named,
        verdict.reason,
        encode_events(fresh).decode() if fresh else "[]",
        charge_text(charge),
        (charge.charge.total_minor, charge.charge.currency) if charge else None,
        now,
    )
    after = Ride(
        ride.key,
        ride.ride_no,
        ride.operator,
        decided(session, state, charged_usage(standing)),
        ride.revision + 1,
        state,
        verdict.reason,
        revision_digest(ride.digest, row),
        agreement,
        tariff,
        standing,
        settled_owed(ride.owed, charge),
    )
    transfers = _transfers(ride.charge, after)
    conflicts = session.conflicts[len(ride.session.conflicts) :] if session.conflicts else ()
    return Revision(ride, after, slot, row, verdict, fresh, charge, owing_minor, transfers, cap_uses, conflicts)


def canonical_row(
    ride_no: int,
    revision: int,
    slot: int,
    operator_no: int,
    state: str,
    named: tuple[int | None, int | None, int | None],
    reason: str | None,
    events: str,
    charge: str | None,
    amount: tuple[int, str] | None,
    decided_at: datetime,
) -> str:
    """The text that a revision's digest is over: its columns joined by tabs, NULL as \\N, nothing escaped.

    It is also what COPY takes, once backslashes are escaped and the batch number and the digest are added.
    """
    agreement_no, tariff_no, version = named
    contract = f"{agreement_no}\t{tariff_no}\t{version}" if agreement_no is not None else _NO_CONTRACT
    price = f"{charge}\t{amount[0]}\t{amount[1]}" if amount is not None else _NO_CHARGE
    return (
        f"{ride_no}\t{revision}\t{slot}\t{operator_no}\t{state}\t{contract}\t{reason or NULL}\t{events}\t{price}"
        f"\t{instant_text(decided_at)}"
    )


_NO_CONTRACT = f"{NULL}\t{NULL}\t{NULL}"
_NO_CHARGE = f"{NULL}\t{NULL}\t{NULL}"


def stored_row(stored: StoredRevision) -> str:
    """The canonical row of a revision that was read back."""
    amount = None if stored.amount_minor is None else (stored.amount_minor, stored.currency or "")
    return canonical_row(
        stored.ride_no,
        stored.revision,
        stored.slot,
        stored.operator_no,
        stored.state,
        (stored.agreement_no, stored.tariff_no, stored.tariff_version),
        stored.reason,
        stored.events,
        stored.charge,
        amount,
        stored.decided_at,
    )


def restore(
    key: bytes, operator: Operator, agreement: AgreementRef | None, revisions: Sequence[StoredRevision]
) -> Ride:
    """The ride as its revisions tell it; `revisions` are all of them, in order. `agreement` is the last one named."""
    assert revisions
    session, tariff = Session(), None
    charge: StoredCharge | None = None
    owed: bool | None = None
    events: list[RideEvent] = []  # Of revisions that decided nothing: taken together, they cost what they are.
    for stored in revisions:
        events += decode_events(stored.events.encode())
        state = SessionState(stored.state)
        if stored.tariff_no is not None and stored.tariff_version is not None:
            tariff = (stored.tariff_no, stored.tariff_version)
        own = read_charge(stored.charge) if stored.charge is not None else None
        charge, owed = standing_charge(state, own, charge), settled_owed(owed, own)
        if charge is not None or session.final or state in FINAL:
            session, events = decided(take_all(session, events), state, charged_usage(charge)), []
    session, last = take_all(session, events), revisions[-1]
    return Ride(
        key,
        last.ride_no,
        operator,
        session,
        last.revision,
        SessionState(last.state),
        last.reason,
        last.digest,
        agreement,
        tariff,
        charge,
        owed,
    )


def charge_text(charge: StoredCharge | None) -> str | None:
    """A charge as a revision keeps it, JSON."""
    return _CHARGE.encode(charge).decode() if charge is not None else None


def read_charge(text: str) -> StoredCharge:
    """The charge of a revision's text; other text raises msgspec.DecodeError."""
    return _STORED_CHARGE.decode(text)


@lru_cache(maxsize=256)
def instant_text(instant: datetime) -> str:
    """An instant in UTC to the microsecond, always in the same 27 characters."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _transfers(before: StoredCharge | None, after: Ride) -> tuple[Transfer, ...]:
    if after.charge is before:
        return ()
    assert after.agreement is not None and after.tariff is not None
    operator_no = after.operator.operator_no
    return charge_moves(before, after.charge, after.agreement.agreement_no, after.tariff[0], operator_no)
