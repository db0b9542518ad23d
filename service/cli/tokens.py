"""`farebox token`: who may use the HTTP interface, for which operator, and with which scopes."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

import rich_click as click

from service.adapters.clock import machine_now
from service.adapters.postgres import Database
from service.adapters.postgres.operators import OperatorStore
from service.adapters.postgres.tokens import SCOPES, ListedToken, TokenStore, token_hash
from service.billing.instants import InstantError, read_instant
from service.cli.connections import carry_out, database_of, fail, load_settings
from service.cli.plain import say

T = TypeVar("T")
RIDER_SCOPES = frozenset({"status:read", "billing:write"})
SCOPES_HELP = (
    "`status:read` reads; `billing:write` asks for agreements and holds, corrects, charges, refunds, and publishes"
    " tariffs; `ops` is for the quarantine. Repeatable."
)
NAME_CHARACTERS_MAX = 128


def register(group: click.Group) -> None:
    """Adds the subject to the command line."""
    group.add_command(token)


@click.group()
def token() -> None:
    """Tokens for the HTTP interface: made, listed, revoked."""


@token.command()
@click.option("--scope", "scopes", multiple=True, required=True, type=click.Choice(SCOPES), help=SCOPES_HELP)
@click.option("--operator", "operator_id", metavar="ID", help="Whose data it sees.  [default: the default operator]")
@click.option(
    "--rider",
    "rider_ref",
    metavar="REF",
    help="It sees this rider's data alone; with billing:write it may ask for a payment of his debits, and no more.",
)
@click.option("--name", default="", help="What it is for.")
@click.option("--expires", metavar="RFC3339", help="When it ends.  [default: never]")
def create(
    scopes: tuple[str, ...], operator_id: str | None, rider_ref: str | None, name: str, expires: str | None
) -> None:
    """Make a token and print it: this once, for only its hash is kept."""
    ends_at = None if expires is None else _instant(expires)
    if rider_ref is not None and not set(scopes) <= RIDER_SCOPES:
        fail("--rider: a rider's token has the scopes status:read and billing:write alone")
    for option, text in (("--rider", rider_ref), ("--name", name)):
        if text is not None and (len(text) > NAME_CHARACTERS_MAX or not text.isprintable()):
            fail(f"{option}: allowed are at most {NAME_CHARACTERS_MAX} printable characters")
    secret = f"farebox_{secrets.token_urlsafe(32)}"

    async def add(database: Database) -> str | None:
        async with database.transaction(TokenStore) as store:
            owner = operator_id
            if owner is None:
                default = await OperatorStore(store.connection).default()
                if default is None:
                    return "this installation has no default operator: name one with --operator"
                owner = default.operator_id
            unique = list(dict.fromkeys(scopes))
            if not await store.add(token_hash(secret), owner, name, unique, rider_ref, machine_now(), ends_at):
                return f"there is no operator {owner!r}: `farebox operator list` shows them all"
            return None

    problem = _run(add)
    if problem is not None:
        fail(problem)
    click.echo(secret)


@token.command("list")
@click.option("--operator", "operator_id", metavar="ID", help="Only this operator's.")
def list_tokens(operator_id: str | None) -> None:
    """Every token, without its secret: id, operator, scopes, rider, name, and whether it still works."""

    async def found(database: Database) -> list[ListedToken]:
        async with database.reading(TokenStore) as store:
            return await store.list(operator_id)

    now = machine_now()
    for item in _run(found):
        state = "works"
        if item.revoked_at is not None:
            state = f"revoked {item.revoked_at:%Y-%m-%dT%H:%M:%SZ}"
        elif item.expires_at is not None:
            state = f"{'expired' if item.expires_at <= now else 'until'} {item.expires_at:%Y-%m-%dT%H:%M:%SZ}"
        rider = f"rider {item.rider_ref}" if item.rider_ref is not None else "every rider"
        say(f"{item.token_id}  {item.operator_id}  {','.join(item.scopes)}  {rider}  {item.name or '-'}  {state}")


@token.command()
@click.argument("token_id")
def revoke(token_id: str) -> None:
    """End the token of an id of the list; serving processes refuse it some seconds later."""

    async def ended(database: Database) -> bool:
        async with database.transaction(TokenStore) as store:
            return await store.revoke(token_id, machine_now())

    if not _run(ended):
        fail(f"there is no token {token_id!r} that works: `farebox token list` shows them all")
    click.echo(f"revoked {token_id}")


def _run(work: Callable[[Database], Awaitable[T]]) -> T:
    """Does the work on the installation's database; one line and exit code 2 when it can't be reached."""
    settings = load_settings()

    async def connected() -> T:
        async with database_of(settings) as database:
            return await work(database)

    return carry_out(connected())


def _instant(text: str) -> datetime:
    """The instant of --expires, or a refusal."""
    try:
        ends_at = read_instant(text)
    except InstantError as error:
        fail(f"--expires {text!r} is {error}")
    if ends_at <= machine_now():
        fail(f"--expires {text!r} is over: such a token would open nothing")
    return ends_at
