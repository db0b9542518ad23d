"""The doors of the providers' notifications: their signature lets them in, so most inputs are signed here.

The line `how: signed` has the harness sign the body as the provider does; without it, headers and body come as they
are. A notification that is let in says only what can be kept; one that is not has a reason and a status of 200 to 499.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from urllib.parse import parse_qsl, urlencode

import alipay_double
import msgspec
import wechatpay_double
from fuzz_parts import Door, in_words, loop, one_of, parts, room, storable, written
from stripe_double import intent

from service.adapters.providers import open_provider
from service.adapters.providers.port import BadNotification, MerchantAccount, Notification, Provider

NOWHERE = "http://127.0.0.1:9"
SECRET = "whsec_1"  # noqa: S105  # The tests' own.
SIGNED = (b"how", b"signed")
Sign = Callable[[dict[str, str], bytes, datetime], tuple[dict[str, str], bytes]]


def _enter(provider: Callable[[], Provider], sign: Sign, data: bytes) -> None:
    pairs, body = parts(data)
    now = datetime.now(UTC).replace(microsecond=0)
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}
    content = body or b""
    if one_of(pairs, b"how") == b"signed":
        headers, content = sign(headers, content, now)
    told = provider().parse_notification(headers, content, now)
    if isinstance(told, BadNotification):
        in_words(told.reason)
        assert 200 <= told.ack.status < 500
    else:
        assert isinstance(told, Notification)
        assert told.ack.status == 200
        storable(told)


async def _opened(account: MerchantAccount) -> Provider:
    return open_provider(account)


def opened(name: str, settings: Mapping[str, object], url: str = NOWHERE) -> Provider:
    """An adapter with connections on this process's loop."""
    return loop().run_until_complete(_opened(MerchantAccount(1, "city", name, url, dict(settings))))


@cache
def _alipay() -> Provider:
    return opened("alipay", alipay_double.settings_of("zhima", room()))


@cache
def _wechatpay() -> Provider:
    return opened("wechatpay", wechatpay_double.settings_of(room()) | wechatpay_double.public_key_mode(room()))


@cache
def _stripe() -> Provider:
    os.environ |= {"STRIPE_KEY": "sk_test_1", "STRIPE_WEBHOOK": SECRET}
    settings = {"secret_key_env": "STRIPE_KEY", "webhook_secret_env": "STRIPE_WEBHOOK", "currency": "EUR"}
    return opened("stripe", settings | {"mode": "test"})


@cache
def _sandbox() -> Provider:
    return opened("sandbox", {"api_key": "k", "notify_secret": SECRET, "capabilities": {}})


def _by_alipay(headers: dict[str, str], body: bytes, _now: datetime) -> tuple[dict[str, str], bytes]:
    """The form with its signature added."""
    form = dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True))
    signed = sorted(name for name in form if name not in ("sign", "sign_type"))
    signature = alipay_double.signature_of("alipay", "&".join(f"{name}={form[name]}" for name in signed))
    return headers, urlencode(form | {"sign": signature}).encode()


def _by_wechatpay(headers: dict[str, str], body: bytes, now: datetime) -> tuple[dict[str, str], bytes]:
    """The resource encrypted into its envelope, and all of it signed: the body is the resource, its event a header."""
    event = headers.get("event", "PAYSCORE.USER_PAID")
    sealed = wechatpay_double.encrypted(body, associated="payscore")
    content = msgspec.json.encode({"id": "n1", "event_type": event, "resource": sealed})
    told = wechatpay_double.sealed_headers("public", content, now)
    return {name.lower(): value for name, value in told.items()}, content


def _by_hmac(header: str) -> Sign:
    def sign(headers: dict[str, str], body: bytes, now: datetime) -> tuple[dict[str, str], bytes]:
        seconds = int(now.timestamp())
        digest = hmac.digest(SECRET.encode(), b"%d.%s" % (seconds, body), "sha256").hex()
        return headers | {header: f"t={seconds},v1={digest}"}, body

    return sign


def enter_alipay(data: bytes) -> None:
    """A form post."""
    _enter(_alipay, _by_alipay, data)


def enter_wechatpay(data: bytes) -> None:
    """Headers and JSON."""
    _enter(_wechatpay, _by_wechatpay, data)


def enter_stripe(data: bytes) -> None:
    """A signed event."""
    _enter(_stripe, _by_hmac("stripe-signature"), data)


def enter_sandbox(data: bytes) -> None:
    """The sandbox's own."""
    _enter(_sandbox, _by_hmac("farebox-signature"), data)


def seeds_of_alipay() -> list[bytes]:
    """A trade, a freeze, a message of the app's gateway; signed by the harness, and as Alipay's key signed it."""
    freeze = {"notify_type": "fund_auth_freeze", "out_order_no": "H", "operation_type": "FREEZE", "status": "SUCCESS"}
    freeze |= {"auth_no": "2026", "total_freeze_amount": "100.00"}
    message = {"msg_method": "zhima.credit.payafteruse.creditagreement.changed"}
    message |= {"biz_content": '{"out_agreement_no":"A","out_order_no":"","complain_event_id":"1"}'}
    complaint = message | {"msg_method": "alipay.merchant.tradecomplain.changed"}
    bodies = [alipay_double.trade_notice(), alipay_double.trade_notice(refund_fee="1.00", out_biz_no="R")]
    bodies += [alipay_double.notice(fields) for fields in (freeze, message, complaint)]
    return [written([SIGNED], body) for body in bodies] + [written([], bodies[0])]


