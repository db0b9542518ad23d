"""`schemas/` is what the code says, is valid by its own standards, and its examples do as they claim."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import yaml

from service.billing.events import EVENT_TYPES, MDS_TYPES, Kind, Malformed, RideEvent, decode
from service.billing.events.exports import record_of_line
from service.billing.facts.data import FACT_TYPES
from service.billing.facts.parts import ChargeLine
from service.billing.rating.charges import Line
from service.lab.asyncapi import asyncapi_document, yaml_text
from service.lab.schemas import PRODUCERS, differing, write_schemas

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "schemas"
ASYNCAPI = ROOT / "tests/data/asyncapi/asyncapi-3.0.0.schema.json"
GOOD = sorted((SCHEMAS / "examples/good").glob("*.json"))
BAD = sorted((SCHEMAS / "examples/bad").glob("*.json"))
KINDS: dict[str, Kind] = {**{name: kind for kind, name in EVENT_TYPES.items()}, **MDS_TYPES}


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def named(file: Path) -> str:
    return file.stem


def as_cloud_event(example: Any) -> dict[str, Any]:
    """The example as a structured CloudEvent, also where it is an exported binary-mode record."""
    if "specversion" in example:
        return dict(example)
    headers, value = dict(example["headers"]), example["value"]
    attributes = {name.removeprefix("ce_"): text for name, text in headers.items() if name.startswith("ce_")}
    return {**attributes, "data": json.loads(value) if isinstance(value, str) else value}


def validator(file: Path) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(read(file), validate_formats=True)


def test_the_committed_schemas_are_what_the_code_says() -> None:
    assert differing(SCHEMAS, PRODUCERS) == [], "run `farebox schemas`"


def test_writing_brings_a_directory_in_step_and_removes_what_is_no_more(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events/teleported.json").write_text("{}")
    (tmp_path / "tariff.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    assert set(write_schemas(tmp_path, PRODUCERS)) == {*PRODUCERS, "events/teleported.json"}
    assert differing(tmp_path, PRODUCERS) == []
    assert write_schemas(tmp_path, PRODUCERS) == []
    assert not (tmp_path / "events/teleported.json").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("file", sorted(SCHEMAS.glob("**/*.json"), key=str), ids=named)
def test_every_schema_is_json_schema_2020_12(file: Path) -> None:
    if "examples" not in file.parts and file.name != "openapi.json":
        jsonschema_rs.meta.validate(read(file))


def test_the_asyncapi_document_is_valid_asyncapi_3() -> None:
    document = yaml.safe_load((SCHEMAS / "asyncapi.yaml").read_text(encoding="utf-8"))
    assert [str(error) for error in jsonschema_rs.Draft7Validator(read(ASYNCAPI)).iter_errors(document)] == []


def test_the_asyncapi_validator_does_refuse() -> None:
    document = asyncapi_document()
    document["channels"]["sessions"]["adress"] = "rental.sessions"
    assert not jsonschema_rs.Draft7Validator(read(ASYNCAPI)).is_valid(document)


def test_every_reference_in_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi_document()

    def follow(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                place = document
                for name in value["$ref"].removeprefix("#/").split("/"):
                    place = place[name]
            for child in value.values():
                follow(child)
        elif isinstance(value, list):
            for child in value:
                follow(child)

    follow(document)


def test_our_yaml_is_read_by_others_as_what_was_meant() -> None:
    document = {**asyncapi_document(), "no": [], "a b": {}, "x": [[1, 2], {"a": [None, True]}], "t": 'q"\n: #é'}
    assert yaml.safe_load(yaml_text(document)) == document


def test_the_three_channels_carry_every_event_and_every_fact() -> None:
    channels = asyncapi_document()["channels"]
    assert [channel["address"] for channel in channels.values()] == [
        "rental.sessions",
        "rental.billing",
        "rental.sessions.quarantine",
    ]
    assert set(channels["sessions"]["messages"]) == {f"session.{kind}" for kind in EVENT_TYPES}
    assert set(channels["billing"]["messages"]) == set(FACT_TYPES)


@pytest.mark.parametrize("file", GOOD, ids=named)
def test_a_good_example_is_decoded_and_fits_its_schema(file: Path) -> None:
    example = read(file)
    event = decode(record_of_line(json.dumps(example).encode()))
    assert isinstance(event, RideEvent), event
    whole = as_cloud_event(example)
    assert event.kind == KINDS[whole["type"]]
    validator(SCHEMAS / f"events/{event.kind}.json").validate(whole)


@pytest.mark.parametrize("file", BAD, ids=named)
def test_a_bad_example_is_refused_with_the_reason_and_path_it_names(file: Path) -> None:
    example = read(file)
    assert decode(record_of_line(json.dumps(example["record"]).encode())) == Malformed(
        example["reason"], example["path"]
    )


# What a schema of one document can't see: the key, other fields, what is not JSON, one header twice, our clock.
BEYOND_A_SCHEMA = {
    "batch_in_one_record",
    "distance_nan",
    "header_twice",
    "key_missing",
    "key_of_another_ride",
    "no_value",
    "not_json",
    "nul_in_a_string",
    "session_and_trip_differ",
    "subject_of_another_ride",
    "time_is_a_leap_second",
}


@pytest.mark.parametrize("file", [file for file in BAD if file.stem not in BEYOND_A_SCHEMA], ids=named)
def test_a_bad_example_fails_its_schema_too(file: Path) -> None:
    whole = as_cloud_event(read(file)["record"])
    assert not validator(SCHEMAS / f"events/{KINDS[whole['type']]}.json").is_valid(whole)


def test_there_is_a_good_example_of_every_kind_and_mode() -> None:
    kinds = {KINDS[as_cloud_event(read(file))["type"]] for file in GOOD}
    assert kinds == set(EVENT_TYPES)
    assert {"mds_trip_end", "mds_trip_start", "binary_mode_record"} <= {file.stem for file in GOOD}


def test_the_line_of_a_fact_has_the_fields_of_a_line_of_a_charge() -> None:
    def names(shape: type[msgspec.Struct]) -> list[str]:
        return [field.name for field in msgspec.structs.fields(shape)]

    assert names(ChargeLine) == names(Line)


TARIFF: dict[str, Any] = {
    "tariff_id": "bike-std",
    "valid_from": "2026-11-01T00:00:00+08:00",
    "time_zone": "Asia/Shanghai",
    "plan": {
        "plan_id": "bike-std",
        "currency": "CNY",
        "price": "1.50",
        "is_taxable": False,
        "per_min_pricing": [{"start": 15, "rate": 1.475, "interval": 15}],
    },
    "rules": {
        "free_abort_seconds": 60,
        "ride_max": "30.00",
        "lost_end": {"after_hours": 24, "charge": "ride_max"},
    },
}


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({}, True),
        ({"rules": {}}, True),
        ({"tariff_id": 7}, False),
        ({"plan": {"currency": "CNY"}}, False),
        ({"plan": {"currency": "CNY", "price": "NaN"}}, False),
        ({"rules": {"ride_maximum": 1}}, False),
        ({"extra": 1}, False),
    ],
)
def test_the_tariff_schema_takes_numbers_as_text_and_refuses_unknown_rules(changes: Any, valid: bool) -> None:
    assert validator(SCHEMAS / "tariff.json").is_valid({**TARIFF, **changes}) is valid
