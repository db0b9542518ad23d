"""Alipay's notifications: whose they are, what they name, what is believed of them; and its bill of a day."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import web
from alipay_double import (
    APP_ID,
    ORDER_NO,
    SELLER_ID,
    Canned,
    Double,
    double,
    notice,
    provider_at,
    public_pem,
    settings_of,
    trade_notice,
)

from service.adapters.providers import open_provider
from service.adapters.providers.alipay import statements
from service.adapters.providers.port import (
    BadNotification,
    DisputeStatus,
    MerchantAccount,
    Notification,
    Provider,
    Statement,
)
from service.billing.agreements.standing import HoldStatus
from service.billing.outcomes import Barred, Closed, NotFound, Outcome, Succeeded, Unknown

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "signatures.json").read_bytes())
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
BILL = "alipay.data.dataservice.bill.downloadurl.query"


@pytest.fixture
async def zhima(tmp_path: Path) -> AsyncIterator[Provider]:
    async with provider_at("http://127.0.0.1:9", settings_of("zhima", tmp_path)) as it:
        yield it


def heard(provider: Provider, body: bytes) -> Notification:
    told = provider.parse_notification({}, body, NOW)
    assert isinstance(told, Notification), told
    assert (told.ack.status, told.ack.body) == (200, b"success")
    return told


def refused(provider: Provider, body: bytes) -> BadNotification:
    told = provider.parse_notification({}, body, NOW)
    assert isinstance(told, BadNotification), told
    return told


async def test_the_vendors_own_notification_is_heard(tmp_path: Path) -> None:
    vector = next(vector for vector in VECTORS if vector["name"] == "alipay-notify-trade_status_sync-rsa2")
    form = vector["form"]
    settings = settings_of("zhima", tmp_path, app_id=form["app_id"], seller_id=form["seller_id"])
    (tmp_path / "alipay.pem").write_text(vector["public_key_pem"])
    async with provider_at("http://127.0.0.1:9", settings) as provider:
        told = heard(provider, urlencode(form).encode())
        assert (told.notification_id, told.about, told.named_by) == (form["notify_id"], "debit", "key")
        assert (told.key, told.answer) == (form["out_trade_no"], Succeeded(10, form["trade_no"]))
        for name in form.keys() - {"sign_type"}:
            assert refused(provider, urlencode(form | {name: form[name] + "0"}).encode()).ack.status == 400


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({}, Succeeded(1234, "2026041022001400001234567890")),
        ({"trade_status": "TRADE_FINISHED"}, Succeeded(1234, "2026041022001400001234567890")),
        ({"trade_status": "WAIT_BUYER_PAY"}, Unknown("trade_status WAIT_BUYER_PAY")),
        ({"trade_status": "TRADE_CLOSED"}, Unknown("trade_status TRADE_CLOSED")),  # Paid before: given back.
        ({"trade_status": "QUANTUM"}, Unknown("trade_status QUANTUM")),
        ({"total_amount": "1e9999"}, Unknown("paid, with an amount that can't be read")),
        ({"total_amount": "-1.00"}, Unknown("paid, with an amount that can't be read")),
        ({"credit_pay_mode": "novel"}, Unknown("credit_pay_mode novel")),
        ({"refund_fee": "1.00"}, Unknown("trade_status TRADE_SUCCESS")),
    ],
)
async def test_each_state_of_a_trade_that_is_told(zhima: Provider, fields: dict[str, str], outcome: Outcome) -> None:
    told = heard(zhima, trade_notice(**fields))
    assert (told.about, told.key, told.named_by, told.answer) == ("debit", ORDER_NO, "hold_ref", outcome)


async def test_an_unpaid_trade_that_closed_is_told_apart(zhima: Provider) -> None:
    fields = {"notify_type": "trade_status_sync", "seller_id": SELLER_ID, "out_trade_no": "K3Y"}
    told = heard(zhima, notice(fields | {"trade_status": "TRADE_CLOSED"}))
    assert (told.key, told.named_by, told.answer) == ("K3Y", "key", Closed("TRADE_CLOSED"))


@pytest.mark.parametrize("further", ["_B", "_C", "_Z"])
async def test_a_payment_under_a_further_number_is_of_the_debit_whose_key_it_begins_with(
    zhima: Provider, further: str
) -> None:
    told = heard(zhima, trade_notice(out_trade_no=f"K3Y{further}"))
    assert (told.about, told.key, told.named_by) == ("debit", "K3Y", "key")
    assert isinstance(told.answer, Succeeded)


PAYMENT = "2026041022001400001234567890"
"""Alipay's number of the payment."""


