"""Credentials by reference, and accounts that can't be used."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sandbox_peer import API_KEY, Peer, debit_request, peer, provider_at, sign

from service.adapters.providers import Providers, open_provider
from service.adapters.providers.port import MerchantAccount
from service.adapters.providers.secrets import AccountSettingsError
from service.billing.outcomes import Barred, Rejected, Succeeded, Throttled
from service.lab.provider.rows import Account, Terms

PAGE = (Path(__file__).parents[2] / "service/adapters/providers/sandbox.md").read_text(encoding="utf-8")
"""What the sandbox's own page prints."""


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Peer]:
    async with peer() as it:
        yield it


@pytest.mark.parametrize(
    ("provider", "settings", "told"),
    [
        ("paypal", {}, "provider 'paypal' is not known; known are .*sandbox"),
        ("sandbox", {}, "exactly one of api_key_env or api_key_file or api_key"),
        ("sandbox", {"api_key": "a", "api_key_env": "B"}, "exactly one of"),
        (
            "sandbox",
            {"api_key_env": "NOT_SET_ANYWHERE"},
            "settings.api_key_env names NOT_SET_ANYWHERE, which is not set",
        ),
        ("sandbox", {"api_key_file": "/nowhere/key"}, "settings.api_key_file /nowhere/key"),
        ("sandbox", {"api_key": "a", "capabilities": {"flies": True}}, "settings.capabilities"),
        (
            "sandbox",
            {"api_key": "a", "capabilities": {"partial_debit": True}},
            'partial_debit and closes_unpaid exclude each other, .*: give "closes_unpaid": false',
        ),
        ("sandbox", {"api_key": "a", "timeout_s": 0}, "settings.timeout_s: expected a number > 0"),
        ("sandbox", {"api_key": 7}, "settings.api_key: expected a text or nothing, got a whole number"),
        (
            "sandbox",
            {"api_key": "a", "capabilties": {"a": 1}},
            "settings.capabilties is not known; known are api_key, ",
        ),
        ("sandbox", {"api_key": "a", "foo": "bar"}, "settings.foo is not known"),
    ],
)
async def test_an_account_that_cannot_be_used_says_why(provider: str, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(AccountSettingsError, match=f"merchant account acc: .*{told}"):
        open_provider(MerchantAccount(1, "acc", provider, "http://127.0.0.1:1", settings))


async def test_wrong_credentials_and_wrong_abilities_are_found_by_a_call_that_moves_nothing(sandbox: Peer) -> None:
    async with provider_at(sandbox, "checked", hold_needed=True) as provider:
        assert await provider.check() is None
        settings = provider.account.settings
        for changed, code in (({"api_key": "wrong"}, "UNAUTHORIZED"), ({"capabilities": {}}, "CAPABILITIES_DIFFER")):
            other = open_provider(MerchantAccount(1, "checked", "sandbox", sandbox.url, settings | changed))
            found = await other.check()
            assert isinstance(found, Rejected | Barred) and found.code == code
            await other.close()
        gone = open_provider(MerchantAccount(1, "checked", "sandbox", "http://127.0.0.1:9", settings))
        assert isinstance(await gone.check(), Throttled)
        await gone.close()


@pytest.mark.parametrize(
    ("declared", "terms", "told"),
    [
        ({}, {}, ""),
        ({"hold_needed": True}, {"hold_needed": True}, ""),
        ({"same_key_window": "P2D"}, {"key_window_s": 3 * 86_400}, ""),
        (
            {},
            {"hold_needed": True, "provider_retries": True},
            "provider_retries is false in the settings, true at the provider (provider_retries);"
            " hold_needed is false in the settings, true at the provider (hold_needed)",
        ),
        (
            {"hold_needed": True, "nudges": True},
            {},
            "nudges is true in the settings, false at the provider (nudge);"
            " hold_needed is true in the settings, false at the provider (hold_needed)",
        ),
        (
            {"same_key_window": "P1D"},
            {"key_window_s": 60, "refund_window_s": 60, "amount_min_minor": 50},
            'same_key_window is "P1D" in the settings, 60 s at the provider (key_window_s);'
            " refund_window is null in the settings, 60 s at the provider (refund_window_s);"
            " debit_min_minor is 1 in the settings, 50 at the provider (amount_min_minor)",
        ),
    ],
)
async def test_every_difference_between_what_is_declared_and_what_the_simulator_does_is_named(
    sandbox: Peer, declared: dict[str, Any], terms: dict[str, Any], told: str
) -> None:
    account_id = f"differs-{len(str((declared, terms)))}"
    await sandbox.call("PUT", "/accounts", Account(account_id, account_id, Terms(**terms)))
    settings = {"api_key": account_id, "capabilities": declared}
    provider = open_provider(MerchantAccount(1, account_id, "sandbox", sandbox.url, settings))
    try:
        assert await provider.check() == (Rejected("CAPABILITIES_DIFFER", told) if told else None)
    finally:
        await provider.close()


async def test_the_page_declares_the_same_on_both_sides_and_chargebacks_where_it_prints_one(sandbox: Peer) -> None:
    """As printed: the account is checked as good, is told of what happens, and a chargeback is one of its disputes."""
    there = re.search(r"--account '({.*})'", PAGE)
    assert there is not None
    account = msgspec.json.decode(there[1], type=Account)
    await sandbox.call("PUT", "/accounts", account)
    settings: dict[str, Any] = dict(re.findall(r"--setting (api_key|notify_secret)=(\w+)", PAGE))
    declared = re.search(r"--setting 'capabilities=({.*})'", PAGE)
    assert declared is not None
    settings["capabilities"] = msgspec.json.decode(declared[1])
    provider = open_provider(MerchantAccount(1, account.account_id, "sandbox", sandbox.url, settings))
    try:
        assert await provider.check() is None
        assert account.notify_url is not None
        assert account.notify_url.endswith(f"/v1/providers/sandbox/default.{account.account_id}/notifications")
        assert (account.notify_secret, account.api_key) == (settings["notify_secret"], settings["api_key"])
        printed = set(re.findall(r'"account_id": "(\w+)", "debit": "DEBIT", "kind": "(\w+)"', PAGE))
        assert printed == {(account.account_id, provider.capabilities.dispute)}
    finally:
        await provider.close()


async def test_a_key_rotated_in_its_file_is_used_without_a_restart(sandbox: Peer, tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text(f"{API_KEY}-1\n")
    terms = Terms(confirm_agreement=False)
    await sandbox.call("PUT", "/accounts", Account("rotated", f"{API_KEY}-1", terms))
    account = MerchantAccount(1, "rotated", "sandbox", sandbox.url, {"api_key_file": str(secret)})
    provider = open_provider(account)
    agreement = await sign(sandbox, provider, "ag")
    await sandbox.call("PUT", "/accounts", Account("rotated", f"{API_KEY}-2", terms))
    assert isinstance(await provider.debit(debit_request("early", agreement)), Barred)
    secret.write_text(f"{API_KEY}-2")
    assert isinstance(await provider.debit(debit_request("late", agreement)), Succeeded)
    await provider.close()


async def test_providers_are_opened_once_and_anew_when_their_account_changed() -> None:
    providers = Providers()
    account = MerchantAccount(1, "acc", "sandbox", "http://127.0.0.1:1", {"api_key": "a"})
    first = providers.of(account)
    assert providers.of(MerchantAccount(1, "acc", "sandbox", "http://127.0.0.1:1", {"api_key": "a"})) is first
    assert providers.of(MerchantAccount(1, "acc", "sandbox", "http://127.0.0.1:1", {"api_key": "b"})) is not first
    await providers.close()


@pytest.mark.parametrize(
    ("provider", "url", "settings", "told"),
    [
        ("sandbox", "http://127.0.0.1:9", {"api_key": "k"}, "the sandbox provider"),
        ("stripe", "https://api.stripe.com", {"mode": "test"}, "stripe with mode=test"),
        (
            "alipay",
            "https://openapi-sandbox.dl.alipaydev.com/gateway.do",
            {},
            "alipay's sandbox at openapi-sandbox.dl.alipaydev.com",
        ),
    ],
)
def test_in_production_an_account_that_moves_no_money_is_refused_by_name(
    provider: str, url: str, settings: dict[str, Any], told: str
) -> None:
    """Whatever else is wrong with it: this is said first."""
    account = MerchantAccount(1, "city", provider, url, settings)
    with pytest.raises(
        AccountSettingsError, match=rf"merchant account city: {re.escape(told)} moves no real money.*use"
    ):
        Providers(sandbox=False).of(account)


async def test_in_production_an_account_in_live_mode_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVE_KEY", "sk_live_1")
    monkeypatch.setenv("LIVE_HOOK", "whsec_1")
    settings = {"currency": "EUR", "secret_key_env": "LIVE_KEY", "webhook_secret_env": "LIVE_HOOK"}
    providers = Providers(sandbox=False)
    try:
        opened = providers.of(MerchantAccount(1, "city", "stripe", "https://api.stripe.com", settings))
        assert opened.account.account_id == "city"
    finally:
        await providers.close()
