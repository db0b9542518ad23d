"""What a process that was told to stop says to its clients: ask elsewhere the next time."""

from __future__ import annotations

from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from service.web.health import Health

CLOSE = (b"connection", b"close")


class Leaving(ASGIMiddleware):
    """Closes a connection after its next answer once the process was told to stop (RFC 9112, 9.6): a client that finds
    it closed when he has just asked could not know whether he was heard."""

    def __init__(self, health: Health) -> None:
        self._health = health

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Passes the request on and adds to what is answered."""

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start" and self._health.leaving:
                message["headers"] = [*message["headers"], CLOSE]
            await send(message)

        await next_app(scope, receive, tell)
