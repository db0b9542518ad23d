"""The end of a ride: the order is completed and collected, lowered, tried at once, paid elsewhere."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec.structs import replace

from service.lab.provider import debits, desk
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Account, AskDebit, Debit, Hold
from service.lab.provider.wechatpay import orders
from service.lab.provider.wechatpay.collection import UNPAID
from service.lab.provider.wechatpay.orders import Discount, Name, Order, OrderNo, Payment, RiskFund, TimeRange
from service.lab.provider.wechatpay.visits import Answer, Visit
from service.lab.provider.wechatpay.wire import CURRENCY, SHANGHAI, instant

Payments = Annotated[tuple[Payment, ...], msgspec.Meta(min_length=1, max_length=100)]
Discounts = Annotated[tuple[Discount, ...], msgspec.Meta(max_length=30)]
Total = Annotated[int, msgspec.Meta(ge=0)]


class Complete(msgspec.Struct, frozen=True, omit_defaults=True):
    """POST .../complete."""

    appid: str
    service_id: str
    post_payments: Payments
    total_amount: Total
    time_range: TimeRange
    post_discounts: Discounts = ()
    location: dict[str, Any] | None = None
    device: dict[str, Any] | None = None
    profit_sharing: bool = False
    goods_tag: str | None = None


class Modify(msgspec.Struct, frozen=True, omit_defaults=True):
    """POST .../modify."""

    appid: str
    service_id: str
    post_payments: Payments
    total_amount: Total
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=50)]
    post_discounts: Discounts = ()


class Pay(msgspec.Struct, frozen=True):
    """POST .../pay."""

    appid: str
    service_id: str


class Paid(msgspec.Struct, frozen=True):
    """When the rider paid elsewhere."""

    paid_time: str


class Sync(msgspec.Struct, frozen=True):
    """POST .../sync."""

    appid: str
    service_id: str
    type: Literal["Order_Paid"]
    detail: Paid


class DirectComplete(msgspec.Struct, frozen=True, omit_defaults=True):
    """POST /v3/payscore/serviceorder/direct-complete: made and completed in one."""

    out_order_no: OrderNo
    appid: str
    service_id: str
    service_introduction: Name
    openid: str
    post_payments: Payments
    total_amount: Total
    time_range: TimeRange
    notify_url: str
    post_discounts: Discounts = ()
    location: dict[str, Any] | None = None
    attach: str | None = None
    profit_sharing: bool = False
    goods_tag: str | None = None


def complete(visit: Visit, asked: Complete, key: str) -> Answer:
    """The ride is over and costs this much: WeChat Pay collects it, now and again until it has it."""
    visit.check(asked.appid, asked.service_id)
    hold = orders.found(visit, key)
    told = visit.kept(f"order/{key}") or {}
    debit = collected(visit, key)
    if debit or told.get("completed_free"):
        return _again(visit, asked, hold, debit, told)
    if hold.state != "open":
        raise RefusedError(409, "271302332" if hold.state == "pending" else "271302333", f"the order is {hold.state}")
    _check_sum(asked.post_payments, asked.post_discounts, asked.total_amount)
    _check_times(visit, asked, told)
    visit.keep(f"order/{key}", {**told, "completed": msgspec.to_builtins(asked)})
    if not asked.total_amount:
        return _free(visit, hold)
    made = AskDebit(key, hold.asked.agreement, asked.total_amount, CURRENCY, key, hold.asked.subject)
    debit = desk.take_debit(visit.desk, _terms(visit), key, made, visit.now)
    visit.desk.books.put(replace(hold, state="finished"))  # It runs no longer; from now on it is an unpaid one.
    return orders.view(visit, hold, debit)


def modify(visit: Visit, asked: Modify, key: str) -> Answer:
    """Lowers what is still to be collected."""
    visit.check(asked.appid, asked.service_id)
    hold, debit = _waiting(visit, key)
    _check_sum(asked.post_payments, asked.post_discounts, asked.total_amount)
    if not 0 < asked.total_amount <= debit.amount_minor:
        # Unverified: whether an order can be lowered to nothing; here it can't.
        raise RefusedError(400, "INVALID_REQUEST", "total_amount is not within 1 and what the order was completed at")
    lowered = debits.reduce(visit.desk.books, _terms(visit), key, asked.total_amount, visit.now)
    told = visit.kept(f"order/{key}") or {}
    lines = {name: msgspec.to_builtins(getattr(asked, name)) for name in ("post_payments", "post_discounts")}
    visit.keep(f"order/{key}", {**told, "modified": lines})
    return orders.view(visit, hold, visit.debit(key) or lowered)


def pay(visit: Visit, asked: Pay, key: str) -> Answer:
    """Collection is tried at once."""
    visit.check(asked.appid, asked.service_id)
    hold, _ = _waiting(visit, key)
    desk.nudge_debit(visit.desk, visit.account, key, None, visit.now)
    return orders.numbers(visit, hold)


def sync(visit: Visit, asked: Sync, key: str) -> Answer:
    """The rider paid elsewhere: collection ends. Asked again it changes nothing."""
    visit.check(asked.appid, asked.service_id)
    instant(asked.detail.paid_time, "detail.paid_time")
    hold, known = orders.found(visit, key), collected(visit, key)
    told = visit.kept(f"order/{key}") or {}
    if known is None or known.state != "closed" or told.get("cancelled"):
        _waiting(visit, key)
        visit.keep(f"order/{key}", {**told, "paid_time": asked.detail.paid_time})
        known = debits.close(visit.desk.books, visit.account, key, "PAID_ELSEWHERE", visit.now)
    return orders.view(visit, hold, known)


def direct_complete(visit: Visit, asked: DirectComplete) -> Answer:
    """An order on a permission that is completed as it is made; its limits are the service's alone."""
    key = asked.out_order_no
    if (visit.account.account_id, key) not in visit.desk.books.holds:
        fund = RiskFund("ESTIMATE_ORDER_COST", max(asked.total_amount, 1))
        times = replace(asked.time_range, start_time=orders.ON_ACCEPT, end_time=None)
        named = (key, asked.appid, asked.service_id, asked.service_introduction, times, fund, asked.notify_url)
        order = Order(*named, need_user_confirm=False, openid=asked.openid, attach=asked.attach)
        orders.create(_unlimited(visit), order)
    told = visit.kept(f"order/{key}") or {}
    visit.keep(f"order/{key}", {**told, "accepted_at": asked.time_range.start_time or told.get("accepted_at")})
    same = {name: getattr(asked, name) for name in Complete.__struct_fields__ if hasattr(asked, name)}
    return complete(visit, Complete(**same), key)


