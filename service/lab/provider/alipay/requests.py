"""What comes to the gateway: parameters of a form or an address, checked and verified as the gateway does it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec

from service.lab.provider.alipay.certificates import check_numbers
from service.lab.provider.alipay.codes import GatewayRefusedError
from service.lab.provider.alipay.signing import exact_content, request_content
from service.lab.provider.books import Books
from service.lab.provider.rows import Account, AlipayMerchant
from service.lab.provider.signatures import verified

T = TypeVar("T")
CHARSETS = {"utf-8": "utf-8", "gbk": "gb18030", "gb2312": "gb18030"}
NEEDED = {
    # parameter: what its absence is called (open.alitrip.com, doc 105806)
    "method": "isv.missing-method",
    "sign": "isv.missing-signature",
    "sign_type": "isv.missing-signature-type",
    "timestamp": "isv.missing-timestamp",
    "version": "isv.missing-version",
}


class Request(msgspec.Struct, frozen=True):
    """A merchant's request that is believed: whose it is, and what it asks for."""

    account: Account
    method: str
    params: dict[str, str]


def read_params(query: str, body: bytes) -> dict[str, str]:
    """The parameters of an address and of a form, in the charset they name."""
    first = dict(parse_qsl(query, keep_blank_values=True))
    text = body.decode("latin-1")
    charset = dict(parse_qsl(text, keep_blank_values=True)).get("charset") or first.get("charset", "utf-8")
    encoding = CHARSETS.get(charset.lower(), "utf-8")
    try:
        params = parse_qsl(query, keep_blank_values=True, encoding=encoding, errors="strict")
        params += parse_qsl(text, keep_blank_values=True, encoding=encoding, errors="strict")
    except UnicodeDecodeError:
        raise GatewayRefusedError("40002", "isv.invalid-charset", "字符集错误", signed=False) from None
    return dict(params)


def verify(books: Books, params: Mapping[str, str]) -> Request:
    """The request, if the gateway believes it; the app id is looked at first. Raises GatewayRefusedError."""
    account = books.accounts_by_app_id.get(params.get("app_id", ""))
    if not params.get("app_id"):
        raise GatewayRefusedError("40001", "isv.missing-app-id", "缺少AppID参数", signed=False)
    if account is None or account.alipay is None:
        raise GatewayRefusedError("40002", "isv.invalid-app-id", "无效的AppID参数", signed=False)
    for name, code in NEEDED.items():
        if not params.get(name):
            raise GatewayRefusedError("40001", code, f"缺少{name}参数")
    _check_forms(params)
    if account.authority:
        check_numbers(account, dict(params))
    if not _signed(account.alipay, params):
        raise GatewayRefusedError("40002", "isv.invalid-signature", "无效签名")
    return Request(account, params["method"], dict(params))


def content(params: Mapping[str, str], shape: type[T]) -> T:
    """biz_content in its shape; raises GatewayRefusedError."""
    try:
        return msgspec.json.decode(params.get("biz_content") or "{}", type=shape)
    except msgspec.ValidationError as error:
        raise GatewayRefusedError("40002", "isv.invalid-parameter", str(error)) from None
    except msgspec.DecodeError:
        raise GatewayRefusedError("40002", "isv.illegal-json", "biz_content is no JSON") from None


def _check_forms(params: Mapping[str, str]) -> None:
    if params["sign_type"] != "RSA2":
        raise GatewayRefusedError("40002", "isv.invalid-signature-type", "无效的签名类型")
    if params.get("charset", "utf-8").lower() not in CHARSETS:
        raise GatewayRefusedError("40002", "isv.invalid-charset", "字符集错误")
    if params.get("format", "JSON").upper() != "JSON":
        raise GatewayRefusedError("40002", "isv.invalid-format", "无效的数据格式")
    try:
        datetime.strptime(params["timestamp"], "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - Only its form is checked.
    except ValueError:
        raise GatewayRefusedError("40002", "isv.invalid-timestamp", "非法的时间戳参数") from None


def _signed(merchant: AlipayMerchant, params: Mapping[str, str]) -> bool:
    encoding = CHARSETS[params.get("charset", "utf-8").lower()]
    texts = {request_content(params), exact_content(params)}
    return any(verified(merchant.public_key, text.encode(encoding), params["sign"]) for text in texts)
