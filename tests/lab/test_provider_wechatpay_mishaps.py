"""Every fault of the simulator at the WeChat Pay face: what the merchant sees of it, and that the books stay honest."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import aiohttp
import pytest
from wechat_shop import PATIENT, SECONDS, SERVICE, Shop, opened, shop

from service.lab.provider.faults import Rates
from service.lab.provider.server import Plan

IMPATIENT = aiohttp.ClientTimeout(total=0.5)
DONE = "2026112218"


async def completing(it: Shop, key: str = "order_1", patience: aiohttp.ClientTimeout = PATIENT) -> str:
    """What a merchant who completes an order sees: an error's name, a number, a state, or a doubt."""
    asked = {"appid": "wx0000000000000001", "service_id": SERVICE, "total_amount": 1234}
    asked |= {"post_payments": [{"name": "骑行", "amount": 1234}], "time_range": {"end_time": f"{DONE}0000"}}
    try:
        told = await it.ask("POST", f"/v3/payscore/serviceorder/{key}/complete", asked, patience=patience)
    except (aiohttp.ClientError, TimeoutError) as error:
        return type(error).__name__
    except AssertionError as doubt:
        return str(doubt).splitlines()[0]
    except KeyError as missing:
        return f"no {missing.args[0]}"
    if abs(parsedate_to_datetime(told.headers["Date"]) - datetime.now(UTC)) > timedelta(minutes=5):
        return "another time"
    return str(told.body["state"] if told.status == 200 else f"{told.status} {told.code} {told.number}")


@pytest.mark.parametrize(
    ("kind", "seen", "executed"),
    [
        ("slow", "DOING", True),
        ("drop", "ServerDisconnectedError", False),
        ("reset", "ClientOSError", False),
        ("half_open", "TimeoutError", True),
        ("lost", "ServerDisconnectedError", True),
        ("error_before", "nobody knows this serial number", False),
        ("error_after", "nobody knows this serial number", True),
        ("unavailable_before", "500 SYSTEM_ERROR 268435461", False),
        ("unavailable_after", "500 SYSTEM_ERROR 268435461", True),
        ("throttle", "429 RATELIMIT_EXCEEDED 268435472", False),
        ("html", "nobody knows this serial number", True),
        ("truncated", "ClientPayloadError", True),
        ("unknown_enum", "QUANTUM", True),
        ("unknown_code", "400 STRANGE 268566000", False),
        ("bad_signature", "the signature is wrong", True),
        ("rotated_key", "nobody knows this serial number", True),
        ("clock_skew", "another time", True),
        ("revoke", "DOING", True),
    ],
)
async def test_a_completion_with_a_fault_on_its_way(kind: str, seen: str, executed: bool) -> None:
    async with shop() as it:
        await it.order(await it.permission())
        await it.balance(0)
        await it.peer.script(kind, on="rider", op="debit.take")
        assert await completing(it, patience=IMPATIENT if kind == "half_open" else PATIENT) == seen
        assert (await it.peer.debit("order_1") is not None) is executed
        assert await completing(it) == "DOING"
        await it.balance(5000)
        await it.later(timedelta(days=2))
        assert (await it.peer.debit("order_1"))["payments"] == 1


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("271316574", "400 INVALID_REQUEST 271316574"),
        ("271316754", "400 INVALID_REQUEST 271316754"),
        ("299999999", "400 INVALID_REQUEST 299999999"),
        ("NEW_CODE", "400 NEW_CODE 268566000"),
    ],
)
async def test_a_code_is_the_one_that_was_scripted_listed_or_not(code: str, seen: str) -> None:
    async with shop() as it:
        await it.order(await it.permission())
        await it.peer.script("unknown_code", on="order_1", op="debit.take", code=code)
        assert await completing(it) == seen
        assert await it.peer.debit("order_1") is None


