"""Every address under /v3: what it is in the core's words, what it takes, what runs it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from service.lab.provider.refusals import RefusedError
from service.lab.provider.wechatpay import (
    bills,
    certificates,
    complaints,
    completion,
    orders,
    permissions,
    refunds,
    transactions,
)
from service.lab.provider.wechatpay.visits import Visit


class Door(msgspec.Struct, frozen=True):
    """`operation`: the core's name, for faults; `named`: what stands in the address is an argument of `run`."""

    operation: str
    shape: type
    run: Callable[..., Any]
    named: bool = False


class Asked(msgspec.Struct, frozen=True):
    """A call's door, what stands in its address, and what it asks for."""

    door: Door
    number: str
    body: Any


_PAYSCORE, _SERVICE = "/v3/payscore", "/v3/merchant-service"
_CODE, _OPENID = f"{_PAYSCORE}/permissions/authorization-code", f"{_PAYSCORE}/permissions/openid"
_ORDER, _PAY = f"{_PAYSCORE}/serviceorder", "/v3/pay/transactions"
DOORS: dict[tuple[str, str], Door] = {
    ("GET", "/v3/certificates"): Door("account.get", certificates.Ask, certificates.certificates),
    ("POST", f"{_PAYSCORE}/permissions"): Door("agreement.begin", permissions.Apply, permissions.apply),
    ("GET", f"{_CODE}/*"): Door("agreement.get", permissions.ByCode, permissions.by_code, named=True),
    ("GET", f"{_OPENID}/*"): Door("agreement.get", permissions.ByOpenid, permissions.by_openid, named=True),
    ("POST", f"{_CODE}/*/terminate"): Door(
        "agreement.revoke", permissions.Terminate, permissions.terminate, named=True
    ),
    ("POST", f"{_OPENID}/*/terminate"): Door(
        "agreement.revoke", permissions.Terminate, permissions.terminate_by_openid, named=True
    ),
    ("POST", f"{_ORDER}/direct-complete"): Door("debit.take", completion.DirectComplete, completion.direct_complete),
    ("POST", _ORDER): Door("hold.open", orders.Order, orders.create),
    ("GET", _ORDER): Door("hold.get", orders.Find, orders.query),
    ("POST", f"{_ORDER}/*/cancel"): Door("hold.release", orders.Cancel, orders.cancel, named=True),
    ("POST", f"{_ORDER}/*/complete"): Door("debit.take", completion.Complete, completion.complete, named=True),
    ("POST", f"{_ORDER}/*/modify"): Door("debit.reduce", completion.Modify, completion.modify, named=True),
    ("POST", f"{_ORDER}/*/pay"): Door("debit.nudge", completion.Pay, completion.pay, named=True),
    ("POST", f"{_ORDER}/*/sync"): Door("debit.settle_elsewhere", completion.Sync, completion.sync, named=True),
    ("POST", "/v3/refund/domestic/refunds"): Door("refund.make", refunds.MakeRefund, refunds.make),
    ("GET", "/v3/refund/domestic/refunds/*"): Door("refund.get", refunds.NameRefund, refunds.query, named=True),
    ("POST", f"{_PAY}/jsapi"): Door("debit.request_payment", transactions.Prepay, transactions.prepay),
    ("GET", f"{_PAY}/out-trade-no/*"): Door("debit.get", transactions.Name, transactions.query, named=True),
    ("GET", f"{_PAY}/id/*"): Door("debit.get", transactions.Name, transactions.query_by_id, named=True),
    ("POST", f"{_PAY}/out-trade-no/*/close"): Door("debit.close", transactions.Name, transactions.close, named=True),
    ("GET", "/v3/bill/tradebill"): Door("statement.get", bills.AskBill, bills.trade_bill),
    ("GET", "/v3/billdownload/file"): Door("statement.get", bills.AskFile, bills.bill_file),
    ("GET", f"{_SERVICE}/complaints-v2"): Door("dispute.get", complaints.Page, complaints.page),
    ("GET", f"{_SERVICE}/complaints-v2/*"): Door("dispute.get", complaints.Name, complaints.detail, named=True),
    ("POST", f"{_SERVICE}/complaints-v2/*/response"): Door(
        "dispute.answer", complaints.Response, complaints.respond, named=True
    ),
    ("POST", f"{_SERVICE}/complaints-v2/*/complete"): Door(
        "dispute.answer", complaints.Finish, complaints.finish, named=True
    ),
    ("GET", f"{_SERVICE}/complaint-notifications"): Door("account.get", complaints.Name, complaints.show_address),
    ("POST", f"{_SERVICE}/complaint-notifications"): Door("account.set", complaints.Address, complaints.make_address),
    ("PUT", f"{_SERVICE}/complaint-notifications"): Door("account.set", complaints.Address, complaints.change_address),
    ("DELETE", f"{_SERVICE}/complaint-notifications"): Door("account.set", complaints.Name, complaints.drop_address),
}
_PATTERNS = [
    (method, re.compile(re.escape(path).replace(r"\*", "([^/]+)")), door) for (method, path), door in DOORS.items()
]


def read(method: str, path: str, query: Mapping[str, str], body: bytes) -> Asked:
    """The door of an address and what is asked there; raises RefusedError."""
    for known, pattern, door in _PATTERNS:
        found = pattern.fullmatch(path)
        if known == method and found:
            number = unquote(found[1]) if door.named else ""
            return Asked(door, number, _content(door, method, query, body))
    raise RefusedError(404, "NO_ADDRESS", f"{method} {path} means nothing here")


def key_of(visit: Visit, asked: Asked) -> str:
    """The merchant's number of what a call is about."""
    if asked.door.run in (permissions.by_openid, permissions.terminate_by_openid):
        return visit.code_of(asked.number) or asked.number
    fields = ("authorization_code", "out_order_no", "out_refund_no", "out_trade_no", "bill_date")
    named = (getattr(asked.body, name, None) for name in fields)
    return asked.number or next((str(value) for value in named if value), "")


def operation_of(visit: Visit, asked: Asked, key: str) -> str:
    """The core's name of a call: asking about an order that was completed is asking about its debit."""
    if asked.door.operation == "hold.get" and visit.debit(key):
        return "debit.get"
    return asked.door.operation


def _content(door: Door, method: str, query: Mapping[str, str], body: bytes) -> Any:
    try:
        if method in ("GET", "DELETE"):
            return msgspec.convert(dict(query), door.shape, strict=False)
        return msgspec.json.decode(body or b"{}", type=door.shape)
    except msgspec.ValidationError as error:
        raise RefusedError(400, "INVALID_REQUEST", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RefusedError(400, "INVALID_REQUEST", "the body is no JSON") from None
