"""Notifications of the WeChat Pay face: signed like answers, their resource encrypted, again and again until 200 or
204 (wechatpay-im/website, webhook/v3)."""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b

import msgspec
from msgspec.structs import replace

from service.lab.provider.desk import Desk
from service.lab.provider.faces import Letter, Told
from service.lab.provider.rows import Account, Agreement, Debit, Dispute, Hold, Notice, Refund
from service.lab.provider.wechatpay import complaints, orders, permissions, refunds, transactions
from service.lab.provider.wechatpay.signing import encrypted, signed_headers
from service.lab.provider.wechatpay.visits import Answer, Visit
from service.lab.provider.wechatpay.wire import rfc3339

STATES = ("state", "user_service_status", "refund_status", "trade_state", "action_type")


class Event(msgspec.Struct, frozen=True):
    """What happened, before it is encrypted; `about` is the resource's original type and the associated data."""

    kind: str
    summary: str
    about: str
    resource: Answer
    key: str
    url: str | None = None


class WeChatPayFace:
    """WeChat Pay's notifications."""

    retry_s = (15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600, 10_800, 10_800, 10_800, 21_600, 21_600)

    def notice(self, desk: Desk, account: Account, row: Told, before: Told | None) -> Notice | None:
        """Of an order, a permission, a payment, a refund: to the address its request named, else the account's."""
        if account.wechatpay is None:
            return None
        event = _event(Visit(desk, account, desk.clock.now()), row, before)
        url = (event.url if event else None) or account.notify_url
        if event is None or url is None:
            return None
        now, number = desk.clock.now(), desk.books.next_number()
        told = {
            "id": f"EV-{rfc3339(now)[:10]}-{number:012d}",
            "create_time": rfc3339(now),
            "resource_type": "encrypt-resource",
            "event_type": event.kind,
            "summary": event.summary,
            "about": event.about,
            "resource": event.resource,
        }
        return Notice(number, row.account_id, event.key, msgspec.json.encode(told).decode(), next_at=now, url=url)

    def letter(self, account: Account, notice: Notice, now: datetime, *, skew_s: float = 0.0) -> Letter:
        """Encrypted and signed now, at the machine's time."""
        assert account.wechatpay is not None
        told = msgspec.json.decode(notice.body)
        about, text = told.pop("about"), msgspec.json.encode(told["resource"])
        nonce = blake2b(f"{notice.number}/{notice.attempts}".encode(), digest_size=6).hexdigest()
        told["resource"] = {
            "original_type": about,
            "algorithm": "AEAD_AES_256_GCM",
            "ciphertext": encrypted(account.wechatpay.apiv3_key, nonce, about, text),
            "associated_data": about,
            "nonce": nonce,
        }
        body = msgspec.json.encode(told)
        headers = signed_headers(account, body, skew_s=skew_s)
        return Letter({"Content-Type": "application/json", "Request-ID": told["id"], **headers}, body)

    def tampered(self, letter: Letter) -> Letter:
        """Another summary: the text is not what was signed."""
        return Letter(letter.headers, letter.body.replace(b'"summary":"', b'"summary":"x'))

    def strange(self, notice: Notice) -> Notice:
        """Another state."""
        told = msgspec.json.decode(notice.body)
        told["resource"] |= {name: "QUANTUM" for name in STATES if name in told["resource"]}
        return replace(notice, body=msgspec.json.encode(told).decode())

    def taken(self, status: int, body: bytes) -> bool:
        """By its status alone, within the courier's five seconds."""
        return status in (200, 204)


def _event(visit: Visit, row: Told, before: Told | None) -> Event | None:
    """What a change is worth telling, None for nothing."""
    match row:
        case Agreement(state="active"):
            return _permission(visit, row, "USER_OPEN_SERVICE", "签约成功")
        case Agreement(state="revoked" | "expired"):
            return _permission(visit, row, "USER_CLOSE_SERVICE", "解约成功")
        case Hold(state="open") if isinstance(before, Hold) and before.state == "pending":
            return _order(visit, row, None, "USER_CONFIRM", "用户确认成功")
        case Debit() if row.asked.hold:
            return _collected(visit, row, before)
        case Debit(state="paid"):
            shown = transactions.view(visit, row)
            return Event("TRANSACTION.SUCCESS", "支付成功", "transaction", shown, row.asked.key, row.notify_url)
        case Refund(state="paid" | "failed"):
            return _refunded(visit, row)
        case Dispute(kind="complaint"):
            key = visit.desk.books.debits_by_number[row.debit_number].asked.key
            kind, told = complaints.notice(row)
            return Event(kind, "投诉", "complaint", told, key, complaints.notify_url(visit))
    return None


def _permission(visit: Visit, row: Agreement, kind: str, summary: str) -> Event:
    url = (visit.kept(f"permission/{row.asked.key}") or {}).get("notify_url")
    told = permissions.notice(visit, row)
    return Event(f"PAYSCORE.{kind}", summary, "payscore", told, row.asked.key, url)


def _order(visit: Visit, hold: Hold, debit: Debit | None, kind: str, summary: str) -> Event:
    told = orders.view(visit, hold, debit)
    return Event(f"PAYSCORE.{kind}", summary, "payscore", told, hold.asked.key, told.get("notify_url"))


def _collected(visit: Visit, row: Debit, before: Told | None) -> Event | None:
    """Each payment is told, and what ends the collection; not what the merchant said himself (sync)."""
    had = before.paid_minor if isinstance(before, Debit) else 0
    if row.paid_minor == had and row.state != "paid":
        return None
    hold = visit.desk.books.holds[row.account_id, row.asked.hold or ""]
    return _order(visit, hold, row, "USER_PAID", "用户支付成功")


def _refunded(visit: Visit, row: Refund) -> Event:
    status = refunds.status_of(row)
    debit = visit.desk.books.debits_by_number[row.debit_number]
    ordered = (visit.kept(f"order/{debit.asked.hold}") or {}).get("asked", {}).get("notify_url")
    url = refunds.notify_url(visit, row.asked.key) or ordered or debit.notify_url
    summary = {"SUCCESS": "退款成功", "ABNORMAL": "退款异常", "CLOSED": "退款关闭"}[status]
    return Event(f"REFUND.{status}", summary, "refund", refunds.notice(visit, row), row.asked.key, url)
