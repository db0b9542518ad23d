"""Alipay behind the port: 芝麻先享 (`zhima`) and pre-authorisation (`preauth`), selected by the account's settings.

settings | secrets -> gateway (signing) -> base -> zhima | preauth
                               notices, statements, codes, wire
"""

from __future__ import annotations

import aiohttp

from service.adapters.clock import Clock
from service.adapters.providers.alipay.preauth import PreauthProvider
from service.adapters.providers.alipay.settings import read_settings
from service.adapters.providers.alipay.zhima import ZhimaProvider
from service.adapters.providers.port import MerchantAccount, Provider


def open_alipay(account: MerchantAccount, session: aiohttp.ClientSession | None, now: Clock) -> Provider:
    """The account's product; raises AccountSettingsError naming the setting that can't be used."""
    settings = read_settings(account)
    if settings.product == "zhima":
        return ZhimaProvider(account, settings, session, now)
    return PreauthProvider(account, settings, session, now)
