"""HTTP without sockets: aiohttp's own client and server, joined in memory, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler


class MemoryTransport(asyncio.Transport):
    """One end of a connection in memory; what is written is received by the other end's protocol, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.BaseProtocol) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self._loop = loop
        self._protocol: Any = protocol
        self._other: MemoryTransport | None = None
        self._closing = False
        self._lost = False
        self._paused = False
        self._kept = bytearray()

    def join(self, other: MemoryTransport) -> None:
        """Both ends are connected."""
        self._other, other._other = other, self
        self._protocol.connection_made(self)
        other._protocol.connection_made(other)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self._closing and self._other is not None:
            self._loop.call_soon(self._other._receive, bytes(data))

    def close(self) -> None:
        self._end(None)

    def abort(self) -> None:
        self._end(ConnectionResetError("reset by the other end"))

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        kept, self._kept = bytes(self._kept), bytearray()
        if kept:
            self._loop.call_soon(self._receive, kept)

    def is_reading(self) -> bool:
        return not self._paused

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever buffered here."""

    def can_write_eof(self) -> bool:
        return False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def _receive(self, data: bytes) -> None:
        if self._lost:
            return
        if self._paused:
            self._kept += data
        else:
            self._protocol.data_received(data)

    def _end(self, error: Exception | None) -> None:
        if self._closing:
            return
        self._closing = True
        self._loop.call_soon(self._lose, None)
        if self._other is not None:
            self._loop.call_soon(self._other._ended, error)

    def _ended(self, error: Exception | None) -> None:
        if self._lost:
            return
        if error is None:
            self._protocol.eof_received()
        self._closing = True
        self._lose(error)

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._protocol.connection_lost(error)


class MemoryConnector(aiohttp.BaseConnector):
    """Connects every request to one server in memory, by a connection of its own; `before` may refuse it."""

    def __init__(
        self, serve: Callable[[], asyncio.BaseProtocol], before: Callable[[aiohttp.ClientRequest], Awaitable[None]]
    ) -> None:
        super().__init__(force_close=True, limit=0)
        self._serve = serve
        self._before = before

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: Any,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # The parameters are aiohttp's.
    ) -> ResponseHandler:
        await self._before(req)
        client: ResponseHandler = self._factory()
        MemoryTransport(self._loop, client).join(MemoryTransport(self._loop, self._serve()))
        return client
