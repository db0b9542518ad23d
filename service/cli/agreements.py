"""`farebox account` and `farebox agreement`: where riders sign, and who has signed."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar, get_args

import msgspec
import rich_click as click

from service.adapters.postgres import Database
from service.adapters.postgres.agreements import AgreementRow, AgreementStore, OwnedAccount
from service.adapters.postgres.operators import KnownOperator, OperatorStore
from service.adapters.providers import PROVIDER_NAMES, Providers, setting_written
from service.adapters.providers.port import Listening, MerchantAccount
from service.adapters.providers.secrets import AccountSettingsError
from service.billing.agreements.asking import AskError
from service.billing.agreements.signing import State
from service.billing.money import format_amount
from service.billing.outcomes import Outcome
from service.cli.connections import BY, REASON, business_now, carry_out, database_of, fail, load_settings, named_texts
from service.cli.plain import say
from service.flows.account_checks import Finding, account_name, check_accounts, in_words, listen, silent
from service.flows.accounts import (
    account_door,
    add_account,
    change_account,
    check_account,
    list_accounts,
    remove_account,
)
from service.flows.operators import OperatorError, operator_of
from service.flows.stops import UnknownStopError, resume_account, stop_account

T = TypeVar("T")
PAGE = 500
CHECK_FAILED = 3
"""The exit code where an account is written and its provider did not say that it is good."""


def register(group: click.Group) -> None:
    """Adds the subject to the command line."""
    group.add_command(account)
    group.add_command(agreement)


@click.group()
def account() -> None:
    """Merchant accounts at payment providers."""


@account.command("add")
@click.argument("account_id", metavar="ID")
@click.option("--operator", "operator_id", help="Whose it is.  [default: the default operator]")
@click.option("--provider", type=click.Choice(PROVIDER_NAMES), required=True)
@click.option("--url", "base_url", required=True, help="The provider's address.")
@click.option(
    "--setting",
    "pairs",
    multiple=True,
    metavar="NAME=VALUE",
    help="VALUE is taken as it stands where the setting is a text (a merchant's number, too), else as JSON; secrets by"
    " reference: api_key_env=NAME or api_key_file=PATH. Repeatable.",
)
@click.option("--unchecked", is_flag=True, help="What the settings refer to is on another machine: do not try them.")
def add_command(
    account_id: str, operator_id: str | None, provider: str, base_url: str, pairs: tuple[str, ...], unchecked: bool
) -> None:
    """Add a merchant account, and see by a call that moves nothing whether its credentials are good.

    Exit code 3: it was added, and its provider did not say yes: put it right with `farebox account change`, or take it
    away with `farebox account remove`.
    """
    settings = load_settings()
    written = named_texts(pairs, "--setting").items()
    chosen = {name: setting_written(provider, name, text) for name, text in written}

    async def work() -> tuple[str, MerchantAccount, Outcome | None]:
        async with database_of(settings) as database:
            owner = await _operator(database, operator_id)
            added = await add_account(
                database,
                owner.operator_no,
                account_id=account_id,
                provider=provider,
                base_url=base_url,
                settings=chosen,
                now=await business_now(database),
                secrets_elsewhere=unchecked,
                door=account_door(provider, owner.operator_id, account_id),
                sandbox=settings.sandbox,
            )
            return owner.operator_id, added, None if unchecked else await check_account(added)

    owner, added, wrong = carry_out(work(), AskError, AccountSettingsError, OperatorError)
    click.echo(f"account {added.account_id} at {added.provider} added, number {added.account_no}")
    _say_door(added, account_door(provider, owner, account_id))
    _say_ceiling(added)
    _say_checked(added, wrong, operator_id, new=True)


@account.command("change")
@click.argument("account_id", metavar="ID")
@click.option("--operator", "operator_id", help="Whose it is.  [default: the default operator]")
@click.option("--url", "base_url", help="The provider's address.")
@click.option("--setting", "pairs", multiple=True, metavar="NAME=VALUE", help="As when adding; NAME= takes it away.")
@click.option("--unchecked", is_flag=True, help="What the settings refer to is on another machine: do not try them.")
def change_command(
    account_id: str, operator_id: str | None, base_url: str | None, pairs: tuple[str, ...], unchecked: bool
) -> None:
    """Change some of an account's settings, and see by a call that moves nothing whether its credentials are good.

    Who runs takes them up within seconds. Its id and its provider stay: its debits are there; so does its currency once
    riders have signed. Exit code 3: it was changed, and its provider did not say yes.
    """
    settings = load_settings()
    removed = [pair[:-1] for pair in pairs if pair.endswith("=") and pair.count("=") == 1]
    written = named_texts((pair for pair in pairs if pair[:-1] not in removed), "--setting").items()

    async def work() -> tuple[MerchantAccount, Outcome | None]:
        async with database_of(settings) as database:
            owner = await _operator(database, operator_id)
            provider = await _provider(database, owner, account_id)
            changed = await change_account(
                database,
                owner.operator_no,
                account_id,
                base_url=base_url,
                settings={name: setting_written(provider, name, text) for name, text in written},
                removed=removed,
                secrets_elsewhere=unchecked,
                operator_id=owner.operator_id,
                sandbox=settings.sandbox,
            )
        return changed, None if unchecked else await check_account(changed)

    changed, wrong = carry_out(work(), AskError, AccountSettingsError, OperatorError)
    click.echo(f"account {changed.account_id} at {changed.provider} changed")
    _say_ceiling(changed)
    _say_checked(changed, wrong, operator_id)


@account.command("remove")
@click.argument("account_id", metavar="ID")
@click.option("--operator", "operator_id", help="Whose it is.  [default: the default operator]")
def remove_command(account_id: str, operator_id: str | None) -> None:
    """Take away an account that was added by mistake.

    Possible while nothing refers to it: no agreement (so no hold, debit or refund), no notification or dispute, and no
    stop. Another that is in use can be paused. Who runs forgets it within seconds.
    """
    settings = load_settings()

    async def work() -> None:
        async with database_of(settings) as database:
            await remove_account(database, (await _operator(database, operator_id)).operator_no, account_id)

    carry_out(work(), AskError, OperatorError)
    click.echo(f"account {account_id} removed")


@account.command("list")
def list_accounts_command() -> None:
    """Show every merchant account; secrets are named, never shown."""
    settings = load_settings()

    async def work() -> Sequence[OwnedAccount]:
        async with database_of(settings) as database:
            return await list_accounts(database)

    for item in carry_out(work()):
        row = item.account
        paused = "  paused" if item.paused else ""
        named = " ".join(sorted(_shown(name, value) for name, value in row.settings.items()))
        say(f"{item.operator_id}  {row.account_id}  {row.provider}  {row.base_url}{paused}  {named}".rstrip())


@account.command("check")
@click.argument("account_id", metavar="ID", required=False)
@click.option("--operator", "operator_id", help="Only this operator's.")
def check_command(account_id: str | None, operator_id: str | None) -> None:
    """Ask the providers of all accounts, or of one, whether credentials and settings are good: no money moves.

    good; refused, with what the provider says; or silent: no answer, so nobody knows. Exit code 1 unless all are good.
    """
    settings = load_settings()

    async def work() -> list[Finding]:
        providers = Providers(sandbox=settings.sandbox)
        try:
            async with database_of(settings) as database:
                if operator_id is not None:
                    await _operator(database, operator_id)
                accounts = [
                    owned
                    for owned in await list_accounts(database)
                    if account_id in (None, owned.account.account_id) and operator_id in (None, owned.operator_id)
                ]
            return await check_accounts(providers, accounts)
        finally:
            await providers.close()

    found = carry_out(work(), OperatorError)
    if not found:
        fail("there is no such account: `farebox account list` shows them all")
    for item in found:
        say(f"{item.name}  {item.provider}  {item.verdict}  {item.says}".rstrip())
    sys.exit(0 if all(item.verdict == "good" for item in found) else 1)


@account.command("listen")
@click.argument("account_id", metavar="ID")
@click.option("--operator", "operator_id", help="Whose it is.  [default: the default operator]")
@click.option("--replace", is_flag=True, help="Also where another address is registered.")
def listen_command(account_id: str, operator_id: str | None, *, replace: bool) -> None:
    """Register the account's notify_url at its provider for what no call names an address for: WeChat Pay's complaints.

    Says what is registered now. Exit code 1 where that is another address, or the provider did not take it.
    """
    settings = load_settings()

    async def work() -> tuple[OwnedAccount, Listening | Outcome]:
        providers = Providers(sandbox=settings.sandbox)
        try:
            async with database_of(settings) as database:
                owner = (await _operator(database, operator_id)).operator_id
                for owned in await list_accounts(database):
                    if (owned.operator_id, owned.account.account_id) == (owner, account_id):
                        return owned, await listen(providers, owned, replace=replace)
            fail("there is no such account: `farebox account list` shows them all")
        finally:
            await providers.close()

    owned, told = carry_out(work(), OperatorError, AccountSettingsError)
    name, ours = account_name(owned), owned.account.settings.get("notify_url")
    if not isinstance(told, Listening):
        fail(f"account {name}: the address is not registered: {in_words(told)}", code=1)
    if told.url is None:
        say(f"account {name}: no call registers an address; {owned.account.provider}'s page says what to set up there")
    elif told.url == ours:
        was = "as before" if told.before == ours else f"before: {told.before or 'nowhere'}"
        say(f"account {name}: complaints are told at {told.url} ({was})")
    else:
        fail(f"account {name}: complaints are told at {told.url}; --replace puts {ours} in its place", code=1)


@account.command("pause")
@click.argument("account_id", metavar="ID")
@click.option("--operator", "operator_id", help="Whose it is.  [default: the default operator]")
@REASON
@BY
def pause_command(account_id: str, operator_id: str | None, reason: str, by: str) -> None:
    """Send no new debits, refunds or reports of an account: `farebox pause` of all three, as `farebox stops` shows it.

    Rides are charged on, what is under way is asked about.
    """
    owner = _stops(operator_id, partial(stop_account, account_id=account_id, reason=reason, by=by))[0]
    click.echo(f"account {owner}.{account_id}: paused, nothing new is submitted; `farebox stops` shows it")


@account.command("resume")
@click.argument("account_id", metavar="ID")
@click.option("--operator", "operator_id", help="Whose it is.  [default: the default operator]")
@REASON
@BY
def resume_command(account_id: str, operator_id: str | None, reason: str, by: str) -> None:
    """Let a paused account go on: what became due meanwhile is submitted."""
    owner, ended = _stops(operator_id, partial(resume_account, account_id=account_id, reason=reason, by=by))
    click.echo(f"account {owner}.{account_id}: {'goes on' if ended else 'nothing of it alone was paused'}")


@click.group()
def agreement() -> None:
    """Riders' agreements."""


