"""Refunds: POST and GET /v3/refund/domestic/refunds."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import msgspec

from service.lab.provider import desk
from service.lab.provider import refunds as core
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import AskRefund, Debit, Refund
from service.lab.provider.wechatpay.collection import payments
from service.lab.provider.wechatpay.orders import Fen
from service.lab.provider.wechatpay.visits import Answer, Visit
from service.lab.provider.wechatpay.wire import CURRENCY, own_trade_no, payment_of, refund_id, rfc3339, transaction_id

REFUNDS_MAX = 50
BETWEEN = timedelta(minutes=1)
"""Of one payment at most 50 refunds, a minute between two (pay.weixin.qq.com, chapter3_1_9)."""
STATUS = {"pending": "PROCESSING", "paid": "SUCCESS", "failed": "ABNORMAL"}


class Amount(msgspec.Struct, frozen=True):
    """`total` is the payment's."""

    refund: Fen
    total: Fen
    currency: str


class MakeRefund(msgspec.Struct, frozen=True):
    """POST: of a payment by either number; a service order's own number is none of them."""

    out_refund_no: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_\-|*@]{1,64}$")]
    amount: Amount
    transaction_id: str | None = None
    out_trade_no: str | None = None
    reason: Annotated[str, msgspec.Meta(max_length=80)] = ""
    notify_url: str | None = None


class NameRefund(msgspec.Struct, frozen=True):
    """GET .../{out_refund_no}."""


def make(visit: Visit, asked: MakeRefund) -> Answer:
    """Gives money back of one payment: a number refunds once; one that failed is tried again."""
    debit, so_far, total = _payment(visit, asked)
    known = visit.desk.books.refunds.get((visit.account.account_id, asked.out_refund_no))
    kept = _told(visit, asked.out_refund_no)
    told: Answer = {"transaction_id": transaction_id(debit, so_far), "total": total, "notify_url": asked.notify_url}
    if known and kept and {**kept, "notify_url": None} != {**told, "notify_url": None}:
        raise RefusedError(409, "REFUND_CONFLICT", "this out_refund_no refunds another payment")
    if asked.amount.total != total or asked.amount.currency != CURRENCY:
        raise RefusedError(400, "INVALID_REQUEST", "amount.total or its currency is not the payment's")
    if known is None or known.state == "failed":
        _check_limits(visit, debit, told["transaction_id"], asked, total)
    if known is None:
        visit.keep(f"refund/{asked.out_refund_no}", told)
    made = AskRefund(asked.out_refund_no, debit.asked.key, asked.amount.refund, asked.reason)
    try:
        refund = desk.make_refund(visit.desk, visit.account, made.key, made, visit.now)
    except RefusedError as refused:
        raise RefusedError(refused.status, _CORE.get(refused.code, refused.code), refused.message) from None
    return view(visit, refund)


def query(visit: Visit, asked: NameRefund, key: str) -> Answer:
    """What became of a refund."""
    try:
        found = visit.seen(core.get(visit.desk.books, visit.account, key))
    except RefusedError:
        raise RefusedError(404, "NO_REFUND", "no such refund") from None
    return view(visit, found)


def view(visit: Visit, row: Refund) -> Answer:
    """What the answers say of a refund."""
    told, debit = _told(visit, row.asked.key), visit.desk.books.debits_by_number[row.debit_number]
    amount, total = row.asked.amount_minor, told["total"]
    shown = {
        **_named(visit, row, debit, told),
        "channel": "ORIGINAL",
        "create_time": rfc3339(row.created_at),
        "success_time": _paid_at(visit, row) if row.state == "paid" else None,
        "status": status_of(row),
        "funds_account": "AVAILABLE",
        "amount": {
            "total": total,
            "refund": amount,
            "from": [],
            "payer_total": total,
            "payer_refund": amount,
            "settlement_refund": amount,
            "settlement_total": total,
            "discount_refund": 0,
            "currency": CURRENCY,
        },
        "promotion_detail": [],
    }
    return {name: value for name, value in shown.items() if value is not None}


