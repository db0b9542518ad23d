"""WeChat Pay's answers as we read them, and what they mean. Nothing about the person but the openid is read.

Fields and states: TheNorthMemory/wechatpay-openapi (docs/v3/payscore, docs/definitions); wechatpay-skills (1-商户);
wechatpay-go (services/payments, services/refunddomestic). A word nobody listed is no error, only Unknown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from service.adapters.providers.port import DebitItem
from service.billing.agreements.standing import AgreementStatus, HoldStatus
from service.billing.instants import read_instant, utc
from service.billing.outcomes import (
    Accepted,
    Closed,
    NeedsRider,
    NotFound,
    Outcome,
    Part,
    Rejected,
    Succeeded,
    Unknown,
)

CURRENCY = "CNY"
ZONE = ZoneInfo("Asia/Shanghai")
"""WeChat Pay's clock."""
NAME_MAX, DESCRIPTION_MAX = 20, 30
DEVICE_MAX = 32
"""unverified: how long a device's id may be. What it is: wechatpay-skills, create_payscore_order.go; trades without
staff must name one (Senparc.Weixin, ServiceOrderRequest_Device)."""
PAYMENTS_MAX, DISCOUNTS_MAX = 100, 30
AMOUNT_MINOR_MAX = 100_000_000_00
ELSEWHERE = "MCH"
"""paid_type: the merchant said that the rider had paid him (Enumerations.yaml, PayScoreCollectionPaidType)."""
PAID_ELSEWHERE = Closed("PAID_ELSEWHERE", "paid")
ANOTHER_NUMBER = Unknown("the answer is about another number")
_COMPACT = re.compile(r"\d{14}", re.ASCII)


class Nothing(msgspec.Struct, frozen=True):
    """An answer in which only the status counts."""


class TokenView(msgspec.Struct, frozen=True):
    """permissions.yaml."""

    apply_permissions_token: str


class PermissionView(msgspec.Struct, frozen=True):
    """permissions/authorization-code/{authorization_code}.yaml, permissions/openid/{openid}.yaml."""

    authorization_state: str
    authorization_code: str = ""
    openid: str = ""
    cancel_authorization_time: str = ""
    authorization_success_time: str = ""


class RiskFund(msgspec.Struct, frozen=True):
    """The cap of an order."""

    amount: int = 0


class TimeRange(msgspec.Struct, frozen=True):
    """When the service was used."""

    start_time: str = ""
    end_time: str = ""


class Detail(msgspec.Struct, frozen=True):
    """One payment of an order."""

    amount: int = 0
    transaction_id: str = ""
    paid_type: str = ""


class Collection(msgspec.Struct, frozen=True):
    """How the money of a completed order is coming in."""

    state: str = ""
    total_amount: int = 0
    paying_amount: int = 0
    paid_amount: int = 0
    details: tuple[Detail, ...] | None = None


class OrderView(msgspec.Struct, frozen=True):
    """serviceorder.yaml, PAYSCORE.USER_PAID, PAYSCORE.USER_CONFIRM."""

    out_order_no: str = ""
    state: str = ""
    state_description: str = ""
    order_id: str = ""
    openid: str = ""
    total_amount: int | None = None
    need_collection: bool | None = None
    collection: Collection | None = None
    risk_fund: RiskFund | None = None
    time_range: TimeRange | None = None
    package: str = ""


class Amount(msgspec.Struct, frozen=True):
    """Of a payment (`total`) and of a refund (`refund`)."""

    total: int = 0
    refund: int = 0
    currency: str = CURRENCY


class PrepaidView(msgspec.Struct, frozen=True):
    """The answer of /v3/pay/transactions/jsapi."""

    prepay_id: str


class PaymentView(msgspec.Struct, frozen=True):
    """/v3/pay/transactions/out-trade-no/{out_trade_no}, TRANSACTION.SUCCESS."""

    out_trade_no: str = ""
    transaction_id: str = ""
    trade_state: str = ""
    amount: Amount | None = None


class RefundView(msgspec.Struct, frozen=True):
    """/v3/refund/domestic/refunds; a notification says `refund_status` instead of `status`."""

    out_refund_no: str = ""
    refund_id: str = ""
    status: str = ""
    refund_status: str = ""
    amount: Amount | None = None


