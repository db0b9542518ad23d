"""Permissions and orders as holds: what Pay Score is asked, and what each state and refusal means to us."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from wechatpay_double import (
    AGREEMENT,
    AT,
    DETAIL,
    HOLD,
    MCHID,
    NAMED,
    OPENID,
    ORDER,
    ORDERS,
    PAYING,
    SERVICE_ID,
    Canned,
    Double,
    paid,
    provider_at,
    settings_of,
)

from service.adapters.providers.port import (
    AgreementRef,
    AgreementRequest,
    HoldRef,
    HoldRequest,
    Provider,
)
from service.adapters.providers.wechatpay import signing
from service.billing.agreements.standing import AgreementStatus, HoldStatus
from service.billing.outcomes import (
    BARRED_FOR,
    Barred,
    CapExceeded,
    Conflict,
    Declined,
    MiniProgram,
    NotFound,
    Outcome,
    Rejected,
    Throttled,
    Unknown,
)

pytest_plugins = ["wechatpay_fixtures"]

PERMISSIONS = "/v3/payscore/permissions"
BY_CODE, BY_OPENID = f"{PERMISSIONS}/authorization-code/AG", f"{PERMISSIONS}/openid/{OPENID}"
HOLD_REQUEST = HoldRequest("H0LD", AGREEMENT, 10_000, "CNY", "ride 7", AT)


@pytest.fixture
async def confirming(wechat: Double, tmp_path: Path) -> AsyncIterator[Provider]:
    """An account whose riders confirm each order."""
    async with provider_at(wechat.url, settings_of(tmp_path, need_user_confirm=True)) as it:
        yield it


async def test_a_rider_allows_orders_in_pay_scores_mini_program(wechat: Double, score: Provider) -> None:
    wechat.says(PERMISSIONS, {"apply_permissions_token": "t0ken"})
    begun = await score.begin_agreement(AgreementRequest("AG", "rider-7", "CNY"))
    action = MiniProgram("wxd8f3793ea3b935b8", "pages/use/enable", {"apply_permissions_token": "t0ken"})
    assert begun == AgreementStatus("pending", action=action)
    told = NAMED | {"authorization_code": "AG", "notify_url": "https://example.test/notify"}
    assert wechat.last(PERMISSIONS) == told
    wechat.refuses(PERMISSIONS, "INVALID_REQUEST")
    wechat.says(BY_CODE, {"authorization_state": "AVAILABLE", "openid": OPENID})
    assert await score.begin_agreement(AgreementRequest("AG", "rider-7", "CNY")) == AgreementStatus("active", OPENID)
    wechat.says(BY_CODE, {"authorization_state": "UNBINDUSER"})
    again = await score.begin_agreement(AgreementRequest("AG", "rider-7", "CNY"))
    assert again == Unknown("code INVALID_REQUEST")


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ({"authorization_state": "AVAILABLE", "openid": OPENID}, AgreementStatus("active", OPENID)),
        ({"authorization_state": "AVAILABLE"}, Unknown("authorization_state AVAILABLE")),
        ({"authorization_state": "UNAVAILABLE"}, AgreementStatus("pending")),
        ({"authorization_state": "UNAVAILABLE", "openid": OPENID}, AgreementStatus("revoked", OPENID)),
        (
            {"authorization_state": "UNAVAILABLE", "cancel_authorization_time": "2026-11-22T10:00:00+08:00"},
            AgreementStatus("revoked"),
        ),
        ({"authorization_state": "UNBINDUSER"}, AgreementStatus("pending")),
        ({"authorization_state": "QUANTUM", "openid": OPENID}, Unknown("authorization_state QUANTUM")),
        (
            {"authorization_state": "AVAILABLE", "openid": OPENID, "authorization_code": "B"},
            Unknown("the answer is about another number"),
        ),
    ],
)
async def test_each_state_of_a_permission(wechat: Double, score: Provider, said: dict[str, str], state: object) -> None:
    wechat.says(BY_CODE, said)
    assert await score.get_agreement(AgreementRef("AG")) == state
    assert wechat.last(BY_CODE) == {"service_id": SERVICE_ID}


async def test_a_permission_is_looked_for_by_openid_when_its_number_is_not_known(
    wechat: Double, score: Provider
) -> None:
    wechat.refuses(BY_CODE, "RESOURCE_NOT_EXISTS", 404)
    assert await score.get_agreement(AgreementRef("AG")) == NotFound()
    wechat.says(BY_OPENID, {"authorization_state": "AVAILABLE", "openid": OPENID})
    assert await score.get_agreement(AGREEMENT) == AgreementStatus("active", OPENID)
    assert wechat.last(BY_OPENID) == NAMED
    wechat.says(BY_OPENID, {"authorization_state": "AVAILABLE", "openid": OPENID, "authorization_code": "B"})
    assert await score.get_agreement(AGREEMENT) == AgreementStatus("revoked", OPENID)
    wechat.refuses(BY_OPENID, "NO_AUTH", 403)
    assert await score.get_agreement(AGREEMENT) == Barred(BARRED_FOR, "NO_AUTH", "no")


async def test_a_permission_is_ended_once(wechat: Double, score: Provider) -> None:
    wechat.says(f"{BY_CODE}/terminate", Canned(None, 204))
    assert await score.revoke_agreement(AGREEMENT) == AgreementStatus("revoked", OPENID)
    assert wechat.last(f"{BY_CODE}/terminate")["service_id"] == SERVICE_ID
    wechat.refuses(f"{BY_CODE}/terminate", "INVALID_REQUEST")
    wechat.says(BY_CODE, {"authorization_state": "AVAILABLE", "openid": OPENID})
    assert await score.revoke_agreement(AGREEMENT) == Unknown("code INVALID_REQUEST")
    wechat.says(BY_CODE, {"authorization_state": "UNAVAILABLE", "openid": OPENID})
    assert await score.revoke_agreement(AGREEMENT) == AgreementStatus("revoked", OPENID)
    wechat.says(f"{BY_CODE}/terminate", Canned({}, how="html"))
    assert await score.revoke_agreement(AGREEMENT) == Unknown("the answer's signature is wrong")


async def test_an_order_has_the_cap_as_its_risk_fund(wechat: Double, score: Provider) -> None:
    wechat.order(state="DOING", state_description="USER_CONFIRM")
    assert await score.open_hold(HOLD_REQUEST) == HoldStatus("open", HOLD.provider_ref, 10_000)
    assert wechat.last(ORDERS) == NAMED | {
        "out_order_no": "H0LD",
        "service_introduction": "共享单车骑行",
        "risk_fund": {"name": "ESTIMATE_ORDER_COST", "amount": 10_000},
        "time_range": {"start_time": "OnAccept"},
        "notify_url": "https://example.test/notify",
        "need_user_confirm": False,
        "openid": OPENID,
    }
    titled = msgspec.structs.replace(
        HOLD_REQUEST, title="骑" * 30
    )  # Frozen with the hold, whatever the setting is now.
    assert await score.open_hold(titled) == HoldStatus("open", HOLD.provider_ref, 10_000)
    assert wechat.last(ORDERS)["service_introduction"] == "骑" * 20
    wechat.says(BY_CODE, {"authorization_state": "UNBINDUSER"})
    unsigned = msgspec.structs.replace(HOLD_REQUEST, agreement=AgreementRef("AG"))
    assert await score.open_hold(unsigned) == Declined(False, "AGREEMENT_NOT_SIGNED")
    wechat.says(BY_CODE, {"authorization_state": "AVAILABLE", "openid": OPENID})
    assert await score.open_hold(unsigned) == HoldStatus("open", HOLD.provider_ref, 10_000)
    euro = await score.open_hold(msgspec.structs.replace(HOLD_REQUEST, currency="EUR"))
    assert isinstance(euro, Rejected) and euro.code == "CURRENCY_NOT_SUPPORTED"
    wechat.order(state="DOING", out_order_no="ANOTHER")
    assert await score.open_hold(HOLD_REQUEST) == Unknown("the answer is about another number")


@pytest.mark.parametrize(
    ("code", "number", "meaning"),
    [
        ("INVALID_REQUEST", 271300099, Declined(True, "ASSESSMENT_FAILED", "no")),
        ("INVALID_REQUEST", 271299627, Declined(True, "UNPAID_ORDERS", "no")),
        ("INVALID_REQUEST", 268560785, Declined(False, "TEEN_MODE", "no")),
        ("INVALID_REQUEST", 271316598, Conflict("INVALID_REQUEST_271316598")),
        ("PARAM_ERROR", 271316656, CapExceeded()),
        ("PARAM_ERROR", 0, Rejected("PARAM_ERROR", "no")),
        ("PARAM_ERROR", 268435472, Throttled(timedelta(seconds=1))),
        ("INVALID_REQUEST", 123456789, Unknown("code INVALID_REQUEST_123456789")),
        ("QUANTUM", 0, Unknown("code QUANTUM")),
    ],
)
async def test_each_refusal_of_an_order(
    wechat: Double, score: Provider, code: str, number: int, meaning: Outcome
) -> None:
    wechat.refuses(ORDERS, code, 400, number)
    assert await score.open_hold(HOLD_REQUEST) == meaning


async def test_an_order_without_permission_asks_whose_it_is(wechat: Double, score: Provider) -> None:
    for number, code in ((0, "NO_AUTH"), (268503786, "NO_AUTH_268503786")):
        wechat.refuses(ORDERS, "NO_AUTH", 403, number)
        wechat.says(BY_CODE, {"authorization_state": "AVAILABLE", "openid": OPENID})
        assert await score.open_hold(HOLD_REQUEST) == Barred(
            BARRED_FOR, code, "no"
        )  # The rider's stands: it is the merchant's.
        wechat.says(BY_CODE, {"authorization_state": "UNAVAILABLE", "openid": OPENID})
        assert await score.open_hold(HOLD_REQUEST) == Declined(False, "NO_AUTH", "no")
        wechat.says(BY_CODE, Canned({}, how="html"))
        assert await score.open_hold(HOLD_REQUEST) == Unknown("the answer's signature is wrong")


async def test_an_order_names_its_vehicle_and_is_asked_for_again_with_the_same_content(
    wechat: Double, confirming: Provider
) -> None:
    """Other content under the number would be a conflict, and the rider would have nothing to confirm."""
    wechat.order(state="CREATED", package="DJIOSQPYWDxsjdldeuwhdodwxasd_dDiodnwjh9we")
    asked = msgspec.structs.replace(HOLD_REQUEST, agreement=AgreementRef("AG"), vehicle_id="bike-7/" + "x" * 40)
    assert isinstance(await confirming.open_hold(asked), HoldStatus)
    told = wechat.last(ORDERS)
    assert told["device"] == {"start_device_id": "bike-7/" + "x" * 25}
    waiting = await confirming.get_hold(HoldRef(HOLD.key, HOLD.provider_ref, asked.vehicle_id))
    assert isinstance(waiting, HoldStatus) and isinstance(waiting.action, MiniProgram)
    assert wechat.last(ORDERS) == told


async def test_a_rider_who_confirms_each_order_signs_nothing_before(wechat: Double, confirming: Provider) -> None:
    assert confirming.capabilities.hold_confirmed_by_rider
    assert await confirming.begin_agreement(AgreementRequest("AG", "r", "CNY")) == AgreementStatus("active")
    assert await confirming.get_agreement(AgreementRef("AG")) == AgreementStatus("active")
    assert await confirming.revoke_agreement(AgreementRef("AG")) == AgreementStatus("revoked")
    assert wechat.asked == []
    package = "mch_id=1&service_id=2&out_order_no=H0LD&timestamp=3&nonce_str=4&sign_type=HMAC-SHA256&signature=a%2Bb"
    wechat.order(state="CREATED", package=package)
    asked = msgspec.structs.replace(HOLD_REQUEST, agreement=AgreementRef("AG"))
    opened = await confirming.open_hold(asked)
    assert isinstance(opened, HoldStatus) and opened.state == "pending"
    assert isinstance(opened.action, MiniProgram) and opened.action.path == "pages/use/use"
    assert opened.action.extra_data["signature"] == "a+b" and opened.action.extra_data["mch_id"] == "1"
    told = wechat.last(ORDERS)
    assert told["need_user_confirm"] is True and "openid" not in told
    wechat.order(state="CREATED", package="DJIOSQPYWDxsjdldeuwhdodwxasd_dDiodnwjh9we")
    waiting = await confirming.get_hold(HOLD)  # Asked for again, with the same content: only that tells how.
    assert wechat.last(ORDERS) == told
    assert isinstance(waiting, HoldStatus) and isinstance(waiting.action, MiniProgram)
    params = dict(waiting.action.extra_data)
    signature = params.pop("sign")
    assert params["package"] == "DJIOSQPYWDxsjdldeuwhdodwxasd_dDiodnwjh9we" and params["mch_id"] == MCHID
    assert signature == signing.page_signature("v" * 32, params)
    wechat.order(state="DOING", state_description="USER_CONFIRM")
    assert await confirming.get_hold(HOLD) == HoldStatus("open", HOLD.provider_ref, 10_000)


@pytest.mark.parametrize(
    ("order", "state"),
    [
        ({"state": "DOING", "state_description": "USER_CONFIRM"}, HoldStatus("open", HOLD.provider_ref, 10_000)),
        (PAYING, HoldStatus("open", HOLD.provider_ref, 10_000)),
        ({"state": "DONE"}, HoldStatus("completed", HOLD.provider_ref)),
        ({"state": "REVOKED"}, HoldStatus("released", HOLD.provider_ref)),
        ({"state": "EXPIRED"}, HoldStatus("expired", HOLD.provider_ref)),
        ({"state": "CREATED"}, HoldStatus("pending", HOLD.provider_ref)),
        ({"state": "QUANTUM"}, Unknown("state QUANTUM")),
        ({"state": "DOING", "out_order_no": "B"}, Unknown("the answer is about another number")),
    ],
)
async def test_each_state_of_a_hold(wechat: Double, score: Provider, order: dict[str, Any], state: object) -> None:
    wechat.order(**order)
    assert await score.get_hold(HOLD) == state
    assert wechat.last(ORDERS) == NAMED | {"out_order_no": "H0LD"}


async def test_an_order_is_cancelled_and_looked_at_when_it_can_not_be(wechat: Double, score: Provider) -> None:
    wechat.says(f"{ORDER}/cancel", {"out_order_no": "H0LD"})
    assert await score.release_hold(HOLD) == HoldStatus("released", HOLD.provider_ref)
    assert wechat.last(f"{ORDER}/cancel") == NAMED | {"reason": "未使用"}
    wechat.refuses(f"{ORDER}/cancel", "INVALID_REQUEST", number=271316592)
    for order, state in (("REVOKED", "released"), ("DONE", "completed"), ("EXPIRED", "expired"), ("DOING", "open")):
        wechat.order(state=order)
        seen = await score.release_hold(HOLD)
        assert isinstance(seen, HoldStatus) and seen.state == state
    wechat.refuses(ORDERS, "RESOURCE_NOT_EXISTS", 404, 271317510)
    assert await score.release_hold(HOLD) == NotFound()


async def test_a_hold_is_finished_by_its_payment_or_by_being_cancelled(wechat: Double, score: Provider) -> None:
    wechat.order(**paid(DETAIL))
    assert await score.finish_hold(HOLD) == HoldStatus("completed", HOLD.provider_ref)
    wechat.order(**PAYING)
    assert await score.finish_hold(HOLD) == HoldStatus("open", HOLD.provider_ref, 10_000)
    assert f"{ORDER}/cancel" not in wechat.paths()
    wechat.order(state="DOING", state_description="USER_CONFIRM")
    wechat.says(f"{ORDER}/cancel", {})
    assert await score.finish_hold(HOLD) == HoldStatus("completed", HOLD.provider_ref)
    assert f"{ORDER}/cancel" in wechat.paths()
