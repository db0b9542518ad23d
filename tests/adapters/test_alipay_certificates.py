"""Alipay's certificate mode: real certificates and their numbers, whom the roots vouch for, whole rides."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alipay_double import (
    SELLER_ID,
    Canned,
    double,
    key_of,
    opened,
    private_pem,
    provider_at,
    public_pem,
    settings_of,
    trade_notice,
)
from alipay_peer import Merchant, merchant_at, ref, request, simulator_with_alipay
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace
from sandbox_peer import Peer

from service.adapters.providers import open_provider
from service.adapters.providers.alipay.certificates import believed, read_certificate, read_roots
from service.adapters.providers.port import (
    AgreementRef,
    AgreementRequest,
    BadNotification,
    MerchantAccount,
    Notification,
)
from service.adapters.providers.rsa import BadKeyError
from service.adapters.providers.secrets import AccountSettingsError
from service.adapters.providers.vain import VAIN_MAX, WITHIN_S, Vain
from service.billing.agreements.standing import AgreementStatus
from service.billing.outcomes import Accepted, Rejected, Succeeded, Unknown
from service.lab.provider.alipay import certificates as simulated
from service.lab.provider.rows import Account, AlipayMerchant

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "alipay_certificates.json").read_bytes())
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
NAMES = ("app_certificate", "alipay_certificate", "alipay_root_certificate")


@pytest.fixture(scope="module")
async def peer() -> AsyncIterator[Peer]:
    async with simulator_with_alipay() as it:
        yield it


@pytest.fixture
async def certified(peer: Peer, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Merchant]:
    async with merchant_at(peer, "zhima", request.node.name[:60], tmp_path, timeout_s=2.0, certificates=True) as it:
        yield it


# ---------------------------------------------------------------- real certificates


def test_real_certificates_have_the_numbers_that_alipays_own_clients_give_them() -> None:
    """Two of the four real roots are not read by the library at all, and do not count."""
    assert read_certificate(VECTORS["app"]["pem"]).sn == VECTORS["app"]["sn"]
    assert read_roots(VECTORS["root"]["pem"]).sn == VECTORS["root"]["sn"]


def test_the_simulators_numbers_are_the_same_by_its_own_reckoning() -> None:
    assert simulated.certificate_sn(VECTORS["app"]["pem"]) == VECTORS["app"]["sn"]


@pytest.mark.parametrize("text", ["", "MIIB", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_said_to_be_none(text: str) -> None:
    with pytest.raises(BadKeyError, match="no certificate"):
        read_certificate(text)
    with pytest.raises(BadKeyError, match="RSA"):
        read_roots(text)


# ---------------------------------------------------------------- whom the roots vouch for


def shop(name: str = "authority", seller_id: str = SELLER_ID) -> Account:
    """A merchant in certificate mode under an authority of that name."""
    merchant = AlipayMerchant("2021", public_pem("app"), seller_id, certificates=True)
    return Account("shop", face="alipay", alipay=merchant, keys=(private_pem("alipay"),), authority=private_pem(name))


def test_a_certificate_that_the_roots_vouch_for_is_believed_and_no_other() -> None:
    ours, strange = shop(), shop("another authority")
    roots = read_roots(simulated.root_certificates(ours))
    known = read_certificate(simulated.alipay_certificate(ours, private_pem("alipay")))
    text = simulated.alipay_certificate(ours, private_pem("next"))
    new = believed(text, roots, known, NOW)
    assert new is not None and new.sn == simulated.certificate_sn(text) != known.sn
    forged = simulated.alipay_certificate(strange, private_pem("next"))
    assert believed(forged, roots, known, NOW) is None
    leaf, issuer = text.split("-----END CERTIFICATE-----\n")[:2]
    end = "-----END CERTIFICATE-----\n"
    assert believed(leaf + end, roots, known, NOW) is None, "what has issued it is missing"
    assert believed(text + (issuer + end) * 9, roots, known, NOW) is None, "a chain without end"
    assert believed("", roots, known, NOW) is None
    for year in (2019, 2071):
        assert believed(text, roots, known, NOW.replace(year=year)) is None, "not valid yet, or any more"


def test_another_merchants_certificate_is_not_alipays_though_the_same_roots_have_issued_it() -> None:
    """Every merchant holds the key of a certificate of his app that the roots vouch for."""
    ours = shop()
    roots = read_roots(simulated.root_certificates(ours))
    known = read_certificate(simulated.alipay_certificate(ours, private_pem("alipay")))
    between = simulated.authority_certificate(ours, simulated.ISSUER_OF_APPS)
    assert believed(simulated.app_certificate(ours) + between, roots, known, NOW) is None
    theirs = simulated.alipay_certificate(shop(seller_id="2088000000000009"), private_pem("next"))
    assert believed(theirs, roots, known, NOW) is None


def test_who_may_not_issue_vouches_for_nobody() -> None:
    """A merchant who signs a certificate with the key of his own app's certificate."""
    ours = shop()
    roots = read_roots(simulated.root_certificates(ours))
    known = read_certificate(simulated.alipay_certificate(ours, private_pem("alipay")))
    app = simulated.app_certificate(ours)
    own = x509.load_pem_x509_certificate(app.encode())
    times = (NOW.replace(year=2020), NOW.replace(year=2070))
    forged = x509.CertificateBuilder(own.subject, known.subject, key_of("thief").public_key(), 7, *times)
    leaf = forged.sign(key_of("app"), SHA256()).public_bytes(Encoding.PEM).decode()
    apps_issuer = simulated.authority_certificate(ours, simulated.ISSUER_OF_APPS)
    assert believed(app + apps_issuer, roots, replace(known, subject=own.subject), NOW) is not None, (
        "the chain is whole"
    )
    assert believed(leaf + app + apps_issuer, roots, known, NOW) is None


