"""The merchants' door: `/v1/…`, bearer keys, JSON, and every way in which an answer can get lost."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from service.lab.provider.desk import OPERATIONS, Desk, Operation
from service.lab.provider.faults import Fault
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Account
from service.lab.provider.wire import Problem, ProblemBody, problem

_ENCODER = msgspec.json.Encoder()
_DECODERS = {op.shape: msgspec.json.Decoder(op.shape) for op in OPERATIONS.values() if op.shape}
_HTML = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


async def answer_merchant(desk: Desk, request: web.BaseRequest) -> web.Response:
    """Answers one call of a merchant, unless the script or the seed has something else in store."""
    account = desk.books.accounts_by_api_key.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
    if account is None:
        return refuse(RefusedError(401, "UNAUTHORIZED", "no merchant account has this API key"))
    body = await request.read()
    try:
        operation, key, asked = _read(request, body)
    except RefusedError as refused:
        return refuse(refused)
    rider = desk.rider_of(account, key, asked) if desk.faults.scripted else ""
    fault = desk.faults.of_call(operation.name, account.account_id, key, rider)
    if fault is None:
        return reply(*_run(desk, account, operation, key, asked))
    return await _run_with(fault, request, desk, account, operation, key, asked)


def reply(answer: Any, status: int = 200) -> web.Response:
    """JSON."""
    return web.Response(body=_ENCODER.encode(answer), status=status, content_type="application/json")


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


def _run(desk: Desk, account: Account, operation: Operation, key: str, asked: Any) -> tuple[Any, int]:
    """Executes; gives the answer's body and its HTTP status."""
    now = desk.clock.now()
    desk.advance(now)
    try:
        answer = operation.run(desk, account, key, asked, now)
    except RefusedError as refused:
        return problem(refused), refused.status
    declined = operation.name == "debit.take" and answer.state == "declined"
    return answer, 402 if declined else 200


async def _run_with(
    fault: Fault, request: web.BaseRequest, desk: Desk, account: Account, operation: Operation, key: str, asked: Any
) -> web.Response:
    """One call with a fault on its way."""
    match fault.kind:
        case "throttle":
            answer = reply(ProblemBody(Problem("RATE_LIMITED", "too many calls")), 429)
            answer.headers["Retry-After"] = f"{fault.wait_s:g}"
            return answer
        case "error_before":
            return reply(ProblemBody(Problem("SYSTEM_ERROR", "try again")), 500)
        case "unknown_code":
            return reply(ProblemBody(Problem(fault.code or "STRANGE", "something new")), 409)
        case "drop":
            return _cut(request)
        case "slow":
            await asyncio.sleep(fault.wait_s)
    body, status = _run(desk, account, operation, key, asked)
    match fault.kind:
        case "lost":
            return _cut(request)
        case "error_after":
            return reply(ProblemBody(Problem("SYSTEM_ERROR", "try again")), 500)
        case "html":
            return web.Response(text=_HTML, status=502, content_type="text/html")
        case "truncated":
            return _cut(request, _ENCODER.encode(body), status)
        case "unknown_enum" if hasattr(body, "state"):
            return reply({**msgspec.to_builtins(body), "state": fault.code or "quantum"}, status)
    return reply(body, status)


def _cut(request: web.BaseRequest, body: bytes = b"", status: int = 200) -> web.Response:
    """Ends the connection: before the answer, or in the middle of its body."""
    transport = request.transport
    if transport is not None and body:
        head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        transport.write(head.encode() + body[: len(body) // 2])
        transport.close()
    elif transport is not None:
        transport.abort()
    return web.Response()
