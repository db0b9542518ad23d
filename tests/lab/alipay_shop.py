"""An Alipay merchant at the simulator's gateway, written from the documents: signs, asks, verifies, takes notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec
from aiohttp import web
from sandbox_peer import Peer, peer

from service.lab.provider.alipay.signing import notice_content, request_content
from service.lab.provider.rows import Account, AlipayMerchant, Terms
from service.lab.provider.server import Plan
from service.lab.provider.signatures import new_key, public_half, sign, verified

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
APP_ID, SELLER = "2021000000000001", "2088000000000001"
ZHIMA = "zhima.credit.payafteruse."
KEY, OTHER_KEY, PROVIDER_KEY = new_key(), new_key(), new_key()
SECONDS = 20


class Shop:
    """A merchant account and a rider with a wallet; the provider's clock stands still at `AT` until it is moved."""

    def __init__(self, peer: Peer, alipay_key: str) -> None:
        self.peer = peer
        self.alipay_key = alipay_key
        self.notices: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self.answer = "success"

    async def call(self, method: str, *, notify_url: str | None = None, **content: Any) -> Any:
        """The answer's fields; its signature is looked at."""
        params = signed(method, content, notify_url=notify_url)
        async with self.peer.session.post(self.peer.url + "/gateway.do", data=params) as answer:
            assert (answer.status, answer.content_type) == (200, "text/html"), await answer.text()
            return self.believed(method, await answer.read())

    def believed(self, method: str, body: bytes) -> Any:
        start = body.index(b":") + 1
        end = body.rindex(b',"sign":"')
        assert body.startswith(f'{{"{method.replace(".", "_")}_response":'.encode())
        signature = msgspec.json.decode(body)["sign"]
        assert verified(self.alipay_key, body[start:end], signature), "the answer's signature is wrong"
        return msgspec.json.decode(body[start:end])

    async def open(self, method: str, *, rider: str = "rider", answer: str = "confirm", **content: Any) -> Any:
        """The rider opens an order string in his app."""
        order_string = urlencode(signed(method, content))
        path = f"/alipay/rider?rider={rider}&answer={answer}"
        async with self.peer.session.post(self.peer.url + path, data=order_string) as told:
            return msgspec.json.decode(await told.read())

    async def agreement(self, key: str = "agr", rider: str = "rider") -> str:
        told = await self.open(
            f"{ZHIMA}creditagreement.sign", rider=rider, out_agreement_no=key, zm_service_id="s", category_id="c"
        )
        assert told["resultStatus"] == "9000", told
        return str(told["result"]["credit_agreement_id"])

    async def order(self, agreement: str, key: str = "order_01", **more: Any) -> Any:
        asked = {"credit_agreement_id": agreement, "out_order_no": key, "subject": "ride"} | more
        return await self.call(f"{ZHIMA}creditbizorder.order", **asked)

    async def pay(self, number: str, amount: str = "10.00", **more: Any) -> Any:
        asked: dict[str, Any] = {"out_trade_no": number, "auth_code": number, "is_async_pay": True}
        asked |= {"query_options": ["async_pay_info"]}
        asked |= {"scene": "ZHIMA_CREDIT_CODE", "total_amount": amount, "subject": "ride"}
        return await self.call("alipay.trade.pay", **(asked | more))

    async def ordered(self, key: str = "order_01") -> str:
        """The number of an order of a rider who signed."""
        return str((await self.order(await self.agreement(), key))["credit_biz_order_id"])

    async def status(self, number: str) -> Any:
        told = await self.call("alipay.trade.query", out_trade_no=number)
        return told.get("trade_status") or told["sub_code"]

    async def freeze(self, key: str = "auth_order_1", amount: str = "200.00", **more: Any) -> Any:
        asked = {"out_order_no": key, "out_request_no": f"{key}r", "amount": amount, "order_title": "a car"}
        return await self.open("alipay.fund.auth.order.app.freeze", **(asked | more))

    async def balance(self, balance_minor: int, rider: str = "rider") -> None:
        wallet = {"rider": rider, "currency": "CNY", "balance_minor": balance_minor}
        await self.peer.call("PUT", "/wallets", [wallet])

    async def later(self, by: timedelta) -> None:
        face = await self.peer.call("GET", "/clock")
        await self.peer.call("PUT", "/clock", {"now": datetime.fromisoformat(face["now"]) + by, "speed": 0})

    async def take(self, request: web.BaseRequest) -> web.Response:
        form = dict(parse_qsl((await request.read()).decode(), keep_blank_values=True))
        self.notices.put_nowait(form)
        return web.Response(text=self.answer)

    async def notice(self) -> dict[str, str]:
        """The next notification, whether it is to be believed or not."""
        async with asyncio.timeout(SECONDS):
            return await self.notices.get()

    def signed(self, form: dict[str, str]) -> bool:
        """Whether Alipay signed a notification, in one of its two ways."""
        ways = (notice_content(form), notice_content(form, with_type=True))
        return any(verified(self.alipay_key, way.encode(), form["sign"]) for way in ways)


def signed(
    method: str, content: dict[str, Any], other: Mapping[str, str] | None = None, *, notify_url: str | None = None
) -> dict[str, str]:
    """The parameters of a request, signed; `other` replaces or adds some before."""
    params = {
        "app_id": APP_ID,
        "method": method,
        "charset": "utf-8",
        "sign_type": "RSA2",
        "timestamp": "2026-11-22 18:00:00",
        "version": "1.0",
        "biz_content": msgspec.json.encode(content).decode(),
    } | dict(other or {})
    if notify_url:
        params["notify_url"] = notify_url
    return params | {"sign": sign(KEY, request_content(params).encode())}


@asynccontextmanager
async def shop(plan: Plan | None = None, *, notified: bool = False, **terms: Any) -> AsyncIterator[Shop]:
    """A shop; at its end the books explain themselves."""
    async with peer(plan) as at:
        await at.call("PUT", "/clock", {"now": AT, "speed": 0})
        it = Shop(at, "")
        runner = web.ServerRunner(web.Server(it.take, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/" if notified else None
        merchant = AlipayMerchant(APP_ID, public_half(KEY), SELLER)
        told = Terms(**({"provider_retries": True, "hold_needed": True} | terms))
        await at.call(
            "PUT", "/accounts", Account("shop", "", told, url, face="alipay", alipay=merchant, keys=(PROVIDER_KEY,))
        )
        (it.alipay_key,) = (await at.call("GET", "/keys?account=shop"))["public_keys"]
        try:
            yield it
            await at.books()
        finally:
            await runner.cleanup()
