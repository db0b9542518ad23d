"""Complaints of riders: /v3/merchant-service/complaints-v2, and where they are told."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import msgspec

from service.lab.provider import disputes
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Dispute
from service.lab.provider.wechatpay.collection import payments
from service.lab.provider.wechatpay.visits import Answer, Visit
from service.lab.provider.wechatpay.wire import SHANGHAI, compact, order_id, own_trade_no, rfc3339, transaction_id

PER_PAGE_MAX = 50


class Page(msgspec.Struct, frozen=True):
    """GET /v3/merchant-service/complaints-v2: of some days."""

    begin_date: str
    end_date: str
    limit: Annotated[int, msgspec.Meta(ge=1, le=PER_PAGE_MAX)] = 10
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0
    complainted_mchid: str | None = None


class Name(msgspec.Struct, frozen=True):
    """GET .../{complaint_id}."""


class Response(msgspec.Struct, frozen=True):
    """POST .../{complaint_id}/response."""

    complainted_mchid: str
    response_content: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Finish(msgspec.Struct, frozen=True):
    """POST .../{complaint_id}/complete."""

    complainted_mchid: str


class Address(msgspec.Struct, frozen=True):
    """POST and PUT /v3/merchant-service/complaint-notifications."""

    url: str


def page(visit: Visit, asked: Page) -> Answer:
    """The complaints of some days."""
    try:
        first, last = date.fromisoformat(asked.begin_date), date.fromisoformat(asked.end_date)
    except ValueError:
        raise RefusedError(400, "INVALID_REQUEST", "begin_date or end_date is not yyyy-MM-dd") from None
    mine = [
        row
        for row in visit.desk.books.disputes.values()
        if row.account_id == visit.account.account_id
        and row.kind == "complaint"
        and first <= row.created_at.astimezone(SHANGHAI).date() <= last
    ]
    shown = [view(visit, row) for row in mine[asked.offset : asked.offset + asked.limit]]
    return {"data": shown, "limit": asked.limit, "offset": asked.offset, "total_count": len(mine)}


def detail(visit: Visit, asked: Name, number: str) -> Answer:
    """One complaint."""
    return view(visit, _found(visit, number))


def respond(visit: Visit, asked: Response, number: str) -> None:
    """The merchant answers the rider."""
    row = _found(visit, number)
    visit.keep(f"complaint/{row.ref}", {"response": asked.response_content})


def finish(visit: Visit, asked: Finish, number: str) -> None:
    """The merchant says that it is dealt with; he must have answered before."""
    row = _found(visit, number)
    if visit.kept(f"complaint/{row.ref}") is None:
        raise RefusedError(400, "INVALID_REQUEST", "a complaint is answered before it is complete")
    key = visit.desk.books.debits_by_number[row.debit_number].asked.key
    asked_ = disputes.AskDispute(visit.account.account_id, key, "complaint", "resolved")
    disputes.dispute(visit.desk.books, visit.account, asked_, visit.now)


def make_address(visit: Visit, asked: Address) -> Answer:
    """Where complaints are told; there is one address."""
    if notify_url(visit):
        raise RefusedError(400, "COMPLAINT_URL_EXISTS", "there is an address")
    return change_address(visit, asked, made=True)


def change_address(visit: Visit, asked: Address, *, made: bool = False) -> Answer:
    """Another address."""
    if not made and not notify_url(visit):
        raise RefusedError(404, "NO_COMPLAINT_URL", "there is no address")
    visit.keep("complaint-url", {"url": asked.url})
    return {"mchid": visit.merchant.mchid, "url": asked.url}


def show_address(visit: Visit, asked: Name) -> Answer:
    """The address."""
    url = notify_url(visit)
    if not url:
        raise RefusedError(404, "NO_COMPLAINT_URL", "there is no address")
    return {"mchid": visit.merchant.mchid, "url": url}


def drop_address(visit: Visit, asked: Name) -> None:
    """No address any more."""
    visit.keep("complaint-url", {"url": None})


def notify_url(visit: Visit) -> str | None:
    """Where complaints are told, if the merchant said so."""
    url: str | None = (visit.kept("complaint-url") or {}).get("url")
    return url


def notice(row: Dispute) -> tuple[str, Answer]:
    """A notification's event and resource: which complaint, and what was done."""
    if row.state == "open":
        return "COMPLAINT.CREATE", {"complaint_id": _number(row), "action_type": "CREATE_COMPLAINT"}
    return "COMPLAINT.STATE_CHANGE", {"complaint_id": _number(row), "action_type": "MERCHANT_CONFIRM_COMPLETE"}


def view(visit: Visit, row: Dispute) -> Answer:
    """What the answers say of a complaint: of its order and payments what could be said when the rider complained
    ("此处上传的是用户发起投诉时的服务单状态，不会实时更新"); what was paid since is not in it."""
    books = visit.desk.books
    debit = books.debits_by_number[row.debit_number]
    state = "PROCESSED" if row.state != "open" else "PROCESSING" if visit.kept(f"complaint/{row.ref}") else "PENDING"
    until = compact(row.created_at)
    paid = [(amount, so_far) for amount, so_far, paid_at in payments(visit, debit) if paid_at <= until]
    done = sum(amount for amount, _ in paid) >= debit.amount_minor
    hold = books.holds.get((debit.account_id, debit.asked.hold or ""))
    ordered = {
        "order_id": order_id(hold) if hold else None,
        "out_order_no": debit.asked.key,
        "state": "DONE" if done else "WAITPAY",
    }
    return {
        "complaint_id": _number(row),
        "complaint_time": rfc3339(row.created_at),
        "complaint_detail": "simulated",
        "problem_description": "simulated",
        "complaint_state": state,
        "complainted_mchid": visit.merchant.mchid,
        "complaint_order_info": [
            {
                "transaction_id": transaction_id(debit, so_far),
                "out_trade_no": own_trade_no(debit, so_far) if hold else debit.asked.key,
                "amount": amount,
            }
            for amount, so_far in paid
        ],
        "service_order_info": [ordered] if hold else [],
        "complaint_full_refunded": debit.refunded_minor == debit.paid_minor,
        "incoming_user_response": state == "PENDING",
        "user_complaint_times": 1,
        "problem_type": "OTHERS",
        "apply_refund_amount": row.amount_minor,
        "payer_openid": visit.openid_of(debit.rider),
    }


def _number(row: Dispute) -> str:
    return f"2000{row.created_at.astimezone(SHANGHAI):%Y%m%d}{row.number:016d}"


def _found(visit: Visit, number: str) -> Dispute:
    row = visit.desk.books.disputes.get(int(number[12:])) if number.isdecimal() and len(number) == 28 else None
    if row is None or row.account_id != visit.account.account_id or row.kind != "complaint":
        raise RefusedError(404, "NO_COMPLAINT", "no such complaint")
    return row
