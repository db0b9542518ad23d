"""Holds: asked for before the vehicle is unlocked, looked at, given up."""

from __future__ import annotations

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, RawBody

from service.billing.agreements.asking import UnknownAskError
from service.flows.hold_replies import HoldAsk, HoldReply
from service.web.access import access_of, needs
from service.web.answers import Asked, Id, Name, answer, read
from service.web.doors import doors_of
from service.web.idempotency import Key, once
from service.web.problems import not_found


class HoldRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """May this session's vehicle be unlocked? A hold is for one session id: asking again gives the same hold as it
    stands then, with the same Idempotency-Key too, and decides one anew that was refused."""

    session_id: Id
    agreement_id: Id
    tariff_id: Name
    vehicle_id: Name | None = None


@post("/v1/holds", status_code=200, opt=needs("billing:write") | {"body": HoldRequest}, tags=["holds"])
async def ask_hold(request: Asked, body: RawBody, idempotency_key: Key) -> Response[HoldReply]:
    """Open the provider's order for a session: allowed, refused, rider_action, or pending; ended, where its ride or its
    hold is over, and 409 where the ride is over and had none: another ride has a session of its own. Go by `unlock`.
    Where the agreement waits for its rider, its provider is asked first whether he has signed. Only `allowed` is kept
    under the key."""
    asked = read(_HOLD, body)

    async def ask() -> tuple[int, HoldReply]:
        hold = HoldAsk(
            operator_no=access_of(request).operator_no,
            session_id=asked.session_id,
            agreement_id=asked.agreement_id,
            tariff_id=asked.tariff_id,
            vehicle_id=asked.vehicle_id,
        )
        return 200, await doors_of(request).holds.ask(hold)

    return await once(request, "POST holds", idempotency_key, asked, ask, final=_allowed)


@get("/v1/holds/{session_id:str}", opt=needs("status:read"), tags=["holds"])
async def get_hold(request: Asked, session_id: FromPath[str]) -> Response[HoldReply]:
    """The hold of a session as it is known."""
    try:
        reply = await doors_of(request).holds.get(access_of(request).operator_no, session_id)
    except UnknownAskError:
        raise not_found("hold") from None
    return answer(request, reply, etag=True)


@post("/v1/holds/{session_id:str}/release", status_code=200, opt=needs("billing:write"), tags=["holds"])
async def release_hold(request: Asked, session_id: FromPath[str], idempotency_key: Key) -> Response[HoldReply]:
    """Give up a hold whose ride has not started; once it has, 409."""

    async def release() -> tuple[int, HoldReply]:
        try:
            return 200, await doors_of(request).holds.release(access_of(request).operator_no, session_id)
        except UnknownAskError:
            raise not_found("hold") from None

    return await once(request, "POST holds release", idempotency_key, session_id, release)


def _allowed(told: HoldReply) -> bool:
    """Anything else may be otherwise a second later: the rider signs, the provider answers."""
    return told.status == "allowed"


_HOLD = msgspec.json.Decoder(HoldRequest)
