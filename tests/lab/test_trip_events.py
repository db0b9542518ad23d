"""The trips of an export as ride events."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.billing.events import Location, RawRecord, RideEvent, decode
from service.lab.replay import Trip
from service.lab.trip_events import SOURCE, TripRecord, deliveries, trip_records

AGREEMENTS = ("a", "b", "c")
T0 = datetime(2026, 3, 2, 8, tzinfo=UTC)


def trip(session_id: str = "R1", seconds: int = 60, meters: int = 0, row: dict[str, str] | None = None) -> Trip:
    return Trip(session_id, T0, T0 + timedelta(seconds=seconds), meters, row or {})


def decoded(record: TripRecord) -> RideEvent:
    event = decode(RawRecord("rides", 0, 0, 0, record.key, record.value, tuple(record.headers)))
    assert isinstance(event, RideEvent)
    return event


def test_a_trip_is_its_start_and_its_end() -> None:
    row = {"rideable_type": "bike", "start_lat": "40.7", "start_lng": "-74", "end_lat": "40.8", "end_lng": ""}
    started, ended = map(decoded, trip_records([trip(meters=1200, row=row)], "t", ["a"]))
    assert (started.kind, started.id, started.time, started.location) == (
        "started",
        "R1/started",
        T0,
        Location(40.7, -74),
    )
    assert (ended.kind, ended.id, ended.distance, ended.location) == ("ended", "R1/ended", 1200, None)
    for event in (started, ended):
        assert (event.source, event.session_id, event.agreement_id, event.tariff_id) == (SOURCE, "R1", "a", "t")
        assert event.vehicle_type == "bike"


@pytest.mark.parametrize("place", [("north", "1"), ("91", "0"), ("0", "181"), ("nan", "0"), ("", "")])
def test_a_place_that_is_none_is_left_out(place: tuple[str, str]) -> None:
    started, _ = trip_records([trip(row={"start_lat": place[0], "start_lng": place[1]})], "t", ["a"])
    assert decoded(started).location is None


def test_events_come_in_the_order_of_their_times() -> None:
    records = trip_records([trip("R1", 600), trip("R2", 60), trip("R3", -60)], "t", AGREEMENTS)
    assert [record.at for record in records] == sorted(record.at for record in records)
    assert decoded(records[0]).id == "R3/ended"


def test_the_same_file_again_is_the_same_events_again() -> None:
    trips = [trip(f"R{number}") for number in range(50)]
    assert trip_records(trips, "t", AGREEMENTS) == trip_records(trips, "t", AGREEMENTS)
    assert {decoded(record).agreement_id for record in trip_records(trips, "t", AGREEMENTS)} == set(AGREEMENTS)
    by_ride = {(event.session_id, event.agreement_id) for event in map(decoded, trip_records(trips, "t", AGREEMENTS))}
    assert len(by_ride) == len(trips)


@given(st.integers(0, 20), st.booleans(), st.none() | st.integers(0, 9))
def test_a_delivery_has_every_record_as_often_as_was_asked(count: int, twice: bool, shuffle: int | None) -> None:
    records = trip_records([trip(f"R{number}") for number in range(count)], "t", AGREEMENTS)
    delivered = deliveries(records, twice=twice, shuffle=shuffle)
    times = Counter(dict(record.headers)["ce_id"] for record in delivered)
    assert len(delivered) == len(records) * (2 if twice else 1)
    assert set(times.values()) <= {2 if twice else 1}
    assert delivered == deliveries(records, twice=twice, shuffle=shuffle)
    if shuffle is None and not twice:
        assert delivered == records
