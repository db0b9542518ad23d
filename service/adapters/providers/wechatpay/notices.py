"""WeChat Pay's notifications: signed JSON whose resource is encrypted with the APIv3 key.

Sources: wechatpay-im/website, webhook/v3/*.md, one page for each event. What is said of an order is believed as far as
its words are listed; that a permission began or ended is asked about, since such news may be a day old.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from service.adapters.providers.exchange import decoded
from service.adapters.providers.further import key_of
from service.adapters.providers.port import Ack, BadNotification, Notification
from service.adapters.providers.wechatpay import wire
from service.adapters.providers.wechatpay.client import Client, Envelope
from service.adapters.providers.wechatpay.settings import WechatPaySettings
from service.billing.agreements.standing import AgreementAnswer, HoldAnswer
from service.billing.outcomes import NotFound, Succeeded, Unknown

JSON = "application/json"
SUCCESS = Ack(200, JSON, b'{"code":"SUCCESS","message":"OK"}')
"""200 or 204 within five seconds stops the repeats, which go on for 24 hours else."""
REFUSED = Ack(401, JSON, b'{"code":"FAIL","message":"not believed"}')
PERMISSION_EVENTS = frozenset({"PAYSCORE.USER_OPEN_SERVICE", "PAYSCORE.USER_CLOSE_SERVICE"})
REFUND_EVENTS = frozenset({"REFUND.SUCCESS", "REFUND.ABNORMAL", "REFUND.CLOSED"})
COMPLAINT_EVENTS = frozenset({"COMPLAINT.CREATE", "COMPLAINT.STATE_CHANGE"})


class _Notice(msgspec.Struct, frozen=True):
    id: str
    event_type: str
    resource: Envelope


class _Named(msgspec.Struct, frozen=True):
    """For whom a resource is, and what it is about by our own numbers."""

    mchid: str = ""
    appid: str = ""
    service_id: str = ""
    out_order_no: str = ""
    out_trade_no: str = ""
    out_refund_no: str = ""
    transaction_id: str = ""
    authorization_code: str = ""
    complaint_id: str = ""


_NOTICE = msgspec.json.Decoder(_Notice)
_NAMED = msgspec.json.Decoder(_Named)


def read_notice(
    client: Client, settings: WechatPaySettings, headers: Mapping[str, str], body: bytes, now: datetime
) -> Notification | BadNotification:
    """The notification, or why it is not believed: signature and time are looked at before anything else."""
    wrong = client.notification_signed(headers, body, now)
    if wrong is not None:
        return BadNotification(wrong, REFUSED)
    notice = decoded(body, _NOTICE)
    if notice is None or not notice.id:
        return BadNotification("the notification has another shape", REFUSED)
    content = client.decrypted(notice.resource)
    if content is None:
        return BadNotification("the notification can't be decrypted: is api_v3_key the merchant's?", REFUSED)
    named = decoded(content, _NAMED)
    if named is None:
        return BadNotification("the notification's resource has another shape", REFUSED)
    stranger = _stranger(settings, notice.event_type, named)
    if stranger is not None:
        return BadNotification(f"the notification is for another {stranger}", REFUSED)
    return _content(notice, named, content)


def _stranger(settings: WechatPaySettings, event: str, named: _Named) -> str | None:
    """What of us it is not for. A complaint names nobody: its signature and its encryption do."""
    if named.mchid != settings.mchid and (named.mchid or event not in COMPLAINT_EVENTS):
        return "merchant"
    if named.appid not in ("", settings.appid):
        return "app"
    return None if named.service_id in ("", settings.service_id) else "service"


def _content(notice: _Notice, named: _Named, content: bytes) -> Notification | BadNotification:
    event = notice.event_type
    if event.startswith("PAYSCORE.") and named.authorization_code and event in PERMISSION_EVENTS:
        return _about(notice, "agreement", named.authorization_code, Unknown("WeChat Pay says it has changed"))
    if event == "PAYSCORE.USER_PAID" and named.out_order_no:
        return Notification(notice.id, "debit", named.out_order_no, _order_paid(content), SUCCESS, "hold")
    if event == "PAYSCORE.USER_CONFIRM" and named.out_order_no:
        return _about(notice, "hold", named.out_order_no, _confirmed(content))
    if event == "TRANSACTION.SUCCESS" and named.out_trade_no:
        paid = decoded(content, wire.PAYMENT)
        answer = wire.payment_outcome(paid) if paid else Unknown("another shape")
        return _about(notice, "debit", key_of(named.out_trade_no), answer)
    if event in REFUND_EVENTS and named.out_refund_no:
        refund = decoded(content, wire.REFUND)
        answer = wire.refund_outcome(refund) if refund else Unknown("another shape")
        payment = named.transaction_id or None
        return Notification(notice.id, "refund", named.out_refund_no, answer, SUCCESS, payment=payment)
    if event in COMPLAINT_EVENTS and named.complaint_id:
        return _about(notice, "dispute", named.complaint_id, Unknown("WeChat Pay tells no more than its number"))
    return BadNotification(f"a notification of type {event[:64]!r}, which is not used", SUCCESS)


def _about(
    notice: _Notice,
    about: Literal["agreement", "hold", "debit", "refund", "dispute"],
    key: str,
    answer: HoldAnswer | AgreementAnswer,
) -> Notification:
    return Notification(notice.id, about, key, answer, SUCCESS)


def _order_paid(content: bytes) -> HoldAnswer:
    """What was paid of an order; it may be said several times, and in parts. All else is asked about."""
    order = decoded(content, wire.ORDER)
    outcome = wire.debit_outcome(order) if order else NotFound()
    return outcome if isinstance(outcome, Succeeded) else Unknown("WeChat Pay says it has changed")


def _confirmed(content: bytes) -> HoldAnswer:
    """An order that the rider has confirmed; that it runs is all that is believed."""
    order = decoded(content, wire.ORDER)
    status = wire.hold_status(order) if order and order.state == "DOING" else None
    return status or Unknown("WeChat Pay says it has changed")
