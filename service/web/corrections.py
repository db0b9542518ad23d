"""An operator puts a ride right: corrected or voided, re-rated, the difference owed or given back."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

import msgspec
from litestar import Response, post
from litestar.params import FromPath, RawBody
from msgspec import Meta
from msgspec.structs import replace

from service.billing.catalog import Catalog
from service.billing.events import Position, RideEvent
from service.billing.events.ride_data import ParkingCategory
from service.billing.extent import METERS_MAX
from service.billing.instants import utc
from service.billing.keys import session_key_bytes
from service.billing.opening import debt_of
from service.billing.rides import Ride
from service.billing.running import running_tariff
from service.billing.sessions import AHEAD_MAX, SessionState, course, review_reason
from service.flows.decisions import CrowdedError, decide_rides, taking_in
from service.web.access import access_of, needs
from service.web.answers import Asked, Name, Text, read
from service.web.doors import doors_of
from service.web.idempotency import HEADER, Key, once
from service.web.problems import conflict, invalid
from service.web.shapes import SessionView
from service.web.views import ride_of, session_view

SOURCE = "urn:farebox:operator"
"""The source of an operator's own events; they come from no topic."""

TOLD_MAX = 20
"""So many of a tariff's zones are named where one is not known."""
Instant = Annotated[datetime, Meta(tz=True)]


class CorrectionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the ride truly was (`corrected`: at least one field), or that there was none (`voided`), and why. `by`: who
    decided, as your own system calls him."""

    kind: Literal["corrected", "voided"]
    reason: Text
    by: Name | None = None
    started_at: Instant | None = None
    ended_at: Instant | None = None
    distance: Annotated[int, Meta(ge=0, le=METERS_MAX, description="Metres.")] | None = None
    parking_category: ParkingCategory | None = None
    zone_fees: Annotated[tuple[Name, ...], Meta(max_length=32)] | None = None


@post(
    "/v1/sessions/{session_id:str}/corrections",
    status_code=200,
    opt=needs("billing:write") | {"body": CorrectionRequest},
    tags=["sessions"],
)
async def correct(
    request: Asked, session_id: FromPath[str], body: RawBody, idempotency_key: Key
) -> Response[SessionView]:
    """Append a revision with the ride as it truly was: re-rated, the difference becomes an obligation. Times more than
    15 minutes ahead of ours, as the clocks of vehicles may be, an end before the start, a ride longer than the operator
    allows and zones of which its tariff knows no fee are refused. A debt that was brought over has no ride to correct:
    it can be voided."""
    asked = read(_CORRECTION, body)

    async def decide() -> tuple[int, SessionView]:
        doors, access = doors_of(request), access_of(request)
        operator = await doors.operator(access.operator_no)
        ride = ride_of(await doors.ride(access, session_id), operator)
        event = _event(asked, session_id, idempotency_key, doors.now())
        known = next((old for old in ride.session.events() if (old.source, old.id) == (SOURCE, event.id)), None)
        if known is not None and replace(event, time=known.time) != known:
            raise invalid(HEADER, "the ride was corrected under this key with other content")
        if known is None:
            _check(asked, ride)
            _check_times(asked, ride, doors.now())
            _check_zones(asked, ride, doors.knowledge.catalog)
            key = session_key_bytes(access.operator_id, session_id)
            try:
                await decide_rides(doors.working, doors.knowledge, taking_in(event), keys=[key], role="operator")
            except CrowdedError as error:
                raise conflict(str(error)) from None
        return 200, session_view(await doors.ride(access, session_id), operator)

    return await once(request, "POST corrections", idempotency_key, (session_id, asked), decide)


def _event(asked: CorrectionRequest, session_id: str, key: str, now: datetime) -> RideEvent:
    """The operator's event, known by the caller's key: the same write again is a duplicate."""
    return RideEvent(
        kind=asked.kind,
        source=SOURCE,
        id=key,
        time=now,
        session_id=session_id,
        position=Position("", 0, 0),
        reason=asked.reason,
        by=asked.by,
        distance=asked.distance,
        parking_category=asked.parking_category,
        zone_fees=asked.zone_fees,
        corrected_start=asked.started_at and utc(asked.started_at),
        corrected_end=asked.ended_at and utc(asked.ended_at),
    )


def _check(asked: CorrectionRequest, ride: Ride) -> None:
    """Refuses what would say nothing, or nothing possible."""
    said = [name for name in _TOLD if getattr(asked, name) is not None]
    if asked.kind == "voided" and said:
        raise invalid(f"/{said[0]}", f"a voided ride has nothing else to tell: leave {', '.join(said)} out")
    if asked.kind == "corrected" and not said:
        raise invalid("/kind", f"nothing is corrected: give {', '.join(_TOLD[:-1])} or {_TOLD[-1]}")
    if ride.state in (SessionState.VOIDED, SessionState.NOT_BILLABLE):
        raise conflict(f"the ride is {ride.state}: there is nothing to correct")
    if asked.kind == "corrected" and debt_of(ride) is not None:
        raise conflict(
            "a debt that was brought over has no ride to correct: it is adjusted (POST .../charges), or taken back as a"
            " whole (voided)"
        )


def _check_times(asked: CorrectionRequest, ride: Ride, now: datetime) -> None:
    """Refuses times that a ride can't have had: a correction is somebody's word for what was, and what it says wrongly
    would stand beneath each that comes after it. (One that comes as an event is taken, and reviewed.)"""
    given = [(field, at) for field, at in (("/started_at", asked.started_at), ("/ended_at", asked.ended_at)) if at]
    for field, at in given:
        if at > now + AHEAD_MAX:
            ahead = f"more than {AHEAD_MAX // timedelta(minutes=1)} minutes in the future"
            raise invalid(field, f"{at.isoformat()} is {ahead}: it is {now.isoformat(timespec='seconds')}")
    told = course(ride.session)
    started_at, ended_at = asked.started_at or told.started_at, asked.ended_at or told.ended_at
    if asked.kind == "voided" or started_at is None or ended_at is None:
        return
    field = "/started_at" if asked.ended_at is None else "/ended_at"
    if ended_at < started_at:
        raise invalid(field, f"the ride would end at {ended_at.isoformat()}, before it starts")
    if given and review_reason(started_at, ended_at, None, ride.operator.ride_hours_max) is not None:
        hours = (ended_at - started_at) / timedelta(hours=1)
        detail = f"the ride would last {hours:.1f} h; the operator allows {ride.operator.ride_hours_max}"
        raise invalid(field, detail)


def _check_zones(asked: CorrectionRequest, ride: Ride, catalog: Catalog) -> None:
    """Refuses zones of which the ride's tariff knows no fee: they would cost nothing, and a slip of the pen is more
    likely. (Of an event they are taken, at no charge: a ride is not held up by them.)"""
    _, version = running_tariff(ride.session, ride.operator, catalog, ride.tariff[1] if ride.tariff else None)
    fees = None if version is None else version.tariff.rules.zone_fees
    unknown = [] if fees is None else [code for code in asked.zone_fees or () if code not in fees]
    if fees is not None and unknown:
        known = sorted(fees)
        more = f" and {len(known) - TOLD_MAX} more" if len(known) > TOLD_MAX else ""
        has = f"{', '.join(known[:TOLD_MAX])}{more}" if known else "none"
        raise invalid("/zone_fees", f"the ride's tariff has no fee of the zone {unknown[0]!r}; it has: {has}")


_TOLD = ("started_at", "ended_at", "distance", "parking_category", "zone_fees")
"""The fields that say what a ride truly was."""
_CORRECTION = msgspec.json.Decoder(CorrectionRequest)
