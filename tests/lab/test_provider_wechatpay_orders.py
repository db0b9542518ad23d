"""Pay Score's orders at the simulator: states, limits, sums, times, collection; over HTTP."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from wechat_shop import APPID, NAMES, SERVICE, Shop, money, shop

from service.lab.provider.server import Plan

RIDE = {"name": "骑行", "amount": 1234}
OFF = {"name": "月卡", "amount": 234, "description": "减2.34元"}


async def test_an_order_waits_for_a_rider_who_confirms_it() -> None:
    async with shop() as it:
        made = await it.order(None)
        assert made.body["state"] == "CREATED" and "openid" not in made.body
        package = made.body["package"]
        assert (await it.order(None)).body["package"] == package
        assert (await it.complete()).number == "271302332"
        assert (await it.ride("refuse", package, rider="rider"))["errMsg"] == "openBusinessView:cancel"
        assert await it.states() == ("CREATED", None, None)
        confirmed = await it.ride("confirm", {"extraData": {"package": package}}, rider="rider")
        by_query = f"/v3/payscore/serviceorder?service_id={SERVICE}&appid={APPID}&query_id={confirmed['query_id']}"
        found = (await it.get(by_query)).body
        assert (found["state"], found["state_description"]) == ("DOING", "USER_CONFIRM")
        assert found["openid"] == confirmed["openid"]
        notice = await it.notice()
        assert (notice["event_type"], notice["resource"]["state"]) == ("PAYSCORE.USER_CONFIRM", "DOING")
        assert (await it.ride("confirm", package, rider="another"))["errMsg"] == "openBusinessView:fail"
        await it.later(timedelta(days=31))
        assert (await it.complete()).status == 200
        assert await it.states() == ("DONE", None, "USER_PAID")
        assert (await it.notice())["event_type"] == "PAYSCORE.USER_PAID"


async def test_an_order_that_nobody_confirms_expires_after_thirty_days() -> None:
    async with shop() as it:
        await it.order(None)
        await it.later(timedelta(days=29, hours=23))
        assert await it.states() == ("CREATED", None, None)
        await it.later(timedelta(hours=1))
        assert await it.states() == ("EXPIRED", None, None)
        assert (await cancel(it)).number == "271316592"
        assert (await it.complete()).number == "271302333"


async def test_the_same_order_again_is_the_same_and_another_under_its_number_is_refused() -> None:
    async with shop() as it:
        whose = await it.permission()
        first = await it.order(whose)
        again = await it.order(whose)
        assert (again.status, again.body["order_id"]) == (200, first.body["order_id"])
        other = await it.order(whose, risk_fund={"name": "ESTIMATE_ORDER_COST", "amount": 3001})
        assert (other.status, other.code, other.number) == (400, "INVALID_REQUEST", "271316598")
        assert (await it.found("nobody"))["code"] == "RESOURCE_NOT_EXISTS"


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ({"out_order_no": "x" * 33}, "268435464"),
        ({"out_order_no": "骑行"}, "268435464"),
        ({"service_introduction": "x" * 21}, "268435464"),
        ({"risk_fund": {"name": "HOPE", "amount": 1}}, "268435464"),
        ({"risk_fund": {"name": "DEPOSIT", "amount": 0}}, "268435464"),
        ({"risk_fund": {"name": "DEPOSIT", "amount": 100_001}}, "271316656"),
        ({"risk_fund": {"name": "DEPOSIT", "amount": 1, "description": "x" * 31}}, "268435464"),
        ({"time_range": {}}, "268435464"),
        ({"time_range": {"start_time": "2026-11-22 18:00"}}, "268435464"),
        ({"time_range": {"start_time": "20261122175959"}}, "268435464"),
        ({"time_range": {"start_time": "20261121"}}, "268435464"),
        ({"time_range": {"start_time": "20261122180000", "end_time": "20261122175959"}}, "271316637"),
        ({"appid": "wx-other"}, "271302149"),
        ({"service_id": "1"}, "268503786"),
        ({"openid": "o" + "A" * 27}, "268503786"),
        ({"openid": None}, "268435464"),
        ({"post_payments": [{"name": "x" * 21}]}, "268435464"),
        ({"post_payments": [RIDE] * 101}, "268435464"),
    ],
)
async def test_an_order_that_can_not_be_is_refused_and_was_never_made(change: dict[str, Any], number: str) -> None:
    async with shop() as it:
        whose = await it.permission()
        assert (await it.order(whose, **change)).number == number
        assert (await it.found())["code"] == "RESOURCE_NOT_EXISTS"
        assert (await it.peer.books())["holds"] == {}


@pytest.mark.parametrize("start", ["20261122180000", "20261122", "2026-11-22T18:00:00+08:00", "OnAccept"])
async def test_a_start_is_read_in_each_form_that_the_documents_have(start: str) -> None:
    async with shop() as it:
        assert (await it.order(await it.permission(), time_range={"start_time": start})).status == 200
        assert (await it.complete()).status == 200


async def test_a_rider_has_three_running_orders_and_one_that_is_not_paid() -> None:
    async with shop() as it:
        whose = await it.permission()
        for key in ("order_1", "order_2", "order_3"):
            assert (await it.order(whose, key)).status == 200
        fourth = await it.order(whose, "order_4")
        assert (fourth.code, fourth.number) == ("RULE_LIMIT", "271300099")
        assert (await it.found("order_4"))["code"] == "RESOURCE_NOT_EXISTS"
        await it.balance(0)
        await it.complete("order_1")
        assert (await it.order(whose, "order_4")).status == 200
        await it.complete("order_2")
        assert (await it.order(whose, "order_5")).number == "271299627"
        await it.ride("pay", order="order_1")
        assert (await it.order(whose, "order_5")).status == 200
        waiting = (await it.order(None, "order_6")).body["package"]
        assert (await it.ride("confirm", waiting, rider="rider"))["code"] == "RULE_LIMIT"
        assert await it.states("order_6") == ("CREATED", None, None)


@pytest.mark.parametrize("number", ["271300099", "268560785"])
async def test_an_order_is_refused_for_the_reason_that_was_scripted(number: str) -> None:
    async with shop() as it:
        whose = await it.permission()
        await it.peer.script("refuse", on="rider", op="hold.open", code=number)
        assert (await it.order(whose)).number == number
        assert (await it.order(whose)).status == 200


async def test_the_number_of_a_refused_order_may_ask_for_less() -> None:
    async with shop() as it:
        whose = await it.permission()
        await it.peer.script("refuse", on="order_1", op="hold.open")
        assert (await it.order(whose, risk_fund={"name": "DEPOSIT", "amount": 3000})).number == "271300099"
        assert (await it.order(whose, risk_fund={"name": "DEPOSIT", "amount": 1000})).status == 200
        assert (await it.complete(amount=1001)).number == "271316656"


async def test_everything_is_as_it_was_after_a_new_start(tmp_path: Path) -> None:
    plan = Plan(directory=tmp_path)
    async with shop(plan) as it:
        package = (await it.order(None)).body["package"]
        await it.ride("confirm", package, rider="rider")
        await it.balance(0)
        await it.complete()
        keys = it.keys
    async with shop(plan) as it:
        assert it.keys == keys
        assert await it.states() == ("DOING", "MCH_COMPLETE", "USER_PAYING")
        assert (await it.complete()).status == 200
        await it.ride("pay", order="order_1")
        assert (await it.refund(await it.transaction(), 234)).status == 200


async def test_an_order_is_cancelled_until_it_is_completed() -> None:
    async with shop() as it:
        whose = await it.permission()
        await it.order(whose)
        assert set((await cancel(it)).body) == {"appid", "mchid", "service_id", "out_order_no", "order_id"}
        assert await it.states() == ("REVOKED", None, None)
        assert (await cancel(it)).number == "271316592"
        assert (await it.complete()).number == "271302333"
        assert (await it.order(whose)).body["state"] == "REVOKED"
        await it.balance(0)
        await it.order(whose, "order_2")
        await it.complete("order_2")
        assert (await cancel(it, "order_2")).number == "271316592"
        await it.order(None, "order_3")
        assert (await cancel(it, "order_3")).status == 200


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ({"total_amount": 1233}, "268435464"),
        ({"post_discounts": [OFF]}, "268435464"),
        ({"post_discounts": [{"name": "月卡", "amount": 234}], "total_amount": 1000}, "268435464"),
        ({"post_payments": [{"amount": 1234}]}, "268435464"),
        ({"post_payments": [{"name": "骑行", "amount": 1234, "description": "x" * 31}]}, "268435464"),
        ({"post_payments": [RIDE, {"name": "解锁", "amount": 0}]}, "268435464"),
        ({"post_payments": [RIDE, {"name": "解锁", "amount": -1}], "total_amount": 1233}, "268435464"),
        ({"post_payments": [{"name": "骑行", "amount": 12.34}], "total_amount": 12.34}, "268435464"),
        ({"post_payments": [], "total_amount": 0}, "268435464"),
        ({"time_range": {}}, "268435464"),
        ({"time_range": {"end_time": "20261122180001"}}, "268435464"),
        ({"time_range": {"end_time": "20261122175959"}}, "271316637"),
        ({"time_range": {"start_time": "20261122180000", "end_time": "20261122175900"}}, "271316637"),
        ({"post_payments": [{"name": "骑行", "amount": 100_001}], "total_amount": 100_001}, "271316656"),
    ],
)
async def test_a_completion_that_does_not_add_up_is_refused_and_debits_nothing(
    change: dict[str, Any], number: str
) -> None:
    async with shop() as it:
        await it.order(await it.permission())
        assert (await it.complete(**change)).number == number
        assert await it.states() == ("DOING", "USER_CONFIRM", None)
        assert await it.peer.debit("order_1") is None
        assert (await it.complete(post_payments=[RIDE], post_discounts=[OFF], total_amount=1000)).status == 200
        assert (await it.found())["collection"]["paid_amount"] == 1000


async def test_a_deposit_is_the_most_that_an_order_comes_to() -> None:
    async with shop() as it:
        await it.order(await it.permission(), risk_fund={"name": "DEPOSIT", "amount": 1000})
        assert (await it.complete(amount=1001)).number == "271316656"
        assert (await it.complete(amount=1000)).status == 200


async def test_an_order_is_completed_once_and_collected_for_ever() -> None:
    async with shop() as it:
        await it.order(await it.permission())
        await it.balance(0)
        for _ in range(2):
            assert (await it.complete()).body["collection"]["paying_amount"] == 1234
        assert (await it.complete(amount=1233)).number == "271316598"
        await it.later(timedelta(days=400))
        assert await it.states() == ("DOING", "MCH_COMPLETE", "USER_PAYING")
        await it.balance(5000)
        assert (await pay(it)).status == 200
        assert await it.states() == ("DONE", None, "USER_PAID")
        assert (await it.complete()).number == "271302262"
        assert (await pay(it)).number == "271316657"
        assert (await it.peer.debit("order_1"))["payments"] == 1


async def test_an_order_is_lowered_while_it_is_not_paid_and_never_raised() -> None:
    async with shop() as it:
        await it.order(await it.permission())
        assert (await it.modify(1000)).number == "271316657"
        await it.balance(0)
        await it.complete()
        assert (await it.modify(1235)).number == "268435464"
        assert (await it.modify(0)).code == "PARAM_ERROR"
        for _ in range(2):
            told = await it.modify(1000)
            assert (told.status, told.body["collection"]["total_amount"]) == (200, 1000)
        assert (await it.modify(1100)).number == "268435464"
        await it.balance(5000)
        await pay(it)
        assert (await it.found())["post_payments"] == [{"name": "骑行", "amount": 1000}]
        assert (await it.modify(900)).number == "271316657"


async def test_an_order_that_was_paid_elsewhere_is_done() -> None:
    async with shop() as it:
        await it.order(await it.permission())
        assert (await sync(it)).number == "271316657"
        await it.balance(0)
        await it.complete()
        for _ in range(2):
            assert (await sync(it)).body["state"] == "DONE"
        found = await it.found()
        assert (found["state"], found["collection"]["details"][0]["paid_type"]) == ("DONE", "MCH")
        await it.balance(5000)
        await it.later(timedelta(days=2))
        assert (await it.peer.books())["accounts"][0]["paid_minor"] == 0
        assert (await pay(it)).number == "271316657"


async def test_the_rider_pays_an_open_order_himself_and_wechat_pay_no_more() -> None:
    async with shop() as it:
        await it.order(await it.permission())
        await it.balance(0)
        await it.complete()
        assert (await it.ride("pay", order="order_1"))["collection"]["state"] == "USER_PAID"
        await it.balance(5000)
        await it.later(timedelta(days=2))
        assert (await it.peer.debit("order_1"))["payments"] == 1


async def test_a_ride_that_costs_nothing_is_done_without_a_collection() -> None:
    async with shop() as it:
        await it.order(await it.permission())
        free: dict[str, Any] = {"post_payments": [RIDE], "post_discounts": [{**OFF, "amount": 1234}], "total_amount": 0}
        told = await it.complete(**free)
        assert (told.body["state"], told.body["need_collection"]) == ("DONE", False)
        assert await it.states() == ("DONE", None, None)
        assert (await it.complete(**free)).number == "271302262"


async def test_a_collection_in_parts_tells_each_payment_and_each_can_be_refunded() -> None:
    async with shop() as it:
        await it.order(await it.permission())
        await it.balance(1000)
        await it.complete()
        assert await it.states() == ("DOING", "MCH_COMPLETE", "USER_PAYING")
        collected = (await it.found())["collection"]
        assert (collected["paid_amount"], collected["paying_amount"]) == (1000, 234)
        await it.balance(5000)
        await pay(it)
        details = (await it.found())["collection"]["details"]
        assert [(one["seq"], one["amount"]) for one in details] == [(1, 1000), (2, 234)]
        await it.notice()
        told = [(await it.notice())["resource"]["collection"] for _ in range(2)]
        assert [one["state"] for one in told] == ["USER_PAYING", "USER_PAID"]
        assert told[1]["details"] == details and told[0]["details"] == details[:1]
        second = str(details[1]["transaction_id"])
        back: dict[str, Any] = {"transaction_id": second, "out_refund_no": "r", "amount": money(235, 234)}
        assert (await it.post("/v3/refund/domestic/refunds", **back)).code == "INVALID_REQUEST"
        back["amount"] = money(234, 234)
        assert (await it.post("/v3/refund/domestic/refunds", **back)).body["transaction_id"] == second


@pytest.mark.parametrize("completed", [False, True])
async def test_the_merchants_own_people_cancel_an_order_also_one_that_waits_to_be_paid(*, completed: bool) -> None:
    async with shop() as it:
        await it.order(await it.permission())
        await it.balance(0)
        if completed:
            await it.complete()
        await at_platform(it, "cancel", str((await it.found())["order_id"]))
        found = await it.found()
        assert (found["state"], "collection" in found) == ("REVOKED", False)
        await it.balance(5000)
        await it.later(timedelta(days=3))
        assert (await it.found())["state"] == "REVOKED"
        assert (await it.complete()).code == "INVALID_REQUEST"
        assert (await pay(it)).code == (await sync(it)).code == "INVALID_REQUEST"


async def test_the_merchants_own_people_mark_an_order_as_paid() -> None:
    async with shop() as it:
        await it.order(await it.permission())
        await it.balance(0)
        await it.complete()
        await at_platform(it, "paid")
        assert await it.states() == ("DONE", None, "USER_PAID")
        assert [one["paid_type"] for one in (await it.found())["collection"]["details"]] == ["MCH"]


async def test_what_was_taken_of_an_order_that_is_cancelled_stays_taken() -> None:
    async with shop() as it:
        await it.order(await it.permission())
        await it.balance(1000)
        await it.complete()
        await at_platform(it, "cancel")
        found = await it.found()
        assert (found["state"], [one["amount"] for one in found["collection"]["details"]]) == ("REVOKED", [1000])
        for wrong in ("does=cancel&account=none&order=order_1", "does=sell&order=order_1", "does=paid&order=none"):
            named = wrong if "account=" in wrong else f"{wrong}&account=shop"
            async with it.peer.session.post(f"{it.peer.url}/wechatpay/platform?{named}") as said:
                assert said.status in (404, 422)


async def test_made_and_completed_in_one() -> None:
    async with shop() as it:
        whose = await it.permission()
        asked: dict[str, Any] = {**NAMES, "out_order_no": "direct_1", "service_introduction": "骑行", "openid": whose}
        asked |= {"post_payments": [RIDE], "total_amount": 1234, "notify_url": it.url}
        asked |= {"time_range": {"start_time": "20261122170000", "end_time": "20261122180000"}}
        told = await it.post("/v3/payscore/serviceorder/direct-complete", **asked)
        assert (told.status, told.body["collection"]["state"]) == (200, "USER_PAYING")
        assert await it.states("direct_1") == ("DONE", None, "USER_PAID")


async def cancel(it: Shop, key: str = "order_1") -> Any:
    return await it.post(f"/v3/payscore/serviceorder/{key}/cancel", **NAMES, reason="no ride")


async def at_platform(it: Shop, does: str, order: str = "order_1") -> None:
    await it.peer.call("POST", f"/wechatpay/platform?does={does}&account=shop&order={order}")


async def pay(it: Shop, key: str = "order_1") -> Any:
    return await it.post(f"/v3/payscore/serviceorder/{key}/pay", **NAMES)


async def sync(it: Shop, key: str = "order_1") -> Any:
    asked = {"type": "Order_Paid", "detail": {"paid_time": "20261122180000"}}
    return await it.post(f"/v3/payscore/serviceorder/{key}/sync", **NAMES, **asked)
