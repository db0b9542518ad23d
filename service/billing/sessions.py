"""A ride, folded from its events in any order of arrival, and its usage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

import msgspec

from service.billing.events import Adjustment, Position, RideEvent, content_digest, same_content
from service.billing.events.ride_data import PAUSING
from service.billing.extent import CONFLICTS_MAX, DECISIONS_MAX, EVENTS_MAX, EVENTS_SPARE, METERS_MAX

RIDE_HOURS_MAX = 720
"""How long a ride may last before somebody must look at it, unless the operator says otherwise (events.md)."""

AHEAD_MAX = timedelta(minutes=15)
"""How far ahead of now an event's time may lie: clocks differ, but not by more."""

ReviewReason = Literal[
    "ended_before_start",
    "negative_distance",
    "distance_out_of_range",
    "too_many_events",
    "longer_than_ride_hours_max",
    "time_in_the_future",
]
LostEndCharge = Literal["ride_max", "last_sign"]


class SessionState(StrEnum):
    """Where a ride stands; `session_state` in the database."""

    RESERVED = "reserved"
    OPEN = "open"
    INCOMPLETE = "incomplete"
    PARKED = "parked"
    REVIEW = "review"
    CLOSED = "closed"
    CANCELLED = "cancelled"
    VOIDED = "voided"
    NOT_BILLABLE = "not_billable"


FINAL = frozenset({SessionState.CLOSED, SessionState.CANCELLED, SessionState.VOIDED, SessionState.NOT_BILLABLE})
"""The states in which a ride was decided: what differs afterwards is a conflict until an operator corrects."""


