"""Alipay's answers as we read them, without a name, a login or any other word about the person; and what they mean.

Fields and states: alipay-sdk-java-all, the classes `com.alipay.api.response.*` named at each shape.
"""

from __future__ import annotations

import re

import msgspec

from service.billing.agreements.standing import AgreementStatus, HoldStatus, HoldStatusState
from service.billing.money import MoneyError, exponent, format_amount, parse_decimal
from service.billing.outcomes import Accepted, Closed, Conflict, Outcome, Rejected, Succeeded, Unknown

CURRENCY = "CNY"
"""What Alipay's mainland products collect."""
AMOUNT_MINOR_MAX = 100_000_000_00
SUBJECT_MAX = 256
ANOTHER_NUMBER = Unknown("the answer is about another number")
_FORBIDDEN = re.compile(r"[/=&\x00-\x1f\x7f]+")


class Nothing(msgspec.Struct, frozen=True):
    """An answer in which only the code counts."""


class AgreementView(msgspec.Struct, frozen=True):
    """ZhimaCreditPayafteruseCreditagreementQueryResponse."""

    agreement_status: str = ""
    credit_agreement_id: str = ""
    out_agreement_no: str = ""


class OrderView(msgspec.Struct, frozen=True):
    """ZhimaCreditPayafteruseCreditbizorder{Order,Query}Response; total_amount is the order's, the most it can pay."""

    credit_biz_order_id: str = ""
    out_order_no: str = ""
    order_status: str = ""
    total_amount: str = ""


class PayView(msgspec.Struct, frozen=True):
    """AlipayTradePayResponse."""

    out_trade_no: str = ""
    trade_no: str = ""
    total_amount: str = ""
    async_pay_apply_status: str = ""
    credit_pay_mode: str = ""


class TradeView(msgspec.Struct, frozen=True):
    """AlipayTradeQueryResponse; amounts in yuan, `send_pay_date` only where it was paid."""

    out_trade_no: str = ""
    trade_no: str = ""
    trade_status: str = ""
    total_amount: str = ""
    receipt_amount: str = ""
    buyer_pay_amount: str = ""
    send_pay_date: str = ""
    credit_pay_mode: str = ""


class RefundView(msgspec.Struct, frozen=True):
    """AlipayTradeRefundResponse; refund_fee is all that was ever given back of the trade."""

    out_trade_no: str = ""
    trade_no: str = ""
    fund_change: str = ""
    refund_fee: str = ""


class RefundQueryView(msgspec.Struct, frozen=True):
    """AlipayTradeFastpayRefundQueryResponse; refund_amount is this request's."""

    out_request_no: str = ""
    trade_no: str = ""
    refund_status: str = ""
    refund_amount: str = ""


class AuthView(msgspec.Struct, frozen=True):
    """AlipayFundAuthOperationDetailQueryResponse. The payer's number goes into the next call and nowhere else."""

    auth_no: str = ""
    out_order_no: str = ""
    order_title: str = ""
    order_status: str = ""
    status: str = ""
    amount: str = ""
    rest_amount: str = ""
    total_freeze_amount: str = ""
    total_pay_amount: str = ""
    payer_user_id: str = ""
    payer_open_id: str = ""


class BillAddress(msgspec.Struct, frozen=True):
    """AlipayDataDataserviceBillDownloadurlQueryResponse; good for 30 seconds."""

    bill_download_url: str


NOTHING = msgspec.json.Decoder(Nothing)
AGREEMENT = msgspec.json.Decoder(AgreementView)
ORDER = msgspec.json.Decoder(OrderView)
PAY = msgspec.json.Decoder(PayView)
TRADE = msgspec.json.Decoder(TradeView)
REFUND = msgspec.json.Decoder(RefundView)
REFUND_QUERY = msgspec.json.Decoder(RefundQueryView)
AUTH = msgspec.json.Decoder(AuthView)
BILL = msgspec.json.Decoder(BillAddress)

ORDER_STATES: dict[str, HoldStatusState] = {
    "INIT": "open",
    "TRADE_FINISHED": "completed",
    "TRADE_CLOSED": "released",
    "WAIT_FULFILL": "open",  # unverified for 先享: said of the risk product alone, as the next.
    "OVERDUE": "open",
}
"""ZhimaCreditPayafteruseCreditbizorderQueryResponse; TRADE_CLOSED: cancelled, or paid and all of it given back."""
AUTH_STATES: dict[str, HoldStatusState] = {
    "INIT": "pending",
    "AUTHORIZED": "open",
    "FINISH": "completed",
    "CLOSED": "released",
}
"""AlipayFundAuthOperationDetailQueryResponse; CLOSED: never confirmed, or all of it unfrozen."""
PAID = frozenset({"TRADE_SUCCESS", "TRADE_FINISHED"})
REFUNDED = "REFUND_SUCCESS"


