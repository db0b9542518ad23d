"""The AsyncAPI 3.0 document of the three channels, made from the code, and just enough YAML to write it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from service.billing.events import EVENT_TYPES, MDS_TYPES
from service.billing.events.ride_data import DATA_TYPES
from service.billing.facts import fact_event_type
from service.billing.facts.data import FACT_TYPES
from service.lab.json_schemas import fact_data_schemas, ride_data_schemas

Document = dict[str, Any]
VERSION = "1.0.0"
TEXT = {"type": "string", "minLength": 1}


def asyncapi_document() -> Document:
    """What goes in and out on Kafka. Topic names are the defaults; an installation may have others."""
    events = [f"session.{kind}" for kind in EVENT_TYPES]
    schemas = {**ride_data_schemas(*EVENT_TYPES), **fact_data_schemas(*FACT_TYPES)}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Farebox",
            "version": VERSION,
            "description": "Ride events become explained charges and debits. CloudEvents 1.0; names follow MDS 2.0.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "sessions": _channel("rental.sessions", events, "Ride events. Key: the session id."),
            "billing": _channel(
                "rental.billing",
                FACT_TYPES,
                "What became of rides and their money, in causal order per key, at least once with a stable id. "
                "Key: the session id, or the agreement id for facts of an agreement.",
            ),
            "quarantine": _channel(
                "rental.sessions.quarantine",
                ["quarantined"],
                "Records of rental.sessions that could not be read, as they came, with the reason in headers.",
            ),
        },
        "operations": {
            "receiveRideEvent": _operation("receive", "sessions", events),
            "sendFact": _operation("send", "billing", FACT_TYPES),
            "sendQuarantined": _operation("send", "quarantine", ["quarantined"]),
        },
        "components": {
            "messages": {**_ride_messages(), **_fact_messages(), "quarantined": _quarantined()},
            "messageTraits": {"cloudEvent": _cloud_event_trait()},
            "schemas": _moved(dict(sorted(schemas.items()))),
        },
    }


def yaml_text(value: Any) -> str:
    """JSON-like `value` as YAML 1.2: blocks for what is nested, JSON for what is not."""
    return "\n".join(_yaml_lines(value)) + "\n"


def _channel(address: str, messages: Iterable[str], description: str) -> Document:
    return {
        "address": address,
        "description": description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"kafka": {"topic": address, "bindingVersion": "0.5.0"}},
    }


def _operation(action: str, channel: str, messages: Iterable[str]) -> Document:
    """`action` is what Farebox does: it receives ride events and sends facts."""
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages],
    }


def _ride_messages() -> Document:
    return {
        f"session.{kind}": _message(
            [EVENT_TYPES[kind], *(alias for alias, meant in MDS_TYPES.items() if meant == kind)], shape
        )
        for kind, shape in DATA_TYPES.items()
    }


def _fact_messages() -> Document:
    return {name: _message([fact_event_type(name)], shape) for name, shape in FACT_TYPES.items()}


def _message(types: list[str], shape: type) -> Document:
    return {
        "name": types[0],
        "title": shape.__name__,
        "summary": (shape.__doc__ or "").strip(),
        "traits": [{"$ref": "#/components/messageTraits/cloudEvent"}],
        "headers": {"type": "object", "properties": {"ce_type": {"type": "string", "enum": types}}},
        "payload": {"$ref": f"#/components/schemas/{shape.__name__}"},
    }


def _cloud_event_trait() -> Document:
    """Binary mode. Ride events are read in structured mode too (`application/cloudevents+json`)."""
    described = {
        "ce_source": "Who says so; with ce_id it identifies the event.",
        "ce_id": "The sender's id of the event.",
        "ce_type": "What happened.",
        "ce_time": "When it happened: RFC 3339 with an offset.",
        "ce_subject": "Equal to the key.",
        "ce_partitionkey": "Equal to the key.",
        "content-type": "application/json, or application/cloudevents+json for structured mode.",
    }
    return {
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "properties": {
                "ce_specversion": {"type": "string", "const": "1.0"},
                **{name: {**TEXT, "description": text} for name, text in described.items()},
            },
            "required": ["ce_specversion", "ce_type", "ce_source", "ce_id"],
        },
        "bindings": {"kafka": {"key": {**TEXT, "description": "UTF-8 text."}, "bindingVersion": "0.5.0"}},
    }


def _quarantined() -> Document:
    described = {
        "farebox_reason": "What is wrong, in words.",
        "farebox_path": "Where: `$.data.distance`, `headers.ce_time`, `key`, `value`.",
        "farebox_topic": "The topic the record came from.",
        "farebox_partition": "Its partition there.",
        "farebox_offset": "Its offset there.",
    }
    longer = "How long the record is, where it has more than 1,000,000 bytes: key, value and headers are left out."
    optional = {"farebox_bytes": {**TEXT, "description": longer}}
    return {
        "name": "quarantined",
        "title": "Quarantined",
        "summary": "A refused record: key, value and other headers as they came.",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "properties": {name: {**TEXT, "description": text} for name, text in described.items()} | optional,
            "required": list(described),
        },
        "payload": {"description": "Any bytes.", "type": "string"},
    }


def _moved(value: Any) -> Any:
    """The same schemas with references to where AsyncAPI keeps them."""
    if isinstance(value, dict):
        return {name: _moved(child) for name, child in value.items()}
    if isinstance(value, list):
        return [_moved(child) for child in value]
    return value.replace("#/$defs/", "#/components/schemas/") if isinstance(value, str) else value


_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def _yaml_lines(value: Any) -> list[str]:
    if isinstance(value, Mapping) and value:
        lines = []
        for name, child in value.items():
            plain = _PLAIN_KEY.fullmatch(name) and name.lower() not in _YAML_WORDS
            lines += _yaml_entry(f"{name if plain else json.dumps(name)}:", child)
        return lines
    if isinstance(value, list) and value:
        lines = []
        for child in value:
            first, *rest = _yaml_lines(child)
            lines += [f"- {first}", *(f"  {line}" for line in rest)]
        return lines
    return [json.dumps(value, ensure_ascii=False)]


def _yaml_entry(name: str, child: Any) -> list[str]:
    lines = _yaml_lines(child)
    if isinstance(child, Mapping | list) and child:
        return [name, *(f"  {line}" for line in lines)]
    return [f"{name} {lines[0]}"]
