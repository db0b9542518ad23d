"""The ride events: what a record of `rental.sessions` says, decoded once at the door.

`decode` is total: any record becomes a RideEvent, Malformed (to the quarantine, with reason and path) or Skipped.
"""

from datetime import datetime
from hashlib import blake2b
from operator import attrgetter
from typing import Any

import msgspec

from service.billing.events.cloudevents import Envelope, RawRecord, Skipped, in_calendar, open_envelope
from service.billing.events.ride_data import (
    DATA_TYPES,
    Adjustment,
    AdjustmentKind,
    Corrected,
    Ended,
    Kind,
    Location,
    RideData,
)
from service.billing.events.strict_json import MalformedEventError, decode_json
from service.billing.extent import SESSION_ID_MAX
from service.billing.instants import of_ms, utc
from service.billing.refusals import is_id

__all__ = [
    "EVENT_TYPES",
    "MDS_TYPES",
    "Adjustment",
    "AdjustmentKind",
    "Kind",
    "Location",
    "Malformed",
    "Position",
    "RawRecord",
    "RideEvent",
    "Skipped",
    "content",
    "content_digest",
    "decode",
    "decode_events",
    "encode_events",
    "same_content",
]

EVENT_TYPES: dict[Kind, str] = {kind: f"io.farebox.session.{kind}.v1" for kind in DATA_TYPES}
"""The CloudEvents `type` of each kind."""
MDS_TYPES: dict[str, Kind] = {
    "trip_start": "started",
    "trip_pause": "paused",
    "trip_stop": "paused",
    "trip_resume": "resumed",
    "trip_end": "ended",
    "trip_cancel": "cancelled",
}
"""MDS event types taken as aliases."""


