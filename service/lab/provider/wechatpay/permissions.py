"""Permissions of riders (免确认预授权): asked for by the merchant, given in the rider's app, ended by either side."""

from __future__ import annotations

from typing import Annotated

import msgspec

from service.lab.provider import agreements
from service.lab.provider.refusals import RefusedError, unknown
from service.lab.provider.rows import Agreement, AskAgreement
from service.lab.provider.wechatpay.tokens import token
from service.lab.provider.wechatpay.visits import Answer, Visit
from service.lab.provider.wechatpay.wire import CURRENCY, compact, rfc3339

Code = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_\-*]{1,32}$")]


class Apply(msgspec.Struct, frozen=True):
    """POST /v3/payscore/permissions."""

    service_id: str
    appid: str
    authorization_code: Code
    notify_url: str | None = None


class ByCode(msgspec.Struct, frozen=True):
    """GET .../authorization-code/{authorization_code}."""

    service_id: str


class ByOpenid(msgspec.Struct, frozen=True):
    """GET .../openid/{openid}."""

    service_id: str
    appid: str


class Terminate(msgspec.Struct, frozen=True):
    """POST .../terminate, by either name; `appid` where it is by openid."""

    service_id: str
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=50)]
    appid: str | None = None


def apply(visit: Visit, asked: Apply) -> Answer:
    """A token with which the merchant's app opens WeChat's page; the same request again gives the same."""
    visit.check(asked.appid, asked.service_id)
    name = f"permission/{asked.authorization_code}"
    told = {"notify_url": asked.notify_url, "asked_at": rfc3339(visit.now)}
    known = visit.kept(name)
    if known and known["notify_url"] != asked.notify_url:
        raise RefusedError(409, "KEY_CONFLICT", "this authorization_code came with another notify_url")
    if known is None:
        visit.keep(name, told)
    return {"apply_permissions_token": token(visit.account, "permission", asked.authorization_code)}


def accept(visit: Visit, code: str, rider: str) -> Agreement:
    """The rider gives his permission; RefusedError with why the provider declines."""
    account = visit.under(confirm_agreement=False)
    made = AskAgreement(code, rider, CURRENCY)
    known = visit.desk.books.agreements.get((account.account_id, code))
    refusal = visit.desk.faults.refusal("agreement.begin", account.account_id, code, (rider,))
    if refusal and known is None:
        raise RefusedError(403, refusal, "the rider does not qualify")
    if known and (known.state != "active" or known.asked != made):
        raise RefusedError(409, "KEY_CONFLICT", "this authorization_code was used already")
    visit.keep(f"openid/{visit.openid_of(rider)}", {"rider": rider, "authorization_code": code})
    return agreements.begin(visit.desk.books, account, made, visit.now)


def by_code(visit: Visit, asked: ByCode, code: str) -> Answer:
    """How the permission stands by its authorization_code: UNBINDUSER until a rider gave it."""
    visit.check(None, asked.service_id)
    if (visit.account.account_id, code) in visit.desk.books.agreements:
        return view(visit, visit.seen(agreements.get(visit.desk.books, visit.account, code, visit.now)))
    if visit.kept(f"permission/{code}") is None:
        raise unknown("permission")
    return {**_named(visit), "authorization_code": code, "authorization_state": "UNBINDUSER"}


def by_openid(visit: Visit, asked: ByOpenid, whose: str) -> Answer:
    """How the last permission of a rider stands by his openid: UNAVAILABLE when he never gave one."""
    visit.check(asked.appid, asked.service_id)
    code = visit.code_of(whose)
    if not code:
        return {**_named(visit), "openid": whose, "authorization_state": "UNAVAILABLE"}
    return view(visit, visit.seen(agreements.get(visit.desk.books, visit.account, code, visit.now)))


def terminate(visit: Visit, asked: Terminate, code: str) -> None:
    """The merchant ends the permission, unless an order of the rider is not finished (排障手册 2.5)."""
    visit.check(asked.appid, asked.service_id)
    agreement = visit.agreement(code)
    books, who = visit.desk.books, (visit.account.account_id, agreement.asked.rider)
    if books.running_holds.get(who) or visit.unpaid_orders(agreement.asked.rider):
        raise RefusedError(409, "UNFINISHED_ORDERS", "an order of the rider is not finished")
    agreements.revoke(books, visit.account, code, visit.now)


def terminate_by_openid(visit: Visit, asked: Terminate, whose: str) -> None:
    """The same, by the rider's openid."""
    terminate(visit, asked, visit.code_of(whose))


def view(visit: Visit, row: Agreement) -> Answer:
    """What the answers say of a permission."""
    told = {
        **_named(visit),
        "openid": visit.openid_of(row.asked.rider),
        "authorization_code": row.asked.key,
        "authorization_state": "AVAILABLE" if row.state == "active" else "UNAVAILABLE",
        "authorization_success_time": rfc3339(row.created_at),
    }
    if row.state != "active":
        told["cancel_authorization_time"] = rfc3339(row.updated_at or row.created_at)
    return told


def notice(visit: Visit, row: Agreement) -> Answer:
    """What a notification says of a permission."""
    opened = row.state == "active"
    return {
        **_named(visit),
        "openid": visit.openid_of(row.asked.rider),
        "user_service_status": "USER_OPEN_SERVICE" if opened else "USER_CLOSE_SERVICE",
        "openorclose_time": compact(row.updated_at or row.created_at),
        "authorization_code": row.asked.key,
    }


def _named(visit: Visit) -> Answer:
    merchant = visit.merchant
    return {"service_id": merchant.service_id, "appid": merchant.appid, "mchid": merchant.mchid}
