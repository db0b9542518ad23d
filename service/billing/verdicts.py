"""What a ride's events come to: its state and, where it has one, its usage under the tariff in force at its start."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from service.billing.catalog import AgreementRef, Catalog, Operator, TariffVersion
from service.billing.events import RideEvent
from service.billing.extent import EVENTS_MAX
from service.billing.sessions import (
    AHEAD_MAX,
    Course,
    Session,
    SessionState,
    Usage,
    course,
    first,
    last_sign,
    microseconds,
    reservation_usage,
    review_reason,
    usage,
)
from service.billing.tariffs import free_abort, longest_reservation, lost_end_rule

Occasion = Literal["events", "deadline", "recheck"]
"""Why a ride is looked at: events arrived, its time is over, or what it was parked for may have come."""

LOST_END_DEFAULT = timedelta(hours=24)
RECHECK_AFTER = timedelta(minutes=5)
"""How soon a parked ride is looked at again, in business time."""


class Terms(msgspec.Struct, frozen=True, gc=False):
    """The agreement and the tariff version that a ride is decided under."""

    agreement: AgreementRef
    version: TariffVersion


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What a ride's events come to. `usage` stands where the ride is to be charged; `watch_at` where it must be looked
    at again by itself."""

    state: SessionState
    reason: str | None = None
    terms: Terms | None = None
    usage: Usage | None = None
    watch_at: datetime | None = None


def judge(session: Session, operator: Operator, catalog: Catalog, now: datetime, occasion: Occasion) -> Verdict:
    """The verdict on a ride from all of its events. Depends on nothing else, whoever asks and however often."""
    told = course(session)
    if told.voided:
        return Verdict(SessionState.VOIDED)
    if not told.billable:
        return Verdict(SessionState.NOT_BILLABLE, told.purpose and _plain(told.purpose))
    if told.started_at is None:
        return _without_start(session, told, operator, catalog, now, occasion)
    terms = find_terms(told, operator, catalog, told.started_at)
    if told.started_at > now + AHEAD_MAX or (told.ended_at is not None and told.ended_at > now + AHEAD_MAX):
        return Verdict(SessionState.REVIEW, "time_in_the_future")
    if isinstance(terms, str):
        if told.ended_at is not None:
            reason = review_reason(told.started_at, told.ended_at, told.meters, operator.ride_hours_max)
            if reason is not None:
                return Verdict(SessionState.REVIEW, reason)
        return Verdict(SessionState.PARKED, terms, watch_at=now + RECHECK_AFTER)
    if terms.agreement.currency != terms.version.tariff.currency:
        return Verdict(SessionState.REVIEW, "currency_differs", terms)
    return _with_start(session, told, terms, operator, now, occasion)


def shortest_wait(catalog: Catalog) -> timedelta:
    """The least time after which a ride that is still open may be a lost one, by any tariff that is known."""
    return LOST_END_DEFAULT if catalog.lost_after is None else catalog.lost_after


def deadline(session: Session, operator: Operator, catalog: Catalog) -> datetime | None:
    """When a ride has waited long enough for its end or start, or its reservation runs out.

    None while it is not known by which tariff. Whoever acts on it must know that nothing from before it is unread.
    """
    told = course(session)
    if told.started_at is not None:
        terms = find_terms(told, operator, catalog, told.started_at)
        return None if isinstance(terms, str) else told.started_at + lost_end_rule(terms.version.tariff).after
    if told.reservation is not None and told.end is None:
        terms = find_terms(told, operator, catalog, told.reservation.time)
        return None if isinstance(terms, str) else told.reservation.time + longest_reservation(terms.version.tariff)
    return _start_awaited_until(session, told, operator, catalog)


def lead_event(session: Session) -> RideEvent:
    """The event by whose agreement and tariff the ride is charged; while none names both, the first that came."""
    events = (first(session, kind) for kind in ("started", "ended", "reservation_started"))
    return _naming(events) or session.counted[0]


def _naming(events: Iterable[RideEvent | None]) -> RideEvent | None:
    """The first of these that names an agreement and a tariff."""
    return next(
        (event for event in events if event and event.agreement_id is not None and event.tariff_id is not None), None
    )


def find_terms(told: Course, operator: Operator, catalog: Catalog, at: datetime) -> Terms | str:
    """The agreement and tariff version of a ride, or the reason why it must wait for them."""
    event = _naming((told.start, told.end, told.reservation))
    if event is None or event.agreement_id is None or event.tariff_id is None:
        return "no_agreement_named"
    agreement = catalog.agreements.get((operator.operator_no, event.agreement_id))
    if agreement is None:
        return "unknown_agreement"
    if event.tariff_version is not None:
        version = catalog.tariff_version(operator.operator_no, event.tariff_id, event.tariff_version)
        return Terms(agreement, version) if version is not None else "unknown_tariff_version"
    version = catalog.tariff_at(operator.operator_no, event.tariff_id, at)
    if version is None:
        known = catalog.knows_tariff(operator.operator_no, event.tariff_id)
        return "no_tariff_version_at_start" if known else "unknown_tariff"
    return Terms(agreement, version)


