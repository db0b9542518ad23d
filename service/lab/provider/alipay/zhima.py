"""芝麻先享: agreements of riders, and an order for each ride (alipay-sdk-java-all, ZhimaCreditPayafteruse*)."""

from __future__ import annotations

import msgspec

from service.lab.provider import agreements, desk, holds
from service.lab.provider.alipay.visits import Answer, Visit
from service.lab.provider.alipay.wire import (
    CURRENCY,
    Amount,
    check_subject,
    fen,
    local,
    number_of,
    open_id,
    user_id,
    yuan,
)
from service.lab.provider.refusals import RefusedError, unknown
from service.lab.provider.rows import Agreement, AskAgreement, AskHold, Debit, Hold

AMOUNT_TYPES = frozenset({"RISK_AMOUNT", "ORDER_AMOUNT"})
ORDER_STATUS = {"finished": "TRADE_FINISHED", "released": "TRADE_CLOSED", "expired": "TRADE_CLOSED"}
"""creditbizorder.query: INIT until it is over."""


class SignAgreement(msgspec.Struct, frozen=True):
    """creditagreement.sign; `external_logon_id` is who the merchant says the rider is."""

    out_agreement_no: str
    zm_service_id: str
    category_id: str = ""
    product_code: str = "CREDIT_PAY_AFTER_USE"
    external_logon_id: str | None = None


class NameAgreement(msgspec.Struct, frozen=True):
    """creditagreement.query and .unsign: by either number."""

    credit_agreement_id: str | None = None
    out_agreement_no: str | None = None


class Order(msgspec.Struct, frozen=True):
    """creditbizorder.order; `order_amount` is the most the order's debits may be together."""

    credit_agreement_id: str
    out_order_no: str
    subject: str
    category_id: str = ""
    product_code: str = "CREDIT_PAY_AFTER_USE"
    order_amount: Amount | None = None
    amount_type: str | None = None


class CreateOrder(msgspec.Struct, frozen=True):
    """creditbizorder.create: signs, if need be, and orders, when the rider confirms the order string."""

    out_order_no: str
    subject: str
    zm_service_id: str
    category_id: str = ""
    product_code: str = "CREDIT_PAY_AFTER_USE"
    out_agreement_no: str | None = None
    order_amount: Amount | None = None
    amount_type: str | None = None


class NameOrder(msgspec.Struct, frozen=True):
    """creditbizorder.query: by either number."""

    credit_biz_order_id: str | None = None
    out_order_no: str | None = None


class FinishOrder(msgspec.Struct, frozen=True):
    """creditbizorder.finish; `is_fulfilled` is a string: "true" kept, "false" cancelled."""

    credit_biz_order_id: str
    out_request_no: str
    is_fulfilled: str
    remark: str | None = None


def sign(visit: Visit, asked: SignAgreement, rider: str) -> Agreement:
    """The rider confirmed: the agreement is valid from now on; RefusedError with why the provider declines."""
    account = visit.under(confirm_agreement=False)
    made = AskAgreement(asked.out_agreement_no, rider, CURRENCY)
    refusal = visit.desk.faults.refusal("agreement.begin", account.account_id, made.key, (rider,))
    if refusal and (account.account_id, made.key) not in visit.desk.books.agreements:
        raise RefusedError(402, refusal, "the rider does not qualify")
    agreement = agreements.begin(visit.desk.books, account, made, visit.now)
    if agreement.state != "active":  # Unverified: a number whose agreement has ended signs no other one.
        raise RefusedError(409, f"AGREEMENT_{agreement.state.upper()}", "this out_agreement_no has ended")
    return agreement


def query_agreement(visit: Visit, asked: NameAgreement) -> Answer:
    """How the agreement stands: VALID or INVALID."""
    found = visit.agreement(asked.credit_agreement_id, asked.out_agreement_no)
    return agreement_view(visit.seen(agreements.get(visit.desk.books, visit.account, found.asked.key, visit.now)))


def unsign(visit: Visit, asked: NameAgreement) -> Answer:
    """The merchant ends the agreement; orders under way can still be debited."""
    found = visit.agreement(asked.credit_agreement_id, asked.out_agreement_no)
    agreements.revoke(visit.desk.books, visit.account, found.asked.key, visit.now)
    return {}