class BillAddress(msgspec.Struct, frozen=True):
    """/v3/bill/tradebill."""

    download_url: str
    hash_value: str
    hash_type: str = "SHA1"


NOTHING = msgspec.json.Decoder(Nothing)
TOKEN = msgspec.json.Decoder(TokenView)
PERMISSION = msgspec.json.Decoder(PermissionView)
ORDER = msgspec.json.Decoder(OrderView)
PREPAID = msgspec.json.Decoder(PrepaidView)
PAYMENT = msgspec.json.Decoder(PaymentView)
REFUND = msgspec.json.Decoder(RefundView)
BILL = msgspec.json.Decoder(BillAddress)


def amount_wrong(amount_minor: int, currency: str) -> Rejected | None:
    """Why an amount can't be collected; WeChat Pay counts fen."""
    if currency != CURRENCY:
        return Rejected("CURRENCY_NOT_SUPPORTED", f"WeChat Pay collects {CURRENCY}, not {currency}")
    if not 0 < amount_minor <= AMOUNT_MINOR_MAX:
        return Rejected("AMOUNT_OUT_OF_RANGE", "WeChat Pay takes 0.01 to 100000000.00")
    return None


def written(at: datetime) -> str:
    """An instant as orders have it."""
    return at.astimezone(ZONE).strftime("%Y%m%d%H%M%S")


def instant(text: str) -> datetime | None:
    """An instant of WeChat Pay's, in either of the two ways that its documents show; None for anything else."""
    try:
        if _COMPACT.fullmatch(text):
            return utc(datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=ZONE))
        return read_instant(text)
    except ValueError:
        return None


def content(items: Sequence[DebitItem], total_minor: int, subject: str) -> dict[str, Any]:
    """An order's lines and their sum; always the same for the same debit.

    One line where the items can't be shown: none is above 0, too many, or they do not sum. Names are at most 20
    characters and occur once (完结支付分订单, post_payments.name), descriptions 30; amounts are above 0 (268435464).
    """
    plus = [item for item in items if item.amount_minor > 0]
    minus = [item for item in items if item.amount_minor < 0]
    shown = 0 < len(plus) <= PAYMENTS_MAX and len(minus) <= DISCOUNTS_MAX
    if not shown or sum(item.amount_minor for item in items) != total_minor:
        plus, minus = [DebitItem(subject, total_minor)], []
    lines: dict[str, Any] = {"post_payments": _lines(plus)}
    if minus:
        lines["post_discounts"] = _lines(minus)
    return lines | {"total_amount": total_minor}


def _lines(items: Sequence[DebitItem]) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    names: set[str] = set()
    for item in items:
        name = base = shortened(item.name, NAME_MAX) or "费用"
        count = 1
        while name in names:
            count += 1
            name = f"{base[: NAME_MAX - 1 - len(str(count))]} {count}"
        names.add(name)
        line: dict[str, Any] = {"name": name, "amount": abs(item.amount_minor)}
        described = shortened(item.description, DESCRIPTION_MAX)
        if described or item.amount_minor < 0:
            line["description"] = described or name
        lines.append(line)
    return lines


def shortened(text: str, characters: int) -> str:
    """A text as WeChat Pay shows it: printable, and cut."""
    return "".join(sign if sign.isprintable() else " " for sign in text).strip()[:characters]


def permission_status(view: PermissionView) -> AgreementStatus | Unknown:
    """How a permission stands. UNAVAILABLE is said before the rider has agreed and after he has ended it."""
    match view.authorization_state:
        case "AVAILABLE" if view.openid:
            return AgreementStatus("active", view.openid)
        case "UNAVAILABLE" if view.openid or view.cancel_authorization_time or view.authorization_success_time:
            return AgreementStatus("revoked", view.openid or None)
        case "UNAVAILABLE" | "UNBINDUSER":
            return AgreementStatus("pending")
    return Unknown(f"authorization_state {view.authorization_state}")


def hold_status(order: OrderView) -> HoldStatus | Unknown:
    """How an order stands as a hold; one that is completed and not paid yet is still open."""
    number, cap = order.order_id or None, order.risk_fund.amount if order.risk_fund else None
    match order.state:
        case "CREATED":
            return HoldStatus("pending", number)
        case "DOING":
            return HoldStatus("open", number, cap or None)
        case "DONE":
            return HoldStatus("completed", number)
        case "REVOKED" | "CLOSED":
            return HoldStatus("released", number)
        case "EXPIRED":
            return HoldStatus("expired", number)
    return Unknown(f"state {order.state}")


