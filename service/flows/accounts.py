"""Merchant accounts: added by an operator, opened as providers by every process that calls them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from service.adapters.postgres import Database
from service.adapters.postgres.agreements import AccountRow, AgreementStore, OwnedAccount
from service.adapters.postgres.holds import hold_policy
from service.adapters.postgres.operators import OperatorStore
from service.adapters.providers import PROVIDER_NAMES, declared_capabilities, open_provider, refuse_trial
from service.adapters.providers.port import MerchantAccount
from service.adapters.providers.secrets import AccountSettingsError
from service.billing.agreements.asking import ConflictingAskError, InvalidAskError, UnknownAskError
from service.billing.debits.holding import goes_through_holds
from service.billing.outcomes import Outcome

CURRENCY = "currency"
"""The setting that says in what an account debits, where its provider has several."""
ACCOUNT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def merchant_account(row: AccountRow) -> MerchantAccount:
    """An account as the port takes it."""
    return MerchantAccount(row.account_no, row.account_id, row.provider, row.base_url, row.settings)


async def list_accounts(database: Database) -> Sequence[OwnedAccount]:
    """Every merchant account of the installation."""
    async with database.reading(AgreementStore) as store:
        return await store.accounts()


async def hold_cap_minor(database: Database, operator_id: str) -> int | None:
    """The most that is debited for a ride without its rider on an agreement without a cap of its own, in the operator's
    currency: what his policy has holds ask for. None where none of his accounts debits through holds."""
    accounts = [owned.account for owned in await list_accounts(database) if owned.operator_id == operator_id]
    if not any(map(_through_holds, accounts)):
        return None
    async with database.reading(OperatorStore) as store:
        switches = await store.switches(operator_id)
    return None if switches is None else hold_policy(switches.hold_policy).cap_minor


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
    door: str | None = None,
    sandbox: bool = True,
) -> MerchantAccount:
    """Adds a merchant account after a look at its settings; the provider is not called.

    `secrets_elsewhere`: what the settings refer to is not on this machine, so they are not tried. `door`: where a
    `notify_url` must lead, see `account_door`; None where notifications are heard by somebody else. `sandbox`: accounts
    that move no real money may be added. Raises AskError naming the field, or AccountSettingsError for settings that
    can't be used.
    """
    if not ACCOUNT_ID.fullmatch(account_id):
        raise InvalidAskError("account_id", "allowed are 1 to 63 of A-Z, a-z, 0-9, _, . and -, a letter or digit first")
    if provider not in PROVIDER_NAMES:
        raise InvalidAskError("provider", f"{provider} is not known; allowed are {', '.join(PROVIDER_NAMES)}")
    _check_address(base_url)
    account = MerchantAccount(0, account_id, provider, base_url, settings)
    await _try(account, secrets_elsewhere=secrets_elsewhere, sandbox=sandbox)
    _check_door(account, door)
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
    operator_id: str | None = None,
    sandbox: bool = True,
) -> MerchantAccount:
    """Changes some of an account's settings, or its provider's address, after a look at them; who runs takes them up
    within seconds. Its currency stays once riders have signed. `operator_id`: whose door a `notify_url` must lead to,
    None where notifications are heard by somebody else. `sandbox`: as for `add_account`. Raises AskError naming the
    field, or AccountSettingsError for settings that can't be used.
    """
    known = [row.account for row in await list_accounts(database) if row.operator_no == operator_no]
    row = next((row for row in known if row.account_id == account_id), None)
    if row is None:
        raise UnknownAskError("account_id", f"the operator has no merchant account {account_id}")
    gone = set(removed)
    merged = {name: value for name, value in {**row.settings, **settings}.items() if name not in gone}
    _check_address(base_url or row.base_url)
    account = MerchantAccount(row.account_no, account_id, row.provider, base_url or row.base_url, merged)
    await _try(account, secrets_elsewhere=secrets_elsewhere, sandbox=sandbox)
    _check_door(account, None if operator_id is None else account_door(row.provider, operator_id, account_id))
    async with database.transaction(AgreementStore) as store:
        if merged.get(CURRENCY) != row.settings.get(CURRENCY):
            await _check_currency(store, operator_no, account_id)
        await store.change_account(operator_no, account_id, account.base_url, merged)
    return account


async def remove_account(database: Database, operator_no: int, account_id: str) -> None:
    """Takes an account away that nothing refers to: one that was added by mistake. Raises AskError where there is no
    such account, or something does."""
    async with database.transaction(AgreementStore) as store:
        uses = await store.account_uses(operator_no, account_id)
        if uses is None:
            raise UnknownAskError("account_id", f"the operator has no merchant account {account_id}")
        counts = {"agreements": uses.agreements, "notifications": uses.notifications, "disputes": uses.disputes}
        counts["stops, also those that ended"] = uses.stops
        if told := ", ".join(f"{what}: {count}" for what, count in counts.items() if count):
            raise ConflictingAskError(
                "account_id",
                f"account {account_id} stays, for something refers to it ({told}): put it right with `farebox account"
                f" change {account_id} --setting NAME=VALUE`, or have nothing sent with `farebox account pause"
                f" {account_id} --reason WHY`",
            )
        await store.remove_account(uses.account_no)


def account_door(provider: str, operator_id: str, account_id: str) -> str:
    """The path at which the provider's notifications for an account are let in."""
    return f"/v1/providers/{provider}/{operator_id}.{account_id}/notifications"


