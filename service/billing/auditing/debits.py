"""The audit of a ride's debits: their lives, their money against the ledger, and all of it against what is owed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from uuid import UUID

from service.billing.auditing.problems import MISSING, Place, Problem
from service.billing.auditing.rows import AuditedDebits, StoredTransfer, StoredTransition
from service.billing.debits.collecting import FACT_ORDINALS, ledger_transfers
from service.billing.debits.obligations import covered_minor
from service.billing.debits.refunds import REFUND_FINAL, Refund, RefundState
from service.billing.debits.state import FINAL, UNSURE, Debit
from service.billing.keys import provider_key, slot_of
from service.billing.ledger import Fact, refund_transfers

_FACTS = frozenset(Fact)
_SIGNS: dict[str, dict[Fact, int]] = {
    "paid_minor": {Fact.SETTLEMENT: 1, Fact.RECOVERY: 1},
    "refunded_minor": {Fact.REFUND: 1},
    "forgone_minor": {
        Fact.WAIVER: 1,
        Fact.WRITE_OFF: 1,
        Fact.ELSEWHERE: 1,
        Fact.RECOVERY: -1,
        Fact.WRITE_OFF_BACK: -1,
        Fact.WAIVER_BACK: -1,
    },
}
"""What each sum of a debit is in the ledger."""


def check_debits(
    place: Place, key: bytes, rows: AuditedDebits, transfers: Sequence[StoredTransfer], owed_minor: int | None
) -> Iterator[Problem]:
    """Every disagreement about a ride's debits; `owed_minor` is None while collection has not planned it."""
    ordinals = {debit.ordinal for debit in rows.debits}
    for table, others in (("debit_transition", rows.transitions), ("refund", rows.refunds)):
        for row in others:
            if row.ordinal not in ordinals:
                yield Problem(place, table, "*", MISSING, row)
    for transfer in transfers:
        if transfer.fact not in _FACTS or transfer.ordinal // FACT_ORDINALS not in ordinals:
            yield Problem(place, "transfer", "*", MISSING, transfer)
    transfers = [transfer for transfer in transfers if transfer.fact in _FACTS]
    for number, debit in enumerate(rows.debits, 1):
        if debit.ordinal != number:
            yield Problem(place, "debit", "ordinal", number, debit.ordinal)
        refunds = [refund for refund in rows.refunds if refund.ordinal == debit.ordinal]
        yield from _check_names(place, key, debit)
        yield from _check_life(place, debit, [row for row in rows.transitions if row.ordinal == debit.ordinal])
        yield from _check_refunds(place, debit, refunds)
        own = [transfer for transfer in transfers if transfer.ordinal // FACT_ORDINALS == debit.ordinal]
        yield from _check_ledger(place, debit, own)
        yield from _check_transfers(place, debit, own, refunds, rows.transitions)
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


def _check_life(place: Place, debit: Debit, life: Sequence[StoredTransition]) -> Iterator[Problem]:
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


def _check_refunds(place: Place, debit: Debit, refunds: Sequence[Refund]) -> Iterator[Problem]:
    sums = {
        "paid_minor": sum(receipt.amount_minor for receipt in debit.receipts),
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
    taken = [row.amount_minor for row in transfers if row.fact == Fact.CHARGEBACK]
    if debit.disputed_minor and debit.disputed_minor != (taken[-1] if taken else 0):
        yield _of(place, debit, "disputed_minor", taken[-1] if taken else 0, debit.disputed_minor)


def _check_transfers(
    place: Place,
    debit: Debit,
    transfers: Sequence[StoredTransfer],
    refunds: Sequence[Refund],
    transitions: Sequence[StoredTransition],
) -> Iterator[Problem]:
    """Each posting between the accounts and at the instant of what it is about."""
    posted_at = {(row.ordinal, row.transition): row.business_at for row in transitions}
    given_back = {refund.refund_ordinal: refund.amount_minor for refund in refunds}
    for row in transfers:
        fact, (ordinal, count) = Fact(row.fact), divmod(row.ordinal, FACT_ORDINALS)
        if fact is Fact.REFUND:
            amount_minor = given_back.get(count, 0)
            moves = refund_transfers(debit.agreement_no, debit.account_no, amount_minor, debit.currency)
            at: datetime | None = row.posted_at
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
            yield Problem(place, "transfer", "ordinal", "a transition of the debit", row)


def _check_owed(place: Place, rows: AuditedDebits, owed_minor: int) -> Iterator[Problem]:
    """What the debits stand for is what the ride owes, unless one of them is being found out about."""
    if any(debit.state in UNSURE or debit.lowering_to is not None or debit.net_again for debit in rows.debits):
        return
    covered = sum(covered_minor(debit) - debit.excess_minor for debit in rows.debits)
    failed = sum(refund.amount_minor for refund in rows.refunds if refund.state is RefundState.FAILED)
    frozen = sum(
        debit.paid_minor for debit in rows.debits if debit.dispute in ("chargeback", "lost") and debit.state in FINAL
    )
    if not owed_minor <= covered <= owed_minor + failed + frozen:
        yield Problem(place, "debit", "amount_minor in all", f"{owed_minor}, the obligations' sum", covered)


def _of(place: Place, debit: Debit, column: str, expected: object, found: object) -> Problem:
    return Problem(place, "debit", f"{column} of debit {debit.ordinal}", expected, found)
