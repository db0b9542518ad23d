"""The bill of a day: an address and a SHA1, behind it a table (pay.weixin.qq.com, bill-download/format-trade)."""

from __future__ import annotations

import gzip
import hashlib
import hmac
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Literal

import msgspec

from service.lab.provider import desk as core
from service.lab.provider.desk import Movement
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Account, Debit, Entry
from service.lab.provider.wechatpay.visits import Answer, Visit
from service.lab.provider.wechatpay.wire import (
    CURRENCY,
    SHANGHAI,
    local,
    order_id,
    own_trade_no,
    refund_id,
    transaction_id,
    yuan,
)

READY = time(10)
"""Of the day after (开发参数与业务规则, 六)."""
COLUMNS = (
    "交易时间", "公众账号ID", "商户号", "特约商户号", "设备号", "微信订单号", "商户订单号", "用户标识", "交易类型",
    "交易状态", "付款银行", "货币种类", "应结订单金额", "代金券金额", "微信退款单号", "商户退款单号", "退款金额",
    "充值券退款金额", "退款类型", "退款状态", "商品名称", "商户数据包", "手续费", "费率", "订单金额", "申请退款金额",
    "费率备注",
)  # fmt: skip
SUMMARY = (
    "总交易单数",
    "应结订单总金额",
    "退款总金额",
    "充值券退款总金额",
    "手续费总金额",
    "订单总金额",
    "申请退款总金额",
)
KINDS = {"ALL": ("debit", "refund"), "SUCCESS": ("debit",), "REFUND": ("refund",)}


class AskBill(msgspec.Struct, frozen=True):
    """GET /v3/bill/tradebill."""

    bill_date: str
    bill_type: Literal["ALL", "SUCCESS", "REFUND"] = "ALL"
    tar_type: Literal["GZIP"] | None = None


class AskFile(msgspec.Struct, frozen=True):
    """GET /v3/billdownload/file."""

    token: str


def trade_bill(visit: Visit, asked: AskBill) -> Answer:
    """The address of a day's bill, there from ten in the morning of the day after."""
    try:
        day = date.fromisoformat(asked.bill_date)
    except ValueError:
        raise RefusedError(400, "INVALID_REQUEST", "bill_date is not yyyy-MM-dd") from None
    now = visit.now.astimezone(SHANGHAI)
    if day >= now.date():
        raise RefusedError(400, "INVALID_REQUEST", "bill_date is not before today")
    if now < datetime.combine(day + timedelta(days=1), READY, SHANGHAI):
        raise RefusedError(400, "STATEMENT_LATER", "the bill is there from ten in the morning on")
    text = table(visit, asked.bill_date, asked.bill_type)
    if text is None:
        raise RefusedError(400, "NO_STATEMENT", "nothing happened on this day")
    content = f"{asked.bill_date}.{asked.bill_type}.{asked.tar_type or ''}"
    return {
        "hash_type": "SHA1",
        "hash_value": hashlib.sha1(text, usedforsecurity=False).hexdigest(),
        "download_url": f"{visit.desk.public_url}/v3/billdownload/file?token={content}.{_mac(visit.account, content)}",
    }


def bill_file(visit: Visit, asked: AskFile) -> bytes:
    """The table behind the address, packed where that was asked for; the SHA1 is that of the table itself."""
    content, _, mac = asked.token.rpartition(".")
    if not hmac.compare_digest(mac, _mac(visit.account, content)):
        raise RefusedError(403, "268503786", "this address was never given out")
    day, kind, packed = content.split(".")
    text = table(visit, day, kind) or b""
    return gzip.compress(text, mtime=0) if packed else text


def table(visit: Visit, day: str, kind: str) -> bytes | None:
    """Head, a row for each movement, head and row of the sums; None where nothing moved."""
    rows = [row for row in core.movements(visit.desk, visit.account, day) if row.kind in KINDS[kind]]
    if not rows:
        return None
    debits, refunds = ([row for row in rows if row.kind == one] for one in ("debit", "refund"))
    paid, back = (sum(row.amount_minor for row in some) for some in (debits, refunds))
    fees = sum(row.fee_minor for row in rows)
    sums = (str(len(rows)), yuan(paid), yuan(back), "0.00", _fee(fees), yuan(paid), yuan(back))
    lines = [",".join(COLUMNS), *(_line(visit, row) for row in rows), ",".join(SUMMARY), _row(sums)]
    return "\r\n".join([*lines, ""]).encode()


