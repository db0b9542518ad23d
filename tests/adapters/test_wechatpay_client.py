"""What WeChat Pay is sent, and what of its answers is believed: in both modes, while keys and certificates change."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from wechatpay_double import (
    CERTIFICATES,
    HOLD,
    ORDER,
    PUBLIC_KEY_ID,
    REF,
    REQUEST,
    Canned,
    Double,
    account_of,
    certificate_of,
    certificate_pem,
    encrypted,
    private_pem,
    provider_at,
    public_key_mode,
    public_pem,
    serial_of,
    settings_of,
)

from service.adapters.clock import machine_now
from service.adapters.providers import open_provider
from service.adapters.providers.port import Provider
from service.adapters.providers.secrets import AccountSettingsError
from service.billing.agreements.standing import HoldStatus
from service.billing.outcomes import BARRED_FOR, Accepted, Barred, Outcome, Rejected, Throttled, Unknown

pytest_plugins = ["wechatpay_fixtures"]

COMPLETE = f"{ORDER}/complete"
TAKEN = {"out_order_no": "H0LD", "state": "DOING", "state_description": "MCH_COMPLETE"}
REFUSAL = {"code": "PARAM_ERROR", "message": "no"}
FORGED = Unknown("the answer's signature is wrong")


@pytest.mark.parametrize(
    ("canned", "outcome"),
    [
        (Canned(TAKEN), Accepted()),
        (Canned(TAKEN, how="unsigned"), Unknown("the answer: it is not signed")),
        (Canned(TAKEN, how="forged"), FORGED),
        (Canned(TAKEN, how="html"), FORGED),
        (Canned(TAKEN, how="truncated"), FORGED),
        (Canned(TAKEN, how="error"), Unknown("HTTP 500")),
        (Canned(TAKEN, how="old"), Unknown("the answer: its time is more than five minutes from ours")),
        (Canned(TAKEN, how="unknown_key"), Unknown("the answer is signed by a key that is not known")),
        (Canned(TAKEN | {"out_order_no": "B"}), Unknown("the answer is about another number")),
        (Canned(TAKEN | {"state": 7}), Unknown("the answer has another shape")),
        (Canned({"state": "DOING"}, 202), Accepted()),
        (Canned(REFUSAL, 400), Rejected("PARAM_ERROR", "no")),
        (Canned(REFUSAL, 400, "unsigned"), Unknown("the answer: it is not signed")),
        (Canned(REFUSAL, 400, "forged"), FORGED),
        (Canned(REFUSAL, 403, "html"), FORGED),
        (Canned({"code": "SIGN_ERROR", "message": "no"}, 401, "unsigned"), Barred(BARRED_FOR, "SIGN_ERROR", "no")),
        (Canned({"code": "SIGN_ERROR", "message": "no"}, 401, "forged"), FORGED),
        (
            Canned({"code": "MCH_NOT_EXISTS", "message": "no"}, 404, "unsigned"),
            Barred(BARRED_FOR, "MCH_NOT_EXISTS", "no"),
        ),
        (Canned({"reason": "no"}, 400), Unknown("HTTP 400")),
        (Canned({"code": ""}, 400), Unknown("HTTP 400")),
    ],
)
async def test_only_what_wechat_pay_signed_is_believed(
    wechat: Double, score: Provider, canned: Canned, outcome: Outcome
) -> None:
    wechat.says(COMPLETE, canned)
    assert await score.debit(REQUEST) == outcome


async def test_calls_are_dated_and_answers_believed_by_the_clock_that_was_handed_in(
    wechat: Double, tmp_path: Path
) -> None:
    fast = machine_now() + timedelta(minutes=6)
    wechat.order(state="DOING")
    async with provider_at(wechat.url, settings_of(tmp_path), lambda: fast) as score:
        assert await score.get_hold(HOLD) == Unknown("the answer: its time is more than five minutes from ours")
    assert f'timestamp="{int(fast.timestamp())}"' in wechat.headers[0]["Authorization"]


async def test_certificates_are_fetched_once_and_again_for_a_new_serial_number(wechat: Double, score: Provider) -> None:
    wechat.order(state="DOING")
    await asyncio.gather(*(score.get_hold(HOLD) for _ in range(8)))
    assert wechat.paths().count(CERTIFICATES) == 1
    assert "Wechatpay-Serial" not in wechat.headers[0]
    wechat.signers, wechat.certified = ["newer"], ["newer", "platform"]
    assert isinstance(await score.get_hold(HOLD), HoldStatus)
    assert wechat.paths().count(CERTIFICATES) == 2
    for signer in ("platform", "newer"):  # Both are good while they are being replaced.
        wechat.signers = [signer]
        assert isinstance(await score.get_hold(HOLD), HoldStatus)
    assert wechat.paths().count(CERTIFICATES) == 2


async def test_serial_numbers_that_nobody_has_are_not_looked_for_without_end(wechat: Double, score: Provider) -> None:
    wechat.order(state="DOING")
    wechat.signers = ["stranger"]
    for _ in range(9):
        assert isinstance(await score.get_hold(HOLD), Unknown)
    assert wechat.paths().count(CERTIFICATES) == 5
    wechat.signers = ["platform"]
    assert isinstance(await score.get_hold(HOLD), Unknown)  # Nothing is fetched for a while, nothing believed.


async def test_an_expired_certificate_signs_nothing(wechat: Double, score: Provider) -> None:
    certificate_of.cache_clear()
    expired = certificate_of("expired", days=-1)
    wechat.order(state="DOING")
    listed = {"encrypt_certificate": encrypted(expired.public_bytes(Encoding.PEM))}
    wechat.says(CERTIFICATES, {"data": [{"serial_no": "1", **listed}, {"encrypt_certificate": encrypted(b"x")}]})
    assert isinstance(await score.get_hold(HOLD), Unknown)
    both = [{"serial_no": "1", **listed}]
    both.append({"serial_no": "2", "encrypt_certificate": encrypted(certificate_pem("platform").encode())})
    wechat.says(CERTIFICATES, {"data": both})
    assert isinstance(await score.get_hold(HOLD), HoldStatus)


@pytest.mark.parametrize(
    "listed",
    [
        Canned({"data": [{"serial_no": "1"}]}),
        Canned({"data": []}),
        Canned({}, how="html"),
        Canned({"code": "RESOURCE_NOT_EXISTS"}, 404),
        Canned({"data": [{"encrypt_certificate": encrypted(b"x", "y" * 32)}]}),
        Canned({"data": [{"encrypt_certificate": encrypted(b"x")}]}),
        Canned({"data": [{"encrypt_certificate": encrypted(certificate_pem("platform").encode())}]}, how="forged"),
        Canned({"data": [{"encrypt_certificate": encrypted(certificate_pem("platform").encode())}]}, how="unsigned"),
        Canned({"data": [{"encrypt_certificate": encrypted(certificate_pem("platform").encode())}]}, how="old"),
    ],
)
async def test_a_list_of_certificates_must_be_what_it_says(wechat: Double, score: Provider, listed: Canned) -> None:
    wechat.order(state="DOING")
    wechat.says(CERTIFICATES, listed)
    assert isinstance(await score.get_hold(HOLD), Unknown)


async def test_in_public_key_mode_the_public_key_signs(wechat: Double, tmp_path: Path) -> None:
    wechat.signers = ["public"]
    async with provider_at(wechat.url, settings_of(tmp_path) | public_key_mode(tmp_path)) as score:
        wechat.order(state="DOING")
        assert isinstance(await score.get_hold(HOLD), HoldStatus)
        assert wechat.headers[0]["Wechatpay-Serial"] == PUBLIC_KEY_ID
        assert CERTIFICATES not in wechat.paths()
        wechat.signers = ["platform"]  # While a merchant changes from one to the other, both sign.
        assert isinstance(await score.get_hold(HOLD), HoldStatus)
        wechat.signers = ["public"]
        wechat.says(COMPLETE, Canned(TAKEN, how="forged"))
        assert await score.debit(REQUEST) == FORGED
        (tmp_path / "public.pem").write_text(public_pem("other"))  # What forges it is the key now.
        assert await score.debit(REQUEST) == Accepted()


async def test_another_public_keys_id_is_not_looked_for(wechat: Double, score: Provider) -> None:
    wechat.order(state="DOING")
    wechat.signers = ["public"]
    assert await score.get_hold(HOLD) == Unknown("the answer is signed by a key that is not known")
    assert CERTIFICATES not in wechat.paths()


async def test_the_merchants_key_is_changed_without_a_restart(wechat: Double, tmp_path: Path) -> None:
    (tmp_path / "merchant.crt").write_text(certificate_pem("merchant"))
    by_certificate = {"merchant_serial_no": None, "merchant_certificate_file": str(tmp_path / "merchant.crt")}
    async with provider_at(wechat.url, settings_of(tmp_path, **by_certificate)) as score:
        wechat.says(COMPLETE, TAKEN)
        assert await score.debit(REQUEST) == Accepted()
        assert f'serial_no="{serial_of("merchant")}"' in wechat.headers[0]["Authorization"]
        wechat.merchant = "new merchant"
        refused = await score.debit(REQUEST)
        assert isinstance(refused, Barred) and refused.code == "SIGN_ERROR"
        (tmp_path / "merchant.pem").write_text(private_pem("new merchant"))
        assert isinstance(await score.debit(REQUEST), Barred)  # Half changed: key and certificate don't belong.
        (tmp_path / "merchant.crt").write_text(certificate_pem("new merchant"))
        assert await score.debit(REQUEST) == Accepted()
        assert f'serial_no="{serial_of("new merchant")}"' in wechat.headers[-1]["Authorization"]


async def test_the_api_key_is_changed_without_a_restart(wechat: Double, score: Provider, tmp_path: Path) -> None:
    wechat.order(state="DOING")
    wechat.api_key = "n" * 32
    assert isinstance(await score.get_hold(HOLD), Unknown)
    (tmp_path / "v3").write_text("n" * 32)
    assert isinstance(await score.get_hold(HOLD), HoldStatus)


async def test_a_request_is_signed_as_it_is_sent_wherever_wechat_pay_is(wechat: Double, tmp_path: Path) -> None:
    """The double verifies the signature over the raw path and query, and the raw body."""
    async with provider_at(f"{wechat.url}/", settings_of(tmp_path)) as score:
        wechat.order(state="DOING")
        assert isinstance(await score.get_hold(HOLD), HoldStatus)
        assert isinstance(await score.get_debit(REF), Outcome)
        assert wechat.asked[0][2]["out_order_no"] == "H0LD"
    async with provider_at("http://127.0.0.1:1", settings_of(tmp_path)) as nobody:
        assert isinstance(await nobody.debit(REQUEST), Throttled)  # Nothing left.


CURVE = ec.generate_private_key(ec.SECP256R1())
CURVE_PEM = CURVE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"mchid": None}, "settings: .*mchid"),
        ({"mchid": "1 2"}, "settings[.]mchid: expected "),
        ({"appid": None}, "settings: .*appid"),
        ({"service_id": None}, "settings: .*service_id"),
        ({"service_introduction": "骑" * 21}, "settings[.]service_introduction: expected "),
        ({"service_introduction": None}, "settings: .*service_introduction"),
        ({"risk_fund_name": "GOLD"}, "settings.risk_fund_name: allowed are DEPOSIT"),
        ({"need_user_confirm": "no"}, "settings[.]need_user_confirm: expected "),
        ({"notify_url": "ftp://x"}, "settings.notify_url is no http"),
        ({"notify_url": "https://x/?a=1"}, "settings.notify_url is no http or https address without a query"),
        ({"merchant_serial_no": None}, "settings must have exactly one of merchant_serial_no and merchant_certificate"),
        ({"merchant_certificate_env": "PATH"}, "settings must have exactly one of merchant_serial_no"),
        ({"public_key_id": PUBLIC_KEY_ID}, "settings.public_key_id and wechatpay_public_key_file or _env go together"),
        ({"wechatpay_public_key_env": "PATH"}, "settings.public_key_id and wechatpay_public_key_file"),
        ({"public_key_id": "0123"}, "settings[.]public_key_id: expected "),
        ({"mchnt": "X"}, "settings.mchnt is not known; known are "),
        ({"api_v3_key": "k" * 32}, "settings.api_v3_key is not known"),
        ({"api_v3_key_file": None}, ".*api_v3_key_file or api_v3_key_env"),
        ({"api_v3_key_file": None, "api_v3_key_env": "PATH"}, "api_v3_key: it is not 32 bytes long"),
        ({"api_v2_key_file": None, "api_v2_key_env": "PATH"}, "api_v2_key: it is not 32 bytes long"),
        ({"merchant_private_key_file": "/nowhere/key"}, "settings.merchant_private_key_file /nowhere/key"),
        (
            {"merchant_serial_no": None, "merchant_certificate_env": "PATH"},
            "merchant_certificate: no certificate",
        ),
        ({"timeout_s": 0}, "settings[.]timeout_s: expected "),
    ],
)
async def test_settings_that_cannot_be_used_say_why(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    settings = {name: value for name, value in (settings_of(tmp_path) | changed).items() if value is not None}
    with pytest.raises(AccountSettingsError, match=f"merchant account city: {told}"):
        open_provider(account_of("https://api.mch.weixin.qq.com", settings))


@pytest.mark.parametrize("pem", [CURVE_PEM, "no key"])
async def test_keys_that_cannot_be_used_are_named_and_not_shown(tmp_path: Path, pem: str) -> None:
    settings = settings_of(tmp_path)
    (tmp_path / "merchant.pem").write_text(pem)
    with pytest.raises(AccountSettingsError, match="merchant_private_key: no ") as refused:
        open_provider(account_of("https://api.mch.weixin.qq.com", settings))
    assert pem not in str(refused.value)
