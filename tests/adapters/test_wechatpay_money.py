"""Payments that the rider makes himself, refunds, and the day's bill: what is asked, and what is believed."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from wechatpay_double import (
    APPID,
    DETAIL,
    MCHID,
    OPENID,
    ORDERS,
    REF,
    REQUEST,
    Canned,
    Double,
    key_of,
    paid,
    provider_at,
    settings_of,
)

from service.adapters.providers.port import (
    AgreementRef,
    HoldRef,
    Provider,
    RefundRef,
    RefundRequest,
    Statement,
    StatementRow,
)
from service.adapters.providers.rsa import verified
from service.adapters.providers.wechatpay import statements
from service.billing.outcomes import (
    BARRED_FOR,
    Accepted,
    AlreadyDone,
    Barred,
    Closed,
    Conflict,
    Declined,
    MiniProgram,
    NeedsRider,
    NotFound,
    Outcome,
    Part,
    Postponed,
    Rejected,
    Succeeded,
    Unknown,
)

pytest_plugins = ["wechatpay_fixtures"]

JSAPI, REFUNDS, BILL = "/v3/pay/transactions/jsapi", "/v3/refund/domestic/refunds", "/v3/bill/tradebill"
BY_KEY = "/v3/pay/transactions/out-trade-no/K3Y"
EXTRA = msgspec.structs.replace(REQUEST, hold=None)
OWN = msgspec.structs.replace(REF, hold=None)
PAYMENT = {"out_trade_no": "K3Y", "transaction_id": "4200", "amount": {"total": 1234, "currency": "CNY"}}
BACK = RefundRequest("B4CK", msgspec.structs.replace(REF, provider_ref="4200"), 234, "CNY", "goodwill")
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def nothing_begun(wechat: Double) -> None:
    """No payment of the rider's own was begun under our key, and none under the next number."""
    for number in (BY_KEY, f"{BY_KEY}_B"):
        wechat.refuses(number, "ORDER_NOT_EXIST", 404)


async def test_a_rider_approves_a_payment_with_signed_parameters(wechat: Double, score: Provider) -> None:
    wechat.says(JSAPI, {"prepay_id": "wx2014"})
    for ask in (score.request_payment, score.debit):  # Neither moves anything.
        asked = await ask(EXTRA)
        assert isinstance(asked, NeedsRider) and isinstance(asked.action, MiniProgram)
        assert asked.action.app_id == APPID
        given = asked.action.extra_data
        assert (given["package"], given["signType"]) == ("prepay_id=wx2014", "RSA")
        content = f"{APPID}\n{given['timeStamp']}\n{given['nonceStr']}\nprepay_id=wx2014\n"
        assert verified(key_of("merchant").public_key(), content, given["paySign"])
    assert wechat.last(JSAPI) == {
        "appid": APPID,
        "mchid": MCHID,
        "description": "Ride 7",
        "out_trade_no": "K3Y",
        "notify_url": "https://example.test/notify",
        "amount": {"total": 1234, "currency": "CNY"},
        "payer": {"openid": OPENID},
    }
    euro = await score.request_payment(msgspec.structs.replace(EXTRA, currency="EUR"))
    assert isinstance(euro, Rejected)


