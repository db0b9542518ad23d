"""The simulator as a server on loopback: doors, clock tick, courier."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web

from service.lab.provider.alipay.gateway import gateway
from service.lab.provider.alipay.messages import AlipayFace
from service.lab.provider.books import Books
from service.lab.provider.clock import ProviderClock
from service.lab.provider.courier import Courier
from service.lab.provider.desk import Desk
from service.lab.provider.faces import Face, notices_of
from service.lab.provider.faults import Faults, Rates
from service.lab.provider.journal import Journal
from service.lab.provider.merchants import answer_merchant, refuse
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Account
from service.lab.provider.sandbox import SandboxFace
from service.lab.provider.wechatpay.gateway import gateway as wechat_gateway
from service.lab.provider.wechatpay.messages import WeChatPayFace
from service.lab.provider.workshop import DOORS, opened, rider_page

TICK_S = 0.02
SHUTDOWN_S = 0.5
JOURNAL = "books.jsonl"
FACES: dict[str, Face] = {"sandbox": SandboxFace(), "alipay": AlipayFace(), "wechatpay": WeChatPayFace()}


class Plan(msgspec.Struct, frozen=True):
    """How to start the simulator. Port 0 takes a free one; without `directory` the books are in memory alone.

    Without `clock_shows` the clock goes on as the books have it, or as the machine's.
    """

    port: int = 0
    host: str = "127.0.0.1"
    seed: int = 0
    rates: Rates = Rates()
    directory: Path | None = None
    wallet_balance_minor: int = 10_000_000
    accounts: tuple[Account, ...] = ()
    clock_shows: datetime | None = None
    clock_speed: float = 1.0


@asynccontextmanager
async def simulator(plan: Plan) -> AsyncIterator[str]:
    """A running simulator; gives its address. Books of an earlier life in the directory are taken up."""
    journal = Journal(plan.directory / JOURNAL) if plan.directory else None
    books = Books(journal, plan.wallet_balance_minor)
    desk = Desk(books, ProviderClock(books), Faults(plan.seed, plan.rates), "")
    books.notice_of = notices_of(desk, FACES)
    for account in plan.accounts:
        books.put(opened(books, account))
    if plan.clock_shows is not None:
        desk.clock.set(plan.clock_shows, plan.clock_speed)
    runner = web.ServerRunner(web.Server(doors(desk), access_log=None), shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, plan.host, plan.port, backlog=1024)
        await site.start()
        desk.public_url = f"http://{plan.host}:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession() as session:
            courier = Courier(desk, session, FACES)
            desk.deliver = courier.all
            ticking = asyncio.create_task(_tick(desk, courier))
            try:
                yield desk.public_url
            finally:
                ticking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await ticking
                await courier.close()
    finally:
        await runner.cleanup()
        books.close()


def doors(desk: Desk) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """Everything the simulator answers, as a handler for a server: on sockets here, in memory in the simulation."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith("/v1/"):
            return await answer_merchant(desk, request)
        if request.path.startswith("/v3/"):
            return await wechat_gateway(desk, request)
        if request.path == "/gateway.do":
            return await gateway(desk, request)
        door = DOORS.get((request.method, request.path))
        if door is None and request.path.startswith("/rider/"):
            door = rider_page
        if door is None:
            return refuse(RefusedError(404, "NO_SUCH_ADDRESS", f"{request.method} {request.path} means nothing here"))
        try:
            return await door(desk, request)
        except RefusedError as refused:
            return refuse(refused)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            return refuse(RefusedError(400, "INVALID_REQUEST", str(error)))

    return answer


async def _tick(desk: Desk, courier: Courier) -> None:
    while True:
        desk.advance(desk.clock.now())
        await courier.round()
        await asyncio.sleep(TICK_S)
