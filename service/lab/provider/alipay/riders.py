"""The rider's app: it takes a merchant's order string, verifies it, and does what the rider says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from aiohttp import web
from msgspec.structs import replace

from service.lab.provider import debits
from service.lab.provider.alipay import authorisations, trades, zhima
from service.lab.provider.alipay.codes import GatewayRefusedError, refusal_body
from service.lab.provider.alipay.requests import content, read_params, verify
from service.lab.provider.alipay.visits import Answer, Visit
from service.lab.provider.alipay.wire import CURRENCY, SHANGHAI, check_trade, fen, local
from service.lab.provider.desk import Desk
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import AskDebit

DONE, FAILED, CANCELLED = "9000", "4000", "6001"
"""resultStatus of the app's callback (opendocs 02no45)."""
ANSWERS: dict[str, bool | None] = {"confirm": True, "refuse": False, "look": None}
"""What the rider does with what he is shown."""


class Opened(msgspec.Struct, frozen=True):
    """An order string in the rider's app."""

    shape: type
    family: str
    act: Callable[[Visit, Any, str, bool | None], Answer]
    rider: Callable[[Visit, Any], str]


async def open_order_string(desk: Desk, request: web.BaseRequest) -> web.Response:
    """`?answer=confirm`, `refuse`, or `look` (and nothing more), `&rider=` who opens it (else who the order string is
    about); the body is the order string, or the address that carries it."""
    does = request.query.get("answer", "confirm")
    if does not in ANSWERS:
        raise RefusedError(422, "INVALID_REQUEST", f"answer is one of {', '.join(ANSWERS)}")
    text = (await request.read()).decode().strip()
    query = text.partition("?")[2] if text.startswith("http") else text
    try:
        params = read_params(query, b"")
        believed = verify(desk.books, params)
        opened = OPENED.get(believed.method)
        if opened is None:
            raise GatewayRefusedError("40002", "isv.invalid-method", "no order string of this method can be opened")
        asked: Any = content(params, opened.shape)
    except GatewayRefusedError as refused:
        return _callback(FAILED, refused.body)
    now = desk.clock.now()
    desk.advance(now)
    visit = Visit(desk, believed.account, now, params.get("notify_url") or None)
    rider = request.query.get("rider") or opened.rider(visit, asked)
    try:
        told = opened.act(visit, asked, rider, ANSWERS[does])
    except RefusedError as refused:
        return _callback(FAILED, refusal_body(refused, opened.family))
    return _callback(DONE if ANSWERS[does] else CANCELLED, told)


def _signs(visit: Visit, asked: zhima.SignAgreement, rider: str, confirmed: bool | None) -> Answer:
    return zhima.agreement_view(zhima.sign(visit, asked, rider)) if confirmed else {}


def _orders(visit: Visit, asked: zhima.CreateOrder, rider: str, confirmed: bool | None) -> Answer:
    return zhima.order_view(visit, zhima.create(visit, asked, rider)) if confirmed else {}


def _authorises(visit: Visit, asked: authorisations.Freeze, rider: str, confirmed: bool | None) -> Answer:
    return authorisations.view(visit, authorisations.freeze(visit, asked, rider, confirmed))


def _pays(visit: Visit, asked: trades.AppPay, rider: str, confirmed: bool | None) -> Answer:
    """The rider pays a new trade, or one that was not collected; opening it alone makes the trade, which is closed when
    his time is over."""
    check_trade(asked.out_trade_no, asked.subject)
    if asked.time_expire is not None and local(visit.now) >= asked.time_expire:
        raise RefusedError(409, "DEBIT_CLOSED", f"the string was good until {asked.time_expire}")
    books, account, amount = visit.desk.books, visit.account, fen(asked.total_amount)
    known = books.debits.get((account.account_id, asked.out_trade_no))
    if known is None:
        made = AskDebit(asked.out_trade_no, "", amount, CURRENCY, subject=asked.subject)
        known = debits.ask_rider(books, account, made, visit.now, rider=rider, notify_url=visit.notify_url)
    if known.amount_minor != amount:
        raise RefusedError(409, "KEY_CONFLICT", "the trade has another amount")
    if known.state not in trades.UNPAID:
        raise RefusedError(409, "ALREADY_PAID" if known.state == "paid" else "DEBIT_CLOSED", f"it is {known.state}")
    if confirmed:
        known = debits.pay_by_rider(books, account, asked.out_trade_no, visit.now)
    elif known.state == "declined" and asked.time_expire is not None:
        over_at = datetime.strptime(asked.time_expire, "%Y-%m-%d %H:%M:%S").replace(tzinfo=SHANGHAI)
        known = replace(known, next_at=over_at)
        books.put(known)
    return trades.trade_view(visit, known)


def _payer(visit: Visit, asked: trades.AppPay) -> str:
    known = visit.desk.books.debits.get((visit.account.account_id, asked.out_trade_no))
    return known.rider if known else asked.out_trade_no


OPENED = {
    "zhima.credit.payafteruse.creditagreement.sign": Opened(
        zhima.SignAgreement, "zhima", _signs, lambda _, asked: str(asked.external_logon_id or asked.out_agreement_no)
    ),
    "zhima.credit.payafteruse.creditbizorder.create": Opened(
        zhima.CreateOrder, "zhima", _orders, lambda _, asked: str(asked.out_agreement_no or asked.out_order_no)
    ),
    "alipay.fund.auth.order.app.freeze": Opened(
        authorisations.Freeze, "authorisation", _authorises, lambda _, asked: str(asked.out_order_no)
    ),
    "alipay.trade.app.pay": Opened(trades.AppPay, "trade", _pays, _payer),
}


def _callback(status: str, told: Answer) -> web.Response:
    """What the app hands back to the merchant's app: never proof of anything."""
    body = msgspec.json.encode({"resultStatus": status, "result": told})
    return web.Response(body=body, content_type="application/json")