class Usage(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a ride used: the only thing that can be rated.

    Instants are aware and in UTC; `duration_us` is exact microseconds between them; `meters` is whole metres;
    `pauses` lie inside the ride, sorted and disjoint; `reserved_us` is the length of a reservation before the ride,
    or, where `rode` is False, of a reservation that no ride followed.
    """

    started_at: datetime
    ended_at: datetime
    duration_us: int
    meters: int = 0
    pauses: tuple[tuple[datetime, datetime], ...] = ()
    vehicle_type: str | None = None
    parking_category: str | None = None
    zone_fees: tuple[str, ...] = ()
    reserved_us: int | None = None
    rode: bool = True
    lost_end: LostEndCharge | None = None


class Session(msgspec.Struct, frozen=True, gc=False):
    """What is known of a ride: the events that count and the ones that contradict them, in order of arrival.

    `final` is True once the ride was decided; `assumed_end` while its charge stands on an end that nobody reported,
    `reserved_only` while it is for a reservation that no ride had followed.
    """

    counted: tuple[RideEvent, ...] = ()
    conflicts: tuple[RideEvent, ...] = ()
    final: bool = False
    assumed_end: bool = False
    reserved_only: bool = False

    def events(self) -> Iterable[RideEvent]:
        """Every event that was recorded; one that counts and contradicts comes once."""
        yield from self.counted
        if self.conflicts:
            counted = {id(event) for event in self.counted}  # What `take` adds to both is one object.
            yield from (event for event in self.conflicts if id(event) not in counted)


Place = tuple[str, str, Position]
"""The source and id of an event, and where in Kafka it is."""
Taken = Literal["counted", "conflict", "duplicate"]


def take(session: Session, event: RideEvent) -> tuple[Session, Taken]:
    """The session after one more event, and what became of it (events.md, "What a difficult event gets").

    Depends on nothing but the session and the event, so that folding the stored events again gives the same session.
    """
    same_id = twin = False
    for known in session.events() if session.conflicts else session.counted:
        if known.id == event.id and known.source == event.source:
            if same_content(known, event):
                return session, "duplicate"
            same_id = True
        elif known.kind == event.kind and event.kind in _ONCE:
            if same_content(known, event):
                return session, "duplicate"
            twin = True
    if same_id or (session.final and not _counts_after_decision(session, event)):
        conflicts = (*session.conflicts, event)
        return msgspec.structs.replace(session, conflicts=conflicts), "conflict"
    counted = (*session.counted, event)
    if twin or _differs_in_contract(session, event):
        return msgspec.structs.replace(session, counted=counted, conflicts=(*session.conflicts, event)), "conflict"
    if not session.final and not session.conflicts:
        return Session(counted), "counted"
    return msgspec.structs.replace(session, counted=counted), "counted"


def take_all(session: Session, events: Iterable[RideEvent]) -> Session:
    """The session after these events, each as by `take`.

    That looks at all that is known for each event. A run of events that can't but count (of an id that is not known, a
    kind that may come often, and no contract but the one that is named) is laid behind what is known in one go: the
    thousands of a crowded ride cost what they are, not their square.
    """
    known = {(event.source, event.id) for event in session.events()}
    agreements = {event.agreement_id for event in session.counted if event.agreement_id}
    tariffs = {event.tariff_id for event in session.counted if event.tariff_id}
    run: list[RideEvent] = []
    for event in events:
        named = event.source, event.id
        open_yet = not session.final and not session.conflicts
        same = (not event.agreement_id or agreements <= {event.agreement_id}) and (
            not event.tariff_id or tariffs <= {event.tariff_id}
        )
        if open_yet and event.kind not in _ONCE and named not in known and same:
            run.append(event)
        else:
            session, _ = take(_laid_behind(session, run), event)
            run = []
        known.add(named)
        agreements |= {event.agreement_id} if event.agreement_id else set()
        tariffs |= {event.tariff_id} if event.tariff_id else set()
    return _laid_behind(session, run)


def _laid_behind(session: Session, run: Sequence[RideEvent]) -> Session:
    return Session((*session.counted, *run)) if run else session


def decided(session: Session, state: SessionState, charged: Usage | None) -> Session:
    """The session once a revision with this state was appended; `charged` is what the charge that stands is for.

    A ride with a charge stays decided whatever its state: only an operator's correction, or the half that was assumed,
    moves its money. One that was cancelled before its start came is not decided.
    """
    if charged is None:
        final = state in FINAL and (state is not SessionState.CANCELLED or first(session, "started") is not None)
        same = session.final == final and not session.assumed_end and not session.reserved_only
        return session if same else Session(session.counted, session.conflicts, final)
    return Session(session.counted, session.conflicts, True, charged.lost_end is not None, not charged.rode)


def first(session: Session, kind: str) -> RideEvent | None:
    """The event of a kind that counts: the least by (time, source, id, digest), so that no order of arrival matters."""
    found: RideEvent | None = None
    for event in session.counted:
        if event.kind == kind and (found is None or _rank(event) < _rank(found)):
            found = event
    return found


def gone_by(session: Session) -> set[Place]:
    """The source, id and place of each event that the ride goes by: not of those that contradict its charge, and of two
    starts or ends before that, of the first in the world alone."""
    firsts = {kind: first(session, kind) for kind in _ONCE}
    return {
        (event.source, event.id, event.position)
        for event in session.counted
        if event.kind not in _ONCE or event is firsts[event.kind]
    }


def is_excess(session: Session, event: RideEvent, known: bool) -> bool:
    """Whether the session has so many events that this one, if it says something new, is one too many. `known`: it has
    one of the same source and id."""
    if event.kind in ("corrected", "adjusted") and not known:
        return sum(one.kind == event.kind for one in session.counted) >= DECISIONS_MAX
    if len(session.conflicts) >= CONFLICTS_MAX:
        return take(session, event)[1] == "conflict"
    spare = 0 if event.kind in PAUSING else EVENTS_SPARE
    if known or event.kind in _BY_PEOPLE or len(session.counted) < EVENTS_MAX + spare:
        return False
    return event.kind not in _ONCE or take(session, event)[1] != "duplicate"


class Course(msgspec.Struct, frozen=True, gc=False):
    """A session's events told as a course of the ride; `ended_at` is None while nobody has said."""

    start: RideEvent | None
    end: RideEvent | None
    cancellation: RideEvent | None
    reservation: RideEvent | None
    reservation_end: RideEvent | None
    correction: RideEvent | None
    voided: bool
    billable: bool
    purpose: str | None
    started_at: datetime | None
    ended_at: datetime | None
    meters: int