def notice(visit: Visit, row: Refund) -> Answer:
    """What a notification says of a refund."""
    told, debit = _told(visit, row.asked.key), visit.desk.books.debits_by_number[row.debit_number]
    amount, total = row.asked.amount_minor, told["total"]
    shown = {
        "mchid": visit.merchant.mchid,
        **_named(visit, row, debit, told),
        "refund_status": status_of(row),
        "amount": {"total": total, "refund": amount, "payer_total": total, "payer_refund": amount},
    }
    if row.state == "paid":
        shown["success_time"] = _paid_at(visit, row)
    return shown


def status_of(row: Refund) -> str:
    """PROCESSING, SUCCESS, ABNORMAL, or CLOSED where that is the code it failed with."""
    return "CLOSED" if row.state == "failed" and row.code == "CLOSED" else STATUS[row.state]


def notify_url(visit: Visit, key: str) -> str | None:
    """Where this refund's notification goes, if it said so."""
    url: str | None = _told(visit, key).get("notify_url")
    return url


_CORE = {"KEY_CONFLICT": "REFUND_CONFLICT"}


def _named(visit: Visit, row: Refund, debit: Debit, told: Answer) -> Answer:
    paid = payment_of(told["transaction_id"])
    own = debit.asked.key if debit.asked.hold is None or paid is None else own_trade_no(debit, paid[1])
    return {
        "refund_id": refund_id(row),
        "out_refund_no": row.asked.key,
        "transaction_id": told["transaction_id"],
        "out_trade_no": own,
        "user_received_account": "支付用户零钱",
    }


def _paid_at(visit: Visit, row: Refund) -> str:
    """When the money went back: now, while the row is about to be put in the books."""
    moved = visit.desk.books.moved.get(row.ref)
    return rfc3339(moved[-1].at if moved else visit.now)


def _told(visit: Visit, key: str) -> Any:
    return visit.kept(f"refund/{key}") or {}


def _payment(visit: Visit, asked: MakeRefund) -> tuple[Debit, int, int]:
    """The debit, how much was paid of it with the payment that is refunded, and the payment's amount."""
    if (asked.transaction_id is None) == (asked.out_trade_no is None):
        raise RefusedError(400, "INVALID_REQUEST", "one of transaction_id and out_trade_no is needed")
    debit, so_far = None, None
    if asked.transaction_id is not None and (named := payment_of(asked.transaction_id)):
        debit, so_far = visit.desk.books.debits_by_number.get(named[0]), named[1]
    elif asked.out_trade_no is not None and (known := visit.debit(asked.out_trade_no)) and known.asked.hold is None:
        debit, so_far = known, known.paid_minor  # A service order's own number is no out_trade_no (排障手册 2.6, 8).
    if debit and debit.account_id == visit.account.account_id:
        for amount, up_to, _ in payments(visit, debit):
            if up_to == so_far:
                return debit, up_to, amount
    raise RefusedError(404, "NO_TRANSACTION", "no such payment")


def _check_limits(visit: Visit, debit: Debit, transaction: str, asked: MakeRefund, total: int) -> None:
    """What a payment allows besides what the whole debit does."""
    books = visit.desk.books
    made = [books.refunds_by_number[number] for number in books.refunds_of_debit.get(debit.number, ())]
    mine = [row for row in made if _told(visit, row.asked.key).get("transaction_id") == transaction]
    others = [row for row in mine if row.asked.key != asked.out_refund_no]
    given = sum(row.asked.amount_minor for row in others if row.state != "failed")
    if given + asked.amount.refund > total:
        raise RefusedError(400, "REFUND_TOO_MUCH", f"{total - given} can still be refunded of this payment")
    if len(others) >= REFUNDS_MAX:
        raise RefusedError(400, "TOO_MANY_REFUNDS", "50 refunds of a payment at most")
    if any(row.created_at > visit.now - BETWEEN for row in others):
        raise RefusedError(429, "TOO_SOON", "a minute between two refunds of a payment")
