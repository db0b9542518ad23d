"""What 芝麻先享 asks of Alipay, and what each of its states means to us."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from alipay_double import (
    HOLD,
    ORDER_NO,
    PAY,
    QUERY,
    REF,
    REQUEST,
    SELLER_ID,
    Canned,
    Double,
    double,
    opened,
    provider_at,
    settings_of,
)

from service.adapters.providers.port import (
    AgreementRef,
    AgreementRequest,
    HoldRef,
    HoldRequest,
    Provider,
    RefundRef,
    RefundRequest,
)
from service.billing.agreements.standing import AgreementStatus, HoldStatus
from service.billing.outcomes import (
    Accepted,
    AlreadyDone,
    Closed,
    Conflict,
    Declined,
    NeedsRider,
    NotFound,
    Outcome,
    Postponed,
    Rejected,
    Succeeded,
    Unknown,
)

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
AGREEMENTS, ORDERS = "zhima.credit.payafteruse.creditagreement.", "zhima.credit.payafteruse.creditbizorder."
REFUND, REFUND_QUERY = "alipay.trade.refund", "alipay.trade.fastpay.refund.query"
CLOSE, SYNC = "alipay.trade.close", "alipay.trade.orderinfo.sync"
NUMBER = "ZMOP99202604030200810014698363"
AGREEMENT = AgreementRef("AG", NUMBER)
TRADE = {"out_trade_no": ORDER_NO, "trade_no": "2026", "total_amount": "12.34"}
OWN = msgspec.structs.replace(REF, hold=None)


@pytest.fixture
async def gateway() -> AsyncIterator[Double]:
    async with double() as it:
        yield it


@pytest.fixture
async def zhima(gateway: Double, tmp_path: Path) -> AsyncIterator[Provider]:
    async with provider_at(gateway.url, settings_of("zhima", tmp_path)) as it:
        yield it


async def test_a_rider_signs_by_a_string_and_the_agreement_is_asked_about(gateway: Double, zhima: Provider) -> None:
    request = AgreementRequest("AG", "rider-7", "CNY", return_url="https://app.test/back")
    begun = await zhima.begin_agreement(request)
    assert isinstance(begun, AgreementStatus) and begun.state == "pending"
    call = opened(begun.action)
    assert (call["method"], call["biz"]["out_agreement_no"]) == (f"{AGREEMENTS}sign", "AG")
    assert call["biz"]["product_code"] == "CREDIT_PAY_AFTER_USE"
    assert "rider-7" not in str(call) and gateway.asked == []
    for said, state in (
        ({"agreement_status": "VALID", "credit_agreement_id": NUMBER}, AgreementStatus("active", NUMBER)),
        ({"agreement_status": "INVALID", "credit_agreement_id": NUMBER}, AgreementStatus("revoked", NUMBER)),
        ({"agreement_status": "INVALID"}, AgreementStatus("pending")),
        ({"agreement_status": "QUANTUM"}, Unknown("agreement_status QUANTUM")),
        ({"agreement_status": "VALID"}, Unknown("agreement_status VALID")),
        ({"agreement_status": "VALID", "out_agreement_no": "B"}, Unknown("the answer is about another number")),
    ):
        gateway.says(f"{AGREEMENTS}query", said)
        assert await zhima.get_agreement(AgreementRef("AG")) == state
    gateway.refuses(f"{AGREEMENTS}query", "AGREEMENT_NOT_EXIST")
    assert await zhima.get_agreement(AgreementRef("AG")) == NotFound()


async def test_an_agreement_is_ended_once(gateway: Double, zhima: Provider) -> None:
    gateway.says(f"{AGREEMENTS}unsign", {})
    gateway.says(f"{AGREEMENTS}query", {"agreement_status": "VALID", "credit_agreement_id": NUMBER})
    assert await zhima.revoke_agreement(AgreementRef("AG")) == AgreementStatus("revoked", NUMBER)
    assert gateway.biz(f"{AGREEMENTS}unsign") == {"credit_agreement_id": NUMBER}
    gateway.refuses(f"{AGREEMENTS}unsign", "SOMETHING")
    assert await zhima.revoke_agreement(AGREEMENT) == Unknown("code SOMETHING")
    gateway.says(f"{AGREEMENTS}query", {"agreement_status": "INVALID", "credit_agreement_id": NUMBER})
    assert await zhima.revoke_agreement(AGREEMENT) == AgreementStatus("revoked", NUMBER)
    assert await zhima.revoke_agreement(AgreementRef("AG")) == AgreementStatus("revoked", NUMBER)


async def test_an_order_has_the_cap_as_the_most_it_can_pay(gateway: Double, zhima: Provider) -> None:
    request = HoldRequest("H0LD", AGREEMENT, 10_000, "CNY", "bike=7", AT)
    gateway.says(f"{ORDERS}order", {"credit_biz_order_id": ORDER_NO, "out_order_no": "H0LD"})
    assert await zhima.open_hold(request) == HoldStatus("open", ORDER_NO, 10_000)
    asked = gateway.biz(f"{ORDERS}order")
    assert (asked["order_amount"], asked["amount_type"], asked["subject"]) == ("100.00", "ORDER_AMOUNT", "bike 7")
    gateway.says(f"{AGREEMENTS}query", {"agreement_status": "INVALID"})
    unsigned = msgspec.structs.replace(request, agreement=AgreementRef("AG"))
    assert await zhima.open_hold(unsigned) == Declined(False, "AGREEMENT_NOT_SIGNED")
    gateway.refuses(f"{ORDERS}order", "AGREEMENT_INVALID")
    assert await zhima.open_hold(request) == Declined(False, "AGREEMENT_INVALID")
    gateway.refuses(f"{ORDERS}order", "NOBODY_KNOWS")
    assert await zhima.open_hold(request) == Unknown("code NOBODY_KNOWS")
    euro = await zhima.open_hold(msgspec.structs.replace(request, currency="EUR"))
    assert isinstance(euro, Rejected) and euro.code == "CURRENCY_NOT_SUPPORTED"


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("INIT", HoldStatus("open", ORDER_NO)),
        ("TRADE_FINISHED", HoldStatus("completed", ORDER_NO)),
        ("TRADE_CLOSED", HoldStatus("released", ORDER_NO)),
        ("OVERDUE", HoldStatus("open", ORDER_NO)),
        ("QUANTUM", Unknown("order_status QUANTUM")),
    ],
)
async def test_each_state_of_an_order(gateway: Double, zhima: Provider, status: str, state: object) -> None:
    gateway.says(f"{ORDERS}query", {"credit_biz_order_id": ORDER_NO, "order_status": status})
    assert await zhima.get_hold(HoldRef("H0LD")) == state
    other = await zhima.get_hold(HoldRef("H0LD", "ZMCB1"))
    assert other == Unknown("the answer is about another number")


async def test_an_order_is_finished_or_cancelled_and_looked_at_when_it_can_not_be(
    gateway: Double, zhima: Provider
) -> None:
    gateway.says(f"{ORDERS}finish", {})
    assert await zhima.finish_hold(HOLD) == HoldStatus("completed", ORDER_NO)
    finished = gateway.biz(f"{ORDERS}finish")
    assert finished == {"credit_biz_order_id": ORDER_NO, "out_request_no": "H0LD_finish", "is_fulfilled": "true"}
    assert await zhima.release_hold(HOLD) == HoldStatus("released", ORDER_NO)
    assert gateway.biz(f"{ORDERS}finish")["is_fulfilled"] == "false"
    gateway.refuses(f"{ORDERS}finish", "ORDER_STATUS_ERROR")
    for status, state in (("TRADE_FINISHED", "completed"), ("TRADE_CLOSED", "completed"), ("INIT", "open")):
        gateway.says(f"{ORDERS}query", {"credit_biz_order_id": ORDER_NO, "order_status": status})
        seen = await zhima.finish_hold(HOLD)
        assert isinstance(seen, HoldStatus) and seen.state == state
    gateway.refuses(f"{ORDERS}query", "ORDER_NOT_EXIST")
    assert await zhima.finish_hold(HOLD) == Unknown("ORDER_STATUS_ERROR")
    assert await zhima.release_hold(HoldRef("H0LD")) == NotFound()


@pytest.mark.parametrize(
    ("trade", "on_order", "own"),
    [
        ({"trade_status": "WAIT_BUYER_PAY"}, Accepted("2026"), NeedsRider("WAIT_BUYER_PAY")),
        ({"trade_status": "WAIT_BUYER_PAY", "total_amount": ""}, Accepted("2026"), NeedsRider("WAIT_BUYER_PAY")),
        (
            {"trade_status": "WAIT_BUYER_PAY", "total_amount": "10.00"},
            Conflict("total_amount 10.00"),
            Conflict("total_amount 10.00"),
        ),
        ({"trade_status": "TRADE_SUCCESS", "total_amount": "10.00"}, Succeeded(1000, "2026"), Succeeded(1000, "2026")),
        ({"trade_status": "TRADE_SUCCESS"}, Succeeded(1234, "2026"), Succeeded(1234, "2026")),
        ({"trade_status": "TRADE_FINISHED"}, Succeeded(1234, "2026"), Succeeded(1234, "2026")),
        ({"trade_status": "TRADE_CLOSED"}, Closed("TRADE_CLOSED"), Closed("TRADE_CLOSED")),
        ({"trade_status": "TRADE_CLOSED", "receipt_amount": "0.00"}, Closed("TRADE_CLOSED"), Closed("TRADE_CLOSED")),
        ({"trade_status": "TRADE_CLOSED", "send_pay_date": "2026"}, Succeeded(1234, "2026"), Succeeded(1234, "2026")),
        (
            {"trade_status": "TRADE_SUCCESS", "credit_pay_mode": "novel"},
            Unknown("credit_pay_mode novel"),
            Unknown("credit_pay_mode novel"),
        ),
        (
            {"trade_status": "TRADE_SUCCESS", "total_amount": "12.345"},
            Unknown("paid, with an amount that can't be read"),
            Unknown("paid, with an amount that can't be read"),
        ),
        ({"trade_status": "QUANTUM"}, Unknown("trade_status QUANTUM"), Unknown("trade_status QUANTUM")),
    ],
)
async def test_each_state_of_a_trade(
    gateway: Double, zhima: Provider, trade: dict[str, str], on_order: Outcome, own: Outcome
) -> None:
    gateway.says(QUERY, {**TRADE, **trade})
    assert await zhima.get_debit(REF) == on_order
    gateway.says(QUERY, {**TRADE, "out_trade_no": "K3Y", **trade})
    assert await zhima.get_debit(OWN) == own


async def test_a_debit_waits_for_the_orders_number(gateway: Double, zhima: Provider) -> None:
    unknown = msgspec.structs.replace(REQUEST, hold=HoldRef("H0LD"))
    gateway.says(f"{ORDERS}query", {"credit_biz_order_id": ORDER_NO, "order_status": "INIT"})
    gateway.says(PAY, {"async_pay_apply_status": "S"})
    assert await zhima.debit(unknown) == Accepted()
    assert gateway.biz(PAY)["out_trade_no"] == ORDER_NO
    gateway.says(f"{ORDERS}query", Canned({}, "html"))
    assert await zhima.debit(unknown) == Postponed(timedelta(seconds=5))  # Nothing was sent: again.
    assert await zhima.get_debit(msgspec.structs.replace(REF, hold=HoldRef("H0LD"))) == Unknown(
        "the answer can't be read"
    )


async def test_the_rider_pays_the_very_number_that_is_collected(gateway: Double, zhima: Provider) -> None:
    gateway.says(QUERY, {**TRADE, "trade_status": "WAIT_BUYER_PAY"})
    asked = await zhima.request_payment(REQUEST)
    assert isinstance(asked, NeedsRider)
    call = opened(asked.action)
    assert (call["method"], call["notify_url"]) == ("alipay.trade.app.pay", "https://example.test/notify")
    assert call["biz"] == {
        "out_trade_no": ORDER_NO,
        "total_amount": "12.34",
        "subject": "a ride 1 2",
        "product_code": "QUICK_MSECURITY_PAY",
        "seller_id": SELLER_ID,
    }
    gateway.says(QUERY, {**TRADE, "trade_status": "TRADE_SUCCESS"})
    assert await zhima.request_payment(REQUEST) == AlreadyDone()
    gateway.says(QUERY, {**TRADE, "trade_status": "TRADE_CLOSED"})
    late = await zhima.request_payment(REQUEST)
    assert isinstance(late, NeedsRider) and opened(late.action)["biz"]["out_trade_no"] == "K3Y_B"
    gateway.refuses(QUERY, "ACQ.TRADE_NOT_EXIST")
    approved = await zhima.debit(msgspec.structs.replace(REQUEST, hold=None))
    assert isinstance(approved, NeedsRider) and opened(approved.action)["biz"]["out_trade_no"] == "K3Y"


async def test_an_unpaid_trade_is_closed_or_paid_elsewhere(gateway: Double, zhima: Provider) -> None:
    gateway.says(QUERY, {**TRADE, "trade_status": "WAIT_BUYER_PAY"})
    gateway.says(CLOSE, {"out_trade_no": ORDER_NO})
    assert await zhima.close_debit(REF) == Closed()
    assert await zhima.reduce_debit(REF, 0) == Closed()
    assert isinstance(await zhima.reduce_debit(REF, 1), Rejected)
    assert isinstance(await zhima.nudge_debit(REF), Rejected)
    gateway.says(SYNC, {})
    assert await zhima.settle_elsewhere(REF, AT) == Closed()
    assert [call["method"] for call in gateway.asked[-3:]] == [QUERY, SYNC, CLOSE]
    assert gateway.biz(SYNC) == {
        "trade_no": "2026",
        "out_request_no": "K3Y_complete",
        "biz_type": "CREDIT_DEDUCT",
        "order_biz_info": '{"status":"COMPLETE"}',
    }
    gateway.refuses(CLOSE, "ACQ.TRADE_STATUS_ERROR")
    assert await zhima.close_debit(REF) == Unknown("ACQ.TRADE_STATUS_ERROR")
    gateway.says(QUERY, {**TRADE, "trade_status": "TRADE_SUCCESS"})
    assert await zhima.close_debit(REF) == AlreadyDone()
    assert await zhima.settle_elsewhere(REF, AT) == AlreadyDone()
    gateway.says(QUERY, {**TRADE, "trade_status": "TRADE_CLOSED"})
    assert await zhima.close_debit(REF) == await zhima.settle_elsewhere(REF, AT) == Closed("TRADE_CLOSED")
    gateway.refuses(QUERY, "ACQ.TRADE_NOT_EXIST")
    assert await zhima.settle_elsewhere(REF, AT) == NotFound()


async def test_numbers_before_the_one_that_the_rider_may_still_open_do_not_count_as_closed(
    gateway: Double, zhima: Provider
) -> None:
    """However many Alipay has closed; once his time is over, or the next one is there, it is as that says."""
    handed_out = msgspec.structs.replace(REF, handed_out=True)
    closed = [{**TRADE, "out_trade_no": number, "trade_status": "TRADE_CLOSED"} for number in (ORDER_NO, "K3Y_B")]
    for before in (closed[:1], closed):
        for wish in (zhima.close_debit, lambda debit: zhima.settle_elsewhere(debit, AT)):
            gateway.says(QUERY, *before)
            assert await wish(handed_out) == NotFound()
            gateway.says(QUERY, *before)
            assert await wish(REF) == Closed("TRADE_CLOSED")
    gateway.says(QUERY, *before)
    given = await zhima.request_payment(REQUEST)
    assert isinstance(given, NeedsRider) and opened(given.action)["biz"]["out_trade_no"] == "K3Y_C"
    assert {call["method"] for call in gateway.asked} == {QUERY}
    gateway.says(QUERY, closed[0], {**TRADE, "out_trade_no": "K3Y_B", "trade_status": "WAIT_BUYER_PAY"})
    gateway.says(CLOSE, {"out_trade_no": "K3Y_B"})
    assert await zhima.close_debit(handed_out) == Closed()
    assert gateway.biz(CLOSE) == {"out_trade_no": "K3Y_B"}


async def test_only_a_change_of_funds_or_the_query_makes_a_refund(gateway: Double, zhima: Provider) -> None:
    request = RefundRequest("R1", msgspec.structs.replace(REF, provider_ref="2026"), 234, "CNY", "good=will")
    gateway.says(REFUND, {"fund_change": "Y", "refund_fee": "12.34"})
    assert await zhima.refund(request) == Succeeded(234, "R1")
    assert gateway.biz(REFUND) == {
        "trade_no": "2026",
        "refund_amount": "2.34",
        "out_request_no": "R1",
        "refund_reason": "good will",
    }
    gateway.says(REFUND, {"fund_change": "Y", "refund_fee": "12.34", "trade_no": "another"})
    assert await zhima.refund(request) == Unknown("the answer is about another number")
    gateway.says(REFUND, {"fund_change": "N", "refund_fee": "12.34"})
    gateway.says(REFUND_QUERY, {"refund_status": "REFUND_SUCCESS", "refund_amount": "2.34", "out_request_no": "R1"})
    assert await zhima.refund(request) == Succeeded(234, "R1")
    gateway.says(REFUND_QUERY, {})
    assert await zhima.refund(request) == Accepted("R1")
    assert await zhima.get_refund(RefundRef("R1", REF)) == NotFound()
    assert gateway.biz(REFUND_QUERY) == {"out_trade_no": ORDER_NO, "out_request_no": "R1"}
    gateway.says(REFUND_QUERY, {"refund_status": "QUANTUM"})
    assert await zhima.get_refund(RefundRef("R1", REF)) == Unknown("refund_status QUANTUM")
    for code, outcome in (
        ("ACQ.SELLER_BALANCE_NOT_ENOUGH", Declined(True, "ACQ.SELLER_BALANCE_NOT_ENOUGH")),
        ("ACQ.TRADE_HAS_FINISHED", Declined(False, "ACQ.TRADE_HAS_FINISHED")),
        ("ACQ.REASON_TRADE_REFUND_FEE_ERR", Rejected("ACQ.REASON_TRADE_REFUND_FEE_ERR")),
        ("ACQ.REFUND_AMT_NOT_EQUAL_TOTAL", Rejected("ACQ.REFUND_AMT_NOT_EQUAL_TOTAL")),
        ("ACQ.DISCORDANT_REPEAT_REQUEST", Conflict("ACQ.DISCORDANT_REPEAT_REQUEST")),
        ("ACQ.TRADE_STATUS_ERROR", Rejected("ACQ.TRADE_STATUS_ERROR")),
        ("ACQ.SYSTEM_ERROR", Unknown("code 40004 ACQ.SYSTEM_ERROR")),
    ):
        gateway.refuses(REFUND, code)
        assert await zhima.refund(request) == outcome
