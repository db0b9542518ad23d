"""The quarantine over HTTP: records as they came, replayed once, discarded for a reason, shown to their operator."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from ride_builders import at
from web_world import ALL, WebWorld, web_world

from service.adapters.postgres.intake import IntakeStore, Quarantined
from service.billing.events import RawRecord
from service.flows.operators import map_source


@pytest.fixture(scope="module")
async def it(database_url: str) -> AsyncIterator[WebWorld]:
    async with web_world(database_url) as it:
        yield it


async def _held(it: WebWorld, offset: int, at_ms: int = 1_700_000_000_000, **fields: object) -> str:
    record = RawRecord("rides", 0, offset, at_ms, b"s", b"\x00{", (("ce_type", b"\xff"),))
    held = Quarantined(record, "record", "not JSON", "$", **fields)  # type: ignore[arg-type]  # Operator or source.
    async with it.database.transaction(IntakeStore) as store:
        await store.hold_in_quarantine([held], at(0))
    rows = await it.sql("SELECT quarantine_no FROM quarantine WHERE record_offset = $1", offset)
    return str(rows[0][0])


@pytest.mark.parametrize(
    ("offset", "at_ms", "told"),
    [(21, 1_700_000_000_001, "2023-11-14T22:13:20.001000Z"), (22, 2**62, None), (23, -1, None)],
)
async def test_a_quarantined_record_was_made_when_its_producer_says_if_that_is_an_instant(
    it: WebWorld, offset: int, at_ms: int, told: str | None
) -> None:
    number = await _held(it, offset, at_ms)
    assert (await it.get(f"/v1/quarantine/{number}"))["produced_at"] == told


async def test_a_quarantined_record_is_replayed_once_byte_for_byte(it: WebWorld) -> None:
    number = await _held(it, 11)
    told = await it.get(f"/v1/quarantine/{number}")
    assert (told["state"], told["reason"], told["path"], told["value"]) == ("held", "not JSON", "$", "AHs=")
    assert told["headers"] == [{"name": "ce_type", "value": "/w=="}]
    before = len(await it.sent("sessions"))
    replayed = await it.ask("POST", f"/v1/quarantine/{number}/replay", key="k-replay")
    assert (replayed.status, replayed.body["state"]) == (200, "replayed")
    again = await it.ask("POST", f"/v1/quarantine/{number}/replay", key="k-replay")
    assert again.body == replayed.body
    late = await it.ask("POST", f"/v1/quarantine/{number}/replay")
    assert (late.status, late.body["detail"]) == (409, "the record is replayed already")
    (record,) = (await it.sent("sessions"))[before:]
    assert (record.key, record.value, [tuple(item) for item in record.headers]) == (
        b"s",
        b"\x00{",
        [("ce_type", b"\xff")],
    )
    assert (await it.ask("POST", f"/v1/quarantine/{number}/discard", {"reason": "late"})).status == 409


async def test_a_record_is_discarded_for_a_reason(it: WebWorld) -> None:
    number = await _held(it, 12)
    for bad in ({}, {"reason": ""}, {"reason": 1}):
        answer = await it.ask("POST", f"/v1/quarantine/{number}/discard", bad)
        assert (answer.status, answer.fields) == (422, ["/reason"])
    done = await it.ask("POST", f"/v1/quarantine/{number}/discard", {"reason": "a producer's test"})
    assert (done.body["state"], done.body["decision_reason"]) == ("discarded", "a producer's test")
    held = [item["quarantine_id"] for item in (await it.get("/v1/quarantine?state=held"))["items"]]
    assert number not in held


async def test_a_record_that_is_nobodys_is_the_default_operators_until_its_source_is_anothers(it: WebWorld) -> None:
    theirs, nobodys = await _held(it, 13, source="urn:theirs"), await _held(it, 14)

    async def seen(by: str) -> list[bool]:
        listed = json.dumps((await it.ask("GET", "/v1/quarantine", by=by)).body)
        found = [(await it.ask("GET", f"/v1/quarantine/{number}", by=by)).status == 200 for number in (theirs, nobodys)]
        assert found == [f'"{number}"' in listed for number in (theirs, nobodys)]
        return found

    assert (await seen(ALL), await seen("other")) == ([True, True], [False, False])
    [[other]] = await it.sql("SELECT operator_id FROM operator WHERE operator_no = 2")
    assert await map_source(it.database, other, "rides", "urn:theirs", at(0))
    assert (await seen(ALL), await seen("other")) == ([False, True], [True, False])