# ---------------------------------------------------------------- at the gateway


async def test_a_whole_ride_in_certificate_mode(certified: Merchant) -> None:
    provider = certified.provider
    assert await provider.check() is None
    agreement = await certified.signed("AG_CERT", "rider")
    hold = await certified.ordered("HOLD_CERT", agreement)
    debit = request("DEBIT_CERT", hold, agreement)
    taken = await provider.debit(debit)
    assert isinstance(taken, Accepted) and hold.provider_ref is not None
    heard = await certified.ear.hears("debit", hold.provider_ref)
    assert heard.answer == await provider.get_debit(ref(debit)) == Succeeded(1234, taken.provider_ref)


async def test_a_certificate_by_which_alipay_has_replaced_its_own_is_fetched(certified: Merchant) -> None:
    await certified.rotate()
    assert await certified.provider.check() is None
    agreement = await certified.signed("AG_NEXT", "rider")
    assert (await certified.ear.hears("agreement", "AG_NEXT")).key == agreement.key


async def test_a_notification_by_a_new_certificate_is_refused_once_and_then_believed(certified: Merchant) -> None:
    agreement = await certified.signed("AG_FIRST", "rider")
    await certified.ear.hears("agreement", "AG_FIRST")
    await certified.rotate()
    limit = {"account_id": certified.account_id, "key": agreement.key, "revoke": True}
    await certified.peer.call("POST", "/agreements", limit)
    refused = await certified.ear.refuses()
    assert refused.reason == "it is signed by a certificate that is not known"
    now = (await certified.peer.call("GET", "/clock"))["now"]
    await certified.at(datetime.fromisoformat(now).replace(year=2027).isoformat())
    assert (await certified.ear.hears("agreement", "AG_FIRST")).key == agreement.key


async def test_what_is_wrong_with_certificates_is_named_at_once(certified: Merchant, tmp_path: Path) -> None:
    account = certified.provider.account
    (tmp_path / "app_certificate.crt").write_text(simulated.app_certificate(shop()))
    for setting, code in (("app_certificate", "isv.app-cert-not-exist"), ("", "isv.missing-app-cert-sn")):
        settings = dict(account.settings)
        if not setting:
            for name in NAMES:
                settings.pop(f"{name}_file")
            settings["alipay_public_key_file"] = str(tmp_path / "alipay.pem")
        async with provider_at(account.base_url, settings) as provider:
            told = await provider.check()
        assert isinstance(told, Rejected) and told.code == code and "app_certificate" in told.message, told


