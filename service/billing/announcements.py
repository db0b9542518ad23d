"""What a revision tells the world: its facts for `rental.billing`, in causal order."""

from __future__ import annotations

from datetime import datetime

from service.billing.charged import StoredCharge
from service.billing.events import Adjustment
from service.billing.facts import EncodedFact, encode_fact, encode_lines, sources_of
from service.billing.facts.data import (
    ChargeAdjusted,
    ChargeRated,
    ChargeRevised,
    SessionConflict,
    SessionParked,
    SessionReview,
)
from service.billing.rides import Revision
from service.billing.sessions import SessionState
from service.billing.verdicts import lead_event


def announce(revision: Revision, now: datetime) -> list[EncodedFact]:
    """The facts of one decision; most have one, or none."""
    ride, before = revision.ride, revision.before
    facts: list[EncodedFact] = []
    if revision.conflicts:
        facts.append(_conflict(revision, now))
    if revision.charge is not None:
        facts.append(_charge(revision, revision.charge, now))
    elif before.charge is not None and ride.charge is None:
        facts.append(_charge(revision, None, now))
    if ride.state != before.state or ride.reason != before.reason or not before.revision:
        if ride.state is SessionState.REVIEW:
            facts.append(_state(SessionReview, revision, now))
        elif ride.state is SessionState.PARKED:
            facts.append(_state(SessionParked, revision, now))
    return facts


def _charge(revision: Revision, charge: StoredCharge | None, now: datetime) -> EncodedFact:
    """`charge.rated` for the first charge of a ride, `charge.revised` for every later one; None took it back."""
    ride, before = revision.ride, revision.before
    told = charge or before.charge
    assert told is not None and ride.tariff is not None
    lead = lead_event(ride.session)
    rated = ChargeRated(
        operator_id=ride.operator.operator_id,
        session_id=lead.session_id,
        agreement_id=lead.agreement_id,
        revision=ride.revision,
        tariff_id=lead.tariff_id or "",
        tariff_version=ride.tariff[1],
        currency=told.charge.currency,
        amount_minor=charge.charge.total_minor if charge else 0,
        tax_minor=charge.charge.tax_minor if charge else 0,
        lines=encode_lines(charge.charge.lines if charge else ()),
        sources=sources_of(ride.session.counted),
        started_at=told.usage.started_at,
        ended_at=told.usage.ended_at,
        meters=told.usage.meters,
        assumed_end=ride.session.assumed_end,
        owed=told.owed,
    )
    if before.charge is None:
        return encode_fact(rated, ordinal=ride.revision, at=now)
    revised = ChargeRevised(
        **{name: getattr(rated, name) for name in ChargeRated.__struct_fields__},
        difference_minor=revision.owing_minor,
        reason=ride.reason,
        adjustment=next((_adjustment(event.adjustment) for event in revision.events if event.adjustment), None),
    )
    return encode_fact(revised, ordinal=ride.revision, at=now)


def _adjustment(one: Adjustment) -> ChargeAdjusted:
    """What everybody may know of it: the reason is support's own words, and stays here."""
    return ChargeAdjusted(one.adjustment_id, one.kind, one.code, one.amount_minor)


def _state(shape: type[SessionReview | SessionParked], revision: Revision, now: datetime) -> EncodedFact:
    ride = revision.ride
    lead = lead_event(ride.session)
    fact = shape(
        operator_id=ride.operator.operator_id,
        session_id=lead.session_id,
        agreement_id=lead.agreement_id,
        revision=ride.revision,
        reason=ride.reason or "",
        sources=sources_of(ride.session.counted),
    )
    return encode_fact(fact, ordinal=ride.revision, at=now)


def _conflict(revision: Revision, now: datetime) -> EncodedFact:
    ride = revision.ride
    lead = lead_event(ride.session)
    fact = SessionConflict(
        operator_id=ride.operator.operator_id,
        session_id=lead.session_id,
        agreement_id=lead.agreement_id,
        revision=ride.revision,
        reason="contradicting_event",
        sources=sources_of(ride.session.counted),
        contradicting=sources_of(revision.conflicts),
    )
    return encode_fact(fact, ordinal=ride.revision, at=now)