@pytest.mark.parametrize("on", ["order_1", "rider", "perm_1", "*"])
async def test_a_fault_finds_a_completion_by_any_name_of_its_ride(on: str) -> None:
    async with shop() as it:
        await it.order(await it.permission())
        await it.peer.script("unknown_code", on="another")
        await it.peer.script("unknown_code", on=on, op="debit.take")
        assert await completing(it) == "400 STRANGE 268566000"
        assert await completing(it) == "DOING"


async def test_asking_about_an_order_is_asking_about_its_debit_once_it_is_completed() -> None:
    async with shop() as it:
        await it.order(await it.permission())
        await it.peer.script("unknown_code", on="rider", op="debit.get")
        assert (await it.found())["state"] == "DOING"
        await it.complete()
        assert (await it.found())["code"] == "STRANGE"


async def test_a_refund_is_found_by_its_payment_and_a_lost_one_is_made_once() -> None:
    async with shop() as it:
        await it.order(await it.permission())
        await it.complete()
        number = await it.transaction()
        await it.peer.script("lost", on="order_1", op="refund.make")
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await it.refund(number, 234)
        assert (await it.refund(number, 234)).body["status"] == "SUCCESS"
        assert (await it.peer.books())["accounts"][0]["refunded_minor"] == 234


async def test_a_query_that_lags_shows_what_was_before_the_last_change() -> None:
    async with shop() as it:
        whose = await it.permission()
        await it.order(whose)
        await it.peer.script("query_lag", on="order_1", seconds=60)
        assert (await it.found())["code"] == "RESOURCE_NOT_EXISTS"
        await it.later(timedelta(minutes=2))
        await it.peer.script("later", on="order_1", seconds=7200)
        await it.complete()
        await it.peer.script("query_lag", on="order_1", seconds=60, op="debit.get")
        assert await it.states() == ("DOING", "USER_CONFIRM", None)
        await it.later(timedelta(minutes=2))
        await it.ride("pay", order="order_1")
        await it.peer.script("query_lag", on="order_1", seconds=60)
        assert await it.states() == ("DOING", "MCH_COMPLETE", "USER_PAYING")
        assert await it.states() == ("DONE", None, "USER_PAID")
        await it.peer.script("query_fails", on="order_1")
        with pytest.raises(AssertionError, match="nobody knows"):
            await it.found()


async def test_a_debit_is_decided_later_and_declined_a_few_times() -> None:
    async with shop(retry_s=(3600,)) as it:
        await it.order(await it.permission())
        await it.peer.script("later", on="order_1", seconds=7200)
        await it.peer.script("decline", on="rider", times=2)
        await it.complete()
        for _ in range(4):
            assert (await it.states())[2] == "USER_PAYING"
            await it.later(timedelta(hours=1))
        assert (await it.states())[2] == "USER_PAID"


async def test_half_is_collected_first_where_that_was_scripted() -> None:
    async with shop(retry_s=(60,)) as it:
        await it.order(await it.permission())
        await it.peer.script("partial", on="order_1")
        await it.complete()
        collected = (await it.found())["collection"]
        assert (collected["paid_amount"], collected["paying_amount"]) == (617, 617)
        await it.later(timedelta(minutes=1))
        assert (await it.states())[2] == "USER_PAID"
        assert (await it.peer.debit("order_1"))["payments"] == 2


async def test_a_notification_before_the_answer_tells_what_the_answer_will() -> None:
    async with shop() as it:
        await it.order(await it.permission())
        await it.notice()
        await it.complete()
        await it.found()
        assert (await it.notice())["event_type"] == "PAYSCORE.USER_PAID"
        await it.peer.script("notify_before_reply", op="refund.make")
        told = await it.refund(await it.transaction(), 234)
        assert it.inbox.arrived.qsize() == 1
        assert (await it.notice())["resource"]["refund_status"] == told.body["status"]


