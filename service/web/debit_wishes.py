"""What people do to a debit: support stops it, finance decides about it, a rider's complaint is noted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
from litestar import Response, post
from litestar.params import FromPath, RawBody

from service.adapters.postgres.reading import DebitRow
from service.billing.debits.events import (
    DebitEvent,
    DisputeClosed,
    DisputeOpened,
    ImpossibleEventError,
    OperatorDecided,
    PaidElsewhere,
    Resumed,
    RetryAsked,
    Suspended,
)
from service.billing.debits.state import State
from service.web.access import needs
from service.web.answers import Asked, Name, Text, read
from service.web.debits import debit_of
from service.web.doors import doors_of
from service.web.idempotency import Key, once
from service.web.problems import FieldProblem, ProblemError, conflict, invalid
from service.web.shapes import DebitStory
from service.web.views import debit_story

WRITE = needs("billing:write")


class ReasonRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why; it stands in the debit's life. Never a name, a phone number, an identity number."""

    reason: Text


class DecisionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of a debit that nobody could find out: `settled`, the provider took all that was asked (with his
    number, where it is known); `submit_again`, he took nothing and is asked again under the same key; `cancel`, he took
    nothing and it is given up."""

    decision: Literal["settled", "submit_again", "cancel"]
    reason: Text
    provider_reference: Name | None = None


class DisputeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A complaint leaves the money where it is, a chargeback has taken it."""

    kind: Literal["complaint", "chargeback"]


class DisputeEndRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a dispute ended, seen from the operator: a complaint is `resolved`, a chargeback `won` or `lost`."""

    result: Literal["won", "lost", "resolved"]


@post("/v1/debits/{debit_id:str}/suspend", status_code=200, opt=WRITE | {"body": ReasonRequest}, tags=["debits"])
async def suspend_debit(
    request: Asked, debit_id: FromPath[str], body: RawBody, idempotency_key: Key
) -> Response[DebitStory]:
    """Stop a debit before it is taken ("the lock failed, the clock ran on"): nothing is tried until it is resumed."""
    asked = read(_REASON, body)
    wish = _Wish(
        Suspended(asked.reason),
        lambda row: row.suspended,
        "can't be suspended: that is possible before it is submitted, or while it waits for a retry or for the rider;"
        " what is paid can be refunded",
    )
    return await _happen(request, debit_id, idempotency_key, "suspend", asked, wish)


@post("/v1/debits/{debit_id:str}/resume", status_code=200, opt=WRITE, tags=["debits"])
async def resume_debit(request: Asked, debit_id: FromPath[str], idempotency_key: Key) -> Response[DebitStory]:
    """Let a suspended debit go on; its due day begins anew."""
    wish = _Wish(Resumed(), lambda row: not row.suspended, "can't be resumed")
    return await _happen(request, debit_id, idempotency_key, "resume", None, wish)


@post(
    "/v1/debits/{debit_id:str}/settle-elsewhere", status_code=200, opt=WRITE | {"body": ReasonRequest}, tags=["debits"]
)
async def settle_debit_elsewhere(
    request: Asked, debit_id: FromPath[str], body: RawBody, idempotency_key: Key
) -> Response[DebitStory]:
    """The rider has paid in another way: nothing more is asked of him, and the provider is told to stop where he can.
    What he takes all the same is given back by itself."""
    asked = read(_REASON, body)
    wish = _Wish(
        PaidElsewhere(asked.reason),
        lambda row: row.state == State.SETTLED_ELSEWHERE,
        "can't be settled elsewhere: that is possible while it is pending, waits for a retry or for the rider; a new"
        " one can be suspended, an unclear one decided, what is paid refunded",
    )
    return await _happen(request, debit_id, idempotency_key, "settle-elsewhere", asked, wish)


@post("/v1/debits/{debit_id:str}/decide", status_code=200, opt=WRITE | {"body": DecisionRequest}, tags=["debits"])
async def decide_debit(
    request: Asked, debit_id: FromPath[str], body: RawBody, idempotency_key: Key
) -> Response[DebitStory]:
    """The way out of `manual`: say what became of the debit, after a look at the provider's own books."""
    asked = read(_DECISION, body)
    if asked.provider_reference is not None and asked.decision != "settled":
        raise invalid("/provider_reference", "only a debit that is settled has the provider's number of a payment")
    wish = _Wish(
        OperatorDecided(asked.decision, asked.reason, asked.provider_reference),
        lambda row: row.state != State.MANUAL and row.attempts > 0 and row.reason == asked.reason,
        "can't be decided by hand: only one that is manual can; as long as a provider can be asked, he is",
    )
    return await _happen(request, debit_id, idempotency_key, "decide", asked, wish)


