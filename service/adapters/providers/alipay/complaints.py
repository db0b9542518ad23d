"""Complaints that riders make at Alipay about a trade: announced by a message, asked for by their number.

Of a complaint only its state and its trade are read: neither what the rider says nor how to reach him. The trade is
named by both of its numbers, Alipay's own and the merchant's (out_trade_no), since of one that was never paid we may
know but the latter. Sources: alipay-sdk-java-all, AlipayMerchantTradecomplainQueryModel and -Response (trade_no,
merchant_order_no; that both are always told is written nowhere). (alipay.security.risk.complaint.info.query is about
complaints of another product, RiskGO, which have numbers of their own and are announced by no message we know.)
"""

from __future__ import annotations

from typing import Literal

import msgspec

from service.adapters.providers.alipay import codes, wire
from service.adapters.providers.alipay.codes import Problem
from service.adapters.providers.alipay.gateway import Gateway
from service.adapters.providers.alipay.notices import debit_named
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
    merchant_order_no: str = ""
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
    if state is None:
        return Unknown(f"complaint state {answer.status}")
    if not answer.trade_no and not answer.merchant_order_no:
        return Unknown("a complaint about no trade")
    key, named_by = debit_named(answer.merchant_order_no or await _out_trade_no(gateway, answer.trade_no))
    amount = wire.minor(answer.trade_amount) or 0
    status = DisputeStatus(
        answer.trade_no, "complaint", state, amount, wire.CURRENCY, number, key=key, named_by=named_by
    )
    return (status,)


async def _out_trade_no(gateway: Gateway, trade_no: str) -> str:
    """The merchant's number of a trade, "" where Alipay does not tell it now."""
    answer = await gateway.call("alipay.trade.query", {"trade_no": trade_no}, wire.TRADE)
    return answer.out_trade_no if isinstance(answer, wire.TradeView) and answer.trade_no == trade_no else ""
