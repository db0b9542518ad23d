"""Payment providers behind one port (`port.Provider`), opened by the name on the merchant account."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from service.adapters.clock import Clock, machine_now
from service.adapters.providers.alipay import open_alipay
from service.adapters.providers.alipay import settings as alipay
from service.adapters.providers.given import read_setting
from service.adapters.providers.port import MerchantAccount, Provider
from service.adapters.providers.sandbox import SandboxProvider, SandboxSettings
from service.adapters.providers.sandbox import capabilities_of as sandbox_capabilities
from service.adapters.providers.secrets import AccountSettingsError
from service.adapters.providers.stripe import StripeProvider
from service.adapters.providers.stripe import settings as stripe
from service.adapters.providers.wechatpay import WechatPayProvider
from service.adapters.providers.wechatpay import settings as wechatpay
from service.billing.capabilities import Capabilities

Known = TypeVar("Known")
_OPENERS: dict[str, Callable[[MerchantAccount, aiohttp.ClientSession | None, Clock], Provider]] = {
    "alipay": open_alipay,
    "sandbox": lambda account, session, _: SandboxProvider(account, session),
    "stripe": lambda account, session, _: StripeProvider(account, session),
    "wechatpay": WechatPayProvider,
}
_DECLARED: dict[str, Callable[[MerchantAccount], Capabilities]] = {
    "alipay": lambda account: alipay.capabilities_of(alipay.read_settings(account)),
    "sandbox": sandbox_capabilities,
    "stripe": lambda account: stripe.capabilities_of(stripe.read_settings(account)),
    "wechatpay": lambda account: wechatpay.capabilities_of(wechatpay.read_settings(account)),
}
"""What looks at settings alone."""
_SHAPES: dict[str, type[msgspec.Struct]] = {
    "alipay": alipay.AlipaySettings,
    "sandbox": SandboxSettings,
    "stripe": stripe.StripeSettings,
    "wechatpay": wechatpay.WechatPaySettings,
}
PROVIDER_NAMES = tuple(sorted(_OPENERS))
TRIAL_HOSTS = (".alipaydev.com",)
"""Where Alipay's public sandbox is (opendocs.alipay.com/common/02kkv7); the others' have no hosts of their own."""


def open_provider(
    account: MerchantAccount, session: aiohttp.ClientSession | None = None, now: Clock = machine_now
) -> Provider:
    """The provider of an account, with connections of its own unless given some; `now` is what it dates its calls by.

    Raises AccountSettingsError for an unknown provider name and for settings that can't be used.
    """
    return _known(_OPENERS, account)(account, session, now)


def declared_capabilities(account: MerchantAccount) -> Capabilities:
    """What an account can do: its provider and its settings say it, and nothing that they refer to is looked at, which
    may be on another machine. What is opened of the account has the same.

    Raises AccountSettingsError as `open_provider` does, and for a secret that stands in the settings.
    """
    return _known(_DECLARED, account)(account)


def setting_written(provider: str, name: str, written: str) -> Any:
    """What a person wrote as the value of an account's setting: a text where the setting is one, else JSON."""
    return read_setting(_SHAPES[provider], name, written) if provider in _SHAPES else written


def _known(by_name: Mapping[str, Known], account: MerchantAccount) -> Known:
    if account.provider in by_name:
        return by_name[account.provider]
    known = ", ".join(PROVIDER_NAMES)
    raise AccountSettingsError(
        f"merchant account {account.account_id}: provider {account.provider!r} is not known; known are {known}"
    )


class Providers:
    """The open providers of a process, by account; each keeps its connections to itself, so none slows another.

    `sandbox`: accounts that move no real money may be opened; False where FAREBOX_ENVIRONMENT is production.
    """

    def __init__(self, *, sandbox: bool = True) -> None:
        self._sandbox = sandbox
        self._open: dict[int, Provider] = {}
        self._replaced: list[Provider] = []

    def of(self, account: MerchantAccount) -> Provider:
        """The provider of an account, opened on first use, and anew when the account was changed.

        Raises AccountSettingsError as `open_provider` does, and for an account that moves no real money where none is
        allowed.
        """
        if not self._sandbox:
            refuse_trial(account)
        known = self._open.get(account.account_no)
        if known is not None and known.account == account:
            return known
        opened = open_provider(account)
        if known is not None:
            self._replaced.append(known)  # Calls may still be under way on it.
        self._open[account.account_no] = opened
        return opened

    @property
    def by_number(self) -> Mapping[int, Provider]:
        """The providers that are open, by account number; it grows as accounts are opened."""
        return self._open

    async def close(self) -> None:
        """Closes every connection."""
        for provider in (*self._open.values(), *self._replaced):
            await provider.close()
        self._open.clear()
        self._replaced.clear()


def refuse_trial(account: MerchantAccount) -> None:
    """Raises AccountSettingsError for an account that moves no real money."""
    trial = _trial(account)
    if trial is not None:
        raise AccountSettingsError(
            f"merchant account {account.account_id}: {trial} moves no real money, and FAREBOX_ENVIRONMENT is"
            " production: use an account with live credentials, or set FAREBOX_ENVIRONMENT=sandbox"
        )


def _trial(account: MerchantAccount) -> str | None:
    """What of an account says that it is for trying things out; None when nothing does."""
    if account.provider == "sandbox":
        return "the sandbox provider"
    if account.settings.get("mode") == "test":
        return f"{account.provider} with mode=test"
    host = urlsplit(account.base_url).hostname or ""
    return f"{account.provider}'s sandbox at {host}" if host.endswith(TRIAL_HOSTS) else None
