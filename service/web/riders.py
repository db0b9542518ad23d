"""A rider: agreements, debts, holds under way. Known by an opaque reference alone."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from litestar import Response, get
from litestar.params import FromPath

from service.adapters.postgres.agreements import AgreementStore
from service.adapters.postgres.reading import AgreementOfRider, HoldOfRider, ReadingStore
from service.billing.agreements import Debt, debts_refuse
from service.web.access import access_of, needs
from service.web.answers import Asked, answer
from service.web.doors import doors_of
from service.web.problems import not_found
from service.web.shapes import DebitView
from service.web.views import debit_view


class RiderView(msgspec.Struct, frozen=True):
    """A rider: at most 100 agreements and, of what is not settled, 100 debits, both newest first, and at most 100 holds
    under way.

    `debts` is the exposure: by currency, what is ridden and not paid over all agreements, and of that what is overdue;
    `exposure_max_minor` is what the operator allows of it before a ride begins (None: any amount). With anything
    overdue, or more than that, `refused` says why no ride may begin on any agreement.
    """

    rider_ref: str
    refused: str | None
    exposure_max_minor: int | None
    exposure_currency: str
    agreements: Sequence[AgreementOfRider]
    debts: Sequence[Debt]
    open_debits: list[DebitView]
    holds: Sequence[HoldOfRider]


@get("/v1/riders/{rider_ref:str}", opt=needs("status:read", riders=True), tags=["riders"])
async def get_rider(request: Asked, rider_ref: FromPath[str]) -> Response[RiderView]:
    """A rider's agreements, debts and holds: of agreements and of debits that are not settled the newest 100, of holds
    under way at most 100."""
    doors, access = doors_of(request), access_of(request)
    access.must_see(rider_ref, "rider")
    async with doors.reading.transaction(ReadingStore, snapshot=True) as store:
        rows = await store.rider(access.operator_no, rider_ref)
        if rows is None:
            raise not_found("rider")
        debts = await AgreementStore(store.connection).debts(rows.rider_no)
    limit, currency = rows.exposure_max_minor, rows.exposure_currency
    view = RiderView(
        rider_ref,
        debts_refuse(debts, currency, limit),
        limit,
        currency,
        rows.agreements or [],
        debts,
        [debit_view(debit) for debit in rows.debits or []],
        rows.holds or [],
    )
    return answer(request, view, etag=True)
