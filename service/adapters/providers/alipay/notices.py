"""Alipay's notifications: form posts about trades and freezes, and messages of the app's gateway about Zhima.

A trade's notification is believed as far as its words are listed; everything that is only said to have changed is asked
about. Sources: opendocs.alipay.com/open/204/105301 (trade_status_sync), alipay-sdk-nodejs-all checkNotifySign.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl

import msgspec

from service.adapters.providers.alipay import wire
from service.adapters.providers.alipay.settings import AlipaySettings
from service.adapters.providers.exchange import decoded
from service.adapters.providers.further import key_of
from service.adapters.providers.port import Ack, BadNotification, NamedBy, Notification
from service.billing.agreements.standing import HoldAnswer, HoldStatus
from service.billing.outcomes import Closed, Outcome, Unknown

SUCCESS = Ack(200, "text/plain", b"success")
"""Exactly this stops the repeats."""
REFUSED = Ack(400, "text/plain", b"fail")
FIELDS_MAX = 200
ORDER_NUMBER = re.compile(r"ZMCB[0-9]{8,60}")
"""unverified: what a credit_biz_order_id looks like (agent-skill 芝麻先享, glossary); our own keys never do."""
AGREEMENT_CHANGED = "zhima.credit.payafteruse.creditagreement.changed"
ORDER_CHANGED = "zhima.credit.payafteruse.creditbizorder.changed"
COMPLAINT_CHANGED = "alipay.merchant.tradecomplain.changed"
"""The message about a trade's complaint; it says its complain_event_id (see complaints.py)."""


class _Changed(msgspec.Struct, frozen=True):
    """What a message of the app's gateway is about, by our own numbers; a complaint by Alipay's."""

    out_agreement_no: str = ""
    out_order_no: str = ""
    complain_event_id: str = ""


_CHANGED = msgspec.json.Decoder(_Changed)


def read_notice(
    settings: AlipaySettings, wrong: Callable[[Mapping[str, str]], str | None], body: bytes
) -> Notification | BadNotification:
    """The notification, or why it is not believed: signature (`wrong` says), app and seller are looked at first."""
    form = _form(body)
    if form is None:
        return BadNotification("the body is not a form", REFUSED)
    if reason := wrong(form):
        return BadNotification(reason, REFUSED)
    if form.get("app_id") != settings.app_id:
        return BadNotification("the notification is for another app", REFUSED)
    for seller in ("seller_id", "payee_user_id"):
        if form.get(seller, settings.seller_id) != settings.seller_id:
            return BadNotification("the notification is for another seller", REFUSED)
    number = form.get("notify_id", "")
    if not number:
        return BadNotification("the notification has no id", REFUSED)
    return _content(settings, form, number)


def _content(settings: AlipaySettings, form: Mapping[str, str], number: str) -> Notification | BadNotification:
    method = form.get("msg_method", "")
    if method in (AGREEMENT_CHANGED, ORDER_CHANGED, COMPLAINT_CHANGED):
        return _changed(method, form, number)
    if form.get("notify_type") == "trade_status_sync" and form.get("out_trade_no"):
        if "seller_id" not in form:
            return BadNotification("the notification names no seller", REFUSED)
        return _trade(settings, form, number)
    if form.get("notify_type", "").startswith("fund_auth_") and form.get("out_order_no"):
        return Notification(number, "hold", form["out_order_no"], _freeze(form), SUCCESS)
    kind = method or form.get("notify_type", "")
    return BadNotification(f"a notification of type {kind[:64]!r}, which is not used", SUCCESS)


def _changed(method: str, form: Mapping[str, str], number: str) -> Notification | BadNotification:
    """Something about an agreement, an order or a complaint has changed: it is asked for."""
    content = decoded(form.get("biz_content", "").encode(), _CHANGED)
    ask = Unknown("Alipay says it has changed")
    if content and method == AGREEMENT_CHANGED and content.out_agreement_no:
        return Notification(number, "agreement", content.out_agreement_no, ask, SUCCESS)
    if content and method == ORDER_CHANGED and content.out_order_no:
        return Notification(number, "hold", content.out_order_no, ask, SUCCESS)
    if content and method == COMPLAINT_CHANGED and content.complain_event_id:
        return Notification(number, "dispute", content.complain_event_id, ask, SUCCESS)
    return BadNotification("a message without our number", SUCCESS)


def _trade(settings: AlipaySettings, form: Mapping[str, str], number: str) -> Notification:
    """A trade by its out_trade_no."""
    refund = form.get("out_biz_no", "")
    if refund and "refund_fee" in form:  # What was refunded under which number is asked for.
        payment, ask = form.get("trade_no") or None, Unknown("Alipay says it was refunded")
        return Notification(number, "refund", refund, ask, SUCCESS, payment=payment)
    trade, state = form["out_trade_no"], _trade_state(settings, form)
    key, named_by = debit_named(trade)
    return Notification(number, "debit", key, state, SUCCESS, named_by)


def debit_named(out_trade_no: str) -> tuple[str, NamedBy]:
    """What a trade's number names: the hold of its ride, where it is an order's; any other is our key of the debit."""
    if ORDER_NUMBER.fullmatch(out_trade_no):
        return out_trade_no, "hold_ref"
    return key_of(out_trade_no), "key"


def _trade_state(settings: AlipaySettings, form: Mapping[str, str]) -> Outcome:
    status = form.get("trade_status", "")
    if status == "TRADE_CLOSED" and "gmt_payment" not in form and "refund_fee" not in form:
        return Closed(status)
    if status not in wire.PAID or "refund_fee" in form:
        return Unknown(f"trade_status {status}")  # WAIT_BUYER_PAY, closed after a payment, or a word nobody listed.
    mode = form.get("credit_pay_mode", "")
    return wire.succeeded(form.get("total_amount", ""), form.get("trade_no", ""), mode, settings.credit_pay_modes)


def _freeze(form: Mapping[str, str]) -> HoldAnswer:
    """Only a freeze that succeeded is believed; every other operation is asked about."""
    frozen = wire.minor(form.get("total_freeze_amount") or form.get("amount", ""))
    done = form.get("operation_type") == "FREEZE" and form.get("status") == "SUCCESS"
    if form.get("notify_type") == "fund_auth_freeze" and done and form.get("auth_no") and frozen:
        return HoldStatus("open", form["auth_no"], frozen)
    return Unknown("Alipay says the authorisation has changed")


def _form(body: bytes) -> dict[str, str] | None:
    """The form, in UTF-8 as all our requests ask for; None for anything else, and where a name stands twice or a value
    has a NUL, which PostgreSQL can't keep."""
    try:
        pairs = parse_qsl(body.decode("ascii"), True, True, "utf-8", "strict", FIELDS_MAX)
    except ValueError:  # Not ASCII, not a form, too many fields, or another charset.
        return None
    form = dict(pairs)
    whole = len(form) == len(pairs) and not any("\0" in value for value in form.values())
    return form if form and whole else None
