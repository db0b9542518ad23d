"""Notifications: signed, delivered at least once, again and again until they are taken."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from heapq import heappop

import aiohttp
import msgspec
from msgspec.structs import replace

from service.lab.provider.books import Books
from service.lab.provider.desk import Desk
from service.lab.provider.rows import Account, Agreement, Debit, Hold, Notice, Refund, Row
from service.lab.provider.wire import ABOUT, View

RETRY_S = (1, 5, 15, 60, 600, 3600, 3600, 21_600, 86_400)
"""Waits after each attempt that was not taken, seconds of the provider's clock; after the last it is given up."""
TIMEOUT = aiohttp.ClientTimeout(total=5)
AT_ONCE = 32
_ENCODER = msgspec.json.Encoder()


class NoticeBody(msgspec.Struct):
    """The body of a notification; `id` stays the same over all attempts."""

    id: str
    account_id: str
    about: str
    at: datetime
    data: View


def notices_of(books: Books, now: Callable[[], datetime], view: Callable[..., View]) -> Callable[[Row], Notice | None]:
    """What tells whether a row that is about to be kept is worth a notification: its state or what was paid changed."""

    def notice_of(row: Row) -> Notice | None:
        if not isinstance(row, Agreement | Hold | Debit | Refund):
            return None
        account = books.accounts[row.account_id]
        if account.notify_url is None or not _changed(books, row):
            return None
        number, key = books.next_number(), row.asked.key
        body = NoticeBody(f"NO{number:010d}", row.account_id, ABOUT[type(row)], now(), view(row, account))
        return Notice(number, row.account_id, key, _ENCODER.encode(body).decode(), next_at=body.at)

    return notice_of


def signature(secret: str, body: bytes, at: datetime) -> str:
    """`t=<seconds since 1970>,v1=<hex HMAC-SHA256 of "t.body">`; `at` is the machine's time."""
    seconds = str(int(at.timestamp()))
    digest = hmac.digest(secret.encode(), seconds.encode() + b"." + body, "sha256").hex()
    return f"t={seconds},v1={digest}"


class Courier:
    """Delivers what is due, a bounded number at once."""

    def __init__(self, desk: Desk, session: aiohttp.ClientSession) -> None:
        self._desk = desk
        self._session = session
        self._under_way: set[asyncio.Task[None]] = set()

    async def round(self) -> None:
        """Starts the delivery of everything due; returns when there is room again."""
        now = self._desk.clock.now()
        books = self._desk.books
        while books.due_notices and books.due_notices[0][0] <= now:
            if len(self._under_way) >= AT_ONCE:
                await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
            due_at, number = heappop(books.due_notices)
            notice = books.notices.get(number)
            if notice and notice.next_at == due_at:
                task = asyncio.create_task(self._deliver(notice, now))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """Ends what is under way; it is delivered again in the next life."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _deliver(self, notice: Notice, now: datetime) -> None:
        books, faults = self._desk.books, self._desk.faults
        account = books.accounts[notice.account_id]
        rider = self._desk.rider_of(account, notice.key, None) if faults.scripted else ""
        fault = faults.of_notice(notice.account_id, notice.key, rider)
        kind = fault.kind if fault else ""
        if fault and kind == "notify_late":
            books.put(replace(notice, next_at=now + timedelta(seconds=fault.wait_s)))
            return
        body = notice.body.encode()
        taken = False
        if kind != "notify_lost":
            sent = body.replace(b'"paid_minor":', b'"paid_minor":9') if kind == "notify_tampered" else body
            taken = await self._post(account, body, sent)
        if kind == "notify_twice":
            taken = await self._post(account, body, body) or taken
        wait = None if taken or notice.attempts >= len(RETRY_S) else timedelta(seconds=RETRY_S[notice.attempts])
        next_at = None if wait is None else self._desk.clock.now() + wait
        books.put(replace(notice, attempts=notice.attempts + 1, delivered=taken, next_at=next_at))

    async def _post(self, account: Account, signed: bytes, sent: bytes) -> bool:
        assert account.notify_url is not None
        headers = {
            "Content-Type": "application/json",
            "Farebox-Signature": signature(account.notify_secret, signed, datetime.now(UTC)),
        }
        try:
            async with self._session.post(account.notify_url, data=sent, headers=headers, timeout=TIMEOUT) as answer:
                return answer.status in (200, 204)
        except (aiohttp.ClientError, TimeoutError):
            return False


def _changed(books: Books, row: Agreement | Hold | Debit | Refund) -> bool:
    at = (row.account_id, row.asked.key)
    known: Agreement | Hold | Debit | Refund | None
    match row:
        case Debit():
            known = books.debits_by_number.get(row.number)
            return known is None or (known.state, known.paid_minor) != (row.state, row.paid_minor)
        case Agreement():
            known = books.agreements.get(at)
        case Hold():
            known = books.holds.get(at)
        case Refund():
            known = books.refunds.get(at)
    return known is None or known.state != row.state
