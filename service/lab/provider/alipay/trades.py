"""Trades: the debit itself, what became of it, and the money's way back (alipay-sdk-java-all, AlipayTrade*)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from service.lab.provider import debits, desk
from service.lab.provider.alipay.codes import MESSAGES
from service.lab.provider.alipay.visits import Answer, Visit
from service.lab.provider.alipay.wire import (
    CURRENCY,
    Amount,
    check_trade,
    fen,
    local,
    number_of,
    open_id,
    user_id,
    yuan,
)
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import AskDebit, AskRefund, Debit, Hold, Refund, Report

ZHIMA_SCENE = "ZHIMA_CREDIT_CODE"
CREDIT_PAY_MODE = "creditAdvanceV2"
"""AlipayTradePayResponse.creditPayMode names it as an example; the others are not public."""
AUTHORISED_TRADE_LIFE_S = 15 * 86_400
"""An unpaid trade on an authorisation is closed after 15 days, whatever timeout_express said (developer.aliyun.com,
ask 285623)."""
CANCEL_LIFE = timedelta(days=1)
SYNCED = {"COMPLETE": "completed", "VIOLATED": "violated", "CLOSED": "closed"}
UNPAID = ("accepted", "declined")


class Pay(msgspec.Struct, frozen=True):
    """alipay.trade.pay: on a credit order, on an authorisation, or on a withholding agreement."""

    out_trade_no: str
    total_amount: Amount
    subject: str
    auth_code: str | None = None
    scene: str | None = None
    product_code: str | None = None
    is_async_pay: bool = False
    extend_params: dict[str, Any] = {}
    auth_no: str | None = None
    auth_confirm_mode: str = "NOT_COMPLETE"
    buyer_id: str | None = None
    buyer_open_id: str | None = None
    seller_id: str | None = None
    agreement_params: dict[str, Any] = {}
    query_options: tuple[str, ...] = ()


class AppPay(msgspec.Struct, frozen=True):
    """alipay.trade.app.pay: the rider pays by the order string, until `time_expire`."""

    out_trade_no: str
    total_amount: Amount
    subject: str
    time_expire: str | None = None


class NameTrade(msgspec.Struct, frozen=True):
    """alipay.trade.query, .close and .cancel: by either number; the provider's counts where both are given."""

    out_trade_no: str | None = None
    trade_no: str | None = None
    query_options: tuple[str, ...] = ()


class MakeRefund(msgspec.Struct, frozen=True):
    """alipay.trade.refund; without out_request_no it is the one refund of the whole trade."""

    refund_amount: Amount
    out_trade_no: str | None = None
    trade_no: str | None = None
    out_request_no: str | None = None
    refund_reason: str = ""


class NameRefund(msgspec.Struct, frozen=True):
    """alipay.trade.fastpay.refund.query."""

    out_request_no: str
    out_trade_no: str | None = None
    trade_no: str | None = None


class Sync(msgspec.Struct, frozen=True):
    """alipay.trade.orderinfo.sync; `order_biz_info` is JSON with the status."""

    trade_no: str
    out_request_no: str
    biz_type: str
    order_biz_info: str = "{}"


def pay(visit: Visit, asked: Pay) -> Answer:
    """The debit; a trade that is paid or closed already is refused with that."""
    check_trade(asked.out_trade_no, asked.subject)
    made, account = _asked(visit, asked)
    known = debits.remembered(visit.desk.books, account, made, visit.now)
    if known and known.state in ("paid", "closed"):
        raise RefusedError(409, "ALREADY_PAID" if known.state == "paid" else "DEBIT_CLOSED", f"trade is {known.state}")
    debit = desk.take_debit(visit.desk, account, made.key, made, visit.now, notify_url=visit.notify_url)
    if debit.state == "declined":
        raise RefusedError(402, debit.code or "PAYMENT_FAIL", "the rider's account did not pay")
    answer = {**trade_view(visit, debit), "gmt_payment": local(debit.paid_at) if debit.paid_at else None}
    del answer["trade_status"]
    answer |= _async(debit, asked.query_options)
    if debit.state == "accepted" and not asked.is_async_pay:
        answer |= {"code": "10003", "msg": MESSAGES["10003"]}
    return answer


def query(visit: Visit, asked: NameTrade) -> Answer:
    """How the trade stands."""
    found = visit.seen(visit.trade(asked.trade_no, asked.out_trade_no))
    return trade_view(visit, found) | _async(found, asked.query_options)


def close(visit: Visit, asked: NameTrade) -> Answer:
    """Stops an unpaid trade for good."""
    found = visit.trade(asked.trade_no, asked.out_trade_no)
    if found.state not in UNPAID:
        raise RefusedError(409, "STATUS", f"the trade is {found.state}")
    debits.close(visit.desk.books, visit.account, found.asked.key, "CLOSED", visit.now)
    return {"out_trade_no": found.asked.key, "trade_no": number_of(found)}