async def check_account(account: MerchantAccount) -> Outcome | None:
    """Asks the provider, by a call that moves nothing, whether credentials and settings are good: None, they are."""
    provider = open_provider(account)
    try:
        return await provider.check()
    finally:
        await provider.close()


def _through_holds(row: AccountRow) -> bool:
    """Whether the account debits through holds; not while nobody can tell."""
    with suppress(AccountSettingsError):
        return goes_through_holds(declared_capabilities(merchant_account(row)))
    return False


async def _try(account: MerchantAccount, *, secrets_elsewhere: bool, sandbox: bool) -> None:
    """Whether the account can be opened; as far as its settings alone tell where its secrets are elsewhere."""
    declared_capabilities(account)
    if not sandbox:
        refuse_trial(account)
    if not secrets_elsewhere:
        await open_provider(account).close()


def _check_door(account: MerchantAccount, door: str | None) -> None:
    """A `notify_url` leads to the account's own door, as whoever stands before `serve` calls it: its path may begin
    with more, its host is the operator's to know."""
    url = account.settings.get("notify_url")
    if door is None or url is None or unquote(urlsplit(str(url)).path).endswith(door):
        return
    raise InvalidAskError(
        "settings",
        f"settings.notify_url {url} does not lead to this account: its path is to be {door}, or to end with that"
        " where a proxy puts something before it; else the provider's notifications get a 404",
    )


async def _check_currency(store: AgreementStore, operator_no: int, account_id: str) -> None:
    """Refuses another currency once riders have signed."""
    uses = await store.account_uses(operator_no, account_id)
    if uses is not None and uses.agreements:
        raise ConflictingAskError(
            "settings",
            f"the currency of account {account_id} stays as it is: agreements are signed on it ({uses.agreements}), and"
            " what is debited on them is collected and given back in it; for another currency add another account, and"
            " have riders sign there",
        )


def _check_address(base_url: str) -> None:
    try:
        address = urlsplit(base_url)
    except ValueError:  # Half of the brackets of an IPv6 address, and the like.
        address = urlsplit("")
    if "@" in address.netloc:
        raise InvalidAskError(
            "base_url", "the provider's address (--url) has no user or password in it: it is stored, listed and logged"
        )
    if address.scheme not in ("http", "https") or not address.netloc:
        raise InvalidAskError("base_url", f"the provider's address (--url) {base_url} is no http or https address")
