"""Notifications: signed, delivered at least once, again and again until they are taken."""

from __future__ import annotations

import asyncio
import hmac
from collections import defaultdict
from collections.abc import Coroutine, Mapping
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Any

import aiohttp
from msgspec.structs import replace

from service.lab.provider.desk import Desk
from service.lab.provider.faces import Face, Letter
from service.lab.provider.faults import Fault
from service.lab.provider.rows import Notice

TIMEOUT = aiohttp.ClientTimeout(total=5)
AT_ONCE = 32
ANSWER_BYTES_MAX = 1 << 16
POSTPONED = ("notify_late", "notify_reordered")


def signature(secret: str, body: bytes, at: datetime) -> str:
    """The sandbox's: `t=<seconds since 1970>,v1=<hex HMAC-SHA256 of "t.body">`; `at` is the machine's time."""
    seconds = str(int(at.timestamp()))
    digest = hmac.digest(secret.encode(), seconds.encode() + b"." + body, "sha256").hex()
    return f"t={seconds},v1={digest}"


class Courier:
    """Delivers what is due, a bounded number at once."""

    def __init__(self, desk: Desk, session: aiohttp.ClientSession, faces: Mapping[str, Face]) -> None:
        self._desk = desk
        self._session = session
        self._faces = faces
        self._under_way: set[asyncio.Task[None]] = set()
        self._overtaken: defaultdict[str, list[int]] = defaultdict(list)  # By account: to come after the next one.
        self._replays: list[tuple[datetime, int, str, Letter]] = []
        self._replays_made = count()

    async def round(self) -> None:
        """Starts the delivery of everything due; returns when there is room again."""
        now = self._desk.clock.now()
        books = self._desk.books
        while books.due_notices and books.due_notices[0][0] <= now:
            due_at, number = heappop(books.due_notices)
            notice = books.notices.get(number)
            if notice and notice.next_at == due_at:
                await self._start(self._deliver(notice, now))
        while self._replays and self._replays[0][0] <= now:
            _, _, url, letter = heappop(self._replays)
            await self._start(self._replay(url, letter))

    async def all(self) -> None:
        """Delivers everything due and waits until it is answered."""
        await self.round()
        await asyncio.gather(*self._under_way)

    async def close(self) -> None:
        """Ends what is under way; it is delivered again in the next life."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _start(self, delivery: Coroutine[Any, Any, None]) -> None:
        if len(self._under_way) >= AT_ONCE:
            try:
                await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                delivery.close()  # It is never begun: delivered in the next life.
                raise
        task = asyncio.create_task(delivery)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _deliver(self, notice: Notice, now: datetime) -> None:
        books = self._desk.books
        account = books.accounts[notice.account_id]
        names = self._desk.names(account, notice.key) if self._desk.faults.scripted else ()
        fault = self._desk.faults.of_notice(notice.account_id, notice.key, names)
        if fault and fault.kind in POSTPONED:
            books.put(replace(notice, next_at=now + timedelta(seconds=fault.wait_s)))
            if fault.kind == "notify_reordered":
                self._overtaken[notice.account_id].append(notice.number)
            return
        taken = await self._send(notice, fault, now)
        waits = self._faces[account.face].retry_s
        wait = None if taken or notice.attempts >= len(waits) else timedelta(seconds=waits[notice.attempts])
        next_at = None if wait is None else self._desk.clock.now() + wait
        books.put(replace(notice, attempts=notice.attempts + 1, delivered=taken, next_at=next_at))
        for number in self._overtaken.pop(notice.account_id, ()):
            if number in books.notices:
                books.put(replace(books.notices[number], next_at=self._desk.clock.now()))

    async def _send(self, notice: Notice, fault: Fault | None, now: datetime) -> bool:
        """Delivers as the fault has it; True when the merchant took it."""
        account = self._desk.books.accounts[notice.account_id]
        face, kind = self._faces[account.face], fault.kind if fault else ""
        url = notice.url or account.notify_url
        if url is None or kind == "notify_lost":
            return url is None
        if kind == "notify_unknown_enum":
            notice = face.strange(notice)
        letter = face.letter(account, notice, now, skew_s=fault.wait_s if fault and kind == "notify_skew" else 0.0)
        match kind:
            case "notify_tampered":
                return await self._post(face, url, face.tampered(letter))
            case "notify_twice":
                first = await self._post(face, url, letter)
                return await self._post(face, url, letter) or first
            case "notify_both_at_once":
                return any(await asyncio.gather(*(self._post(face, url, letter) for _ in range(2))))
            case "notify_replayed" if fault:
                heappush(self._replays, (now + timedelta(seconds=fault.wait_s), next(self._replays_made), url, letter))
        return await self._post(face, url, letter)

    async def _replay(self, url: str, letter: Letter) -> None:
        await self._post(None, url, letter)

    async def _post(self, face: Face | None, url: str, letter: Letter) -> bool:
        try:
            async with self._session.post(url, data=letter.body, headers=letter.headers, timeout=TIMEOUT) as answer:
                body = await answer.content.read(ANSWER_BYTES_MAX)
                return face is not None and face.taken(answer.status, body)
        except (aiohttp.ClientError, TimeoutError):
            return False