def _with_start(
    session: Session, told: Course, terms: Terms, operator: Operator, now: datetime, occasion: Occasion
) -> Verdict:
    assert told.started_at is not None
    tariff = terms.version.tariff
    ended_at, lost_end = told.ended_at, None
    if ended_at is None and told.cancellation is not None:
        ended_at = told.cancellation.time
        abort = free_abort(tariff)
        if abort is not None and timedelta(0) <= ended_at - told.started_at <= abort:
            return Verdict(SessionState.CANCELLED, "within_free_abort", terms)
    if ended_at is None:
        rule = lost_end_rule(tariff)
        over = occasion == "deadline" or session.assumed_end
        if not over or now < told.started_at + rule.after:
            return Verdict(SessionState.OPEN, terms=terms)
        if rule.charge == "review":
            return Verdict(SessionState.REVIEW, "end_missing", terms)
        ended_at = last_sign(session) if rule.charge == "last_sign" else told.started_at + rule.after
        lost_end = rule.charge
    if ended_at > now + AHEAD_MAX:  # A cancellation, or the last sign of a clock that is wrong.
        return Verdict(SessionState.REVIEW, "time_in_the_future")
    reason = review_reason(told.started_at, ended_at, told.meters, operator.ride_hours_max)
    if reason is None and len(session.counted) >= EVENTS_MAX and told.correction is None:
        reason = "too_many_events"
    if reason is not None:
        return Verdict(SessionState.REVIEW, reason, terms)
    used = usage(session, told, ended_at, lost_end)
    return Verdict(SessionState.CLOSED, lost_end and "end_missing", terms, used)


def _without_start(
    session: Session, told: Course, operator: Operator, catalog: Catalog, now: datetime, occasion: Occasion
) -> Verdict:
    if told.reservation is not None and told.end is None:
        return _reservation(told, told.reservation, operator, catalog, now, occasion)
    over = told.end or told.cancellation
    if over is not None and over.time > now + AHEAD_MAX:  # Its start would be awaited until then.
        return Verdict(SessionState.REVIEW, "time_in_the_future")
    until = _start_awaited_until(session, told, operator, catalog)
    if now < until or occasion != "deadline":
        return Verdict(SessionState.INCOMPLETE, "start_missing", watch_at=until)
    if told.end is None and told.cancellation is not None:
        return Verdict(SessionState.CANCELLED, "start_missing")
    return Verdict(SessionState.REVIEW, "start_missing")


def _start_awaited_until(session: Session, told: Course, operator: Operator, catalog: Catalog) -> datetime:
    since = min(event.time for event in session.counted)
    terms = find_terms(told, operator, catalog, since)
    return since + (LOST_END_DEFAULT if isinstance(terms, str) else lost_end_rule(terms.version.tariff).after)


def _plain(words: str) -> str:
    """A producer's own words as a reason: they stand between tabs in the row that a digest is over."""
    return "".join(letter if letter.isprintable() and letter != "\\" else " " for letter in words)


def _reservation(
    told: Course, reservation: RideEvent, operator: Operator, catalog: Catalog, now: datetime, occasion: Occasion
) -> Verdict:
    """A reservation that no ride followed is charged when it is cancelled or runs out."""
    terms = find_terms(told, operator, catalog, reservation.time)
    if isinstance(terms, str):
        return Verdict(SessionState.PARKED, terms, watch_at=now + RECHECK_AFTER)
    runs_out_at = reservation.time + longest_reservation(terms.version.tariff)
    ends = (one for one in (told.reservation_end, told.cancellation) if one is not None)
    ended = min(ends, key=lambda one: one.time, default=None)
    if ended is None and (occasion != "deadline" or now < runs_out_at):
        return Verdict(SessionState.RESERVED, terms=terms, watch_at=runs_out_at)
    if ended is not None and max(reservation.time, ended.time) > now + AHEAD_MAX:
        return Verdict(SessionState.REVIEW, "time_in_the_future")
    ended_at = min(ended.time, runs_out_at) if ended is not None else runs_out_at
    if microseconds(reservation.time, ended_at) < 0:
        return Verdict(SessionState.REVIEW, "ended_before_start", terms)
    return Verdict(SessionState.CLOSED, "reservation", terms, reservation_usage(reservation, ended_at))
