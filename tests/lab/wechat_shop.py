"""A WeChat Pay merchant at the simulator's /v3, written from the documents: signs, asks, verifies, decrypts."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sandbox_peer import Peer, peer

from service.lab.provider.rows import Account, Terms, WeChatMerchant
from service.lab.provider.server import Plan
from service.lab.provider.signatures import new_key, public_half, sign, verified
from service.lab.provider.wechatpay.signing import answer_content, request_content

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
MCHID, APPID, SERVICE = "1900000001", "wx0000000000000001", "2002000000000558128851361561536"
SERIAL, APIV3_KEY = "55D97D542DBAA9CB9B7D0ACDB810CC99C208D328", "k" * 32
KEY, OTHER_KEY, PROVIDER_KEY = new_key(), new_key(), new_key()
SECONDS = 20
NAMES = {"appid": APPID, "service_id": SERVICE}
NOTIFY = "/notified"
PATIENT = aiohttp.ClientTimeout(total=60)


class Said(msgspec.Struct):
    """An answer that was believed; `number` is the end of its Request-Id."""

    status: int
    body: Any
    number: str
    headers: dict[str, str]

    @property
    def code(self) -> Any:
        return self.body["code"] if self.status >= 400 else "OK"


class Inbox:
    """What arrived, and the status that every notification is answered with."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()
        self.answer = 200

    async def take(self, request: web.BaseRequest) -> web.Response:
        self.arrived.put_nowait((dict(request.headers), await request.read()))
        return web.Response(status=self.answer)


class Shop:
    """A merchant account; the provider's clock stands still at `AT` until it is moved."""

    def __init__(self, peer: Peer, taking: Inbox, url: str) -> None:
        self.peer = peer
        self.keys: dict[str, str] = {}
        self.inbox = taking
        self.url = url

    async def ask(
        self, method: str, target: str, content: Any = None, *, patience: aiohttp.ClientTimeout = PATIENT, **more: Any
    ) -> Said:
        """A call and its answer, whose signature is looked at."""
        body = b"" if content is None else msgspec.json.encode(content)
        headers = {"Accept": "application/json", "User-Agent": "tests", "Content-Type": "application/json"}
        headers["Authorization"] = authorization(method, target, body, **more)
        async with self.peer.session.request(
            method, self.peer.url + target, data=body, headers=headers, timeout=patience
        ) as answer:
            raw = await answer.read()
            self.believe(dict(answer.headers), raw)
            number = answer.headers["Request-Id"].rpartition("-")[2]
            return Said(answer.status, msgspec.json.decode(raw) if raw else None, number, dict(answer.headers))

    def believe(self, headers: dict[str, str], body: bytes) -> None:
        """AssertionError unless a key that we know signed this."""
        serial = headers.get("Wechatpay-Serial", "")
        assert serial in self.keys, "nobody knows this serial number"
        content = answer_content(headers["Wechatpay-Timestamp"], headers["Wechatpay-Nonce"], body)
        assert verified(self.keys[serial], content, headers["Wechatpay-Signature"]), "the signature is wrong"
        off = datetime.now(UTC).timestamp() - int(headers["Wechatpay-Timestamp"])
        assert abs(off) <= 300, "another time"

    async def learn_keys(self) -> None:
        told = await self.peer.call("GET", "/keys?account=shop")
        self.keys = dict(zip(told["serials"], told["public_keys"], strict=True))

    async def post(self, target: str, **content: Any) -> Said:
        return await self.ask("POST", target, content)

    async def get(self, target: str) -> Said:
        return await self.ask("GET", target)

    async def ride(self, answer: str, handed: Any = "", **query: str) -> Any:
        """The rider does something in his WeChat."""
        params = "&".join(f"{name}={value}" for name, value in {"answer": answer, "account": "shop", **query}.items())
        data = handed if isinstance(handed, str) else msgspec.json.encode(handed)
        async with self.peer.session.post(f"{self.peer.url}/wechatpay/rider?{params}", data=data) as told:
            return msgspec.json.decode(await told.read())

    async def permission(self, code: str = "perm_1", rider: str = "rider") -> str:
        """A rider's openid, who gave his permission."""
        asked = {**NAMES, "authorization_code": code, "notify_url": self.url}
        told = await self.post("/v3/payscore/permissions", **asked)
        given = await self.ride("confirm", told.body["apply_permissions_token"], rider=rider)
        assert given["errMsg"] == "openBusinessView:ok", given
        return str(given["openid"])

    async def order(self, whose: str | None, key: str = "order_1", **more: Any) -> Said:
        asked = {
            **NAMES,
            "out_order_no": key,
            "service_introduction": "骑行",
            "time_range": {"start_time": "OnAccept"},
            "risk_fund": {"name": "ESTIMATE_ORDER_COST", "amount": 3000},
            "notify_url": self.url,
            "need_user_confirm": whose is None,
        }
        return await self.post("/v3/payscore/serviceorder", **(asked | ({"openid": whose} if whose else {}) | more))

    async def complete(self, key: str = "order_1", amount: int = 1234, **more: Any) -> Said:
        asked = {
            **NAMES,
            "post_payments": [{"name": "骑行", "amount": amount, "description": "20 min"}],
            "total_amount": amount,
            "time_range": {"end_time": "20261122180000"},
        }
        return await self.post(f"/v3/payscore/serviceorder/{key}/complete", **(asked | more))

    async def modify(self, amount: int, key: str = "order_1") -> Said:
        asked = {"post_payments": [{"name": "骑行", "amount": amount}], "total_amount": amount, "reason": "goodwill"}
        return await self.post(f"/v3/payscore/serviceorder/{key}/modify", **NAMES, **asked)

    async def found(self, key: str = "order_1") -> Any:
        told = await self.get(f"/v3/payscore/serviceorder?service_id={SERVICE}&out_order_no={key}&appid={APPID}")
        return told.body

    async def states(self, key: str = "order_1") -> tuple[Any, Any, Any]:
        told = await self.found(key)
        return told.get("state"), told.get("state_description"), told.get("collection", {}).get("state")

    async def transaction(self, key: str = "order_1") -> str:
        return str((await self.found(key))["collection"]["details"][-1]["transaction_id"])

    async def refund(self, transaction: str, amount: int, key: str = "refund_1", **more: Any) -> Said:
        asked = {"transaction_id": transaction, "out_refund_no": key}
        asked |= {"amount": {"refund": amount, "total": 1234, "currency": "CNY"}} | more
        return await self.post("/v3/refund/domestic/refunds", **asked)

    async def balance(self, balance_minor: int, rider: str = "rider") -> None:
        await self.peer.call("PUT", "/wallets", [{"rider": rider, "currency": "CNY", "balance_minor": balance_minor}])

    async def later(self, by: timedelta) -> None:
        face = await self.peer.call("GET", "/clock")
        await self.peer.call("PUT", "/clock", {"now": datetime.fromisoformat(face["now"]) + by, "speed": 0})

    async def notice(self) -> Any:
        """The next notification, believed and decrypted."""
        async with asyncio.timeout(SECONDS):
            headers, body = await self.inbox.arrived.get()
        self.believe(headers, body)
        return opened(body)


