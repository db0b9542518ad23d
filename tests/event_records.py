"""Records of `rental.sessions` for the event tests: a good one of each kind, and ways to spoil it."""

import json
from typing import Any

from service.billing.events import RawRecord

SESSION = "5c1f2b7e-90c6-4a6e-8a44-2f0e8b0d9a11"
STRUCTURED = "application/cloudevents+json; charset=UTF-8"
DATA: dict[str, Any] = {
    "session_id": SESSION,
    "agreement_id": "agr-1",
    "tariff_id": "bike-std",
    "tariff_version": 3,
    "vehicle_id": "veh-7",
    "vehicle_type": "bicycle",
    "location": {"lat": 31.2304, "lng": 121.4737},
    "distance": 2345,
    "parking_category": "rack",
    "zone_fees": ["OUT"],
}
ATTRIBUTES: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "urn:mds:provider:5c1f",
    "type": "io.farebox.session.ended.v1",
    "time": "2026-11-22T11:04:05.123456+08:00",
    "subject": SESSION,
    "partitionkey": SESSION,
}


def ride_data(**changes: Any) -> dict[str, Any]:
    """Good data with fields changed; `...` removes one."""
    return {name: value for name, value in {**DATA, **changes}.items() if value is not ...}


def attributes(**changes: Any) -> dict[str, Any]:
    """Good attributes with some changed; `...` removes one."""
    return {name: value for name, value in {**ATTRIBUTES, **changes}.items() if value is not ...}


def binary(
    data: Any = DATA,
    *,
    value: bytes | None = None,
    key: bytes | None = SESSION.encode(),
    extra: tuple[tuple[str, bytes], ...] = (),
    **changes: Any,
) -> RawRecord:
    """A binary-mode record; `value` stands in for the JSON of `data`."""
    headers = [
        (f"ce_{name}", text if isinstance(text, bytes) else str(text).encode())
        for name, text in attributes(**changes).items()
    ]
    headers.append(("content-type", b"application/json"))
    body = json.dumps(data).encode() if value is None else value
    return RawRecord("rental.sessions", 3, 41, 0, key, body, (*headers, *extra))


def structured(
    data: Any = DATA,
    *,
    value: bytes | None = None,
    key: bytes | None = SESSION.encode(),
    content_type: str = STRUCTURED,
    **changes: Any,
) -> RawRecord:
    """A structured-mode record; `value` stands in for the whole event."""
    event = attributes(data=data, **changes)
    body = json.dumps(event).encode() if value is None else value
    return RawRecord("rental.sessions", 3, 41, 0, key, body, (("content-type", content_type.encode()),))
