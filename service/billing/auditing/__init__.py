"""The audit of one ride: every charge derived again from the stored events, balance and tariff version, and every row
that follows from a charge compared with the one that should stand there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TypeVar
from uuid import UUID

import msgspec

from service.billing.auditing.charges import check_same, check_unrated, is_rated, rated_charge
from service.billing.auditing.debits import check_debits
from service.billing.auditing.problems import MISSING, Place, Problem, differing
from service.billing.auditing.rows import RideRows, StoredCapUse, StoredKey, StoredObligation, StoredTransfer
from service.billing.balances import Balance, BalanceUse, cap_of
from service.billing.catalog import AgreementRef, Catalog, Operator
from service.billing.charged import (
    StoredCharge,
    charge_moves,
    charged_usage,
    obligation_kind,
    owed_minor,
    standing_charge,
)
from service.billing.events import RideEvent, decode_events
from service.billing.keys import session_key_bytes, slot_of
from service.billing.ledger import Fact
from service.billing.proofs import BATCH_BITS, revision_digest
from service.billing.rating import rate
from service.billing.rides import NULL, StoredRevision, read_charge, stored_row
from service.billing.sessions import Session, SessionState, decided, take
from service.billing.verdicts import Verdict, judge

ANY_LENGTH = 10**7
"""Hours: the longest ride of an operator may have been another when the ride was decided."""

UNSEEN = frozenset({SessionState.OPEN, SessionState.RESERVED, SessionState.INCOMPLETE, SessionState.CLOSED})
"""The states in which nobody would see that a charge is missing; rides that are parked or in review are in a list."""

RowT = TypeVar("RowT", bound=msgspec.Struct)


class Known(msgspec.Struct):
    """What rides are held against: operators, terms, identities, and what the batches of their revisions say."""

    operators: Mapping[int, Operator]
    catalog: Catalog
    keys: Mapping[bytes, StoredKey]
    owing: Mapping[int, frozenset[int]]
    """Batch number → the rides that it says owe something new."""
    collected: Mapping[int, int]
    """Writer → the sequence number that collection has read through."""


class _Standing(msgspec.Struct):
    """A ride while its revisions are read one after the other."""

    key: bytes
    operator: Operator
    session: Session = Session()
    charge: StoredCharge | None = None
    agreement_no: int | None = None
    tariff: tuple[int, int] | None = None
    digest: bytes = b""
    owed_minor: int = 0
    first_charge: StoredCharge | None = None


class _Move(msgspec.Struct):
    """A movement of a balance. What it was before is the chain's matter, but for what the charge was rated with: a
    first charge with just that, a re-rate with no less of other rides (`own` is what is the ride's of it) than the cap
    holds."""

    stored: StoredRevision
    window: str
    rider_no: int
    rated: Decimal | None
    own: Decimal | None
    cap: Decimal | None
    amount: Decimal


class _Expected(msgspec.Struct):
    """The rows that follow from a ride's revisions."""

    obligations: list[StoredObligation] = []
    transfers: list[StoredTransfer] = []
    moves: list[_Move] = []


def session_key_of(operator: Operator, first: StoredRevision) -> tuple[bytes, str]:
    """The session key and id that a ride's first event gives; raises msgspec.DecodeError, IndexError for no event."""
    session_id = decode_events(first.events.encode())[0].session_id
    return session_key_bytes(operator.operator_id, session_id), session_id


def check_ride(rows: RideRows, known: Known) -> Iterator[Problem]:
    """Every disagreement in what is stored about a ride."""
    if not rows.revisions:
        yield from _orphans(rows)
        return
    first = rows.revisions[0]
    operator = known.operators.get(first.operator_no)
    place = Place(ride_no=rows.ride_no)
    if operator is None:
        yield Problem(place, "ride_revision", "operator_no", "an operator", first.operator_no)
        return
    try:
        key, session_id = session_key_of(operator, first)
    except (msgspec.DecodeError, IndexError):
        yield Problem(place, "ride_revision", "events", "the ride's first event", first.events)
        return
    place = Place(operator.operator_id, session_id, rows.ride_no)
    standing, expected = _Standing(key, operator), _Expected()
    yield from differing(
        place, "session_key", StoredKey(UUID(bytes=key), rows.ride_no, slot_of(key)), known.keys.get(key)
    )
    for number, stored in enumerate(rows.revisions, 1):
        yield from _check_revision(place, number, stored, standing, known, expected)
    yield from _compare(place, "obligation", expected.obligations, rows.obligations)
    charged = [transfer for transfer in rows.transfers if transfer.fact == Fact.CHARGE]
    yield from _compare(place, "transfer", expected.transfers, charged)
    yield from _compare(place, "cap_use", _cap_uses(expected.moves, rows.cap_uses), rows.cap_uses)
    settled = [transfer for transfer in rows.transfers if transfer.fact != Fact.CHARGE]
    planned = _is_planned(rows, {row.revision for row in expected.obligations}, known)
    yield from check_debits(place, key, rows.debits, settled, standing.owed_minor if planned else None)


def _check_revision(
    place: Place, number: int, stored: StoredRevision, standing: _Standing, known: Known, expected: _Expected
) -> Iterator[Problem]:
    """One revision against the ones before it; what follows from it is added to `expected`."""
    place = msgspec.structs.replace(place, revision=stored.revision)
    fixed = {
        "revision": number,
        "slot": slot_of(standing.key),
        "operator_no": standing.operator.operator_no,
        "digest": revision_digest(standing.digest, stored_row(stored)),
    }
    for column, wanted in fixed.items():
        if getattr(stored, column) != wanted:
            yield Problem(place, "ride_revision", column, wanted, getattr(stored, column))
    standing.digest = stored.digest
    yield from _check_shape(place, stored)
    try:
        state, events = SessionState(stored.state), decode_events(stored.events.encode())
        charge = read_charge(stored.charge) if stored.charge is not None else None
    except (msgspec.DecodeError, ValueError) as error:
        yield Problem(place, "ride_revision", "events and charge", "JSON of their shape", error)
        return
    yield from _take_in(place, events, standing)
    if stored.agreement_no is not None and stored.tariff_no is not None and stored.tariff_version is not None:
        charged_to = (standing.agreement_no, standing.tariff[0] if standing.tariff is not None else None)
        if standing.charge is not None and charged_to != (stored.agreement_no, stored.tariff_no):
            found = (stored.agreement_no, stored.tariff_no)
            yield Problem(place, "ride_revision", "agreement_no, tariff_no", f"{charged_to}, charged before", found)
        standing.agreement_no, standing.tariff = stored.agreement_no, (stored.tariff_no, stored.tariff_version)
    before = standing.charge
    if not is_rated(state, events):
        yield from check_unrated(place, state, events, charge, before, standing.session)
    elif charge is not None:
        yield from _check_rated(place, stored, charge, standing, known)
    elif before is None and state in UNSEEN:
        yield from _check_uncharged(place, stored, state, standing, known)
    columns = (charge.charge.total_minor, charge.charge.currency) if charge is not None else (None, None)
    if (stored.amount_minor, stored.currency) != columns:
        yield Problem(place, "ride_revision", "amount_minor, currency", columns, (stored.amount_minor, stored.currency))
    standing.charge = standing_charge(state, charge, before)
    standing.first_charge = standing.first_charge or charge
    standing.session = decided(standing.session, state, charged_usage(standing.charge))
    yield from _follow(place, stored, before, obligation_kind(before, events), standing, known, expected)


def _check_shape(place: Place, stored: StoredRevision) -> Iterator[Problem]:
    """Columns that are NULL together, or never empty: the digest is over a text in which they are one."""
    contract = (stored.agreement_no, stored.tariff_no, stored.tariff_version)
    if None in contract and contract != (None, None, None):
        yield Problem(place, "ride_revision", "agreement_no, tariff_no, tariff_version", "all or none", contract)
    if stored.reason in ("", NULL):
        yield Problem(place, "ride_revision", "reason", "a reason or none", repr(stored.reason))


def _take_in(place: Place, events: Sequence[RideEvent], standing: _Standing) -> Iterator[Problem]:
    for event in events:
        if session_key_bytes(standing.operator.operator_id, event.session_id) != standing.key:
            yield Problem(place, "ride_revision", "events", place.session_id, event.session_id)
        standing.session, taken = take(standing.session, event)
        if taken == "duplicate":
            yield Problem(place, "ride_revision", "events", "an event that says something new", event.id)


def _check_rated(
    place: Place, stored: StoredRevision, charge: StoredCharge, standing: _Standing, known: Known
) -> Iterator[Problem]:
    """A charge against the one that its events, its balance and its tariff version give."""
    at_deadline = charge.usage.lost_end is not None or not charge.usage.rode
    verdict = _verdict(stored, at_deadline, standing, known.catalog)
    if verdict.usage is None or verdict.terms is None:
        yield Problem(place, "ride_revision", "charge", f"none: {verdict.state} {verdict.reason or ''}", charge)
        return
    terms = verdict.terms
    contract = (terms.agreement.agreement_no, terms.version.tariff_no, terms.version.version)
    if contract != (standing.agreement_no, *(standing.tariff or (None, None))):
        named = (standing.agreement_no, *(standing.tariff or (None, None)))
        yield Problem(place, "ride_revision", "agreement_no, tariff_no, tariff_version", contract, named)
    again = rate(verdict.usage, terms.version.tariff, charge.charge.balance)
    owed = (standing.first_charge or charge).owed
    yield from check_same(place, rated_charge(verdict.usage, again, owed, standing.session), charge)


def _check_uncharged(
    place: Place, stored: StoredRevision, state: SessionState, standing: _Standing, known: Known
) -> Iterator[Problem]:
    """A ride without a charge that is closed, or is said to go on while its events say that it is over."""
    if state is SessionState.CLOSED or _verdict(stored, False, standing, known.catalog).usage is not None:
        yield Problem(place, "ride_revision", "state, charge", "closed, and a charge", f"{state}, and none")


def _verdict(stored: StoredRevision, at_deadline: bool, standing: _Standing, catalog: Catalog) -> Verdict:
    """What the ride's events came to when the revision was decided."""
    operator = msgspec.structs.replace(standing.operator, ride_hours_max=ANY_LENGTH)
    return judge(standing.session, operator, catalog, stored.decided_at, "deadline" if at_deadline else "events")


def _follow(
    place: Place,
    stored: StoredRevision,
    before: StoredCharge | None,
    kind: str,
    standing: _Standing,
    known: Known,
    expected: _Expected,
) -> Iterator[Problem]:
    """The obligation, the transfers and the movements of balances that a revision must have."""
    after = standing.charge
    amount_minor = owed_minor(after) - owed_minor(before)
    told = after or before
    if told is None or standing.agreement_no is None or standing.tariff is None:
        return
    place = msgspec.structs.replace(place, revision=stored.revision)
    number, slot, operator_no = stored.ride_no, stored.slot, stored.operator_no
    revision, currency, agreement_no = stored.revision, told.charge.currency, standing.agreement_no
    if amount_minor:
        standing.owed_minor += amount_minor
        expected.obligations.append(
            StoredObligation(
                number, revision, slot, operator_no, agreement_no, kind, amount_minor, currency, stored.decided_at
            )
        )
        if number not in known.owing.get(stored.batch_no, ()):
            found = "writer {}, seq {}, without it".format(*divmod(stored.batch_no, 1 << BATCH_BITS))
            yield Problem(place, "batch", "owing", f"ride {number} among them", found)
    moves = charge_moves(before, after, agreement_no, standing.tariff[0], operator_no)
    expected.transfers += [
        StoredTransfer(number, Fact.CHARGE, revision, line, slot, operator_no, *move, stored.decided_at)
        for line, move in enumerate(moves)
    ]
    yield from _moves(place, stored, before, standing, known, expected)


def _moves(
    place: Place,
    stored: StoredRevision,
    before: StoredCharge | None,
    standing: _Standing,
    known: Known,
    expected: _Expected,
) -> Iterator[Problem]:
    """What a revision must have moved of its rider's balances."""
    after = standing.charge
    moved: dict[str, Decimal] = {}
    for charge, sign in ((before, -1), (after, 1)):
        for use in charge.charge.used if charge is not None else ():
            moved[use.window] = moved.get(use.window, Decimal(0)) + sign * use.used
    if not any(moved.values()):
        return
    agreement = _agreement(standing, known)
    if agreement is None:
        yield Problem(place, "ride_revision", "agreement_no", "an agreement that is there", standing.agreement_no)
        return
    for window, amount in moved.items():
        if amount:
            rated = next((use.used for use in _balance_of(after) if use.window == window), None)
            own = Balance(before.charge.used).of(window) if before is not None else None
            cap = _cap(window, standing, known)
            expected.moves.append(_Move(stored, window, agreement.rider_no, rated, own, cap, amount))


def _cap(window: str, standing: _Standing, known: Known) -> Decimal | None:
    """What the window holds by the version that the ride is charged by."""
    tariff_id, _, _ = window.partition(":")[2].rpartition(":")
    number = standing.operator.operator_no
    version = standing.tariff and known.catalog.tariff_version(number, tariff_id, standing.tariff[1])
    return cap_of(window, version.tariff) if version else None


def _balance_of(charge: StoredCharge | None) -> tuple[BalanceUse, ...]:
    return charge.charge.balance.uses if charge is not None else ()


def _cap_uses(moves: Sequence[_Move], found: Sequence[StoredCapUse]) -> list[StoredCapUse]:
    """The rows that movements must have left."""
    there = {(row.revision, row.balance_window): row.before for row in found}
    rows = []
    for move in moves:
        stored, told = move.stored, there.get((move.stored.revision, move.window), Decimal(0))
        before = told
        if move.rated is not None:
            least = move.rated + (move.own or 0)
            held = told if move.cap is None else min(told, move.cap)
            before = told if move.own is not None and held <= least else least
        rows.append(
            StoredCapUse(
                stored.ride_no,
                stored.revision,
                move.window,
                stored.slot,
                stored.operator_no,
                move.rider_no,
                before,
                before + move.amount,
            )
        )
    return rows


def _agreement(standing: _Standing, known: Known) -> AgreementRef | None:
    named = (event.agreement_id for event in standing.session.counted if event.agreement_id is not None)
    found = (known.catalog.agreements.get((standing.operator.operator_no, name)) for name in named)
    return next((ref for ref in found if ref is not None and ref.agreement_no == standing.agreement_no), None)


def _compare(place: Place, table: str, expected: Sequence[RowT], found: Sequence[RowT]) -> Iterator[Problem]:
    """Rows that should stand in a table, and those that do, by their keys."""
    if list(expected) == list(found):
        return
    wanted, there = {_row_key(row): row for row in expected}, {_row_key(row): row for row in found}
    for key in sorted(wanted.keys() | there.keys()):
        one, other = wanted.get(key), there.get(key)
        yield from differing(msgspec.structs.replace(place, revision=_revision_of(one or other)), table, one, other)


def _row_key(row: msgspec.Struct) -> tuple[int, int, str]:
    if isinstance(row, StoredTransfer):
        return row.ride_no, row.ordinal, str(row.line)
    window = row.balance_window if isinstance(row, StoredCapUse) else ""
    assert isinstance(row, StoredObligation | StoredCapUse)
    return row.ride_no, row.revision, window


def _revision_of(row: object) -> int | None:
    return row.ordinal if isinstance(row, StoredTransfer) else getattr(row, "revision", None)


def _is_planned(rows: RideRows, owing: set[int], known: Known) -> bool:
    """Whether collection has read every batch that changed what the ride owes, by its revisions."""
    places = (divmod(stored.batch_no, 1 << BATCH_BITS) for stored in rows.revisions if stored.revision in owing)
    return all(seq <= known.collected.get(writer_no, 0) for writer_no, seq in places)


def _orphans(rows: RideRows) -> Iterator[Problem]:
    """Rows of a ride that has no revision."""
    place = Place(ride_no=rows.ride_no)
    tables: dict[str, Iterable[msgspec.Struct]] = {
        "obligation": rows.obligations,
        "transfer": rows.transfers,
        "cap_use": rows.cap_uses,
        "debit": rows.debits.debits,
        "debit_transition": rows.debits.transitions,
        "refund": rows.debits.refunds,
    }
    for table, found in tables.items():
        for row in found:
            yield Problem(place, table, "*", MISSING, row)
