"""A TCP proxy in front of a server of ours: it can be cut, so that the server is away for whoever goes through it; it
loses what the server answers; or it is slow, narrow, or leaves connections open that carry nothing any more."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Proxy:
    """Listens on a port of 127.0.0.1 and passes bytes on, until it is told otherwise; `mend` ends every trouble."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._stranded: set[asyncio.StreamWriter] = set()
        self._cut = False
        self._losing = False
        self._stranding = False
        self._delay_s = 0.0
        self._bytes_per_s: float | None = None
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> int:
        """Begins to listen, on a free port unless it is told which; returns the port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port)
        taken: int = self._server.sockets[0].getsockname()[1]
        return taken

    async def stop(self) -> None:
        """Ends every connection and the listening."""
        assert self._server is not None
        self.cut()
        self._server.close()
        for pump in self._pumps:
            pump.cancel()  # It may be waiting for a delay to be over.
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self) -> None:
        """The server is away: open connections break, new ones are closed at once."""
        self._cut = True
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()
        self._stranded.clear()

    def lose_replies(self) -> None:
        """What is sent arrives; instead of its answer the connection breaks."""
        self._losing = True

    def delay(self, seconds: float) -> None:
        """Whatever is sent arrives so much later, in both directions."""
        self._delay_s = seconds

    def throttle(self, bytes_per_s: float) -> None:
        """No connection carries more than that, in either direction."""
        self._bytes_per_s = bytes_per_s

    def strand(self) -> None:
        """Half-open: connections stay open at both ends and carry nothing any more, for ever; so do new ones, until it
        is mended. The server hears then that nobody is there; who connected has to find out for himself."""
        self._stranding = True
        self._stranded |= self._open

    def mend(self) -> None:
        """The server is back, and heard; what was stranded stays so at the end of who connected."""
        self._cut = self._losing = self._stranding = False
        self._delay_s, self._bytes_per_s = 0.0, None
        for writer in self._stranded & self._open:
            if writer.get_extra_info("peername")[:2] == self._target:
                writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        try:
            back_reader, back_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, back_writer}
        if self._stranding:
            self._stranded |= {writer, back_writer}
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
                if self._delay_s or self._bytes_per_s:
                    await asyncio.sleep(self._delay_s + len(data) / (self._bytes_per_s or float("inf")))
                if sink not in self._stranded:
                    sink.write(data)
                    await sink.drain()
        if sink not in self._stranded:
            sink.close()
            self._open.discard(sink)
