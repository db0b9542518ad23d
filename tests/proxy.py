"""A TCP proxy in front of a server of ours: it can be cut, so that the server is away for whoever goes through it; or
it loses what the server answers."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Proxy:
    """Listens on a port of 127.0.0.1 and passes bytes on, until it is cut or loses replies; `mend` ends both."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._cut = False
        self._losing = False
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Begins to listen; returns the port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Ends every connection and the listening."""
        assert self._server is not None
        self.cut()
        self._server.close()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self) -> None:
        """The server is away: open connections break, new ones are closed at once."""
        self._cut = True
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    def lose_replies(self) -> None:
        """What is sent arrives; instead of its answer the connection breaks."""
        self._losing = True

    def mend(self) -> None:
        """The server is back, and heard."""
        self._cut = self._losing = False

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        back_reader, back_writer = await asyncio.open_connection(*self._target)
        self._open |= {writer, back_writer}
        for source, sink in ((reader, back_writer), (back_reader, writer)):
            pump = asyncio.create_task(self._pump(source, sink, answers=source is back_reader))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                if answers and self._losing:
                    sink.transport.abort()
                    break
                sink.write(data)
                await sink.drain()
        sink.close()
        self._open.discard(sink)
