"""The workbench's door: accounts, wallets, scripted faults, the clock, the books; and the rider's pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from html import escape
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web
from msgspec.structs import replace

from service.lab.provider import agreements, debits, disputes, holds
from service.lab.provider.alipay.bills import download
from service.lab.provider.alipay.certificates import (
    alipay_certificate,
    app_certificate,
    root_certificates,
    signer_sn,
)
from service.lab.provider.alipay.riders import open_order_string
from service.lab.provider.books import Books
from service.lab.provider.desk import Desk
from service.lab.provider.faults import KINDS, OPS, Fault, Rates
from service.lab.provider.merchants import reply
from service.lab.provider.named import debit_named
from service.lab.provider.oracle import debit_lines, summarize
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Account, Entry, Wallet
from service.lab.provider.signatures import new_key, public_half, public_key
from service.lab.provider.wechatpay.platform import platform
from service.lab.provider.wechatpay.riders import rider as rider_of_wechat
from service.lab.provider.wechatpay.signing import certificate, serial_of
from service.lab.provider.wire import rider_token, view

Shape = TypeVar("Shape")


class ClockFace(msgspec.Struct):
    """What the provider's clock shows, and how fast it runs."""

    now: Annotated[datetime, msgspec.Meta(tz=True)]
    speed: float = 1.0


class TopUp(msgspec.Struct):
    """A rider's wallet is set to a balance."""

    rider: str
    currency: str
    balance_minor: Annotated[int, msgspec.Meta(ge=0)]


class PublicKeys(msgspec.Struct):
    """The provider's keys by which merchants check what it signed, PEM; at the WeChat Pay face their serial numbers (or
    ids) and certificates too; at the Alipay face, in certificate mode, all that the open platform gives."""

    public_keys: tuple[str, ...]
    serials: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    app_certificate: str = ""
    root_certificates: str = ""


class NoticeLine(msgspec.Struct):
    """A notification on its way: what it is about, how often it was tried, when next."""

    number: int
    account_id: str
    key: str
    attempts: int
    next_at: datetime | None


class Limit(msgspec.Struct):
    """The provider changes an agreement; None leaves as it is."""

    account_id: str
    key: str
    cap_minor: int | None = None
    valid_until: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    revoke: bool = False


async def put_account(desk: Desk, request: web.BaseRequest) -> web.Response:
    """Makes or changes a merchant account."""
    account = opened(desk.books, msgspec.json.decode(await request.read(), type=Account))
    desk.books.put(account)
    return reply(replace(account, keys=(), authority=""))


def opened(books: Books, account: Account) -> Account:
    """The account with what its face needs: a key of the provider's that signs, kept when the account is changed.

    Raises RefusedError when a credential is missing, no key, or another account's.
    """
    known = books.accounts.get(checked(account).account_id)
    holders = {
        "sandbox": books.accounts_by_api_key,
        "alipay": books.accounts_by_app_id,
        "wechatpay": books.accounts_by_mchid,
    }[account.face]
    holder = holders.get(_credential(account))
    if holder and holder.account_id != account.account_id:
        raise RefusedError(409, "KEY_TAKEN", f"account {holder.account_id} has this API key, app id or mchid")
    if account.face == "sandbox":
        return account
    keys = account.keys or (known.keys if known else ()) or (new_key(),)
    if account.alipay is None or not account.alipay.certificates:
        return replace(account, keys=keys, authority="")
    return replace(account, keys=keys, authority=account.authority or (known.authority if known else "") or new_key())


def checked(account: Account) -> Account:
    """The account, if it has the credentials of its face; raises RefusedError, or ValueError for a key that is none."""
    if not _credential(account):
        wanted = {
            "sandbox": "api_key",
            "alipay": "alipay (app_id, public_key)",
            "wechatpay": "wechatpay (mchid, appid, service_id, serial_no, public_key, apiv3_key)",
        }[account.face]
        raise RefusedError(422, "INVALID_REQUEST", f"an account of the face {account.face} needs {wanted}")
    if account.alipay:
        public_key(account.alipay.public_key)
    if account.wechatpay:
        public_key(account.wechatpay.public_key)
        if len(account.wechatpay.apiv3_key.encode()) != 32:
            raise ValueError("apiv3_key has 32 bytes")
    return account


async def show_keys(desk: Desk, request: web.BaseRequest) -> web.Response:
    """The provider's public keys for `?account=`, the one that signs first."""
    account = _account(desk, request.query.get("account", ""))
    public_keys = tuple(public_half(key) for key in account.keys)
    if account.authority:
        issued = tuple(alipay_certificate(account, key) for key in account.keys)
        serials = tuple(signer_sn(account, key) for key in account.keys)
        return reply(PublicKeys(public_keys, serials, issued, app_certificate(account), root_certificates(account)))
    if account.wechatpay is None:
        return reply(PublicKeys(public_keys))
    serials = tuple(serial_of(account, key) for key in account.keys)
    return reply(PublicKeys(public_keys, serials, tuple(certificate(key) for key in account.keys)))


