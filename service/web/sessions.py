"""Rides: the list, and everything about one from one snapshot."""

from __future__ import annotations

from typing import Annotated

from litestar import Response, get
from litestar.params import FromPath, QueryParameter

from service.adapters.postgres.reading import BIGINT_MAX, Numbers
from service.billing.keys import session_key_bytes
from service.billing.sessions import SessionState
from service.web.access import access_of, needs
from service.web.answers import Asked, Cursor, Limit, Page, answer, read_cursor, write_cursor
from service.web.doors import doors_of
from service.web.problems import invalid
from service.web.shapes import SessionSummary, SessionView
from service.web.views import for_rider, rider_of, session_view, summary_of

AT_ONCE = 50
"""So many rides of a page are in memory with all that is known of them, and others are served in between."""
Filter = Annotated[str | None, QueryParameter(min_length=1, max_length=128)]


@get("/v1/sessions/{session_id:str}", opt=needs("status:read", riders=True), tags=["sessions"])
async def get_session(request: Asked, session_id: FromPath[str]) -> Response[SessionView]:
    """State, usage, charge lines, revisions, obligations, debits, refunds, hold, conflicts and source events."""
    doors, access = doors_of(request), access_of(request)
    rows = await doors.ride(access, session_id)
    view = session_view(rows, await doors.operator(access.operator_no))
    return answer(request, view if access.rider_ref is None else for_rider(view), etag=True)


@get("/v1/sessions", opt=needs("status:read", riders=True), tags=["sessions"])
async def list_sessions(
    request: Asked,
    session_id: Filter = None,
    agreement_id: Filter = None,
    rider_ref: Filter = None,
    session_state: Annotated[SessionState | None, QueryParameter(name="state")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response[Page[SessionSummary]]:
    """Rides, newest first, by session id, agreement, rider or state. A ride belongs to an agreement, and so to a rider,
    once it was decided under both its agreement and its tariff: what is parked or incomplete is found by its state."""
    doors, access = doors_of(request), access_of(request)
    before = read_cursor("s", cursor, (BIGINT_MAX,))[0]
    if session_id is not None and (agreement_id or rider_ref or session_state or cursor):
        raise invalid("query:session_id", "there is one ride of an id: give no other filter")
    if access.rider_ref is not None:
        if not access.sees(rider_ref or access.rider_ref):
            return answer(request, Page[SessionSummary]([], None))
        rider_ref = access.rider_ref
    operator = await doors.operator(access.operator_no)
    async with doors.asking() as store:
        if session_id is not None:
            number = await store.ride_no(session_key_bytes(access.operator_id, session_id))
            numbers = Numbers([] if number is None else [number], None)
        else:
            filters = {"state": session_state, "agreement_id": agreement_id, "rider_ref": rider_ref}
            numbers = await store.newest_sessions(access.operator_no, before, limit, **filters)
        items = list[SessionSummary]()
        for first in range(0, len(numbers.ride_nos), AT_ONCE):
            rows = await store.rides(numbers.ride_nos[first : first + AT_ONCE])
            items += [summary_of(ride, operator) for ride in rows if access.sees(rider_of(ride))]
    following = None if numbers.through_no is None else write_cursor("s", numbers.through_no)
    return answer(request, Page(items, following))