def debit_outcome(order: OrderView) -> Outcome:
    """What an order says of its debit: state, description and collection together (wechatpay-skills, 排障手册 2.6 #11).

    NotFound: it was not completed yet, so nothing was asked for. What he paid the merchant himself is not counted.
    """
    match order.state:
        case "CREATED":
            return NotFound()
        case "DOING" if order.state_description == "USER_CONFIRM":
            return NotFound()
        case "DOING" if order.state_description == "MCH_COMPLETE":
            return _collected(order, Accepted())
        case "DONE":
            return _collected(order, Unknown("done, with nothing collected"))
        case "REVOKED" | "CLOSED":
            return _taken_of(order, last=True) or Closed(order.state, "cancelled")
        case "EXPIRED":
            return Closed(order.state)
    return Unknown(f"state {order.state} {order.state_description}".rstrip())


def payments(order: OrderView) -> dict[str, int]:
    """What WeChat Pay has taken of an order, by its number of the payment (which a repeated detail names twice)."""
    details = order.collection.details if order.collection and order.collection.details else ()
    return {detail.transaction_id: detail.amount for detail in details if detail.transaction_id and _taken(detail)}


def _taken(detail: Detail) -> bool:
    return detail.paid_type != ELSEWHERE and detail.amount > 0


def _taken_of(order: OrderView, *, last: bool) -> Succeeded | None:
    """What WeChat Pay has taken of an order; None: nothing."""
    parts = tuple(Part(transaction_id, amount) for transaction_id, amount in payments(order).items())
    if not parts:
        return None
    return Succeeded(sum(part.amount_minor for part in parts), parts[0].provider_ref, parts, last=last)


def _collected(order: OrderView, unpaid: Outcome) -> Outcome:
    got = order.collection
    if got is None:
        waived = order.state == "DONE" and (order.need_collection is False or order.total_amount == 0)
        return Closed("NOTHING_TO_COLLECT", "cancelled") if waived else unpaid
    taken = _taken_of(order, last=order.state == "DONE")
    elsewhere = any(detail.paid_type == ELSEWHERE for detail in got.details or ())
    if taken is not None:
        return taken
    if elsewhere and order.state == "DONE":
        return PAID_ELSEWHERE
    if got.paid_amount > 0 or got.state == "USER_PAID":
        return Unknown("paid, without saying how")
    if got.state in ("USER_PAYING", "WAIT_PAY", ""):  # WAIT_PAY: unverified, only in 排障手册 3.7 #4.
        return unpaid
    return Unknown(f"collection.state {got.state}")


def payment_outcome(view: PaymentView) -> Outcome:
    """What a payment that the rider makes himself has come to; REFUND: it was paid, and some of it given back."""
    match view.trade_state:
        case "SUCCESS" | "REFUND":
            total = view.amount.total if view.amount else 0
            if total <= 0 or not view.transaction_id or (view.amount and view.amount.currency != CURRENCY):
                return Unknown("paid, with an amount that can't be read")
            return Succeeded(total, view.transaction_id)
        case "NOTPAY" | "USERPAYING" | "PAYERROR":
            return NeedsRider(view.trade_state)
        case "CLOSED" | "REVOKED":
            return Closed(view.trade_state)
    return Unknown(f"trade_state {view.trade_state}")


def refund_outcome(view: RefundView) -> Outcome:
    """How a refund stands. CLOSED: the money is the merchant's again. ABNORMAL: the rider's card takes none; WeChat Pay
    keeps the money until people at the merchant platform send it elsewhere, under the same number.

    Source: pay.weixin.qq.com, 查询单笔退款 and 发起异常退款.
    """
    match view.status or view.refund_status:
        case "SUCCESS":
            amount = view.amount.refund if view.amount else 0
            return Succeeded(amount, view.refund_id or None) if amount > 0 else Unknown("refunded, without an amount")
        case "PROCESSING":
            return Accepted(view.refund_id or None)
        case "ABNORMAL":
            return Accepted(view.refund_id or None, "ABNORMAL")
        case "CLOSED" | "CLOSE":
            return Closed("CLOSED")
    return Unknown(f"refund status {view.status or view.refund_status}")