async def test_a_payment_needs_an_openid(wechat: Double, score: Provider, tmp_path: Path) -> None:
    unsigned = msgspec.structs.replace(EXTRA, agreement=AgreementRef("AG"))
    permission = "/v3/payscore/permissions/authorization-code/AG"
    wechat.says(permission, {"authorization_state": "UNBINDUSER"})
    assert await score.request_payment(unsigned) == Rejected("OPENID_UNKNOWN")
    wechat.says(permission, Canned({}, how="html"))
    assert await score.request_payment(unsigned) == Postponed(timedelta(seconds=5))
    async with provider_at(wechat.url, settings_of(tmp_path, need_user_confirm=True)) as confirming:
        beside = msgspec.structs.replace(unsigned, beside=HoldRef("H0LD"))
        wechat.says(ORDERS, {"out_order_no": "H0LD", "state": "CREATED"})
        for nameless in (unsigned, beside):
            refused = await confirming.request_payment(nameless)
            assert isinstance(refused, Rejected) and refused.code == "OPENID_UNKNOWN" and refused.message
        wechat.says(ORDERS, Canned({}, how="html"))
        assert await confirming.request_payment(beside) == Postponed(timedelta(seconds=5))
        wechat.says(ORDERS, {"out_order_no": "H0LD", "state": "DONE", "openid": "o-confirmed"})
        wechat.says(JSAPI, {"prepay_id": "wx2014"})
        assert isinstance(await confirming.request_payment(beside), NeedsRider)
        assert wechat.last(JSAPI)["payer"] == {"openid": "o-confirmed"}


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("ORDERPAID", AlreadyDone()),
        ("ORDER_CLOSED", Closed("ORDER_CLOSED")),
        ("OUT_TRADE_NO_USED", Conflict("OUT_TRADE_NO_USED")),
        ("APPID_MCHID_NOT_MATCH", Barred(BARRED_FOR, "APPID_MCHID_NOT_MATCH", "no")),
        ("ACCOUNT_ERROR", Declined(False, "ACCOUNT_ERROR", "no")),
        ("TRADE_ERROR", Unknown("code TRADE_ERROR")),
        ("QUANTUM", Unknown("code QUANTUM")),
    ],
)
async def test_each_refusal_of_a_payment(wechat: Double, score: Provider, code: str, meaning: Outcome) -> None:
    wechat.refuses(JSAPI, code)
    assert await score.request_payment(EXTRA) == meaning


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ({"trade_state": "SUCCESS"}, Succeeded(1234, "4200")),
        ({"trade_state": "REFUND"}, Succeeded(1234, "4200")),
        ({"trade_state": "NOTPAY"}, NeedsRider("NOTPAY")),
        ({"trade_state": "NOTPAY", "amount": None}, NeedsRider("NOTPAY")),
        ({"trade_state": "NOTPAY", "amount": {"total": 1000}}, Conflict("total 1000")),
        ({"trade_state": "SUCCESS", "amount": {"total": 1000}}, Succeeded(1000, "4200")),
        ({"trade_state": "USERPAYING"}, NeedsRider("USERPAYING")),
        ({"trade_state": "PAYERROR"}, NeedsRider("PAYERROR")),
        ({"trade_state": "CLOSED"}, Closed("CLOSED")),
        ({"trade_state": "REVOKED"}, Closed("REVOKED")),
        ({"trade_state": "QUANTUM"}, Unknown("trade_state QUANTUM")),
        ({"trade_state": "SUCCESS", "amount": None}, Unknown("paid, with an amount that can't be read")),
        ({"trade_state": "SUCCESS", "transaction_id": ""}, Unknown("paid, with an amount that can't be read")),
        ({"trade_state": "SUCCESS", "out_trade_no": "B"}, Unknown("the answer is about another number")),
    ],
)
async def test_each_state_of_a_payment(wechat: Double, score: Provider, said: dict[str, Any], meaning: Outcome) -> None:
    wechat.says(BY_KEY, PAYMENT | said)
    assert await score.get_debit(OWN) == meaning
    assert wechat.last(BY_KEY) == {"mchid": MCHID}


async def test_a_payment_that_was_not_made_is_closed(wechat: Double, score: Provider) -> None:
    assert await score.get_debit(OWN) == NotFound()
    wechat.says(f"{BY_KEY}/close", Canned(None, 204))
    for closing in (score.close_debit(OWN), score.settle_elsewhere(OWN, REQUEST.ended_at or datetime.now(UTC))):
        assert await closing == Closed()
    assert await score.reduce_debit(OWN, 0) == Closed()
    assert isinstance(await score.reduce_debit(OWN, 5), Rejected)
    assert isinstance(await score.nudge_debit(OWN), Rejected)
    wechat.refuses(f"{BY_KEY}/close", "ORDERPAID")
    assert await score.close_debit(OWN) == AlreadyDone()


