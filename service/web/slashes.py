"""Ids with a slash in addresses: `/v1/sessions/a%2Fb` is the session a/b, and no address of its own.

Servers hand on a path that is decoded, in which an escaped slash looks like one that parts it. What stands in its place
while a route is found is in no id: ids are printable.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

_KEPT = "\ue000"


class App(Litestar):
    """The application, which finds routes with escaped slashes kept out of the way."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""
        raw: bytes = scope.get("raw_path") or b""
        if scope["type"] == "http" and b"%2f" in raw.lower():
            parts = raw.partition(b"?")[0].decode("ascii", "replace").split("/")
            scope["path"] = "/".join(unquote(part).replace("/", _KEPT) for part in parts)
        await super().__call__(scope, receive, send)


async def put_slashes_back(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """The guard of every route: what its path names has its slashes again."""
    scope = connection.scope
    params = scope["path_params"]
    if any(isinstance(value, str) and _KEPT in value for value in params.values()):
        scope["path_params"] = {
            name: with_slashes(value) if isinstance(value, str) else value for name, value in params.items()
        }


def with_slashes(path: str) -> str:
    """The path as it is told."""
    return path.replace(_KEPT, "/")
