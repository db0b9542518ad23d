"""What could not be taken: looked at, sent on its way again once, or discarded with a reason."""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, QueryParameter, RawBody
from msgspec import Meta

from service.adapters.postgres.batches import OutRecord, writer_name
from service.adapters.postgres.doors import HeldLine, HeldRecord, QuarantineStore
from service.adapters.postgres.reading import BIGINT_MAX
from service.billing.facts.quarantine import RECORD_BYTES_MAX, record_bytes
from service.billing.instants import InstantError, of_ms
from service.web.access import access_of, needs
from service.web.answers import Asked, Cursor, Limit, Page, Text, answer, read, read_cursor, write_cursor
from service.web.doors import doors_of
from service.web.idempotency import Key, once
from service.web.problems import conflict, not_found


class HeaderView(msgspec.Struct, frozen=True):
    """A header of the record, its value in base64; null where it had none. A byte of its name that is not UTF-8 is
    written `\\xff`, and a backslash that would be read so `\\x5c`."""

    name: str
    value: str | None


class RecordView(msgspec.Struct, frozen=True):
    """A record in quarantine. `fault`: "record", "service" (ours), or "unmapped_source"; `path` is the field's."""

    quarantine_id: str
    state: str
    fault: str
    reason: str
    path: str
    source: str | None
    topic: str
    partition: int
    offset: int
    produced_at: Annotated[datetime | None, Meta(description="By its producer's clock; null where that is none.")]
    created_at: datetime
    decided_at: datetime | None
    decision_reason: str | None


class WholeRecord(RecordView, frozen=True):
    """A record with its raw bytes in base64; null where it had none."""

    key: str | None
    value: str | None
    headers: list[HeaderView]


class DiscardRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why the record is not wanted."""

    reason: Text


@get("/v1/quarantine", opt=needs("ops"), tags=["quarantine"])
async def list_quarantine(
    request: Asked,
    record_state: Annotated[
        Literal["held", "replayed", "discarded"] | None, QueryParameter(name="state", required=False)
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response[Page[RecordView]]:
    """Records, newest first."""
    doors, access = doors_of(request), access_of(request)
    before = read_cursor("q", cursor, (BIGINT_MAX,))[0]
    default = access.operator_no == doors.default_operator_no
    async with doors.reading.reading(QuarantineStore) as store:
        held = await store.page(access.operator_no, default, before, record_state, limit + 1)
    following = write_cursor("q", held[limit - 1].quarantine_no) if len(held) > limit else None
    items = [RecordView(**_told(record)) for record in held[:limit]]
    return answer(request, Page(items, following))


@get("/v1/quarantine/{quarantine_id:int}", opt=needs("ops"), tags=["quarantine"])
async def get_quarantined(request: Asked, quarantine_id: FromPath[int]) -> Response[WholeRecord]:
    """One record, byte for byte."""
    return answer(request, _whole(await _find(request, quarantine_id)), etag=True)


@post("/v1/quarantine/{quarantine_id:int}/replay", status_code=200, opt=needs("ops"), tags=["quarantine"])
async def replay_quarantined(
    request: Asked, quarantine_id: FromPath[int], idempotency_key: Key
) -> Response[WholeRecord]:
    """Put the record on the sessions topic again, byte for byte, after what refused it was mended. Once only. One of
    more than 1,000,000 bytes stays held (409): Kafka might not take it from us."""

    async def replay() -> tuple[int, WholeRecord]:
        return 200, await _decide(request, quarantine_id, "replayed", None)

    return await once(request, "POST quarantine replay", idempotency_key, quarantine_id, replay)


@post(
    "/v1/quarantine/{quarantine_id:int}/discard",
    status_code=200,
    opt=needs("ops") | {"body": DiscardRequest},
    tags=["quarantine"],
)
async def discard_quarantined(
    request: Asked, quarantine_id: FromPath[int], body: RawBody, idempotency_key: Key
) -> Response[WholeRecord]:
    """Say that nobody wants the record, and why."""
    asked = read(_DISCARD, body)

    async def discard() -> tuple[int, WholeRecord]:
        return 200, await _decide(request, quarantine_id, "discarded", asked.reason)

    said = (quarantine_id, asked.reason)
    return await once(request, "POST quarantine discard", idempotency_key, said, discard)


async def _find(request: Asked, quarantine_no: int) -> HeldRecord:
    doors, access = doors_of(request), access_of(request)
    if not 0 < quarantine_no <= BIGINT_MAX:
        raise not_found("record in quarantine")
    async with doors.reading.reading(QuarantineStore) as store:
        default = access.operator_no == doors.default_operator_no
        held = await store.find(access.operator_no, default, quarantine_no)
    if held is None:
        raise not_found("record in quarantine")
    return held


async def _decide(
    request: Asked, quarantine_no: int, state: Literal["replayed", "discarded"], reason: str | None
) -> WholeRecord:
    """The decision, and with a replay the record for the publisher, in one transaction."""
    doors, held = doors_of(request), await _find(request, quarantine_no)
    now = doors.now()
    length = record_bytes(held.record_key, held.record_headers, held.record_value)
    if state == "replayed" and length > RECORD_BYTES_MAX:
        raise conflict(f"the record has {length} bytes, and no more than {RECORD_BYTES_MAX} are sent again")
    async with doors.working.transaction(QuarantineStore) as store:
        if not await store.decide(quarantine_no, state, reason, now):
            raise conflict(f"the record is {held.state} already")
        if state == "replayed":
            again = OutRecord("sessions", held.record_key, held.record_headers, held.record_value)
            batch = await store.take_batch(writer_name("quarantine", quarantine_no % 1024))
            await store.seal_batch(batch, [again], now, doors.machine())
    return _whole(await _find(request, quarantine_no))


def _told(held: HeldLine) -> dict[str, Any]:
    return {
        "quarantine_id": str(held.quarantine_no),
        "state": held.state,
        "fault": held.fault,
        "reason": held.reason,
        "path": held.path,
        "source": held.source,
        "topic": held.topic,
        "partition": held.partition,
        "offset": held.record_offset,
        "produced_at": _produced_at(held.record_timestamp_ms),
        "created_at": held.created_at,
        "decided_at": held.decided_at,
        "decision_reason": held.decision_reason,
    }


def _whole(held: HeldRecord) -> WholeRecord:
    headers = [HeaderView(name, _base64(value)) for name, value in held.record_headers]
    return WholeRecord(**_told(held), key=_base64(held.record_key), value=_base64(held.record_value), headers=headers)


def _base64(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode()


_DISCARD = msgspec.json.Decoder(DiscardRequest)


def _produced_at(timestamp_ms: int) -> datetime | None:
    try:
        return of_ms(timestamp_ms)
    except InstantError:
        return None
