"""How many requests each route answers, how, and how fast."""

from __future__ import annotations

import time

from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from service.telemetry import HTTP_REQUESTS, HTTP_SECONDS


class Measuring(ASGIMiddleware):
    """Counts every answer of a route, refusals included."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Passes the request on and looks at what is answered."""
        began = time.perf_counter()
        route = f"{scope.get('method', '')} {scope.get('path_template', '')}"

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                HTTP_REQUESTS.labels(route, message["status"]).inc()
                HTTP_SECONDS.labels(route).observe(time.perf_counter() - began)
            await send(message)

        await next_app(scope, receive, tell)
