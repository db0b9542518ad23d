"""The audit of one charge: derived again from what it rests on, whoever decided it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from service.billing.auditing.problems import Place, Problem, differing
from service.billing.charged import UNCHARGED, StoredCharge, adjusted_charge, taken_back
from service.billing.events import Adjustment, RideEvent
from service.billing.opening import opening_charge
from service.billing.rating import Charge
from service.billing.rating.adjusting import ADDING
from service.billing.sessions import Session, SessionState, Usage


def adjustment_in(events: Sequence[RideEvent]) -> Adjustment | None:
    """The adjustment that a revision is about; None for every other decision."""
    return next((event.adjustment for event in events if event.adjustment is not None), None)


def is_rated(state: SessionState, events: Sequence[RideEvent]) -> bool:
    """Whether a revision's charge, where it has one, is the fare rated anew: not where it took the fare back, nor where
    it left the fare as it was and adjusted it."""
    return state not in UNCHARGED and adjustment_in(events) is None


def unrated_charge(
    state: SessionState, events: Sequence[RideEvent], before: StoredCharge | None, session: Session
) -> StoredCharge | None:
    """The charge that a revision must have which did not rate its fare anew."""
    adjustment = adjustment_in(events)
    if adjustment is not None and adjustment.kind == "opening":
        return opening_charge(session) if before is None else None
    if adjustment is None or before is None or before.taken_back:
        more_minor = 0
        if adjustment is not None:
            more_minor = adjustment.amount_minor if adjustment.kind == "extra" else -adjustment.amount_minor
        return taken_back(before, session, more_minor) if state in UNCHARGED else None
    return adjusted_charge(before, session)


def check_unrated(
    place: Place,
    state: SessionState,
    events: Sequence[RideEvent],
    charge: StoredCharge | None,
    before: StoredCharge | None,
    session: Session,
) -> Iterator[Problem]:
    """The charge of such a revision against the one it must have."""
    adjustment = adjustment_in(events)
    if adjustment is None and before is not None and before.taken_back and charge is None:
        return  # What is owed regardless stands as it was.
    wanted = unrated_charge(state, events, before, session)
    if wanted is None or charge is None:
        if wanted is not charge:
            yield Problem(place, "ride_revision", "charge", wanted or "none", charge or "none")
        return
    yield from check_same(place, wanted, charge)
    owed_minor = before.charge.total_minor if before is not None else 0
    if adjustment is not None and adjustment.kind not in ADDING and adjustment.amount_minor > owed_minor:
        yield Problem(place, "ride_revision", "events", f"at most {owed_minor} less", adjustment.amount_minor)
    if adjustment is not None and len(events) > 1:
        yield Problem(place, "ride_revision", "events", "an adjustment by itself", f"{len(events)} events")


def rated_charge(usage: Usage, fare: Charge, owed: bool, session: Session) -> StoredCharge:
    """The charge that a fare rated anew gives, with the adjustments so far."""
    return adjusted_charge(StoredCharge(usage, fare, owed), session)


def check_same(place: Place, wanted: StoredCharge, charge: StoredCharge) -> Iterator[Problem]:
    """A problem for each part in which two charges differ."""
    yield from differing(place, "ride_revision.charge.usage", wanted.usage, charge.usage)
    yield from differing(place, "ride_revision.charge", wanted.charge, charge.charge)
    for column in ("owed", "fare", "taken_back", "adjusted"):
        if getattr(wanted, column) != getattr(charge, column):
            yield Problem(place, "ride_revision", f"charge.{column}", getattr(wanted, column), getattr(charge, column))
