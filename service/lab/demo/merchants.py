"""The demo's merchant accounts: each at the provider's side and at ours, with keys made for this run."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
from msgspec.structs import replace

from service.lab.localstripe import KEY
from service.lab.provider.rows import Account, AlipayMerchant, Terms, WeChatMerchant
from service.lab.provider.signatures import new_key, public_half

SHARES = {"zhima": 0.33, "preauth": 0.07, "wechatpay": 0.30, "city": 0.20, "stripe": 0.10}
"""The share of riders at each account."""
PROVIDERS = {
    "zhima": "alipay",
    "preauth": "alipay",
    "wechatpay": "wechatpay",
    "city": "sandbox",
    "stripe": "stripe",
}
NAMES = {
    "zhima": "Alipay 芝麻先享",
    "preauth": "Alipay pre-auth",
    "wechatpay": "WeChat Pay",
    "city": "Sandbox",
    "stripe": "Stripe",
}
"""What the summary calls them."""
FAULTS = {
    "decline": 0.02,
    "slow": 0.02,
    "lost": 0.01,
    "error_after": 0.005,
    "error_before": 0.005,
    "throttle": 0.005,
    "unavailable_before": 0.003,
    "unavailable_after": 0.003,
    "html": 0.003,
    "truncated": 0.003,
    "bad_signature": 0.005,
    "notify_twice": 0.03,
    "notify_lost": 0.02,
    "notify_late": 0.01,
    "notify_reordered": 0.01,
    "notify_tampered": 0.01,
}
"""The simulator's shares of everything that goes wrong, at every face."""
SELLER = "2088531891668739"
SERVICE = {"zm_service_id": "2022111500000000000093666900", "category_id": "RENT_BICYCLE"}
TERMS = {
    "zhima": Terms(
        provider_retries=True,
        retry_s=(21_600, 86_400),
        hold_needed=True,
        further_debits=False,
        new_key_after_decline=False,
    ),
    "preauth": Terms(hold_needed=True, new_key_after_decline=False),
    "wechatpay": Terms(
        provider_retries=True,
        retry_s=(21_600, 86_400),
        nudge=True,
        hold_needed=True,
        further_debits=False,
        reduce_pending=True,
        partial=True,
        close=False,
        new_key_after_decline=False,
        refund_window_s=365 * 86_400,
    ),
    "city": Terms(),
}
"""How the simulator treats each account. Running holds and unpaid debits of a rider are not limited: on a clock that
runs three hours a second, rides follow each other faster than anybody could pay."""


class Places(NamedTuple):
    """Where everything answers: our API, the simulator, localstripe itself (`cards`) and its door."""

    api: str
    provider: str
    cards: str
    door: str


class Merchant(msgspec.Struct, frozen=True):
    """An account as `farebox account add` takes it."""

    account_id: str
    provider: str
    base_url: str
    settings: dict[str, Any]


async def open_accounts(places: Places, keys: Path, account_ids: Sequence[str]) -> list[Merchant]:
    """Opens the accounts at their providers, and says what the service needs to know of them.

    Keys are written to files in the directory `keys`, where the settings refer to them.
    """
    openers = {"alipay": _at_alipay, "wechatpay": _at_wechatpay, "sandbox": _at_sandbox, "stripe": _at_stripe}
    async with aiohttp.ClientSession() as session:
        return [await openers[PROVIDERS[name]](session, places, keys, name) for name in account_ids]


async def open_to_visitors(places: Places, merchants: Sequence[Merchant]) -> None:
    """At the sandbox riders need not confirm any more what they sign: for whoever tries the first steps by hand."""
    async with aiohttp.ClientSession() as session:
        for merchant in merchants:
            if merchant.provider == "sandbox":
                api_key, secret = [
                    await asyncio.to_thread(Path(merchant.settings[f"{name}_file"]).read_text)
                    for name in ("api_key", "notify_secret")
                ]
                terms = replace(TERMS[merchant.account_id], confirm_agreement=False)
                url = notify_url(places, merchant.account_id)
                account = Account(merchant.account_id, api_key, terms, notify_url=url, notify_secret=secret)
                await _put(session, places, account)


def notify_url(places: Places, account_id: str) -> str:
    """Where the account's provider sends its notifications."""
    return f"{places.api}/v1/providers/{PROVIDERS[account_id]}/default.{account_id}/notifications"


