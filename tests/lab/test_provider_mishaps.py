"""Every fault of the simulator, at its faces: what the merchant sees of it, and that the books stay honest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, get_args

import aiohttp
import msgspec
import pytest
from alipay_shop import ZHIMA, Shop, shop, signed
from sandbox_peer import Peer, peer

from service.lab.provider.faults import CALL_FAULTS, Kind, Rates
from service.lab.provider.mishaps import MISHAPS
from service.lab.provider.rows import Account, Terms
from service.lab.provider.server import Plan

PAY = "alipay.trade.pay"
IMPATIENT, PATIENT = aiohttp.ClientTimeout(total=0.5), aiohttp.ClientTimeout(total=60)


def test_every_fault_has_a_share_and_every_call_fault_its_scene() -> None:
    kinds = {kind for group in get_args(Kind) for kind in get_args(group)} or set(get_args(Kind))
    assert set(Rates.__struct_fields__) == kinds
    assert tuple(MISHAPS) == CALL_FAULTS


async def paying(it: Shop, number: str, patience: aiohttp.ClientTimeout = PATIENT) -> str:
    """What a merchant who debits an order sees: an error's name, a status, a code, or a doubt."""
    asked = {"out_trade_no": number, "auth_code": number, "scene": "ZHIMA_CREDIT_CODE", "is_async_pay": True}
    asked |= {"total_amount": "10.00", "subject": "ride", "query_options": ["async_pay_info"]}
    try:
        async with it.peer.session.post(
            it.peer.url + "/gateway.do", data=signed(PAY, asked), timeout=patience
        ) as answer:
            body = await answer.read()
            dated = parsedate_to_datetime(answer.headers["Date"])
    except (aiohttp.ClientError, TimeoutError) as error:
        return type(error).__name__
    if answer.status != 200:
        return str(answer.status)
    try:
        told = it.believed(PAY, body)
    except AssertionError as doubt:
        return str(doubt).splitlines()[0]
    if abs(dated - datetime.now(UTC)) > timedelta(minutes=5):
        return "another time"
    return str(told.get("sub_code") or told["async_pay_apply_status"])


@pytest.mark.parametrize(
    ("kind", "seen", "executed"),
    [
        ("slow", "S", True),
        ("drop", "ServerDisconnectedError", False),
        ("reset", "ClientOSError", False),
        ("half_open", "TimeoutError", True),
        ("lost", "ServerDisconnectedError", True),
        ("error_before", "500", False),
        ("error_after", "500", True),
        ("unavailable_before", "isp.unknow-error", False),
        ("unavailable_after", "isp.unknow-error", True),
        ("throttle", "isv.app-call-limited", False),
        ("html", "502", True),
        ("truncated", "ClientPayloadError", True),
        ("unknown_enum", "QUANTUM", True),
        ("unknown_code", "ACQ.STRANGE", False),
        ("bad_signature", "the answer's signature is wrong", True),
        ("rotated_key", "the answer's signature is wrong", True),
        ("clock_skew", "another time", True),
        ("revoke", "S", True),
    ],
)
async def test_an_alipay_debit_with_a_fault_on_its_way(kind: str, seen: str, executed: bool) -> None:
    async with shop() as it:
        number = await it.ordered()
        await it.peer.script(kind, on="rider", op="debit.take")
        assert await paying(it, number, IMPATIENT if kind == "half_open" else PATIENT) == seen
        assert (await it.peer.debit(number) is not None) is executed
        assert await paying(it, number) in ("S", "ACQ.TRADE_HAS_SUCCESS")
        assert (await it.peer.debit(number))["payments"] <= 1


@pytest.mark.parametrize("code", ["aop.ACQ.SYSTEM_ERROR", "ACQ.SYSTEM_ERROR"])
async def test_a_system_error_that_says_nothing_has_the_name_it_was_given(code: str) -> None:
    async with shop() as it:
        number = await it.ordered()
        for kind in ("unavailable_before", "unavailable_after"):
            await it.peer.script(kind, op="debit.take", code=code)
            assert await paying(it, number) == code
        assert await it.peer.debit(number) is not None


@pytest.mark.parametrize("on", ["order_01", "number", "rider", "*"])
async def test_a_fault_finds_a_debit_by_any_name_of_its_ride(on: str) -> None:
    async with shop() as it:
        number = await it.ordered()
        await it.peer.script("unknown_code", on=number if on == "number" else on, op="debit.take")
        await it.peer.script("unknown_code", on="another", op="debit.take")
        assert await paying(it, number) == "ACQ.STRANGE"
        assert await paying(it, number) == "S"


