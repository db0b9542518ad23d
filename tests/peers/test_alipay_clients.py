"""Alipay clients that nobody here wrote drive the simulator's face as merchants: a journey for each of them."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import pytest
from aiohttp import web
from alipay import AliPay, DCAliPay
from alipay.exceptions import AliPayValidationError
from peer_tools import Workbench, node_clients, run, workbench

from service.lab.provider.signatures import new_key, public_half

APP_ID = "2021000000000001"
ZHIMA, FUND = "zhima.credit.payafteruse.", "alipay.fund.auth."
ZHIMA_TERMS = {"provider_retries": True, "hold_needed": True}
PREAUTH = {"hold_needed": True, "new_key_after_decline": False}
SECONDS = 20


class Merchant:
    """A merchant with `python-alipay-sdk`, and the address for his notifications; `given` are the provider's keys, or
    certificates."""

    def __init__(self, bench: Workbench, key: str, given: dict[str, Any]) -> None:
        if given["app_certificate"]:
            issued = (given["app_certificate"], given["certificates"][0], given["root_certificates"])
            self.client = DCAliPay(APP_ID, key, *issued)
        else:
            self.client = AliPay(APP_ID, app_private_key_string=key, alipay_public_key_string=given["public_keys"][0])
        self.client._gateway = bench.url + "/gateway.do"
        self.forms: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    async def call(self, method: str, **content: Any) -> Any:
        return await self.do(self.client.server_api, method, content)

    async def do(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return await asyncio.to_thread(function, *arguments, **named)

    async def take(self, request: web.BaseRequest) -> web.Response:
        self.forms.put_nowait(dict(parse_qsl((await request.read()).decode())))
        return web.Response(text="success")

    async def notice(self, status: str, field: str = "trade_status") -> dict[str, str]:
        async with asyncio.timeout(SECONDS):
            while (form := await self.forms.get()).get(field) != status:
                pass
        return form


@pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning")  # What the client asks pyOpenSSL for.
@pytest.mark.parametrize("certificates", [False, True])
async def test_a_python_client_signs_orders_debits_queries_refunds_and_reads_a_notification(
    certificates: bool,
) -> None:
    async with workbench() as bench:
        merchant, runner = await opened(bench, certificates=certificates)
        try:
            number = await debited(bench, merchant)
            trade = await merchant.do(merchant.client.api_alipay_trade_query, out_trade_no=number)
            assert (trade["trade_status"], trade["total_amount"]) == ("TRADE_SUCCESS", "12.34")
            form = await merchant.notice("TRADE_SUCCESS")
            signature = form.pop("sign")
            assert (form.pop("alipay_cert_sn", "") != "") == certificates
            assert (form["out_trade_no"], form["total_amount"]) == (number, "12.34")
            assert merchant.client.verify(dict(form), signature)
            assert not merchant.client.verify({**form, "total_amount": "0.01"}, signature)
            asked = {"out_trade_no": number, "out_request_no": "refund_1"}
            for change in ("Y", "N"):
                told = await merchant.do(merchant.client.api_alipay_trade_refund, "2.34", **asked)
                assert (told["fund_change"], told["refund_fee"]) == (change, "2.34")
            told = await merchant.do(merchant.client.api_alipay_trade_fastpay_refund_query, "refund_1", None, number)
            assert (told["refund_status"], told["refund_amount"]) == ("REFUND_SUCCESS", "2.34")
        finally:
            await runner.cleanup()
        books = await bench.call("GET", "/books")
        assert books["problems"] == []
        assert (books["accounts"][0]["paid_minor"], books["accounts"][0]["refunded_minor"]) == (1234, 234)


async def test_a_python_client_debits_what_a_rider_has_frozen_and_unfreezes_the_rest() -> None:
    async with workbench() as bench:
        merchant, runner = await opened(bench, terms=PREAUTH)
        try:
            numbers = {"out_order_no": "auth_py_1", "out_request_no": "freeze_py_1"}
            freeze = {"order_title": "骑行", "amount": "30.00", "product_code": "PRE_AUTH_ONLINE"}
            await confirmed(bench, merchant.client.client_api(f"{FUND}order.app.freeze", {**numbers, **freeze}))
            seen = await merchant.call(f"{FUND}operation.detail.query", **numbers, operation_type="FREEZE")
            assert (seen["order_status"], seen["rest_amount"]) == ("AUTHORIZED", "30.00")
            form = await merchant.notice("fund_auth_freeze", "notify_type")
            signature = form.pop("sign")
            assert (form["auth_no"], form["out_order_no"]) == (seen["auth_no"], "auth_py_1")
            assert merchant.client.verify(dict(form), signature)
            pays = {"auth_no": seen["auth_no"], "buyer_id": seen["payer_user_id"], "product_code": "PREAUTH_PAY"}
            pays |= {"out_trade_no": "ride_py_1", "total_amount": "12.34", "subject": "骑行 {}"}
            paid = await merchant.call("alipay.trade.pay", **pays, auth_confirm_mode="NOT_COMPLETE")
            assert (paid["code"], paid["total_amount"]) == ("10000", "12.34")
            seen = await merchant.call(f"{FUND}operation.detail.query", **numbers, operation_type="FREEZE")
            assert (seen["total_pay_amount"], seen["rest_amount"]) == ("12.34", "17.66")
            back = {"auth_no": seen["auth_no"], "out_request_no": "unfreeze_py_1", "remark": "ride over"}
            for _ in range(2):
                told = await merchant.call(f"{FUND}order.unfreeze", **back, amount="17.66")
                assert (told["code"], told["status"]) == ("10000", "SUCCESS")
            seen = await merchant.call(f"{FUND}operation.detail.query", **numbers, operation_type="FREEZE")
            assert (seen["order_status"], seen["rest_amount"]) == ("FINISH", "0.00")
        finally:
            await runner.cleanup()
        books = await bench.call("GET", "/books")
        assert (books["problems"], books["accounts"][0]["paid_minor"]) == ([], 1234)


async def test_a_python_client_has_a_rider_pay_reads_his_complaint_and_the_bill() -> None:
    async with workbench() as bench:
        merchant, runner = await opened(bench, terms=PREAUTH)
        try:
            await confirmed(bench, merchant.client.api_alipay_trade_app_pay("骑行", "app_py_1", "2.50"))
            trade = await merchant.do(merchant.client.api_alipay_trade_query, "app_py_1")
            assert (trade["trade_status"], trade["total_amount"]) == ("TRADE_SUCCESS", "2.50")
            form = await merchant.notice("TRADE_SUCCESS")
            assert (form["out_trade_no"], form["trade_no"]) == ("app_py_1", trade["trade_no"])
            await bench.call("POST", "/disputes", {"account_id": "shop", "debit": "app_py_1", "kind": "complaint"})
            form = await merchant.notice("alipay.merchant.tradecomplain.changed", "msg_method")
            named = msgspec.json.decode(form["biz_content"])
            complaint = await merchant.call(
                "alipay.merchant.tradecomplain.query", complain_event_id=named["complain_event_id"]
            )
            assert (complaint["status"], complaint["merchant_order_no"]) == ("MERCHANT_PROCESSING", "app_py_1")
        finally:
            await runner.cleanup()
        asked = {"bill_type": "trade", "bill_date": complaint["gmt_create"][:10]}
        clock = await bench.call("GET", "/clock")
        later = datetime.fromisoformat(clock["now"]) + timedelta(days=1)
        await bench.call("PUT", "/clock", {"now": later, "speed": 0})
        told = await merchant.call("alipay.data.dataservice.bill.downloadurl.query", **asked)
        with zipfile.ZipFile(BytesIO(await bench.file(told["bill_download_url"]))) as bill:
            rows = bill.read(bill.namelist()[0]).decode("gb18030").splitlines()
        assert [row.split(",")[1].strip() for row in rows if trade["trade_no"] in row] == ["app_py_1"]


async def test_a_python_client_does_not_believe_a_wrong_signature_and_is_not_believed_with_one() -> None:
    async with workbench() as bench:
        merchant, runner = await opened(bench)
        await runner.cleanup()
        query = (merchant.client.api_alipay_trade_query, "nobody")
        assert (await merchant.do(*query))["sub_code"] == "ACQ.TRADE_NOT_EXIST"
        for kind in ("bad_signature", "rotated_key"):
            await bench.call("POST", "/script", [{"kind": kind}])
            with pytest.raises(AliPayValidationError):
                await merchant.do(*query)
        await bench.call("POST", "/keys?account=shop", {})
        with pytest.raises(AliPayValidationError):
            await merchant.do(*query)
        keys = await bench.call("GET", "/keys?account=shop")
        newest, older = keys["public_keys"]
        assert newest != older
        thief = Merchant(bench, new_key(), keys)
        told = await thief.do(thief.client.api_alipay_trade_query, "nobody")
        assert (told["code"], told["sub_code"]) == ("40002", "isv.invalid-signature")


@pytest.mark.parametrize("certificates", [False, True])
async def test_alipays_own_node_client_signs_orders_debits_queries_refunds_and_reads_notifications(
    certificates: bool,
) -> None:
    node, folder = await node_clients()
    async with workbench() as bench:
        key = new_key()
        credentials = {"account": "shop", "appId": APP_ID, "privateKey": key, "publicKey": public_half(key)}
        stdin = msgspec.json.encode({**credentials, "certificates": certificates})
        code, said = await run(node, "alipay.mjs", bench.url, cwd=folder, told=stdin)
        assert code == 0, said
        told = msgspec.json.decode(said)
        assert told["signed"]["resultStatus"] == "9000"
        assert told["agreement"]["agreementStatus"] == "VALID"
        assert told["paid"]["asyncPayApplyStatus"] == "S"
        assert (told["trade"]["tradeStatus"], told["trade"]["totalAmount"]) == ("TRADE_SUCCESS", "12.34")
        assert told["trade"]["subject"] == '骑行 "{"'
        assert (told["refund"]["fundChange"], told["refunded"]["refundStatus"]) == ("Y", "REFUND_SUCCESS")
        assert told["finished"]["orderStatus"] == "TRADE_FINISHED"
        assert told["refused"]["subCode"] == "ACQ.TRADE_NOT_EXIST"
        assert [notice["believed"] for notice in told["notices"]] == [True] * 5
        assert [notice["forged"] for notice in told["notices"]] == [False] * 5
        kinds = {notice["form"].get("msg_method") or notice["form"]["notify_type"] for notice in told["notices"]}
        assert kinds == {f"{ZHIMA}creditagreement.changed", f"{ZHIMA}creditbizorder.changed", "trade_status_sync"}
        assert (await bench.call("GET", "/books"))["problems"] == []


async def opened(
    bench: Workbench, *, certificates: bool = False, terms: Mapping[str, bool] = ZHIMA_TERMS
) -> tuple[Merchant, web.ServerRunner]:
    """An account at the face, its merchant, and the server of his notifications."""
    key = new_key()
    account = {
        "account_id": "shop",
        "face": "alipay",
        "alipay": {"app_id": APP_ID, "public_key": public_half(key), "certificates": certificates},
        "terms": terms,
    }
    await bench.call("PUT", "/accounts", account)
    merchant = Merchant(bench, key, await bench.call("GET", "/keys?account=shop"))
    runner = web.ServerRunner(web.Server(merchant.take, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await bench.call("PUT", "/accounts", account | {"notify_url": url})
    return merchant, runner


async def confirmed(bench: Workbench, order_string: str) -> None:
    """The rider agrees to what the merchant's app hands over."""
    told = await bench.call("POST", "/alipay/rider?answer=confirm&rider=rider", order_string)
    assert told["resultStatus"] == "9000", told


