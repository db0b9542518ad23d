"""Debits on Pay Score's orders: what is asked, and what each state and refusal means to us; wrong credentials."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from wechatpay_double import (
    AT,
    CERTIFICATES,
    DETAIL,
    ENDED,
    HOLD,
    MCHID,
    NAMED,
    ORDER,
    ORDERS,
    PAYING,
    REF,
    REQUEST,
    SERVICE_ID,
    STARTED,
    Canned,
    Double,
    paid,
    provider_at,
    settings_of,
)

from service.adapters.providers.port import (
    DebitItem,
    Provider,
)
from service.adapters.providers.wechatpay import signing, wire
from service.billing.outcomes import (
    BARRED_FOR,
    Accepted,
    AlreadyDone,
    Barred,
    CapExceeded,
    Closed,
    Conflict,
    MiniProgram,
    NeedsRider,
    NotFound,
    Outcome,
    Part,
    Postponed,
    Rejected,
    Succeeded,
    Throttled,
    Unknown,
)

pytest_plugins = ["wechatpay_fixtures"]


async def test_a_completed_order_is_accepted_and_no_more(wechat: Double, score: Provider) -> None:
    wechat.says(f"{ORDER}/complete", {"out_order_no": "H0LD"} | paid(DETAIL))
    assert await score.debit(REQUEST) == Accepted()
    told = wechat.last(f"{ORDER}/complete")
    assert told == NAMED | {
        "post_payments": [{"name": "per_min", "amount": 1500, "description": "20 min × 0.75"}],
        "post_discounts": [{"name": "goodwill", "amount": 266, "description": "goodwill"}],
        "total_amount": 1234,
        "time_range": {"start_time": "20261122174000", "end_time": "20261122180000"},
    }
    assert await score.debit(REQUEST) == Accepted()
    assert wechat.last(f"{ORDER}/complete") == told  # The same key, the same content.
    assert ORDERS not in wechat.paths()


async def test_times_that_the_order_does_not_take_are_the_orders_own(wechat: Double, score: Provider) -> None:
    late = [Canned({"code": "PARAM_ERROR", "message": "no"}, 400, number=271316637), Canned({"out_order_no": "H0LD"})]
    wechat.says(f"{ORDER}/complete", *late)
    wechat.order(state="DOING", state_description="USER_CONFIRM", time_range={"start_time": "20261122190000"})
    assert await score.debit(REQUEST) == Accepted()
    assert wechat.last(f"{ORDER}/complete")["time_range"] == {
        "start_time": "20261122190000",
        "end_time": "20261122190000",
    }
    future = Canned({"code": "PARAM_ERROR", "message": "实际结束时间不能晚于使用完结接口的时间"}, 400)
    wechat.says(f"{ORDER}/complete", future, Canned({"out_order_no": "H0LD"}))
    assert await score.debit(REQUEST) == Accepted()
    timeless = msgspec.structs.replace(REQUEST, started_at=None, ended_at=None)
    wechat.says(f"{ORDER}/complete", {"out_order_no": "H0LD"})
    before = len(wechat.asked)
    assert await score.debit(timeless) == Accepted()
    assert wechat.paths()[before:] == [ORDERS, f"{ORDER}/complete"]
    wechat.order(state="DOING", state_description="USER_CONFIRM")
    assert isinstance(await score.debit(timeless), Rejected)
    wechat.says(ORDERS, Canned({}, how="html"))
    assert await score.debit(timeless) == Postponed(timedelta(seconds=5))  # Nothing was sent: again.
    wechat.refuses(ORDERS, "RESOURCE_NOT_EXISTS", 404, 271317510)
    assert await score.debit(timeless) == Rejected("ORDER_NOT_EXIST")


async def test_an_end_before_the_start_is_the_start(wechat: Double, score: Provider) -> None:
    wechat.says(f"{ORDER}/complete", {"out_order_no": "H0LD"})
    await score.debit(msgspec.structs.replace(REQUEST, started_at=ENDED, ended_at=STARTED))
    assert wechat.last(f"{ORDER}/complete")["time_range"]["end_time"] == "20261122180000"


@pytest.mark.parametrize(
    ("code", "status", "number", "meaning"),
    [
        ("INVALID_REQUEST", 400, 271316574, Unknown("code INVALID_REQUEST_271316574")),
        ("INVALID_REQUEST", 400, 271316754, Unknown("code INVALID_REQUEST_271316754")),
        ("INVALID_REQUEST", 400, 271302262, Unknown("code INVALID_REQUEST_271302262")),
        ("INVALID_REQUEST", 400, 271302333, Unknown("code INVALID_REQUEST_271302333")),
        ("INVALID_REQUEST", 400, 271302332, Unknown("code INVALID_REQUEST_271302332")),
        ("PARAM_ERROR", 400, 271316656, CapExceeded(10_000)),
        ("PARAM_ERROR", 400, 268435464, Rejected("PARAM_ERROR_268435464", "no")),
        ("SIGN_ERROR", 401, 270924332, Barred(BARRED_FOR, "SIGN_ERROR_270924332", "no")),
        ("NO_AUTH", 403, 268503786, Barred(BARRED_FOR, "NO_AUTH_268503786", "no")),
        ("RESOURCE_NOT_EXISTS", 404, 271317510, Rejected("ORDER_NOT_EXIST")),
        ("RATELIMIT_EXCEEDED", 429, 0, Throttled(timedelta(seconds=1))),
        ("SYSTEM_ERROR", 500, 0, Unknown("HTTP 500")),
        ("QUANTUM", 400, 0, Unknown("code QUANTUM")),
    ],
)
async def test_each_refusal_of_a_completion(
    wechat: Double, score: Provider, code: str, status: int, number: int, meaning: Outcome
) -> None:
    wechat.order(**PAYING)
    wechat.refuses(f"{ORDER}/complete", code, status, number)
    assert await score.debit(REQUEST) == meaning


@pytest.mark.parametrize(
    ("order", "meaning"),
    [
        (PAYING, Accepted()),
        (paid(DETAIL), AlreadyDone()),
        (PAYING | {"total_amount": 999}, Conflict("INVALID_REQUEST_271316598")),
        ({"state": "REVOKED"}, Conflict("INVALID_REQUEST_271316598")),
    ],
)
async def test_a_conflict_is_none_when_the_order_was_completed_so(
    wechat: Double, score: Provider, order: dict[str, Any], meaning: Outcome
) -> None:
    wechat.refuses(f"{ORDER}/complete", "INVALID_REQUEST", number=271316598)
    wechat.order(**order)
    assert await score.debit(REQUEST) == meaning


@pytest.mark.parametrize(
    ("order", "meaning"),
    [
        ({"state": "CREATED"}, NotFound()),
        ({"state": "DOING", "state_description": "USER_CONFIRM"}, NotFound()),
        (PAYING, Accepted()),
        (PAYING | {"collection": {"state": "USER_PAYING", "paid_amount": 0, "paying_amount": 1234}}, Accepted()),
        (PAYING | {"collection": {"state": "WAIT_PAY"}}, Accepted()),
        (PAYING | {"collection": {"state": "QUANTUM"}}, Unknown("collection.state QUANTUM")),
        (PAYING | {"total_amount": 1235}, Conflict("total_amount 1235")),
        (PAYING | {"total_amount": 1000}, Conflict("total_amount 1000")),
        ({"state": "DOING", "state_description": "MCH_COMPLETE"}, Accepted()),  # No amount is told.
        (paid(DETAIL), Succeeded(1234, "4200", (Part("4200", 1234),), last=True)),
        (
            paid(DETAIL, DETAIL),
            Succeeded(1234, "4200", (Part("4200", 1234),), last=True),
        ),  # A payment is one payment, however often it is told.
        (paid(DETAIL | {"amount": 234}, state="DOING", paying=1000), Succeeded(234, "4200", (Part("4200", 234),))),
        (
            paid(DETAIL | {"amount": 234}, DETAIL | {"amount": 1000, "transaction_id": "4201"}),
            Succeeded(1234, "4200", (Part("4200", 234), Part("4201", 1000)), last=True),
        ),
        (
            paid(DETAIL | {"amount": 1000}, total=1000),  # Lowered at the merchant platform, and paid.
            Succeeded(1000, "4200", (Part("4200", 1000),), last=True),
        ),
        (
            paid(DETAIL | {"amount": 234}, {"amount": 1000, "paid_type": "MCH"}),
            Succeeded(234, "4200", (Part("4200", 234),), last=True),
        ),
        (paid(DETAIL | {"paid_type": "QUANTUM"}), Succeeded(1234, "4200", (Part("4200", 1234),), last=True)),
        (paid(DETAIL | {"paid_type": "MCH", "transaction_id": ""}), Closed("PAID_ELSEWHERE", "paid")),
        (paid(DETAIL | {"paid_type": "MCH"}), Closed("PAID_ELSEWHERE", "paid")),
        (paid(DETAIL | {"transaction_id": ""}), Unknown("paid, without saying how")),
        (paid(), Unknown("paid, without saying how")),
        ({"state": "DONE", "total_amount": 0}, Closed("NOTHING_TO_COLLECT", "cancelled")),
        ({"state": "DONE", "need_collection": False}, Closed("NOTHING_TO_COLLECT", "cancelled")),
        ({"state": "DONE"}, Unknown("done, with nothing collected")),
        ({"state": "REVOKED"}, Closed("REVOKED", "cancelled")),
        (paid(DETAIL | {"amount": 34}, state="REVOKED"), Succeeded(34, "4200", (Part("4200", 34),), last=True)),
        ({"state": "EXPIRED"}, Closed("EXPIRED")),
        ({"state": "DOING", "state_description": "QUANTUM"}, Unknown("state DOING QUANTUM")),
        ({"state": "QUANTUM"}, Unknown("state QUANTUM")),
        ({"state": "DONE", "out_order_no": "B"}, Unknown("the answer is about another number")),
    ],
)
async def test_each_state_of_a_debit(wechat: Double, score: Provider, order: dict[str, Any], meaning: Outcome) -> None:
    wechat.order(**order)
    assert await score.get_debit(REF) == meaning


async def test_a_query_that_fails_says_nothing_about_the_debit(wechat: Double, score: Provider) -> None:
    wechat.refuses(ORDERS, "RESOURCE_NOT_EXISTS", 404, 271317510)
    assert await score.get_debit(REF) == NotFound()
    wechat.refuses(ORDERS, "NO_AUTH", 403)
    assert await score.get_debit(REF) == Barred(BARRED_FOR, "NO_AUTH", "no")
    wechat.refuses(ORDERS, "FREQUENCY_LIMITED", 403)
    assert await score.get_debit(REF) == Throttled(timedelta(seconds=1))
    wechat.says(ORDERS, {"state": 7})
    assert await score.get_debit(REF) == Unknown("the answer has another shape")


async def test_what_waits_for_payment_is_lowered_and_never_to_nothing(wechat: Double, score: Provider) -> None:
    wechat.says(f"{ORDER}/modify", {"out_order_no": "H0LD"})
    assert await score.reduce_debit(REF, 1000) == Accepted()
    assert wechat.last(f"{ORDER}/modify") == NAMED | {
        "post_payments": [{"name": "共享单车骑行", "amount": 1000}],
        "total_amount": 1000,
        "reason": "应付金额减少",
    }
    titled = msgspec.structs.replace(REF, hold=msgspec.structs.replace(HOLD, title="骑行"))
    assert await score.reduce_debit(titled, 1000) == Accepted()
    assert wechat.last(f"{ORDER}/modify")["post_payments"] == [{"name": "骑行", "amount": 1000}]
    before = len(wechat.asked)
    nothing = await score.reduce_debit(REF, 0)
    assert isinstance(nothing, Rejected) and len(wechat.asked) == before
    wechat.refuses(f"{ORDER}/modify", "INVALID_REQUEST", number=271316657)
    for order, meaning in (
        (PAYING | {"total_amount": 1000}, Accepted()),
        (PAYING, Unknown("code INVALID_REQUEST_271316657")),
        (paid(DETAIL), Succeeded(1234, "4200", (Part("4200", 1234),), last=True)),
        ({"state": "REVOKED"}, Closed("REVOKED", "cancelled")),
    ):
        wechat.order(**order)
        assert await score.reduce_debit(REF, 1000) == meaning


async def test_paid_elsewhere_is_told_and_looked_at_when_it_can_not_be(wechat: Double, score: Provider) -> None:
    wechat.says(f"{ORDER}/sync", {"out_order_no": "H0LD"})
    wechat.order(**PAYING)
    assert await score.settle_elsewhere(REF, AT) == Closed("PAID_ELSEWHERE", "paid")
    assert wechat.last(f"{ORDER}/sync") == NAMED | {"type": "Order_Paid", "detail": {"paid_time": "20261122180000"}}
    wechat.refuses(f"{ORDER}/sync", "INVALID_REQUEST", number=271302262)
    for order, meaning in (
        (paid(DETAIL), AlreadyDone()),
        (paid(DETAIL | {"paid_type": "MCH"}), Closed("PAID_ELSEWHERE", "paid")),
        (PAYING, Unknown("code INVALID_REQUEST_271302262")),
    ):
        wechat.order(**order)
        assert await score.settle_elsewhere(REF, AT) == meaning
    wechat.says(f"{ORDER}/sync", {"out_order_no": "H0LD"})
    wechat.order(**paid(DETAIL | {"amount": 34}, DETAIL | {"paid_type": "MCH", "amount": 1200}))
    assert await score.settle_elsewhere(REF, AT) == AlreadyDone()
    wechat.refuses(ORDERS, "SYSTEM_ERROR", 500)
    assert isinstance(await score.settle_elsewhere(REF, AT), Unknown)


async def test_an_order_is_never_closed_unpaid(wechat: Double, score: Provider) -> None:
    assert not score.capabilities.closes_unpaid
    wechat.order(**PAYING)
    closed = await score.close_debit(REF)
    assert isinstance(closed, Rejected)
    wechat.order(**paid(DETAIL))
    assert await score.close_debit(REF) == AlreadyDone()
    wechat.order(state="REVOKED")
    assert await score.close_debit(REF) == Closed("REVOKED", "cancelled")


async def test_a_nudge_asks_to_collect_now(wechat: Double, score: Provider) -> None:
    wechat.says(f"{ORDER}/pay", {})
    assert await score.nudge_debit(REF) == Accepted()
    assert wechat.last(f"{ORDER}/pay") == NAMED
    wechat.refuses(f"{ORDER}/pay", "INVALID_REQUEST", number=271316754)
    assert await score.nudge_debit(REF) == Accepted()
    wechat.refuses(f"{ORDER}/pay", "INVALID_REQUEST", number=271316657)
    wechat.order(**paid(DETAIL))
    assert await score.nudge_debit(REF) == AlreadyDone()
    wechat.order(**PAYING)
    assert await score.nudge_debit(REF) == Unknown("code INVALID_REQUEST_271316657")


async def test_a_rider_pays_the_very_order_that_is_collected(wechat: Double, score: Provider, tmp_path: Path) -> None:
    wechat.order(**PAYING)
    asked = await score.request_payment(REQUEST)
    assert isinstance(asked, NeedsRider) and isinstance(asked.action, MiniProgram)
    assert (asked.action.app_id, asked.action.path) == ("wxd8f3793ea3b935b8", "pages/record/detail")
    params = dict(asked.action.extra_data)
    signature = params.pop("sign")
    assert (params["out_order_no"], params["service_id"], params["mch_id"]) == ("H0LD", SERVICE_ID, MCHID)
    assert params["sign_type"] == "HMAC-SHA256" and signature == signing.page_signature("v" * 32, params)
    async with provider_at(wechat.url, settings_of(tmp_path, api_v2_key_file=None)) as keyless:
        asked = await keyless.request_payment(REQUEST)
        assert isinstance(asked, NeedsRider) and asked.action is None
        assert "in WeChat himself" in asked.advice and "api_v2_key_file" in asked.advice
    wechat.order(**paid(DETAIL))
    assert await score.request_payment(REQUEST) == AlreadyDone()
    wechat.order(state="REVOKED")
    assert await score.request_payment(REQUEST) == Closed("REVOKED", "cancelled")
    wechat.order(state="DOING", state_description="USER_CONFIRM")
    wechat.says(f"{ORDER}/complete", {"out_order_no": "H0LD"})
    assert isinstance(await score.request_payment(REQUEST), NeedsRider)  # Completed first: the same number.
    assert f"{ORDER}/complete" in wechat.paths()


def test_lines_are_cut_told_apart_and_sum_to_the_debit() -> None:
    items = [DebitItem("a" * 30, 100, "b" * 40), DebitItem("a" * 25, 200), DebitItem("", 1), DebitItem("zero", 0)]
    content = wire.content(items, 301, "ride")
    assert [line["name"] for line in content["post_payments"]] == ["a" * 20, "a" * 18 + " 2", "费用"]
    assert content["post_payments"][0]["description"] == "b" * 30
    assert sum(line["amount"] for line in content["post_payments"]) == content["total_amount"] == 301
    one = {"post_payments": [{"name": "ride", "amount": 500}], "total_amount": 500}
    assert wire.content([], 500, "ride") == one
    assert wire.content([DebitItem("less", -500)], 500, "ride") == one
    assert wire.content([DebitItem("other", 499)], 500, "ride") == one
    assert wire.content([DebitItem(f"n{index}", 5) for index in range(101)], 505, "ride")["post_payments"] == [
        {"name": "ride", "amount": 505}
    ]
    many = [DebitItem(f"n{index}", 5) for index in range(100)]
    assert len(wire.content(many, 500, "ride")["post_payments"]) == 100
    less = [DebitItem("all", 531), *(DebitItem(f"n{index}", -1) for index in range(31))]
    assert wire.content(less, 500, "ride") == one


def test_instants_are_read_in_both_ways_and_written_in_one() -> None:
    assert wire.written(AT) == "20261122180000"
    assert wire.instant("20261122180000") == wire.instant("2026-11-22T18:00:00+08:00") == AT
    assert wire.instant("OnAccept") is wire.instant("2026-11-22T18:00:00") is wire.instant("20261322180000") is None


async def test_credentials_are_tried_by_a_call_that_moves_nothing(wechat: Double, score: Provider) -> None:
    wechat.refuses(ORDERS, "RESOURCE_NOT_EXISTS", 404, 271317510)
    assert await score.check() is None
    assert {method for method, _, _ in wechat.asked} == {"GET"}
    assert CERTIFICATES in wechat.paths()


@pytest.mark.parametrize(
    ("code", "status", "number", "named"),
    [
        ("PARAM_ERROR", 400, 271302144, "settings.mchid"),
        ("PARAM_ERROR", 400, 271302149, "settings.appid"),
        ("NO_AUTH", 403, 268503786, "settings.service_id"),
        ("NO_AUTH", 403, 0, "settings.service_id"),
    ],
)
async def test_what_is_wrong_with_an_account_is_named(
    wechat: Double, score: Provider, code: str, status: int, number: int, named: str
) -> None:
    wechat.refuses(ORDERS, code, status, number)
    wrong = await score.check()
    assert isinstance(wrong, Rejected) and wrong.message.startswith(named)


async def test_wrong_keys_are_named(wechat: Double, score: Provider) -> None:
    wechat.refuses(ORDERS, "RESOURCE_NOT_EXISTS", 404, 271317510)
    wechat.merchant = "another"
    wrong = await score.check()
    assert isinstance(wrong, Rejected) and "merchant_private_key" in wrong.message
    wechat.merchant, wechat.api_key = "merchant", "x" * 32
    wrong = await score.check()
    assert isinstance(wrong, Rejected) and "api_v3_key" in wrong.message
