"""The Alipay face of the simulator, over HTTP with real signatures."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import msgspec
import pytest
from alipay_shop import KEY, OTHER_KEY, ZHIMA, Shop, shop, signed

from service.lab.provider.alipay.signing import notice_content, request_content
from service.lab.provider.signatures import sign, verified

VECTORS = Path(__file__).parents[1] / "vectors" / "signatures.json"


def vector(name: str) -> Any:
    return next(one for one in msgspec.json.decode(VECTORS.read_bytes()) if one["name"] == name)


def test_a_real_notification_of_alipay_is_verified_and_no_other() -> None:
    real = vector("alipay-notify-trade_status_sync-rsa2")
    content = notice_content(real["form"])
    assert content == real["canonical"]
    assert verified(real["public_key_pem"], content.encode(), real["signature"])
    assert not verified(real["public_key_pem"], content.replace("0.10", "0.11").encode(), real["signature"])


def test_what_alipays_own_client_signed_is_what_the_gateway_reads() -> None:
    real = vector("alipay-request-zhima-trade-pay")
    assert request_content(real["params"] | {"sign": "x", "empty": ""}) == real["canonical"]
    assert verified(real["public_key_pem"], real["canonical"].encode(), real["signature"])


@pytest.mark.parametrize(
    ("change", "code", "sub_code"),
    [
        ({"app_id": "2021999999999999"}, "40002", "isv.invalid-app-id"),
        ({"app_id": ""}, "40001", "isv.missing-app-id"),
        ({"method": ""}, "40001", "isv.missing-method"),
        ({"method": "alipay.no.such"}, "40002", "isv.invalid-method"),
        ({"timestamp": ""}, "40001", "isv.missing-timestamp"),
        ({"timestamp": "2026-11-22T18:00:00Z"}, "40002", "isv.invalid-timestamp"),
        ({"version": ""}, "40001", "isv.missing-version"),
        ({"sign_type": "RSA"}, "40002", "isv.invalid-signature-type"),
        ({"charset": "klingon"}, "40002", "isv.invalid-charset"),
        ({"format": "XML"}, "40002", "isv.invalid-format"),
        ({"biz_content": "{"}, "40002", "isv.illegal-json"),
        ({"biz_content": '{"out_trade_no": 1}'}, "40002", "isv.invalid-parameter"),
    ],
)
async def test_the_gateway_says_what_is_wrong_with_a_request(change: dict[str, str], code: str, sub_code: str) -> None:
    async with shop() as it:
        params = signed("alipay.trade.query", {"out_trade_no": "x"}, change)
        told = await answered(it, params)
        assert (told["code"], told["sub_code"]) == (code, sub_code)


@pytest.mark.parametrize("where", ["sign", "biz_content", "another's key"])
async def test_a_request_that_its_merchant_did_not_sign_is_refused(where: str) -> None:
    async with shop() as it:
        params = signed("alipay.trade.query", {"out_trade_no": "x"})
        match where:
            case "sign":
                params["sign"] = "no base64 at all"
            case "biz_content":
                params["biz_content"] = '{"out_trade_no":"y"}'
            case _:
                params["sign"] = sign(OTHER_KEY, request_content(params).encode())
        told = await answered(it, params)
        assert (told["code"], told["sub_code"]) == ("40002", "isv.invalid-signature")


async def test_parameters_may_stand_in_the_address_and_in_gbk() -> None:
    async with shop() as it:
        params = signed("alipay.trade.query", {"out_trade_no": "x"}, {"charset": "GBK", "note": "骑行"})
        params["sign"] = sign(KEY, request_content(params).encode("gbk"))
        query = "&".join(f"{name}={quote_plus(value, encoding='gbk')}" for name, value in params.items())
        async with it.peer.session.get(f"{it.peer.url}/gateway.do?{query}") as answer:
            assert answer.charset == "GBK"
            assert "ACQ.TRADE_NOT_EXIST" in (await answer.read()).decode("gbk")


async def test_a_ride_from_the_signature_to_the_end_of_its_order() -> None:
    async with shop() as it:
        agreement = await it.agreement()
        told = await it.call(f"{ZHIMA}creditagreement.query", out_agreement_no="agr")
        assert (told["agreement_status"], told["credit_agreement_id"]) == ("VALID", agreement)
        order = await it.order(agreement, order_amount="30.00", amount_type="RISK_AMOUNT")
        number = order["credit_biz_order_id"]
        assert number.startswith("ZMCB") and order["order_status"] == "INIT"
        assert await it.status(number) == "ACQ.TRADE_NOT_EXIST"
        paid = await it.pay(number, "12.34")
        assert (paid["code"], paid["async_pay_apply_status"], paid["credit_pay_mode"]) == (
            "10000",
            "S",
            "creditAdvanceV2",
        )
        assert await it.status(number) == "TRADE_SUCCESS"
        for _ in range(2):
            asked = {"credit_biz_order_id": number, "out_request_no": "f1", "is_fulfilled": "true"}
            told = await it.call(f"{ZHIMA}creditbizorder.finish", **asked)
            assert (told["code"], told["order_status"]) == ("10000", "TRADE_FINISHED")
        told = await it.call(f"{ZHIMA}creditbizorder.query", out_order_no="order_01")
        assert (told["order_status"], told["total_amount"]) == ("TRADE_FINISHED", "30.00")
        assert told["total_credit_pay_amount"] == "12.34"


async def test_after_the_end_of_an_order_nothing_can_be_debited() -> None:
    async with shop() as it:
        number = await it.ordered()
        asked = {"credit_biz_order_id": number, "out_request_no": "f1", "is_fulfilled": "false"}
        assert (await it.call(f"{ZHIMA}creditbizorder.finish", **asked))["order_status"] == "TRADE_CLOSED"
        assert (await it.pay(number))["sub_code"] == "ACQ.TRADE_HAS_CLOSE"


async def test_a_trade_is_paid_once_whatever_is_sent_again() -> None:
    async with shop() as it:
        number = await it.ordered()
        await it.balance(0)
        for _ in range(2):
            assert (await it.pay(number))["async_pay_apply_status"] == "S"
            assert await it.status(number) == "WAIT_BUYER_PAY"
        assert (await it.pay(number, "10.01"))["sub_code"] == "ACQ.CONTEXT_INCONSISTENT"
        await it.balance(5000)
        await it.later(timedelta(hours=1))
        assert await it.status(number) == "TRADE_SUCCESS"
        assert (await it.pay(number))["sub_code"] == "ACQ.TRADE_HAS_SUCCESS"
        assert (await it.pay("second", auth_code=number))["sub_code"] == "ACQ.ACCESS_FORBIDDEN"
        assert (await it.peer.books())["accounts"][0]["paid_minor"] == 1000


async def test_more_than_the_cap_is_refused_and_an_unpaid_trade_can_be_closed() -> None:
    async with shop(cap_minor=5000) as it:
        agreement = await it.agreement()
        assert (await it.order(agreement, order_amount="50.01"))["sub_code"] == "ORDER_AMOUNT_EXCEED"
        number = (await it.order(agreement, order_amount="20.00"))["credit_biz_order_id"]
        assert (await it.pay(number, "20.01"))["sub_code"] == "ACQ.TOTAL_FEE_EXCEED"
        await it.balance(0)
        await it.pay(number, "20.00")
        assert await it.status(number) == "WAIT_BUYER_PAY"
        finish = {"credit_biz_order_id": number, "out_request_no": "f", "is_fulfilled": "true"}
        assert (await it.call(f"{ZHIMA}creditbizorder.finish", **finish))["sub_code"] == "ORDER_HAS_UNPAID_TRADE"
        assert (await it.call("alipay.trade.close", out_trade_no=number))["code"] == "10000"
        assert await it.status(number) == "TRADE_CLOSED"
        assert (await it.call("alipay.trade.close", out_trade_no=number))["sub_code"] == "ACQ.TRADE_STATUS_ERROR"
        assert (await it.pay(number, "20.00"))["sub_code"] == "ACQ.TRADE_HAS_CLOSE"


@pytest.mark.parametrize("amount", ["0.00", "0.001", "-1.00", "100000000.01", "1e400", "ten"])
async def test_an_amount_that_is_none_is_refused(amount: str) -> None:
    async with shop() as it:
        told = await it.pay(await it.ordered(), amount)
        assert told["sub_code"] in ("ACQ.INVALID_PARAMETER", "isv.invalid-parameter")


@pytest.mark.parametrize("change", [{"subject": "a/b"}, {"out_order_no": "short"}, {"amount_type": "ALL"}])
async def test_an_order_outside_of_its_forms_is_refused(change: dict[str, str]) -> None:
    async with shop() as it:
        assert (await it.order(await it.agreement(), **change))["sub_code"] == "INVALID_PARAMETER"


async def test_who_is_not_good_enough_signs_nothing_and_orders_nothing() -> None:
    async with shop(holds_max=3) as it:
        await it.peer.script("refuse", on="rider", op="agreement.begin")
        told = await it.open(f"{ZHIMA}creditagreement.sign", out_agreement_no="agr", zm_service_id="s")
        assert (told["resultStatus"], told["result"]["sub_code"]) == ("4000", "USER_NOT_ADMITTED")
        told = await it.open(f"{ZHIMA}creditagreement.sign", out_agreement_no="agr", zm_service_id="s", answer="refuse")
        assert told["resultStatus"] == "6001"
        told = await it.call(f"{ZHIMA}creditagreement.query", out_agreement_no="agr")
        assert told["sub_code"] == "AGREEMENT_NOT_EXIST"
        agreement = await it.agreement()
        await it.peer.script("refuse", on="order_00", code="NOT_ELIGIBLE")
        assert (await it.order(agreement, "order_00"))["sub_code"] == "USER_NOT_ADMITTED"
        asked = await it.call(f"{ZHIMA}creditbizorder.query", out_order_no="order_00")
        assert asked["sub_code"] == "ORDER_NOT_EXIST", "it said INIT, as of one that stands"
        for number in range(3):
            assert (await it.order(agreement, f"order_0{number}"))["code"] == "10000"
        assert (await it.order(agreement, "order_04"))["sub_code"] == "ORDER_COUNT_EXCEED"


async def test_an_agreement_that_was_ended_in_mid_ride_still_pays_for_the_ride() -> None:
    async with shop() as it:
        number = await it.ordered()
        told = await it.call(f"{ZHIMA}creditagreement.unsign", out_agreement_no="agr")
        assert told == {"code": "10000", "msg": "Success"}
        told = await it.call(f"{ZHIMA}creditagreement.query", out_agreement_no="agr")
        assert told["agreement_status"] == "INVALID"
        assert (await it.order(told["credit_agreement_id"], "order_02"))["sub_code"] == "AGREEMENT_INVALID"
        again = await it.open(f"{ZHIMA}creditagreement.sign", out_agreement_no="agr", zm_service_id="s")
        assert (again["resultStatus"], again["result"]["sub_code"]) == ("4000", "AGREEMENT_INVALID")
        assert (await it.pay(number))["async_pay_apply_status"] == "S"
        assert await it.status(number) == "TRADE_SUCCESS"


async def test_an_order_that_the_rider_confirms_signs_him_too() -> None:
    async with shop() as it:
        asked = {"out_order_no": "order_01", "subject": "ride", "zm_service_id": "s", "order_amount": "30.00"}
        told = await it.open(f"{ZHIMA}creditbizorder.create", **asked)
        assert told["resultStatus"] == "9000"
        assert (await it.pay(told["result"]["credit_biz_order_id"]))["code"] == "10000"
        told = await it.call(f"{ZHIMA}creditagreement.query", out_agreement_no="order_01")
        assert told["agreement_status"] == "VALID"


async def test_a_rider_pays_an_uncollected_trade_by_himself() -> None:
    async with shop() as it:
        number = await it.ordered()
        await it.balance(0)
        await it.pay(number)
        assert await it.status(number) == "WAIT_BUYER_PAY"
        asked = {"out_trade_no": number, "subject": "ride"}
        told = await it.open("alipay.trade.app.pay", total_amount="9.99", **asked)
        assert told["result"]["sub_code"] == "ACQ.CONTEXT_INCONSISTENT"
        told = await it.open("alipay.trade.app.pay", total_amount="10.00", **asked)
        assert told["resultStatus"] == "9000"
        assert await it.status(number) == "TRADE_SUCCESS"
        told = await it.open("alipay.trade.app.pay", total_amount="10.00", **asked)
        assert told["result"]["sub_code"] == "ACQ.TRADE_HAS_SUCCESS"
        assert (await it.peer.debit(number))["payments"] == 1


@pytest.mark.parametrize("change", [{"subject": "a/b"}, {"out_trade_no": "ride-1"}, {"out_trade_no": "x" * 65}])
async def test_a_number_or_a_title_that_alipay_does_not_take_is_refused(change: dict[str, str]) -> None:
    async with shop() as it:
        asked = {"out_trade_no": "extra", "subject": "damage", "total_amount": "88.00", **change}
        told = await it.open("alipay.trade.app.pay", **asked)
        assert told["result"]["sub_code"] == "ACQ.INVALID_PARAMETER"
        told = await it.call("alipay.trade.pay", auth_code="none", **asked)
        assert told["sub_code"] == "ACQ.INVALID_PARAMETER"
        assert await it.status(asked["out_trade_no"]) == "ACQ.TRADE_NOT_EXIST"


async def test_a_plain_trade_exists_once_the_rider_has_opened_it() -> None:
    async with shop() as it:
        asked = {"out_trade_no": "extra", "subject": "damage", "total_amount": "88.00"}
        assert await it.status("extra") == "ACQ.TRADE_NOT_EXIST"
        assert (await it.open("alipay.trade.app.pay", answer="refuse", **asked))["resultStatus"] == "6001"
        assert await it.status("extra") == "WAIT_BUYER_PAY"
        told = await it.call("alipay.trade.cancel", out_trade_no="extra")
        assert (told["action"], told["retry_flag"]) == ("close", "N")
        assert await it.status("extra") == "TRADE_CLOSED"
        assert (await it.call("alipay.trade.cancel", out_trade_no="nobody"))["code"] == "10000"


async def answered(it: Shop, params: dict[str, str]) -> Any:
    """The one object in an answer, whatever it is called."""
    async with it.peer.session.post(it.peer.url + "/gateway.do", data=params) as answer:
        body = msgspec.json.decode(await answer.read())
    return next(value for name, value in body.items() if name != "sign")
