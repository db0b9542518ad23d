"""CloudEvents 1.0 on Kafka, read: a record of either mode becomes one Envelope, or says what is wrong and where.

Source: CloudEvents 1.0.2 and its Kafka protocol binding. A `content-type` header that starts with
`application/cloudevents` means structured mode (the value is the whole event as JSON); anything else is binary mode
(`ce_*` headers, value = data).
Paths in refusals are `headers.ce_time` (binary), `$.time` (structured), `$.data.distance` (both), `key` and `value`.
"""

import base64
import binascii
import re
from collections.abc import Callable, Container, Mapping, Sequence
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from service.billing.events.strict_json import TEXT_LENGTH_MAX, MalformedEventError, check_text, decode_json
from service.billing.instants import InstantError, utc

Said = TypeVar("Said")
Text = Annotated[str, Meta(min_length=1, max_length=TEXT_LENGTH_MAX)]
Instant = Annotated[datetime, Meta(tz=True, description="RFC 3339 with an offset, to the microsecond; 1970 to 2199.")]
PACKED_BATCH = b"application/vnd.farebox.packed-batch"
"""The content type of a record that stands for a whole batch of Kafka's which could not be unpacked; its value are the
batch's bytes."""


class RawRecord(msgspec.Struct, frozen=True, gc=False):
    """One Kafka record as it came, nothing decoded: a header may have no value, and a name that is not UTF-8 has
    surrogates for its bytes. `timestamp_ms` is Kafka's, in ms since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """The attributes of one CloudEvent.

    `data` is JSON text (valid UTF-8, no NUL in it), not yet parsed; `time` is UTC; `at` begins an attribute's path.
    """

    type: str
    source: str
    id: str
    time: datetime | None
    subject: str | None
    partitionkey: str | None
    data: bytes | msgspec.Raw
    at: str


class Skipped(msgspec.Struct, frozen=True, gc=False):
    """An event of a type that is not ours: counted, never an error."""

    type: str


def open_envelope(record: RawRecord, known: Container[str]) -> Envelope | Skipped:
    """The record's envelope; Skipped when its type is not in `known`. Raises MalformedEventError."""
    headers = dict(record.headers)
    if len(headers) != len(record.headers):
        _refuse_repeated_headers(record.headers)
    content_type = headers.get("content-type", b"application/json")
    if content_type != b"application/json" and _is_structured(content_type):
        return _open_structured(record.value, known)
    return _open_binary(headers, content_type or b"", record.value, known)


def source_of(record: RawRecord) -> str | None:
    """The source that a record names which can't be taken; None where nobody can tell, for sure or in one line."""
    named = [value for name, value in record.headers if name == "ce_source"]
    try:
        if _is_structured(dict(record.headers).get("content-type")):
            source = _SOURCE_ONLY.decode(record.value or b"").source
        else:
            source = _header({"ce_source": named[0]}, "ce_source") if len(named) == 1 else ""
    except (MalformedEventError, ValueError, RecursionError):
        return None
    return source if 0 < len(source) <= TEXT_LENGTH_MAX and source.isprintable() else None


def in_calendar(made: Callable[[Said], datetime], said: Said, path: str) -> datetime:
    """The instant that is made of what was said at `path`; refused where it is none that anybody can mean."""
    try:
        return made(said)
    except InstantError as error:
        raise MalformedEventError(f"the instant is {error}", path) from None


# --- binary mode


def _open_binary(
    headers: Mapping[str, bytes | None], content_type: bytes, value: bytes | None, known: Container[str]
) -> Envelope | Skipped:
    if "ce_type" not in headers and value is not None and b'"specversion"' in value[:200]:
        problem = "a structured CloudEvent needs the header content-type: application/cloudevents+json"
        raise MalformedEventError(problem, "headers.content-type")
    event_type = _header(headers, "ce_type")
    if event_type not in known:
        return Skipped(event_type)
    if headers.get("ce_specversion") != b"1.0":
        raise MalformedEventError("the CloudEvents version must be 1.0", "headers.ce_specversion")
    if content_type != b"application/json" and not _is_json(content_type):
        raise MalformedEventError("the data must be JSON", "headers.content-type")
    event = Envelope(
        event_type,
        _header(headers, "ce_source"),
        _header(headers, "ce_id"),
        _instant(headers["ce_time"] or b"") if "ce_time" in headers else None,
        _header(headers, "ce_subject") if "ce_subject" in headers else None,
        _header(headers, "ce_partitionkey") if "ce_partitionkey" in headers else None,
        b"" if value is None else value,
        "headers.ce_",
    )
    if not value:
        raise MalformedEventError("the record has no value", "$.data")
    check_text(value, "$.data")
    return event


def _header(headers: Mapping[str, bytes | None], name: str) -> str:
    raw = headers.get(name)
    if not raw:
        raise MalformedEventError("the header is missing or empty", f"headers.{name}")
    if len(raw) > TEXT_LENGTH_MAX:
        raise MalformedEventError(f"longer than {TEXT_LENGTH_MAX} bytes", f"headers.{name}")
    if 0 in raw:
        raise MalformedEventError("contains NUL", f"headers.{name}")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise MalformedEventError(f"not UTF-8 at byte {error.start}", f"headers.{name}") from None


