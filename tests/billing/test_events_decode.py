"""What a record of `rental.sessions` decodes to, and what each difficult one gets."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from event_records import DATA, SESSION, binary, ride_data, structured

from service.billing.events import Location, Malformed, Position, RawRecord, RideEvent, Skipped, content, decode
from service.billing.events.cloudevents import PACKED_BATCH, source_of

EVENT = RideEvent(
    kind="ended",
    source="urn:mds:provider:5c1f",
    id="e-1",
    time=datetime(2026, 11, 22, 3, 4, 5, 123456, UTC),
    session_id=SESSION,
    position=Position("rental.sessions", 3, 41),
    agreement_id="agr-1",
    tariff_id="bike-std",
    tariff_version=3,
    vehicle_id="veh-7",
    vehicle_type="bicycle",
    location=Location(31.2304, 121.4737),
    distance=2345,
    parking_category="rack",
    zone_fees=("OUT",),
)
LIKE = msgspec.structs.replace


def replaced_headers(record: RawRecord, **headers: bytes | None) -> RawRecord:
    """The record with these headers; without those that are None."""
    told = {name: value for name, value in {**dict(record.headers), **headers}.items() if value is not None}
    return msgspec.structs.replace(record, headers=tuple(told.items()))


def replaced(record: RawRecord, **changes: Any) -> RawRecord:
    return msgspec.structs.replace(record, **changes)


NAMES_NONE = {
    "no header": replaced_headers(binary(), ce_source=None),
    "two headers": msgspec.structs.replace(binary(), headers=(*binary().headers, ("ce_source", b"urn:other"))),
    "an empty header": replaced_headers(binary(), ce_source=b""),
    "no UTF-8": replaced_headers(binary(), ce_source=b"\xff"),
    "more than a line": replaced_headers(binary(), ce_source=b"urn:a\nurn:b"),
    "longer than an attribute may be": replaced_headers(binary(), ce_source=b"u" * 10_000),
    "no JSON": msgspec.structs.replace(structured(), value=b"{"),
    "a source that is no text": msgspec.structs.replace(structured(), value=b'{"source": 7}'),
    "a NUL": msgspec.structs.replace(structured(), value=b'{"source": "u\\u0000rn"}'),
    "a batch of Kafka's": replaced_headers(structured(), **{"content-type": PACKED_BATCH}),
    "deep JSON": msgspec.structs.replace(structured(), value=b'{"a":' * 100_000),
    "nothing": RawRecord("t", 0, 0, 0, None, None, ()),
}


@pytest.mark.parametrize("what", NAMES_NONE)
def test_who_a_record_is_of_is_not_guessed(what: str) -> None:
    assert source_of(NAMES_NONE[what]) is None


@pytest.mark.parametrize("mode", [binary, structured])
def test_a_record_that_cant_be_taken_says_whose_it_is_as_far_as_that_can_be_read(mode: Any) -> None:
    for broken in (mode(time="yesterday"), mode(id=""), mode(data=ride_data(vehicle_id=17))):
        assert isinstance(decode(broken), Malformed)
        assert source_of(broken) == "urn:mds:provider:5c1f"


@pytest.mark.parametrize("mode", [binary, structured])
def test_both_modes_say_the_same(mode: Any) -> None:
    assert decode(mode()) == EVENT


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("started", {}),
        ("paused", {}),
        ("resumed", {}),
        ("ended", {"distance": 2345, "parking_category": "rack", "zone_fees": ("OUT",)}),
        ("cancelled", {}),
        ("corrected", {"distance": 2345, "parking_category": "rack", "zone_fees": ("OUT",)}),
        ("voided", {}),
        ("reservation_started", {}),
        ("reservation_cancelled", {}),
    ],
)
def test_every_kind_is_read_under_its_own_type(kind: Any, expected: dict[str, Any]) -> None:
    bare = LIKE(EVENT, kind=kind, distance=None, parking_category=None, zone_fees=None)
    assert decode(binary(type=f"io.farebox.session.{kind}.v1")) == LIKE(bare, **expected)


@pytest.mark.parametrize(
    ("alias", "kind"),
    [
        ("trip_start", "started"),
        ("trip_end", "ended"),
        ("trip_pause", "paused"),
        ("trip_stop", "paused"),
        ("trip_resume", "resumed"),
        ("trip_cancel", "cancelled"),
    ],
)
def test_mds_words_are_taken_as_aliases(alias: str, kind: str) -> None:
    data = ride_data(
        session_id=..., trip_id=SESSION, vehicle_id=..., device_id="dev-1", timestamp=1795316645123, provider_id="5c1f"
    )
    event = decode(binary(data, type=alias, time=...))
    assert isinstance(event, RideEvent)
    assert (event.kind, event.session_id, event.vehicle_id) == (kind, SESSION, "dev-1")
    assert event.time == datetime(2026, 11, 22, 3, 4, 5, 123000, UTC)
    assert event.source == "urn:mds:provider:5c1f"


@pytest.mark.parametrize(
    ("mds", "session_id"),
    [({"trip_ids": [SESSION]}, ...), ({"trip_id": SESSION}, SESSION), ({"trip_id": None}, SESSION)],
)
def test_the_session_may_have_its_mds_name(mds: dict[str, Any], session_id: Any) -> None:
    assert decode(binary(ride_data(session_id=session_id, **mds))) == EVENT


def test_the_time_attribute_wins_over_the_timestamp() -> None:
    assert decode(binary(ride_data(timestamp=1), type="trip_end")) == EVENT


def test_a_correction_carries_the_true_times_in_utc() -> None:
    data = ride_data(
        started_at="2026-11-22T10:00:00+08:00", ended_at="2026-11-22T02:30:00.5Z", reason="clock was wrong"
    )
    event = decode(binary(data, type="io.farebox.session.corrected.v1"))
    assert isinstance(event, RideEvent)
    assert event.corrected_start == datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
    assert event.corrected_end == datetime(2026, 11, 22, 2, 30, 0, 500000, UTC)
    assert event.reason == "clock was wrong"


@pytest.mark.parametrize(
    "record",
    [
        binary(ride_data(battery=88, nested={"deep": [1, {"x": None}]})),
        binary(colour="blue"),
        binary(subject=..., partitionkey=...),
        binary(time="2026-11-22T03:04:05.123456Z"),
        binary(time="2026-11-21T22:04:05.123456-05:00"),
        binary(ride_data(coupon_id=None, purpose=None)),
        binary(extra=(("traceparent", b"00-1"), ("traceparent", b"00-2"))),
        structured(content_type="application/cloudevents"),
        structured(content_type="Application/CloudEvents+JSON"),
        structured(datacontenttype="application/vnd.mds+json; version=2.0"),
        structured(..., data_base64=base64.b64encode(json.dumps(DATA).encode()).decode()),
        structured(colour="blue", time="2026-11-22T03:04:05.123456Z"),
    ],
)
def test_what_does_not_matter_changes_nothing(record: RawRecord) -> None:
    assert decode(record) == EVENT


@pytest.mark.parametrize("distance", [-1, 0, 2**63 - 1, -(2**63), None])
def test_a_distance_the_rules_must_judge_is_let_through(distance: int | None) -> None:
    assert decode(binary(ride_data(distance=distance))) == LIKE(EVENT, distance=distance)


@pytest.mark.parametrize("session", ["x", "骑行-1", "a" * 64, "~!@#$%^&*()"])
def test_a_session_id_is_any_1_to_64_visible_characters(session: str) -> None:
    record = binary(ride_data(session_id=session), key=session.encode(), subject=session, partitionkey=session)
    assert decode(record) == LIKE(EVENT, session_id=session)


@pytest.mark.parametrize(
    "record",
    [
        binary(type="io.farebox.session.started.v2"),
        binary(type="io.farebox.session.started.v2", value=b"not json", id=..., specversion="7"),
        binary(type="com.example.bell_rung", value=b"", key=None, time="yesterday"),
        structured(type="com.example.bell_rung", id=7),
        structured(type="com.example.bell_rung", time="yesterday", data="text"),
    ],
)
def test_a_strange_type_is_skipped_and_never_an_error(record: RawRecord) -> None:
    assert isinstance(decode(record), Skipped)


BAD_HEADERS: list[tuple[RawRecord, str, str]] = [
    (binary(type=...), "missing or empty", "headers.ce_type"),
    (binary(id=...), "missing or empty", "headers.ce_id"),
    (binary(id=""), "missing or empty", "headers.ce_id"),
    (binary(source=...), "missing or empty", "headers.ce_source"),
    (binary(source="s" * 257), "longer than 256", "headers.ce_source"),
    (binary(specversion=...), "must be 1.0", "headers.ce_specversion"),
    (binary(specversion="0.3"), "must be 1.0", "headers.ce_specversion"),
    (binary(time=...), "time is missing", "headers.ce_time"),
    (binary(time="2026-11-22T11:04:05"), "no offset", "headers.ce_time"),
    (binary(time="2026-11-22 11:04:05.5"), "no offset", "headers.ce_time"),
    (binary(time="2026-12-31T23:59:60Z"), "leap second", "headers.ce_time"),
    (binary(time="yesterday"), "RFC 3339", "headers.ce_time"),
    (binary(time="20261122T110405Z"), "RFC 3339", "headers.ce_time"),
    (binary(time='2026-11-22T11:04:05Z","x'), "RFC 3339", "headers.ce_time"),
    (binary(time=b"\xff"), "RFC 3339", "headers.ce_time"),
    (binary(time="0001-01-01T00:00:00+05:00"), "outside the years", "headers.ce_time"),
    (binary(time="9999-12-31T23:59:59-05:00"), "outside the years", "headers.ce_time"),
    (binary(time="2199-12-31T23:59:59-00:01"), "outside the years 1970 to 2199", "headers.ce_time"),
    (binary(time="1970-01-01T00:00:00+00:01"), "outside the years 1970 to 2199", "headers.ce_time"),
    (binary(id=b"e\x001"), "NUL", "headers.ce_id"),
    (binary(source=b"\xff\xfe"), "UTF-8 at byte 0", "headers.ce_source"),
    (binary(extra=(("ce_id", b"e-2"),)), "more than once", "headers.ce_id"),
    (binary(extra=(("ce_type", b"com.example.other"),)), "more than once", "headers.ce_type"),
    (binary(extra=(("ce_x\x1b\x00", b"1"), ("ce_x\x1b\x00", b"2"))), "more than once", "headers.ce_x\\x1b\\x00"),
    (binary(extra=(("content-type", b"text/plain"),)), "more than once", "headers.content-type"),
    (binary(subject="another"), "not the session id", "headers.ce_subject"),
    (binary(partitionkey="another"), "not the session id", "headers.ce_partitionkey"),
    (binary(key=b"another"), "not the session id", "key"),
    (binary(key=None), "not the session id", "key"),
    (binary(key=b"\xff"), "not the session id", "key"),
    (RawRecord("t", 0, 0, 0, None, b"{}", ()), "missing or empty", "headers.ce_type"),
    (RawRecord("t", 0, 0, 0, None, b'{"specversion": "1.0"}', ()), "needs the header", "headers.content-type"),
    (structured(content_type="application/cloudevents-batch+json"), "batch", "headers.content-type"),
    (structured(content_type="application/cloudevents+avro"), "structured formats", "headers.content-type"),
    (
        replaced(binary(), headers=(*binary().headers[:-1], ("content-type", b"application/avro"))),
        "must be JSON",
        "headers.content-type",
    ),
]
BAD_VALUES: list[tuple[RawRecord, str, str]] = [
    (replaced(binary(), value=None), "no value", "$.data"),
    (binary(value=b""), "no value", "$.data"),
    (binary(value=b"not json"), "not JSON", "$.data"),
    (binary(value=b'{"session_id":'), "not JSON", "$.data"),
    (binary(value=json.dumps(DATA).encode() + b" {}"), "not JSON", "$.data"),
    (binary(value=b"[]"), "expected object, got array", "$.data"),
    (binary(value=b'{"x":"\xff"}'), "UTF-8 at byte 6", "$.data"),
    (binary(value=b'{"distance":NaN}'), "not JSON", "$.data"),
    (binary(value=b'{"x":-Infinity}'), "not JSON", "$.data"),
    (binary(value=b'{"vehicle_id":"\\ud800"}'), "not JSON", "$.data"),
    (binary(value=b'{"location":{"lat":1e999}}'), "out of range", "$.data.location.lat"),
    (binary(value=b'{"x":' + b"[" * 400_000), "too deep", "$.data"),
    (binary(value=b'{"x":"\\u0000","y":' + b"[" * 400_000), "too deep", "$.data"),
    (binary(value=b'{"x":"' + b"a" * 1_000_000 + b'"}'), "larger than 1000000 bytes", "value"),
    (binary(ride_data(session_id=...)), "missing", "$.data.session_id"),
    (binary(ride_data(session_id=None)), "missing", "$.data.session_id"),
    (binary(ride_data(session_id=7)), "expected str", "$.data.session_id"),
    (binary(ride_data(session_id="")), "length >= 1", "$.data.session_id"),
    (binary(ride_data(session_id="a" * 65)), "length <= 64", "$.data.session_id"),
    (binary(ride_data(session_id="a b")), "visible", "$.data.session_id"),
    (binary(ride_data(session_id="a\u200b")), "visible", "$.data.session_id"),
    (binary(ride_data(session_id="a\n")), "visible", "$.data.session_id"),
    (binary(ride_data(trip_id="another")), "not the same", "$.data.trip_id"),
    (binary(ride_data(trip_ids=["a", "b"])), "length <= 1", "$.data.trip_ids"),
    (binary(ride_data(agreement_id=...)), "missing", "$.data.agreement_id"),
    (binary(ride_data(agreement_id=None)), "expected str, got null", "$.data.agreement_id"),
    (binary(ride_data(agreement_id="")), "length >= 1", "$.data.agreement_id"),
    (binary(ride_data(tariff_id=...)), "missing", "$.data.tariff_id"),
    (binary(ride_data(tariff_id=...), type="io.farebox.session.started.v1"), "missing", "$.data.tariff_id"),
    (binary(ride_data(tariff_version=2**31)), "<= 2147483647", "$.data.tariff_version"),
    (binary(ride_data(tariff_version=-1)), ">= 0", "$.data.tariff_version"),
    (binary(ride_data(distance="2345")), "got str", "$.data.distance"),
    (binary(ride_data(distance=1.5)), "got float", "$.data.distance"),
    (binary(ride_data(distance=True)), "got bool", "$.data.distance"),
    (binary(ride_data(distance=2**63)), "<= 9223372036854775807", "$.data.distance"),
    (binary(ride_data(distance=-(2**63) - 1)), ">= -9223372036854775808", "$.data.distance"),
    (binary(ride_data(distance=10**400)), "", "$.data.distance"),
    (binary(ride_data(timestamp=2**70)), "<= 9223372036854775807", "$.data.timestamp"),
    (binary(ride_data(timestamp=2**62), type="trip_end", time=...), "outside the years", "$.data.timestamp"),
    (binary(type="trip_end", time=...), "time is missing", "headers.ce_time"),
    (binary(ride_data(billable="no")), "expected bool", "$.data.billable"),
    (binary(ride_data(location={"lat": 1})), "missing", "$.data.location.lng"),
    (binary(ride_data(location={"lat": 91, "lng": 0})), "<= 90", "$.data.location.lat"),
    (binary(ride_data(parking_category="roof of Mr Li")), "allowed are corral, curb", "$.data.parking_category"),
    (binary(ride_data(zone_fees=["A", 7])), "expected str", "$.data.zone_fees[1]"),
    (binary(ride_data(zone_fees="A")), "expected array", "$.data.zone_fees"),
    (binary(ride_data(vehicle_id="v\0")), "NUL", "$.data.vehicle_id"),
    (binary(ride_data(zone_fees=["A", "\0"])), "NUL", "$.data.zone_fees[1]"),
    (binary(ride_data(notes={"x": [1, "a\0b"]})), "NUL", "$.data.notes.x[1]"),
    (
        binary(ride_data(started_at="2026-11-22T10:00:00"), type="io.farebox.session.corrected.v1"),
        "no offset",
        "$.data.started_at",
    ),
    (
        binary(ride_data(ended_at="0001-01-01T00:00:00+05:00"), type="io.farebox.session.corrected.v1"),
        "outside the years",
        "$.data.ended_at",
    ),
]
BAD_ENVELOPES: list[tuple[RawRecord, str, str]] = [
    (replaced(structured(), value=None), "no value", "$"),
    (structured(value=b"not json"), "not JSON", "$"),
    (structured(value=b"\xff"), "UTF-8 at byte 0", "$"),
    (structured(value=b"[" * 400_000), "expected object", "$"),
    (structured(value=b'{"data":' + b"[" * 400_000), "too deep", "$"),
    (structured(type=...), "missing", "$.type"),
    (structured(id=...), "missing", "$.id"),
    (structured(id=7), "expected str", "$.id"),
    (structured(source=""), "length >= 1", "$.source"),
    (structured(specversion="0.3"), "must be 1.0", "$.specversion"),
    (structured(time=...), "time is missing", "$.time"),
    (structured(time="2026-11-22T11:04:05"), "no offset", "$.time"),
    (structured(time="2026-12-31T23:59:60Z"), "leap second", "$.time"),
    (structured(time="9999-12-31T23:59:59-05:00"), "outside the years", "$.time"),
    (structured(id="e\0"), "NUL", "$.id"),
    (structured(ride_data(vehicle_id="v\0")), "NUL", "$.data.vehicle_id"),
    (structured(ride_data(distance="x")), "got str", "$.data.distance"),
    (structured(...), "no data", "$.data"),
    (structured(None), "expected object, got null", "$.data"),
    (structured(data_base64="e30="), "both there", "$.data_base64"),
    (structured(..., data_base64="???"), "not base64", "$.data_base64"),
    (structured(..., data_base64="/w=="), "UTF-8 at byte 0", "$.data"),
    (structured(datacontenttype="text/plain"), "must be JSON", "$.datacontenttype"),
    (structured(subject="another"), "not the session id", "$.subject"),
    (structured(partitionkey="another"), "not the session id", "$.partitionkey"),
    (structured(key=b"another"), "not the session id", "key"),
]


@pytest.mark.parametrize(
    ("record", "reason", "path"),
    [
        pytest.param(*case, id=f"{case[2]}-{number}")
        for number, case in enumerate([*BAD_HEADERS, *BAD_VALUES, *BAD_ENVELOPES])
    ],
)
def test_a_record_that_cannot_be_an_event_is_refused_with_reason_and_path(
    record: RawRecord, reason: str, path: str
) -> None:
    refused = decode(record)
    assert isinstance(refused, Malformed)
    assert reason in refused.reason
    assert refused.path == path


def test_a_refusal_repeats_no_value_of_the_record() -> None:
    for record, _, _ in [*BAD_HEADERS, *BAD_VALUES, *BAD_ENVELOPES]:
        refused = decode(record)
        assert isinstance(refused, Malformed)
        assert not any(word in refused.reason for word in ("Mr Li", "yesterday", "another", "2345", "roof", SESSION))


def test_an_escaped_backslash_before_u0000_is_not_a_nul() -> None:
    event = decode(binary(ride_data(vehicle_id="\\u0000")))
    assert isinstance(event, RideEvent)
    assert event.vehicle_id == "\\u0000"


def test_content_is_everything_but_source_id_and_position() -> None:
    other = decode(replaced(structured(source="urn:other", id="e-9"), offset=99))
    assert isinstance(other, RideEvent)
    assert content(other) == content(EVENT)
    assert other != EVENT
