"""Notifications of the sandbox provider: `farebox-signature: t=<seconds>,v1=<hex HMAC-SHA256 of "t.body">`."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import datetime

import msgspec

from service.adapters.providers import sandbox_wire as wire
from service.adapters.providers.exchange import decoded
from service.adapters.providers.port import Ack, BadNotification, Notification
from service.billing.outcomes import Unknown

CLOCK_OFFSET_MAX_S = 300
SIGNATURE_CHARACTERS_MAX = 4096
_AGREEMENT = msgspec.json.Decoder(wire.AgreementView)
_HOLD = msgspec.json.Decoder(wire.HoldView)
_DEBIT = msgspec.json.Decoder(wire.DebitView)
_REFUND = msgspec.json.Decoder(wire.RefundView)
_DISPUTE = msgspec.json.Decoder(wire.DisputeView)
_NOTICE = msgspec.json.Decoder(wire.NoticeBody)


def read_notice(
    account_id: str, secret: str | None, headers: Mapping[str, str], body: bytes, now: datetime
) -> Notification | BadNotification:
    """The notification, or why it is not believed; `now` is the machine's clock, the signature may be 300 s off."""
    reason = _distrust(secret, headers.get("farebox-signature", ""), body, now)
    if reason:
        return _refused(401, reason)
    notice = decoded(body, _NOTICE)
    if notice is None:
        return _refused(400, "the body is not a notification")
    if notice.account_id != account_id:
        return _refused(400, f"the notification is for account {notice.account_id[:64]!r}")
    return _content(notice) or _refused(400, f"a notification about {notice.about[:64]!r} in a shape nobody listed")


def _content(notice: wire.NoticeBody) -> Notification | None:
    ack = Ack(200, "text/plain", b"success")
    data = bytes(notice.data)
    match notice.about:
        case "debit" if debit := decoded(data, _DEBIT):
            return Notification(notice.id, "debit", debit.key, wire.debit_outcome(debit), ack)
        case "hold" if hold := decoded(data, _HOLD):
            return Notification(notice.id, "hold", hold.key, wire.hold_status(hold), ack)
        case "agreement" if agreement := decoded(data, _AGREEMENT):
            return Notification(notice.id, "agreement", agreement.key, wire.agreement_status(agreement), ack)
        case "refund" if refund := decoded(data, _REFUND):
            return Notification(notice.id, "refund", refund.key, wire.refund_outcome(refund), ack)
        case "dispute" if (told := decoded(data, _DISPUTE)) and (dispute := wire.dispute_status(told)):
            return Notification(notice.id, "debit", told.debit, Unknown("a dispute"), ack, dispute=dispute)
    return None


def _distrust(secret: str | None, signature: str, body: bytes, now: datetime) -> str | None:
    """Why a signature is not believed, or None."""
    if secret is None:
        return "the account has no notify_secret"
    parts = dict(part.partition("=")[::2] for part in signature[:SIGNATURE_CHARACTERS_MAX].split(","))
    seconds = parts.get("t", "")
    if not (seconds.isascii() and seconds.isdigit()) or len(seconds) > 12:
        return "the signature has no time"
    expected = hmac.digest(secret.encode(), seconds.encode() + b"." + body, "sha256").hex()
    if not hmac.compare_digest(expected.encode(), parts.get("v1", "").encode("utf-8", "replace")):
        return "the signature is wrong"
    if abs(now.timestamp() - int(seconds)) > CLOCK_OFFSET_MAX_S:
        return "the signature is too old, or from the future"
    return None


def _refused(status: int, reason: str) -> BadNotification:
    return BadNotification(reason, Ack(status, "text/plain", b"refused"))
