"""TLS in front of a PostgreSQL that was built without it, as a pooler or a cloud's proxy ends it: the handshake of
PostgreSQL's protocol, then bytes. Who does not ask for TLS gets what `hostssl` rules alone in pg_hba.conf give him."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

SSL_REQUEST = 80877103
"""Source: PostgreSQL 18, "Message Formats": SSLRequest."""
REFUSAL = 'no pg_hba.conf entry for host "127.0.0.1", user "farebox", database "postgres", no encryption'


class TlsFront:
    """Listens on a port of 127.0.0.1 and shows the certificate that it was last given."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._pumps: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def show(self, certificate: str, key: str) -> None:
        """Which certificate whoever comes from now on is shown."""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)

    async def start(self) -> int:
        """Listens, and returns the port."""
        self._server = await asyncio.start_server(self._let_in, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Ends, and cuts whoever is connected."""
        assert self._server is not None
        self._server.close()
        for pump in self._pumps:
            pump.cancel()

    async def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            first = await reader.readexactly(8)
            if int.from_bytes(first[4:]) != SSL_REQUEST:
                fields = b"SFATAL\0VFATAL\0C28000\0M%b\0\0" % REFUSAL.encode()
                writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
                await writer.drain()
                writer.close()
                return
            writer.write(b"S")
            await writer.start_tls(self._context)
            inner_reader, inner_writer = await asyncio.open_connection(*self._target)
            for source, sink in ((reader, inner_writer), (inner_reader, writer)):
                pump = asyncio.create_task(_pump(source, sink))
                self._pumps.add(pump)
                pump.add_done_callback(self._pumps.discard)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    writer.close()
