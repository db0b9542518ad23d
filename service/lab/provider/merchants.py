"""The sandbox face: `/v1/…`, bearer keys, our own JSON."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from aiohttp import web

from service.lab.provider import agreements, debits, desk
from service.lab.provider.desk import Desk
from service.lab.provider.mishaps import answer
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import (
    Account,
    Agreement,
    AskAgreement,
    AskDebit,
    AskHold,
    AskRefund,
    Debit,
    Hold,
    Refund,
)
from service.lab.provider.wire import Problem, ProblemBody, problem, rider_url, view

_ENCODER = msgspec.json.Encoder()


class Reduction(msgspec.Struct, frozen=True):
    """A debit's new, lower amount."""

    amount_minor: int


class Performance(msgspec.Struct, frozen=True):
    """A report about how the rider paid a debit: "completed" or "violated"."""

    debit: str
    record: str


def reduce_debit(at: Desk, account: Account, key: str, asked: Reduction, now: datetime) -> Debit:
    """See debits.reduce."""
    return debits.reduce(at.books, account, key, asked.amount_minor, now)


def request_payment(at: Desk, account: Account, key: str, asked: AskDebit, now: datetime) -> Any:
    """See debits.ask_rider; the answer has the link on which the rider pays."""
    row = desk.request_payment(at, account, key, asked, now)
    seen = view(row, account, at.public_url)
    if row.state in ("accepted", "declined"):
        return msgspec.structs.replace(seen, action_url=rider_url(at.public_url, account, "debit", asked.key))
    return seen


def report(at: Desk, account: Account, _: str, asked: Performance, now: datetime) -> Performance:
    """See desk.report."""
    if asked.record not in ("completed", "violated"):
        raise RefusedError(422, "INVALID_REQUEST", "record is neither completed nor violated")
    desk.report(at, account, asked.debit, asked.record, now)
    return asked


def about_account(at: Desk, account: Account, _: str, __: None, now: datetime) -> Any:
    """The account and all of its terms, the usual ones too; moves nothing."""
    terms = {name: getattr(account.terms, name) for name in account.terms.__struct_fields__}
    return {"account_id": account.account_id, "terms": terms}


def statement(at: Desk, account: Account, day: str, _: None, now: datetime) -> Any:
    """See desk.movements."""
    return desk.movements(at, account, day)


class Operation(msgspec.Struct, frozen=True):
    """What an address stands for: the operation's name, the shape of its body, what runs it."""

    name: str
    shape: Any
    run: Callable[[Desk, Account, str, Any, datetime], Any]


OPERATIONS: dict[tuple[str, str, bool, str], Operation] = {
    # (method, collection, with a key in the path, verb)
    ("POST", "agreements", False, ""): Operation("agreement.begin", AskAgreement, desk.begin_agreement),
    ("GET", "agreements", True, ""): Operation("agreement.get", None, desk.get_agreement),
    ("POST", "agreements", True, "revoke"): Operation("agreement.revoke", None, desk.revoke_agreement),
    ("POST", "holds", False, ""): Operation("hold.open", AskHold, desk.open_hold),
    ("GET", "holds", True, ""): Operation("hold.get", None, desk.get_hold),
    ("POST", "holds", True, "finish"): Operation("hold.finish", None, desk.finish_hold),
    ("POST", "holds", True, "release"): Operation("hold.release", None, desk.release_hold),
    ("POST", "debits", False, ""): Operation("debit.take", AskDebit, desk.take_debit),
    ("GET", "debits", True, ""): Operation("debit.get", None, desk.get_debit),
    ("POST", "debits", True, "nudge"): Operation("debit.nudge", None, desk.nudge_debit),
    ("POST", "debits", True, "reduce"): Operation("debit.reduce", Reduction, reduce_debit),
    ("POST", "debits", True, "close"): Operation("debit.close", None, desk.close_debit),
    ("POST", "debits", True, "settle_elsewhere"): Operation("debit.settle_elsewhere", None, desk.settle_elsewhere),
    ("POST", "payments", False, ""): Operation("debit.request_payment", AskDebit, request_payment),
    ("POST", "refunds", False, ""): Operation("refund.make", AskRefund, desk.make_refund),
    ("GET", "refunds", True, ""): Operation("refund.get", None, desk.get_refund),
    ("POST", "reports", False, ""): Operation("performance.report", Performance, report),
    ("GET", "statements", True, ""): Operation("statement.get", None, statement),
    ("GET", "account", False, ""): Operation("account.get", None, about_account),
}
_DECODERS = {op.shape: msgspec.json.Decoder(op.shape) for op in OPERATIONS.values() if op.shape}


