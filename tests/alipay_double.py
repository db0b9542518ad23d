"""A gateway on loopback that verifies what it is sent and replays canned answers, signed with keys of the tests."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode

import msgspec
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from service.adapters.clock import Clock, machine_now
from service.adapters.providers import open_provider
from service.adapters.providers.port import AgreementRef, DebitRef, DebitRequest, HoldRef, MerchantAccount, Provider
from service.billing.outcomes import SignString

APP_ID, SELLER_ID = "2021000122671080", "2088531891668739"
ORDER_NO = "ZMCB99202604180000070000051245"
HOLD = HoldRef("H0LD", ORDER_NO)
REQUEST = DebitRequest("K3Y", AgreementRef("AG"), 1234, "CNY", "a/ride=1&2", HOLD)
REF = DebitRef("K3Y", 1234, "CNY", None, AgreementRef("AG"), HOLD)
PAY, QUERY = "alipay.trade.pay", "alipay.trade.query"
How = Literal["signed", "unsigned", "forged", "html", "truncated", "slashes", "throttled", "error"]


@cache
def key_of(name: str) -> rsa.RSAPrivateKey:
    """A key by what it is called in a test; the same one each time."""
    return rsa.generate_private_key(65537, 2048)


def private_pem(name: str) -> str:
    return key_of(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(name: str) -> str:
    return key_of(name).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def signature_of(name: str, content: str) -> str:
    return b64encode(key_of(name).sign(content.encode(), padding.PKCS1v15(), hashes.SHA256())).decode()


class Canned(msgspec.Struct):
    """One answer: its node, and how it comes."""

    node: dict[str, Any]
    how: How = "signed"
    name: str = ""


class Double:
    """What was asked, and what is answered: by method, in turn; the last one stays."""

    def __init__(self) -> None:
        self.url = ""
        self.app_key = "app"
        self.own_key = "alipay"
        self.cert_sn = ""
        self.asked: list[dict[str, Any]] = []
        self.answers: dict[str, list[Canned]] = defaultdict(list)

    def says(self, method: str, *answers: Canned | dict[str, Any]) -> None:
        """What a method is answered from now on; a bare node is a success, signed."""
        self.answers[method] = [a if isinstance(a, Canned) else Canned({"code": "10000", **a}) for a in answers]

    def refuses(self, method: str, sub_code: str, code: str = "40004", how: How = "signed") -> None:
        self.says(method, Canned({"code": code, "msg": "Business Failed", "sub_code": sub_code, "sub_msg": "no"}, how))

    def biz(self, method: str) -> dict[str, Any]:
        """The content of the last call of a method."""
        return next(call for call in reversed(self.asked) if call["method"] == method)["biz"]  # type: ignore[no-any-return]  # It is JSON.

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        form = await request.post()
        params = {name: str(value) for name, value in (*request.query.items(), *form.items())}
        signature = params.pop("sign")
        content = "&".join(f"{name}={params[name]}" for name in sorted(params))
        try:
            public = key_of(self.app_key).public_key()
            public.verify(b64decode(signature), content.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return self._sealed(params["method"], Canned({"code": "40002", "sub_code": "isv.invalid-signature"}))
        if params["app_id"] != APP_ID:
            return self._sealed("", Canned({"code": "40002", "sub_code": "isv.invalid-app-id"}, "unsigned", "error"))
        self.asked.append({**params, "biz": json.loads(params["biz_content"])})
        known = self.answers[params["method"]]
        about = known[0].node.get("out_trade_no") if params["method"] == QUERY else None
        if about not in (None, self.asked[-1]["biz"].get("out_trade_no", about)):
            return self._sealed(QUERY, Canned({"code": "40004", "sub_code": "ACQ.TRADE_NOT_EXIST"}))
        return self._sealed(params["method"], known.pop(0) if len(known) > 1 else known[0])

    def _sealed(self, method: str, canned: Canned) -> web.Response:
        node = json.dumps(canned.node, ensure_ascii=False)
        signature = signature_of("other" if canned.how == "forged" else self.own_key, node)
        if canned.how == "slashes":
            node = node.replace("/", "\\/")
        name = f"{canned.name or method.replace('.', '_')}_response"
        number = f'"alipay_cert_sn":"{self.cert_sn}",' if self.cert_sn else ""
        body = f'{{"{name}":{node},{number}"sign":"{signature}"}}'
        match canned.how:
            case "unsigned":
                body = f'{{"{name}":{node}}}'
            case "html":
                body = "<html><h1>502 Bad Gateway</h1></html>"
            case "truncated":
                body = body[: len(body) // 2]
            case "throttled":
                return web.Response(status=429, headers={"Retry-After": "3"})
            case "error":
                return web.Response(status=500)
        return web.Response(text=body, content_type="text/html")


@asynccontextmanager
async def double() -> AsyncIterator[Double]:
    """A gateway that answers as it is told."""
    it = Double()
    runner = web.ServerRunner(web.Server(it.answer, access_log=None))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        it.url = f"http://127.0.0.1:{runner.addresses[0][1]}/gateway.do"
        yield it
    finally:
        await runner.cleanup()


def settings_of(product: str, directory: Path, **more: Any) -> dict[str, Any]:
    """An account's settings, its keys in files of `directory`; a setting that is None is left out."""
    (directory / "app.pem").write_text(private_pem("app"))
    (directory / "alipay.pem").write_text(public_pem("alipay"))
    settings = {
        "product": product,
        "app_id": APP_ID,
        "seller_id": SELLER_ID,
        "notify_url": "https://example.test/notify",
        "zm_service_id": "2022111500000000000093666900",
        "category_id": "RENT_BICYCLE",
        "app_private_key_file": str(directory / "app.pem"),
        "alipay_public_key_file": str(directory / "alipay.pem"),
        "timeout_s": 5.0,
    }
    return {name: value for name, value in (settings | more).items() if value is not None}