async def test_a_query_that_lags_shows_what_was_before_the_last_change() -> None:
    async with shop() as it:
        number = await it.ordered()
        await it.balance(0)
        await it.peer.script("later", on=number, seconds=3600)
        await it.pay(number)
        await it.peer.script("query_lag", on=number, seconds=60, times=2)
        assert await it.status(number) == "ACQ.TRADE_NOT_EXIST"
        await it.later(timedelta(seconds=60))
        assert await it.status(number) == "WAIT_BUYER_PAY"
        await it.open("alipay.trade.app.pay", out_trade_no=number, subject="ride", total_amount="10.00")
        await it.peer.script("query_lag", on=number, seconds=60)
        assert await it.status(number) == "WAIT_BUYER_PAY"
        assert await it.status(number) == "TRADE_SUCCESS"


async def test_a_query_fails_and_a_command_does_not() -> None:
    async with shop() as it:
        number = await it.ordered()
        await it.peer.script("query_fails", times=1)
        assert await paying(it, number) == "S"
        async with it.peer.session.post(
            it.peer.url + "/gateway.do", data=signed("alipay.trade.query", {"out_trade_no": number})
        ) as answer:
            assert answer.status == 500
        assert await it.status(number) == "TRADE_SUCCESS"


async def test_what_the_rider_ends_just_before_an_order_refuses_it() -> None:
    async with shop() as it:
        agreement = await it.agreement()
        await it.peer.script("revoke", op="hold.open")
        assert (await it.order(agreement))["sub_code"] == "AGREEMENT_INVALID"


async def refunded(it: Shop) -> tuple[str, Any]:
    """A paid ride, all of its notifications taken, and what a refund of it was answered."""
    number = await it.ordered()
    await it.pay(number)
    for _ in range(3):
        await it.notice()
    await it.peer.script("notify_before_reply", op="refund.make")
    asked = {"out_trade_no": number, "refund_amount": "1.00", "out_request_no": "r1"}
    return number, await it.call("alipay.trade.refund", **asked)


async def test_a_notification_comes_before_the_reply() -> None:
    async with shop(notified=True) as it:
        await refunded(it)
        assert it.notices.get_nowait()["out_biz_no"] == "r1"


@pytest.mark.parametrize("kind", ["notify_twice", "notify_both_at_once"])
async def test_a_notification_comes_twice_under_one_number(kind: str) -> None:
    async with shop(notified=True) as it:
        await it.peer.script(kind, on="r1")
        await refunded(it)
        first, second = await it.notice(), await it.notice()
        assert first == second and it.signed(first)


async def test_a_tampered_notification_is_not_alipays() -> None:
    async with shop(notified=True) as it:
        await it.peer.script("notify_tampered", on="r1")
        await refunded(it)
        told = await it.notice()
        assert (told["total_amount"], it.signed(told)) == ("910.00", False)


async def test_a_notification_with_a_state_that_nobody_listed_is_signed() -> None:
    async with shop(notified=True) as it:
        await it.peer.script("notify_unknown_enum", on="r1")
        await refunded(it)
        told = await it.notice()
        assert (told["trade_status"], it.signed(told)) == ("QUANTUM", True)
        await it.peer.script("notify_unknown_enum", on="agr_2")
        await it.agreement("agr_2", rider="another")
        told = await it.notice()
        assert '"QUANTUM"' in told["biz_content"] and it.signed(told)


async def test_a_notification_is_dated_minutes_off() -> None:
    async with shop(notified=True) as it:
        await it.peer.script("notify_skew", on="r1", seconds=-360)
        await refunded(it)
        told = await it.notice()
        assert (told["notify_time"], it.signed(told)) == ("2026-11-22 17:54:00", True)


async def test_a_lost_notification_comes_with_the_next_attempt_and_a_late_one_late() -> None:
    async with shop(notified=True) as it:
        await it.peer.script("notify_lost", on="r1")
        number, _ = await refunded(it)
        assert it.notices.empty()
        await it.later(timedelta(minutes=4))
        assert (await it.notice())["out_biz_no"] == "r1"
        await it.peer.script("notify_late", on="r2")
        await it.peer.script("notify_before_reply", op="refund.make")
        await it.call("alipay.trade.refund", out_trade_no=number, refund_amount="1.00", out_request_no="r2")
        assert it.notices.empty()
        await it.later(timedelta(days=1))
        assert (await it.notice())["out_biz_no"] == "r2"