async def _at_sandbox(session: aiohttp.ClientSession, places: Places, keys: Path, account_id: str) -> Merchant:
    api_key, secret = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    url = notify_url(places, account_id)
    account = Account(account_id, api_key, TERMS[account_id], notify_url=url, notify_secret=secret)
    await _put(session, places, account)
    settings = {
        "api_key_file": _kept(keys / "sandbox-key", api_key),
        "notify_secret_file": _kept(keys / "sandbox-notify", secret),
        "capabilities": {"same_key_window": "P15D"},
    }
    return Merchant(account_id, "sandbox", places.provider, settings)


async def _at_alipay(session: aiohttp.ClientSession, places: Places, keys: Path, account_id: str) -> Merchant:
    private, app_id = new_key(), f"2021{secrets.randbelow(10**12):012d}"
    url = notify_url(places, account_id)
    alipay = AlipayMerchant(app_id, public_half(private), SELLER)
    terms = TERMS[account_id]
    await _put(session, places, Account(account_id, terms=terms, notify_url=url, face="alipay", alipay=alipay))
    async with session.get(f"{places.provider}/keys", params={"account": account_id}) as answer:
        answer.raise_for_status()
        theirs = (await answer.json())["public_keys"][0]
    settings = SERVICE | {
        "product": account_id,
        "app_id": app_id,
        "seller_id": SELLER,
        "notify_url": url,
        "app_private_key_file": _kept(keys / f"{account_id}-app.pem", private),
        "alipay_public_key_file": _kept(keys / f"{account_id}-alipay.pem", theirs),
        "freeze_timeout": "3d",  # On a fast clock a quarter of an hour is over before a rider has looked.
    }
    return Merchant(account_id, "alipay", places.provider, settings)


async def _at_wechatpay(session: aiohttp.ClientSession, places: Places, keys: Path, account_id: str) -> Merchant:
    """With platform certificates, which the service asks WeChat Pay for; riders give one permission for all orders."""
    private, api_v3_key = new_key(), secrets.token_hex(16)
    serial_no = secrets.token_hex(20).upper()
    mchid, appid, service_id = f"19{secrets.randbelow(10**8):08d}", "wxd678efh567hg6787", f"{10**29 + 1}"
    known = WeChatMerchant(mchid, appid, service_id, serial_no, public_half(private), api_v3_key)
    url = notify_url(places, account_id)
    account = Account(account_id, terms=TERMS[account_id], notify_url=url, face="wechatpay", wechatpay=known)
    await _put(session, places, account)
    settings = {
        "mchid": mchid,
        "appid": appid,
        "service_id": service_id,
        "merchant_serial_no": serial_no,
        "notify_url": url,
        "service_introduction": "共享单车骑行",
        "need_user_confirm": False,
        "merchant_private_key_file": _kept(keys / "wechatpay-merchant.pem", private),
        "api_v3_key_file": _kept(keys / "wechatpay-v3", api_v3_key),
        "api_v2_key_file": _kept(keys / "wechatpay-v2", secrets.token_hex(16)),
    }
    return Merchant(account_id, "wechatpay", places.provider, settings)


async def _at_stripe(session: aiohttp.ClientSession, places: Places, keys: Path, account_id: str) -> Merchant:
    secret = f"whsec_{secrets.token_urlsafe(24)}"
    hook = {"url": notify_url(places, account_id), "secret": secret}
    async with session.post(f"{places.cards}/_config/webhooks/farebox", data=hook) as answer:
        answer.raise_for_status()
    settings = {
        "currency": "CNY",
        "mode": "test",
        "secret_key_file": _kept(keys / "stripe-key", KEY),
        "webhook_secret_file": _kept(keys / "stripe-webhook", secret),
    }
    return Merchant(account_id, "stripe", places.door, settings)


async def _put(session: aiohttp.ClientSession, places: Places, account: Account) -> None:
    async with session.put(f"{places.provider}/accounts", data=msgspec.json.encode(account)) as answer:
        answer.raise_for_status()


def _kept(file: Path, secret: str) -> str:
    """The secret in a file that only its owner reads; the file's name."""
    file.touch(mode=0o600)
    file.write_text(secret)
    return str(file)
