"""What people do to a debit: support stops it, finance decides about it, a rider's complaint is noted."""

from __future__ import annotations

import msgspec
from litestar import Response, post
from litestar.params import FromPath, RawBody

from service.billing.debits.events import GivenBack
from service.billing.debits.state import DisputeKind, DisputeResult
from service.flows import debit_wishes as wishes
from service.flows.debit_wishes import Decision, Wish, WishRefusedError, fulfil
from service.web.access import needs
from service.web.adjustments import Returned
from service.web.answers import Asked, Name, Text, read
from service.web.debits import debit_of
from service.web.doors import doors_of
from service.web.idempotency import Key, once
from service.web.problems import FieldProblem, ProblemError, conflict, invalid
from service.web.shapes import DebitStory, RefundAnswer
from service.web.views import debit_story, refund_answer

WRITE = needs("billing:write")


class ReasonRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why, and who decided, as your own system calls him; both stand in the debit's life. Never a name, a phone number,
    an identity number."""

    reason: Text
    by: Name | None = None


class GivenBackRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much the rider got back past the provider (cash, a transfer), or by a `refund` of the provider's that was
    made in his console; why, and who decided, as your own system calls him. Never a name, a phone number, an identity
    number."""

    amount_minor: Returned
    reason: Text
    by: Name | None = None
    refund: Name | None = None


class DecisionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of a debit that nobody could find out: `settled`, the provider took all that was asked (with his
    number, where it is known); `submit_again`, he took nothing and is asked again under the same key (a conflict where
    the debit's `owed_minor` is not above what was paid of it); `cancel`, he took nothing and it is given up. `by`: who
    decided, as your own system calls him."""

    decision: Decision
    reason: Text
    by: Name | None = None
    provider_reference: Name | None = None


class DisputeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A complaint leaves the money where it is, a chargeback has taken it."""

    kind: DisputeKind


class DisputeEndRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a dispute ended, seen from the operator: a complaint is `resolved`, a chargeback `won` or `lost`."""

    result: DisputeResult


@post("/v1/debits/{debit_id:str}/suspend", status_code=200, opt=WRITE | {"body": ReasonRequest}, tags=["debits"])
async def suspend_debit(
    request: Asked, debit_id: FromPath[str], body: RawBody, idempotency_key: Key
) -> Response[DebitStory]:
    """Stop a debit before it is taken ("the lock failed, the clock ran on"): nothing is tried until it is resumed."""
    asked = read(_REASON, body)
    wish = wishes.suspend(asked.reason, asked.by)
    return await _happen(request, debit_id, idempotency_key, "suspend", asked, wish)


@post("/v1/debits/{debit_id:str}/resume", status_code=200, opt=WRITE, tags=["debits"])
async def resume_debit(request: Asked, debit_id: FromPath[str], idempotency_key: Key) -> Response[DebitStory]:
    """Let a suspended debit go on; its due day begins anew, unless it is overdue already."""
    return await _happen(request, debit_id, idempotency_key, "resume", None, wishes.resume())


@post(
    "/v1/debits/{debit_id:str}/settle-elsewhere", status_code=200, opt=WRITE | {"body": ReasonRequest}, tags=["debits"]
)
async def settle_debit_elsewhere(
    request: Asked, debit_id: FromPath[str], body: RawBody, idempotency_key: Key
) -> Response[DebitStory]:
    """The rider has paid in another way: nothing more is asked of him, and the provider is told to stop where he can.
    What he takes all the same is given back by itself."""
    asked = read(_REASON, body)
    wish = wishes.settle_elsewhere(asked.reason, asked.by)
    return await _happen(request, debit_id, idempotency_key, "settle-elsewhere", asked, wish)


@post("/v1/debits/{debit_id:str}/given-back", status_code=200, opt=WRITE | {"body": GivenBackRequest}, tags=["debits"])
async def give_debit_back(
    request: Asked, debit_id: FromPath[str], body: RawBody, idempotency_key: Key
) -> Response[RefundAnswer]:
    """The rider got it back outside: of what he had paid elsewhere, or what its provider could not give back. No refund
    carries it any more. At most what the ride does not owe, and no refund may still give back. The same amount for the
    same reason is booked once: what he gets a second time has a reason of its own."""
    asked = read(_GIVEN_BACK, body)
    await debit_of(request, debit_id)

    async def work() -> tuple[int, RefundAnswer]:
        given = GivenBack(asked.amount_minor, wishes.said(asked.reason, asked.by), asked.refund)
        try:
            row, _ = await debit_of(request, debit_id)
            await wishes.give_back(doors_of(request).collection, row, given)
        except WishRefusedError as error:
            raise _refused(error) from None
        return 200, refund_answer(*await debit_of(request, debit_id))

    return await once(request, "POST debits given-back", idempotency_key, (debit_id, asked), work)


@post("/v1/debits/{debit_id:str}/decide", status_code=200, opt=WRITE | {"body": DecisionRequest}, tags=["debits"])
async def decide_debit(
    request: Asked, debit_id: FromPath[str], body: RawBody, idempotency_key: Key
) -> Response[DebitStory]:
    """The way out of `manual`: say what became of the debit, after a look at the provider's own books."""
    asked = read(_DECISION, body)
    wish = wishes.decide(asked.decision, asked.reason, asked.provider_reference, asked.by)
    return await _happen(request, debit_id, idempotency_key, "decide", asked, wish)


@post("/v1/debits/{debit_id:str}/disputes", status_code=200, opt=WRITE | {"body": DisputeRequest}, tags=["debits"])
async def open_dispute(
    request: Asked, debit_id: FromPath[str], body: RawBody, idempotency_key: Key
) -> Response[DebitStory]:
    """The rider complains at the provider, or his bank takes the money back: dunning and reports stop."""
    asked = read(_DISPUTE, body)
    return await _happen(request, debit_id, idempotency_key, "disputes", asked, wishes.open_dispute(asked.kind))


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
    wish = wishes.close_dispute(asked.result)
    return await _happen(request, debit_id, idempotency_key, "disputes close", asked, wish)


@post("/v1/debits/{debit_id:str}/retry", status_code=200, opt=WRITE, tags=["debits"])
async def retry_debit(request: Asked, debit_id: FromPath[str], idempotency_key: Key) -> Response[DebitStory]:
    """Try a debit now, not when the calendar says; where its provider tries by himself, he is asked now. What `stops`
    names holds it up all the same: it is tried when that is over."""
    return await _happen(request, debit_id, idempotency_key, "retry", None, wishes.retry())


@post("/v1/debits/{debit_id:str}/refunds/retry", status_code=202, opt=WRITE, tags=["debits"])
async def retry_refunds(request: Asked, debit_id: FromPath[str], idempotency_key: Key) -> Response[RefundAnswer]:
    """Give back what is owed back and does not come: refunds that wait are tried now, and for one that failed another
    is begun, once what it failed for is put right."""
    await debit_of(request, debit_id)

    async def work() -> tuple[int, RefundAnswer]:
        row, _ = await debit_of(request, debit_id)
        try:
            await wishes.refund_again(doors_of(request).collection, row)
        except WishRefusedError as error:
            raise _refused(error) from None
        return 202, refund_answer(*await debit_of(request, debit_id))

    return await once(request, "POST debits refunds retry", idempotency_key, debit_id, work)


async def _happen(
    request: Asked, debit_id: str, key: str, route: str, content: object, wish: Wish
) -> Response[DebitStory]:
    """Lets it happen once."""
    await debit_of(request, debit_id)

    async def work() -> tuple[int, DebitStory]:
        row, rows = await debit_of(request, debit_id)
        try:
            await fulfil(doors_of(request).collection, row, rows, wish)
        except WishRefusedError as error:
            raise _refused(error) from None
        return 200, await told(request, debit_id)

    return await once(request, f"POST debits {route}", key, (debit_id, content), work)


def _refused(error: WishRefusedError) -> ProblemError:
    field = "path:debit_id" if error.field == "debit_id" else f"/{error.field}"
    return invalid(field, str(error)) if error.wrong else conflict(str(error), [FieldProblem(field, str(error))])


async def told(request: Asked, debit_id: str) -> DebitStory:
    """The debit as it is now."""
    row, rows = await debit_of(request, debit_id)
    return debit_story(row, rows)


_REASON = msgspec.json.Decoder(ReasonRequest)
_GIVEN_BACK = msgspec.json.Decoder(GivenBackRequest)
_DECISION = msgspec.json.Decoder(DecisionRequest)
_DISPUTE = msgspec.json.Decoder(DisputeRequest)
_DISPUTE_END = msgspec.json.Decoder(DisputeEndRequest)
