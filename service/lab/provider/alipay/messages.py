"""Notifications of the Alipay face: a signed form, again and again until the answer is `success`."""

from __future__ import annotations

from datetime import datetime, timedelta
from urllib.parse import urlencode

import msgspec
from msgspec.structs import replace

from service.lab.provider.alipay import authorisations, zhima
from service.lab.provider.alipay.certificates import signer_sn
from service.lab.provider.alipay.signing import notice_content
from service.lab.provider.alipay.trades import logon_id
from service.lab.provider.alipay.visits import Answer, Visit
from service.lab.provider.alipay.wire import local, number_of, open_id, user_id, yuan
from service.lab.provider.desk import Desk
from service.lab.provider.faces import Letter, Told
from service.lab.provider.rows import Account, Agreement, Debit, Dispute, Hold, Notice, Refund
from service.lab.provider.signatures import sign

STATES = ("trade_status", "status", "agreement_status", "order_status")


class AlipayFace:
    """Alipay's notifications: 4m, 10m, 10m, 1h, 2h, 6h, 15h after each attempt that was not taken."""

    retry_s = (240, 600, 600, 3600, 7200, 21_600, 54_000)

    def notice(self, desk: Desk, account: Account, row: Told, before: Told | None) -> Notice | None:
        """A trade's and an authorisation's to the address its request named, all others to the app's gateway."""
        fields = _fields(Visit(desk, account, desk.clock.now()), row, before)
        url = _address(desk, row) or account.notify_url
        if fields is None or url is None or account.alipay is None:
            return None
        now, number = desk.clock.now(), desk.books.next_number()
        common = {
            "notify_id": f"{local(now):.4}{number:028d}",
            "app_id": account.alipay.app_id,
            "charset": "utf-8",
            "version": "1.0",
            "sign_type": "RSA2",
        }
        key = desk.books.debits_by_number[row.debit_number].asked.key if isinstance(row, Dispute) else row.asked.key
        body = msgspec.json.encode(common | {name: str(value) for name, value in fields.items() if value is not None})
        return Notice(number, row.account_id, key, body.decode(), next_at=now, url=url)

    def letter(self, account: Account, notice: Notice, now: datetime, *, skew_s: float = 0.0) -> Letter:
        """Signed now by the account's newest key; messages (`msg_method`) keep sign_type in what is signed."""
        fields: dict[str, str] = msgspec.json.decode(notice.body)
        at = now + timedelta(seconds=skew_s)
        message = "msg_method" in fields
        fields |= {"utc_timestamp": str(int(at.timestamp() * 1000))} if message else {"notify_time": local(at)}
        content = notice_content(fields, with_type=message)
        fields["sign"] = sign(account.keys[0], content.encode())
        if number := signer_sn(account, account.keys[0]):  # Not signed itself (smartwalle/alipay, VerifySign).
            fields["alipay_cert_sn"] = number
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        return Letter(headers, urlencode(fields).encode("ascii"))

    def tampered(self, letter: Letter) -> Letter:
        """Another amount, or another number of the notification."""
        name = b"total_amount=" if b"total_amount=" in letter.body else b"notify_id="
        return Letter(letter.headers, letter.body.replace(name, name + b"9"))

    def strange(self, notice: Notice) -> Notice:
        """Another state."""
        fields: dict[str, str] = msgspec.json.decode(notice.body)
        about = msgspec.json.decode(fields["biz_content"]) if "biz_content" in fields else fields
        about |= {name: "QUANTUM" for name in STATES if name in about}
        if about is not fields:
            fields["biz_content"] = msgspec.json.encode(about).decode()
        return replace(notice, body=msgspec.json.encode(fields).decode())

    def taken(self, status: int, body: bytes) -> bool:
        """Only the word counts."""
        return status == 200 and body.strip() == b"success"


def _address(desk: Desk, row: Told) -> str | None:
    match row:
        case Debit() | Hold():
            return row.notify_url
        case Refund():
            return desk.books.debits_by_number[row.debit_number].notify_url
    return None


def _fields(visit: Visit, row: Told, before: Told | None) -> Answer | None:
    """What a change is worth telling, None for nothing."""
    match row:
        case Debit(state="paid"):
            return _trade(visit, row, "TRADE_SUCCESS")
        case Debit(state="closed"):
            return _trade(visit, row, "TRADE_CLOSED")
        case Refund(state="paid"):
            return _refund(visit, row)
        case Agreement(state="active" | "revoked" | "expired"):
            return _message("zhima.credit.payafteruse.creditagreement.changed", zhima.agreement_view(row))
        case Hold() if row.asked.agreement and row.state not in ("pending", "refused"):
            return _message("zhima.credit.payafteruse.creditbizorder.changed", zhima.order_view(visit, row))
        case Hold() if not row.asked.agreement and row.state != "pending":
            return _authorisation(visit, row, before)
        case Dispute(kind="complaint"):
            # It only says which (several merchants' public code reads it so; no text of Alipay's was found).
            return _message("alipay.merchant.tradecomplain.changed", {"complain_event_id": row.ref})
    return None


def _message(method: str, about: Answer) -> Answer:
    return {"msg_method": method, "biz_content": msgspec.json.encode(about).decode(), "version": "1.1"}


def _trade(visit: Visit, row: Debit, status: str) -> Answer:
    merchant = visit.account.alipay
    return {
        "notify_type": "trade_status_sync",
        "auth_app_id": merchant.app_id if merchant else None,
        "trade_no": number_of(row),
        "out_trade_no": row.asked.key,
        "trade_status": status,
        "total_amount": yuan(row.amount_minor),
        "receipt_amount": yuan(row.paid_minor),
        "buyer_pay_amount": yuan(row.paid_minor),
        "subject": row.asked.subject,
        "seller_id": merchant.seller_id if merchant else None,
        "buyer_id": user_id(row.rider),
        "buyer_open_id": open_id(row.rider),
        "buyer_logon_id": logon_id(row.rider),
        "gmt_create": local(row.created_at),
        "gmt_payment": local(row.paid_at) if row.paid_at else None,
        "gmt_close": local(row.updated_at) if status == "TRADE_CLOSED" else None,
    }


def _refund(visit: Visit, row: Refund) -> Answer:
    """A refund is told as its trade: closed when all of it went back; `out_biz_no` is the refund's request number."""
    debit = visit.desk.books.debits_by_number[row.debit_number]
    given = debit.refunded_minor + row.asked.amount_minor
    status = "TRADE_CLOSED" if given >= debit.paid_minor else "TRADE_SUCCESS"
    refunded = {
        "refund_fee": yuan(given),
        "out_biz_no": row.asked.key,
        "gmt_refund": local(visit.now),
    }
    return {**_trade(visit, debit, status), **refunded}


def _authorisation(visit: Visit, row: Hold, before: Told | None) -> Answer:
    frozen = not isinstance(before, Hold) or before.state == "pending"
    view = authorisations.view(visit, row)
    kind = "fund_auth_freeze" if frozen else "fund_auth_unfreeze"
    return {**view, "notify_type": kind, "operation_type": "FREEZE" if frozen else "UNFREEZE"}