def _instant(raw: bytes) -> datetime:
    """An RFC 3339 instant of a header, in UTC. The text is read as a JSON string: one strict parser for both modes."""
    try:
        return in_calendar(utc, _INSTANT.decode(b'"%b"' % raw), "headers.ce_time")
    except (msgspec.DecodeError, ValueError, TypeError):
        raise MalformedEventError(_instant_reason(raw), "headers.ce_time") from None


def _instant_reason(raw: bytes) -> str:
    if _NAIVE.fullmatch(raw):
        return "the time has no offset from UTC"
    if _LEAP_SECOND.match(raw):
        return "a leap second cannot be told from its neighbours: send second 59"
    return "not an RFC 3339 time"


def _refuse_repeated_headers(headers: Sequence[tuple[str, bytes | None]]) -> None:
    """A repeated trace header is the producer's business; a repeated attribute is two answers to one question."""
    seen: set[str] = set()
    for name, _ in headers:
        if name in seen and (name.startswith("ce_") or name == "content-type"):
            raise MalformedEventError("the header is there more than once", f"headers.{name[:TEXT_LENGTH_MAX]}")
        seen.add(name)


# --- structured mode


class _Structured(msgspec.Struct, gc=False):
    type: Text
    source: Text
    id: Text
    specversion: str
    time: Instant | None = None
    subject: Text | None = None
    partitionkey: Text | None = None
    datacontenttype: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    data_base64: str | None = None


class _TypeOnly(msgspec.Struct, gc=False):
    type: str


class _SourceOnly(msgspec.Struct, gc=False):
    source: str


def _open_structured(value: bytes | None, known: Container[str]) -> Envelope | Skipped:
    if not value:
        raise MalformedEventError("the record has no value", "$")
    check_text(value, "$")
    try:
        event: _Structured = decode_json(_STRUCTURED, value, "$")
    except MalformedEventError:
        stranger = _unknown_type(value, known)
        if stranger is None:
            raise
        return stranger
    if event.type not in known:
        return Skipped(event.type)
    if event.specversion != "1.0":
        raise MalformedEventError("the CloudEvents version must be 1.0", "$.specversion")
    if event.datacontenttype is not None and not _is_json(event.datacontenttype.encode()):
        raise MalformedEventError("the data must be JSON", "$.datacontenttype")
    return Envelope(
        event.type,
        event.source,
        event.id,
        in_calendar(utc, event.time, "$.time") if event.time else None,
        event.subject,
        event.partitionkey,
        _data(event),
        "$.",
    )


def _unknown_type(value: bytes, known: Container[str]) -> Skipped | None:
    """Skipped when the only sure thing about a broken envelope is that its type is not ours."""
    try:
        event = _TYPE_ONLY.decode(value)
    except (ValueError, RecursionError):
        return None
    return None if event.type in known else Skipped(event.type[:TEXT_LENGTH_MAX])


def _data(event: _Structured) -> bytes | msgspec.Raw:
    there = bool(bytes(event.data))
    if event.data_base64 is None:
        if not there:
            raise MalformedEventError("the event has no data", "$.data")
        return event.data
    if there:
        raise MalformedEventError("data and data_base64 are both there", "$.data_base64")
    try:
        text = base64.b64decode(event.data_base64, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedEventError("not base64", "$.data_base64") from None
    check_text(text, "$.data")
    return text


# --- both modes


def _is_structured(content_type: bytes | None) -> bool:
    """Whether the record is in structured mode; refuses the formats of that mode that are not single JSON events."""
    media_type = _media_type(content_type)
    if media_type == PACKED_BATCH:
        raise MalformedEventError("a compressed batch that can't be unpacked, or to more than is taken", "value")
    if not media_type.startswith(b"application/cloudevents"):
        return False
    if media_type.startswith(b"application/cloudevents-batch"):
        raise MalformedEventError("a batch of events in one record: send one event per record", "headers.content-type")
    if media_type not in {b"application/cloudevents+json", b"application/cloudevents"}:
        raise MalformedEventError(
            "of the structured formats only application/cloudevents+json is read", "headers.content-type"
        )
    return True


def _is_json(content_type: bytes | None) -> bool:
    media_type = _media_type(content_type)
    return media_type in {b"application/json", b"text/json"} or media_type.endswith(b"+json")


def _media_type(content_type: bytes | None) -> bytes:
    return (content_type or b"").partition(b";")[0].strip().lower()


_STRUCTURED = msgspec.json.Decoder(_Structured)
_TYPE_ONLY = msgspec.json.Decoder(_TypeOnly)
_SOURCE_ONLY = msgspec.json.Decoder(_SourceOnly)
_INSTANT = msgspec.json.Decoder(Instant)
_NAIVE = re.compile(rb"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?")
_LEAP_SECOND = re.compile(rb"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:60")
