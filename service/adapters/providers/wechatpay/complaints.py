"""Complaints that riders make at WeChat Pay: announced at an address of the merchant's, asked for by their number.

Of a complaint only its state and what it is about are read: neither what the rider wrote nor how to reach him. It names
payments by WeChat Pay's number, and service orders by ours, which may not be paid, or not even be completed. Their
states in it are those of the day on which the rider complained ("不会实时更新"), so an order is asked for itself.

Sources: pay.weixin.qq.com, 消费者投诉2.0, 查询投诉单详情 (/v3/merchant-service/complaints-v2/{complaint_id}:
complaint_order_info, service_order_info); service_order_info word by word also in WxJava,
ComplaintDetailResult.ServiceOrder.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

import msgspec

from service.adapters.providers.port import DisputeAnswer, DisputeStatus, HoldRef, Listening
from service.adapters.providers.wechatpay import codes, wire
from service.adapters.providers.wechatpay.client import Client
from service.adapters.providers.wechatpay.codes import Problem
from service.adapters.providers.wechatpay.orders import Orders
from service.billing.outcomes import NotFound, Outcome, Unknown

COMPLAINTS = "/v3/merchant-service/complaints-v2"
State = Literal["opened", "resolved"]
STATES: dict[str, State] = {"PENDING": "opened", "PROCESSING": "opened", "PROCESSED": "resolved"}
"""complaint_state: 待处理, 处理中, 已处理完成."""


ADDRESS = "/v3/merchant-service/complaint-notifications"
"""A merchant has one for all his complaints (消费者投诉2.0, 创建/查询/更新投诉通知回调地址)."""


class Address(msgspec.Struct, frozen=True):
    """Where complaints are told."""

    url: str = ""


class Payment(msgspec.Struct, frozen=True):
    """A payment that is complained about; the amount is all that was paid, in fen."""

    transaction_id: str = ""
    amount: int = 0


class ServiceOrder(msgspec.Struct, frozen=True):
    """A service order that is complained about, by our number of it."""

    out_order_no: str = ""


class Complaint(msgspec.Struct, frozen=True):
    """What is read of a complaint."""

    complaint_id: str = ""
    complaint_state: str = ""
    complaint_order_info: tuple[Payment, ...] | None = None
    service_order_info: tuple[ServiceOrder, ...] | None = None


COMPLAINT = msgspec.json.Decoder(Complaint)
_ADDRESS = msgspec.json.Decoder(Address)


async def tell_complaints_at(client: Client, url: str, *, replace: bool) -> Listening | Outcome:
    """Has complaints told at `url`; another address that is registered is left, unless it is to be replaced."""
    known = await client.get(ADDRESS, {}, _ADDRESS)
    if isinstance(known, Problem):
        outcome = codes.outcome(known)
        if not isinstance(outcome, NotFound):
            return outcome
        known = Address()
    if not isinstance(known, Address):
        return known
    before = known.url or None
    if before == url or (before is not None and not replace):
        return Listening(before, before)
    tell = client.post if before is None else client.put
    told = await tell(ADDRESS, {"url": url}, wire.NOTHING)
    if isinstance(told, Problem):
        return codes.outcome(told)
    return Listening(url, before) if isinstance(told, wire.Nothing) else told


async def ask_complaint(client: Client, orders: Orders, number: str) -> DisputeAnswer:
    """How a complaint stands, and about which orders and payments it is. An order is named by our number of it, and by
    what was paid of it once there is something. A complaint that names neither is about nothing of ours: NotFound."""
    answer = await client.get(f"{COMPLAINTS}/{quote(number, safe='')}", {}, COMPLAINT)
    if isinstance(answer, Problem):
        return codes.of_query(codes.outcome(answer))
    if not isinstance(answer, Complaint):
        return codes.of_query(answer)
    if answer.complaint_id not in ("", number):
        return wire.ANOTHER_NUMBER
    state = STATES.get(answer.complaint_state)
    if state is None:
        return Unknown(f"complaint_state {answer.complaint_state}")
    told: list[DisputeStatus] = []
    of_orders: set[str] = set()
    for key in dict.fromkeys(order.out_order_no for order in answer.service_order_info or ()):
        if key:
            paid = await _paid(orders, key)
            of_orders |= paid.keys()
            ref, amount = next(iter(paid), ""), sum(paid.values())
            told.append(DisputeStatus(ref, "complaint", state, amount, wire.CURRENCY, number, key=key, named_by="hold"))
    for payment in answer.complaint_order_info or ():
        if payment.transaction_id and payment.transaction_id not in of_orders:
            amount = max(payment.amount, 0)
            told.append(DisputeStatus(payment.transaction_id, "complaint", state, amount, wire.CURRENCY, number))
    return tuple(told) or NotFound()


async def _paid(orders: Orders, key: str) -> dict[str, int]:
    """What was paid of an order, by the numbers of its payments; nothing where it does not say."""
    order = await orders.order(HoldRef(key))
    return wire.payments(order) if isinstance(order, wire.OrderView) else {}