def cancel(visit: Visit, asked: NameTrade) -> Answer:
    """Closes an unpaid trade, gives a paid one back within a day; of a trade nobody knows there is nothing to undo."""
    try:
        found = visit.trade(asked.trade_no, asked.out_trade_no)
    except RefusedError:
        return {"out_trade_no": asked.out_trade_no, "retry_flag": "N"}
    named = {"out_trade_no": found.asked.key, "trade_no": number_of(found), "retry_flag": "N"}
    if found.state in UNPAID:
        debits.close(visit.desk.books, visit.account, found.asked.key, "CLOSED", visit.now)
        return {**named, "action": "close"}
    if found.state == "paid" and found.paid_minor > found.refunded_minor:
        if (found.paid_at or found.updated_at) + CANCEL_LIFE < visit.now:
            raise RefusedError(409, "CANCEL_TIME_OUT", "too late to cancel: refund it")
        rest = found.paid_minor - found.refunded_minor
        _refund(visit, AskRefund(f"cancel{found.number}", found.asked.key, rest))
        return {**named, "action": "refund"}
    return named


def refund(visit: Visit, asked: MakeRefund) -> Answer:
    """Gives money back: one request number refunds once, and says so by fund_change N when it comes again."""
    found = visit.trade(asked.trade_no, asked.out_trade_no)
    amount = fen(asked.refund_amount)
    request_no = asked.out_request_no or found.asked.key
    if found.state != "paid":
        raise RefusedError(409, "STATUS", f"the trade is {found.state}")
    if asked.out_request_no is None and amount != found.paid_minor:
        raise RefusedError(400, "INVALID_REQUEST", "a partial refund needs out_request_no")
    _refund(visit, AskRefund(request_no, found.asked.key, amount, asked.refund_reason))
    now = visit.trade(number_of(found), None)
    moved = now.refunded_minor > found.refunded_minor
    return {
        "trade_no": number_of(found),
        "out_trade_no": found.asked.key,
        "buyer_logon_id": logon_id(found.rider),
        "buyer_user_id": user_id(found.rider),
        "fund_change": "Y" if moved else "N",
        "refund_fee": yuan(now.refunded_minor),
        "send_back_fee": yuan(amount if moved else 0),
    }


def query_refund(visit: Visit, asked: NameRefund) -> Answer:
    """What became of a refund: REFUND_SUCCESS, or nothing at all while it is not, and when nobody knows it."""
    found = visit.trade(asked.trade_no, asked.out_trade_no)
    made = visit.desk.books.refunds.get((visit.account.account_id, asked.out_request_no))
    if made is None or made.debit_number != found.number:
        return {}
    made = visit.seen(made)
    named = {
        "trade_no": number_of(found),
        "out_trade_no": found.asked.key,
        "out_request_no": asked.out_request_no,
        "total_amount": yuan(found.amount_minor),
    }
    if made.state != "paid":
        return named
    return {**named, "refund_amount": yuan(made.asked.amount_minor), "refund_status": "REFUND_SUCCESS"}


def sync(visit: Visit, asked: Sync) -> Answer:
    """Keeps how the rider paid: COMPLETE, VIOLATED, CLOSED. A request number again changes nothing."""
    request = f"sync/{asked.out_request_no}"
    if known := visit.kept(request):
        return known
    found = visit.trade(asked.trade_no, None)
    if asked.biz_type not in ("CREDIT_AUTH", "CREDIT_DEDUCT"):
        raise RefusedError(400, "INVALID_REQUEST", "biz_type is neither CREDIT_AUTH nor CREDIT_DEDUCT")
    kind = SYNCED.get(_status(asked.order_biz_info))
    if kind is None:
        raise RefusedError(400, "INVALID_REQUEST", "order_biz_info has no status that is known")
    books = visit.desk.books
    report = Report(books.next_number(), found.account_id, found.asked.key, kind, visit.now)
    answer = {
        "trade_no": number_of(found),
        "out_trade_no": found.asked.key,
        "buyer_user_id": user_id(found.rider),
    }
    return visit.keep(request, answer, report)


