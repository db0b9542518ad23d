"""Settings of a WeChat Pay account: who we are there, how its orders are made, and how its answers are verified."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

import msgspec

from service.adapters.providers.given import given_settings
from service.adapters.providers.port import MerchantAccount
from service.adapters.providers.secrets import account_error, names_secret
from service.billing.capabilities import Capabilities

Word = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z_-]+$")]
RiskFund = Literal["DEPOSIT", "ADVANCE", "CASH_DEPOSIT", "ESTIMATE_ORDER_COST"]
SECRETS = ("merchant_private_key", "merchant_certificate", "api_v3_key", "api_v2_key", "wechatpay_public_key")
"""Named by reference: `<name>_file` or `<name>_env`."""


class WechatPaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an account's settings say, beside its secrets and `exchange.Limits`. Durations are ISO 8601."""

    mchid: Word
    appid: Word
    """Of the app or mini program; the same for an order's whole life (wechatpay-skills, 开发参数与业务规则 2.2)."""
    service_id: Word
    """Pay Score's number for this service."""
    notify_url: str
    merchant_serial_no: Word | None = None
    """Of the merchant's API certificate; else that is read from the certificate itself."""
    public_key_id: Annotated[str, msgspec.Meta(pattern=r"^PUB_KEY_ID_[0-9A-Za-z]{1,50}$")] | None = None
    """Public-key mode: answers are signed with WeChat Pay's public key; else with its platform certificates."""
    service_introduction: Annotated[str, msgspec.Meta(min_length=1, max_length=20)]
    """Shown to the rider: what he uses. An order keeps the word that it was opened with."""
    risk_fund_name: RiskFund = "ESTIMATE_ORDER_COST"
    """Deposit-like words: an order pays at most its risk fund (先免); ESTIMATE_ORDER_COST: at most the service's cap
    (先享). Which one is agreed for the service (开发参数与业务规则 5.1)."""
    need_user_confirm: bool = True
    """The rider confirms each order. False only with WeChat's permission, and then he signs once, before (同 5.7)."""
    payment_path: str = ""
    """Page of the operator's own mini program that calls wx.requestPayment with what it is given."""
    refund_window: timedelta = timedelta(days=365)
    """WeChat refunds for a year (pay.weixin.qq.com, 申请退款)."""


def read_settings(account: MerchantAccount) -> WechatPaySettings:
    """The account's settings; raises AccountSettingsError naming the setting and what is allowed."""
    given: Mapping[str, Any] = account.settings
    settings = given_settings(account, WechatPaySettings, SECRETS, ("merchant_private_key", "api_v3_key"))
    if not settings.notify_url.startswith(("https://", "http://")) or "?" in settings.notify_url:
        raise account_error(account.account_id, "settings.notify_url is no http or https address without a query")
    if (settings.merchant_serial_no is None) != names_secret(given, "merchant_certificate"):
        raise account_error(
            account.account_id,
            "settings must have exactly one of merchant_serial_no and merchant_certificate_file or _env",
        )
    if (settings.public_key_id is None) == names_secret(given, "wechatpay_public_key"):
        raise account_error(
            account.account_id, "settings.public_key_id and wechatpay_public_key_file or _env go together"
        )
    if settings.need_user_confirm and not names_secret(given, "api_v2_key"):
        raise account_error(
            account.account_id,
            "settings.need_user_confirm wants api_v2_key_file or _env, which signs the page where the rider confirms an"
            " order; or it is false, where WeChat Pay allows the service orders that are not confirmed one by one",
        )
    return settings


def capabilities_of(settings: WechatPaySettings) -> Capabilities:
    """What Pay Score can do. An order's number is known for good; the window only bounds how long a debit whose outcome
    nobody tells is asked for before people look at it."""
    return Capabilities(
        provider_retries=True,
        nudges=True,
        hold_needed=True,
        hold_confirmed_by_rider=settings.need_user_confirm,
        payable_apart=not settings.need_user_confirm,  # Who confirms each order has told us no openid to be asked by.
        partial_debit=True,
        further_debit=False,
        reduces_pending=True,
        closes_unpaid=False,
        told_paid_elsewhere=True,
        same_key_window=timedelta(days=30),
        new_key_after_decline=False,
        refund_window=settings.refund_window,
        reports_performance="provider",
        dispute="complaint",
    )
