"""One line of an events file as the Kafka record it stands for.

A line is a structured CloudEvent, or a record as consumers print it: {"key": "…", "headers": {"ce_id": "…"}, "value":
{…}} with `headers` also as a list of pairs, and `value` as an object or as the text that was in the record.
"""

import msgspec

from service.billing.events.cloudevents import RawRecord
from service.billing.events.strict_json import MalformedEventError, decode_json


def record_of_line(line: bytes) -> RawRecord:
    """The record of a line. A bare CloudEvent gets the key that its producer owes it: the session id.

    Raises MalformedEventError for an exported record that is not of the shape above.
    """
    if not _is_export(line):
        return RawRecord("", 0, 0, 0, _key_owed(line), line, _STRUCTURED)
    export: _Export = decode_json(_EXPORT, line, "$")
    headers = export.headers.items() if isinstance(export.headers, dict) else export.headers
    return RawRecord(
        "",
        0,
        0,
        0,
        None if export.key is None else export.key.encode(),
        _value(export.value),
        tuple((name, text.encode()) for name, text in headers),
    )


class _Export(msgspec.Struct, gc=False):
    value: msgspec.Raw
    key: str | None = None
    headers: dict[str, str] | list[tuple[str, str]] = {}


class _Shape(msgspec.Struct, gc=False):
    specversion: msgspec.Raw = msgspec.Raw(b"")
    value: msgspec.Raw = msgspec.Raw(b"")


class _Named(msgspec.Struct, gc=False):
    session_id: str | None = None
    trip_id: str | None = None
    trip_ids: list[str] | None = None


class _Event(msgspec.Struct, gc=False):
    data: _Named | None = None
    partitionkey: str | None = None
    subject: str | None = None


def _is_export(line: bytes) -> bool:
    try:
        shape: _Shape = decode_json(_SHAPE, line, "$")
    except MalformedEventError:
        return False
    return bytes(shape.specversion) == b"" and bytes(shape.value) != b""


def _key_owed(line: bytes) -> bytes | None:
    """The session id of an event by any of its names; None where it has none, or is none."""
    try:
        event: _Event = decode_json(_EVENT, line, "$")
    except MalformedEventError:
        return None
    named = event.data or _Named()
    names = [named.session_id, named.trip_id, *(named.trip_ids or ()), event.partitionkey, event.subject]
    return next((name.encode() for name in names if name is not None), None)


def _value(raw: msgspec.Raw) -> bytes | None:
    text = bytes(raw)
    if text == b"null":
        return None
    if not text.startswith(b'"'):
        return text
    told: str = decode_json(_TEXT, text, "$.value")
    return told.encode()


_STRUCTURED = (("content-type", b"application/cloudevents+json"),)
_EXPORT = msgspec.json.Decoder(_Export)
_SHAPE = msgspec.json.Decoder(_Shape)
_EVENT = msgspec.json.Decoder(_Event)
_TEXT = msgspec.json.Decoder(str)