def course(session: Session) -> Course:
    """The events that count, each kind once, with the operator's corrections laid over them, the last on top."""
    start = end = cancellation = reservation = reservation_end = correction = None
    voided = False
    billable, purpose = True, None
    for event in session.counted:
        match event.kind:
            case "started":
                start = event if start is None or _rank(event) < _rank(start) else start
            case "ended":
                end = event if end is None or _rank(event) < _rank(end) else end
            case "cancelled":
                cancellation = event if cancellation is None or _rank(event) < _rank(cancellation) else cancellation
            case "reservation_started":
                reservation = event if reservation is None or _rank(event) < _rank(reservation) else reservation
            case "reservation_cancelled":
                reservation_end = event if reservation_end is None else min(reservation_end, event, key=_rank)
            case "corrected":
                correction = event if correction is None else _laid_over(correction, event)
            case "voided":
                voided = True
        if not event.billable:
            billable, purpose = False, event.purpose
    if start is not None and end is not None and cancellation is not None and cancellation.time < end.time:
        end = None  # The ride was given up before: the first in the world counts, as where that was decided on alone.
    started_at = start.time if start else None
    ended_at = end.time if end else None
    meters = (end and end.distance) or 0
    if correction is not None:
        started_at = correction.corrected_start or started_at
        ended_at = correction.corrected_end or ended_at
        meters = meters if correction.distance is None else correction.distance
    parts = start, end, cancellation, reservation, reservation_end, correction
    return Course(*parts, voided, billable, purpose, started_at, ended_at, meters)


def usage(session: Session, told: Course, ended_at: datetime, lost_end: LostEndCharge | None = None) -> Usage:
    """The usage of a ride that started and, as far as the caller knows, ended at `ended_at`."""
    started_at = told.started_at
    assert started_at is not None
    end, fix = told.end, told.correction
    return Usage(
        started_at=started_at,
        ended_at=ended_at,
        duration_us=microseconds(started_at, ended_at),
        meters=told.meters,
        pauses=_pauses(session, started_at, ended_at) if end is None or len(session.counted) > 2 else (),
        vehicle_type=told.start.vehicle_type if told.start else None,
        parking_category=(fix and fix.parking_category) or (end.parking_category if end else None),
        zone_fees=next((one.zone_fees for one in (fix, end) if one is not None and one.zone_fees is not None), ()),
        reserved_us=_reserved_us(told, started_at) if told.reservation else None,
        lost_end=lost_end,
    )


def reservation_usage(reservation: RideEvent, ended_at: datetime) -> Usage:
    """The usage of a reservation that no ride followed."""
    reserved_us = max(0, microseconds(reservation.time, ended_at))
    return Usage(
        started_at=reservation.time,
        ended_at=reservation.time,
        duration_us=0,
        vehicle_type=reservation.vehicle_type,
        reserved_us=reserved_us,
        rode=False,
    )


def review_reason(
    started_at: datetime, ended_at: datetime, distance: int | None, ride_hours_max: int = RIDE_HOURS_MAX
) -> ReviewReason | None:
    """Why a ride must not be charged by itself, or None when it may be."""
    if ended_at < started_at:
        return "ended_before_start"
    if distance is not None and distance < 0:
        return "negative_distance"
    if distance is not None and distance > METERS_MAX:
        return "distance_out_of_range"
    if ended_at - started_at > timedelta(hours=ride_hours_max):
        return "longer_than_ride_hours_max"
    return None


def adjustments(session: Session) -> tuple[Adjustment, ...]:
    """What support made the ride owe beside its fare, in the order in which it was decided."""
    return tuple(event.adjustment for event in session.counted if event.adjustment is not None)


