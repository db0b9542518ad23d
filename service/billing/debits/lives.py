"""The lives of debits, as they are appended: each transition chained to the one before, and to what it says and moves.

A debit's row is written over; what it was told to be stands, as a digest, in its last transition. So a row of either
table, or of the ledger, that somebody else alters, removes or invents is found by reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

import msgspec

from service.billing.debits.collecting import DIARY, FACT_ORDINALS, Posted, Transition
from service.billing.debits.refunds import Refund
from service.billing.debits.state import Debit
from service.billing.ledger import OF_REFUNDS
from service.billing.proofs import fingerprint

Move = tuple[int, int, int, int, int, str]
"""(fact, line, debit account, credit account, amount, currency) of a transfer."""


class LifeRow(msgspec.Struct, frozen=True):
    """A row of `debit_transition`. `told` is the digest of the debit after it, `digest` the chain's."""

    ride_no: int
    ordinal: int
    transition: int
    slot: int
    from_state: str | None
    to_state: str
    why: str
    amount_minor: int
    provider_key: str
    provider_ref: str | None
    business_at: datetime
    machine_at: datetime
    told: UUID
    digest: UUID


def lived(
    transitions: Sequence[Transition], posted: Iterable[Posted], now: datetime, machine_at: datetime
) -> list[LifeRow]:
    """The rows of transitions, in their order, with what was posted at each; the debits carry their digests so far."""
    moves: dict[tuple[int, int], list[Move]] = {}
    for one in posted:
        if one.fact not in OF_REFUNDS:
            moves.setdefault((one.ride_no, one.ordinal), []).append((one.fact, one.line, *one.transfer))
    chains: dict[tuple[int, int], UUID] = {}
    rows = []
    for transition in transitions:
        debit = transition.debit
        key, place = (debit.ride_no, debit.ordinal), debit.ordinal * FACT_ORDINALS + debit.transitions
        row = LifeRow(
            debit.ride_no,
            debit.ordinal,
            debit.transitions,
            debit.slot,
            transition.from_state,
            debit.state,
            transition.why,
            debit.amount_minor,
            debit.provider_key,
            debit.provider_ref,
            now,
            machine_at,
            told_digest(debit),
            debit.digest,
        )
        before = chains.get(key, debit.digest)
        chains[key] = life_digest(before, row, moves.get((debit.ride_no, place), ()))
        rows.append(msgspec.structs.replace(row, digest=chains[key]))
    return rows


def life_digest(before: UUID, row: LifeRow, moves: Iterable[Move]) -> UUID:
    """The digest of a transition: over the one before it, its own columns but this, and what was posted at it."""
    return _digest([before, *_ROW(row), sorted(moves)])


def told_digest(debit: Debit) -> UUID:
    """The digest of all that is a debit's life, the diary of asking apart."""
    return _digest(_LIFE(debit))


def refund_digest(refund: Refund) -> UUID:
    """The digest of what a refund is; its state is held against its debit."""
    return _digest(_REFUND(refund))


def _digest(values: Iterable[Any]) -> UUID:
    plain = [value.astimezone(UTC) if isinstance(value, datetime) else value for value in values]
    return UUID(bytes=fingerprint(_ENCODER.encode(plain)))


_ENCODER = msgspec.json.Encoder(order="deterministic")
"""Names of an action's data in their order: PostgreSQL keeps them in another than they came in."""
_ROW = attrgetter(*LifeRow.__struct_fields__[:-1])
_LIFE = attrgetter(*(name for name in Debit.__struct_fields__ if name not in {*DIARY, "verify"}))
_REFUND = attrgetter(
    *("ride_no", "ordinal", "refund_ordinal", "slot", "operator_no", "agreement_no", "account_no", "currency"),
    *("amount_minor", "provider_key", "provider_ref", "debit_key", "debit_ref", "reason", "created_at"),
    *("tariff_no", "because", "told"),
)
