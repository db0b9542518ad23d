"""`/gateway.do`: one address for every method; answers are signed over the raw text of `<method>_response`."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from aiohttp import web

from service.lab.provider import agreements
from service.lab.provider.alipay.certificates import DOWNLOAD, signer_sn
from service.lab.provider.alipay.codes import MESSAGES, GatewayRefusedError, refusal_body
from service.lab.provider.alipay.methods import METHODS, Method
from service.lab.provider.alipay.requests import CHARSETS, Request, content, read_params, verify
from service.lab.provider.alipay.visits import Answer, Visit
from service.lab.provider.desk import Desk
from service.lab.provider.mishaps import answer
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Account
from service.lab.provider.signatures import new_key, sign

STATES = (
    "trade_status",
    "agreement_status",
    "order_status",
    "refund_status",
    "status",
    "async_pay_apply_status",
    "credit_pay_mode",
)
"""Fields of answers that hold a state: the first that is there is what `unknown_enum` changes."""


async def gateway(desk: Desk, request: web.BaseRequest) -> web.Response:
    """Answers one call of a merchant, unless the script or the seed has something else in store."""
    params: dict[str, str] = {}
    try:
        params = read_params(request.query_string, await request.read())
        believed = verify(desk.books, params)
        method = METHODS.get(believed.method)
        if method is None:
            raise GatewayRefusedError("40002", "isv.invalid-method", "不存在的方法名")
        asked: Any = content(params, method.shape)
    except GatewayRefusedError as refused:
        account = desk.books.accounts_by_app_id.get(params.get("app_id", ""))
        return say(params, refused.body, account if refused.signed else None)
    voice = AlipayVoice(desk, believed, method, asked)
    names = voice.names() if desk.faults.scripted else ()
    fault = desk.faults.of_call(method.operation(asked), believed.account.account_id, voice.key, names)
    return await answer(desk, request, voice, fault)


class AlipayVoice:
    """A call at the gateway."""

    def __init__(self, desk: Desk, request: Request, method: Method, asked: Any) -> None:
        self._desk = desk
        self._request = request
        self._method = method
        self._asked = asked
        self._body: Answer = {}
        self._visit = self._enter()
        try:
            self.key = method.key(self._visit, asked)
        except RefusedError:
            self.key = ""

    def names(self) -> tuple[str, ...]:
        """What else the call is about: numbers, rider, order. For scripted faults."""
        account = self._request.account
        told = [str(value) for value in msgspec.to_builtins(self._asked).values() if isinstance(value, str)]
        for number in tuple(told):
            told += self._desk.names(account, number)
            for find in (self._visit.hold, self._visit.agreement, self._visit.trade):
                try:
                    told += self._desk.names(account, find(number, None).asked.key)
                    told.append(find(number, None).asked.key)
                except RefusedError:
                    continue
        return tuple(told)

    def run(self, lag_s: float = 0.0) -> None:
        """Executes the call."""
        self._visit = self._enter(lag_s)
        self._desk.advance(self._visit.now)
        try:
            told = self._method.run(self._visit, self._asked)
        except RefusedError as refused:
            self._body = refusal_body(refused, self._method.family)
            return
        self._body = {"code": "10000", "msg": MESSAGES["10000"]}
        self._body |= {name: value for name, value in told.items() if value is not None}

    def answer(self) -> web.Response:
        """The answer, signed by the account's newest key."""
        return self._say(self._body)

    def throttled(self, wait_s: float) -> web.Response:
        """40005 in a 200: the gateway has no 429."""
        return self._refuse("40005", "isv.app-call-limited", "应用调用次数超限")

    def failed(self) -> web.Response:
        """A bare 500 of the front."""
        return web.Response(text="Internal Server Error", status=500)

    def unavailable(self, code: str | None) -> web.Response:
        """20000, or a business system's own error (ACQ.SYSTEM_ERROR) in a 40004: executed or not."""
        said = code or "isp.unknow-error"
        return self._refuse("40004" if said.startswith("ACQ.") else "20000", said, "服务暂不可用")

    def strange_code(self, code: str | None) -> web.Response:
        """A business refusal with a code that nobody listed."""
        return self._refuse("40004", code or "ACQ.STRANGE", "something new")

    def strange_state(self, state: str | None) -> web.Response:
        """The answer with another state."""
        field = next((name for name in STATES if name in self._body), None)
        return self._say({**self._body, field: state or "QUANTUM"} if field else self._body)

    def missigned(self, *, strange_key: bool) -> web.Response:
        """The answer under a signature that does not fit."""
        if strange_key:
            return say(self._request.params, self._body, self._request.account, key=_stranger())
        return say(self._request.params, self._body, self._request.account, spoilt=True)

    def revoke(self) -> None:
        """The rider ends the agreement that the call, or its order, is about."""
        books, account = self._desk.books, self._request.account
        for name in (self.key, *self.names()):
            at = (account.account_id, name)
            named = books.holds[at].asked.agreement if at in books.holds else name
            if (account.account_id, named) in books.agreements:
                agreements.revoke(books, account, named, self._desk.clock.now())
                return

    def _enter(self, lag_s: float = 0.0) -> Visit:
        url = self._request.params.get("notify_url") or None
        return Visit(self._desk, self._request.account, self._desk.clock.now(), url, lag_s)

    def _refuse(self, code: str, sub_code: str, sub_msg: str) -> web.Response:
        return self._say({"code": code, "msg": MESSAGES[code], "sub_code": sub_code, "sub_msg": sub_msg})

    def _say(self, body: Answer) -> web.Response:
        return say(self._request.params, body, self._request.account)


def say(
    params: dict[str, str], body: Answer, account: Account | None, *, key: str | None = None, spoilt: bool = False
) -> web.Response:
    """An answer in the charset of the request; without an account it has no signature, like the real gateway's answer
    to an app id that it does not know, and to who asks for a certificate (smartwalle/alipay)."""
    encoding = CHARSETS.get(params.get("charset", "utf-8").lower(), "utf-8")
    name = params["method"].replace(".", "_") + "_response" if params.get("method") else "error_response"
    text = msgspec.json.encode(body).decode().encode(encoding)
    parts = [f'"{name}":'.encode(), text]
    if account and account.keys and params.get("method") != DOWNLOAD:
        signed = sign(key or account.keys[0], text + b" " * spoilt)
        if number := signer_sn(account, account.keys[0]):
            parts.append(f',"alipay_cert_sn":"{number}"'.encode("ascii"))
        parts.append(f',"sign":"{signed}"'.encode("ascii"))
    charset = "GBK" if encoding != "utf-8" else "utf-8"
    return web.Response(body=b"{" + b"".join(parts) + b"}", headers={"Content-Type": f"text/html;charset={charset}"})


@cache
def _stranger() -> str:
    """A key that no merchant was given."""
    return new_key()
