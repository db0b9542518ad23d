"""Every error is an RFC 9457 problem document that names the field; none is a traceback."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import asyncpg
import msgspec
from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.enums import ParamType
from litestar.exceptions import HTTPException, ValidationException
from litestar.handlers import BaseRouteHandler
from litestar.params import ParameterKwarg, QueryParameter

from service.adapters.postgres import RACES, UNAVAILABLE
from service.adapters.providers.secrets import AccountSettingsError
from service.billing.agreements.asking import AskError, ConflictingAskError, UnknownAskError
from service.billing.instants import EXAMPLE
from service.billing.refusals import allowed_at, brief, pattern_in_words
from service.billing.tariffs.gbfs import TariffError
from service.flows.collection.hearing import NoAnswerError
from service.telemetry import Repeated, logger
from service.web.slashes import with_slashes

REPEATED = Repeated()
LOG = logger("web")
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
NAMED_MAX = 8
"""How many unknown parameters one problem names."""


class FieldProblem(msgspec.Struct, frozen=True):
    """What is wrong with one field: a JSON pointer into the body, or `query:`, `path:` or `header:` and a name."""

    field: str
    detail: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A problem document (RFC 9457). `type` is `urn:farebox:problem:` and a word that programs can act on."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: tuple[FieldProblem, ...] = ()


class ProblemError(Exception):
    """Ends a request with a problem; `kind` is the last word of its type."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})


def invalid(field: str, detail: str) -> ProblemError:
    """The request can't be used: what is wrong, with which field."""
    return ProblemError(422, "invalid", f"{field}: {detail}", [FieldProblem(field, detail)])


def not_found(what: str) -> ProblemError:
    """There is no such thing, or it is none of the caller's business: nobody can tell which."""
    return ProblemError(404, "not-found", f"there is no such {what}")


def conflict(detail: str, errors: Sequence[FieldProblem] = ()) -> ProblemError:
    """The state of things forbids it now."""
    return ProblemError(409, "conflict", detail, errors)


def away(what: str) -> ProblemError:
    """Something the service needs is away; the same request later may succeed."""
    return ProblemError(
        503, "unavailable", f"{what} can't be reached; try again", headers={"Retry-After": str(RETRY_AFTER_SECONDS)}
    )


def unusable(account: str) -> ProblemError:
    """A merchant account that this process can't open: no request again helps, whoever runs the service must act."""
    detail = f"{account} can't be used: its settings are refused; see /readyz and the log"
    return ProblemError(503, "account-unusable", detail)


def refused_tariff(error: TariffError, at: str = "") -> ProblemError:
    """A tariff that can't be used; `at` is where in the body its document stands."""
    detail = f"{error.problem}; {error.remedy}"
    path = at + error.path
    if missing := _NO_MEMBER.search(error.problem):
        path = f"{path}/{missing[1]}"
    return ProblemError(422, "tariff-refused", f"{path or '/'}: {detail}", [FieldProblem(path or "/", detail)])