def account_of(url: str, settings: dict[str, Any]) -> MerchantAccount:
    return MerchantAccount(1, "city", "alipay", url, settings)


@asynccontextmanager
async def provider_at(url: str, settings: dict[str, Any], now: Clock = machine_now) -> AsyncIterator[Provider]:
    """An adapter that is closed again."""
    provider = open_provider(account_of(url, settings), now=now)
    try:
        yield provider
    finally:
        await provider.close()


def notice(
    fields: dict[str, str], key: str = "alipay", *, sign_type_signed: bool = False, charset: str = "utf-8"
) -> bytes:
    """A notification's body, signed over everything but sign and, unless told otherwise, sign_type."""
    form = {"notify_id": "n1", "app_id": APP_ID, "charset": "utf-8", "sign_type": "RSA2", "version": "1.0", **fields}
    signed = sorted(name for name in form if name != "sign_type" or sign_type_signed)
    content = "&".join(f"{name}={form[name]}" for name in signed)
    return urlencode(form | {"sign": signature_of(key, content)}).encode()


def trade_notice(*, key: str = "alipay", **fields: str) -> bytes:
    """A notification about a trade, paid unless said otherwise."""
    trade = {
        "notify_type": "trade_status_sync",
        "seller_id": SELLER_ID,
        "out_trade_no": ORDER_NO,
        "trade_no": "2026041022001400001234567890",
        "trade_status": "TRADE_SUCCESS",
        "total_amount": "12.34",
        "gmt_payment": "2026-04-18 10:30:00",
    }
    return notice(trade | fields, key)


def opened(action: object) -> dict[str, Any]:
    """What a rider's app would call."""
    assert isinstance(action, SignString)
    params = dict(parse_qsl(action.order_string, strict_parsing=True))
    return {**params, "biz": msgspec.json.decode(params["biz_content"])}
