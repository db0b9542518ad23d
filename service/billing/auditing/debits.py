"""The audit of a ride's debits: their lives, their money against the ledger, and all of it against what is owed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from service.billing.auditing.problems import MISSING, Place, Problem
from service.billing.auditing.rows import AuditedDebits, StoredRefund, StoredTransfer
from service.billing.debits.collecting import FACT_ORDINALS, ledger_transfers
from service.billing.debits.lives import LifeRow, Move, life_digest, refund_digest, told_digest
from service.billing.debits.obligations import covered_minor, of_cap_minor
from service.billing.debits.refunds import REFUND_FINAL, UNPAID, Refund, RefundState
from service.billing.debits.state import FINAL, UNSURE, UNWRITTEN, Debit, State
from service.billing.keys import provider_key, slot_of
from service.billing.ledger import OF_REFUNDS, Fact, refund_transfers, settlement_transfers

_FACTS = frozenset(Fact)
_REFUNDING = {Fact.REFUND: refund_transfers, Fact.REFUND_BACK: settlement_transfers}
_SIGNS: dict[str, dict[Fact, int]] = {
    "paid_minor": {Fact.SETTLEMENT: 1, Fact.RECOVERY: 1},
    "refunded_minor": {Fact.REFUND: 1, Fact.REFUND_BACK: -1},
    "forgone_minor": {
        Fact.WAIVER: 1,
        Fact.WRITE_OFF: 1,
        Fact.ELSEWHERE: 1,
        Fact.RECOVERY: -1,
        Fact.WRITE_OFF_BACK: -1,
        Fact.WAIVER_BACK: -1,
        Fact.ELSEWHERE_BACK: -1,
    },
    "outside_minor": {Fact.ELSEWHERE: 1, Fact.ELSEWHERE_BACK: -1},
    "given_back_minor": {Fact.GIVEN_BACK: 1, Fact.GIVEN_BACK_THERE: 1, Fact.GIVEN_BACK_FAILED: -1},
    "disputed_minor": {Fact.CHARGEBACK: 1, Fact.CHARGEBACK_WON: -1},
}
"""What each sum of a debit is in the ledger."""
_FEES = {Fact.DISPUTE_FEE: 1, Fact.DISPUTE_FEE_BACK: -1}


def check_debits(
    place: Place, key: bytes, rows: AuditedDebits, transfers: Sequence[StoredTransfer], owed_minor: int | None
) -> Iterator[Problem]:
    """Every disagreement about a ride's debits; `owed_minor` is None while collection has not planned it."""
    ordinals = {debit.ordinal for debit in rows.debits}
    for odd in rows.unreadable:
        yield Problem(place, "debit", f"{odd.column} of debit {odd.ordinal}", "JSON of its shape", odd.text)
    for row in rows.transitions:
        if row.ordinal not in ordinals:
            yield Problem(place, "debit_transition", "*", MISSING, row)
    for stored in rows.refunds:
        if stored.refund.ordinal not in ordinals:
            yield Problem(place, "refund", "*", MISSING, stored)
    for transfer in transfers:
        if transfer.fact not in _FACTS or transfer.ordinal // FACT_ORDINALS not in ordinals:
            yield Problem(place, "transfer", "*", MISSING, transfer)
    transfers = [transfer for transfer in transfers if transfer.fact in _FACTS]
    for number, debit in enumerate(rows.debits, 1):
        if debit.ordinal != number:
            yield Problem(place, "debit", "ordinal", number, debit.ordinal)
        life = [row for row in rows.transitions if row.ordinal == debit.ordinal]
        own = [transfer for transfer in transfers if transfer.ordinal // FACT_ORDINALS == debit.ordinal]
        stored_refunds = [stored for stored in rows.refunds if stored.refund.ordinal == debit.ordinal]
        refunds = [stored.refund for stored in stored_refunds]
        yield from _check_names(place, key, debit)
        yield from _check_life(place, debit, life)
        yield from _check_chain(place, debit, life, own)
        yield from _check_refund_rows(place, key, debit, stored_refunds)
        yield from _check_refunds(place, debit, refunds)
        yield from _check_ledger(place, debit, own)
        yield from _check_transfers(place, debit, own, refunds, life)
    yield from _check_caps(place, rows)
    if owed_minor is not None:
        yield from _check_owed(place, rows, owed_minor)


def _check_names(place: Place, key: bytes, debit: Debit) -> Iterator[Problem]:
    keys = {provider_key(key, "debit", debit.ordinal, attempt) for attempt in range(max(debit.attempts, 1))}
    fixed: dict[str, object] = {
        "slot": slot_of(key),
        "session_key": UUID(bytes=key),
        "session_id": place.session_id,
        "provider_key": debit.provider_key if debit.provider_key in keys else " or ".join(sorted(keys)),
    }
    for column, wanted in fixed.items():
        if getattr(debit, column) != wanted:
            yield _of(place, debit, column, wanted, getattr(debit, column))


def _check_life(place: Place, debit: Debit, life: Sequence[LifeRow]) -> Iterator[Problem]:
    """Its transitions follow each other without a gap, from nothing to the state in which it is."""
    state: str | None = None
    for number, row in enumerate(life, 1):
        if (row.transition, row.from_state) != (number, state):
            yield Problem(
                place, "debit_transition", f"{debit.ordinal}: transition, from_state", (number, state),
                (row.transition, row.from_state),
            )  # fmt: skip
        state = row.to_state
    if not life or len(life) != debit.transitions:
        yield _of(place, debit, "transitions", len(life), debit.transitions)
        return
    last = life[-1]
    told = {
        "state": last.to_state,
        "amount_minor": last.amount_minor,
        "provider_key": last.provider_key,
        "provider_ref": last.provider_ref,
        "slot": last.slot,
    }
    for column, wanted in told.items():
        if getattr(debit, column) != wanted:
            yield _of(place, debit, column, wanted, getattr(debit, column))


def _check_chain(
    place: Place, debit: Debit, life: Sequence[LifeRow], transfers: Sequence[StoredTransfer]
) -> Iterator[Problem]:
    """Each transition is chained to the one before and to what was posted at it; the last says what the debit is."""
    moves: dict[int, list[Move]] = {}
    for one in transfers:
        if one.fact not in OF_REFUNDS:
            move = (one.fact, one.line, one.debit_account, one.credit_account, one.amount_minor, one.currency)
            moves.setdefault(one.ordinal % FACT_ORDINALS, []).append(move)
    digest = UNWRITTEN
    for row in life:
        wanted = life_digest(digest, row, moves.get(row.transition, ()))
        if row.digest != wanted:
            named = f"digest of debit {row.ordinal}, transition {row.transition}, over its columns and its transfers"
            yield Problem(place, "debit_transition", named, wanted, row.digest)
        digest = row.digest
    told = (life[-1].told, digest) if life else (UNWRITTEN, UNWRITTEN)
    for column, expected, found in (
        ("columns, told by its last transition,", told[0], told_digest(debit)),
        ("digest", told[1], debit.digest),
    ):
        if expected != found:
            yield _of(place, debit, column, expected, found)


def _check_refund_rows(place: Place, key: bytes, debit: Debit, refunds: Sequence[StoredRefund]) -> Iterator[Problem]:
    """Each refund is its debit's, under its own key, against one of its receipts, and as its digest says."""
    receipts = {receipt.key for receipt in debit.receipts}
    for number, stored in enumerate(refunds, 1):
        refund = stored.refund
        wanted: dict[str, object] = {
            "refund_ordinal": number,
            "provider_key": provider_key(key, "refund", debit.ordinal * 1000 + refund.refund_ordinal),
            "debit_key": refund.debit_key if refund.debit_key in receipts else " or ".join(sorted(receipts)),
        }
        wanted |= {name: getattr(debit, name) for name in _DEBIT_S}
        for column, expected in wanted.items():
            if getattr(refund, column) != expected:
                named = f"{column} of refund {debit.ordinal}-{refund.refund_ordinal}"
                yield Problem(place, "refund", named, expected, getattr(refund, column))
        if stored.digest != refund_digest(refund):
            named = f"digest of refund {debit.ordinal}-{refund.refund_ordinal}, over its columns"
            yield Problem(place, "refund", named, refund_digest(refund), stored.digest)


_DEBIT_S = ("slot", "operator_no", "agreement_no", "account_no", "currency")
"""What a refund has of its debit."""


def _check_refunds(place: Place, debit: Debit, refunds: Sequence[Refund]) -> Iterator[Problem]:
    sums = {
        "paid_minor": sum(receipt.amount_minor for receipt in debit.receipts),
        "disputed_minor": sum(one.taken_minor for one in debit.disputes),
        "refunds": len(refunds),
        "refunding_minor": sum(refund.amount_minor for refund in refunds if refund.state not in REFUND_FINAL),
        "refunded_minor": sum(r.amount_minor for r in refunds if r.state is RefundState.SUCCEEDED),
    }
    for column, wanted in sums.items():
        if getattr(debit, column) != wanted:
            yield _of(place, debit, column, wanted, getattr(debit, column))


def _check_ledger(place: Place, debit: Debit, transfers: Sequence[StoredTransfer]) -> Iterator[Problem]:
    """What the ledger says that was paid, given back and given up."""
    for column, signs in _SIGNS.items():
        posted = sum(signs.get(Fact(row.fact), 0) * row.amount_minor for row in transfers)
        if posted != getattr(debit, column):
            yield _of(place, debit, column, f"{posted}, posted in the ledger", getattr(debit, column))
    fees = sum(_FEES.get(Fact(row.fact), 0) * row.amount_minor for row in transfers)
    if fees != sum(one.fee_minor for one in debit.disputes):
        yield _of(place, debit, "disputes", f"fees of {fees}, posted in the ledger", debit.disputes)


def _check_transfers(
    place: Place,
    debit: Debit,
    transfers: Sequence[StoredTransfer],
    refunds: Sequence[Refund],
    transitions: Sequence[LifeRow],
) -> Iterator[Problem]:
    """Each posting between the accounts and at the instant of what it is about."""
    posted_at = {(row.ordinal, row.transition): row.business_at for row in transitions}
    given_back = {refund.refund_ordinal: refund.amount_minor for refund in refunds}
    for row in transfers:
        fact, (ordinal, count) = Fact(row.fact), divmod(row.ordinal, FACT_ORDINALS)
        if (posting := _REFUNDING.get(fact)) is not None:
            moves = posting(debit.agreement_no, debit.account_no, given_back.get(count, 0), debit.currency)
            at = row.posted_at if row.posted_at in posted_at.values() else None
        else:
            moves = ledger_transfers(debit, fact, row.amount_minor)
            at = posted_at.get((ordinal, count))
        wanted = StoredTransfer(
            row.ride_no, row.fact, row.ordinal, 0, debit.slot, debit.operator_no, *moves[0], at or row.posted_at
        )
        for column in StoredTransfer.__struct_fields__:
            if getattr(wanted, column) != getattr(row, column):
                yield Problem(place, "transfer", column, getattr(wanted, column), row)
        if at is None:
            yield Problem(place, "transfer", "ordinal, posted_at", "a transition of the debit", row)


def _check_caps(place: Place, rows: AuditedDebits) -> Iterator[Problem]:
    """What is debited on a hold is no more than its cap, but for what was given back and came back after a further
    debit had taken its place. What the rider approves himself is on none: so is what came of a written-off debt, which
    he may have wanted to pay while another debit had its room."""
    came_back = sum(one.refund.amount_minor for one in rows.refunds if one.refund.state is RefundState.RETURNED)
    given_up = {step.ordinal for step in rows.transitions if step.from_state == State.WRITTEN_OFF}
    for hold in rows.holds:
        on_it = (debit for debit in rows.debits if debit.begun_at is not None and debit.begun_at >= hold.opened_at)
        taken = sum(of_cap_minor(debit) for debit in on_it if debit.ordinal not in given_up)
        if taken > hold.cap_minor + came_back:
            yield Problem(place, "debit", "amount_minor on its hold", f"{hold.cap_minor}, the hold's cap", taken)


def _check_owed(place: Place, rows: AuditedDebits, owed_minor: int) -> Iterator[Problem]:
    """What the debits stand for is what the ride owes, unless one of them is being found out about.

    What was paid outside stands even where less is owed later, until it was given back there.
    """
    if any(debit.state in UNSURE or debit.lowering_to is not None or debit.net_again for debit in rows.debits):
        return
    covered = sum(covered_minor(debit) - debit.excess_minor for debit in rows.debits)
    refunds = (stored.refund for stored in rows.refunds)
    failed = sum(refund.amount_minor for refund in refunds if refund.state in UNPAID)
    frozen = sum(
        debit.paid_minor
        for debit in rows.debits
        if (debit.disputed_minor or debit.dispute == "chargeback") and debit.state in FINAL
    )
    outside = sum(debit.outside_minor for debit in rows.debits)
    if not owed_minor <= covered <= max(owed_minor, outside) + failed + frozen:
        yield Problem(place, "debit", "amount_minor in all", f"{owed_minor}, the obligations' sum", covered)


def _of(place: Place, debit: Debit, column: str, expected: object, found: object) -> Problem:
    return Problem(place, "debit", f"{column} of debit {debit.ordinal}", expected, found)