@agreement.command("list")
@click.option("--operator", "operator_id", help="Whose.  [default: the default operator]")
@click.option("--rider", "rider_ref", help="Only this rider's.")
@click.option("--state", type=click.Choice(get_args(State)), help="Only those in this state.")
def list_agreements_command(operator_id: str | None, rider_ref: str | None, state: str | None) -> None:
    """Show agreements, oldest first."""
    settings = load_settings()

    async def work() -> list[AgreementRow]:
        async with database_of(settings) as database:
            operator_no = (await _operator(database, operator_id)).operator_no
            found: list[AgreementRow] = []
            async with database.reading(AgreementStore) as store:
                while page := await store.page(operator_no, _last(found), rider_ref, state, PAGE):
                    found += page
            return found

    for row in carry_out(work(), OperatorError):
        item = row.agreement
        cap = "no cap" if item.cap_minor is None else f"cap {format_amount(item.cap_minor, item.currency)}"
        reason = f"  ({item.reason})" if item.reason else ""
        say(
            f"{item.agreement_id}  rider {item.rider_ref}  {row.account.account_id}  {item.state}{reason}"
            f"  {cap} {item.currency}  {item.time_zone}  {item.language}"
        )


def _say_door(at: MerchantAccount, door: str) -> None:
    """Where the provider's notifications are let in: what of it he is told with each call, and what is to be registered
    with him."""
    url = at.settings.get("notify_url")
    click.echo(f"notifications: POST {door}")
    if url is not None:
        say(f"the provider is told {url} with each call; what he wants registered besides (complaints) is the same")
    else:
        click.echo(f"register https://HOST{door} at the provider: HOST is where he reaches `farebox serve`")


