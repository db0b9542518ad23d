"""芝麻免押, the pre-authorisation: frozen by the rider, paid out of by alipay.trade.pay (AlipayFundAuth*)."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import msgspec
from msgspec.structs import replace

from service.lab.provider import holds
from service.lab.provider.alipay.visits import Answer, Visit
from service.lab.provider.alipay.wire import (
    CURRENCY,
    Amount,
    fen,
    local,
    number_of,
    open_id,
    operation_id,
    user_id,
    yuan,
)
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import AskHold, Hold

ORDER_STATUS = {
    "pending": "INIT",
    "open": "AUTHORIZED",
    "finished": "FINISH",
    "refused": "CLOSED",
    "released": "CLOSED",
    "expired": "CLOSED",
}
"""FINISH when it was paid out of and nothing is left, CLOSED when it was never given, or all of it was given back
(AlipayFundAuthOperationDetailQueryResponse.orderStatus)."""
UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
OPERATION_STATUS = {"pending": "INIT", "refused": "CLOSED", "expired": "CLOSED"}


class Freeze(msgspec.Struct, frozen=True):
    """alipay.fund.auth.order.app.freeze: an order string that the rider confirms, within `timeout_express` of when he
    opens it first; nothing says until when he may open it (AlipayFundAuthOrderAppFreezeModel)."""

    out_order_no: str
    out_request_no: str
    amount: Amount
    order_title: str
    product_code: str = "PRE_AUTH_ONLINE"
    payee_user_id: str | None = None
    extra_param: str | None = None
    timeout_express: Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,4}[mhd]$")] = "15m"


class NameOperation(msgspec.Struct, frozen=True):
    """alipay.fund.auth.operation.detail.query: the authorisation by either number, one operation of it by either."""

    auth_no: str | None = None
    out_order_no: str | None = None
    operation_id: str | None = None
    out_request_no: str | None = None
    operation_type: str = "FREEZE"


class Unfreeze(msgspec.Struct, frozen=True):
    """alipay.fund.auth.order.unfreeze."""

    auth_no: str
    out_request_no: str
    amount: Amount
    remark: str = ""
    extra_param: str | None = None


class Cancel(msgspec.Struct, frozen=True):
    """alipay.fund.auth.operation.cancel."""

    auth_no: str | None = None
    out_order_no: str | None = None
    operation_id: str | None = None
    out_request_no: str | None = None
    remark: str = ""


def freeze(visit: Visit, asked: Freeze, rider: str, confirmed: bool | None) -> Hold:
    """The rider opened the order string, and confirmed or refused, or (None) only looked."""
    made = AskHold(asked.out_order_no, "", CURRENCY, fen(asked.amount), asked.order_title)
    books, key = visit.desk.books, made.key
    known = books.holds.get((visit.account.account_id, key))
    within = int(asked.timeout_express[:-1]) * UNITS[asked.timeout_express[-1]]
    hold = holds.offer(books, visit.account, made, rider, visit.now, within=within, notify_url=visit.notify_url)
    if known is None:
        visit.keep(f"freeze/{key}", {"out_request_no": asked.out_request_no})
    refusal = visit.desk.faults.refusal("hold.open", visit.account.account_id, key, (rider,))
    if refusal and hold.state == "pending":
        raise RefusedError(402, refusal, "the rider does not qualify")
    if confirmed is None:
        return hold
    answered = holds.answer_by_rider(books, visit.account, key, confirmed, visit.now)
    if confirmed and answered.state != "open":
        raise RefusedError(409, answered.code or "WRONG_STATE", f"the authorisation is {answered.state}")
    return answered


def detail(visit: Visit, asked: NameOperation) -> Answer:
    """How the authorisation and one operation of it stand."""
    found = visit.hold(asked.auth_no, asked.out_order_no)
    hold = visit.seen(holds.get(visit.desk.books, visit.account, found.asked.key, visit.now))
    if asked.operation_type == "UNFREEZE":
        done = visit.kept(f"unfreeze/{asked.out_request_no}")
        if done is None:
            raise RefusedError(404, "NO_OPERATION", "no such operation")
        return {**view(visit, hold), **done, "operation_type": "UNFREEZE"}
    frozen = visit.kept(f"freeze/{hold.asked.key}") or {}
    if asked.out_request_no not in (None, frozen.get("out_request_no")) or asked.operation_id not in (
        None,
        operation_id(hold),
    ):
        raise RefusedError(404, "NO_OPERATION", "no such operation")
    return view(visit, hold)


def unfreeze(visit: Visit, asked: Unfreeze) -> Answer:
    """Gives a part of what is left back, or all of it, which ends the authorisation. One request number, once."""
    request = f"unfreeze/{asked.out_request_no}"
    if known := visit.kept(request):
        return known
    found = visit.hold(asked.auth_no, None)
    books, amount = visit.desk.books, fen(asked.amount)
    holds.get(books, visit.account, found.asked.key, visit.now)
    holds.free(books, visit.account, found.asked.key, amount, visit.now)
    answer = {
        "auth_no": number_of(found),
        "out_order_no": found.asked.key,
        "operation_id": f"{operation_id(replace(found, number=books.next_number()))}",
        "out_request_no": asked.out_request_no,
        "amount": yuan(amount),
        "status": "SUCCESS",
        "gmt_trans": local(visit.now),
    }
    return visit.keep(request, answer)


def cancel(visit: Visit, asked: Cancel) -> Answer:
    """Takes a freeze back: closed where the rider had not confirmed it, else all that is left is given back."""
    found = visit.hold(asked.auth_no, asked.out_order_no)
    books, account, key = visit.desk.books, visit.account, found.asked.key
    hold = holds.get(books, account, key, visit.now)
    done = holds.end(books, account, key, "released", visit.now)
    return {
        "auth_no": number_of(done),
        "out_order_no": key,
        "operation_id": operation_id(done),
        "out_request_no": asked.out_request_no,
        "action": "close" if hold.state == "pending" else "unfreeze",
    }


def view(visit: Visit, hold: Hold) -> Answer:
    """What answers and messages say of an authorisation by its freeze."""
    books = visit.desk.books
    numbers = books.debits_of_hold.get((hold.account_id, hold.asked.key), ())
    paid = sum(books.debits_by_number[number].paid_minor for number in numbers)
    rest = hold.cap_minor - hold.freed_minor - paid if hold.state == "open" else 0
    frozen = visit.kept(f"freeze/{hold.asked.key}") or {}
    return {
        "auth_no": number_of(hold),
        "out_order_no": hold.asked.key,
        "order_status": ORDER_STATUS[hold.state],
        "total_freeze_amount": yuan(hold.cap_minor),
        "rest_amount": yuan(rest),
        "total_pay_amount": yuan(paid),
        "order_title": hold.asked.subject,
        "payer_user_id": user_id(hold.rider),
        "payer_open_id": open_id(hold.rider),
        "operation_id": operation_id(hold),
        "out_request_no": str(frozen.get("out_request_no", "")),
        "amount": yuan(hold.cap_minor),
        "operation_type": "FREEZE",
        "status": OPERATION_STATUS.get(hold.state, "SUCCESS"),
        "pre_auth_type": "CREDIT_AUTH",
        "gmt_create": local(hold.created_at),
        "gmt_trans": local(hold.created_at),
    }
