"""WeChat Pay's notifications: whom they are for, what of them is believed, and what is asked about."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sandbox_peer import Peer, peer
from wechatpay_double import (
    APPID,
    CERTIFICATES,
    DETAIL,
    HOLD,
    MCHID,
    OPENID,
    SERVICE_ID,
    Double,
    notice,
    paid,
    provider_at,
    public_key_mode,
    sealed_headers,
    settings_of,
)
from wechatpay_peer import Merchant, merchant_at, ref, request

from service.adapters.providers.port import BadNotification, Notification, Provider
from service.billing.agreements.standing import HoldStatus
from service.billing.outcomes import Accepted, Closed, NeedsRider, Part, Succeeded, Unknown

pytest_plugins = ["wechatpay_fixtures"]

NOW = datetime.now(UTC)
OURS = {"mchid": MCHID, "appid": APPID, "service_id": SERVICE_ID}
ORDER = OURS | {"out_order_no": "H0LD", "order_id": HOLD.provider_ref, "risk_fund": {"amount": 10_000}}
PAID = ORDER | paid(DETAIL)
CHANGED = Unknown("WeChat Pay says it has changed")


@pytest.fixture
async def score(wechat: Double, tmp_path: Path) -> AsyncIterator[Provider]:
    """In public-key mode: its key is known before anybody asks."""
    async with provider_at(wechat.url, settings_of(tmp_path) | public_key_mode(tmp_path)) as it:
        yield it


def told(
    score: Provider, body: bytes, headers: dict[str, str] | None = None, *, signer: str = "public", at: datetime = NOW
) -> Notification | BadNotification:
    """What a notification is taken for, now."""
    named = {name.lower(): value for name, value in sealed_headers(signer, body, at).items()}
    return score.parse_notification(named | (headers or {}), body, NOW)


@pytest.mark.parametrize(
    ("event", "resource", "about", "key", "answer"),
    [
        ("PAYSCORE.USER_PAID", PAID, "debit", "H0LD", Succeeded(1234, "4200", (Part("4200", 1234),), last=True)),
        (
            "PAYSCORE.USER_PAID",
            ORDER | paid(DETAIL, DETAIL),
            "debit",
            "H0LD",
            Succeeded(1234, "4200", (Part("4200", 1234),), last=True),
        ),
        (
            "PAYSCORE.USER_PAID",
            ORDER | paid(DETAIL | {"amount": 234}, state="DOING", paying=1000),
            "debit",
            "H0LD",
            Succeeded(234, "4200", (Part("4200", 234),)),
        ),
        ("PAYSCORE.USER_PAID", ORDER | paid(DETAIL | {"paid_type": "MCH"}), "debit", "H0LD", CHANGED),
        ("PAYSCORE.USER_PAID", PAID | {"state": "QUANTUM"}, "debit", "H0LD", CHANGED),
        ("PAYSCORE.USER_PAID", PAID | {"collection": 7}, "debit", "H0LD", CHANGED),
        (
            "PAYSCORE.USER_CONFIRM",
            ORDER | {"state": "DOING", "state_description": "USER_CONFIRM"},
            "hold",
            "H0LD",
            HoldStatus("open", HOLD.provider_ref, 10_000),
        ),
        ("PAYSCORE.USER_CONFIRM", ORDER | {"state": "REVOKED"}, "hold", "H0LD", CHANGED),
        ("PAYSCORE.USER_CONFIRM", ORDER | {"state": 7}, "hold", "H0LD", CHANGED),
        (
            "PAYSCORE.USER_OPEN_SERVICE",
            OURS | {"authorization_code": "AG", "openid": OPENID},
            "agreement",
            "AG",
            CHANGED,
        ),
        ("PAYSCORE.USER_CLOSE_SERVICE", OURS | {"authorization_code": "AG"}, "agreement", "AG", CHANGED),
        (
            "TRANSACTION.SUCCESS",
            {"mchid": MCHID, "appid": APPID, "out_trade_no": "K3Y", "transaction_id": "42", "trade_state": "SUCCESS"}
            | {"amount": {"total": 800, "currency": "CNY"}},
            "debit",
            "K3Y",
            Succeeded(800, "42"),
        ),
        (
            "TRANSACTION.SUCCESS",
            {"mchid": MCHID, "out_trade_no": "K3Y_B", "transaction_id": "42", "trade_state": "SUCCESS"}
            | {"amount": {"total": 800, "currency": "CNY"}},
            "debit",
            "K3Y",
            Succeeded(800, "42"),
        ),
        (
            "TRANSACTION.SUCCESS",
            {"mchid": MCHID, "out_trade_no": "K3Y", "transaction_id": "42", "trade_state": "SUCCESS"}
            | {"amount": {"total": 800, "currency": "USD"}},
            "debit",
            "K3Y",
            Unknown("paid, with an amount that can't be read"),
        ),
        (
            "TRANSACTION.SUCCESS",
            {"mchid": MCHID, "out_trade_no": "K3Y", "trade_state": "NOTPAY"},
            "debit",
            "K3Y",
            NeedsRider("NOTPAY"),
        ),
        (
            "TRANSACTION.SUCCESS",
            {"mchid": MCHID, "out_trade_no": "K3Y", "amount": 7},
            "debit",
            "K3Y",
            Unknown("another shape"),
        ),
        (
            "REFUND.SUCCESS",
            {
                "mchid": MCHID,
                "out_refund_no": "B4CK",
                "refund_id": "50",
                "refund_status": "SUCCESS",
                "amount": {"refund": 234},
            },
            "refund",
            "B4CK",
            Succeeded(234, "50"),
        ),
        (
            "REFUND.ABNORMAL",
            {"mchid": MCHID, "out_refund_no": "B4CK", "refund_status": "ABNORMAL"},
            "refund",
            "B4CK",
            Accepted(None, "ABNORMAL"),
        ),
        (
            "REFUND.CLOSED",
            {"mchid": MCHID, "out_refund_no": "B4CK", "refund_status": "CLOSED"},
            "refund",
            "B4CK",
            Closed("CLOSED"),
        ),
        (
            "REFUND.SUCCESS",
            {"mchid": MCHID, "out_refund_no": "B4CK", "refund_status": "Q"},
            "refund",
            "B4CK",
            Unknown("refund status Q"),
        ),
        (
            "REFUND.SUCCESS",
            {"mchid": MCHID, "out_refund_no": "B4CK", "amount": 7},
            "refund",
            "B4CK",
            Unknown("another shape"),
        ),
        (
            "COMPLAINT.CREATE",
            {"complaint_id": "2002", "action_type": "CREATE_COMPLAINT"},
            "dispute",
            "2002",
            Unknown("WeChat Pay tells no more than its number"),
        ),
    ],
)
async def test_what_each_event_says(
    score: Provider, event: str, resource: dict[str, Any], about: str, key: str, answer: object
) -> None:
    read = told(score, notice(event, resource))
    assert isinstance(read, Notification)
    assert (read.about, read.key, read.answer) == (about, key, answer)
    assert read.named_by == ("hold" if event == "PAYSCORE.USER_PAID" else "key")
    assert (read.notification_id, read.ack.status) == ("n1", 200)
    assert json.loads(read.ack.body)["code"] == "SUCCESS"


def test_a_refund_names_the_payment_that_it_gives_back(score: Provider) -> None:
    read = told(score, notice("REFUND.SUCCESS", {"mchid": MCHID, "out_refund_no": "OTHER", "transaction_id": "42"}))
    assert isinstance(read, Notification)
    assert (read.about, read.key, read.payment) == ("refund", "OTHER", "42")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (notice("PAYSCORE.USER_PAID", PAID | {"mchid": "1"}), "the notification is for another merchant"),
        (notice("PAYSCORE.USER_PAID", PAID | {"mchid": ""}), "the notification is for another merchant"),
        (notice("PAYSCORE.USER_PAID", PAID | {"appid": "wx1"}), "the notification is for another app"),
        (notice("PAYSCORE.USER_PAID", PAID | {"service_id": "1"}), "the notification is for another service"),
        (notice("PAYSCORE.USER_PAID", PAID, key="x" * 32), "the notification can't be decrypted"),
        (notice("PAYSCORE.USER_PAID", PAID | {"out_order_no": 7}), "the notification's resource has another shape"),
        (b"{}", "the notification has another shape"),
        (b"<xml/>", "the notification has another shape"),
        (notice("PAYSCORE.USER_PAID", PAID, id=""), "the notification has another shape"),
        (
            notice("PAYSCORE.USER_PAID", PAID, resource={"algorithm": "AES", "nonce": "", "ciphertext": ""}),
            "the notification can't be decrypted",
        ),
    ],
)
async def test_what_is_not_for_us_is_refused(score: Provider, body: bytes, why: str) -> None:
    read = told(score, body)
    assert isinstance(read, BadNotification) and read.reason.startswith(why)
    assert read.ack.status == 401


@pytest.mark.parametrize(
    ("event", "resource"),
    [
        ("PAYSCORE.USER_ACCEPTED", OURS),
        ("PAYSCORE.USER_OPEN_SERVICE", OURS | {"openid": OPENID}),
        ("PAYSCORE.USER_PAID", OURS),
        ("REFUND.SUCCESS", {"mchid": MCHID}),
        ("COMPLAINT.CREATE", {}),
        ("QUANTUM.LEAP", {"mchid": MCHID}),
    ],
)
async def test_what_we_have_no_use_for_is_acknowledged(score: Provider, event: str, resource: dict[str, Any]) -> None:
    read = told(score, notice(event, resource))
    assert isinstance(read, BadNotification) and "not used" in read.reason and read.ack.status == 200


async def test_signature_time_and_probes(score: Provider) -> None:
    body = notice("PAYSCORE.USER_PAID", PAID)
    for read, why in (
        (told(score, body, {"wechatpay-serial": "PUB_KEY_ID_1"}, signer="other"), "is not known"),
        (told(score, body, {"wechatpay-signature": "WECHATPAY/SIGNTEST/aGVsbG8="}), "signature is wrong"),
        (told(score, body, {"wechatpay-signature": "aGVsbG8="}), "signature is wrong"),
        (told(score, body, {"wechatpay-nonce": "another"}), "signature is wrong"),
        (told(score, body, {"wechatpay-signature-type": "SM2"}), "another type"),
        (told(score, body, at=NOW - timedelta(minutes=6)), "five minutes"),
        (told(score, body, at=NOW + timedelta(minutes=6)), "five minutes"),
        (score.parse_notification({}, body, NOW), "not signed"),
    ):
        assert isinstance(read, BadNotification) and why in read.reason, read
        assert read.ack.status == 401
    assert isinstance(told(score, body, at=NOW - timedelta(seconds=299)), Notification)


async def test_a_certificate_that_is_not_known_is_fetched_for_the_next_time(wechat: Double, tmp_path: Path) -> None:
    async with provider_at(wechat.url, settings_of(tmp_path)) as score:
        body = notice("PAYSCORE.USER_PAID", PAID)
        first = told(score, body, signer="platform")
        assert isinstance(first, BadNotification) and first.ack.status == 401  # It is sent again.
        wechat.order(state="DOING")
        assert isinstance(await score.get_hold(HOLD), HoldStatus)  # It waits for the same list.
        assert isinstance(told(score, body, signer="platform"), Notification)
        assert wechat.paths().count(CERTIFICATES) == 1


@pytest.fixture(scope="module")
async def simulator() -> AsyncIterator[Peer]:
    async with peer() as it:
        yield it


@pytest.fixture
async def shop(simulator: Peer, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Merchant]:
    async with merchant_at(simulator, request.node.name[:60], tmp_path) as it:
        yield it


async def ridden(shop: Merchant, **fault: Any) -> None:
    """A ride whose payment is told with a fault."""
    await shop.wallet("rider", 5000)
    agreement = await shop.signed("AG", "rider")
    hold = await shop.ordered("H0LD", agreement)
    await shop.peer.script(**fault, on="H0LD", op="notice")
    debit = request("DEBIT", hold, agreement)
    assert await shop.provider.debit(debit) == Accepted()
    assert isinstance(await shop.provider.get_debit(ref(debit)), Succeeded)


@pytest.mark.parametrize("fault", ["notify_twice", "notify_both_at_once"])
async def test_what_is_told_twice_says_the_same(shop: Merchant, fault: str) -> None:
    await ridden(shop, kind=fault)
    first, second = await shop.ear.hears("debit", "H0LD"), await shop.ear.hears("debit", "H0LD")
    assert first == second and isinstance(first.answer, Succeeded)


@pytest.mark.parametrize(("fault", "seconds"), [("notify_tampered", None), ("notify_skew", 360), ("notify_skew", -360)])
async def test_what_was_changed_or_is_old_is_refused(shop: Merchant, fault: str, seconds: float | None) -> None:
    await ridden(shop, kind=fault, seconds=seconds)
    refused = await shop.ear.refuses()
    assert "wrong" in refused.reason or "five minutes" in refused.reason


async def test_a_state_that_nobody_listed_is_asked_about(shop: Merchant) -> None:
    await ridden(shop, kind="notify_unknown_enum")
    assert (await shop.ear.hears("debit", "H0LD")).answer == CHANGED


async def test_keys_that_changed_are_known_again_when_it_is_told_once_more(shop: Merchant) -> None:
    await shop.wallet("rider", 5000)
    agreement = await shop.signed("AG", "rider")
    hold = await shop.ordered("H0LD", agreement)
    await shop.rotate()
    debit = request("DEBIT", hold, agreement)
    assert await shop.provider.debit(debit) == Accepted()
    await shop.later(timedelta(seconds=15))
    assert isinstance((await shop.ear.hears("debit", "H0LD")).answer, Succeeded)


async def test_in_public_key_mode_too(simulator: Peer, tmp_path: Path) -> None:
    async with merchant_at(simulator, "public", tmp_path, public_key_mode=True) as shop:
        assert await shop.provider.check() is None
        await ridden(shop, kind="notify_twice")
        assert isinstance((await shop.ear.hears("debit", "H0LD")).answer, Succeeded)