async def test_a_refund_is_named_by_its_own_number_and_asked_about(zhima: Provider) -> None:
    for status in ("TRADE_SUCCESS", "TRADE_CLOSED"):
        told = heard(zhima, trade_notice(trade_status=status, out_biz_no="R3FUND", refund_fee="1.00"))
        assert (told.about, told.key, told.named_by, told.payment) == ("refund", "R3FUND", "key", PAYMENT)
        assert isinstance(told.answer, Unknown)


async def test_messages_of_the_app_make_us_ask(zhima: Provider) -> None:
    method = "zhima.credit.payafteruse."
    for name, content, about in (
        ("creditagreement.changed", {"out_agreement_no": "AG", "agreement_status": "VALID"}, "agreement"),
        ("creditbizorder.changed", {"out_order_no": "AG", "order_status": "TRADE_FINISHED"}, "hold"),
    ):
        fields = {"msg_method": method + name, "biz_content": json.dumps(content), "utc_timestamp": "1718860800"}
        for sign_type_signed in (False, True):
            told = heard(zhima, notice(fields, sign_type_signed=sign_type_signed))
            assert (told.about, told.key, told.notification_id) == (about, "AG", "n1")
            assert isinstance(told.answer, Unknown)
    nameless = refused(zhima, notice({"msg_method": method + "creditagreement.changed", "biz_content": "{"}))
    assert (nameless.ack.status, nameless.ack.body) == (200, b"success")


async def test_a_complaint_is_only_announced(zhima: Provider) -> None:
    fields = {"msg_method": "alipay.merchant.tradecomplain.changed", "biz_content": '{"complain_event_id": "C1"}'}
    told = heard(zhima, notice(fields, sign_type_signed=True))
    assert (told.about, told.key, told.dispute) == ("dispute", "C1", None)


TRADE = {"complain_event_id": "C1", "trade_no": "T1", "trade_amount": "12.34", "phone_no": "13800000000"}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (TRADE | {"status": "MERCHANT_PROCESSING"}, "opened"),
        (TRADE | {"status": "PLATFORM_PROCESSING"}, "opened"),
        (TRADE | {"status": "MERCHANT_FEEDBACKED"}, "opened"),
        (TRADE | {"status": "FINISHED"}, "resolved"),
        (TRADE | {"status": "CANCELLED"}, "resolved"),
        (TRADE | {"status": "OF_TOMORROW"}, None),
        (TRADE | {"status": "FINISHED", "trade_no": ""}, None),
        (TRADE | {"status": "FINISHED", "complain_event_id": "C2"}, None),
        (Canned({"code": "40004", "sub_code": "COMPLAIN_EVENT_NOT_EXIST"}), None),
        (Canned({"code": "40006", "sub_code": "isv.insufficient-isv-permissions"}), None),
        (Canned({"code": "10000", **TRADE, "status": "FINISHED"}, "forged"), None),
    ],
)
async def test_a_complaint_is_asked_for_by_its_number(tmp_path: Path, answer: Any, expected: str | None) -> None:
    async with double() as gateway, provider_at(gateway.url, settings_of("zhima", tmp_path)) as provider:
        gateway.says("alipay.merchant.tradecomplain.query", answer)
        told = await provider.get_dispute("C1")
        assert gateway.biz("alipay.merchant.tradecomplain.query") == {"complain_event_id": "C1"}
    if expected is None:
        assert isinstance(told, Unknown | Barred)
    else:
        assert told == (DisputeStatus("T1", "complaint", expected, 1234, "CNY", "C1"),)  # type: ignore[arg-type]  # A word of the table above.


