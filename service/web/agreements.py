"""Agreements: signed, looked at, revoked; and whether a rider may ride on one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, QueryParameter, RawBody
from msgspec import Meta

from service.adapters.postgres.reading import BIGINT_MAX
from service.billing.outcomes import RiderAction
from service.flows.agreement_replies import AgreementView, Eligibility, EligibilityAsk, NewAgreement
from service.web.access import access_of, needs
from service.web.answers import Asked, Cursor, Id, Limit, Name, Page, Text, answer, read, read_cursor, write_cursor
from service.web.doors import doors_of
from service.web.idempotency import Key, once
from service.web.problems import not_found
from service.web.sessions import Filter

AgreementState = Literal["pending", "active", "suspended", "refused", "revoked", "expired"]


class AgreementRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An agreement to be signed; what is left out is the operator's, or the provider's.

    `rider_ref` is opaque: never a name, a phone number, an identity number. `cap_minor`, in minor units, is what holds
    ask for, unless the provider says another; where neither says one, it is that of the operator's policy on holds.
    `language` is `zh` or `en`; left out, `zh` for agreements in CNY and else `en`.
    """

    agreement_id: Id
    rider_ref: Id
    account_id: Name | None = None
    currency: Name | None = None
    cap_minor: Annotated[int, Meta(ge=1, le=BIGINT_MAX)] | None = None
    time_zone: Name | None = None
    language: Name | None = None
    return_url: Text | None = None


class AgreementAnswer(msgspec.Struct, frozen=True):
    """An agreement; `action` is what the rider must do while it is pending, `reason` what the provider said when it
    refused or ended it. `ending_at`: it is revoked, and its provider, who would collect nothing on it any more, is told
    once what was ridden is paid."""

    agreement_id: str
    rider_ref: str
    account_id: str
    provider: str
    state: str
    currency: str
    cap_minor: int | None
    time_zone: str
    language: str
    action: RiderAction | None
    reason: str | None
    valid_until: datetime | None
    ending_at: datetime | None
    created_at: datetime
    version: int


class EligibilityRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """May the rider of this agreement begin a ride, on this tariff if one is named?"""

    agreement_id: Id
    tariff_id: Name | None = None


@get("/v1/agreements", opt=needs("status:read", riders=True), tags=["agreements"])
async def list_agreements(
    request: Asked,
    rider_ref: Filter = None,
    agreement_state: Annotated[AgreementState | None, QueryParameter(name="state")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response[Page[AgreementAnswer]]:
    """Agreements, oldest first, by rider or state."""
    doors, access = doors_of(request), access_of(request)
    after = read_cursor("a", cursor, (BIGINT_MAX,))[0] if cursor else 0
    if not access.sees(rider_ref or access.rider_ref):
        return answer(request, Page[AgreementAnswer]([], None))
    found = await doors.agreements.page(
        access.operator_no,
        after=after,
        rider_ref=rider_ref or access.rider_ref,
        state=agreement_state,
        limit=limit + 1,
    )
    following = write_cursor("a", found[limit - 1].agreement_no) if len(found) > limit else None
    return answer(request, Page([_told(view) for view in found[:limit]], following))


@post("/v1/agreements", opt=needs("billing:write") | {"body": AgreementRequest}, tags=["agreements"])
async def create_agreement(request: Asked, body: RawBody, idempotency_key: Key) -> Response[AgreementAnswer]:
    """Begin to sign an agreement: while it is `pending`, `action` says what the rider must do."""
    asked = read(_NEW, body)

    async def create() -> tuple[int, AgreementAnswer]:
        new = NewAgreement(**{name: getattr(asked, name) for name in AgreementRequest.__struct_fields__})
        return 201, _told(await doors_of(request).agreements.create(access_of(request).operator_no, new))

    return await once(request, "POST agreements", idempotency_key, asked, create)


@get("/v1/agreements/{agreement_id:str}", opt=needs("status:read", riders=True), tags=["agreements"])
async def get_agreement(request: Asked, agreement_id: FromPath[str]) -> Response[AgreementAnswer]:
    """One agreement; one that is not decided is asked about at the provider first."""
    doors, access = doors_of(request), access_of(request)
    await _must_be_there(request, agreement_id)
    return answer(request, _told(await doors.agreements.get(access.operator_no, agreement_id)), etag=True)


@post("/v1/agreements/{agreement_id:str}/revoke", status_code=200, opt=needs("billing:write"), tags=["agreements"])
async def revoke_agreement(
    request: Asked, agreement_id: FromPath[str], idempotency_key: Key
) -> Response[AgreementAnswer]:
    """End an agreement: no new ride from now on; what was ridden is still collected."""
    await _must_be_there(request, agreement_id)

    async def revoke() -> tuple[int, AgreementAnswer]:
        return 200, _told(await doors_of(request).agreements.revoke(access_of(request).operator_no, agreement_id))

    return await once(request, "POST agreements revoke", idempotency_key, agreement_id, revoke)


@post("/v1/eligibility", status_code=200, opt=needs("status:read") | {"body": EligibilityRequest}, tags=["agreements"])
async def eligibility(request: Asked, body: RawBody) -> Response[Eligibility]:
    """Whether a ride may begin; if not, why, and what the rider must do to sign."""
    asked = read(_ELIGIBILITY, body)
    ask = EligibilityAsk(
        operator_no=access_of(request).operator_no, agreement_id=asked.agreement_id, tariff_id=asked.tariff_id
    )
    return answer(request, await doors_of(request).agreements.eligibility(ask))


async def _must_be_there(request: Asked, agreement_id: str) -> None:
    """The agreement in the address is the caller's; a 404 problem otherwise."""
    access = access_of(request)
    async with doors_of(request).asking() as store:
        known = await store.agreement(access.operator_no, agreement_id)
    if known is None or not access.sees(known.rider_ref):
        raise not_found("agreement")


def _told(view: AgreementView) -> AgreementAnswer:
    return AgreementAnswer(**{name: getattr(view, name) for name in AgreementAnswer.__struct_fields__})


_NEW = msgspec.json.Decoder(AgreementRequest)
_ELIGIBILITY = msgspec.json.Decoder(EligibilityRequest)
