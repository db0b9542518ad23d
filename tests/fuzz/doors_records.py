"""The doors of the intake: Kafka records in both modes, lines of an events file; and the rides they make."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import msgspec
from event_records import binary, structured
from fuzz_parts import EXAMPLES, Door, filled, in_words, one_of, parts, storable, written
from ride_builders import NOON, OPERATOR, at, catalog

from service.billing.announcements import announce
from service.billing.batch import Arrival, advance, reconsider
from service.billing.catalog import BalanceBook, Catalog
from service.billing.events import (
    Malformed,
    RawRecord,
    RideEvent,
    Skipped,
    content_digest,
    decode,
    decode_events,
    encode_events,
)
from service.billing.events.cloudevents import source_of
from service.billing.events.exports import record_of_line
from service.billing.events.strict_json import TEXT_LENGTH_MAX, MalformedEventError
from service.billing.facts.quarantine import QUARANTINE_PREFIX, RECORD_BYTES_MAX, encode_quarantined, record_bytes
from service.billing.keys import session_key_bytes
from service.billing.rides import Revision, Ride

OURS_BYTES_MAX = 16_000
"""What our own headers may come to: with them a record still fits into the 1,048,588 bytes that a broker takes."""
KEY = b"key"
"""The line of an input that is the record's key; all others are headers."""
WORDS = (
    *(f"ce_{name}" for name in ("specversion", "id", "source", "type", "time", "subject", "partitionkey")),
    *("content-type", "application/cloudevents+json", "application/json", "data_base64", "datacontenttype"),
    *("io.farebox.session.corrected.v1", "io.farebox.session.reservation_started.v1", "trip_pause", "trip_cancel"),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "2026-11-22T03:04:60Z", "1e400", "-0.0", "\\u0000"),
    *("\\ud800", "9223372036854775808", "[[[[[[[[", "null", "\ufeff", "trip_ids", "timestamp", "started_at"),
)


def take(record: RawRecord) -> None:
    """Any record is an event, malformed, or skipped. What is refused is kept so that it is refused again the same way,
    and what is let in can be kept and decided about."""
    answer = decode(record)
    assert decode(record) == answer, "two readings of one record differ"
    match answer:
        case RideEvent():
            _kept(answer)
            _decided(answer)
        case Malformed():
            in_words(answer.reason)
            storable(answer.path)
            assert answer.path, "a refusal without a path"
            storable(source_of(record))
            _replayed(record, answer)
        case Skipped():
            storable(answer.type)


def _kept(event: RideEvent) -> None:
    storable(event)
    text = encode_events((event,))
    assert decode_events(text) == (event,), "an event is read back otherwise than it was stored"
    assert len(content_digest(event)) == 16


def _decided(event: RideEvent) -> None:
    """Alone, when its deadlines are over, and with the other half of its ride: what is decided can be kept and told."""
    rides: dict[bytes, Ride] = {}
    key = session_key_bytes(OPERATOR.operator_id, event.session_id)
    good = {"agreement_id": "agr-1", "tariff_id": "bike", "time": NOON, "tariff_version": None}
    halves = [
        msgspec.structs.replace(event, kind="started", id="s", **good),
        msgspec.structs.replace(event, kind="ended", id="e", **good | {"time": at(20)}),
    ]
    for arrivals in ([event], [halves[0]], [halves[1], event]):
        taken = [Arrival(key, OPERATOR, item) for item in arrivals]
        for revision in advance(rides, taken, _catalog(), BalanceBook(), at(30), lambda: 1).revisions:
            rides[key] = revision.ride
            _told(revision)
        for days in (1, 40, 4_000):
            late = reconsider(rides[key], _catalog(), BalanceBook(), at(days * 1440), "deadline") if rides else None
            if late is not None:
                _told(late)


def _told(revision: Revision) -> None:
    """A revision is a row that PostgreSQL takes, and facts."""
    assert "\0" not in revision.row
    revision.row.encode()
    for fact in announce(revision, at(30)):
        msgspec.json.decode(fact.value)


@cache
def _catalog() -> Catalog:
    return catalog()