async def test_a_refund_names_the_payment_that_can_give_it(wechat: Double, score: Provider) -> None:
    wechat.order(**paid(DETAIL | {"amount": 234}, DETAIL | {"amount": 1000, "transaction_id": "4201"}))
    wechat.says(REFUNDS, {"out_refund_no": "B4CK", "refund_id": "50", "status": "PROCESSING"})
    assert await score.refund(BACK) == Accepted("50")
    assert wechat.last(REFUNDS) == {
        "transaction_id": "4200",
        "out_refund_no": "B4CK",
        "reason": "goodwill",
        "notify_url": "https://example.test/notify",
        "amount": {"refund": 234, "total": 234, "currency": "CNY"},
    }
    await score.refund(msgspec.structs.replace(BACK, amount_minor=900))
    told = wechat.last(REFUNDS)
    assert (told["transaction_id"], told["amount"]["total"]) == ("4201", 1000)
    refused = await score.refund(msgspec.structs.replace(BACK, amount_minor=1100))
    assert isinstance(refused, Rejected) and refused.code == "NO_SUCH_PAYMENT"
    wechat.order(state="DOING", collection={"state": "USER_PAYING", "total_amount": 1234, "paying_amount": 1234})
    sent = wechat.paths().count(REFUNDS)
    assert await score.refund(BACK) == Postponed(timedelta(minutes=10)), "it is shown as it was before it was paid"
    assert wechat.paths().count(REFUNDS) == sent
    await score.refund(msgspec.structs.replace(BACK, debit=msgspec.structs.replace(OWN, provider_ref="77")))
    told = wechat.last(REFUNDS)
    assert (told["transaction_id"], told["amount"]["total"]) == ("77", 1234)
    assert isinstance(await score.refund(msgspec.structs.replace(BACK, debit=OWN)), Rejected)
    wechat.says("/v3/payscore/serviceorder", Canned({}, how="html"))
    assert await score.refund(BACK) == Postponed(timedelta(seconds=5))  # Nothing was sent: again.
    wechat.refuses("/v3/payscore/serviceorder", "RESOURCE_NOT_EXISTS", 404)
    assert await score.refund(BACK) == Rejected("ORDER_NOT_EXIST")


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ({"status": "SUCCESS", "amount": {"refund": 234}}, Succeeded(234, "50")),
        ({"status": "SUCCESS"}, Unknown("refunded, without an amount")),
        ({"status": "PROCESSING"}, Accepted("50")),
        ({"status": "ABNORMAL"}, Accepted("50", "ABNORMAL")),
        ({"status": "CLOSED"}, Closed("CLOSED")),
        ({"status": "QUANTUM"}, Unknown("refund status QUANTUM")),
        ({"status": "SUCCESS", "out_refund_no": "B"}, Unknown("the answer is about another number")),
    ],
)
async def test_each_state_of_a_refund(wechat: Double, score: Provider, said: dict[str, Any], meaning: Outcome) -> None:
    wechat.order(**paid(DETAIL))
    answer = {"out_refund_no": "B4CK", "refund_id": "50"} | said
    wechat.says(REFUNDS, answer)
    wechat.says(f"{REFUNDS}/B4CK", answer)
    assert await score.refund(BACK) == meaning
    assert await score.get_refund(RefundRef("B4CK", BACK.debit)) == meaning


@pytest.mark.parametrize(
    ("code", "status", "meaning"),
    [
        ("NOT_ENOUGH", 403, Declined(True, "NOT_ENOUGH", "no")),
        ("USER_ACCOUNT_ABNORMAL", 403, Declined(False, "USER_ACCOUNT_ABNORMAL", "no")),
        ("FREQUENCY_LIMITED", 403, Postponed(MINUTE)),
        ("FREQUENCY_LIMITED", 429, Postponed(MINUTE)),
        ("RESOURCE_NOT_EXISTS", 404, NotFound()),
        ("INVALID_REQUEST", 400, Unknown("code INVALID_REQUEST")),
        ("SYSTEM_ERROR", 500, Unknown("HTTP 500")),
    ],
)
async def test_each_refusal_of_a_refund(
    wechat: Double, score: Provider, code: str, status: int, meaning: Outcome
) -> None:
    wechat.order(**paid(DETAIL))
    wechat.refuses(REFUNDS, code, status)
    assert await score.refund(BACK) == meaning


TOO_MUCH, TOO_LATE = "申请退款金额超过订单可退金额", "订单已经超过可退款的最大期限"
OTHERWISE = "订单金额或退款金额与之前请求不一致，请核实后再试"


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        (TOO_MUCH, Rejected("INVALID_REQUEST", TOO_MUCH)),
        (TOO_LATE, Rejected("INVALID_REQUEST", TOO_LATE)),
        (OTHERWISE, Conflict("INVALID_REQUEST")),
    ],
)
async def test_what_can_never_be_given_back_is_not_asked_about_for_ever(
    wechat: Double, score: Provider, said: str, meaning: Outcome
) -> None:
    wechat.order(**paid(DETAIL))
    wechat.refuses(REFUNDS, "INVALID_REQUEST", message=said)
    assert await score.refund(BACK) == meaning


async def test_an_order_paid_in_parts_tells_each_payment(wechat: Double, score: Provider) -> None:
    wechat.order(**paid(DETAIL | {"amount": 234}, DETAIL | {"amount": 1000, "transaction_id": "4201"}))
    told = await score.get_debit(BACK.debit)
    assert told == Succeeded(1234, "4200", (Part("4200", 234), Part("4201", 1000)), last=True)


async def test_pay_score_itself_records_how_riders_pay(score: Provider) -> None:
    assert isinstance(await score.report_performance(REF, "violated", "key"), Rejected)


