"""Trips of an export as ride events: two CloudEvents each, published as a rental app would have."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from service.adapters.kafka import RecordSink
from service.billing.events import EVENT_TYPES, Kind
from service.lab.replay import Trip

SOURCE = "urn:farebox:replay"
BATCH = 1000


class TripRecord(NamedTuple):
    """A record for `rental.sessions`, and when the event in it happened."""

    at: datetime
    key: bytes
    headers: list[tuple[str, bytes]]
    value: bytes


def trip_records(trips: Iterable[Trip], tariff_id: str, agreements: Sequence[str]) -> list[TripRecord]:
    """The starts and ends of the trips in the order of their times, each trip charged to one of the agreements.

    An event's id derives from the trip's id and the event's kind, and the agreement from the trip's id: publishing the
    same file again delivers the same events again.
    """
    records: list[TripRecord] = []
    for trip in trips:
        agreement = agreements[zlib.crc32(trip.session_id.encode()) % len(agreements)]
        data = {"session_id": trip.session_id, "agreement_id": agreement, "tariff_id": tariff_id}
        vehicle = {"vehicle_type": trip.row["rideable_type"]} if trip.row.get("rideable_type") else {}
        records.append(_record(trip, "started", trip.started_at, data | vehicle | _location(trip.row, "start")))
        distance = {"distance": trip.meters} if trip.meters else {}
        records.append(_record(trip, "ended", trip.ended_at, data | vehicle | distance | _location(trip.row, "end")))
    return sorted(records, key=lambda record: record.at)


def deliveries(records: Sequence[TripRecord], *, twice: bool, shuffle: int | None) -> list[TripRecord]:
    """The records as they are to be delivered: once or twice, in order or as a seed has it."""
    delivered = list(records) * (2 if twice else 1)
    if shuffle is not None:
        random.Random(shuffle).shuffle(delivered)
    return delivered


async def publish(
    sink: RecordSink, topic: str, records: Sequence[TripRecord], speed: float | None, told: Callable[[int], object]
) -> None:
    """Sends the records in order, as fast as possible or at `speed` × real time; `told` hears how many were sent."""
    loop = asyncio.get_running_loop()
    began, left, sent = loop.time(), iter(records), 0
    while batch := list(islice(left, BATCH if speed is None else 1)):
        if speed is not None:
            due = began + (batch[0].at - records[0].at).total_seconds() / speed
            await asyncio.sleep(max(0.0, due - loop.time()))
        await sink.send([(topic, record.key, record.headers, record.value) for record in batch])
        sent += len(batch)
        told(sent)


def _record(trip: Trip, kind: Kind, at: datetime, data: dict[str, Any]) -> TripRecord:
    key = trip.session_id.encode()
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", f"{trip.session_id}/{kind}".encode()),
        ("ce_source", SOURCE.encode()),
        ("ce_type", EVENT_TYPES[kind].encode()),
        ("ce_time", at.isoformat().encode()),
        ("ce_subject", key),
        ("ce_partitionkey", key),
        ("content-type", b"application/json"),
    ]
    return TripRecord(at, key, headers, msgspec.json.encode(data))


def _location(row: dict[str, str], end: str) -> dict[str, Any]:
    """Where the trip began or ended, if the file says."""
    try:
        lat, lng = float(row.get(f"{end}_lat", "")), float(row.get(f"{end}_lng", ""))
    except ValueError:
        return {}
    return {"location": {"lat": lat, "lng": lng}} if abs(lat) <= 90 and abs(lng) <= 180 else {}