@pytest.mark.parametrize(
    ("said", "found", "key", "named_by"),
    [
        ({"merchant_order_no": "K3Y"}, None, "K3Y", "key"),
        ({"merchant_order_no": "K3Y_B"}, None, "K3Y", "key"),  # The second number, once Alipay has closed the first.
        ({"merchant_order_no": ORDER_NO}, None, ORDER_NO, "hold_ref"),
        ({"merchant_order_no": "K3Y", "trade_no": ""}, None, "K3Y", "key"),
        ({}, {"trade_no": "T1", "out_trade_no": "K3Y"}, "K3Y", "key"),
        ({}, {"trade_no": "T1", "out_trade_no": ORDER_NO}, ORDER_NO, "hold_ref"),
        ({}, {"trade_no": "T2", "out_trade_no": "K3Y"}, "", "key"),
        ({}, Canned({"code": "20000", "sub_code": "isp.unknow-error"}), "", "key"),
    ],
)
async def test_a_complaint_names_its_trade_by_our_number_too(
    tmp_path: Path, said: dict[str, str], found: Any, key: str, named_by: Any
) -> None:
    """Of a trade that was never paid Alipay's number may be one that we never heard of."""
    async with double() as gateway, provider_at(gateway.url, settings_of("preauth", tmp_path)) as provider:
        complaint = TRADE | {"status": "MERCHANT_PROCESSING"} | said
        gateway.says("alipay.merchant.tradecomplain.query", complaint)
        if found is not None:
            gateway.says("alipay.trade.query", found)
        told = await provider.get_dispute("C1")
        trade = complaint["trade_no"]
        assert told == (DisputeStatus(trade, "complaint", "opened", 1234, "CNY", "C1", key=key, named_by=named_by),)
        if found is not None:
            assert gateway.biz("alipay.trade.query") == {"trade_no": "T1"}


async def test_a_freeze_is_believed_only_when_it_succeeded(zhima: Provider) -> None:
    fields = {
        "notify_type": "fund_auth_freeze",
        "out_order_no": "H0LD",
        "auth_no": "2026A",
        "operation_type": "FREEZE",
        "status": "SUCCESS",
        "total_freeze_amount": "100.00",
        "payee_user_id": SELLER_ID,
    }
    told = heard(zhima, notice(fields))
    assert (told.about, told.key, told.answer) == ("hold", "H0LD", HoldStatus("open", "2026A", 10_000))
    for changed in ({"status": "INIT"}, {"operation_type": "PAY"}, {"notify_type": "fund_auth_unfreeze"}):
        assert isinstance(heard(zhima, notice(fields | changed)).answer, Unknown)
    assert "another seller" in refused(zhima, notice(fields | {"payee_user_id": "2088"})).reason


@pytest.mark.parametrize(
    ("body", "reason", "status"),
    [
        (b"", "not a form", 400),
        (b'{"json": 1}', "not a form", 400),
        (b"\xff\xfe=1", "not a form", 400),
        (b"a=1&a=2", "not a form", 400),
        (b"&".join(b"a%d=1" % n for n in range(300)), "not a form", 400),
        ("subject=骑行".encode("gbk"), "not a form", 400),
        (b"subject=%C6%EF", "not a form", 400),
        (b"a=1", "the signature is wrong", 400),
        (trade_notice(key="somebody"), "the signature is wrong", 400),
        (trade_notice().replace(b"12.34", b"92.34"), "the signature is wrong", 400),
        (trade_notice(app_id="2021"), "another app", 400),
        (trade_notice(seller_id="2088"), "another seller", 400),
        (trade_notice(notify_id=""), "no id", 400),
        (notice({"notify_type": "trade_status_sync", "out_trade_no": "K3Y"}), "names no seller", 400),
        (notice({"notify_type": "weather"}), "'weather', which is not used", 200),
    ],
)
async def test_what_is_not_believed(zhima: Provider, body: bytes, reason: str, status: int) -> None:
    told = refused(zhima, body)
    assert reason in told.reason and told.ack.status == status


async def test_alipays_new_key_is_read_when_a_notification_needs_it(tmp_path: Path) -> None:
    settings = settings_of("zhima", tmp_path)
    provider = open_provider(MerchantAccount(1, "city", "alipay", "http://127.0.0.1:9", settings))
    body = trade_notice(key="new alipay")
    assert refused(provider, body).reason == "the signature is wrong"
    (tmp_path / "alipay.pem").write_text(public_pem("new alipay"))
    assert heard(provider, body).key == ORDER_NO
    assert refused(provider, trade_notice()).reason == "the signature is wrong"
    await provider.close()


# ------------------------------------------------------------------------------------------------- the bill of a day

