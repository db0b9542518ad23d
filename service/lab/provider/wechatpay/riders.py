"""The rider's WeChat: he gives a permission, confirms an order, approves a payment, pays what is open, ends it all."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from service.lab.provider import agreements, debits
from service.lab.provider.desk import Desk
from service.lab.provider.named import debit_named
from service.lab.provider.refusals import RefusedError, unknown
from service.lab.provider.wechatpay import completion, orders, permissions, transactions
from service.lab.provider.wechatpay.codes import body_of, saying
from service.lab.provider.wechatpay.collection import UNPAID
from service.lab.provider.wechatpay.tokens import opened
from service.lab.provider.wechatpay.visits import Answer, Visit

TOKENS = ("apply_permissions_token", "package", "prepay_id")
ANSWERS = ("confirm", "refuse", "pay", "terminate")


async def rider(desk: Desk, request: web.BaseRequest) -> web.Response:
    """`?answer=confirm` (or `refuse`) `&rider=` who opens what the merchant's app handed over; the body is that: an
    apply_permissions_token, a package, a prepay_id, or the JSON (extraData) that has one of them.

    `?answer=pay&account=&order=`: the rider pays a completed order, or a payment, from his list of open ones; `order`
    is any name of it (`named.debit_named`).
    `?answer=terminate&account=&rider=`: he ends his permission in his wallet's settings.
    """
    does, query = request.query.get("answer", "confirm"), request.query
    if does not in ANSWERS:
        raise RefusedError(422, "INVALID_REQUEST", f"answer is one of {', '.join(ANSWERS)}")
    now = desk.clock.now()
    desk.advance(now)
    if does in ("pay", "terminate"):
        account = desk.books.accounts.get(query.get("account", ""))
        if account is None or account.wechatpay is None:
            raise unknown("account")
        visit = Visit(desk, account, now)
        return _reply(_pays(visit, query.get("order", "")) if does == "pay" else _ends(visit, query.get("rider", "")))
    account, kind, key = opened(desk.books, _token((await request.read()).decode().strip()))
    visit = Visit(desk, account, now)
    if does == "refuse":
        return _reply({"errMsg": "openBusinessView:cancel"})
    try:
        return _reply({"errMsg": "openBusinessView:ok", **_confirms(visit, kind, key, query.get("rider", ""))})
    except RefusedError as refused:
        return _reply({"errMsg": "openBusinessView:fail", **body_of(saying(refused), refused.message)})


def _confirms(visit: Visit, kind: str, key: str, who: str) -> Answer:
    if kind == "payment":
        return _pays(visit, transactions.prepaid(visit, key))
    if not who:
        raise RefusedError(422, "INVALID_REQUEST", "rider= says who opens it")
    if kind == "permission":
        permissions.accept(visit, key, who)
        return {"openid": visit.openid_of(who), "authorization_code": key}
    orders.confirm(visit, key, who)
    return {"openid": visit.openid_of(who), "query_id": orders.query_id(visit, key)}


def _pays(visit: Visit, key: str) -> Answer:
    """From his other means, whatever his wallet has; paid once."""
    found = debit_named(visit.desk.books, visit.account, key)
    if found.state not in UNPAID:
        raise RefusedError(404, "NOT_FOUND", f"nothing of {key} is open to be paid: its debit is {found.state}")
    key = found.asked.key
    paid = debits.pay_by_rider(visit.desk.books, visit.account, key, visit.now)
    if paid.asked.hold is None:
        return transactions.view(visit, paid)
    return orders.view(visit, orders.found(visit, key), completion.collected(visit, key))


def _ends(visit: Visit, who: str) -> Answer:
    """Whatever order runs: what is under way can still be debited."""
    code = visit.code_of(visit.openid_of(who))
    if not code:
        raise unknown("permission")
    return permissions.view(visit, agreements.revoke(visit.desk.books, visit.account, code, visit.now))


def _token(text: str) -> str:
    """The token within what was handed over."""
    if text.startswith("{"):
        told: Any = msgspec.json.decode(text)
        told = told.get("extraData", told)
        text = next((str(told[name]) for name in TOKENS if name in told), "")
    text = text.removeprefix("prepay_id=")
    return text.removeprefix("wx") if text.startswith("wx") else text


def _reply(told: Answer) -> web.Response:
    return web.Response(body=msgspec.json.encode(told), content_type="application/json")
