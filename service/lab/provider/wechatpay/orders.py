"""Service orders of Pay Score: made, confirmed by the rider or on his permission, asked about, cancelled."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

import msgspec
from msgspec.structs import replace

from service.lab.provider import desk, holds
from service.lab.provider.refusals import RefusedError, unknown
from service.lab.provider.rows import AskHold, Debit, Hold
from service.lab.provider.wechatpay import collection
from service.lab.provider.wechatpay.tokens import opened, token
from service.lab.provider.wechatpay.visits import Answer, Visit
from service.lab.provider.wechatpay.wire import CURRENCY, SHANGHAI, compact, instant, order_id

OrderNo = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_\-|*]{1,32}$")]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=20)]
Remark = Annotated[str, msgspec.Meta(max_length=20)]
Description = Annotated[str, msgspec.Meta(max_length=30)]
Fen = Annotated[int, msgspec.Meta(ge=1)]
"""排障手册, 268435464: an element's amount is neither negative nor 0."""
ON_ACCEPT = "OnAccept"
FOR_EVER_S = 100 * 365 * 86_400
"""An order that the rider confirmed does not expire; only CREATED does, after 30 days."""


class Payment(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of what the rider pays for; before the end it may be without an amount."""

    name: Name | None = None
    amount: Fen | None = None
    description: Description | None = None
    count: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Discount(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of what is taken off."""

    name: Name | None = None
    description: Description | None = None
    amount: Fen | None = None
    count: Annotated[int, msgspec.Meta(ge=1)] | None = None


class TimeRange(msgspec.Struct, frozen=True, omit_defaults=True):
    """When the service is given; see `wire.instant`, or OnAccept: when the rider confirms."""

    start_time: str | None = None
    end_time: str | None = None
    start_time_remark: Remark | None = None
    end_time_remark: Remark | None = None


class RiskFund(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the rider need not deposit (先免), or what the ride is estimated at (先享)."""

    name: Literal["DEPOSIT", "ADVANCE", "CASH_DEPOSIT", "ESTIMATE_ORDER_COST"]
    amount: Fen
    description: Description | None = None


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """POST /v3/payscore/serviceorder."""

    out_order_no: OrderNo
    appid: str
    service_id: str
    service_introduction: Name
    time_range: TimeRange
    risk_fund: RiskFund
    notify_url: str
    need_user_confirm: bool = True
    openid: str | None = None
    post_payments: Annotated[tuple[Payment, ...], msgspec.Meta(max_length=100)] = ()
    post_discounts: Annotated[tuple[Discount, ...], msgspec.Meta(max_length=30)] = ()
    location: dict[str, Any] | None = None
    device: dict[str, Any] | None = None
    attach: Annotated[str, msgspec.Meta(max_length=256)] | None = None


class Find(msgspec.Struct, frozen=True):
    """GET /v3/payscore/serviceorder: by one of two numbers."""

    service_id: str
    appid: str
    out_order_no: str | None = None
    query_id: str | None = None


class Cancel(msgspec.Struct, frozen=True):
    """POST .../cancel."""

    appid: str
    service_id: str
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=30)]


def create(visit: Visit, asked: Order) -> Answer:
    """An order: running at once on a rider's permission, else CREATED until a rider confirms it."""
    visit.check(asked.appid, asked.service_id)
    known = visit.kept(f"order/{asked.out_order_no}")
    if known and _made(visit, asked.out_order_no):
        if msgspec.convert(known["asked"], Order) != asked:
            raise RefusedError(409, "KEY_CONFLICT", "this out_order_no came with other parameters")
        return {**_standing(visit, asked.out_order_no), **_package(visit, asked)}
    _check_start(visit, asked)
    cap = _cap(visit, asked)
    visit.keep(f"order/{asked.out_order_no}", {"asked": msgspec.to_builtins(asked)})
    if asked.need_user_confirm:
        _offer(visit, asked, cap)
    else:
        _open(visit, asked, cap)
    return {**_standing(visit, asked.out_order_no), **_package(visit, asked)}


def query(visit: Visit, asked: Find) -> Answer:
    """How the order stands."""
    visit.check(asked.appid, asked.service_id)
    if (asked.out_order_no is None) == (asked.query_id is None):
        raise RefusedError(400, "INVALID_REQUEST", "one of out_order_no and query_id is needed")
    key = asked.out_order_no or _queried(visit, asked.query_id or "")
    return _standing(visit, key)


def cancel(visit: Visit, asked: Cancel, key: str) -> Answer:
    """Revokes an order that was not completed; any other can't be (排障手册, 271316592)."""
    visit.check(asked.appid, asked.service_id)
    hold = found(visit, key)
    if hold.state not in ("pending", "open") or visit.debit(key):
        raise RefusedError(409, "271316592", f"the order is {hold.state}")
    holds.end(visit.desk.books, visit.account, key, "released", visit.now)
    return numbers(visit, hold)


def confirm(visit: Visit, key: str, rider: str) -> Hold:
    """The rider confirms the order he was shown; RefusedError with why he may not, and the order waits on."""
    hold = found(visit, key)
    if hold.state != "pending":
        raise RefusedError(409, "271302333", f"the order is {hold.state}")
    refusal = visit.desk.faults.refusal("hold.open", visit.account.account_id, key, (rider,))
    code = refusal or _limited(visit, rider)
    if code:
        raise RefusedError(403, code, "the rider does not qualify")
    books = visit.desk.books
    until = visit.now + timedelta(seconds=FOR_EVER_S)
    books.put(*books.opening(rider, CURRENCY, visit.now))
    told = visit.kept(f"order/{key}") or {}
    visit.keep(f"order/{key}", {**told, "accepted_at": compact(visit.now)})
    visit.keep(f"openid/{visit.openid_of(rider)}", {"authorization_code": "", **_known(visit, rider), "rider": rider})
    confirmed = replace(hold, state="open", rider=rider, expires_at=until)
    books.put(confirmed)
    return confirmed


def found(visit: Visit, key: str) -> Hold:
    """The order of a number, as it is now; one that was refused was never made. Raises RefusedError."""
    hold = holds.get(visit.desk.books, visit.account, key, visit.now)
    if hold.state == "refused":
        raise unknown("order")
    return hold


def numbers(visit: Visit, hold: Hold) -> Answer:
    """Whose order it is, and what it is called."""
    merchant = visit.merchant
    return {
        "appid": merchant.appid,
        "mchid": merchant.mchid,
        "service_id": merchant.service_id,
        "out_order_no": hold.asked.key,
        "order_id": order_id(hold),
    }


def view(visit: Visit, hold: Hold, debit: Debit | None) -> Answer:
    """What answers and notifications say of an order; `debit` is what its completion made, if it was."""
    told = visit.kept(f"order/{hold.asked.key}") or {}
    asked = msgspec.convert(told["asked"], Order)
    last = (
        {**told["asked"], **(told.get("completed") or {}), **(told.get("modified") or {})} if debit else told["asked"]
    )
    times = {**told["asked"]["time_range"], **(last.get("time_range") or {})}
    if times.get("start_time") == ON_ACCEPT and "accepted_at" in told:
        times["start_time"] = told["accepted_at"]
    state, description = collection.state_of(hold, debit, told)
    shown = {
        **numbers(visit, hold),
        "service_introduction": asked.service_introduction,
        "state": state,
        "state_description": description,
        "post_payments": last.get("post_payments"),
        "post_discounts": last.get("post_discounts"),
        "risk_fund": told["asked"]["risk_fund"],
        "time_range": times,
        "location": {**(asked.location or {}), **(last.get("location") or {})} or None,
        "attach": asked.attach,
        "notify_url": asked.notify_url,
        "openid": visit.openid_of(hold.rider) if hold.rider else None,
        **collection.view(visit, debit, told),
    }
    return {name: value for name, value in shown.items() if value is not None}


def query_id(visit: Visit, key: str) -> str:
    """What WeChat's page gives back to the merchant's app, to ask by."""
    return token(visit.account, "query", key)


def _standing(visit: Visit, key: str) -> Answer:
    """The order as a query sees it, maybe a little before now."""
    hold = visit.seen(found(visit, key))
    debit = visit.debit(key)
    if debit and debit.asked.hold == key:
        try:
            return view(visit, hold, visit.seen(debit))
        except RefusedError:
            return view(visit, hold, None)
    return view(visit, hold, None)


def _open(visit: Visit, asked: Order, cap: int | None) -> None:
    """On a rider's permission, without asking him."""
    if not asked.openid:
        raise RefusedError(400, "INVALID_REQUEST", "openid is needed where the rider need not confirm")
    code = visit.code_of(asked.openid)
    if not code:
        raise RefusedError(403, "268503786", "the rider gave no permission")
    rider = visit.rider_of(asked.openid)
    limit = _limited(visit, rider)
    if limit:
        raise RefusedError(403, limit, "the rider has too many orders")
    made = AskHold(asked.out_order_no, code, CURRENCY, cap, asked.service_introduction)
    books = visit.desk.books
    refused = books.holds.get((visit.account.account_id, made.key))
    if refused and refused.asked != made:  # A refused order was never made: its number may ask for another.
        books.put(replace(refused, asked=made))
    account = visit.under(confirm_hold=False, hold_life_s=FOR_EVER_S, holds_max=None, unpaid_max=None)
    hold = desk.open_hold(visit.desk, account, made.key, made, visit.now)
    if hold.state == "refused":
        raise RefusedError(403, hold.code or "NOT_ELIGIBLE", "the rider does not qualify")
    told = visit.kept(f"order/{asked.out_order_no}") or {}
    visit.keep(f"order/{asked.out_order_no}", {**told, "accepted_at": compact(visit.now)})


def _offer(visit: Visit, asked: Order, cap: int | None) -> None:
    """To whoever opens it; nobody's until then."""
    books, account = visit.desk.books, visit.account
    made = AskHold(asked.out_order_no, "", CURRENCY, cap, asked.service_introduction)
    until = visit.now + timedelta(seconds=account.terms.hold_life_s)
    amount = account.terms.cap_minor if cap is None else cap
    known = books.holds.get((account.account_id, made.key))
    number = known.number if known else books.next_number()
    books.put(Hold(number, account.account_id, made, "", amount, "pending", visit.now, until))


def _cap(visit: Visit, asked: Order) -> int | None:
    """The most the order may come to: the fund (先免), or what the service allows (先享: None)."""
    most = visit.account.terms.cap_minor
    if asked.risk_fund.amount > most:
        raise RefusedError(400, "271316656", "risk_fund.amount is more than the service allows")
    return None if asked.risk_fund.name == "ESTIMATE_ORDER_COST" else asked.risk_fund.amount


def _check_start(visit: Visit, asked: Order) -> None:
    """A start is the rider's consent (OnAccept) or later than this call (chapter6_1_14, time_range)."""
    start, end = asked.time_range.start_time, asked.time_range.end_time
    if start is None:
        raise RefusedError(400, "INVALID_REQUEST", "time_range.start_time is needed")
    if start != ON_ACCEPT:
        at, now = instant(start, "time_range.start_time"), visit.now.astimezone(SHANGHAI)
        if at.astimezone(SHANGHAI).date() < now.date() if len(start) == 8 else at < now.replace(microsecond=0):
            raise RefusedError(400, "INVALID_REQUEST", "time_range.start_time is before this call")
        if end is not None and instant(end, "time_range.end_time") < at:
            raise RefusedError(400, "271316637", "time_range.end_time is before start_time")


def _limited(visit: Visit, rider: str) -> str | None:
    """Why the rider may have no further order: too many that run, too many that are not paid."""
    books, terms = visit.desk.books, visit.account.terms
    who = (visit.account.account_id, rider)
    if terms.holds_max is not None and len(books.running_holds.get(who, ())) >= terms.holds_max:
        return "TOO_MANY_HOLDS"
    if terms.unpaid_max is not None and visit.unpaid_orders(rider) > terms.unpaid_max:
        return "TOO_MANY_UNPAID"
    return None


def _made(visit: Visit, key: str) -> bool:
    hold = visit.desk.books.holds.get((visit.account.account_id, key))
    return hold is not None and hold.state != "refused"


def _package(visit: Visit, asked: Order) -> Answer:
    return {"package": token(visit.account, "order", asked.out_order_no)} if asked.need_user_confirm else {}


def _queried(visit: Visit, text: str) -> str:
    account, kind, key = opened(visit.desk.books, text)
    if account.account_id != visit.account.account_id or kind != "query":
        raise unknown("order")
    return key


def _known(visit: Visit, rider: str) -> Answer:
    return visit.kept(f"openid/{visit.openid_of(rider)}") or {}