HEADER = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类,应结订单金额,"
    "代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,"
    "申请退款金额,费率备注"
)
SUMMARY = "总交易单数,应结订单总金额,退款总金额,手续费总金额\n`3,`1,`1,`0\n"


def row(**cells: str) -> str:
    """A row of a bill, made of its columns' names."""
    usual = {"交易时间": "2026-11-22 18:00:00", "微信订单号": "4200", "交易状态": "SUCCESS", "手续费": "0.07000"}
    usual |= {"订单金额": "12.34", "申请退款金额": "0.00", "货币种类": "CNY"}
    return ",".join(f"`{(usual | cells).get(name, '')}" for name in HEADER.split(","))


AUTO = row(交易类型="AUTH", 商户订单号="WX123", 商户数据包="wxzff|1564654|H0LD")
OWN_ROW = row(交易类型="JSAPI", 商户订单号="K3Y")
RETURNED = row(
    交易类型="AUTH", 交易状态="REFUND", 商户退款单号="B4CK", 申请退款金额="2.34", 订单金额="0.00", 手续费="-0.01000"
)
DAY, AT = date(2026, 11, 22), datetime(2026, 11, 22, 10, tzinfo=UTC)


def bill(*rows: str, header: str = HEADER, summary: str = SUMMARY) -> bytes:
    return ("\ufeff" + "\n".join((header, *rows)) + "\n" + summary).encode()


def hashed(body: bytes) -> str:
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()


def test_a_bills_rows_are_named_by_our_numbers() -> None:
    assert statements.unpacked(DAY, bill(AUTO, OWN_ROW, RETURNED)) == Statement(
        DAY,
        (
            StatementRow("debit", "H0LD", "4200", 1234, 7, "CNY", AT),
            StatementRow("debit", "K3Y", "4200", 1234, 7, "CNY", AT),
            StatementRow("refund", "B4CK", "4200", 234, -1, "CNY", AT),
        ),
    )
    assert statements.unpacked(DAY, bill()) == Statement(DAY, ())


def test_a_title_with_a_comma_spoils_no_bill() -> None:
    titled = row(交易类型="AUTH", 商户数据包="wxzff|1564654|H0LD", 商品名称='单车, "15" 分钟')
    read = statements.unpacked(DAY, bill(titled, OWN_ROW))
    assert isinstance(read, Statement) and [one.key for one in read.rows] == ["H0LD", "K3Y"]


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe",
        b"",
        b"<html>",
        bill(AUTO, summary=""),
        bill(AUTO, header="交易时间,微信订单号"),
        bill(row(交易类型="AUTH", 商户订单号="WX", 商户数据包="something else")),
        bill(row(交易类型="JSAPI")),
        bill(row(商户订单号="K", 交易状态="QUANTUM")),
        bill(row(商户订单号="K", 订单金额="12.345")),
        bill(row(商户订单号="K", 订单金额="0.00")),
        bill(row(商户订单号="K", 手续费="free")),
        bill(row(商户订单号="K", 交易时间="yesterday")),
        bill(row(交易状态="REFUND", 申请退款金额="1.00")),
        bill("`1,`2"),
    ],
)
def test_a_bill_that_can_not_be_read_whole_is_not_read(body: bytes) -> None:
    assert isinstance(statements.unpacked(DAY, body), Unknown)


async def test_a_bill_is_the_one_whose_hash_was_told(wechat: Double, score: Provider) -> None:
    body = bill(AUTO)
    url = f"{wechat.url}/v3/billdownload/file"
    told = {"download_url": f"{url}?token=abc", "hash_type": "SHA1", "hash_value": hashed(body)}
    wechat.files["/v3/billdownload/file"] = body
    wechat.says(BILL, told)
    statement = await score.statement(DAY)
    assert isinstance(statement, Statement) and len(statement.rows) == 1
    assert wechat.last(BILL) == {"bill_date": "2026-11-22", "bill_type": "ALL"}
    wechat.says(BILL, told | {"hash_value": "0" * 40})
    assert isinstance(await score.statement(DAY), Unknown)
    wechat.says(BILL, told | {"hash_type": "MD5"})
    assert isinstance(await score.statement(DAY), Unknown)
    for code in ("NO_STATEMENT_EXIST", "STATEMENT_CREATING", "PARAM_ERROR"):
        wechat.refuses(BILL, code)
        assert await score.statement(DAY) == NotFound()
    wechat.refuses(BILL, "NO_AUTH", 403)
    assert await score.statement(DAY) == Barred(BARRED_FOR, "NO_AUTH", "no")
    wechat.says(BILL, Canned(told, how="forged"))
    assert isinstance(await score.statement(DAY), Unknown)