HEAD = (
    "支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,门店编号,门店名称,操作员,终端号,对方账户,订单金额（元）,"
    "商家实收（元）,支付宝红包（元）,集分宝（元）,支付宝优惠（元）,商家优惠（元）,券核销金额（元）,券名称,商家红包消费金额（元）,"
    "卡消费金额（元）,退款批次号/请求号,服务费（元）,分润（元）,备注"
)


def row(kind: str = "交易", amount: str = "12.34", refund: str = "", fee: str = "-0.07", at: str = "00:30:00") -> str:
    cells = ["2026T", ORDER_NO, kind, "骑行, 费", "", f"2026-11-22 {at}", "", "", "", "", "x***", amount, *[""] * 9]
    return ",".join(f'"{cell}\t"' if "," in cell else f"{cell}\t" for cell in [*cells, refund, fee, "0.00", ""])


def bill(*rows: str, head: str = HEAD) -> bytes:
    text = "\r\n".join(["#支付宝业务明细查询", f"#账号：[{SELLER_ID}0156]", head, *rows, "#业务明细列表结束", ""])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("detail.csv", text.encode("gb18030"))
        archive.writestr("summary.csv", "#汇总\r\n门店编号,交易订单总笔数\r\n合计,2\r\n".encode("gbk"))
    return packed.getvalue()


def test_each_row_of_a_bill_is_read_exactly() -> None:
    read = statements.unpacked(date(2026, 11, 22), bill(row(), row("退款", "-2.00", "R1", "0.01", "23:59:59")))
    assert isinstance(read, Statement)
    assert [(r.kind, r.key, r.provider_ref, r.amount_minor, r.fee_minor, r.currency) for r in read.rows] == [
        ("debit", ORDER_NO, "2026T", 1234, 7, "CNY"),
        ("refund", "R1", "2026T", 200, -1, "CNY"),
    ]
    assert read.rows[0].occurred_at == datetime(2026, 11, 21, 16, 30, tzinfo=UTC)


@pytest.mark.parametrize("title", ["骑行, 费", '"骑行" 费', "骑行\u20ac\U00020000", ","])
def test_what_a_title_has_in_it_spoils_no_bill(title: str) -> None:
    """The operator's tariff is called so: one comma, or a sign that is not in GBK, made a whole day unreadable."""
    cells = row().replace('"骑行, 费\t"', f"{title}\t")
    read = statements.unpacked(date(2026, 11, 22), bill(cells, cells))
    assert isinstance(read, Statement) and [one.amount_minor for one in read.rows] == [1234, 1234]


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        bill("x" * 200_000),
        bill(row())[:-30],
        bill(row("其他")),
        bill(row(amount="12.345")),
        bill(row(amount="-12.34")),
        bill(row("退款", "-1.00")),
        bill(row(at="25:00:00")),
        bill(row().rpartition(",")[0]),
        bill(row(), head="支付宝交易号,商户订单号"),
    ],
)
def test_a_bill_with_anything_unreadable_is_not_believed(body: bytes) -> None:
    assert isinstance(statements.unpacked(date(2026, 11, 22), body), Unknown)


async def test_a_bill_is_downloaded_from_where_alipay_says(tmp_path: Path) -> None:
    files = {"/bill": bill(row())}

    async def file(request: web.BaseRequest) -> web.StreamResponse:
        body = files.get(request.path)
        return web.Response(status=404) if body is None else web.Response(body=body)

    runner = web.ServerRunner(web.Server(file, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    place = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with double() as gateway, provider_at(gateway.url, settings_of("zhima", tmp_path)) as provider:
        await _asked(gateway, provider, place)
    await runner.cleanup()


async def _asked(gateway: Double, provider: Provider, place: str) -> None:
    day = date(2026, 11, 22)
    gateway.says(BILL, {"bill_download_url": f"{place}/bill"})
    read = await provider.statement(day)
    assert isinstance(read, Statement) and len(read.rows) == 1
    assert gateway.biz(BILL) == {"bill_type": "trade", "bill_date": "2026-11-22"}
    gateway.says(BILL, {"bill_download_url": f"{place}/gone"})
    assert await provider.statement(day) == Unknown("HTTP 404")
    gateway.refuses(BILL, "BILL_NOT_EXIST")
    assert await provider.statement(day) == NotFound()
    gateway.says(BILL, Canned({"code": "10000"}))
    assert await provider.statement(day) == Unknown("the answer has another shape")
    assert gateway.asked[-1]["app_id"] == APP_ID
