"""Debits: the list, and the whole life of one."""

from __future__ import annotations

import re
from typing import Annotated

from litestar import Response, get
from litestar.params import FromPath, QueryParameter

from service.adapters.postgres.reading import BIGINT_MAX, DebitPage, DebitRow, RideRows
from service.billing.debits.state import State
from service.web.access import access_of, needs
from service.web.answers import Asked, Cursor, Limit, Page, answer, read_cursor, write_cursor
from service.web.doors import doors_of
from service.web.problems import not_found
from service.web.sessions import Filter
from service.web.shapes import DebitStory, DebitView
from service.web.views import debit_for_rider, debit_story, debit_view, listed_for_rider, rider_of

ORDINAL_MAX = 2**15 - 1
DEBIT_ID = re.compile(r"(\d{1,19})-(\d{1,5})", re.ASCII)


@get("/v1/debits", opt=needs("status:read", riders=True), tags=["debits"])
async def list_debits(
    request: Asked,
    agreement_id: Filter = None,
    rider_ref: Filter = None,
    debit_state: Annotated[State | None, QueryParameter(name="state")] = None,
    overdue: Annotated[bool | None, QueryParameter()] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response[Page[DebitView]]:
    """Debits, newest first, by agreement, rider, state, or whether they are overdue."""
    doors, access = doors_of(request), access_of(request)
    ride_no, ordinal = read_cursor("d", cursor, (BIGINT_MAX, ORDINAL_MAX))
    if access.rider_ref is not None:
        if not access.sees(rider_ref or access.rider_ref):
            return answer(request, Page[DebitView]([], None))
        rider_ref = access.rider_ref
    asked = ((ride_no, ordinal), debit_state, overdue, limit)
    async with doors.asking() as store:
        if agreement_id is None and rider_ref is None:
            page = await store.newest_debits(access.operator_no, *asked)
        else:
            agreements = await store.agreement_numbers(access.operator_no, agreement_id, rider_ref)
            page = await store.newest_debits_of(agreements, *asked) if agreements else DebitPage([], None)
    following = None if page.through is None else write_cursor("d", *page.through)
    told = [debit_view(row) for row in page.debits]
    mine = told if access.rider_ref is None else [listed_for_rider(view) for view in told]
    return answer(request, Page(mine, following))


@get("/v1/debits/{debit_id:str}", opt=needs("status:read", riders=True), tags=["debits"])
async def get_debit(request: Asked, debit_id: FromPath[str]) -> Response[DebitStory]:
    """One debit with its transitions and refunds."""
    row, rows = await debit_of(request, debit_id)
    told = debit_story(row, rows)
    return answer(request, told if access_of(request).rider_ref is None else debit_for_rider(told), etag=True)


async def debit_of(request: Asked, debit_id: str) -> tuple[DebitRow, RideRows]:
    """A debit of the caller, and its ride; a 404 problem for any other."""
    doors, access = doors_of(request), access_of(request)
    named = DEBIT_ID.fullmatch(debit_id)
    if named is None or int(named[1]) > BIGINT_MAX:
        raise not_found("debit")
    async with doors.asking() as store:
        rows = await store.ride(int(named[1]))
    found = [debit for debit in rows.debits or [] if debit.ordinal == int(named[2])]
    if not found or found[0].operator_no != access.operator_no:
        raise not_found("debit")
    access.must_see(rider_of(rows), "debit")
    return found[0], rows
