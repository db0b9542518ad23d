"""`/v3/...`: every call is verified, and every answer to a believed one is signed."""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from typing import Any

import msgspec
from aiohttp import web

from service.lab.provider import agreements
from service.lab.provider.desk import Desk
from service.lab.provider.mishaps import answer
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Account
from service.lab.provider.signatures import new_key
from service.lab.provider.wechatpay.codes import NUMBERS, Saying, body_of, saying
from service.lab.provider.wechatpay.doors import Asked, key_of, operation_of, read
from service.lab.provider.wechatpay.requests import UnsignedError, detailed, verify
from service.lab.provider.wechatpay.signing import signed_headers
from service.lab.provider.wechatpay.visits import Visit
from service.lab.provider.wechatpay.wire import order_of, payment_of

STATES = ("state", "authorization_state", "trade_state", "status", "complaint_state")
"""Fields of answers that hold a state: the first that is there is what `unknown_enum` changes."""
SYSTEM_ERROR = Saying(500, "SYSTEM_ERROR", "268435461", "系统异常，请稍后重试")


async def gateway(desk: Desk, request: web.BaseRequest) -> web.Response:
    """Answers one call of a merchant, unless the script or the seed has something else in store."""
    body = await request.read()
    try:
        account = verify(desk.books, request, body)
    except UnsignedError as refused:
        number = NUMBERS["270924332" if refused.status == 401 else "268435464"].number
        return _plain(detailed(refused), refused.status, number)
    try:
        asked = read(request.method, request.path, request.query, body)
    except RefusedError as refused:
        return say(account, saying(refused), refused.message)
    voice = WeChatPayVoice(desk, account, asked)
    names = voice.names() if desk.faults.scripted else ()
    fault = desk.faults.of_call(voice.operation, account.account_id, voice.key, names)
    if fault and fault.kind == "clock_skew":
        voice.skew_s = fault.wait_s
    return await answer(desk, request, voice, fault)


class WeChatPayVoice:
    """A call at the face."""

    def __init__(self, desk: Desk, account: Account, asked: Asked) -> None:
        self._desk = desk
        self._account = account
        self._asked = asked
        self._said: Saying | None = None
        self._issue = ""
        self._body: Any = None
        self.skew_s = 0.0
        visit = self._enter()
        self.key = key_of(visit, asked)
        self.operation = operation_of(visit, asked, self.key)

    def names(self) -> tuple[str, ...]:
        """What else the call is about: numbers, openid, rider, order. For scripted faults."""
        visit, books = self._enter(), self._desk.books
        told = [str(value) for value in msgspec.to_builtins(self._asked.body).values() if isinstance(value, str)]
        told += [self._asked.number, self.key]
        if whose := getattr(self._asked.body, "openid", None):
            told += [visit.rider_of(whose), visit.code_of(whose)]
        for text in tuple(told):
            told += self._desk.names(self._account, text)
            paid = payment_of(text)
            row = books.debits_by_number.get(paid[0]) if paid else books.holds_by_number.get(order_of(text))
            if row is not None and row.account_id == self._account.account_id:
                told += [row.asked.key, *self._desk.names(self._account, row.asked.key)]
            if hold := books.holds.get((self._account.account_id, text)):
                told.append(hold.asked.agreement)
        return tuple(told)

    def run(self, lag_s: float = 0.0) -> None:
        """Executes the call."""
        visit, asked = self._enter(lag_s), self._asked
        self._desk.advance(visit.now)
        self._said = None
        try:
            self._body = asked.door.run(visit, asked.body, *((asked.number,) if asked.door.named else ()))
        except RefusedError as refused:
            self._said, self._issue = saying(refused), refused.message

    def answer(self) -> web.Response:
        """The answer, signed by the account's newest key; a file is not signed."""
        if self._said:
            return self._say(self._said, self._issue)
        if isinstance(self._body, bytes):
            return web.Response(body=self._body, content_type="text/plain", headers=_request_id(self._body, "0"))
        return _signed(self._account, self._text(), 200 if self._body is not None else 204, skew_s=self.skew_s)

    def throttled(self, wait_s: float) -> web.Response:
        """429; nothing says how long to wait."""
        return self._say(NUMBERS["268435472"])

    def failed(self) -> web.Response:
        """A bare 500 of the front."""
        return web.Response(text="Internal Server Error", status=500)

    def unavailable(self, code: str | None) -> web.Response:
        """500 SYSTEM_ERROR, signed: executed or not, the same request is to be sent again."""
        return self._say(SYSTEM_ERROR if code is None else saying(RefusedError(500, code, "try again")))

    def strange_code(self, code: str | None) -> web.Response:
        """400 with a code and a number that nobody listed."""
        return self._say(saying(RefusedError(400, code or "STRANGE", "something new")))

    def strange_state(self, state: str | None) -> web.Response:
        """The answer with another state."""
        field = next((name for name in STATES if isinstance(self._body, dict) and name in self._body), None)
        if field and not self._said:
            self._body = {**self._body, field: state or "QUANTUM"}
        return self.answer()

    def missigned(self, *, strange_key: bool) -> web.Response:
        """The answer under a signature that does not fit, or by a key whose serial number nobody knows."""
        told = self.answer()
        body = told.body if isinstance(told.body, bytes) else b""
        signed = body if strange_key else body + b" "
        told.headers.update(signed_headers(self._account, signed, key=_stranger() if strange_key else None))
        return told

    def revoke(self) -> None:
        """The rider ends the permission that the call, or its order, is about."""
        books, who = self._desk.books, self._account.account_id
        for name in (self.key, *self.names()):
            hold = books.holds.get((who, name))
            code = hold.asked.agreement if hold else name
            if (who, code) in books.agreements:
                agreements.revoke(books, self._account, code, self._desk.clock.now())
                return

    def _enter(self, lag_s: float = 0.0) -> Visit:
        return Visit(self._desk, self._account, self._desk.clock.now(), lag_s)

    def _text(self) -> bytes:
        return b"" if self._body is None else msgspec.json.encode(self._body)

    def _say(self, said: Saying, issue: str = "") -> web.Response:
        return say(self._account, said, issue, skew_s=self.skew_s)


def say(account: Account, said: Saying, issue: str = "", *, skew_s: float = 0.0) -> web.Response:
    """A signed refusal."""
    body = msgspec.json.encode(body_of(said, issue))
    return _signed(account, body, said.status, said.number, skew_s=skew_s)


def _signed(account: Account, body: bytes, status: int, number: str = "0", *, skew_s: float) -> web.Response:
    told = _plain(body, status, number)
    told.headers.update(signed_headers(account, body, skew_s=skew_s))
    return told


def _plain(body: bytes, status: int, number: str) -> web.Response:
    kind = "application/json" if body else None
    return web.Response(body=body, status=status, content_type=kind, headers=_request_id(body, number))


def _request_id(body: bytes, number: str) -> dict[str, str]:
    """Request-Id: hexadecimal digits, and at its end the number of what was wrong (排障手册)."""
    return {"Request-Id": f"08{blake2b(body, digest_size=20).hexdigest().upper()}-{number}"}


@cache
def _stranger() -> str:
    """A key that no merchant was given."""
    return new_key()
