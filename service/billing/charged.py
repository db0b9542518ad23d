"""The charge of a ride as its revisions keep it, what the rider owes by it, and what one after the other moves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from service.billing.events import AdjustmentKind, RideEvent
from service.billing.ledger import Transfer, adjustment_transfers, charge_transfers
from service.billing.rating import Charge
from service.billing.rating.adjusting import ADDING, Adjusted, adjust_charge
from service.billing.sessions import Session, SessionState, Usage, adjustments

Pot = AdjustmentKind | Literal["fare"]
"""What of a charge has an account of its own."""


class StoredCharge(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A charge as a revision keeps it: all that is needed to derive it again.

    `charge` is what stands, with the adjustments of support; `fare` is what the ride itself came to, where there are
    adjustments, and `adjusted` what came of those. `taken_back`: the fare is not owed (a void, a free cancellation),
    and the charge is what is owed regardless. `owed` says whether the rider owes it; it is settled with the ride's
    first charge (shadow mode and rides from before `bill_from` owe nothing, whatever is corrected later).
    """

    usage: Usage
    charge: Charge
    owed: bool = True
    fare: Charge | None = None
    taken_back: bool = False
    adjusted: tuple[Adjusted, ...] = ()


UNCHARGED = frozenset({SessionState.VOIDED, SessionState.CANCELLED, SessionState.NOT_BILLABLE})
"""The states that take a fare back."""


def standing_charge(
    state: SessionState, decided: StoredCharge | None, before: StoredCharge | None
) -> StoredCharge | None:
    """The charge that stands after a decision: its own, else the one before unless its state takes that back."""
    if decided is not None or before is None:
        return decided
    return before if state not in UNCHARGED or before.taken_back else None


def settled_owed(owed: bool | None, decided: StoredCharge | None) -> bool | None:
    """Whether a ride's charges are owed, after a decision: as its first charge says, though that was taken back."""
    return decided.owed if owed is None and decided is not None else owed


def charged_usage(standing: StoredCharge | None) -> Usage | None:
    """What the fare that stands is for; None where none does."""
    return None if standing is None or standing.taken_back else standing.usage


def fare_of(charge: StoredCharge) -> Charge:
    """What the ride itself came to; empty once it was taken back."""
    if charge.taken_back:
        return Charge(charge.charge.currency, (), 0)
    return charge.fare or charge.charge


def adjusted_charge(fare: StoredCharge, session: Session) -> StoredCharge:
    """A charge that stands, with the adjustments of its session; `fare` may have been adjusted before."""
    own = adjustments(session)
    if not own:
        return fare
    rated = fare_of(fare)
    charge, adjusted = adjust_charge(rated, own)
    return StoredCharge(fare.usage, charge, fare.owed, rated, False, adjusted)


def taken_back(before: StoredCharge | None, session: Session, more_minor: int = 0) -> StoredCharge | None:
    """What is owed regardless once the fare of a ride is taken back: None where there is nothing of the kind.

    It is never more than what was owed before and what is adjusted now (`more_minor`, signed).
    """
    own = [one for one in adjustments(session) if one.kind not in ADDING or one.regardless]
    if before is None or not any(one.regardless for one in own):
        return None
    nothing = Charge(before.charge.currency, (), 0)
    charge, adjusted = adjust_charge(nothing, own, max(before.charge.total_minor + more_minor, 0))
    return StoredCharge(before.usage, charge, before.owed, None, True, adjusted)


def owed_minor(charge: StoredCharge | None) -> int:
    """What the rider owes by a charge, in minor units."""
    return charge.charge.total_minor if charge is not None and charge.owed else 0


def owed_tax(charge: StoredCharge | None) -> int:
    """The part of `owed_minor` that is tax."""
    return charge.charge.tax_minor if charge is not None and charge.owed else 0


def obligation_kind(before: StoredCharge | None, fresh: Iterable[RideEvent]) -> str:
    """What a decision's difference is called: `charge`, `correction`, `extra`, `goodwill`, `refund`
    or `opening`.

    An adjustment is a decision of its own: nothing else is decided with it.
    """
    kind = next((event.adjustment.kind for event in fresh if event.adjustment is not None), "correction")
    return "charge" if before is None and kind == "correction" else kind


def charge_moves(
    before: StoredCharge | None, after: StoredCharge | None, agreement_no: int, tariff_no: int, operator_no: int
) -> tuple[Transfer, ...]:
    """The transfers between what stood before and what stands after: the fare's to revenue, each kind of adjustment's
    to its own account, and the tax of all of them."""
    told = after or before
    if told is None:
        return ()
    currency = told.charge.currency
    if not (before is not None and before.adjusted) and not (after is not None and after.adjusted):
        amount_minor, tax_minor = owed_minor(after) - owed_minor(before), owed_tax(after) - owed_tax(before)
        return charge_transfers(agreement_no, tariff_no, operator_no, amount_minor, tax_minor, currency)
    old, new = _pots(before), _pots(after)
    moves: list[Transfer] = []
    for pot in {**new, **old}:
        (was, tax_was), (now, tax_now) = old.get(pot, (0, 0)), new.get(pot, (0, 0))
        if pot == "fare":
            moves += charge_transfers(agreement_no, tariff_no, operator_no, now - was, tax_now - tax_was, currency)
        else:
            moves += adjustment_transfers(pot, agreement_no, operator_no, now - was, tax_now - tax_was, currency)
    return tuple(moves)


def _pots(charge: StoredCharge | None) -> dict[Pot, tuple[int, int]]:
    """(amount, tax within it) of the fare and of each kind of adjustment."""
    if charge is None or not charge.owed:
        return {}
    fare = fare_of(charge)
    pots: dict[Pot, tuple[int, int]] = {"fare": (fare.total_minor, fare.tax_minor)}
    for one in charge.adjusted:
        amount_minor, tax_minor = pots.get(one.kind, (0, 0))
        pots[one.kind] = (amount_minor + one.amount_minor, tax_minor + one.tax_minor)
    return pots
