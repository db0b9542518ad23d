"""Complaints about trades (alipay-sdk-java-all, AlipayMerchantTradecomplainQueryModel and -Response)."""

from __future__ import annotations

import msgspec

from service.lab.provider.alipay.trades import logon_id
from service.lab.provider.alipay.visits import Answer, Visit
from service.lab.provider.alipay.wire import local, number_of, yuan
from service.lab.provider.refusals import unknown
from service.lab.provider.rows import Dispute

STATUS = {"open": "MERCHANT_PROCESSING", "resolved": "FINISHED"}


class NameComplaint(msgspec.Struct, frozen=True):
    """tradecomplain.query: by Alipay's number of the complaint."""

    complain_event_id: str


def query(visit: Visit, asked: NameComplaint) -> Answer:
    """The complaint, with what the rider says and how to reach him, as Alipay tells a merchant."""
    found = find(visit, asked.complain_event_id)
    debit = visit.desk.books.debits_by_number[found.debit_number]
    merchant = visit.account.alipay
    return {
        "complain_event_id": found.ref,
        "status": STATUS[found.state],
        "trade_no": number_of(debit),
        "merchant_order_no": debit.asked.key,
        "gmt_create": local(found.created_at),
        "gmt_modified": local(visit.now),
        "leaf_category_name": "扣款有误",
        "complain_reason": "扣款有误",
        "content": f"{logon_id(debit.rider)}: 多扣款了",
        "phone_no": logon_id(debit.rider),
        "target_id": merchant.seller_id if merchant else "",
        "target_type": "PID",
        "trade_amount": yuan(debit.amount_minor),
    }


def find(visit: Visit, number: str) -> Dispute:
    """One of the merchant's complaints; RefusedError."""
    digits = number.removeprefix("DI")
    found = visit.desk.books.disputes.get(int(digits) if digits.isdecimal() else 0)
    if found is None or found.account_id != visit.account.account_id or found.kind != "complaint":
        raise unknown("complaint")
    return found
