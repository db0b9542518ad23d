"""localstripe and its door (`service.lab.localstripe`) for the tests, which watch the calls that come; and by itself:
`python tests/localstripe_door.py` runs both until Ctrl-C.

What localstripe lacks is tried against `stripe_double` instead.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from service.lab import localstripe as lab
from service.lab.processes import free_ports

KEY = lab.KEY


class Door(lab.Door):
    """`seen` are the calls that came, as "METHOD path"."""

    def __init__(self, target: str, session: aiohttp.ClientSession) -> None:
        super().__init__(target, session)
        self.seen: list[str] = []
        self._when: dict[int, Callable[[], None]] = {}

    def at_call(self, number: int, do: Callable[[], None]) -> None:
        """Does something as soon as that many more calls have come, before the last of them is answered."""
        self._when[len(self.seen) + number] = do

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(f"{request.method} {request.path}")
        self._when.pop(len(self.seen), lambda: None)()
        return await super().handle(request)


class Localstripe(lab.Books):
    """A running localstripe: `url` of the door, `target` of itself."""

    def __init__(self, url: str, door: Door, session: aiohttp.ClientSession) -> None:
        super().__init__(door.target, session)
        self.url = url
        self.door = door

    async def charges(self, payment: str) -> list[Any]:
        """The charges of a payment that succeeded, by localstripe's books."""
        return [
            charge
            for charge in await self.list_all("charges")
            if charge["payment_intent"] == payment and charge["paid"]
        ]


@asynccontextmanager
async def localstripe() -> AsyncIterator[Localstripe]:
    """localstripe on a free port, and the door on another one."""
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(*lab.command(port), stdout=asyncio.subprocess.DEVNULL)
    try:
        async with aiohttp.ClientSession() as session:
            door = Door(f"http://127.0.0.1:{port}", session)
            await _until_up(process, port)
            async with lab.open_door(door) as url:
                yield Localstripe(url, door, session)
    finally:
        process.terminate()
        await process.wait()


async def _until_up(process: asyncio.subprocess.Process, port: int) -> None:
    while process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        return
    raise AssertionError("localstripe did not start")


async def _stay() -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with localstripe() as server:
        print(f"localstripe: {server.url}  (secret key {KEY})", flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_stay())
