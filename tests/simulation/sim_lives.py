"""The processes of the service, each a life that can end at any turn, and the provider's side of the wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from datetime import datetime
from typing import Literal

import aiohttp
from aiohttp import web
from memory_wire import MemoryConnector
from mortal_database import Connections, MortalDatabase
from sim_topic import GROUP, TOPIC
from turns import KilledError, Process, Turns

from service.adapters.clock import machine_now
from service.adapters.postgres import RACES, UNAVAILABLE
from service.adapters.providers import Providers, open_provider
from service.adapters.providers.port import Ack, BadNotification, MerchantAccount, Provider
from service.billing.agreements.standing import AgreementStatus, HoldStatus
from service.flows.agreements import Agreements
from service.flows.clock import BusinessClock
from service.flows.collection import Collection
from service.flows.collection.hearing import NoAnswerError
from service.flows.disputes import Disputes, announced
from service.flows.holds import Holds
from service.flows.housekeeping import Housekeeping
from service.flows.knowledge import Knowledge
from service.lab.provider.desk import Desk
from service.lab.provider.server import doors

API_KEY, NOTIFY_SECRET = "key-of-the-simulation", "secret-of-the-simulation"
CALL_S = 10.0
"""An adapter's timeout, virtual seconds."""


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Wire:
    """Requests in memory to the provider, and from it; each waits for its turn on arriving and on being answered.

    `tripped`: what a door raised that no door may raise, ours or the provider's.
    """

    def __init__(self, turns: Turns, desk: Desk) -> None:
        self._turns = turns
        self.calls = 0
        self.tripped: list[Exception] = []
        self._provider = web.Server(self._served(doors(desk)), access_log=None)

    def session(self, process: Process) -> aiohttp.ClientSession:
        """A process's connections to the provider."""

        async def before(request: aiohttp.ClientRequest) -> None:
            self.calls += 1
            if await self._turns.turn(process, f"call {request.method} {request.url.path}") == "cut":
                raise aiohttp.ClientConnectorError(request.connection_key, ConnectionRefusedError("refused"))

        connector = MemoryConnector(self._provider, before)
        timeout = aiohttp.ClientTimeout(total=CALL_S, connect=3.0)
        return aiohttp.ClientSession(connector=connector, timeout=timeout, raise_for_status=False)

    def courier_session(self, door: Handler) -> aiohttp.ClientSession:
        """The provider's connections to the door where we take notifications."""
        server = web.Server(self._served(door), access_log=None)

        async def before(_: aiohttp.ClientRequest) -> None:
            """It always gets through to our machine."""

        return aiohttp.ClientSession(connector=MemoryConnector(server, before))

    def _noting(self) -> ExitStack:
        """Notes what is raised within it, but for a connection that is gone."""

        def note(_: object, error: BaseException | None, __: object) -> None:
            if isinstance(error, Exception) and not isinstance(error, ConnectionResetError):
                self.tripped.append(error)

        noting = ExitStack()
        noting.push(note)
        return noting

    def _served(self, door: Handler) -> Handler:
        async def serve(request: web.BaseRequest) -> web.StreamResponse:
            def gone() -> bool:
                return request.transport is None or request.transport.is_closing()

            if await self._turns.turn(None, f"arrives {request.path}", gone) == "dropped":
                return web.Response(status=500)
            try:
                with self._noting():
                    answer = await door(request)
            except ConnectionResetError:  # Who asked is gone before he had asked all.
                return web.Response(status=500)
            await self._turns.turn(None, f"answered {request.path}")
            return answer

        return serve


class OpenProviders(Providers):
    """The real adapters of one life, over its connections in memory; what they sign has a world's own time, so that it
    is the same each time the world is played."""

    def __init__(self, session: aiohttp.ClientSession, signs_at: datetime) -> None:
        super().__init__()
        self._session = session
        self._signs_at = signs_at

    def of(self, account: MerchantAccount) -> Provider:
        """See Providers."""
        known = self._open.get(account.account_no)
        if known is None:
            known = self._open[account.account_no] = open_provider(account, self._session, lambda: self._signs_at)
        return known


class Life:
    """One life of one process of the service: every flow it may run."""

    def __init__(
        self,
        name: str,
        turns: Turns,
        connections: Connections,
        wire: Wire,
        now: Callable[[], datetime],
        signs_at: datetime,
        accounts: tuple[MerchantAccount, ...],
    ) -> None:
        self.process = Process(name)
        self.database = MortalDatabase(connections, turns, self.process)
        self.session = wire.session(self.process)
        self.providers = OpenProviders(self.session, signs_at)
        self._numbers = {account.account_id: account.account_no for account in accounts}
        for account in accounts:
            self.providers.of(account)
        self.agreements = Agreements(self.database, self.providers, now, now)
        self.holds = Holds(self.database, self.providers, now, now, self.agreements.look_again)
        by_number, look = self.providers.by_number, self.holds.look
        self.collection = Collection(self.database, by_number, now, now, concurrency=4, look_at_hold=look)
        self.disputes = Disputes(self.database, self.providers, self.collection.disputed, now, now)
        self.keep = Housekeeping(self.database, Knowledge(BusinessClock(now), 0), GROUP, TOPIC, now)
        self._now = now

    async def notified(self, request: web.BaseRequest) -> web.StreamResponse:
        """The door for notifications: a process that dies answers nothing, one without a database asks for it later."""
        account_no = self._numbers[request.path.rpartition("/")[2]]
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            ack = await self.heard(account_no, headers, await request.read())
        except KilledError:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        except (*RACES, *UNAVAILABLE, NoAnswerError):
            return web.Response(status=503)
        return web.Response(status=ack.status, body=ack.body)

    async def heard(self, account_no: int, headers: Mapping[str, str], body: bytes) -> Ack:
        """Takes in a notification as service.web.notifications does: believed by its signature alone."""
        notice = self.providers.by_number[account_no].parse_notification(headers, body, machine_now())
        if isinstance(notice, BadNotification):
            return notice.ack
        if notice.dispute is not None:
            await self.collection.disputed(account_no, notice.dispute)
            return notice.ack
        answer = notice.answer
        if notice.about == "dispute":
            await announced(self.database, account_no, notice.key, self._now())
        elif notice.about == "agreement" and not isinstance(answer, HoldStatus):
            await self.agreements.noticed(account_no, notice.key, answer, by_ref=notice.named_by == "agreement_ref")
        elif notice.about == "hold" and not isinstance(answer, AgreementStatus):
            await self.holds.noticed(account_no, notice.key, answer)
        elif not isinstance(answer, AgreementStatus | HoldStatus) and notice.named_by != "agreement_ref":
            about: Literal["debit", "refund"] = "refund" if notice.about == "refund" else "debit"
            await self.collection.noticed(account_no, notice.key, answer, notice.named_by, about, notice.payment)
        return notice.ack
