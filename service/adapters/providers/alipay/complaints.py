"""Complaints that riders make at Alipay about a trade: announced by a message, asked for by their number.

Of a complaint only its state and its trade are read: neither what the rider wrote nor how to reach him. Sources:
alipay-sdk-java-all, AlipayMerchantTradecomplainQueryModel and -Response. (alipay.security.risk.complaint.info.query is
about complaints of another product, RiskGO, which have numbers of their own and are announced by no message we know.)
"""

from __future__ import annotations

from typing import Literal

import msgspec

from service.adapters.providers.alipay import codes, wire
from service.adapters.providers.alipay.codes import Problem
from service.adapters.providers.alipay.gateway import Gateway
from service.adapters.providers.port import DisputeAnswer, DisputeStatus
from service.billing.outcomes import Unknown

QUERY = "alipay.merchant.tradecomplain.query"
State = Literal["opened", "resolved"]
STATES: dict[str, State] = {
    "MERCHANT_PROCESSING": "opened",
    "MERCHANT_FEEDBACKED": "opened",
    "MERCHANT_FEEDBACK_OVERTIME": "opened",
    "PLATFORM_PROCESSING": "opened",
    "FINISHED": "resolved",
    "CANCELLED": "resolved",
    "PLATFORM_FINISH": "resolved",
    "CLOSED": "resolved",
}
"""AlipayMerchantTradecomplainQueryResponse.status; MERCHANT_FEEDBACK_OVERTIME is in the list's response alone. One that
the merchant has answered is open until the rider, Alipay or time ends it."""


class Complaint(msgspec.Struct, frozen=True):
    """What is read of AlipayMerchantTradecomplainQueryResponse; the amount is the trade's, in yuan."""

    complain_event_id: str = ""
    status: str = ""
    trade_no: str = ""
    trade_amount: str = ""


COMPLAINT = msgspec.json.Decoder(Complaint)


async def ask_complaint(gateway: Gateway, number: str) -> DisputeAnswer:
    """How a complaint stands, and about which trade it is."""
    answer = await gateway.call(QUERY, {"complain_event_id": number}, COMPLAINT)
    if isinstance(answer, Problem):
        return codes.of_query(codes.outcome(answer))
    if not isinstance(answer, Complaint):
        return codes.of_query(answer)
    if answer.complain_event_id not in ("", number):
        return wire.ANOTHER_NUMBER
    state = STATES.get(answer.status)
    if state is None or not answer.trade_no:
        return Unknown(f"complaint state {answer.status}" if state is None else "a complaint about no trade")
    amount = wire.minor(answer.trade_amount) or 0
    return (DisputeStatus(answer.trade_no, "complaint", state, amount, wire.CURRENCY, number),)