def _say_ceiling(at: MerchantAccount) -> None:
    """Whoever sets a ceiling must know that it is one process's."""
    ceiling = at.settings.get("calls_per_second")
    if ceiling is not None:
        click.echo(f"calls_per_second: {ceiling} for each process of collect and serve, not for all of them together")


def _say_checked(at: MerchantAccount, wrong: Outcome | None, operator_id: str | None, *, new: bool = False) -> None:
    """Where the provider did not say yes to a call that moves nothing: what it said, the way on, and exit code 3."""
    if wrong is None:
        return
    whose = "" if operator_id is None else f" --operator {operator_id}"
    unheard = silent(wrong)
    said = f"does not answer as it should ({in_words(wrong)})" if unheard else f"says: {in_words(wrong)}"
    again = f"; ask again with `farebox account check {at.account_id}{whose}`" if unheard else ""
    say(f"but {at.base_url} {said}", err=True)
    change = f"farebox account change {at.account_id}{whose} --setting NAME=VALUE"
    away = f"; or take it away with `farebox account remove {at.account_id}{whose}`" if new else ""
    click.echo(f"put it right with `{change}`{again}{away}", err=True)
    sys.exit(CHECK_FAILED)


def _stops(operator_id: str | None, change: Callable[..., Awaitable[T]]) -> tuple[str, T]:
    """Does what is to be done about the operator's stops; returns his id and what came of it."""
    settings = load_settings()

    async def work() -> tuple[str, T]:
        async with database_of(settings) as database:
            owner = await _operator(database, operator_id)
            return owner.operator_id, await change(database, owner.operator_no, now=await business_now(database))

    return carry_out(work(), UnknownStopError, OperatorError)


async def _operator(database: Database, operator_id: str | None) -> KnownOperator:
    async with database.reading(OperatorStore) as store:
        return await operator_of(store, operator_id)


async def _provider(database: Database, owner: KnownOperator, account_id: str) -> str:
    """Whose account it is; "" where there is none, which whoever changes it will say."""
    accounts = [item for item in await list_accounts(database) if item.operator_no == owner.operator_no]
    return next((item.account.provider for item in accounts if item.account.account_id == account_id), "")


def _last(found: list[AgreementRow]) -> int:
    return found[-1].agreement.agreement_no if found else 0


def _shown(name: str, value: Any) -> str:
    """A setting for people; a literal secret (sandbox only) is not theirs to see."""
    return f"{name}=…" if name in ("api_key", "notify_secret") else f"{name}={msgspec.json.encode(value).decode()}"