def last_sign(session: Session) -> datetime:
    """The last instant at which the ride gave a sign of life; what people said about it later is none."""
    signs = [event.time for event in session.counted if event.kind not in _BY_PEOPLE]
    return max(signs or [event.time for event in session.counted])


def microseconds(since: datetime, until: datetime) -> int:
    """The exact microseconds between two instants; negative where `until` is earlier."""
    delta = until - since
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


_BY_PEOPLE = frozenset({"corrected", "voided", "adjusted"})
"""Kinds that say what somebody decided about the ride, not what it did."""

_ONCE = frozenset({"started", "ended", "cancelled", "reservation_started", "reservation_cancelled", "voided"})
"""Kinds of which a ride has one: a second that says the same is a duplicate, one that differs a conflict."""


def _counts_after_decision(session: Session, event: RideEvent) -> bool:
    """Whether an event of a decided ride still says something: a correction, the true end (or cancellation) instead of
    an assumed one and the pauses before it, the ride after its reservation was charged and the end of one that ran out
    (all to whom that was charged), or anything about a ride that will never be charged."""
    if event.kind in _BY_PEOPLE:
        return True
    if session.assumed_end:
        started = any(known.kind == "started" and known.agreement_id for known in session.counted)
        return event.kind in ("ended", "cancelled", *PAUSING) and (started or not _differs_in_contract(session, event))
    if session.reserved_only:
        given_up = any(known.kind in ("reservation_cancelled", "cancelled") for known in session.counted)
        second = event.kind == "reservation_started" or (event.kind == "reservation_cancelled" and given_up)
        return not second and not _differs_in_contract(session, event)
    return any(known.kind == "voided" or not known.billable for known in session.counted)


def _differs_in_contract(session: Session, event: RideEvent) -> bool:
    """Whether the event names another agreement or tariff than an earlier one."""
    for known in session.counted:
        if event.agreement_id and known.agreement_id and event.agreement_id != known.agreement_id:
            return True
        if event.tariff_id and known.tariff_id and event.tariff_id != known.tariff_id:
            return True
    return False


def _rank(event: RideEvent) -> tuple[datetime, str, str, bytes]:
    return event.time, event.source, event.id, content_digest(event)


def _laid_over(earlier: RideEvent, later: RideEvent) -> RideEvent:
    """Two corrections as one: what the later one does not say stays as the earlier one left it."""
    return msgspec.structs.replace(
        later,
        corrected_start=later.corrected_start or earlier.corrected_start,
        corrected_end=later.corrected_end or earlier.corrected_end,
        distance=earlier.distance if later.distance is None else later.distance,
        parking_category=later.parking_category or earlier.parking_category,
        zone_fees=earlier.zone_fees if later.zone_fees is None else later.zone_fees,
    )


def _reserved_us(told: Course, started_at: datetime) -> int:
    """How long the vehicle was reserved before the ride: until it began, or the reservation was given up."""
    assert told.reservation is not None
    ended = told.reservation_end
    until = started_at if ended is None else min(started_at, ended.time)
    return max(0, microseconds(told.reservation.time, until))


def _pauses(session: Session, started_at: datetime, ended_at: datetime) -> tuple[tuple[datetime, datetime], ...]:
    """The pauses inside the ride, each to its end or the ride's; one that ends as the next begins goes on."""
    paused, resumed = ({one.time for one in session.counted if one.kind == kind} for kind in ("paused", "resumed"))
    marks = sorted((at, at in resumed) for at in paused ^ resumed)
    pauses: list[tuple[datetime, datetime]] = []
    since: datetime | None = None
    for at, ends in [*marks, (ended_at, True)]:
        instant = min(max(at, started_at), ended_at)
        if not ends:
            since = since or instant
        elif since is not None:
            if since < instant:
                pauses.append((since, instant))
            since = None
    return tuple(pauses)
