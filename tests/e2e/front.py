"""A service in front of several `serve` processes, as Kubernetes has it, and clients that ask through it steadily.

Connections are passed on as they are: a new one goes to the next process that is ready, one that is there stays where
it is, also after its process has left the list. Whoever asks repeats nothing, so that each failure is seen.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from typing import Any

LOOK_SECONDS = 0.2
"""How late a process that is not ready any more leaves the list: a kubelet and a kube-proxy are not faster."""


class Front:
    """Listens on `port` of 127.0.0.1, and passes connections on to those that were ready when it last looked."""

    def __init__(self, ports: list[int]) -> None:
        self.port = 0
        self.ready: list[int] = []
        self._ports = ports
        self._turn = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    async def __aenter__(self) -> Front:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._keep(asyncio.create_task(self._look()))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self) -> None:
        while True:
            self.ready = [port for port in self._ports if await is_ready(port)]
            await asyncio.sleep(LOOK_SECONDS)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            port = self.ready[next(self._turn) % len(self.ready)]
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port)
        except (OSError, ZeroDivisionError):
            writer.transport.abort()  # Nobody is there: the client sees it.
            return
        self._keep(asyncio.create_task(_pump(reader, back_writer)))
        self._keep(asyncio.create_task(_pump(back_reader, writer)))


async def is_ready(port: int) -> bool:
    """What a kubelet asks a process."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: kubelet\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
    except OSError:
        return False
    return answer.startswith(b"HTTP/1.1 200 ")


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    sink.close()


class Asker:
    """A client on one connection after another, each kept as long as the other side keeps it; it repeats nothing."""

    def __init__(self, port: int, token: str, asked: Iterator[tuple[str, str, Any, set[int]]]) -> None:
        self.answered = 0
        self.connections = 0
        self.failed: list[str] = []
        self.stop = threading.Event()
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._asked = asked

    def run(self) -> None:
        """Asks until it is told to stop: (method, path, body, the answers that are no failure) one after the other."""
        for method, path, body, allowed in self._asked:
            if self.stop.wait(0.03):
                break
            self.connections += self._connection.sock is None
            try:
                content = json.dumps(body).encode() if body else None
                headers = self._headers | ({"Idempotency-Key": sha256(content).hexdigest()} if content else {})
                self._connection.request(method, path, content, headers)
                answer = self._connection.getresponse()
                said = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(f"{method} {path}: {type(error).__name__} {error}")
                self._connection.close()
                continue
            self.answered += 1
            if answer.status not in allowed:
                self.failed.append(f"{method} {path}: {answer.status} {said.decode()}")
        self._connection.close()