async def answer_merchant(at: Desk, request: web.BaseRequest) -> web.Response:
    """Answers one call of a merchant, unless the script or the seed has something else in store."""
    account = at.books.accounts_by_api_key.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
    if account is None:
        return refuse(RefusedError(401, "UNAUTHORIZED", "no merchant account has this API key"))
    body = await request.read()
    try:
        operation, key, asked = _read(request, body)
    except RefusedError as refused:
        return refuse(refused)
    names = (*at.names(account, key), *at.names_of_asked(account, asked)) if at.faults.scripted else ()
    fault = at.faults.of_call(operation.name, account.account_id, key, names)
    return await answer(at, request, SandboxVoice(at, account, operation, key, asked), fault)


class SandboxVoice:
    """A call at the sandbox face; its answers carry no signature."""

    def __init__(self, at: Desk, account: Account, operation: Operation, key: str, asked: Any) -> None:
        self._desk = at
        self._account = account
        self._operation = operation
        self._key = key
        self._asked = asked
        self._body: Any = None
        self._status = 200

    def run(self, lag_s: float = 0.0) -> None:
        """Executes the call."""
        at, account, operation = self._desk, self._account, self._operation
        now = at.clock.now()
        at.advance(now)
        try:
            body = operation.run(at, account, self._key, self._asked, now)
            if isinstance(body, Agreement | Hold | Debit | Refund):
                body = view(at.seen(body, lag_s, now), account, at.public_url)
        except RefusedError as refused:
            self._body, self._status = problem(refused), refused.status
            return
        declined = operation.name == "debit.take" and body.state == "declined"
        self._body, self._status = body, 402 if declined else 200

    def answer(self) -> web.Response:
        """What the call is answered with."""
        return reply(self._body, self._status)

    def throttled(self, wait_s: float) -> web.Response:
        """429."""
        told = refuse(RefusedError(429, "RATE_LIMITED", "too many calls"))
        told.headers["Retry-After"] = f"{wait_s:g}"
        return told

    def failed(self) -> web.Response:
        """500."""
        return refuse(RefusedError(500, "SYSTEM_ERROR", "try again"))

    def unavailable(self, code: str | None) -> web.Response:
        """A problem in a 200."""
        return reply(ProblemBody(Problem(code or "SYSTEM_ERROR", "try again")))

    def strange_code(self, code: str | None) -> web.Response:
        """409 with a code that nobody listed."""
        return refuse(RefusedError(409, code or "STRANGE", "something new"))

    def strange_state(self, state: str | None) -> web.Response:
        """The answer with another state."""
        if not hasattr(self._body, "state"):
            return self.answer()
        return reply({**msgspec.to_builtins(self._body), "state": state or "quantum"}, self._status)

    def missigned(self, *, strange_key: bool) -> web.Response:
        """The answer as it is."""
        return self.answer()

    def revoke(self) -> None:
        """The rider ends the agreement that the call names."""
        at, account = self._desk, self._account
        named = getattr(self._asked, "agreement", None) or self._key
        if (account.account_id, named) in at.books.agreements:
            agreements.revoke(at.books, account, named, at.clock.now())


def reply(told: Any, status: int = 200) -> web.Response:
    """JSON."""
    return web.Response(body=_ENCODER.encode(told), status=status, content_type="application/json")


def refuse(refused: RefusedError) -> web.Response:
    """The problem body of a refusal."""
    return reply(problem(refused), refused.status)


def _read(request: web.BaseRequest, body: bytes) -> tuple[Operation, str, Any]:
    """The operation, the key it is about, and what was asked."""
    collection, _, rest = request.path.removeprefix("/v1/").partition("/")
    key, _, verb = rest.partition("/")
    operation = OPERATIONS.get((request.method, collection, bool(key), verb))
    if operation is None:
        raise RefusedError(404, "NO_SUCH_ADDRESS", f"{request.method} {request.path} means nothing here")
    if operation.shape is None:
        return operation, key, None
    try:
        asked = _DECODERS[operation.shape].decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError(400, "INVALID_REQUEST", str(error)) from None
    return operation, key or getattr(asked, "key", ""), asked