def seeds_of_wechatpay() -> list[bytes]:
    """A resource of each event."""
    ours = {"mchid": wechatpay_double.MCHID, "appid": wechatpay_double.APPID}
    order = ours | {"out_order_no": "H0LD", "order_id": "1"} | wechatpay_double.paid(wechatpay_double.DETAIL)
    payment = ours | {"out_trade_no": "K", "trade_state": "SUCCESS", "transaction_id": "4", "amount": {"total": 1}}
    refund = ours | {"out_refund_no": "R", "refund_status": "SUCCESS", "refund_id": "5", "amount": {"refund": 1}}
    told: dict[str, object] = {
        "PAYSCORE.USER_PAID": order,
        "PAYSCORE.USER_CONFIRM": order | {"state": "DOING"},
        "PAYSCORE.USER_OPEN_SERVICE": ours | {"authorization_code": "A"},
        "TRANSACTION.SUCCESS": payment,
        "REFUND.SUCCESS": refund,
        "COMPLAINT.CREATE": {"complaint_id": "2000"},
    }
    signed = [written([SIGNED, (b"event", event.encode())], msgspec.json.encode(told[event])) for event in told]
    body = wechatpay_double.notice("PAYSCORE.USER_PAID", order)
    headers = wechatpay_double.sealed_headers("public", body, wechatpay_double.AT)
    return [*signed, written([(name.encode(), value.encode()) for name, value in headers.items()], body)]


def seeds_of_stripe() -> list[bytes]:
    """An event about each kind of object."""
    setup = {"id": "s", "customer": "c", "status": "succeeded", "metadata": {"farebox_key": "A"}}
    setup |= {"payment_method": {"id": "pm", "card": {"exp_month": 12, "exp_year": 2030}}}
    refund = {"id": "r", "amount": 5, "currency": "eur", "status": "succeeded", "metadata": {"farebox_key": "R"}}
    dispute = {"id": "d", "status": "lost", "amount": 5, "currency": "eur", "payment_intent": "pi"}
    dispute |= {"balance_transactions": [{"amount": -5, "fee": 1500, "currency": "eur"}]}
    held = intent("requires_capture", metadata={"farebox_hold": "H"}, amount_capturable=5)
    card = {"card": {"capture_before": 1790000000}}
    told: dict[str, object] = {
        "payment_intent.succeeded": intent("succeeded"),
        "payment_intent.amount_capturable_updated": held
        | {"latest_charge": {"id": "ch", "payment_method_details": card}},
        "setup_intent.succeeded": setup,
        "refund.updated": refund,
        "charge.dispute.closed": dispute,
    }
    event = {"id": "evt", "livemode": False, "created": 1790000000}
    bodies = [msgspec.json.encode(event | {"type": kind, "data": {"object": told[kind]}}) for kind in told]
    return [written([SIGNED], body) for body in bodies] + [written([(b"stripe-signature", b"t=1,v1=ab")], bodies[0])]


def seeds_of_sandbox() -> list[bytes]:
    """A notification about each thing."""
    debit = {"key": "K", "ref": "r", "state": "paid", "currency": "CNY", "amount_minor": 5, "paid_minor": 5}
    hold = {"key": "H", "ref": "r", "state": "open", "cap_minor": 9, "expires_at": "2026-11-22T10:00:00Z"}
    dispute = {"ref": "d", "debit": "K", "kind": "chargeback", "state": "open", "currency": "CNY", "amount_minor": 5}
    refund = {"key": "R", "ref": "r", "state": "failed", "amount_minor": 5, "code": "REFUND_ABNORMAL"}
    agreement = {"key": "A", "ref": "r", "state": "active", "valid_until": "2027-01-01T00:00:00Z"}
    told = {"debit": debit, "hold": hold, "dispute": dispute, "refund": refund, "agreement": agreement}
    bodies = [
        msgspec.json.encode({"id": "n", "account_id": "city", "about": about, "data": told[about]}) for about in told
    ]
    return [written([SIGNED], body) for body in bodies] + [written([(b"farebox-signature", b"t=1,v1=ab")], bodies[0])]


WORDS = (
    *("TRADE_CLOSED", "gmt_payment", "credit_pay_mode", "USER_PAYING", "REVOKED", "ABNORMAL", "requires_action"),
    *("9223372036854775808", "1e400", "-1", "99999999999999", "\\u0000", "\\ud800", "%00", "[[[[", "null"),
)
DOORS = (
    Door("alipay-notice", enter_alipay, seeds_of_alipay, 900, WORDS),
    Door("wechatpay-notice", enter_wechatpay, seeds_of_wechatpay, 900, WORDS),
    Door("stripe-notice", enter_stripe, seeds_of_stripe, 4_000, WORDS),
    Door("sandbox-notice", enter_sandbox, seeds_of_sandbox, 4_000, WORDS),
)
