"""A payment that the rider approves himself: /v3/pay/transactions (JSAPI)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from msgspec.structs import replace

from service.lab.provider import debits
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import AskDebit, Debit
from service.lab.provider.wechatpay.collection import UNPAID, payments
from service.lab.provider.wechatpay.orders import Fen
from service.lab.provider.wechatpay.tokens import token
from service.lab.provider.wechatpay.visits import Answer, Visit
from service.lab.provider.wechatpay.wire import CURRENCY, instant, payment_of, rfc3339, transaction_id

OPEN_FOR = timedelta(days=7)
"""What nobody has paid by then is closed, unless `time_expire` says when (pay.weixin.qq.com, JSAPI 开发指引)."""
PREPAID_FOR = timedelta(hours=2)
"""How long a prepay_id begins a payment; the same order gives another one (统一下单, time_expire)."""


class Payer(msgspec.Struct, frozen=True):
    """Who pays."""

    openid: str


class Amount(msgspec.Struct, frozen=True):
    """What he pays."""

    total: Fen
    currency: str = CURRENCY


class Prepay(msgspec.Struct, frozen=True):
    """POST /v3/pay/transactions/jsapi."""

    appid: str
    mchid: str
    description: Annotated[str, msgspec.Meta(min_length=1, max_length=127)]
    out_trade_no: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_\-|*]{6,32}$")]
    notify_url: str
    amount: Amount
    payer: Payer
    attach: str | None = None
    time_expire: str | None = None


class Name(msgspec.Struct, frozen=True):
    """GET .../out-trade-no/{out_trade_no}, .../id/{transaction_id}, POST .../close."""

    mchid: str


def prepay(visit: Visit, asked: Prepay) -> Answer:
    """A payment that waits for the rider; the same again is the same payment."""
    visit.check(asked.appid, None)
    _check_mchid(visit, asked.mchid)
    if asked.amount.currency != CURRENCY:
        raise RefusedError(400, "INVALID_REQUEST", "amount.currency is not CNY")
    made = AskDebit(asked.out_trade_no, "", asked.amount.total, CURRENCY, subject=asked.description)
    rider, known = visit.rider_of(asked.payer.openid), visit.debit(asked.out_trade_no)
    if known and (known.asked != made or known.rider != rider):
        raise RefusedError(403, "OUT_TRADE_NO_USED", "this out_trade_no is another payment's")
    if known and known.state not in UNPAID:
        raise RefusedError(400, "ORDER_PAID" if known.state == "paid" else "ORDER_CLOSED", f"it is {known.state}")
    if known is None:
        visit.keep(f"transaction/{asked.out_trade_no}", {"attach": asked.attach})
        books = visit.desk.books
        asks = debits.ask_rider(books, visit.account, made, visit.now, rider=rider, notify_url=asked.notify_url)
        books.put(replace(asks, next_at=_open_until(visit, asked)))
    named = f"{asked.out_trade_no}@{int(visit.now.timestamp())}"
    return {"prepay_id": "wx" + token(visit.account, "payment", named)}


def prepaid(visit: Visit, named: str) -> str:
    """The merchant's number that a prepay_id begins the payment of; RefusedError once it is too old."""
    key, _, prepaid_at = named.partition("@")
    if visit.now.timestamp() >= int(prepaid_at) + PREPAID_FOR.total_seconds():
        raise RefusedError(400, "INVALID_REQUEST", "the prepay_id is older than two hours")
    return key


def query(visit: Visit, asked: Name, key: str) -> Answer:
    """How the payment of a merchant's number stands."""
    _check_mchid(visit, asked.mchid)
    try:
        return view(visit, visit.seen(named(visit, key)))
    except RefusedError:
        raise RefusedError(404, "NO_TRADE", "no such payment") from None


def query_by_id(visit: Visit, asked: Name, number: str) -> Answer:
    """How the payment of WeChat Pay's number stands; a service order's has one as well."""
    _check_mchid(visit, asked.mchid)
    paid = payment_of(number)
    found = visit.desk.books.debits_by_number.get(paid[0]) if paid else None
    if found is None or found.account_id != visit.account.account_id:
        raise RefusedError(404, "NO_TRADE", "no such payment")
    return view(visit, visit.seen(found))


def close(visit: Visit, asked: Name, key: str) -> None:
    """Nobody can pay it any more."""
    _check_mchid(visit, asked.mchid)
    found = named(visit, key)
    if found.state == "paid":
        raise RefusedError(400, "ORDER_PAID", "it is paid")
    debits.close(visit.desk.books, visit.under(close=True), key, "CLOSED", visit.now)


def named(visit: Visit, key: str) -> Debit:
    """A payment by the merchant's number; RefusedError. A service order is none."""
    found = visit.debit(key)
    if found is None or found.asked.hold is not None:
        raise RefusedError(404, "NO_TRADE", "no such payment")
    return found


def view(visit: Visit, row: Debit) -> Answer:
    """What answers and the notification say of a payment."""
    merchant = visit.merchant
    state = {"paid": "SUCCESS", "closed": "CLOSED"}.get(row.state, "NOTPAY")
    if row.refunded_minor:
        state = "REFUND"
    shown: Answer = {
        "appid": merchant.appid,
        "mchid": merchant.mchid,
        "out_trade_no": row.asked.key,
        "trade_state": state,
        "trade_state_desc": {"SUCCESS": "支付成功", "NOTPAY": "订单未支付"}.get(state, state),
        "attach": (visit.kept(f"transaction/{row.asked.key}") or {}).get("attach"),
        "payer": {"openid": visit.openid_of(row.rider)},
        "amount": {"total": row.amount_minor, "currency": CURRENCY},
    }
    if paid := payments(visit, row):
        shown["transaction_id"] = transaction_id(row, paid[-1][1])
        shown |= {"trade_type": "JSAPI" if row.asked.hold is None else "AUTH", "bank_type": "OTHERS"}
        shown["success_time"] = rfc3339(row.paid_at or row.updated_at)
        shown["amount"] = {**shown["amount"], "payer_total": row.paid_minor, "payer_currency": CURRENCY}
    return {name: value for name, value in shown.items() if value is not None}


def _check_mchid(visit: Visit, mchid: str) -> None:
    if mchid != visit.merchant.mchid:
        raise RefusedError(400, "271302144", "mchid is not the merchant's who signed")


def _open_until(visit: Visit, asked: Prepay) -> datetime:
    """When an unpaid payment is closed."""
    if asked.time_expire is None:
        return visit.now + OPEN_FOR
    return instant(asked.time_expire, "time_expire")