def _line(visit: Visit, row: Movement) -> str:
    """One movement; its numbers are empty where the books know nothing of it."""
    debit, so_far, back = _of(visit, row)
    merchant, refunded = visit.merchant, row.kind == "refund"
    cells = dict.fromkeys(COLUMNS, "")
    cells |= dict.fromkeys(
        ("应结订单金额", "代金券金额", "退款金额", "充值券退款金额", "订单金额", "申请退款金额"), "0.00"
    )
    cells |= {"交易时间": local(row.at), "公众账号ID": merchant.appid, "商户号": merchant.mchid, "特约商户号": "0"}
    cells |= {"微信退款单号": "0", "商户退款单号": "0", "货币种类": CURRENCY, "付款银行": "OTHERS", "费率": "0.60%"}
    cells |= {"交易状态": "REFUND" if refunded else "SUCCESS", "手续费": _fee(row.fee_minor)}
    if refunded:
        cells |= {"退款金额": yuan(row.amount_minor), "申请退款金额": yuan(row.amount_minor)}
        cells |= {"商户退款单号": row.key, "微信退款单号": back, "退款类型": "ORIGINAL", "退款状态": "SUCCESS"}
    else:
        cells |= {"应结订单金额": yuan(row.amount_minor), "订单金额": yuan(row.amount_minor)}
    if debit is None:
        cells |= {"微信订单号": row.ref, "商户订单号": row.key, "交易类型": "JSAPI"}
        return _row([cells[name] for name in COLUMNS])
    hold = visit.desk.books.holds.get((debit.account_id, debit.asked.hold or ""))
    by_itself = hold is not None and _paid_by_wallet(visit, debit, so_far)
    cells |= {
        "微信订单号": transaction_id(debit, so_far),
        "商户订单号": own_trade_no(debit, so_far) if by_itself else debit.asked.key,
        "用户标识": visit.openid_of(debit.rider),
        "交易类型": "AUTH" if by_itself else "JSAPI",
        "商品名称": debit.asked.subject,
        "商户数据包": f"wxzff|{order_id(hold)}|{debit.asked.key}" if by_itself and hold else "",
    }
    return _row([cells[name] for name in COLUMNS])


def _of(visit: Visit, row: Movement) -> tuple[Debit | None, int, str]:
    """The debit of a movement, how much was paid of it with the payment it is about, and the refund's number."""
    books, who = visit.desk.books, visit.account.account_id
    if row.kind == "refund":
        made = books.refunds.get((who, row.key))
        if made is None or made.ref != row.ref:
            return None, 0, row.ref
        told = visit.kept(f"refund/{row.key}") or {}
        so_far = int(str(told.get("transaction_id", "0"))[-12:])
        return books.debits_by_number[made.debit_number], so_far, refund_id(made)
    debit = books.debits.get((who, row.key))
    if debit is None or debit.ref != row.ref:
        return None, 0, ""
    sums = _so_far(visit, debit)
    same = [up_to for entry, up_to in sums if entry.at == row.at and entry.amount_minor == row.amount_minor]
    return debit, (same or [up_to for entry, up_to in sums if entry.at == row.at])[0], ""


def _so_far(visit: Visit, debit: Debit) -> list[tuple[Entry, int]]:
    entries, up_to = visit.desk.books.moved.get(debit.ref, ()), 0
    return [(entry, up_to := up_to + entry.amount_minor) for entry in entries]


def _paid_by_wallet(visit: Visit, debit: Debit, so_far: int) -> bool:
    """Whether WeChat Pay debited it by itself; else the rider paid with his own hands."""
    payers = {up_to: entry.payer for entry, up_to in _so_far(visit, debit)}
    return payers.get(so_far, "").startswith("wallet:")


def _row(cells: Sequence[str]) -> str:
    return ",".join(f"`{cell}" for cell in cells)


def _fee(amount_minor: int) -> str:
    """Fees have five decimals."""
    return f"{yuan(amount_minor)}000"


def _mac(account: Account, content: str) -> str:
    secret = account.wechatpay.apiv3_key.encode() if account.wechatpay else b""
    return hmac.digest(secret, f"bill/{content}".encode(), "sha256").hex()