def certified_settings(directory: Path, account: Account, **more: Any) -> dict[str, Any]:
    """An account's settings in certificate mode."""
    texts = (
        simulated.app_certificate(account),
        simulated.alipay_certificate(account, private_pem("alipay")),
        simulated.root_certificates(account),
    )
    files = {}
    for name, text in zip(NAMES, texts, strict=True):
        (directory / f"{name}.crt").write_text(text)
        files[f"{name}_file"] = str(directory / f"{name}.crt")
    return settings_of("zhima", directory, **{"alipay_public_key_file": None, **files, **more})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"alipay_public_key_file": "alipay.pem"}, "alipay_public_key and app_certificate: an app has one mode"),
        ({"alipay_root_certificate_file": None}, "alipay_root_certificate_file or _env is missing"),
        ({"app_certificate_file": "alipay_certificate.crt"}, "app_certificate: it is not the certificate of app_priv"),
        ({"alipay_certificate_file": "alipay.pem"}, "alipay_certificate: no certificate"),
        ({"alipay_root_certificate_file": "app.pem"}, "alipay_root_certificate: none of the certificates is of RSA"),
    ],
)
def test_settings_that_do_not_go_together_are_named(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    settings = certified_settings(tmp_path, shop())
    files = {name: value and str(tmp_path / value) for name, value in changed.items()}
    settings = {name: value for name, value in (settings | files).items() if value is not None}
    with pytest.raises(AccountSettingsError, match=said):
        open_provider(MerchantAccount(1, "city", "alipay", "http://127.0.0.1:9", settings))


async def test_an_answer_that_names_no_certificate_or_a_strange_one_is_not_believed(tmp_path: Path) -> None:
    ours, debit = shop(), request("KEY", None, AgreementRef("AG"))
    async with double() as gateway, provider_at(gateway.url, certified_settings(tmp_path, ours)) as provider:
        paid = {"out_trade_no": "KEY", "trade_status": "TRADE_SUCCESS", "total_amount": "1"}
        gateway.says("alipay.trade.query", paid)
        gateway.says(simulated.DOWNLOAD, Canned({"code": "40004", "sub_code": "NONE"}, "unsigned"))
        assert await provider.get_debit(ref(debit)) == Unknown("the answer names no certificate")
        gateway.cert_sn = "0" * 32
        assert await provider.get_debit(ref(debit)) == Unknown("the answer's signature is wrong")
        gateway.cert_sn = simulated.signer_sn(ours, private_pem("alipay"))
        assert await provider.get_debit(ref(debit)) == Succeeded(100)
        gateway.own_key = "thief"
        assert await provider.get_debit(ref(debit)) == Unknown("the answer's signature is wrong")


async def test_requests_and_what_the_riders_app_is_given_name_the_certificates(tmp_path: Path) -> None:
    ours = shop()
    async with double() as gateway, provider_at(gateway.url, certified_settings(tmp_path, ours)) as provider:
        begun = await provider.begin_agreement(AgreementRequest("AG", "rider", "CNY"))
        await provider.check()
    assert isinstance(begun, AgreementStatus)
    for asked in (opened(begun.action), gateway.asked[-1]):
        assert asked["app_cert_sn"] == simulated.certificate_sn(simulated.app_certificate(ours))
        assert asked["alipay_root_cert_sn"] == simulated.roots_sn(ours)


async def test_a_notification_without_a_certificates_number_is_by_the_accounts_own(tmp_path: Path) -> None:
    async with double() as gateway, provider_at(gateway.url, certified_settings(tmp_path, shop())) as provider:
        body = trade_notice()
        assert isinstance(provider.parse_notification({}, body, NOW), Notification)
        for number in (simulated.signer_sn(shop(), private_pem("alipay")), ""):
            told = provider.parse_notification({}, body + f"&alipay_cert_sn={number}".encode(), NOW)
            assert isinstance(told, Notification)
        told = provider.parse_notification({}, trade_notice(key="thief"), NOW)
        assert isinstance(told, BadNotification) and told.reason == "the signature is wrong"


def test_a_strangers_numbers_do_not_make_us_ask_for_ever() -> None:
    now = 0.0
    vain = Vain(lambda: now)
    for _ in range(VAIN_MAX):
        assert not vain.often
        vain.again()
    assert vain.often
    now = WITHIN_S
    assert not vain.often