async def test_a_notification_is_overtaken_by_the_next_one() -> None:
    async with shop(notified=True) as it:
        await it.peer.script("notify_reordered", on="r1")
        number, _ = await refunded(it)
        await it.call("alipay.trade.refund", out_trade_no=number, refund_amount="2.00", out_request_no="r2")
        assert [(await it.notice())["out_biz_no"] for _ in range(2)] == ["r2", "r1"]


async def test_the_same_bytes_come_again_long_after_they_were_taken() -> None:
    async with shop(notified=True) as it:
        await it.peer.script("notify_replayed", on="r1", seconds=3600)
        await refunded(it)
        first = await it.notice()
        await it.later(timedelta(hours=1))
        assert await it.notice() == first


async def test_a_wallet_is_short_a_few_times_and_then_pays() -> None:
    async with shop(retry_s=(3600,)) as it:
        number = await it.ordered()
        await it.peer.script("decline", on=number, times=3, code="DAY_LIMIT")
        await it.pay(number)
        for _ in range(3):
            assert await it.status(number) == "WAIT_BUYER_PAY"
            await it.later(timedelta(hours=1))
        assert await it.status(number) == "TRADE_SUCCESS"


async def test_a_refund_fails_and_succeeds_under_the_same_number() -> None:
    async with shop() as it:
        number = await it.ordered()
        await it.pay(number)
        assert await it.status(number) == "TRADE_SUCCESS"
        await it.peer.script("refund_abnormal", on="r1")
        asked = {"out_trade_no": number, "refund_amount": "1.00", "out_request_no": "r1"}
        assert (await it.call("alipay.trade.refund", **asked))["fund_change"] == "N"
        named = {"out_trade_no": number, "out_request_no": "r1"}
        assert "refund_status" not in await it.call("alipay.trade.fastpay.refund.query", **named)
        assert (await it.call("alipay.trade.refund", **asked))["fund_change"] == "Y"
        assert (await it.peer.books())["accounts"][0]["refunded_minor"] == 100


class Merchant:
    """A merchant at the sandbox face."""

    def __init__(self, at: Peer) -> None:
        self.peer = at

    async def call(self, method: str, path: str, **body: Any) -> Any:
        data = msgspec.json.encode(body) if body else None
        headers = {"Authorization": "Bearer shop"}
        async with self.peer.session.request(method, f"{self.peer.url}/v1/{path}", data=data, headers=headers) as told:
            return msgspec.json.decode(await told.read())

    async def debit(self, key: str, amount_minor: int = 100) -> Any:
        return await self.call("POST", "debits", key=key, agreement="ag", amount_minor=amount_minor, currency="CNY")

    async def later(self, by: timedelta) -> None:
        now = datetime.fromisoformat((await self.peer.call("GET", "/clock"))["now"])
        await self.peer.call("PUT", "/clock", {"now": now + by, "speed": 0})


async def merchant(at: Peer, **terms: Any) -> Merchant:
    await at.call("PUT", "/clock", {"now": datetime(2026, 11, 22, 10, tzinfo=UTC), "speed": 0})
    await at.call("PUT", "/accounts", Account("shop", "shop", Terms(**({"confirm_agreement": False} | terms))))
    it = Merchant(at)
    await it.call("POST", "agreements", key="ag", rider="rider", currency="CNY")
    return it


async def test_a_provider_that_ignores_keys_debits_and_refunds_twice() -> None:
    async with peer() as at:
        it = await merchant(at, forgets_keys=True)
        for _ in range(2):
            assert (await it.debit("d"))["state"] == "paid"
        for _ in range(2):
            refund = await it.call("POST", "refunds", key="r", debit="d", amount_minor=50)
            assert refund["state"] == "paid"
        account = (await at.books())["accounts"][0]
        assert (account["paid_minor"], account["refunded_minor"]) == (200, 100)


async def test_half_is_taken_first_and_the_rest_at_the_next_try() -> None:
    async with peer() as at:
        it = await merchant(at, retry_s=(60,))
        await at.script("partial", on="d")
        told = await it.debit("d", 101)
        assert (told["state"], told["paid_minor"]) == ("accepted", 51)
        await it.later(timedelta(minutes=1))
        told = await it.call("GET", "debits/d")
        assert (told["state"], told["paid_minor"]) == ("paid", 101)
        assert (await at.debit("d"))["payments"] == 2
        await at.books()


