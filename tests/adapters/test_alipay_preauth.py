"""What a pre-authorisation asks of Alipay, and what each of its states means to us."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alipay_double import (
    ORDER_NO,
    PAY,
    QUERY,
    REF,
    REQUEST,
    SELLER_ID,
    Double,
    double,
    opened,
    provider_at,
    settings_of,
)

from service.adapters.providers.port import (
    AgreementRef,
    HoldRef,
    HoldRequest,
    Provider,
)
from service.billing.agreements.standing import AgreementStatus, HoldStatus
from service.billing.outcomes import (
    Accepted,
    CapExceeded,
    Conflict,
    Declined,
    NotFound,
    Rejected,
    Succeeded,
    Unknown,
)

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
SYNC = "alipay.trade.orderinfo.sync"
AUTH_QUERY, UNFREEZE = "alipay.fund.auth.operation.detail.query", "alipay.fund.auth.order.unfreeze"
TRADE = {"out_trade_no": ORDER_NO, "trade_no": "2026", "total_amount": "12.34"}
OWN = msgspec.structs.replace(REF, hold=None)
AUTH: dict[str, Any] = {
    "auth_no": "2026A",
    "out_order_no": "H0LD",
    "order_title": "ride",
    "order_status": "AUTHORIZED",
    "status": "SUCCESS",
    "total_freeze_amount": "100.00",
    "rest_amount": "100.00",
    "payer_user_id": "2088302537001234",
}


@pytest.fixture
async def gateway() -> AsyncIterator[Double]:
    async with double() as it:
        yield it


@pytest.fixture
async def zhima(gateway: Double, tmp_path: Path) -> AsyncIterator[Provider]:
    async with provider_at(gateway.url, settings_of("zhima", tmp_path)) as it:
        yield it


@pytest.fixture
async def preauth(gateway: Double, tmp_path: Path) -> AsyncIterator[Provider]:
    async with provider_at(gateway.url, settings_of("preauth", tmp_path)) as it:
        yield it


async def test_a_freeze_is_confirmed_by_the_rider(gateway: Double, preauth: Provider) -> None:
    request = HoldRequest("H0LD", AgreementRef("AG"), 10_000, "CNY", "bike/7", AT)
    assert await preauth.get_agreement(AgreementRef("AG")) == AgreementStatus("active")
    begun = await preauth.open_hold(request)
    assert isinstance(begun, HoldStatus) and begun.state == "pending"
    call = opened(begun.action)
    assert (call["method"], call["biz"]["amount"]) == ("alipay.fund.auth.order.app.freeze", "100.00")
    assert "serviceId" in call["biz"]["extra_param"]
    gateway.says(AUTH_QUERY, {**AUTH, "order_status": "INIT", "status": "INIT"})
    again = await preauth.get_hold(HoldRef("H0LD"))
    assert isinstance(again, HoldStatus) and opened(again.action)["biz"] == call["biz"] | {"order_title": "ride"}
    for changed, state in (
        ({}, HoldStatus("open", "2026A", 10_000)),
        ({"order_status": "FINISH"}, HoldStatus("completed", "2026A", 10_000)),
        ({"order_status": "CLOSED"}, HoldStatus("released", "2026A", 10_000)),
        ({"order_status": "CLOSED", "status": "CLOSED"}, HoldStatus("expired", "2026A")),
        ({"order_status": "QUANTUM"}, Unknown("order_status QUANTUM")),
        ({"out_order_no": "OTHER"}, Unknown("the answer is about another number")),
    ):
        gateway.says(AUTH_QUERY, AUTH | changed)
        assert await preauth.get_hold(HoldRef("H0LD")) == state
    gateway.refuses(AUTH_QUERY, "AUTH_ORDER_NOT_EXIST")
    assert await preauth.get_hold(HoldRef("H0LD")) == NotFound()


async def test_an_authorisation_pays_and_the_rest_is_unfrozen(gateway: Double, preauth: Provider) -> None:
    request = msgspec.structs.replace(REQUEST, hold=HoldRef("H0LD", "2026A"))
    gateway.says(AUTH_QUERY, AUTH)
    gateway.says(PAY, {"out_trade_no": "K3Y", "trade_no": "2026", "total_amount": "12.34"})
    assert await preauth.debit(request) == Succeeded(1234, "2026")
    assert gateway.biz(PAY) == {
        "out_trade_no": "K3Y",
        "product_code": "PRE_AUTH_ONLINE",
        "auth_no": "2026A",
        "auth_confirm_mode": "COMPLETE",
        "total_amount": "12.34",
        "subject": "a ride 1 2",
        "seller_id": SELLER_ID,
        "buyer_id": "2088302537001234",
    }
    gateway.refuses(PAY, "ACQ.BUYER_BALANCE_NOT_ENOUGH")
    assert await preauth.debit(request) == Declined(True, "ACQ.BUYER_BALANCE_NOT_ENOUGH")
    gateway.says(QUERY, {**TRADE, "out_trade_no": "K3Y", "trade_status": "WAIT_BUYER_PAY"})
    ref = msgspec.structs.replace(REF, hold=request.hold)
    assert await preauth.get_debit(ref) == Declined(True, "WAIT_BUYER_PAY")
    other = msgspec.structs.replace(ref, amount_minor=1000)
    assert await preauth.get_debit(other) == Conflict("total_amount 12.34")
    for changed, outcome in (
        ({"rest_amount": "12.33"}, CapExceeded(1233)),
        ({"order_status": "CLOSED"}, Declined(False, "AUTH_CLOSED")),
        ({"order_status": "INIT"}, Declined(False, "AUTH_INIT")),
    ):
        gateway.says(AUTH_QUERY, AUTH | changed)
        assert await preauth.debit(request) == outcome
    gateway.refuses(AUTH_QUERY, "AUTH_ORDER_NOT_EXIST")
    assert await preauth.debit(request) == Declined(False, "AUTH_ORDER_NOT_EXIST")


async def test_what_is_still_frozen_is_given_back(gateway: Double, preauth: Provider) -> None:
    hold = HoldRef("H0LD", "2026A")
    gateway.says(AUTH_QUERY, {**AUTH, "rest_amount": "87.66"})
    gateway.says(UNFREEZE, {})
    assert await preauth.finish_hold(hold) == HoldStatus("completed", "2026A")
    assert gateway.biz(UNFREEZE) == {
        "auth_no": "2026A",
        "out_request_no": "H0LD_unfreeze",
        "amount": "87.66",
        "remark": "行程结束",
        "extra_param": '{"unfreezeBizInfo":{"bizComplete":"true"}}',
    }
    assert await preauth.release_hold(hold) == HoldStatus("released", "2026A")
    gateway.refuses(UNFREEZE, "NOBODY_KNOWS")
    assert await preauth.release_hold(hold) == Unknown("NOBODY_KNOWS")
    gateway.says(AUTH_QUERY, {**AUTH, "order_status": "FINISH"})
    assert await preauth.finish_hold(hold) == HoldStatus("completed", "2026A")
    gateway.says(AUTH_QUERY, {**AUTH, "order_status": "INIT"})
    gateway.says("alipay.fund.auth.operation.cancel", {})
    assert await preauth.release_hold(hold) == HoldStatus("released", "2026A")
    assert await preauth.finish_hold(hold) == HoldStatus("released", "2026A")
    assert gateway.biz("alipay.fund.auth.operation.cancel")["out_order_no"] == "H0LD"
    gateway.refuses(AUTH_QUERY, "AUTH_ORDER_NOT_EXIST")
    for ended in (await preauth.release_hold(hold), await preauth.finish_hold(hold)):
        assert ended == HoldStatus("released", "2026A", unopened=True)


async def test_how_a_rider_paid_is_reported_where_it_is_ours_to_report(
    gateway: Double, zhima: Provider, preauth: Provider
) -> None:
    assert isinstance(await zhima.report_performance(REF, "violated", "P1"), Rejected)
    gateway.says(SYNC, {})
    gateway.says(QUERY, {**TRADE, "out_trade_no": "K3Y", "trade_status": "TRADE_CLOSED"})
    assert await preauth.report_performance(OWN, "violated", "P1") == Accepted("2026")
    told = gateway.biz(SYNC)
    assert (told["biz_type"], told["order_biz_info"], told["out_request_no"]) == (
        "CREDIT_AUTH",
        '{"status":"VIOLATED"}',
        "P1",
    )
    assert zhima.capabilities.provider_retries and not preauth.capabilities.provider_retries
    assert preauth.capabilities.reports_performance == "merchant"