def yuan(amount_minor: int, currency: str) -> str | Rejected:
    """The amount as Alipay wants it, exact: "12.34". Rejected outside of [0.01, 100000000] or in another currency."""
    if currency != CURRENCY:
        return Rejected("CURRENCY_NOT_SUPPORTED", f"Alipay collects {CURRENCY}, not {currency}")
    if not 0 < amount_minor <= AMOUNT_MINOR_MAX:
        return Rejected("AMOUNT_OUT_OF_RANGE", "Alipay takes 0.01 to 100000000.00")
    return format_amount(amount_minor, currency)


def minor(text: str) -> int | None:
    """Minor units of an amount in yuan; None when it is no amount, or finer than a fen."""
    try:
        amount = parse_decimal(text).scaleb(exponent(CURRENCY))
    except MoneyError:
        return None
    return int(amount) if amount >= 0 and amount == amount.to_integral_value() else None


def subject(text: str) -> str:
    """A title without the characters that Alipay forbids, always the same for the same text.

    Source: AlipayTradePayModel, "不可使用特殊字符，如 /，=，& 等".
    """
    return _FORBIDDEN.sub(" ", text).strip()[:SUBJECT_MAX] or "用车"


def agreement_status(view: AgreementView) -> AgreementStatus | Unknown:
    """How an agreement stands. INVALID with a number: ended; without: not signed yet."""
    number = view.credit_agreement_id or None
    match view.agreement_status:
        case "VALID" if number:
            return AgreementStatus("active", number)
        case "INVALID":
            return AgreementStatus("revoked" if number else "pending", number)
    return Unknown(f"agreement_status {view.agreement_status}")


def order_status(view: OrderView) -> HoldStatus | Unknown:
    """How an order stands."""
    state = ORDER_STATES.get(view.order_status)
    if state is None or not view.credit_biz_order_id:
        return Unknown(f"order_status {view.order_status}")
    return HoldStatus(state, view.credit_biz_order_id)


def another_amount(total: str, asked_minor: int) -> Conflict | None:
    """What it means that a trade which is not paid yet is over another amount than we ask for: its number was used by
    something else, in the time that a restored database lost, say. Where Alipay tells none, nothing."""
    told = minor(total) if total else None
    return Conflict(f"total_amount {total}") if told not in (None, asked_minor) else None


def debit_outcome(view: TradeView, waiting: Outcome, credit_pay_modes: tuple[str, ...]) -> Outcome:
    """What a trade says about its debit; `waiting` is what an unpaid one means.

    TRADE_CLOSED is told apart: a trade that was paid before it closed was given back, and had succeeded.
    """
    if view.trade_status == "WAIT_BUYER_PAY":
        return waiting
    paid = view.trade_status in PAID
    if view.trade_status == "TRADE_CLOSED":
        paid = bool(view.send_pay_date or minor(view.receipt_amount) or minor(view.buyer_pay_amount))
        if not paid:
            return Closed("TRADE_CLOSED")
    if not paid:
        return Unknown(f"trade_status {view.trade_status}")
    return succeeded(view.total_amount, view.trade_no, view.credit_pay_mode, credit_pay_modes)


def succeeded(total: str, trade_no: str, mode: str, credit_pay_modes: tuple[str, ...]) -> Succeeded | Unknown:
    """A paid trade, unless it was paid in a way that nobody listed or its amount can't be read."""
    amount = minor(total)
    if mode and mode not in credit_pay_modes:
        return Unknown(f"credit_pay_mode {mode}")
    return Succeeded(amount, trade_no or None) if amount else Unknown("paid, with an amount that can't be read")


def accepted(view: PayView, asked_minor: int, credit_pay_modes: tuple[str, ...]) -> Accepted | Conflict | Unknown:
    """What Alipay says to a debit that it collects by itself: at best that it was taken on.

    Source: AlipayTradePayResponse.async_pay_apply_status ("S：受理成功…；其它：受理结果未知").
    """
    if view.credit_pay_mode and view.credit_pay_mode not in credit_pay_modes:
        return Unknown(f"credit_pay_mode {view.credit_pay_mode}")
    if view.async_pay_apply_status != "S":
        return Unknown(f"async_pay_apply_status {view.async_pay_apply_status or 'missing'}")
    return another_amount(view.total_amount, asked_minor) or Accepted(view.trade_no or None)