def agreement_view(row: Agreement) -> Answer:
    """What a query and a message say of an agreement."""
    return {
        "credit_agreement_id": number_of(row),
        "out_agreement_no": row.asked.key,
        "agreement_status": "VALID" if row.state == "active" else "INVALID",
        "alipay_user_id": user_id(row.asked.rider),
        "open_id": open_id(row.asked.rider),
        "biz_time": local(row.updated_at or row.created_at),
    }


def order(visit: Visit, asked: Order) -> Answer:
    """An order on an agreement, without the rider."""
    found = visit.agreement(asked.credit_agreement_id, None)
    return order_view(visit, _ordered(visit, asked, found.asked.key))


def create(visit: Visit, asked: CreateOrder, rider: str) -> Hold:
    """The rider confirmed: an agreement where there is none yet, and the order."""
    agreement_key = asked.out_agreement_no or asked.out_order_no
    sign(visit, SignAgreement(agreement_key, asked.zm_service_id), rider)
    return _ordered(visit, asked, agreement_key)


def query_order(visit: Visit, asked: NameOrder) -> Answer:
    """How the order stands."""
    found = ordered(visit, asked.credit_biz_order_id, asked.out_order_no)
    return order_view(visit, visit.seen(holds.get(visit.desk.books, visit.account, found.asked.key, visit.now)))


def finish(visit: Visit, asked: FinishOrder) -> Answer:
    """Ends the order for good: no debit is possible after it. One request number is answered once."""
    request = f"finish/{asked.out_request_no}"
    if known := visit.kept(request):
        return known
    found = ordered(visit, asked.credit_biz_order_id, None)
    if asked.is_fulfilled not in ("true", "false"):
        raise RefusedError(400, "INVALID_REQUEST", 'is_fulfilled is neither "true" nor "false"')
    state = "finished" if asked.is_fulfilled == "true" else "released"
    ended = holds.end(visit.desk.books, visit.account, found.asked.key, state, visit.now)
    answer = {
        "credit_biz_order_id": number_of(ended),
        "out_request_no": asked.out_request_no,
        "order_status": ORDER_STATUS.get(ended.state, "INIT"),
    }
    return visit.keep(request, answer)


def order_view(visit: Visit, row: Hold) -> Answer:
    """What the order's answers say of it; `total_amount` is the order's, not what was debited."""
    made = debits_of(visit, row)
    return {
        "credit_biz_order_id": number_of(row),
        "out_order_no": row.asked.key,
        "order_status": ORDER_STATUS.get(row.state, "INIT"),
        "total_amount": yuan(row.cap_minor),
        "total_credit_pay_amount": yuan(sum(debit.paid_minor for debit in made)),
        "create_time": local(row.created_at),
        "trade_no": number_of(made[-1]) if made else None,
    }


def ordered(visit: Visit, number: str | None, key: str | None) -> Hold:
    """An order by Alipay's number or the merchant's; RefusedError where there is none, or it was refused."""
    found = visit.hold(number, key)
    if found.state == "refused":
        raise unknown("order")
    return found


def debits_of(visit: Visit, row: Hold) -> list[Debit]:
    """The trades on an order, in the order they were made."""
    books = visit.desk.books
    numbers = books.debits_of_hold.get((row.account_id, row.asked.key), ())
    return [books.debits_by_number[number] for number in sorted(numbers)]


def _ordered(visit: Visit, asked: Order | CreateOrder, agreement_key: str) -> Hold:
    if not 8 <= len(asked.out_order_no) <= 64:
        raise RefusedError(400, "INVALID_REQUEST", "out_order_no has 8 to 64 characters")
    check_subject(asked.subject)
    if asked.amount_type not in (None, *AMOUNT_TYPES):
        raise RefusedError(400, "INVALID_REQUEST", "amount_type is neither RISK_AMOUNT nor ORDER_AMOUNT")
    cap = None if asked.order_amount is None else fen(asked.order_amount)
    made = AskHold(asked.out_order_no, agreement_key, CURRENCY, cap, asked.subject)
    hold = desk.open_hold(visit.desk, visit.under(confirm_hold=False), made.key, made, visit.now)
    if hold.state == "refused":
        raise RefusedError(402, hold.code or "NOT_ELIGIBLE", "the order is refused")
    return hold
