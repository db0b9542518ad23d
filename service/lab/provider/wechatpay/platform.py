"""The merchant platform (商户平台), where the merchant's own people end an order that no call of his has ended."""

from __future__ import annotations

import msgspec
from aiohttp import web

from service.lab.provider import debits
from service.lab.provider.desk import Desk
from service.lab.provider.refusals import RefusedError, unknown
from service.lab.provider.wechatpay import completion, orders
from service.lab.provider.wechatpay.collection import UNPAID
from service.lab.provider.wechatpay.visits import Answer, Visit
from service.lab.provider.wechatpay.wire import compact, order_of

ACTS = ("cancel", "paid")


async def platform(desk: Desk, request: web.BaseRequest) -> web.Response:
    """`?does=cancel` (or `paid`: the rider has paid the merchant) `&account=&order=`; `order` is our number of the
    order, or WeChat Pay's. Nobody is told of it."""
    does, query = request.query.get("does", ""), request.query
    if does not in ACTS:
        raise RefusedError(422, "INVALID_REQUEST", f"does is one of {', '.join(ACTS)}")
    now = desk.clock.now()
    desk.advance(now)
    account = desk.books.accounts.get(query.get("account", ""))
    if account is None or account.wechatpay is None:
        raise unknown("account")
    visit = Visit(desk, account, now)
    key = _key_of(visit, query.get("order", ""))
    told = cancel(visit, key) if does == "cancel" else mark_paid(visit, key)
    return web.Response(body=msgspec.json.encode(told), content_type="application/json")


def cancel(visit: Visit, key: str) -> Answer:
    """Revokes an order, also one that was completed and waits to be paid (取消支付分订单: DOING, USER_PAYING included);
    what was taken of it stays taken."""
    debit = completion.collected(visit, key)
    if debit is None:
        asked = orders.Cancel(visit.merchant.appid, visit.merchant.service_id, "商户平台取消")
        return orders.cancel(visit, asked, key)
    if debit.state not in UNPAID:
        raise RefusedError(409, "271316592", f"the order is {debit.state}")
    visit.keep(f"order/{key}", {**(visit.kept(f"order/{key}") or {}), "cancelled": True})
    debits.close(visit.desk.books, visit.account, key, "CANCELLED", visit.now)
    return orders.view(visit, orders.found(visit, key), completion.collected(visit, key))


def mark_paid(visit: Visit, key: str) -> Answer:
    """What `sync` says, said by hand."""
    paid = completion.Paid(compact(visit.now))
    asked = completion.Sync(visit.merchant.appid, visit.merchant.service_id, "Order_Paid", paid)
    return completion.sync(visit, asked, key)


def _key_of(visit: Visit, name: str) -> str:
    books = visit.desk.books
    if (visit.account.account_id, name) in books.holds:
        return name
    found = books.holds_by_number.get(order_of(name))
    if found is None or found.account_id != visit.account.account_id:
        raise unknown("order")
    return found.asked.key
