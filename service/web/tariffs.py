"""Tariffs: the list, one with its versions, and the publication of a new version."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated

import msgspec
from litestar import Response, get, put
from litestar.params import FromPath, QueryParameter, RawBody
from msgspec.structs import replace

from service.adapters.postgres.holds import HoldStore
from service.adapters.postgres.operators import KnownOperator
from service.adapters.postgres.reading import VersionRow
from service.billing.instants import InstantError, utc
from service.billing.linting import lint_at
from service.billing.tariffs import TariffDocument, TariffDraft, import_document
from service.billing.tariffs.gbfs import TariffError
from service.flows.accounts import hold_cap_minor
from service.flows.tariffs import publish_tariff
from service.web.access import access_of, needs
from service.web.answers import Asked, Cursor, Limit, Page, answer, read, read_text_cursor, write_cursor
from service.web.doors import doors_of
from service.web.idempotency import OptionalKey, once
from service.web.problems import invalid, not_found, refused_tariff

VERSIONS_MAX = 1000


class FindingView(msgspec.Struct, frozen=True):
    """Something odd about a tariff that can be used, of itself or at this operator; `path` is a JSON pointer into its
    document."""

    code: str
    path: str
    message: str


class TariffSummary(msgspec.Struct, frozen=True):
    """The newest version of a tariff; it holds from `valid_from` on."""

    tariff_id: str
    version: int
    valid_from: datetime
    created_at: datetime
    digest: str


class TariffView(msgspec.Struct, frozen=True):
    """A version of a tariff with its whole document, the plan in it verbatim; `versions` are all there are."""

    tariff_id: str
    version: int
    valid_from: datetime
    document: msgspec.Raw
    versions: list[TariffSummary]


class PublishedView(msgspec.Struct, frozen=True):
    """The version that holds what was put; `created` is false where the newest said the same already."""

    tariff_id: str
    version: int
    valid_from: datetime
    created: bool
    warnings: list[FindingView]


@get("/v1/tariffs", opt=needs("status:read", riders=True), tags=["tariffs"])
async def list_tariffs(request: Asked, limit: Limit = 50, cursor: Cursor = None) -> Response[Page[TariffSummary]]:
    """The newest version of every tariff, by id."""
    after = read_text_cursor("t", cursor)
    async with doors_of(request).asking() as store:
        rows = await store.tariffs(access_of(request).operator_no, None, after, limit + 1)
    following = write_cursor("t", rows[limit - 1].tariff_id) if len(rows) > limit else None
    return answer(request, Page([_summary(row) for row in rows[:limit]], following))


@get("/v1/tariffs/{tariff_id:str}", opt=needs("status:read", riders=True), tags=["tariffs"])
async def get_tariff(
    request: Asked, tariff_id: FromPath[str], version: Annotated[int | None, QueryParameter(ge=1, le=2**31 - 1)] = None
) -> Response[TariffView]:
    """A tariff: its newest version, or the one asked for."""
    async with doors_of(request).asking() as store:
        rows = await store.tariffs(access_of(request).operator_no, tariff_id, None, VERSIONS_MAX)
        row = next((row for row in rows if version in (None, row.version)), None)
        if row is None:
            raise not_found("tariff version" if rows else "tariff")
        document = await HoldStore(store.connection).tariff_document(row.tariff_no, row.version)
    versions = [_summary(other) for other in rows]
    view = TariffView(row.tariff_id, row.version, row.valid_from, msgspec.Raw(document), versions)
    return answer(request, view, etag=True)


@put("/v1/tariffs/{tariff_id:str}", opt=needs("billing:write") | {"body": TariffDocument}, tags=["tariffs"])
async def put_tariff(
    request: Asked,
    tariff_id: FromPath[str],
    body: RawBody,
    valid_from: Annotated[datetime | None, QueryParameter(description="For a bare plan: from when it holds.")] = None,
    idempotency_key: OptionalKey = None,
) -> Response[PublishedView]:
    """Publish a new version: a tariff document, or a bare GBFS plan. The same again changes nothing (200, not 201), in
    whatever order its members come and however its numbers are written. What differs must begin later than now, or say
    what the version that begins when it does says: else it is refused with the paths at which it differs from the
    newest version."""
    draft = _draft(bytes(body), tariff_id)
    if valid_from is not None:
        if valid_from.tzinfo is None:
            raise invalid("query:valid_from", "the time has no offset from UTC")
        try:
            draft = replace(draft, valid_from=utc(valid_from))
        except InstantError as error:
            raise invalid("query:valid_from", f"the instant is {error}") from None

    async def publish() -> tuple[int, PublishedView]:
        doors = doors_of(request)
        operator = await doors.operator(access_of(request).operator_no)
        known = KnownOperator(operator.operator_no, operator.operator_id, operator.time_zone, operator.currency)
        now, lead = doors.now(), doors.settings.tariff_lead
        try:
            published = await publish_tariff(doors.working, known, draft, now=now, lead=lead, first_valid_from=now)
        except TariffError as error:
            raise refused_tariff(error) from None
        await doors.refresh()
        tariff = published.tariff
        cap_minor = await hold_cap_minor(doors.working, operator.operator_id)
        # It rates many rides: others are served meanwhile.
        findings = await asyncio.to_thread(lint_at, tariff, operator.currency, cap_minor)
        warnings = [FindingView(finding.code, finding.path, finding.message) for finding in findings]
        told = PublishedView(tariff_id, tariff.version, tariff.valid_from, published.created, warnings)
        return 201 if published.created else 200, told

    plan, rules = (_CONTENT.decode(raw) for raw in (draft.plan, draft.rules))
    said = (tariff_id, plan, rules, draft.valid_from, draft.time_zone)
    return await once(request, "PUT tariffs", idempotency_key, said, publish)


def _draft(body: bytes, tariff_id: str) -> TariffDraft:
    """The one tariff of the body, under the id of the address."""
    read(_ANY, body)
    try:
        drafts = import_document(body)
    except TariffError as error:
        raise refused_tariff(error) from None
    if len(drafts) != 1:
        raise invalid("/data/plans", f"{len(drafts)} plans; put one tariff at a time")
    if drafts[0].tariff_id != tariff_id:
        field = "/tariff_id" if drafts[0].plan_at == "/plan" else f"{drafts[0].plan_at}/plan_id"
        raise invalid(field, f"the document is about {drafts[0].tariff_id!r}, the address about {tariff_id!r}")
    return drafts[0]


def _summary(row: VersionRow) -> TariffSummary:
    return TariffSummary(row.tariff_id, row.version, row.valid_from, row.created_at, row.digest.hex())


_ANY = msgspec.json.Decoder()
_CONTENT = msgspec.json.Decoder(float_hook=str)