async def rotate_keys(desk: Desk, request: web.BaseRequest) -> web.Response:
    """From now on another key signs for `?account=`."""
    account = _account(desk, request.query.get("account", ""))
    desk.books.put(replace(account, keys=(new_key(), *account.keys)))
    return await show_keys(desk, request)


async def dispute(desk: Desk, request: web.BaseRequest) -> web.Response:
    """A rider's complaint or chargeback about a debit, by any of its names, is opened, or ends."""
    now = desk.clock.now()
    desk.advance(now)
    allowed = "kind is complaint or chargeback; state is open, or resolved of a complaint, won or lost of a chargeback"
    asked = _read(await request.read(), disputes.AskDispute, allowed)
    account = _account(desk, asked.account_id)
    named = replace(asked, debit=debit_named(desk.books, account, asked.debit).asked.key)
    return reply(disputes.dispute(desk.books, account, named, now))


async def put_wallets(desk: Desk, request: web.BaseRequest) -> web.Response:
    """Sets the balances of riders, money coming from outside or going there."""
    now = desk.clock.now()
    for top_up in msgspec.json.decode(await request.read(), type=list[TopUp]):
        rider, currency = top_up.rider, top_up.currency
        opening = desk.books.opening(rider, currency, now)
        missing = top_up.balance_minor - desk.books.wallet(rider, currency).balance_minor
        parties = ("outside", f"wallet:{rider}") if missing > 0 else (f"wallet:{rider}", "outside")
        what = ("top_up", "", rider, "", *parties, abs(missing), currency, now)
        entries = (Entry(desk.books.next_number(), *what),) if missing else ()
        desk.books.put(*opening, Wallet(rider, currency, top_up.balance_minor), *entries)
    return reply({})


async def change_agreement(desk: Desk, request: web.BaseRequest) -> web.Response:
    """The provider's side of an agreement: another cap, a last day, revoked by the rider."""
    limit = msgspec.json.decode(await request.read(), type=Limit)
    account = _account(desk, limit.account_id)
    now = desk.clock.now()
    changed = agreements.limit(
        desk.books, account, limit.key, now, cap_minor=limit.cap_minor, valid_until=limit.valid_until
    )
    if limit.revoke:
        changed = agreements.revoke(desk.books, account, limit.key, now)
    return reply(view(changed, account, desk.public_url))


async def script(desk: Desk, request: web.BaseRequest) -> web.Response:
    """Adds scripted faults."""
    allowed = f"kind is one of {', '.join(KINDS)}; op is * or one of {', '.join(OPS)}"
    fields = ", ".join(Fault.__struct_fields__)
    faults = _read(await request.read(), list[Fault], f"a list of objects with {fields}; {allowed}")
    for fault in faults:
        if fault.op not in ("*", *OPS):
            raise RefusedError(400, "INVALID_REQUEST", f"there is no op {fault.op!r}; allowed: {allowed}")
    for fault in faults:
        desk.faults.script(fault)
    return reply({})


async def clear_script(desk: Desk, request: web.BaseRequest) -> web.Response:
    """Forgets the scripted faults."""
    desk.faults.clear()
    return reply({})


async def put_rates(desk: Desk, request: web.BaseRequest) -> web.Response:
    """Sets the shares of seeded faults."""
    shares = f"each 0 to 1: {', '.join(Rates.__struct_fields__)}"
    desk.faults.rates = _read(await request.read(), Rates, shares)
    return reply(desk.faults.rates)


async def show_clock(desk: Desk, request: web.BaseRequest) -> web.Response:
    """What the clock shows."""
    return reply(ClockFace(desk.clock.now(), desk.clock.speed))


async def set_clock(desk: Desk, request: web.BaseRequest) -> web.Response:
    """Sets the clock, and decides what has become due by it."""
    face = msgspec.json.decode(await request.read(), type=ClockFace)
    desk.clock.set(face.now, face.speed)
    desk.advance(desk.clock.now())
    return await show_clock(desk, request)


async def show_books(desk: Desk, request: web.BaseRequest) -> web.Response:
    """The summary of the books."""
    desk.advance(desk.clock.now())
    return reply(summarize(desk.books))


async def show_debits(desk: Desk, request: web.BaseRequest) -> web.Response:
    """Every debit; `?account=` narrows to one merchant account."""
    desk.advance(desk.clock.now())
    return reply(debit_lines(desk.books, request.query.get("account")))


async def show_reports(desk: Desk, request: web.BaseRequest) -> web.Response:
    """What merchants reported about how riders paid."""
    return reply(list(desk.books.reports.values()))