@post("/v1/debits/{debit_id:str}/disputes", status_code=200, opt=WRITE | {"body": DisputeRequest}, tags=["debits"])
async def open_dispute(
    request: Asked, debit_id: FromPath[str], body: RawBody, idempotency_key: Key
) -> Response[DebitStory]:
    """The rider complains at the provider, or his bank takes the money back: dunning and reports stop."""
    asked = read(_DISPUTE, body)
    wish = _Wish(
        DisputeOpened(asked.kind),
        lambda row: row.dispute == asked.kind,
        f"can't have a {asked.kind}: its provider has none",
    )

    def refuse(row: DebitRow) -> None:
        if row.dispute in ("complaint", "chargeback") and row.dispute != asked.kind:
            raise conflict(
                f"debit {debit_id} has a {row.dispute} already: close that first",
                [FieldProblem("/kind", f"a {row.dispute} is open")],
            )

    return await _happen(request, debit_id, idempotency_key, "disputes", asked, wish, refuse)


@post(
    "/v1/debits/{debit_id:str}/disputes/close",
    status_code=200,
    opt=WRITE | {"body": DisputeEndRequest},
    tags=["debits"],
)
async def close_dispute(
    request: Asked, debit_id: FromPath[str], body: RawBody, idempotency_key: Key
) -> Response[DebitStory]:
    """A dispute is over: what was stopped for it goes on."""
    asked = read(_DISPUTE_END, body)
    wish = _Wish(DisputeClosed(asked.result), lambda row: row.dispute == asked.result, "has no dispute to close")

    def refuse(row: DebitRow) -> None:
        ends = {"complaint": ("resolved",), "chargeback": ("won", "lost")}.get(row.dispute or "")
        if ends is None:
            raise conflict(f"debit {debit_id} has no open dispute", [FieldProblem("path:debit_id", "no open dispute")])
        if asked.result not in ends:
            raise invalid("/result", f"a {row.dispute} ends {' or '.join(ends)}")

    return await _happen(request, debit_id, idempotency_key, "disputes close", asked, wish, refuse)


@post("/v1/debits/{debit_id:str}/retry", status_code=200, opt=WRITE, tags=["debits"])
async def retry_debit(request: Asked, debit_id: FromPath[str], idempotency_key: Key) -> Response[DebitStory]:
    """Try a debit now, not when the calendar says; where its provider tries by himself, he is asked now."""
    wish = _Wish(
        RetryAsked(),
        lambda row: row.state == State.SUBMITTING,
        "can't be tried now: that is possible while it is new, waits for a retry, is pending or unknown; resume it if"
        " it is suspended, close its dispute; one that needs the rider is paid by him",
    )
    return await _happen(request, debit_id, idempotency_key, "retry", None, wish)


class _Wish(msgspec.Struct, frozen=True):
    """What is to happen, when it has happened already, and what is said where it can't."""

    event: DebitEvent
    fulfilled: Callable[[DebitRow], bool]
    refusal: str


async def _happen(
    request: Asked,
    debit_id: str,
    key: str,
    route: str,
    content: object,
    wish: _Wish,
    refuse: Callable[[DebitRow], None] = lambda _: None,
) -> Response[DebitStory]:
    """Lets it happen once. A wish that is fulfilled changes nothing: whoever asked may have died before the answer."""
    await debit_of(request, debit_id)

    async def work() -> tuple[int, DebitStory]:
        row, _ = await debit_of(request, debit_id)
        if not wish.fulfilled(row):
            refuse(row)
            try:
                await doors_of(request).collection.happen([((row.ride_no, row.ordinal), wish.event)])
            except ImpossibleEventError:
                raise impossible(debit_id, row, wish.refusal) from None
        return 200, await told(request, debit_id)

    return await once(request, f"POST debits {route}", key, (debit_id, content), work)


def impossible(debit_id: str, row: DebitRow, refusal: str) -> ProblemError:
    """The debit's state forbids it: which state, and what to do instead."""
    also = ", suspended" if row.suspended else ""
    detail = f"debit {debit_id} is {row.state}{also} and {refusal}"
    return conflict(detail, [FieldProblem("path:debit_id", f"{row.state}{also}")])


async def told(request: Asked, debit_id: str) -> DebitStory:
    """The debit as it is now."""
    row, rows = await debit_of(request, debit_id)
    return debit_story(row, rows.transitions or [], rows.refunds or [])


_REASON = msgspec.json.Decoder(ReasonRequest)
_DECISION = msgspec.json.Decoder(DecisionRequest)
_DISPUTE = msgspec.json.Decoder(DisputeRequest)
_DISPUTE_END = msgspec.json.Decoder(DisputeEndRequest)