def _again(visit: Visit, asked: Complete, hold: Hold, debit: Debit | None, told: Answer) -> Answer:
    """The same completion while it is collected says how that stands (开发参数与业务规则 5.3)."""
    if debit is None or debit.state not in UNPAID:
        raise RefusedError(409, "271302262", "the order is done")
    if msgspec.convert(told["completed"], Complete) != asked:
        raise RefusedError(409, "271316598", "the order was completed with other parameters")
    return orders.view(visit, hold, debit)


def _free(visit: Visit, hold: Hold) -> Answer:
    """Unverified: a ride that costs nothing is done at once, and nothing is collected."""
    ended = replace(hold, state="finished")
    told = visit.kept(f"order/{hold.asked.key}") or {}
    visit.keep(f"order/{hold.asked.key}", {**told, "completed_free": True}, ended)
    return orders.view(visit, ended, None)


def collected(visit: Visit, key: str) -> Debit | None:
    """The debit that the order's completion made."""
    debit = visit.debit(key)
    return debit if debit and debit.asked.hold == key else None


def _waiting(visit: Visit, key: str) -> tuple[Hold, Debit]:
    """An order that is still to be collected (排障手册, 271316657); RefusedError for any other."""
    hold, debit = orders.found(visit, key), collected(visit, key)
    if debit is None or debit.state not in UNPAID:
        raise RefusedError(409, "271316657", "the order does not wait to be paid")
    return hold, debit


def _check_sum(payments: tuple[Payment, ...], discounts: tuple[Discount, ...], total: int) -> None:
    """总金额 = Σpost_payments − Σpost_discounts, exactly (开发参数与业务规则 5.2)."""
    if any(line.name is None or not line.amount for line in payments):
        raise RefusedError(400, "INVALID_REQUEST", "every payment needs a name and an amount")
    if any(line.name is None or line.description is None or not line.amount for line in discounts):
        raise RefusedError(400, "INVALID_REQUEST", "every discount needs a name, a description and an amount")
    if sum(line.amount or 0 for line in payments) - sum(line.amount or 0 for line in discounts) != total:
        raise RefusedError(400, "INVALID_REQUEST", "最终总金额计算非法")


def _check_times(visit: Visit, asked: Complete, told: Answer) -> None:
    """An end that is neither before the start nor later than this call (排障手册, 271316637 and 3.1)."""
    if asked.time_range.end_time is None:
        raise RefusedError(400, "INVALID_REQUEST", "time_range.end_time is needed")
    end = instant(asked.time_range.end_time, "time_range.end_time")
    starts = (asked.time_range.start_time, told["asked"]["time_range"]["start_time"], told.get("accepted_at"))
    start = next(text for text in starts if text and text != orders.ON_ACCEPT)
    if end < instant(start, "time_range.start_time"):
        raise RefusedError(400, "271316637", "time_range.end_time is before start_time")
    if end > visit.now.astimezone(SHANGHAI):
        raise RefusedError(400, "INVALID_REQUEST", "实际结束时间不能晚于使用完结接口的时间")


def _terms(visit: Visit) -> Account:
    """Pay Score collects by itself, for ever, one debit for an order."""
    return visit.under(provider_retries=True, further_debits=False, new_key_after_decline=False)


def _unlimited(visit: Visit) -> Visit:
    return replace(visit, account=visit.under(holds_max=None, unpaid_max=None))
