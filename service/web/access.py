"""Who may do what: bearer tokens with scopes, each of one operator, some of one rider."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from service.adapters.clock import Clock
from service.adapters.postgres.tokens import Token, token_hash
from service.web.limits import Pace
from service.web.problems import ProblemError, not_found

Scope = Literal["status:read", "billing:write", "ops"]
TOKENS_MAX = 10_000
SECRET_CHARACTERS_MAX = 256


class Access(msgspec.Struct, frozen=True):
    """What a request may do: for which operator, with which scopes, and for which rider alone, if any."""

    operator_no: int
    operator_id: str
    scopes: frozenset[str]
    rider_ref: str | None = None

    def sees(self, rider_ref: str | None) -> bool:
        """Whether the affairs of this rider are the caller's."""
        return self.rider_ref is None or self.rider_ref == rider_ref

    def must_see(self, rider_ref: str | None, what: str) -> None:
        """Raises the same 404 for what is not there and for what is another rider's."""
        if not self.sees(rider_ref):
            raise not_found(what)


def needs(scope: Scope, *, riders: bool = False) -> dict[str, Any]:
    """The `opt` of a route: the scope it takes, and whether a rider's token may use it."""
    return {"scope": scope, "riders": riders}


OPEN: dict[str, Any] = {"scope": None}
"""The `opt` of a route that anybody may use."""


class Gate:
    """Looks up tokens, and remembers for a moment whom it let in."""

    def __init__(
        self,
        find: Callable[[bytes], Awaitable[Token | None]],
        machine: Clock,
        remember_seconds: float,
        *,
        rate: float,
        rider_rate: float,
    ) -> None:
        self._find = find
        self._pace, self._rider_pace = Pace(rate), Pace(rider_rate)
        self._machine = machine
        self._remember_seconds = remember_seconds
        self._known: dict[str, tuple[float, Access]] = {}

    async def enter(self, authorization: str | None) -> Access:
        """The access of an `Authorization` header; raises a 401 problem, or a 429 where it comes too often."""
        secret = _secret(authorization)  # The word before it may be written in many ways: it is one caller.
        access = await self._known_or_found(secret)
        (self._pace if access.rider_ref is None else self._rider_pace).take(secret)
        return access

    async def _known_or_found(self, secret: str) -> Access:
        """Whose the token is.

        A token is looked up by the hash of its secret, so that no comparison can be timed. One that was revoked is
        refused as soon as what is remembered of it is over.
        """
        known = self._known.get(secret)
        now = time.monotonic()
        if known is not None and known[0] > now:
            return known[1]
        token = await self._find(token_hash(secret))
        if token is None or (token.expires_at is not None and token.expires_at <= self._machine()):
            raise _unauthorized("the token is not known, was revoked or has expired")
        access = Access(token.operator_no, token.operator_id, frozenset(token.scopes), token.rider_ref)
        if len(self._known) >= TOKENS_MAX:
            self._known.clear()
        self._known[secret] = (now + self._remember_seconds, access)
        return access


def _secret(authorization: str | None) -> str:
    """The token of an `Authorization` header; raises a 401 problem."""
    if authorization is None:
        raise _unauthorized("this needs a token: Authorization: Bearer <token>")
    kind, _, secret = authorization.partition(" ")
    if kind.lower() != "bearer" or not 0 < len(secret) <= SECRET_CHARACTERS_MAX or not secret.isascii():
        raise _unauthorized("the Authorization header is not `Bearer <token>`")
    return secret


async def authorize(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """The guard of every route: lets in who has the scope. A route that says nothing lets nobody in."""
    scope = handler.opt.get("scope", "")
    if scope is None:
        return
    gate: Gate = connection.app.state.doors.gate
    access = await gate.enter(connection.headers.get("authorization"))
    if access.rider_ref is not None and not handler.opt.get("riders"):
        raise _forbidden("a rider's token can't be used here")
    if scope not in access.scopes:
        raise _forbidden(f"this needs a token with the scope {scope}")
    connection.scope[_ACCESS] = access  # type: ignore[literal-required]  # A place of our own in the scope.


def access_of(request: Request[Any, Any, Any]) -> Access:
    """The access that the guard let in."""
    access: Access = request.scope[_ACCESS]  # type: ignore[literal-required]  # As above.
    return access


_ACCESS = "farebox.access"


def _unauthorized(detail: str) -> ProblemError:
    return ProblemError(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="farebox"'})


def _forbidden(detail: str) -> ProblemError:
    return ProblemError(403, "forbidden", detail)