@pytest.mark.parametrize(
    ("kind", "today", "tomorrow"),
    [
        ("statement_missing", ["a:100"], []),
        ("statement_extra", ["a:100", "b:100", "bx:100"], []),
        ("statement_off", ["a:100", "b:101"], []),
        ("statement_late", ["a:100"], ["b:100"]),
        ("statement_twice", ["a:100", "b:100", "b:100"], []),
    ],
)
async def test_a_row_of_the_statement_is_wrong_however_often_it_is_asked_for(
    kind: str, today: list[str], tomorrow: list[str]
) -> None:
    async with peer() as at:
        it = await merchant(at)
        for key in ("a", "b"):
            await it.debit(key)
        await at.script(kind, on="b", op="statement.get")
        for _ in range(2):
            for day, expected in (("2026-11-22", today), ("2026-11-23", tomorrow)):
                rows = await it.call("GET", f"statements/{day}")
                assert [f"{row['key']}:{row['amount_minor']}" for row in rows] == expected
        await at.books()


async def test_a_chargeback_takes_the_money_and_gives_it_back_when_it_is_won() -> None:
    async with peer() as at:
        it = await merchant(at)
        for key, end in (("a", "won"), ("b", "lost")):
            await it.debit(key)
            named = {"account_id": "shop", "debit": key, "kind": "chargeback"}
            for _ in range(2):
                told = await at.call("POST", "/disputes", named)
                assert (told["state"], told["amount_minor"]) == ("open", 100)
            refund = await it.call("POST", "refunds", key=f"r{key}", debit=key, amount_minor=1)
            assert refund["error"]["code"] == "REFUND_DISPUTED"
            await at.books()
            assert (await at.call("POST", "/disputes", named | {"state": end}))["state"] == end
            refund = await it.call("POST", "refunds", key=f"r{key}", debit=key, amount_minor=1)
            assert ("error" in refund) is (end == "lost")
        await at.books()


async def test_a_complaint_moves_nothing_and_tells_the_merchant() -> None:
    async with shop(notified=True) as it:
        number = await it.ordered()
        await it.pay(number)
        for _ in range(3):
            await it.notice()
        named = {"account_id": "shop", "debit": number, "kind": "complaint"}
        await it.peer.call("POST", "/disputes", named)
        told = await it.notice()
        assert told["msg_method"] == "alipay.merchant.tradecomplain.changed" and it.signed(told)
        event = msgspec.json.decode(told["biz_content"])
        seen = await it.call("alipay.merchant.tradecomplain.query", **event)
        assert (seen["status"], seen["merchant_order_no"]) == ("MERCHANT_PROCESSING", number)
        await it.peer.call("POST", "/disputes", named | {"state": "resolved"})
        assert msgspec.json.decode((await it.notice())["biz_content"]) == event
        assert (await it.call("alipay.merchant.tradecomplain.query", **event))["status"] == "FINISHED"
        unknown = await it.call("alipay.merchant.tradecomplain.query", complain_event_id="DI0")
        assert unknown["sub_code"] == "COMPLAIN_EVENT_NOT_EXIST"
        asked = {"out_trade_no": number, "refund_amount": "1.00", "out_request_no": "r"}
        assert (await it.call("alipay.trade.refund", **asked))["fund_change"] == "Y"


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_drawn_the_books_are_honest_and_nobody_pays_twice(seed: int) -> None:
    """A merchant who does not give up: he asks under the same numbers until he is told that it is done."""
    silent = {"half_open", "slow"}
    shares = {kind: 0.03 for kind in Rates.__struct_fields__ if kind not in silent}
    rates = Rates(**(shares | {"decline": 0.2, "later": 0.2, "partial": 0.2, "refund_abnormal": 0.2}))
    async with shop(Plan(seed=seed, rates=rates), retry_s=(60,)) as it:
        await it.peer.call("PUT", "/rates", {})
        agreement = await it.agreement()
        orders = [str((await it.order(agreement, f"order_{n:02d}"))["credit_biz_order_id"]) for n in range(12)]
        await it.peer.call("PUT", "/rates", rates)
        for number in orders:
            for _ in range(6):
                await paying(it, number)
            await it.later(timedelta(hours=2))
        await it.peer.call("PUT", "/rates", {})
        await it.later(timedelta(days=1))
        await it.later(timedelta(days=1))
        for number in orders:
            assert await it.status(number) == "TRADE_SUCCESS"
        books = await it.peer.books()
        assert books["accounts"][0]["paid_minor"] == 12 * 1000
        assert books["accounts"][0]["debits"] == {"paid": 12}


async def test_an_order_is_told_apart_from_another_merchants() -> None:
    async with shop() as it:
        number = await it.ordered()
        told = await it.call(f"{ZHIMA}creditbizorder.query", credit_biz_order_id=f"{number[:-1]}9")
        assert told["sub_code"] == "ORDER_NOT_EXIST"