async def show_notices(desk: Desk, request: web.BaseRequest) -> web.Response:
    """Notifications that are still to be taken."""
    waiting = [NoticeLine(n.number, n.account_id, n.key, n.attempts, n.next_at) for n in desk.books.notices.values()]
    return reply(waiting)


async def healthy(desk: Desk, request: web.BaseRequest) -> web.Response:
    """The process answers."""
    return reply({"status": "ok"})


async def rider_page(desk: Desk, request: web.BaseRequest) -> web.Response:
    """What a rider sees: GET asks him, POST with `?answer=` (or that in its body) is what he did, one of CHOICES.

    `confirm` agrees on every page: a debit is paid by it, too. Whoever refuses to pay has done nothing: the debit stays
    as it is, and is shown so.
    """
    _, account_id, about, key = request.path.strip("/").split("/", 3)
    account = _account(desk, account_id)
    if request.query.get("token") != rider_token(account, about, key):
        raise RefusedError(403, "FORBIDDEN", "this page is another rider's")
    now = desk.clock.now()
    desk.advance(now)
    answer = request.query.get("answer")
    if request.method == "POST" and answer is None:
        answer = (await request.read()).decode("ascii", "replace").removeprefix("answer=")
    if request.method != "POST":
        return _page(about, key)
    agreed = _agrees(about, answer or "")
    acts: dict[str, Callable[[], Any]] = {
        "agreement": lambda: agreements.answer_by_rider(desk.books, account, key, agreed, now),
        "hold": lambda: holds.answer_by_rider(desk.books, account, key, agreed, now),
        "debit": lambda: (
            debits.pay_by_rider(desk.books, account, key, now) if agreed else debits.get(desk.books, account, key)
        ),
    }
    return reply(view(acts[about](), account, desk.public_url))


CHOICES = {"agreement": ("confirm", "refuse"), "hold": ("confirm", "refuse"), "debit": ("pay", "refuse")}
"""The buttons of each of the rider's pages."""
Answer = Callable[[Desk, web.BaseRequest], Awaitable[web.Response]]
DOORS: dict[tuple[str, str], Answer] = {
    ("PUT", "/accounts"): put_account,
    ("PUT", "/wallets"): put_wallets,
    ("POST", "/agreements"): change_agreement,
    ("POST", "/script"): script,
    ("DELETE", "/script"): clear_script,
    ("PUT", "/rates"): put_rates,
    ("GET", "/clock"): show_clock,
    ("PUT", "/clock"): set_clock,
    ("GET", "/books"): show_books,
    ("GET", "/books/debits"): show_debits,
    ("GET", "/books/notices"): show_notices,
    ("GET", "/books/reports"): show_reports,
    ("GET", "/healthz"): healthy,
    ("GET", "/keys"): show_keys,
    ("POST", "/keys"): rotate_keys,
    ("POST", "/disputes"): dispute,
    ("POST", "/alipay/rider"): open_order_string,
    ("GET", "/alipay/bill"): download,
    ("POST", "/wechatpay/rider"): rider_of_wechat,
    ("POST", "/wechatpay/platform"): platform,
}


def _credential(account: Account) -> str:
    """What the account is known by at its face's door."""
    return {
        "sandbox": account.api_key,
        "alipay": account.alipay.app_id if account.alipay else "",
        "wechatpay": account.wechatpay.mchid if account.wechatpay else "",
    }[account.face]


def _account(desk: Desk, account_id: str) -> Account:
    account = desk.books.accounts.get(account_id)
    if account is None:
        raise RefusedError(404, "NOT_FOUND", f"no merchant account {account_id}")
    return account


def _read(body: bytes, kind: type[Shape], allowed: str) -> Shape:
    """The body; RefusedError with what is wrong and what is allowed."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise RefusedError(400, "INVALID_REQUEST", f"{error}; allowed: {allowed}") from None


def _agrees(about: str, answer: str) -> bool:
    """Whether the rider agrees by this answer; raises RefusedError for one that his page does not have."""
    choices = _choices(about)
    if answer not in (*choices, "confirm"):
        told = f"there is no answer {answer[:40]!r}" if answer else "the answer is missing"
        raise RefusedError(422, "INVALID_REQUEST", f"{told}; allowed: {', '.join(choices)}")
    return answer != "refuse"


def _choices(about: str) -> tuple[str, ...]:
    if about not in CHOICES:
        raise RefusedError(404, "NOT_FOUND", "no such page")
    return CHOICES[about]


def _page(about: str, key: str) -> web.Response:
    buttons = "".join(f'<button name="answer" value="{choice}">{choice}</button> ' for choice in _choices(about))
    text = (
        f"<!doctype html><title>Sandbox</title><h1>{escape(about)} {escape(key)}</h1><form method=post>{buttons}</form>"
    )
    return web.Response(text=text, content_type="text/html")
