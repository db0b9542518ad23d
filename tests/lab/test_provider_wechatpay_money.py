"""Refunds and bills at the simulator's WeChat Pay face, over HTTP."""

from __future__ import annotations

import gzip
import hashlib
from datetime import timedelta
from typing import Any

import pytest
from wechat_shop import APPID, MCHID, Shop, authorization, shop


async def test_a_refund_is_of_a_payment_once_per_number_within_a_year() -> None:
    async with shop() as it:
        await it.order(await it.permission())
        await it.complete()
        number = await it.transaction()
        by_order: dict[str, Any] = {"transaction_id": None, "out_trade_no": "order_1"}
        assert (await it.refund("", 1, **by_order)).code == "RESOURCE_NOT_EXISTS"
        assert (await it.refund("4200" + "9" * 24, 1)).code == "RESOURCE_NOT_EXISTS"
        for _ in range(2):
            assert (await it.refund(number, 234)).body["status"] == "SUCCESS"
        assert (await it.refund(number, 235)).code == "INVALID_REQUEST"
        assert (await it.refund(number, 100, "refund_2")).code == "FREQUENCY_LIMITED"
        await it.later(timedelta(minutes=1))
        assert (await it.refund(number, 1001, "refund_2")).code == "INVALID_REQUEST"
        assert (await it.refund(number, 1000, "refund_2")).status == 200
        assert (await it.get("/v3/refund/domestic/refunds/refund_3")).code == "RESOURCE_NOT_EXISTS"
        assert (await it.peer.books())["accounts"][0]["refunded_minor"] == 1234
        await it.later(timedelta(days=366))
        await it.order(await it.permission("perm_2", "other"), "order_2")
        await it.complete("order_2", time_range={"end_time": "20271123180100"})
        second = await it.transaction("order_2")
        await it.later(timedelta(days=366))
        assert (await it.refund(second, 1, "late")).code == "INVALID_REQUEST"


async def test_a_refund_that_is_slow_or_abnormal_says_so() -> None:
    async with shop(refund_s=60.0) as it:
        await it.order(await it.permission())
        await it.complete()
        number = await it.transaction()
        await it.peer.script("refund_abnormal", on="rider", op="refund.make")
        assert (await it.refund(number, 234)).body["status"] == "PROCESSING"
        await it.later(timedelta(minutes=1))
        assert (await it.get("/v3/refund/domestic/refunds/refund_1")).body["status"] == "ABNORMAL"
        assert (await it.refund(number, 234)).body["status"] == "PROCESSING"
        await it.later(timedelta(minutes=1))
        found = (await it.get("/v3/refund/domestic/refunds/refund_1")).body
        assert (found["status"], found["success_time"]) == ("SUCCESS", "2026-11-22T18:02:00+08:00")
        await it.peer.script("refund_abnormal", on="refund_2", op="refund.make", code="CLOSED")
        await it.refund(number, 100, "refund_2")
        await it.later(timedelta(minutes=1))
        kinds = [(await it.notice())["event_type"] for _ in range(5)]
        assert kinds[2:] == ["REFUND.ABNORMAL", "REFUND.SUCCESS", "REFUND.CLOSED"]


@pytest.mark.parametrize("packed", [False, True])
async def test_a_bill_has_a_row_for_each_movement_and_its_sha1(packed: bool) -> None:
    async with shop(fee_per_mille=6) as it:
        await movements(it)
        at = "/v3/bill/tradebill?bill_date=2026-11-22"
        assert (await it.get(at)).code == "PARAM_ERROR"
        await it.later(timedelta(hours=15, minutes=59))
        assert (await it.get(at)).code == "STATEMENT_CREATING"
        await it.later(timedelta(minutes=1))
        assert (await it.get("/v3/bill/tradebill?bill_date=2026-11-21")).code == "NO_STATEMENT_EXIST"
        told = (await it.get(at + "&tar_type=GZIP" * packed)).body
        file = await downloaded(it, told["download_url"])
        text = gzip.decompress(file) if packed else file
        assert (told["hash_type"], told["hash_value"]) == (
            "SHA1",
            hashlib.sha1(text, usedforsecurity=False).hexdigest(),
        )
        head, *rows, summary, sums, last = text.decode().split("\r\n")
        names = head.split(",")
        lines = [dict(zip(names, row.removeprefix("`").split(",`"), strict=True)) for row in rows]
        by_itself, rest, refund, himself = lines
        found = await it.found()
        assert (by_itself["交易类型"], himself["交易类型"], rest["交易类型"]) == ("AUTH", "JSAPI", "JSAPI")
        assert by_itself["商户数据包"] == f"wxzff|{found['order_id']}|order_1"
        assert by_itself["商户订单号"] not in ("", "order_1") and himself["商户订单号"] == "order_2"
        assert (by_itself["订单金额"], by_itself["手续费"], by_itself["微信订单号"]) == (
            "12.34",
            "0.07000",
            await it.transaction(),
        )
        assert (refund["交易状态"], refund["退款金额"], refund["商户退款单号"]) == ("REFUND", "2.34", "refund_1")
        assert refund["微信订单号"] == by_itself["微信订单号"]
        assert summary.startswith("总交易单数") and last == ""
        assert sums.split(",`")[:3] == ["`4", "29.68", "2.34"]


@pytest.mark.parametrize(
    ("kind", "rows", "amounts"),
    [
        ("statement_missing", 3, None),
        ("statement_extra", 5, None),
        ("statement_twice", 5, None),
        ("statement_late", 3, None),
        ("statement_off", 4, "12.35"),
    ],
)
async def test_a_bill_is_wrong_as_it_was_scripted(kind: str, rows: int, amounts: str | None) -> None:
    async with shop() as it:
        await movements(it)
        await it.later(timedelta(days=1))
        await it.peer.script(kind, on="order_1", op="statement.get")
        told = (await it.get("/v3/bill/tradebill?bill_date=2026-11-22&bill_type=ALL")).body
        lines = (await downloaded(it, told["download_url"])).decode().split("\r\n")[1:-3]
        assert len(lines) == rows
        assert amounts is None or amounts in lines[0]


async def movements(it: Shop) -> None:
    """A ride that WeChat Pay collected, a payment of the rider's, a refund, and a ride he paid with his own hands."""
    whose = await it.permission()
    await it.order(whose)
    await it.complete()
    asked = {"appid": APPID, "mchid": MCHID, "description": "rest", "out_trade_no": "rest_1", "notify_url": it.url}
    told = await it.post("/v3/pay/transactions/jsapi", **asked, amount={"total": 500}, payer={"openid": whose})
    await it.ride("confirm", told.body["prepay_id"])
    await it.refund(await it.transaction(), 234)
    await it.balance(0)
    await it.order(whose, "order_2")
    await it.complete("order_2")
    await it.ride("pay", order="order_2")


async def downloaded(it: Shop, url: str) -> bytes:
    target = url.removeprefix(it.peer.url)
    headers = {"Accept": "*/*", "User-Agent": "tests", "Authorization": authorization("GET", target, b"")}
    async with it.peer.session.get(url, headers=headers) as answer:
        assert (answer.status, "Wechatpay-Signature" in answer.headers) == (200, False)
        return await answer.read()
