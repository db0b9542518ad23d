"""What Alipay's gateway is sent, and what of its answers is believed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alipay_double import (
    APP_ID,
    ORDER_NO,
    PAY,
    QUERY,
    REF,
    REQUEST,
    Canned,
    Double,
    account_of,
    double,
    private_pem,
    provider_at,
    public_pem,
    settings_of,
)

from service.adapters.providers import open_provider
from service.adapters.providers.alipay import codes
from service.adapters.providers.port import Provider
from service.adapters.providers.secrets import AccountSettingsError
from service.billing.outcomes import (
    BARRED_FOR,
    Accepted,
    AlreadyDone,
    Barred,
    CapExceeded,
    Closed,
    Conflict,
    Declined,
    NotFound,
    Outcome,
    Rejected,
    Throttled,
    Unknown,
)

NEW_YEAR = datetime(2026, 12, 31, 23, 59, 58, 900_000, UTC)
TAKEN = {"out_trade_no": ORDER_NO, "trade_no": "2026", "total_amount": "12.34", "async_pay_apply_status": "S"}


@pytest.fixture
async def gateway() -> AsyncIterator[Double]:
    async with double() as it:
        yield it


@pytest.fixture
async def zhima(gateway: Double, tmp_path: Path) -> AsyncIterator[Provider]:
    async with provider_at(gateway.url, settings_of("zhima", tmp_path)) as it:
        yield it


async def test_a_debit_is_sent_as_it_was_signed(gateway: Double, zhima: Provider) -> None:
    gateway.says(PAY, TAKEN)
    assert await zhima.debit(REQUEST) == Accepted("2026")
    sent = gateway.asked[0]
    biz = {
        "out_trade_no": ORDER_NO,
        "auth_code": ORDER_NO,
        "total_amount": "12.34",
        "subject": "a ride 1 2",
        "scene": "ZHIMA_CREDIT_CODE",
        "product_code": "GENERAL_WITHHOLDING",
        "is_async_pay": True,
        "extend_params": {"creditTradeScene": "CREDIT_PAY_UNCERTAIN_FEE"},
        "query_options": ["async_pay_info"],
    }
    assert sent["biz"] == biz
    common = {name: sent[name] for name in ("app_id", "method", "format", "charset", "sign_type", "version")}
    assert list(common.values()) == [APP_ID, PAY, "JSON", "utf-8", "RSA2", "1.0"]
    await zhima.debit(REQUEST)
    assert gateway.asked[1]["biz_content"] == sent["biz_content"]


async def test_a_call_is_dated_by_the_clock_that_was_handed_in_in_china(gateway: Double, tmp_path: Path) -> None:
    async with provider_at(gateway.url, settings_of("zhima", tmp_path), lambda: NEW_YEAR) as zhima:
        await zhima.debit(REQUEST)
    assert gateway.asked[0]["timestamp"] == "2027-01-01 07:59:58"


@pytest.mark.parametrize(
    ("canned", "outcome"),
    [
        (Canned({"code": "10000", **TAKEN}), Accepted("2026")),
        (Canned({"code": "10000", **TAKEN, "subject": "a/b"}, "slashes"), Accepted("2026")),
        (Canned({"code": "10000", **TAKEN}, "unsigned"), Unknown("the answer is not signed")),
        (Canned({"code": "10000", **TAKEN}, "forged"), Unknown(codes.BAD_SIGNATURE)),
        (Canned({"code": "10000", **TAKEN}, "html"), Unknown("the answer can't be read")),
        (Canned({"code": "10000", **TAKEN}, "truncated"), Unknown("the answer can't be read")),
        (Canned({"code": "10000", **TAKEN}, "error"), Unknown("HTTP 500")),
        (Canned({}, "throttled"), Throttled(timedelta(seconds=3))),
        (Canned({"code": "10000", **TAKEN, "out_trade_no": "ZMCB1"}), Unknown("the answer is about another number")),
        (Canned({"code": "10000", **TAKEN, "trade_no": 7}), Unknown("the answer has another shape")),
        (Canned({**TAKEN}), Unknown("code")),
        (Canned({"code": "10000", **TAKEN, "total_amount": "10.00"}), Conflict("total_amount 10.00")),
        (Canned({"code": "10000", **TAKEN, "async_pay_apply_status": "P"}), Unknown("async_pay_apply_status P")),
        (Canned({"code": "10000", "out_trade_no": ORDER_NO}), Unknown("async_pay_apply_status missing")),
        (Canned({"code": "10000", **TAKEN, "credit_pay_mode": "novel"}), Unknown("credit_pay_mode novel")),
        (Canned({"code": "10000", **TAKEN, "credit_pay_mode": "creditAdvanceV2"}), Accepted("2026")),
        (Canned({"code": "10003"}), Unknown("code 10003")),
        (Canned({"code": "20000", "sub_code": "isp.unknow-error"}), Unknown("code 20000 isp.unknow-error")),
        (Canned({"code": "20000"}, "unsigned"), Unknown("the answer is not signed")),
        (Canned({"code": "40004", "sub_code": "ACQ.PAYMENT_FAIL"}, "unsigned"), Unknown("the answer is not signed")),
        (Canned({"code": "40002", "sub_code": "isv.x"}, "unsigned", "error"), Rejected("isv.x")),
        (Canned({"code": "40002", "sub_code": "isv.x"}, "forged"), Unknown(codes.BAD_SIGNATURE)),
        (Canned({"code": "40005", "sub_code": "isv.app-call-limited"}), Throttled(timedelta(seconds=1))),
    ],
)
async def test_only_what_alipay_signed_is_believed(
    gateway: Double, zhima: Provider, canned: Canned, outcome: Outcome
) -> None:
    gateway.says(PAY, canned)
    assert await zhima.debit(REQUEST) == outcome


RETRYABLE = """BUYER_BALANCE_NOT_ENOUGH BUYER_BANKCARD_BALANCE_NOT_ENOUGH BUYER_PAYMENT_AMOUNT_DAY_LIMIT_ERROR
BUYER_PAYMENT_AMOUNT_MONTH_LIMIT_ERROR NO_PAYMENT_INSTRUMENTS_AVAILABLE ERROR_BALANCE_PAYMENT_DISABLE PAYMENT_FAIL"""
FINAL = """AGREEMENT_NOT_EXIST AGREEMENT_INVALID AGREEMENT_STATUS_NOT_NORMAL BUYER_ENABLE_STATUS_FORBID
ERROR_BUYER_CERTIFY_LEVEL_LIMIT PAYMENT_REQUEST_HAS_RISK BUYER_SELLER_EQUAL"""
REJECTED = """INVALID_PARAMETER EXIST_FORBIDDEN_WORD AMOUNT_OR_CURRENCY_ERROR
BEYOND_PAY_RESTRICTION BEYOND_PER_RECEIPT_RESTRICTION"""
BARRED = """ACCESS_FORBIDDEN PARTNER_ERROR SELLER_BEEN_BLOCKED MERCHANT_AGREEMENT_NOT_EXIST
MERCHANT_AGREEMENT_INVALID MERCHANT_AGREEMENT_SUSPENDED"""
BUSINESS: list[tuple[str, Outcome]] = [
    *((f"ACQ.{code}", Declined(True, f"ACQ.{code}")) for code in RETRYABLE.split()),
    *((f"ACQ.{code}", Declined(False, f"ACQ.{code}")) for code in FINAL.split()),
    *((f"ACQ.{code}", Rejected(f"ACQ.{code}")) for code in REJECTED.split()),
    *((f"ACQ.{code}", Barred(BARRED_FOR, f"ACQ.{code}")) for code in BARRED.split()),
    *((f"ACQ.{code}", Conflict(f"ACQ.{code}")) for code in ("CONTEXT_INCONSISTENT", "TRADE_BUYER_NOT_MATCH")),
    ("ACQ.TRADE_HAS_SUCCESS", AlreadyDone()),
    ("ACQ.TOTAL_FEE_EXCEED", CapExceeded(1000)),
    ("ACQ.SYSTEM_ERROR", Unknown("code 40004 ACQ.SYSTEM_ERROR")),
    ("aop.ACQ.SYSTEM_ERROR", Unknown("code 40004 aop.ACQ.SYSTEM_ERROR")),
    ("ACQ.NOBODY_LISTED_THIS", Unknown("code ACQ.NOBODY_LISTED_THIS")),
    ("", Unknown("code 40004")),
]


@pytest.mark.parametrize(("sub_code", "outcome"), BUSINESS)
async def test_each_code_of_a_debit_means_what_alipay_says(
    gateway: Double, zhima: Provider, sub_code: str, outcome: Outcome
) -> None:
    gateway.refuses(PAY, sub_code)
    order = {"credit_biz_order_id": ORDER_NO, "order_status": "INIT", "total_amount": "10.00"}
    gateway.says("zhima.credit.payafteruse.creditbizorder.query", order)
    assert await zhima.debit(REQUEST) == outcome


@pytest.mark.parametrize(("attempt", "retryable"), [(1, True), (2, False), (5, False)])
async def test_what_fails_for_no_reason_is_tried_once_more_and_not_seven_times(
    gateway: Double, zhima: Provider, attempt: int, retryable: bool
) -> None:
    """Error table of alipay.trade.pay: PAYMENT_FAIL."""
    gateway.refuses(PAY, "ACQ.PAYMENT_FAIL")
    tried = msgspec.structs.replace(REQUEST, attempt=attempt)
    assert await zhima.debit(tried) == Declined(retryable, "ACQ.PAYMENT_FAIL")
    gateway.refuses(PAY, "ACQ.BUYER_BALANCE_NOT_ENOUGH")
    assert await zhima.debit(tried) == Declined(True, "ACQ.BUYER_BALANCE_NOT_ENOUGH")


@pytest.mark.parametrize(
    ("code", "sub_code"),
    [
        ("20001", "aop.invalid-app-auth-token"),
        ("40001", "isv.missing-signature"),
        ("40001", "isv.missing-app-cert-sn"),
        ("40002", "isv.invalid-signature"),
        ("40002", "isv.invalid-app-id"),
        ("40002", "isv.app-cert-expired"),
        ("40006", "isv.insufficient-isv-permissions"),
    ],
)
async def test_who_is_not_let_in_has_executed_nothing_and_waits(
    gateway: Double, zhima: Provider, code: str, sub_code: str
) -> None:
    gateway.refuses(PAY, sub_code, code)
    assert await zhima.debit(REQUEST) == Barred(BARRED_FOR, sub_code, "no")


@pytest.mark.parametrize("code", ["40001", "40002"])
async def test_what_the_gateway_did_not_take_in_is_our_fault(gateway: Double, zhima: Provider, code: str) -> None:
    gateway.refuses(PAY, "isv.something", code)
    assert await zhima.debit(REQUEST) == Rejected("isv.something", "no")


async def test_a_query_that_is_refused_says_nothing_about_the_debit(gateway: Double, zhima: Provider) -> None:
    for sub_code, outcome in (
        ("ACQ.TRADE_NOT_EXIST", NotFound()),
        ("ACQ.INVALID_PARAMETER", Unknown("ACQ.INVALID_PARAMETER")),
        ("ACQ.TRADE_HAS_SUCCESS", Unknown("AlreadyDone")),
        ("ACQ.PAYMENT_FAIL", Unknown("ACQ.PAYMENT_FAIL")),
    ):
        gateway.refuses(QUERY, sub_code)
        assert await zhima.get_debit(REF) == outcome
    gateway.refuses(QUERY, "isv.invalid-app-id", "40002")
    assert await zhima.get_debit(REF) == Barred(BARRED_FOR, "isv.invalid-app-id", "no")


@pytest.mark.parametrize(
    ("sub_code", "trade", "outcome"),
    [
        ("ACQ.TRADE_NOT_EXIST", None, Closed("ACQ.TRADE_HAS_CLOSE")),
        ("ACQ.SYSTEM_ERROR", None, Unknown("code 40004 ACQ.SYSTEM_ERROR")),
        ("", {"trade_status": "TRADE_CLOSED"}, Closed("ACQ.TRADE_HAS_CLOSE")),
        ("", {"trade_status": "TRADE_CLOSED", "send_pay_date": "2026-04-18 10:30:00"}, AlreadyDone()),
        ("", {"trade_status": "WAIT_BUYER_PAY"}, Unknown("ACQ.TRADE_HAS_CLOSE")),
    ],
)
async def test_closed_is_looked_at_before_it_is_believed(
    gateway: Double, zhima: Provider, sub_code: str, trade: dict[str, Any] | None, outcome: Outcome
) -> None:
    gateway.refuses(PAY, "ACQ.TRADE_HAS_CLOSE")
    gateway.refuses(QUERY, sub_code)
    if trade:
        gateway.says(QUERY, {"out_trade_no": ORDER_NO, "trade_no": "1", "total_amount": "12.34", **trade})
    assert await zhima.debit(REQUEST) == outcome


async def test_both_keys_are_changed_without_a_restart(gateway: Double, tmp_path: Path) -> None:
    async with provider_at(gateway.url, settings_of("zhima", tmp_path)) as zhima:
        gateway.says(PAY, TAKEN)
        assert await zhima.debit(REQUEST) == Accepted("2026")
        gateway.app_key = "new app"
        assert await zhima.debit(REQUEST) == Barred(BARRED_FOR, "isv.invalid-signature")
        (tmp_path / "app.pem").write_text("half writ")
        assert await zhima.debit(REQUEST) == Barred(BARRED_FOR, "isv.invalid-signature")
        (tmp_path / "app.pem").write_text(private_pem("new app"))
        assert await zhima.debit(REQUEST) == Accepted("2026")
        gateway.own_key = "new alipay"
        assert await zhima.debit(REQUEST) == Unknown(codes.BAD_SIGNATURE)
        (tmp_path / "alipay.pem").write_text(public_pem("new alipay"))
        before = len(gateway.asked)
        assert await zhima.debit(REQUEST) == Accepted("2026")
        assert len(gateway.asked) == before + 1  # The answer was read again, the debit not sent again.


async def test_wrong_credentials_are_named_by_a_call_that_moves_nothing(gateway: Double, tmp_path: Path) -> None:
    gateway.refuses(QUERY, "ACQ.TRADE_NOT_EXIST")
    settings = settings_of("zhima", tmp_path)
    async with provider_at(gateway.url, settings) as right:
        assert await right.check() is None
        assert gateway.biz(QUERY) == {"out_trade_no": "FAREBOX_CREDENTIALS_CHECK"}
        gateway.refuses(QUERY, "isv.insufficient-isv-permissions", "40006")
        found = await right.check()
        assert isinstance(found, Rejected) and "no permission" in found.message
        gateway.app_key = "another"
        found = await right.check()
        assert isinstance(found, Rejected) and "app_private_key" in found.message
        gateway.app_key, gateway.own_key = "app", "another"
        found = await right.check()
        assert isinstance(found, Rejected) and "alipay_public_key" in found.message
    async with provider_at(gateway.url, settings | {"app_id": "2021"}) as wrong:
        found = await wrong.check()
        assert isinstance(found, Rejected) and "settings.app_id" in found.message


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"product": "gold"}, "settings.product: allowed are zhima, preauth"),
        ({"product": None}, "settings: missing are product"),
        ({"app_id": None}, "settings: .*app_id"),
        ({"app_id": "a b"}, "settings[.]app_id: expected "),
        ({"seller_id": None}, "settings: .*seller_id"),
        ({"notify_url": "ftp://x"}, "settings.notify_url is no http"),
        ({"title": "骑行=1"}, "settings[.]title: expected "),
        ({"title": "骑" * 33}, "settings[.]title: expected "),
        ({"title": {"de": "Fahrt"}}, "settings[.]title: object contains unknown field `de`"),
        ({"zm_service_id": None}, "settings: missing are zm_service_id"),
        ({"category_id": None}, "settings: missing are category_id"),
        ({"product": "preauth", "category_id": None}, ".*go together"),
        ({"scence": "X"}, "settings.scence is not known; known are "),
        ({"freeze_timeout": "soon"}, "settings[.]freeze_timeout: expected "),
        ({"app_private_key_file": None}, ".*app_private_key_file or app_private_key_env"),
        ({"app_private_key": "-----BEGIN"}, "settings.app_private_key is not known"),
        ({"alipay_public_key_file": "/nowhere/key"}, "settings.alipay_public_key_file /nowhere/key"),
        (
            {"alipay_public_key_file": None, "alipay_public_key_env": "PATH"},
            "alipay_public_key: no public key: neither PEM nor base64",
        ),
        ({"timeout_s": 0}, "settings[.]timeout_s: expected "),
    ],
)
async def test_settings_that_cannot_be_used_say_why(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    settings = settings_of("zhima", tmp_path)
    settings = {name: value for name, value in (settings | changed).items() if value is not None}
    with pytest.raises(AccountSettingsError, match=f"merchant account city: {told}"):
        open_provider(account_of("https://openapi.alipay.com/gateway.do", settings))
