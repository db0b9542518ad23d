"""The doors of the providers' answers: a server on loopback gives them, the adapters ask it as they ask the real one.

An input says what is called (`call: debit`), how it is answered (`status: 200`, other lines are headers of the
answer) and with what; more than one answer is separated by a line `----`, the last one stays. `how: signed` has the
harness seal the answer as the provider does. No method of the port raises, whatever comes; and what it says can be
kept.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from functools import cache, partial
from typing import Any

import alipay_double
import msgspec
import wechatpay_double
from aiohttp import web
from doors_notices import SIGNED, opened
from fuzz_parts import Door, loop, one_of, parts, room, run, storable, written
from stripe_double import intent

from service.adapters.providers.port import (
    AgreementRef,
    AgreementRequest,
    DebitItem,
    DebitRef,
    DebitRequest,
    HoldRef,
    HoldRequest,
    Provider,
    RefundRef,
    RefundRequest,
    Statement,
)
from service.billing.agreements.standing import AgreementStatus, HoldStatus
from service.billing.outcomes import Outcome

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
BETWEEN = b"\n----\n"
REFS = {"stripe": "cus_1:seti_1:pm_1", "wechatpay": wechatpay_double.OPENID}
HEADER = re.compile(rb"[A-Za-z-]{1,40}")
OURS = frozenset({b"call", b"status", b"how"})
NOT_OURS = frozenset({b"content-length", b"transfer-encoding", b"connection", b"date", b"server"})
"""Headers that the server of the harness sets itself."""

Call = Callable[[Provider, str], Awaitable[Any]]


def _agreement(name: str) -> AgreementRef:
    return AgreementRef("AG", REFS.get(name, "2088"))


def _debit(name: str, **more: Any) -> DebitRequest:
    currency = "EUR" if name == "stripe" else "CNY"
    hold = HoldRef("H0LD", alipay_double.ORDER_NO if name == "alipay" else "1")
    items = (DebitItem("per_min", 1500, "20 min"), DebitItem("goodwill", -266))
    given: dict[str, Any] = {
        "hold": None if name == "stripe" else hold,
        "started_at": AT,
        "ended_at": AT,
        "items": items,
    }
    return DebitRequest("K3Y", _agreement(name), 1234, currency, "Ride 7", **given | more)


def _ref(name: str) -> DebitRef:
    asked = _debit(name)
    number = "pi_1" if name == "stripe" else None
    return DebitRef(asked.key, 1234, asked.currency, number, asked.agreement, asked.hold)


def _refund(name: str) -> RefundRequest:
    return RefundRequest("R3F", _ref(name), 100, _ref(name).currency, "as asked")


CALLS: dict[str, Call] = {
    "check": lambda provider, name: provider.check(),
    "begin": lambda provider, name: provider.begin_agreement(AgreementRequest("AG", "rider", _ref(name).currency)),
    "agreement": lambda provider, name: provider.get_agreement(_agreement(name)),
    "revoke": lambda provider, name: provider.revoke_agreement(_agreement(name)),
    "open": lambda provider, name: provider.open_hold(
        HoldRequest("H0LD", _agreement(name), 10_000, _ref(name).currency, "Ride 7", AT, "bike-1")
    ),
    "hold": lambda provider, name: provider.get_hold(HoldRef("H0LD", "1")),
    "release": lambda provider, name: provider.release_hold(HoldRef("H0LD", "1")),
    "finish": lambda provider, name: provider.finish_hold(HoldRef("H0LD", "1")),
    "debit": lambda provider, name: provider.debit(_debit(name, provider_ref="pi_1" if name == "stripe" else None)),
    "prepare": lambda provider, name: provider.debit(_debit(name)),
    "asked": lambda provider, name: provider.get_debit(_ref(name)),
    "reduce": lambda provider, name: provider.reduce_debit(_ref(name), 100),
    "elsewhere": lambda provider, name: provider.settle_elsewhere(_ref(name), AT),
    "close": lambda provider, name: provider.close_debit(_ref(name)),
    "nudge": lambda provider, name: provider.nudge_debit(_ref(name)),
    "pay": lambda provider, name: provider.request_payment(_debit(name)),
    "refund": lambda provider, name: provider.refund(_refund(name)),
    "refunded": lambda provider, name: provider.get_refund(RefundRef("R3F", _ref(name), "re_1")),
    "dispute": lambda provider, name: provider.get_dispute("d_1"),
    "report": lambda provider, name: provider.report_performance(_ref(name), "completed", "P3RF"),
    "statement": lambda provider, name: provider.statement(date(2026, 11, 21)),
}
"""Each call of the port by a word."""


class Oracle:
    """A server that says what it is told to say."""

    def __init__(self, seal: Callable[[web.BaseRequest, bytes], tuple[dict[str, str], bytes]]) -> None:
        self.url = ""
        self.status, self.signed = 200, False
        self.headers: list[tuple[str, str]] = []
        self.bodies: list[bytes] = [b""]
        self._seal = seal

    async def start(self) -> None:
        """Listens on a free port of 127.0.0.1."""
        runner = web.ServerRunner(web.Server(self.answer, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """The next answer, sealed where it is to be."""
        await request.read()
        body = self.bodies.pop(0) if len(self.bodies) > 1 else self.bodies[0]
        headers: dict[str, str] = dict(self.headers)
        if self.signed:
            with suppress(UnicodeDecodeError):  # What is no text can't be signed as one: it comes as it is.
                sealed, body = self._seal(request, body)
                headers |= sealed
        return web.Response(status=self.status, body=body, headers=headers)


def _by_alipay(request: web.BaseRequest, body: bytes) -> tuple[dict[str, str], bytes]:
    node = body.decode()
    name = str(request.query.get("method", "")).replace(".", "_")
    signature = alipay_double.signature_of("alipay", node)
    return {}, f'{{"{name}_response":{node},"sign":"{signature}"}}'.encode()


def _by_wechatpay(_request: web.BaseRequest, body: bytes) -> tuple[dict[str, str], bytes]:
    return wechatpay_double.sealed_headers("public", body, datetime.now(UTC)), body


def _as_it_is(_request: web.BaseRequest, body: bytes) -> tuple[dict[str, str], bytes]:
    return {}, body


@cache
def _served(name: str) -> tuple[Oracle, Provider]:
    seals = {"alipay": _by_alipay, "preauth": _by_alipay, "wechatpay": _by_wechatpay}
    oracle = Oracle(seals.get(name, _as_it_is))
    loop().run_until_complete(oracle.start())
    quick: dict[str, Any] = {"timeout_s": 5.0}
    settings: dict[str, dict[str, Any]] = {
        "alipay": alipay_double.settings_of("zhima", room()),
        "preauth": alipay_double.settings_of("preauth", room()),
        "wechatpay": wechatpay_double.settings_of(room()) | wechatpay_double.public_key_mode(room()),
        "stripe": {"secret_key_file": str(_stripe_key()), "currency": "EUR", "mode": "test"},
        "sandbox": {"api_key": "k", "capabilities": {}},
    }
    provider = "alipay" if name == "preauth" else name
    return oracle, opened(provider, settings[name] | quick, oracle.url)


def _stripe_key() -> Any:
    file = room() / "stripe"
    file.write_text("sk_test_1")
    return file


def enter(name: str, data: bytes) -> None:
    """One call of the port at that provider, answered so."""
    oracle, provider = _served(name)
    pairs, body = parts(data)
    call = CALLS.get(one_of(pairs, b"call").decode("latin-1"), CALLS["asked"])
    status = one_of(pairs, b"status", b"200")
    oracle.status = int(status) if re.fullmatch(rb"[2-5]\d\d", status) else 200
    oracle.signed = one_of(pairs, b"how") == b"signed"
    oracle.bodies = (body or b"").split(BETWEEN)
    oracle.headers = [
        (key.decode(), value.decode("latin-1"))
        for key, value in pairs
        if key.lower() not in OURS | NOT_OURS and HEADER.fullmatch(key) and value.decode("latin-1").isprintable()
    ]
    run(_called(partial(call, provider, "alipay" if name == "preauth" else name)))


async def _called(call: Callable[[], Awaitable[Any]]) -> None:
    told = await call()
    known = told is None or isinstance(told, tuple | Outcome | AgreementStatus | HoldStatus | Statement)
    assert known, f"an answer of no kind that the port names: {told!r}"
    storable(told)


def _written(call: str, *bodies: Any, status: int = 200, signed: bool = True) -> bytes:
    told = [body if isinstance(body, bytes) else msgspec.json.encode(body) for body in bodies]
    lines = [(b"call", call.encode()), (b"status", str(status).encode()), *([SIGNED] if signed else [])]
    return written(lines, BETWEEN.join(told))


def _everywhere(calls: Sequence[str], *bodies: Any) -> list[bytes]:
    return [_written(call, *bodies) for call in calls]


def seeds_of_alipay() -> list[bytes]:
    """A good answer of each shape, a refusal, HTML, and half an answer."""
    order = {"code": "10000", "credit_biz_order_id": alipay_double.ORDER_NO, "out_order_no": "H0LD"}
    order |= {"order_status": "INIT", "total_amount": "100.00", "out_trade_no": "K3Y", "trade_no": "2026"}
    trade = order | {"trade_status": "TRADE_SUCCESS", "total_amount": "12.34", "async_pay_apply_status": "S"}
    trade |= {"refund_fee": "1.00", "fund_change": "Y", "refund_status": "REFUND_SUCCESS", "refund_amount": "1.00"}
    trade |= {"out_request_no": "R3F", "auth_no": "1", "status": "SUCCESS", "rest_amount": "100.00", "amount": "1.00"}
    agreement = {"code": "10000", "agreement_status": "VALID", "credit_agreement_id": "2088", "out_agreement_no": "AG"}
    bill = {"code": "10000", "bill_download_url": "http://127.0.0.1:9/bill"}
    refused = {"code": "40004", "sub_code": "ACQ.TRADE_NOT_EXIST", "sub_msg": "no"}
    return [
        *_everywhere(("agreement", "revoke"), agreement),
        *_everywhere(("hold", "open", "release", "finish"), order),
        *_everywhere(("debit", "asked", "refund", "refunded", "close", "elsewhere", "reduce", "report"), trade),
        *_everywhere(("statement",), bill),
        *_everywhere(("asked", "debit", "check", "dispute"), refused),
        _written("debit", b"<html><h1>502 Bad Gateway</h1></html>", status=502, signed=False),
        _written("debit", b'{"alipay_trade_pay_response":{"code":"100', signed=False),
    ]


def seeds_of_wechatpay() -> list[bytes]:
    """The same, of WeChat Pay."""
    order = {"out_order_no": "H0LD", "order_id": "1", "risk_fund": {"name": "X", "amount": 10_000}}
    order |= wechatpay_double.paid(wechatpay_double.DETAIL) | {"time_range": {"start_time": "20261122181000"}}
    running = order | {"state": "DOING", "state_description": "USER_CONFIRM", "package": "DJI"}
    payment: dict[str, Any] = {
        "out_trade_no": "K3Y",
        "transaction_id": "4200",
        "trade_state": "SUCCESS",
        "prepay_id": "wx",
    }
    payment |= {"amount": {"total": 1234, "payer_total": 1234, "refund": 100}, "status": "SUCCESS", "refund_id": "5"}
    payment |= {"out_refund_no": "R3F", "refund_status": "SUCCESS"}
    permission = {"authorization_state": "AVAILABLE", "authorization_code": "AG", "openid": wechatpay_double.OPENID}
    complaint = {"complaint_id": "d_1", "complaint_state": "PENDING", "complaint_order_info": []}
    bill = {"hash_type": "SHA1", "hash_value": "aa", "download_url": "http://127.0.0.1:9/bill"}
    return [
        *_everywhere(("agreement", "revoke", "begin"), permission | {"apply_permissions_token": "T"}),
        *_everywhere(("hold", "open", "release", "finish"), running),
        *_everywhere(("debit", "asked", "close", "elsewhere", "reduce", "nudge"), order),
        *_everywhere(("pay", "refund", "refunded"), payment),
        *_everywhere(("statement",), bill),
        *_everywhere(("dispute",), complaint),
        _written("asked", {"code": "RESOURCE_NOT_EXISTS", "message": "no"}, status=404),
        _written("debit", b"<html>", status=502, signed=False),
        _written("asked", b'{"state":"DO', signed=True),
    ]


def seeds_of_stripe() -> list[bytes]:
    """The same, of Stripe."""
    paid = intent("succeeded")
    setup = {"id": "seti_1", "customer": "cus_1", "status": "succeeded", "metadata": {"farebox_key": "AG"}}
    setup |= {"payment_method": {"id": "pm_1", "customer": "cus_1", "card": {"exp_month": 12, "exp_year": 2030}}}
    source = {"id": "ch", "object": "charge", "amount": 1250, "currency": "eur", "payment_intent": paid}
    moved = {"id": "txn", "type": "charge", "amount": 1250, "fee": 30, "currency": "eur", "created": 1790000000}
    refund = {"id": "re_1", "amount": 100, "currency": "eur", "status": "succeeded", "metadata": {"farebox_key": "R3F"}}
    dispute = {"id": "d_1", "status": "lost", "amount": 5, "currency": "eur", "payment_intent": "pi_1"}
    declined = {"error": {"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds"}}
    declined["error"]["payment_intent"] = intent("requires_payment_method")  # type: ignore[assignment]  # As Stripe does.
    return [
        *_everywhere(("agreement", "begin", "revoke"), setup),
        *_everywhere(
            ("debit", "prepare", "asked", "close", "pay", "reduce", "hold", "open", "finish", "release"), paid
        ),
        *_everywhere(("refund", "refunded"), {"data": [refund], "has_more": False}, refund),
        *_everywhere(("statement",), {"data": [moved | {"source": source}], "has_more": False}),
        *_everywhere(("dispute",), dispute),
        *_everywhere(("check",), {"livemode": False, "data": []}),
        _written("debit", declined, status=402),
        _written("asked", {"error": {"code": "resource_missing"}}, status=404),
        _written("debit", b"<html>", status=400),
    ]


def seeds_of_sandbox() -> list[bytes]:
    """The same, of the sandbox."""
    debit = {"key": "K3Y", "ref": "r", "state": "paid", "currency": "CNY", "amount_minor": 1234, "paid_minor": 1234}
    hold = {"key": "H0LD", "ref": "r", "state": "open", "cap_minor": 9, "expires_at": "2026-11-22T10:00:00Z"}
    line = {"kind": "debit", "key": "K", "ref": "r", "amount_minor": 5, "fee_minor": 0, "currency": "CNY"}
    return [
        *_everywhere(("agreement", "begin"), {"key": "AG", "ref": "r", "state": "active", "action_url": "http://x"}),
        *_everywhere(("hold", "open", "release", "finish"), hold),
        *_everywhere(("debit", "asked", "close", "pay", "nudge"), debit),
        *_everywhere(("refund", "refunded"), {"key": "R3F", "ref": "r", "state": "paid", "amount_minor": 100}),
        *_everywhere(("statement",), [line | {"at": "2026-11-21T10:00:00Z"}]),
        *_everywhere(("check",), {"terms": {"holds": "optional"}}),
        _written("debit", {"error": {"code": "CAP_EXCEEDED", "message": "no", "cap_minor": 5}}, status=422),
    ]


WORDS = (
    *(f"call: {name}\n" for name in CALLS),
    *("status: 429", "status: 500", "status: 204", "status: 302", "Retry-After: 1e400", "Retry-After: nan"),
    *("Content-Encoding: gzip", "9223372036854775807", "99999999999999", "1e400", "\\u0000", "null", "[[[[", "----"),
    *("TRADE_CLOSED", "USER_PAYING", "requires_capture", "requires_action", "processing", "declined", "closed"),
)
DOORS = (
    Door("alipay-answer", partial(enter, "alipay"), seeds_of_alipay, 250, WORDS),
    Door("preauth-answer", partial(enter, "preauth"), seeds_of_alipay, 250, WORDS),
    Door("wechatpay-answer", partial(enter, "wechatpay"), seeds_of_wechatpay, 300, WORDS),
    Door("stripe-answer", partial(enter, "stripe"), seeds_of_stripe, 800, WORDS),
    Door("sandbox-answer", partial(enter, "sandbox"), seeds_of_sandbox, 800, WORDS),
)