def money(refund: int, total: int) -> dict[str, Any]:
    """A refund's amount."""
    return {"refund": refund, "total": total, "currency": "CNY"}


def opened(body: bytes) -> Any:
    """A notification with its resource decrypted."""
    told = msgspec.json.decode(body)
    sealed = told["resource"]
    assert sealed["algorithm"] == "AEAD_AES_256_GCM"
    parts = (sealed["nonce"].encode(), b64decode(sealed["ciphertext"]), sealed["associated_data"].encode())
    return told | {"resource": msgspec.json.decode(AESGCM(APIV3_KEY.encode()).decrypt(*parts))}


def authorization(
    method: str,
    target: str,
    body: bytes,
    *,
    key: str = KEY,
    mchid: str = MCHID,
    serial: str = SERIAL,
    off_s: int = 0,
    scheme: str = "WECHATPAY2-SHA256-RSA2048",
    signed_target: str | None = None,
) -> str:
    """The header, signed; each part may be another."""
    timestamp = str(int(datetime.now(UTC).timestamp()) + off_s)
    content = request_content(method, signed_target or target, timestamp, "NONCE", body)
    return (
        f'{scheme} mchid="{mchid}",nonce_str="NONCE",signature="{sign(key, content)}",'
        f'timestamp="{timestamp}",serial_no="{serial}"'
    )


def merchant(**more: Any) -> WeChatMerchant:
    return WeChatMerchant(MCHID, APPID, SERVICE, SERIAL, public_half(KEY), APIV3_KEY, **more)


def terms(**more: Any) -> Terms:
    """As Pay Score treats a merchant."""
    usual: dict[str, Any] = {
        "provider_retries": True,
        "nudge": True,
        "hold_needed": True,
        "further_debits": False,
        "reduce_pending": True,
        "close": False,
        "new_key_after_decline": False,
        "holds_max": 3,
        "unpaid_max": 1,
        "refund_window_s": 365 * 86_400,
        "partial": True,
    }
    return Terms(**(usual | more))


@asynccontextmanager
async def inbox() -> AsyncIterator[tuple[Inbox, str]]:
    """The merchant's address for notifications."""
    taking = Inbox()
    runner = web.ServerRunner(web.Server(taking.take, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield taking, f"http://127.0.0.1:{runner.addresses[0][1]}{NOTIFY}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def shop(plan: Plan | None = None, *, public_key_mode: bool = False, **more: Any) -> AsyncIterator[Shop]:
    """A shop; at its end the books explain themselves."""
    async with inbox() as (taking, url), peer(plan) as at:
        await at.call("PUT", "/clock", {"now": AT, "speed": 0})
        it = Shop(at, taking, url)
        who = merchant(public_key_mode=public_key_mode)
        account = Account("shop", "", terms(**more), url, face="wechatpay", wechatpay=who, keys=(PROVIDER_KEY,))
        await at.call("PUT", "/accounts", account)
        await it.learn_keys()
        yield it
        await at.books()
