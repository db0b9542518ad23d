"""What comes to the face: verified by the header Authorization, or refused as the real one does (签名与验签规则)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web

from service.lab.provider.books import Books
from service.lab.provider.rows import Account
from service.lab.provider.signatures import verified
from service.lab.provider.wechatpay.signing import SCHEME, request_content

WINDOW_S = 300
"""The most a request's timestamp may be off (wechatpay-go, consts.FiveMinute)."""
FIELDS = frozenset({"mchid", "nonce_str", "timestamp", "serial_no", "signature"})
_PAIR = re.compile(r'(\w+)="([^"]*)"')


class UnsignedError(Exception):
    """A request that is not believed: nothing was executed, and the answer carries no signature."""

    def __init__(self, message: str, detail: dict[str, Any] | None = None, *, status: int = 401) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": "SIGN_ERROR" if status == 401 else "PARAM_ERROR", "message": message}
        self.detail = detail


def verify(books: Books, request: web.BaseRequest, body: bytes) -> Account:
    """Whose request it is, if it is believed; raises UnsignedError with why not."""
    if not request.headers.get("Accept") or not request.headers.get("User-Agent"):
        raise UnsignedError("Http头缺少Accept或User-Agent", status=400)
    fields = authorization(request.headers.get("Authorization", ""))
    account = books.accounts_by_mchid.get(fields["mchid"])
    if account is None or account.wechatpay is None:
        raise UnsignedError("商户号不存在")
    if not fields["timestamp"].isdecimal() or abs(int(fields["timestamp"]) - datetime.now(UTC).timestamp()) > WINDOW_S:
        raise UnsignedError("Http头Authorization中的timestamp与发起请求的时间不得超过5分钟")
    if fields["serial_no"].upper() != account.wechatpay.serial_no.upper():
        raise UnsignedError("商户证书序列号有误")
    target = request.raw_path
    content = request_content(request.method, target, fields["timestamp"], fields["nonce_str"], body)
    if not verified(account.wechatpay.public_key, content, fields["signature"]):
        raise UnsignedError("签名错误，请检查后再试", _sign_information(request.method, target, content))
    return account


def authorization(header: str) -> dict[str, str]:
    """The five fields of the header Authorization, in whatever order; raises UnsignedError."""
    scheme, _, rest = header.partition(" ")
    if not header:
        raise UnsignedError("Http头Authorization值格式错误，缺少Authorization")
    if scheme != SCHEME:
        raise UnsignedError("Http头Authorization认证类型不正确")
    fields = dict(_PAIR.findall(rest))
    if set(fields) != FIELDS or not all(fields.values()):
        raise UnsignedError("Http头Authorization值格式错误，请参考《微信支付商户REST API签名规则》")
    return fields


def detailed(refused: UnsignedError) -> bytes:
    """The body of a refusal."""
    return msgspec.json.encode(refused.body | ({"detail": refused.detail} if refused.detail else {}))


def _sign_information(method: str, target: str, content: bytes) -> dict[str, Any]:
    """What WeChat Pay tells to who must find out where his text differs."""
    return {
        "field": "signature",
        "location": "authorization",
        "detail": {"issue": "sign not match"},
        "sign_information": {
            "method": method,
            "url": target,
            "sign_message_length": len(content),
            "truncated_sign_message": f"{method}\n{target}\n",
        },
    }