async def debited(bench: Workbench, merchant: Merchant) -> str:
    """A rider signs, rides and is debited; the number of the trade."""
    asked = {"out_agreement_no": "agr_1", "zm_service_id": "2020", "category_id": "bike", "external_logon_id": "rider"}
    order_string = merchant.client.client_api(f"{ZHIMA}creditagreement.sign", asked)
    assert (await bench.call("POST", "/alipay/rider?answer=confirm", order_string))["resultStatus"] == "9000"
    agreement = await merchant.call(f"{ZHIMA}creditagreement.query", out_agreement_no="agr_1")
    assert agreement["agreement_status"] == "VALID"
    order = await merchant.call(
        f"{ZHIMA}creditbizorder.order",
        credit_agreement_id=agreement["credit_agreement_id"],
        out_order_no="order_py_1",
        subject="骑行",
        order_amount="30.00",
    )
    number = str(order["credit_biz_order_id"])
    paid = await merchant.call(
        "alipay.trade.pay",
        out_trade_no=number,
        auth_code=number,
        scene="ZHIMA_CREDIT_CODE",
        product_code="GENERAL_WITHHOLDING",
        is_async_pay=True,
        query_options=["async_pay_info"],
        total_amount="12.34",
        subject="骑行 {}",
    )
    assert (paid["code"], paid["async_pay_apply_status"]) == ("10000", "S")
    return number