def trade_view(visit: Visit, row: Debit) -> Answer:
    """What answers say of a trade."""
    view: Answer = {
        "trade_no": number_of(row),
        "out_trade_no": row.asked.key,
        "buyer_logon_id": logon_id(row.rider),
        "buyer_user_id": user_id(row.rider),
        "buyer_open_id": open_id(row.rider),
        "trade_status": status_of(row, visit),
        "total_amount": yuan(row.amount_minor),
        "receipt_amount": yuan(row.paid_minor),
        "buyer_pay_amount": yuan(row.paid_minor),
        "subject": row.asked.subject,
    }
    if row.paid_at:
        view["send_pay_date"] = local(row.paid_at)
        view["fund_bill_list"] = [{"amount": yuan(row.paid_minor), "fund_channel": "ALIPAYACCOUNT"}]
    hold = _order_of(visit, row)
    if hold and hold.asked.agreement:
        view["credit_biz_order_id"] = number_of(hold)
        view["credit_pay_mode"] = CREDIT_PAY_MODE
    elif hold:
        view["auth_no"] = number_of(hold)
    return view


def status_of(row: Debit, visit: Visit) -> str:
    """WAIT_BUYER_PAY, TRADE_SUCCESS, TRADE_FINISHED (no refund any more), TRADE_CLOSED (unpaid, or all given back)."""
    if row.state == "closed" or (row.state == "paid" and row.refunded_minor == row.paid_minor):
        return "TRADE_CLOSED"
    if row.state != "paid":
        return "WAIT_BUYER_PAY"
    window = visit.account.terms.refund_window_s
    over = window is not None and row.updated_at + timedelta(seconds=window) < visit.now
    return "TRADE_FINISHED" if over else "TRADE_SUCCESS"


def _async(row: Debit, options: tuple[str, ...]) -> Answer:
    """That a trade was taken to be collected, told to who asks for it (AlipayTradePayResponse.asyncPayApplyStatus)."""
    return {"async_pay_apply_status": "S"} if row.retries and "async_pay_info" in options else {}


def logon_id(rider: str) -> str:
    """A rider's masked login, as answers show it."""
    return f"{user_id(rider)[4:7]}***@example.com"


def _asked(visit: Visit, asked: Pay) -> tuple[AskDebit, Any]:
    """The debit in the core's words, and the account under the product's terms."""
    amount = fen(asked.total_amount)
    made = AskDebit(asked.out_trade_no, "", amount, CURRENCY, subject=asked.subject)
    if asked.auth_no:
        hold = _order(visit, asked.auth_no)
        _check_parties(visit, asked, hold)
        ends = asked.auth_confirm_mode == "COMPLETE"
        product = visit.under(
            provider_retries=False, new_key_after_decline=False, further_debits=True, give_up_s=AUTHORISED_TRADE_LIFE_S
        )
        return replace(made, hold=hold.asked.key, ends_hold=ends), product
    if asked.scene == ZHIMA_SCENE:
        hold = _order(visit, asked.auth_code or "")
        ends = visit.account.terms.ends_hold
        made = replace(made, agreement=hold.asked.agreement, hold=hold.asked.key, ends_hold=ends)
        return made, visit.under(provider_retries=asked.is_async_pay, new_key_after_decline=False, further_debits=False)
    if number := str(asked.agreement_params.get("agreement_no", "")):
        agreement = visit.agreement(number, None)
        product = visit.under(provider_retries=asked.is_async_pay, new_key_after_decline=False, hold_needed=False)
        return replace(made, agreement=agreement.asked.key), product
    raise RefusedError(400, "INVALID_REQUEST", "neither a credit order nor an authorisation nor an agreement is named")


def _order(visit: Visit, number: str) -> Hold:
    try:
        return visit.hold(number, None)
    except RefusedError:
        raise RefusedError(404, "NO_ORDER", "the order does not exist") from None


def _order_of(visit: Visit, row: Debit) -> Hold | None:
    return visit.desk.books.holds.get((row.account_id, row.asked.hold or ""))


def _check_parties(visit: Visit, asked: Pay, hold: Hold) -> None:
    buyer = asked.buyer_id in (None, user_id(hold.rider)) and asked.buyer_open_id in (None, open_id(hold.rider))
    if not buyer or not (asked.buyer_id or asked.buyer_open_id):
        raise RefusedError(400, "ACQ.TRADE_BUYER_NOT_MATCH", "the buyer is not who authorised it")
    merchant = visit.account.alipay
    if merchant and asked.seller_id not in (None, merchant.seller_id):
        raise RefusedError(400, "ACQ.PARTNER_ERROR", "seller_id is another merchant's")


def _refund(visit: Visit, asked: AskRefund) -> Refund:
    try:
        return desk.make_refund(visit.desk, visit.account, asked.key, asked, visit.now)
    except RefusedError as refused:
        if refused.code == "KEY_CONFLICT":
            raise RefusedError(409, "REFUND_CONFLICT", "the request number was used for another refund") from None
        raise


def _status(text: str) -> str:
    try:
        told = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return ""
    return str(told.get("status", "")) if isinstance(told, dict) else ""
