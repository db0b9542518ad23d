"""Settings of an Alipay account: which product, who we are there, and the words that a contract may change."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

import msgspec

from service.adapters.providers.given import given_settings
from service.adapters.providers.port import MerchantAccount
from service.adapters.providers.secrets import account_error, names_secret
from service.adapters.providers.titles import Title
from service.billing.capabilities import Capabilities

Product = Literal["zhima", "preauth"]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z_.-]+$")]
CERTIFICATES = ("app_certificate", "alipay_certificate", "alipay_root_certificate")
"""Certificate mode (公钥证书): the app's, Alipay's, and Alipay's roots, as the open platform gives them."""
ZHIMA_NEEDS = ("zm_service_id", "category_id")
"""Settings that product zhima needs beside the others."""
SECRETS = ("app_private_key", "alipay_public_key", *CERTIFICATES)
"""Named by reference: `<name>_file` or `<name>_env`."""


class AlipaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an account's settings say, beside its secrets and `exchange.Limits`. Durations are ISO 8601."""

    product: Product
    """zhima: 芝麻先享 with a dynamic amount; preauth: fund-auth pre-authorisation (芝麻免押, given a service)."""
    app_id: Word
    seller_id: Word
    """The merchant's pid (2088…): what notifications must be for, and who is paid."""
    notify_url: str
    title: Title | None = None
    """What the rider reads in Alipay, before the time of his ride; None: 用车 or Ride, in his language."""
    zm_service_id: Word | None = None
    category_id: Word | None = None
    scene: Word = "ZHIMA_CREDIT_CODE"
    """unverified, as the next two: only the agent-skill of 芝麻先享（动态金额模式） says them (pay-request.md)."""
    product_code: Word = "GENERAL_WITHHOLDING"
    credit_trade_scene: Word = "CREDIT_PAY_UNCERTAIN_FEE"
    credit_pay_modes: tuple[Word, ...] = ("creditAdvanceV2",)
    """Known ways of paying on credit; any other is not believed (alipay-sdk-java-all, AlipayTradePayResponse)."""
    freeze_product_code: Word = "PREAUTH_PAY"
    """Of fund.auth.order.app.freeze (alipay-sdk-java-all, AlipayFundAuthOrderAppFreezeModel)."""
    auth_product_code: Word = "PRE_AUTH_ONLINE"
    """Of trade.pay on a pre-authorisation (alipay-sdk-java-all, AlipayTradePayModel)."""
    freeze_timeout: Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,4}[mhd]$")] = "15m"
    """How long the rider may take to confirm a freeze, 1m to 15d (AlipayFundAuthOrderAppFreezeModel)."""
    refund_window: timedelta = timedelta(days=90)
    """unverified: the contract says how long a trade can be refunded; after it Alipay calls it TRADE_FINISHED."""


def read_settings(account: MerchantAccount) -> AlipaySettings:
    """The account's settings; raises AccountSettingsError naming the setting and what is allowed."""
    by_certificates = any(names_secret(account.settings, name) for name in CERTIFICATES)
    needed = ("app_private_key",) if by_certificates else ("app_private_key", "alipay_public_key")
    zhima = ZHIMA_NEEDS if account.settings.get("product") == "zhima" else ()
    settings = given_settings(account, AlipaySettings, SECRETS, needed, zhima)
    if not settings.notify_url.startswith(("https://", "http://")):
        raise account_error(account.account_id, "settings.notify_url is no http or https address")
    _check_mode(account)
    if (settings.zm_service_id is None) != (settings.category_id is None):
        raise account_error(account.account_id, "settings.zm_service_id and settings.category_id go together")
    return settings


def capabilities_of(settings: AlipaySettings) -> Capabilities:
    """What the account's product can do. Alipay closes an unpaid trade of either after 15 days
    (AlipayTradePayModel.timeout_express); alipay.trade.app.pay makes one when the rider opens its string."""
    zhima = settings.product == "zhima"
    return Capabilities(
        provider_retries=zhima,
        hold_needed=True,
        hold_confirmed_by_rider=not zhima,
        further_debit=False,
        closes_unpaid=True,
        opened_by_rider=True,
        same_key_window=timedelta(days=15),
        new_key_after_decline=False,
        refund_window=settings.refund_window,
        reports_performance="provider" if zhima else "merchant",
        dispute="complaint",
    )


def _check_mode(account: MerchantAccount) -> None:
    """An app has one way of signing at the open platform (接口加签方式): keys, or certificates."""
    given = [name for name in CERTIFICATES if names_secret(account.settings, name)]
    if given and names_secret(account.settings, "alipay_public_key"):
        raise account_error(account.account_id, f"settings have alipay_public_key and {given[0]}: an app has one mode")
    missing = [name for name in CERTIFICATES if name not in given] if given else []
    if missing:
        raise account_error(
            account.account_id, f"settings.{missing[0]}_file or _env is missing: certificate mode needs all three"
        )
