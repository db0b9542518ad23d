"""Ride events under any input: decoding is total, storing is exact, and the CloudEvents SDK agrees."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from event_records import ATTRIBUTES, DATA, SESSION, binary, ride_data, structured
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from service.billing.events import (
    EVENT_TYPES,
    Kind,
    Location,
    Malformed,
    Position,
    RawRecord,
    RideEvent,
    Skipped,
    content,
    content_digest,
    decode,
    decode_events,
    encode_events,
    same_content,
)

INT8 = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
SESSIONS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=64).filter(str.isprintable)
ZONES = st.integers(-24 * 60 + 1, 24 * 60 - 1).map(lambda minutes: timezone(timedelta(minutes=minutes)))
INSTANTS = st.datetimes(datetime(1970, 1, 2), datetime(2199, 12, 30), timezones=ZONES)  # noqa: DTZ001  Hypothesis adds the zone.
UTC_INSTANTS = INSTANTS.map(lambda instant: instant.astimezone(UTC))
EVENTS = st.builds(
    RideEvent,
    kind=st.sampled_from(list(EVENT_TYPES)),
    source=TEXTS,
    id=TEXTS,
    time=UTC_INSTANTS,
    session_id=SESSIONS,
    position=st.builds(Position, TEXTS, st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1)),
    agreement_id=TEXTS,
    tariff_id=TEXTS,
    tariff_version=st.none() | st.integers(0, 2**31 - 1),
    coupon_id=st.none() | TEXTS,
    vehicle_id=st.none() | TEXTS,
    vehicle_type=st.none() | TEXTS,
    location=st.none() | st.builds(Location, st.floats(-90, 90), st.floats(-180, 180)),
    billable=st.booleans(),
    purpose=st.none() | TEXTS,
    reason=st.none() | TEXTS,
    distance=st.none() | INT8,
    parking_category=st.sampled_from([None, "corral", "curb", "rack", "other_valid", "invalid"]),
    zone_fees=st.lists(TEXTS, max_size=4).map(tuple),
    corrected_start=st.none() | UTC_INSTANTS,
    corrected_end=st.none() | UTC_INSTANTS,
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=6,
)
HEADER_NAMES = st.sampled_from([f"ce_{name}" for name in ATTRIBUTES] + ["content-type", "x"])
HEADER_VALUES = st.binary(max_size=20) | st.sampled_from(
    [b"1.0", b"trip_end", b"io.farebox.session.started.v1", b"2026-11-22T03:04:05Z", b"application/cloudevents+json"]
)


def is_an_answer(answer: RideEvent | Malformed | Skipped) -> bool:
    return isinstance(answer, RideEvent | Malformed | Skipped)


@given(
    st.builds(
        RawRecord,
        topic=st.just("rental.sessions"),
        partition=st.just(0),
        offset=st.just(0),
        timestamp_ms=st.just(0),
        key=st.none() | st.binary(max_size=70),
        value=st.none() | st.binary(),
        headers=st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=10).map(tuple),
    )
)
def test_any_record_is_answered_and_none_raises(record: RawRecord) -> None:
    assert is_an_answer(decode(record))


@given(st.sampled_from([*DATA, "timestamp", "billable", "trip_id", "coupon_id", "unknown"]), JSON_VALUES)
def test_any_json_in_any_field_is_answered_alike_in_both_modes(field: str, value: Any) -> None:
    data = ride_data(**{field: value})
    one, other = decode(binary(data)), decode(structured(data))
    assert is_an_answer(one)
    assert type(one) is type(other)


@given(st.binary(), st.binary(min_size=1, max_size=3), st.integers(0, 500))
def test_a_damaged_structured_event_is_answered(tail: bytes, splice: bytes, at: int) -> None:
    value = structured().value or b""
    assert is_an_answer(decode(structured(value=value[:at] + splice + value[at + 1 :])))
    assert is_an_answer(decode(structured(value=value[:at] + tail)))


@given(st.lists(EVENTS, max_size=5).map(tuple))
def test_stored_events_come_back_exactly(events: tuple[RideEvent, ...]) -> None:
    text = encode_events(events)
    assert decode_events(text) == events
    assert b"\0" not in text
    assert all(event.time.tzinfo is UTC for event in decode_events(text))


def as_data(event: RideEvent) -> dict[str, Any]:
    """The data a producer would have sent for `event`."""
    fields = {name: getattr(event, name) for name in event.__struct_fields__ if name in {*DATA, "coupon_id", "reason"}}
    place = event.location
    return {
        **fields,
        "billable": event.billable,
        "purpose": event.purpose,
        "location": None if place is None else {"lat": place.lat, "lng": place.lng},
        "started_at": None if event.corrected_start is None else event.corrected_start.isoformat(),
        "ended_at": None if event.corrected_end is None else event.corrected_end.isoformat(),
    }


def as_record(message: KafkaMessage, event: RideEvent) -> RawRecord:
    key = message.key.encode() if isinstance(message.key, str) else message.key
    place = event.position
    headers = tuple(message.headers.items())
    return RawRecord(place.topic, place.partition, place.offset, 0, key, message.value, headers)


@pytest.mark.parametrize("bind", [to_binary, to_structured])
@given(event=EVENTS, zone=ZONES)
def test_what_the_cloudevents_sdk_writes_is_read_back(bind: Any, event: RideEvent, zone: timezone) -> None:
    kind: Kind = event.kind
    if kind != "corrected":
        event = replace(event, corrected_start=None, corrected_end=None, zone_fees=event.zone_fees or None)
    if kind not in {"corrected", "ended"}:
        event = replace(event, distance=None, parking_category=None, zone_fees=None)
    attributes = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": EVENT_TYPES[kind],
        "time": event.time.astimezone(zone),
        "datacontenttype": "application/json",
        "subject": event.session_id,
        "partitionkey": event.session_id,
    }
    said = replace(event, zone_fees=event.zone_fees or ()) if kind == "ended" else event
    message = bind(CloudEvent(attributes=attributes, data=as_data(said)), JSONFormat())
    assert decode(as_record(message, event)) == event


@given(EVENTS, EVENTS)
def test_content_ignores_who_said_it_and_where(one: RideEvent, other: RideEvent) -> None:
    same = replace(one, source=other.source, id=other.id, position=other.position)
    assert same_content(one, same)
    assert content_digest(one) == content_digest(same)
    assert (
        same_content(one, other) == (content(one) == content(other)) == (content_digest(one) == content_digest(other))
    )
    assert len(content_digest(one)) == 16


@given(EVENTS, st.data())
def test_any_field_changed_is_other_content(event: RideEvent, data: st.DataObject) -> None:
    field = data.draw(
        st.sampled_from([name for name in event.__struct_fields__ if name not in {"source", "id", "position"}])
    )
    other = replace(event, **{field: getattr(data.draw(EVENTS), field)})
    same = getattr(event, field) == getattr(other, field)
    assert same_content(event, other) == same
    assert (content_digest(event) == content_digest(other)) == same


def test_zero_degrees_have_one_digest_whatever_their_sign() -> None:
    event = decode(binary(ride_data(location={"lat": 0.0, "lng": 1.5})))
    other = decode(binary(ride_data(location={"lat": -0.0, "lng": 1.5})))
    assert isinstance(event, RideEvent)
    assert isinstance(other, RideEvent)
    assert same_content(event, other)
    assert content_digest(event) == content_digest(other)


def test_the_digest_of_content_is_the_one_that_was_stored_yesterday() -> None:
    """A change here makes every stored digest wrong: do not change it."""
    event = decode(binary())
    assert isinstance(event, RideEvent)
    assert content_digest(event).hex() == "422974c49fefedf3381445a2e5516f12"


def test_a_stored_event_is_small() -> None:
    event = decode(binary())
    assert isinstance(event, RideEvent)
    assert len(encode_events((event,))) < len(json.dumps(DATA)) + 120
    assert SESSION.encode() in encode_events((event,))