async def refuse_unknown_parameters(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """The guard of every route that needs a token: a parameter that nobody knows would widen the answer in silence, and
    of one that is given twice, as of a header, nobody would know which one counts.

    Routes that anybody may use take any: a provider may add to the address that it was given.
    """
    if handler.opt.get("scope") is None:
        return
    headers = [name for name, _ in connection.scope["headers"]]
    for name in (b"idempotency-key", b"authorization"):
        if headers.count(name) > 1:
            raise invalid(f"header:{name.decode().title()}", "given more than once; give it once")
    if not connection.query_params:
        return
    parameters = handler.parsed_fn_signature.parameters
    known = [
        _name(handler, key) for key, item in parameters.items() if isinstance(item.kwarg_definition, QueryParameter)
    ]
    unknown = [name for name in dict.fromkeys(connection.query_params) if name not in known][:NAMED_MAX]
    if unknown:
        allowed = f"allowed are {', '.join(known)}" if known else "this takes none"
        detail = f"there is no such parameter; {allowed}"
        errors = [FieldProblem(f"query:{name}", detail) for name in unknown]
        raise ProblemError(422, "invalid", f"{', '.join(error.field for error in errors)}: {detail}", errors)
    names = [name for name, _ in connection.query_params.multi_items()]
    twice = next((name for name in known if names.count(name) > 1), None)
    if twice is not None:
        raise invalid(f"query:{twice}", "given more than once; give it once")


def respond(request: Request[Any, Any, Any], problem: ProblemError) -> Response[bytes]:
    """The problem as a response."""
    body = Problem(
        type=f"urn:farebox:problem:{problem.kind}",
        title=HTTPStatus(problem.status).phrase,
        status=problem.status,
        detail=brief(problem.detail),
        instance=with_slashes(request.scope["path"]),
        errors=tuple(FieldProblem(brief(one.field), brief(one.detail)) for one in problem.errors),
    )
    headers = {"Cache-Control": "no-store", **problem.headers}
    return Response(msgspec.json.encode(body), status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


def _problem(request: Request[Any, Any, Any], error: ProblemError) -> Response[bytes]:
    return respond(request, error)


def _http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What the framework refuses: no route, no such method, too large."""
    status = error.status_code
    if status >= 500:
        return _bug(request, error)
    kind = HTTPStatus(status).phrase.lower().replace(" ", "-")
    detail = {404: "there is nothing at this address", 405: f"{request.method} is not possible here"}
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        detail[status] = f"the body is larger than {request.route_handler.resolve_request_max_body_size()} bytes"
    told = ProblemError(status, kind, detail.get(status, error.detail), headers=error.headers)
    return respond(request, told)


def _validation(request: Request[Any, Any, Any], error: ValidationException) -> Response[bytes]:
    """A path, query or header value of the wrong kind."""
    extra = error.extra if isinstance(error.extra, list) else []
    errors = [
        FieldProblem(
            f"{_source(item.get('source'))}:{_name(request.route_handler, item.get('key', '?'))}",
            _words(item["message"]) + _allowed(request, item.get("key", "?"), item["message"]),
        )
        for item in extra
    ]
    if not errors and (missing := _MISSING.search(error.detail)):
        errors = [FieldProblem(f"{missing[1]}:{missing[2]}", "missing")]
    detail = "; ".join(f"{item.field}: {item.detail}" for item in errors) or error.detail
    return respond(request, ProblemError(422, "invalid", detail, errors))


def _asked(request: Request[Any, Any, Any], error: AskError) -> Response[bytes]:
    field = f"/{error.field}"
    errors = [FieldProblem(field, error.message)]
    if isinstance(error, ConflictingAskError):
        return respond(request, ProblemError(409, "conflict", f"{field}: {error.message}", errors))
    if isinstance(error, UnknownAskError):
        return respond(request, ProblemError(422, "unknown", f"{field}: {error.message}", errors))
    return respond(request, ProblemError(422, "invalid", f"{field}: {error.message}", errors))


def _tariff(request: Request[Any, Any, Any], error: TariffError) -> Response[bytes]:
    return respond(request, refused_tariff(error))


def _account(request: Request[Any, Any, Any], error: AccountSettingsError) -> Response[bytes]:
    LOG.error("a merchant account can't be used", error=str(error))
    return respond(request, unusable(error.account))


def _away(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    held = REPEATED.passes(type(error).__name__)
    if held is not None:
        LOG.warning("no answer from PostgreSQL: 503", error=f"{type(error).__name__}: {error}", held_back=held)
    return respond(request, away("PostgreSQL"))


def _unconfirmed(request: Request[Any, Any, Any], error: NoAnswerError) -> Response[bytes]:
    return respond(request, away("the provider, to confirm what he tells,"))


def _race(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    LOG.info("somebody else was faster", error=f"{type(error).__name__}: {error}")
    told = ProblemError(409, "conflict", "somebody else decided this at the same time; try again")
    told.headers["Retry-After"] = "1"
    return respond(request, told)


def _value(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """PostgreSQL refuses a value that no check of ours caught, such as a NUL in a text."""
    LOG.warning("a value was refused by PostgreSQL", error=f"{type(error).__name__}: {error}")
    detail = "a value can't be stored: a character or a number outside of what is allowed"
    return respond(request, ProblemError(422, "invalid", detail))


def _bug(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    LOG.error("request failed", method=request.method, path=request.scope["path"], exc_info=error)
    detail = "the fault is ours and was recorded; the same request again is safe"
    return respond(request, ProblemError(500, "internal", detail))


def _source(source: Any) -> str:
    return source.value if isinstance(source, ParamType) else str(source or ParamType.QUERY.value)


def _name(handler: BaseRouteHandler, key: str) -> str:
    """A parameter as the caller calls it."""
    parameter = handler.parsed_fn_signature.parameters.get(key)
    definition = None if parameter is None else parameter.kwarg_definition
    named = definition.name if isinstance(definition, ParameterKwarg) else None
    return named or key


def _allowed(request: Request[Any, Any, Any], key: str, message: str) -> str:
    """The words that a parameter may be, where one was given that is none of them."""
    parameter = request.route_handler.parsed_fn_signature.parameters.get(key)
    if parameter is None or not message.startswith("Invalid enum value"):
        return ""
    return f"; {allowed_at(parameter.annotation)}"


def _words(message: str) -> str:
    if message.startswith("Invalid RFC3339"):
        return f"not an RFC 3339 time, such as {EXAMPLE}; in an address + is written %2B"
    return pattern_in_words(message).split(" - ", maxsplit=1)[0].replace("`", "").replace("Expected", "expected")


_NO_MEMBER = re.compile(r"missing required field `([^`]+)`")
_MISSING = re.compile(r"Missing required (\w+) parameter '([^']+)'")
HANDLERS: dict[int | type[Exception], Callable[[Request[Any, Any, Any], Any], Response[bytes]]] = {
    **dict.fromkeys(UNAVAILABLE, _away),
    **dict.fromkeys(RACES, _race),
    asyncpg.DataError: _value,
    asyncpg.exceptions._base.DataError: _value,
    ProblemError: _problem,
    HTTPException: _http,
    ValidationException: _validation,
    AskError: _asked,
    TariffError: _tariff,
    AccountSettingsError: _account,
    NoAnswerError: _unconfirmed,
    Exception: _bug,
}
"""How each kind of exception is answered."""
