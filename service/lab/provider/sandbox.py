"""Notifications of the sandbox face: JSON under an HMAC, taken by a 200 or 204."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from service.lab.provider.courier import signature
from service.lab.provider.desk import Desk
from service.lab.provider.faces import Letter, Told
from service.lab.provider.rows import Account, Agreement, Debit, Dispute, Hold, Notice, Refund
from service.lab.provider.wire import view

ABOUT: dict[type, str] = {
    Agreement: "agreement",
    Hold: "hold",
    Debit: "debit",
    Refund: "refund",
    Dispute: "dispute",
}
_ENCODER = msgspec.json.Encoder()


class NoticeBody(msgspec.Struct):
    """The body of a notification; `id` stays the same over all attempts."""

    id: str
    account_id: str
    about: str
    at: datetime
    data: Any


class SandboxFace:
    """The sandbox's notifications."""

    retry_s = (1, 5, 15, 60, 600, 3600, 3600, 21_600, 86_400)

    def notice(self, desk: Desk, account: Account, row: Told, before: Told | None) -> Notice | None:
        """Every change, to the account's one address."""
        if account.notify_url is None:
            return None
        about = desk.books.debits_by_number[row.debit_number] if isinstance(row, Dispute) else row
        key, number = about.asked.key, desk.books.next_number()
        seen = view(row, account, desk.public_url, debit_ref=about.ref)
        body = NoticeBody(f"NO{number:010d}", row.account_id, ABOUT[type(row)], desk.clock.now(), seen)
        return Notice(number, row.account_id, key, _ENCODER.encode(body).decode(), next_at=body.at)

    def letter(self, account: Account, notice: Notice, now: datetime, *, skew_s: float = 0.0) -> Letter:
        """Signed with the machine's time."""
        body = notice.body.encode()
        signed = signature(account.notify_secret, body, datetime.now(UTC) + timedelta(seconds=skew_s))
        return Letter({"Content-Type": "application/json", "Farebox-Signature": signed}, body)

    def tampered(self, letter: Letter) -> Letter:
        """Another amount, or another account."""
        body = letter.body.replace(b'"paid_minor":', b'"paid_minor":9').replace(b'"account_id":"', b'"account_id":"x')
        return Letter(letter.headers, body)

    def strange(self, notice: Notice) -> Notice:
        """Another state."""
        told = msgspec.json.decode(notice.body)
        told["data"]["state"] = "quantum"
        return replace(notice, body=msgspec.json.encode(told).decode())

    def taken(self, status: int, body: bytes) -> bool:
        """By its status alone."""
        return status in (200, 204)
