"""Complaints that riders make at WeChat Pay: announced by a notification, asked for by their number.

Of a complaint only its state and what it is about are read: neither what the rider wrote nor how to reach him. Source:
pay.weixin.qq.com, 消费者投诉2.0, 查询投诉单详情 (/v3/merchant-service/complaints-v2/{complaint_id}).
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

import msgspec

from service.adapters.providers.port import DisputeAnswer, DisputeStatus
from service.adapters.providers.wechatpay import codes, wire
from service.adapters.providers.wechatpay.client import Client
from service.adapters.providers.wechatpay.codes import Problem
from service.billing.outcomes import NotFound, Unknown

COMPLAINTS = "/v3/merchant-service/complaints-v2"
State = Literal["opened", "resolved"]
STATES: dict[str, State] = {"PENDING": "opened", "PROCESSING": "opened", "PROCESSED": "resolved"}
"""complaint_state: 待处理, 处理中, 已处理完成."""


class Payment(msgspec.Struct, frozen=True):
    """A payment that is complained about; the amount is all that was paid, in fen."""

    transaction_id: str = ""
    amount: int = 0


class Complaint(msgspec.Struct, frozen=True):
    """What is read of a complaint."""

    complaint_id: str = ""
    complaint_state: str = ""
    complaint_order_info: tuple[Payment, ...] | None = None


COMPLAINT = msgspec.json.Decoder(Complaint)


async def ask_complaint(client: Client, number: str) -> DisputeAnswer:
    """How a complaint stands, and about which payments it is; one about an order that nothing was paid of yet names no
    payment, and is nothing that a debit could be suspended for: NotFound."""
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
    paid = [payment for payment in answer.complaint_order_info or () if payment.transaction_id]
    if not paid:
        return NotFound()
    return tuple(
        DisputeStatus(payment.transaction_id, "complaint", state, max(payment.amount, 0), wire.CURRENCY, number)
        for payment in paid
    )