@pytest.mark.parametrize("kind", ["notify_tampered", "notify_skew"])
async def test_a_notification_that_is_not_to_be_believed_comes_again_as_it_should(kind: str) -> None:
    async with shop() as it:
        it.inbox.answer = 500
        await it.peer.script(kind, op="notice")
        await it.permission()
        doubt = {"notify_tampered": "the signature is wrong", "notify_skew": "another time"}[kind]
        with pytest.raises(AssertionError, match=doubt):
            await it.notice()
        await until_tried(it)
        it.inbox.answer = 204
        await it.later(timedelta(seconds=15))
        assert (await it.notice())["event_type"] == "PAYSCORE.USER_OPEN_SERVICE"


@pytest.mark.parametrize(("kind", "times"), [("notify_twice", 2), ("notify_both_at_once", 2), ("notify_replayed", 2)])
async def test_a_notification_comes_more_than_once_under_one_id(kind: str, times: int) -> None:
    async with shop() as it:
        await it.peer.script(kind, op="notice", seconds=60)
        await it.permission()
        first = await it.notice()
        if kind == "notify_replayed":
            await it.later(timedelta(minutes=2))
        assert (await it.notice())["id"] == first["id"]


async def test_a_notification_is_lost_late_overtaken_or_of_a_state_that_nobody_listed() -> None:
    async with shop() as it:
        await it.peer.script("notify_lost", op="notice")
        await it.permission()
        await until_tried(it)
        assert it.inbox.arrived.empty()
        await it.later(timedelta(seconds=15))
        assert (await it.notice())["event_type"] == "PAYSCORE.USER_OPEN_SERVICE"
        await it.peer.script("notify_unknown_enum", op="notice")
        await it.ride("terminate", rider="rider")
        told = await it.notice()
        assert told["resource"]["user_service_status"] == "QUANTUM"
        await it.peer.script("notify_reordered", on="perm_2", op="notice")
        whose = await it.permission("perm_2")
        await it.order(whose)
        assert (await it.complete(time_range={"end_time": f"{DONE}0015"})).status == 200
        await it.found()
        kinds = [(await it.notice())["event_type"] for _ in range(2)]
        assert kinds == ["PAYSCORE.USER_PAID", "PAYSCORE.USER_OPEN_SERVICE"]


async def test_what_a_notification_says_can_only_be_read_with_the_apiv3_key() -> None:
    async with shop() as it:
        whose = await it.permission()
        async with asyncio.timeout(SECONDS):
            _, body = await it.inbox.arrived.get()
        assert whose.encode() not in body
        assert opened(body)["resource"]["openid"] == whose


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_drawn_the_books_are_honest_and_nobody_pays_twice(seed: int) -> None:
    """A merchant who does not give up: he asks under the same numbers until he is told that it is done."""
    silent = {"half_open", "slow"}
    shares = {kind: 0.03 for kind in Rates.__struct_fields__ if kind not in silent}
    rates = Rates(**(shares | {"decline": 0.2, "later": 0.2, "partial": 0.2, "refund_abnormal": 0.2, "refuse": 0.0}))
    async with shop(Plan(seed=seed), retry_s=(60,), holds_max=None, unpaid_max=None) as it:
        whose = await it.permission()
        orders = [f"order_{n:02d}" for n in range(12)]
        for key in orders:
            assert (await it.order(whose, key)).status == 200
        await it.peer.call("PUT", "/rates", rates)
        for key in orders:
            for _ in range(6):
                await completing(it, key)
            await it.later(timedelta(hours=2))
        await it.peer.call("PUT", "/rates", {})
        for _ in range(2):
            await it.later(timedelta(days=1))
        for key in orders:
            assert await it.states(key) == ("DONE", None, "USER_PAID")
        books = await it.peer.books()
        assert books["accounts"][0]["paid_minor"] == 12 * 1234
        assert books["accounts"][0]["debits"] == {"paid": 12}


async def until_tried(it: Shop) -> None:
    """Until the books know how the last attempt to deliver ended: then the next is planned after now."""
    async with asyncio.timeout(SECONDS):
        while True:
            lines = await it.peer.call("GET", "/books/notices")
            now = (await it.peer.call("GET", "/clock"))["now"]
            if lines and all(line["next_at"] > now for line in lines):
                return