def _replayed(record: RawRecord, refused: Malformed) -> None:
    """What goes to the quarantine topic is the record itself behind our own headers, and is refused the same again; of
    one that is too long only those."""
    fact = encode_quarantined(record, refused)
    assert record_bytes(*fact) < RECORD_BYTES_MAX + OURS_BYTES_MAX
    if record_bytes(record.key, record.headers, record.value) > RECORD_BYTES_MAX:
        assert all(name.startswith(QUARANTINE_PREFIX) for name, _ in fact.headers)
        return
    own = tuple((name, value) for name, value in fact.headers if not name.startswith(QUARANTINE_PREFIX))
    theirs = tuple(header for header in record.headers if not header[0].startswith(QUARANTINE_PREFIX))
    assert own == theirs
    again = RawRecord(record.topic, record.partition, record.offset, 0, fact.key, fact.value, own)
    told = decode(again)
    assert isinstance(told, Malformed), f"refused, and taken when it is replayed: {told}"


def enter_headers(data: bytes) -> None:
    """A record by its key, its headers and its value."""
    pairs, value = parts(data)
    key = one_of(pairs, KEY) if any(name == KEY for name, _ in pairs) else None
    headers = tuple((name.decode("utf-8", "replace"), text) for name, text in pairs if name != KEY)
    take(RawRecord("rental.sessions", 0, 7, 0, key, value, headers))


def enter_structured(data: bytes) -> None:
    """A structured CloudEvent under the key that the seeds have."""
    take(RawRecord("rental.sessions", 0, 7, 0, _session(), data, (("content-type", b"application/cloudevents+json"),)))


def enter_data(data: bytes) -> None:
    """The data of a binary-mode event; the first letter says of which kind."""
    kinds = ("started", "ended", "corrected", "paused", "cancelled", "voided", "reservation_started")
    kind = kinds[data[0] % len(kinds)] if data else "ended"
    take(binary(value=data[1:], type=f"io.farebox.session.{kind}.v1"))


def enter_line(data: bytes) -> None:
    """A line of an events file, as `farebox validate` reads it."""
    try:
        record = record_of_line(data)
    except MalformedEventError as error:
        in_words(error.reason)
        return
    take(record)


def _examples() -> Iterator[RawRecord]:
    for file in sorted(EXAMPLES.glob("*/*.json")):
        told = msgspec.json.decode(file.read_bytes())
        yield record_of_line(msgspec.json.encode(told.get("record", told)))


def seeds_of_headers() -> list[bytes]:
    """Every example as a record, and a good one of each mode."""
    records = [binary(), structured(), *_examples()]
    return [
        written(
            [*([(KEY, record.key)] if record.key is not None else []), *filled(record.headers)],
            record.value,
        )
        for record in records
    ]


def seeds_of_structured() -> list[bytes]:
    """A good event with each of the attributes that may be left out."""
    kinds = ("started", "ended", "corrected", "cancelled", "voided", "paused")
    events = [structured(type=f"io.farebox.session.{kind}.v1") for kind in kinds]
    events += [structured(type="trip_end", time=..., subject=...), structured(data=..., data_base64="e30=")]
    return [event.value or b"" for event in events]


def seeds_of_data() -> list[bytes]:
    """Good data of several kinds."""
    good = binary().value or b""
    corrected = (
        b'{"session_id":"%b","started_at":"2026-11-22T03:00:00Z","ended_at":"2026-11-22T04:00:00Z"}' % _session()
    )
    return [b"\0" + good, b"\1" + good, b"\2" + corrected, b"\3" + good, b"\6" + good, b"\5" + b"x" * TEXT_LENGTH_MAX]


def seeds_of_lines() -> list[bytes]:
    """Each example as it stands in a file, on one line."""
    return [msgspec.json.format(file.read_bytes(), indent=-1) for file in sorted(EXAMPLES.glob("*/*.json"))]


@cache
def _session() -> bytes:
    return binary().key or b""


DOORS = (
    Door("record", enter_headers, seeds_of_headers, 4_000, WORDS),
    Door("structured", enter_structured, seeds_of_structured, 4_000, WORDS),
    Door("data", enter_data, seeds_of_data, 4_000, WORDS),
    Door("line", enter_line, seeds_of_lines, 4_000, WORDS),
)