class Position(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Where in Kafka a record is."""

    topic: str
    partition: int
    offset: int


class RideEvent(
    msgspec.Struct,
    frozen=True,
    gc=False,
    omit_defaults=True,
    rename={
        "kind": "k",
        "source": "s",
        "id": "i",
        "time": "t",
        "session_id": "n",
        "position": "p",
        "agreement_id": "ag",
        "tariff_id": "ta",
        "tariff_version": "tv",
        "coupon_id": "co",
        "vehicle_id": "ve",
        "vehicle_type": "vt",
        "location": "lo",
        "billable": "bi",
        "purpose": "pu",
        "reason": "re",
        "distance": "di",
        "parking_category": "pc",
        "zone_fees": "zf",
        "corrected_start": "cs",
        "corrected_end": "ce",
        "adjustment": "ad",
    },
):
    """One thing that happened to a ride. Instants are UTC, `distance` is metres; `by` is who decided a correction,
    where the operator says so. Short names are for stored events."""

    kind: Kind
    source: str
    id: str
    time: datetime
    session_id: str
    position: Position
    agreement_id: str | None = None
    tariff_id: str | None = None
    tariff_version: int | None = None
    coupon_id: str | None = None
    vehicle_id: str | None = None
    vehicle_type: str | None = None
    location: Location | None = None
    billable: bool = True
    purpose: str | None = None
    reason: str | None = None
    distance: int | None = None
    parking_category: str | None = None
    zone_fees: tuple[str, ...] | None = None
    corrected_start: datetime | None = None
    corrected_end: datetime | None = None
    adjustment: Adjustment | None = None
    by: str | None = None


class Malformed(msgspec.Struct, frozen=True, gc=False):
    """A record for the quarantine: the reason in words (none of the record's values) and the path of the culprit.

    Paths look like `$.data.distance`, `$.time`, `headers.ce_time`, `key`.
    """

    reason: str
    path: str


def decode(record: RawRecord) -> RideEvent | Malformed | Skipped:
    """What the record says. Any bytes are answered, none raise."""
    try:
        envelope = open_envelope(record, _SHAPES)
        if isinstance(envelope, Skipped):
            return envelope
        return _ride_event(record, envelope)
    except MalformedEventError as error:
        return Malformed(error.reason, error.path)


def content(event: RideEvent) -> tuple[Any, ...]:
    """The decoded known fields of an event as one comparable tuple: all but `source`, `id` and `position`."""
    return _CONTENT(event)


def same_content(a: RideEvent, b: RideEvent) -> bool:
    """Whether two events say the same: equal in every decoded field but `source`, `id` and `position`."""
    return a.time == b.time and content(a) == content(b)


def content_digest(event: RideEvent) -> bytes:
    """16 bytes that are equal exactly when the content is; stable over releases that add optional fields."""
    location = event.location
    if location is not None and not (location.lat and location.lng):
        location = Location(location.lat + 0.0, location.lng + 0.0)  # -0.0 equals 0.0 and is written otherwise.
    bare = msgspec.structs.replace(event, source="", id="", position=_NOWHERE, location=location)
    return blake2b(_ENCODER.encode(bare), digest_size=16).digest()


def encode_events(events: tuple[RideEvent, ...]) -> bytes:
    """The events as compact JSON for a row, positions included; `decode_events` gives back exactly these."""
    return _ENCODER.encode(events)


def decode_events(text: bytes) -> tuple[RideEvent, ...]:
    """The events of a row written by `encode_events`; other text raises msgspec.DecodeError."""
    return _STORED.decode(text)


def _ride_event(record: RawRecord, envelope: Envelope) -> RideEvent:
    kind, decoder = _SHAPES[envelope.type]
    data: RideData = decode_json(decoder, envelope.data, "$.data")
    session_id = data.session_id
    if session_id is None or data.trip_id is not None or data.trip_ids is not None:
        session_id = _session_id(data)
    if not is_id(session_id, SESSION_ID_MAX):
        raise MalformedEventError("a session id is 1 to 64 visible characters", "$.data.session_id")
    _check_same_session(session_id, record.key, envelope)
    event = (
        kind,
        envelope.source,
        envelope.id,
        envelope.time or _time_of(data, envelope),
        session_id,
        Position(record.topic, record.partition, record.offset),
        data.agreement_id,
        data.tariff_id,
        data.tariff_version,
        data.coupon_id,
        data.vehicle_id or data.device_id,
        data.vehicle_type,
        data.location,
        data.billable,
        data.purpose,
        data.reason,
    )
    if type(data) is Ended:
        return RideEvent(*event, data.distance, data.parking_category, data.zone_fees or None)
    if type(data) is Corrected:
        start = data.started_at and in_calendar(utc, data.started_at, "$.data.started_at")
        end = data.ended_at and in_calendar(utc, data.ended_at, "$.data.ended_at")
        return RideEvent(*event, data.distance, data.parking_category, data.zone_fees, start, end)
    return RideEvent(*event)


def _check_same_session(session_id: str, key: bytes | None, envelope: Envelope) -> None:
    """The key decides the partition and so the order: an event under another ride's key is refused."""
    if key != session_id.encode():
        raise MalformedEventError("the Kafka key is not the session id", "key")
    if envelope.subject is not None and envelope.subject != session_id:
        raise MalformedEventError("the subject is not the session id", f"{envelope.at}subject")
    if envelope.partitionkey is not None and envelope.partitionkey != session_id:
        raise MalformedEventError("the partitionkey is not the session id", f"{envelope.at}partitionkey")


def _session_id(data: RideData) -> str:
    """The ride's id under its own name or one of MDS; two names must agree."""
    names = {data.session_id, data.trip_id, *(data.trip_ids or ())} - {None}
    if not names:
        raise MalformedEventError("the field is missing", "$.data.session_id")
    if len(names) > 1:
        raise MalformedEventError("session_id and trip_id are not the same", "$.data.trip_id")
    return str(names.pop())


def _time_of(data: RideData, envelope: Envelope) -> datetime:
    """The time of an event without the `time` attribute: the `timestamp` of an MDS event; ours must have a `time`."""
    if envelope.type not in MDS_TYPES or data.timestamp is None:
        raise MalformedEventError("the time is missing", f"{envelope.at}time")
    return in_calendar(of_ms, data.timestamp, "$.data.timestamp")


_NOWHERE = Position("", 0, 0)
_ENCODER = msgspec.json.Encoder()
_STORED = msgspec.json.Decoder(tuple[RideEvent, ...])
_SHAPES: dict[str, tuple[Kind, msgspec.json.Decoder[Any]]] = {
    EVENT_TYPES[kind]: (kind, msgspec.json.Decoder(shape)) for kind, shape in DATA_TYPES.items()
}
_SHAPES.update({alias: _SHAPES[EVENT_TYPES[kind]] for alias, kind in MDS_TYPES.items()})
_CONTENT = attrgetter(*(name for name in RideEvent.__struct_fields__ if name not in {"source", "id", "position"}))
