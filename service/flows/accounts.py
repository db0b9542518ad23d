"""Merchant accounts: added by an operator, opened as providers by every process that calls them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from service.adapters.postgres import Database
from service.adapters.postgres.agreements import AccountRow, AgreementStore, OwnedAccount
from service.adapters.providers import PROVIDER_NAMES, declared_capabilities, open_provider
from service.adapters.providers.port import MerchantAccount
from service.billing.agreements.asking import ConflictingAskError, InvalidAskError, UnknownAskError
from service.billing.outcomes import Outcome

ACCOUNT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def merchant_account(row: AccountRow) -> MerchantAccount:
    """An account as the port takes it."""
    return MerchantAccount(row.account_no, row.account_id, row.provider, row.base_url, row.settings)


async def list_accounts(database: Database) -> Sequence[OwnedAccount]:
    """Every merchant account of the installation."""
    async with database.reading(AgreementStore) as store:
        return await store.accounts()


async def add_account(
    database: Database,
    operator_no: int,
    *,
    account_id: str,
    provider: str,
    base_url: str,
    settings: dict[str, Any],
    now: datetime,
    secrets_elsewhere: bool = False,
) -> MerchantAccount:
    """Adds a merchant account after a look at its settings; the provider is not called.

    `secrets_elsewhere`: what the settings refer to is not on this machine, so they are not tried. Raises AskError
    naming the field, or AccountSettingsError for settings that can't be used.
    """
    if not ACCOUNT_ID.fullmatch(account_id):
        raise InvalidAskError("account_id", "allowed are 1 to 63 of A-Z, a-z, 0-9, _, . and -, a letter or digit first")
    if provider not in PROVIDER_NAMES:
        raise InvalidAskError("provider", f"{provider} is not known; allowed are {', '.join(PROVIDER_NAMES)}")
    _check_address(base_url)
    account = MerchantAccount(0, account_id, provider, base_url, settings)
    await _try(account, secrets_elsewhere=secrets_elsewhere)
    async with database.transaction(AgreementStore) as store:
        number = await store.add_account(operator_no, account_id, provider, base_url, settings, now)
    if number is None:
        raise ConflictingAskError(
            "account_id",
            f"the operator has a merchant account {account_id} already: put it right with"
            f" `farebox account change {account_id} --setting NAME=VALUE`",
        )
    return MerchantAccount(number, account_id, provider, base_url, settings)


async def change_account(
    database: Database,
    operator_no: int,
    account_id: str,
    *,
    base_url: str | None,
    settings: Mapping[str, Any],
    removed: Iterable[str] = (),
    secrets_elsewhere: bool = False,
) -> MerchantAccount:
    """Changes some of an account's settings, or its provider's address, after a look at them; who runs takes them up
    within seconds. Raises AskError naming the field, or AccountSettingsError for settings that can't be used.
    """
    known = [row.account for row in await list_accounts(database) if row.operator_no == operator_no]
    row = next((row for row in known if row.account_id == account_id), None)
    if row is None:
        raise UnknownAskError("account_id", f"the operator has no merchant account {account_id}")
    gone = set(removed)
    merged = {name: value for name, value in {**row.settings, **settings}.items() if name not in gone}
    _check_address(base_url or row.base_url)
    account = MerchantAccount(row.account_no, account_id, row.provider, base_url or row.base_url, merged)
    await _try(account, secrets_elsewhere=secrets_elsewhere)
    async with database.transaction(AgreementStore) as store:
        await store.change_account(operator_no, account_id, account.base_url, merged)
    return account


async def check_account(account: MerchantAccount) -> Outcome | None:
    """Asks the provider, by a call that moves nothing, whether credentials and settings are good: None, they are."""
    provider = open_provider(account)
    try:
        return await provider.check()
    finally:
        await provider.close()


async def _try(account: MerchantAccount, *, secrets_elsewhere: bool) -> None:
    """Whether the account can be opened; as far as its settings alone tell where its secrets are elsewhere."""
    declared_capabilities(account)
    if not secrets_elsewhere:
        await open_provider(account).close()


def _check_address(base_url: str) -> None:
    try:
        address = urlsplit(base_url)
    except ValueError:  # Half of the brackets of an IPv6 address, and the like.
        address = urlsplit("")
    if "@" in address.netloc:
        raise InvalidAskError("base_url", "an address has no user or password in it: it is stored, listed and logged")
    if address.scheme not in ("http", "https") or not address.netloc:
        raise InvalidAskError("base_url", f"{base_url} is no http or https address")
