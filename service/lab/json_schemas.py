"""JSON Schemas (2020-12) made from the structs that decode and encode: ride events, facts, the tariff document."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

import msgspec

from service.billing.events import EVENT_TYPES, MDS_TYPES, Kind
from service.billing.events.ride_data import DATA_TYPES
from service.billing.events.strict_json import TEXT_LENGTH_MAX
from service.billing.facts import fact_event_type
from service.billing.facts.data import FACT_TYPES
from service.billing.facts.parts import ChargeLine
from service.billing.tariffs import TariffDocument
from service.billing.tariffs.gbfs import Plan
from service.billing.tariffs.rules import Rules

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def event_schema(kind: Kind) -> Schema:
    """A ride event as a whole CloudEvent in JSON: what `farebox validate` reads, line by line."""
    shape = DATA_TYPES[kind]
    aliases = [alias for alias, meant in MDS_TYPES.items() if meant == kind]
    schema = _cloud_event(f"event:{kind}", shape, [EVENT_TYPES[kind], *aliases])
    schema["$defs"] = ride_data_schemas(kind)
    if aliases:
        schema["if"] = {"properties": {"type": {"const": EVENT_TYPES[kind]}}}
        schema["then"] = {"required": ["time"]}
        schema["else"] = {"anyOf": [{"required": ["time"]}, {"properties": {"data": {"required": ["timestamp"]}}}]}
    else:
        schema["required"].append("time")
    return schema


def ride_data_schemas(*kinds: Kind) -> dict[str, Schema]:
    """The data of these kinds and all they refer to, by name; references begin with `#/$defs/`."""
    shapes = [DATA_TYPES[kind] for kind in kinds]
    components = _components(*shapes)
    for shape in shapes:
        components[shape.__name__]["anyOf"] = [
            {"required": ["session_id"], "properties": {"session_id": {"type": "string"}}},
            {"required": ["trip_id"], "properties": {"trip_id": {"type": "string"}}},
            {"required": ["trip_ids"], "properties": {"trip_ids": {"type": "array", "minItems": 1}}},
        ]
    return components


def fact_schema(name: str) -> Schema:
    """A fact as a whole CloudEvent in JSON. On Kafka `data` is the value, the rest are headers."""
    schema = _cloud_event(f"fact:{name}", FACT_TYPES[name], [fact_event_type(name)])
    schema["required"] += ["time", "subject", "partitionkey"]
    schema["$defs"] = fact_data_schemas(name)
    return schema


def fact_data_schemas(*names: str) -> dict[str, Schema]:
    """The data of these facts and all they refer to, by name; references begin with `#/$defs/`."""
    shapes: list[type] = [FACT_TYPES[name] for name in names]
    if any("lines" in shape.__struct_fields__ for shape in shapes if issubclass(shape, msgspec.Struct)):
        shapes.append(ChargeLine)
    return _components(*shapes)


def tariff_schema() -> Schema:
    """The tariff document of `farebox tariff import` and `PUT /v1/tariffs/{id}`."""
    components = _components(_with_types(TariffDocument, plan=Plan, rules=Rules))
    document = components.pop(TariffDocument.__name__)
    document["properties"]["rules"]["default"] = {}
    schema: Schema = {"$schema": DIALECT, "$id": "urn:farebox:schema:tariff", **document, "$defs": components}
    return {name: _with_decimals_read(value) for name, value in schema.items()}


def _cloud_event(name: str, shape: type, types: list[str]) -> Schema:
    text = {"type": "string", "minLength": 1, "maxLength": TEXT_LENGTH_MAX}
    return {
        "$schema": DIALECT,
        "$id": f"urn:farebox:schema:{name}:v1",
        "title": types[0],
        "type": "object",
        "properties": {
            "specversion": {"const": "1.0"},
            "type": {"enum": types},
            "source": {**text, "description": "Who says so; with `id` it identifies the event."},
            "id": text,
            "time": {"type": "string", "format": "date-time", "description": "When it happened, with an offset."},
            "subject": {**text, "description": "Equal to the Kafka key."},
            "partitionkey": {**text, "description": "Equal to the Kafka key."},
            "datacontenttype": {"type": "string"},
            "data": {"$ref": f"#/$defs/{shape.__name__}"},
        },
        "required": ["specversion", "type", "source", "id", "data"],
    }


def _components(*shapes: type) -> dict[str, Schema]:
    _, components = msgspec.json.schema_components(shapes, ref_template="#/$defs/{name}")
    return {name: _plain(schema) for name, schema in sorted(components.items())}


def _plain(schema: Any) -> Any:
    """The schema as JSON has it: lists for tuples, no indents, no `discriminator` (only OpenAPI knows that)."""
    if isinstance(schema, dict):
        return {name: _plain(value) for name, value in schema.items() if name != "discriminator"}
    if isinstance(schema, list | tuple):
        return [_plain(value) for value in schema]
    return cleandoc(schema) if isinstance(schema, str) else schema


def _with_types(shape: type[msgspec.Struct], **types: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """`shape` with the fields that it keeps as raw JSON given the types that they are read as later."""
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for field in msgspec.structs.fields(shape):
        kind = types.get(field.name, field.type)
        if field.required:
            fields.append((field.name, kind))
        else:
            fields.append((field.name, kind, types[field.name]() if field.name in types else field.default))
    twin = msgspec.defstruct(
        shape.__name__, fields, forbid_unknown_fields=shape.__struct_config__.forbid_unknown_fields
    )
    twin.__doc__ = shape.__doc__
    return twin


def _with_decimals_read(schema: Any) -> Any:
    """The schema with each decimal as it may be handed in: a JSON number, or its text."""
    if isinstance(schema, list):
        return [_with_decimals_read(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "decimal":
        rest = {name: value for name, value in schema.items() if name not in {"type", "format"}}
        return {**rest, "type": ["number", "string"], "pattern": r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$"}
    return {name: _with_decimals_read(value) for name, value in schema.items()}
