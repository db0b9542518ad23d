"""`farebox debit` and `farebox dispute`: how a debit stands, and what support and finance do about it."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import TypeVar, get_args
from zoneinfo import ZoneInfo

import rich_click as click

from service.adapters.clock import machine_now
from service.adapters.postgres import RACES, Database
from service.adapters.postgres.catalog import CatalogStore
from service.adapters.postgres.operators import OperatorStore
from service.adapters.postgres.reading import BIGINT_MAX, DebitRow, ReadingStore, RideRows, TroubledRefund
from service.adapters.postgres.rides import ride_number
from service.adapters.postgres.unordered import UnorderedRefund, UnorderedStore
from service.adapters.providers import Providers
from service.adapters.providers.secrets import AccountSettingsError
from service.billing.debits.events import GivenBack, RefundDecided
from service.billing.debits.state import DisputeKind, DisputeResult, State, debit_id
from service.billing.debits.unanswered import says_nothing
from service.billing.money import format_amount
from service.cli.amounts import exact_minor
from service.cli.connections import business_now, carry_out, database_of, load_settings
from service.cli.plain import say
from service.cli.sessions import find_ride, whose
from service.cli.told import debit_line, debit_lines, instant, owing_lines, stop_lines
from service.flows import debit_wishes as wishes
from service.flows.accounts import list_accounts, merchant_account
from service.flows.clock import BusinessClock
from service.flows.collection import Collection
from service.flows.collection.lost import NotAsked, lost_time
from service.flows.debit_wishes import Decision, RefundDecision, Wish, WishRefusedError, fulfil
from service.flows.operators import OperatorError, operator_of
from service.web.shapes import DebitStory
from service.web.views import debit_story, debit_view

T = TypeVar("T")
ORDINAL_MAX = 2**15 - 1
DEBIT_ID = re.compile(r"(\d{1,19})-(\d{1,5})", re.ASCII)
REASON = click.option(
    "--reason",
    required=True,
    help="Why, or a ticket; it stands in the debit's life. Never a name, a phone or an identity number.",
)

BY = click.option("--by", help="Who decides, as you call him in your records; it stands before the reason.")


def register(group: click.Group) -> None:
    """Adds the subject to the command line."""
    group.add_command(debit)
    group.add_command(dispute)


class NoSuchDebitError(ValueError):
    """There is no debit of this id."""


@click.group()
def debit() -> None:
    """Debits: how they stand, and the way out of what nobody could find out."""


@debit.command("list")
@click.option("--operator", "operator_id", help="Whose.  [default: the default operator]")
@click.option("--state", type=click.Choice([str(state) for state in State]), help="Only those; `manual` waits for you.")
@click.option("--overdue", is_flag=True, help="Only those that are past due.")
@click.option("--unanswered", is_flag=True, help="Only those of which their provider says neither yes nor no.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
def list_command(operator_id: str | None, state: str | None, overdue: bool, unanswered: bool, limit: int) -> None:
    """Show debits, newest first."""

    async def work(database: Database) -> list[DebitRow]:
        async with database.reading(OperatorStore) as operators:
            owner = await operator_of(operators, operator_id)
        found: list[DebitRow] = []
        place: tuple[int, int] | None = (BIGINT_MAX, ORDINAL_MAX)
        async with database.reading(ReadingStore) as store:
            while place is not None and len(found) < limit:
                page = await store.newest_debits(owner.operator_no, place, state, overdue or None, limit - len(found))
                found += [row for row in page.debits if not unanswered or says_nothing(row.state, row.reason)]
                place = page.through
        return found

    for row in _run(work):
        click.echo(debit_line(debit_view(row)))


@debit.command()
@click.argument("wanted", metavar="ID")
@click.option("--operator", "operator_id", help="Whose session ID is.  [default: the default operator]")
def show(wanted: str, operator_id: str | None) -> None:
    """Show debits with their whole life, refunds and disputes, in their operator's time zone.

    ID is a debit's, a session's (all of its debits), or a number that a provider knows a debit by, or knew.
    """

    async def work(database: Database) -> tuple[list[tuple[DebitRow, RideRows, ZoneInfo]], datetime]:
        return await _named_so(database, wanted, operator_id), await business_now(database)

    found, now = _run(work)
    for row, rows, zone in found:
        click.echo(f"times in {zone.key}")
        for line in debit_lines(debit_story(row, rows), zone, now):
            click.echo(line)


@debit.command()
@click.argument("wanted", metavar="ID")
@click.argument("decision", type=click.Choice(get_args(Decision)))
@REASON
@BY
@click.option("--provider-reference", help="The provider's number of the payment; only with `settled`.")
def decide(wanted: str, decision: Decision, reason: str, by: str | None, provider_reference: str | None) -> None:
    """The way out of `manual`: look at the provider's own books, and say what became of the debit.

    settled: he took all that was asked. submit_again: he took nothing, and is asked again under the same key; not where
    its ride owes nothing of it any more. cancel: he took nothing, and it is given up. `show` says what its ride owes.
    """
    _wish(wanted, wishes.decide(decision, reason, provider_reference, by))


@debit.command()
@click.argument("wanted", metavar="ID")
@REASON
@BY
def suspend(wanted: str, reason: str, by: str | None) -> None:
    """Stop a debit before it is taken; nothing is tried until it is resumed."""
    _wish(wanted, wishes.suspend(reason, by))


@debit.command()
@click.argument("wanted", metavar="ID")
def resume(wanted: str) -> None:
    """Let a suspended debit go on; its due day begins anew, unless it is overdue already."""
    _wish(wanted, wishes.resume())


@debit.command()
@click.argument("wanted", metavar="ID")
def retry(wanted: str) -> None:
    """Try a debit now, not when the calendar says."""
    _wish(wanted, wishes.retry())


@debit.command()
@click.option("--operator", "operator_id", help="Whose.  [default: the default operator]")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
def refunds(operator_id: str | None, limit: int) -> None:
    """Show the refunds that failed or have to wait, and what was paid elsewhere and is owed back there: money that is
    still owed to riders, and since when, the longest first; and before them those that nobody here has ordered.
    Instants are in the operator's time zone."""

    async def work(database: Database) -> tuple[list[TroubledRefund], list[UnorderedRefund], ZoneInfo]:
        async with database.reading(OperatorStore) as operators:
            owner = await operator_of(operators, operator_id)
        async with database.reading(ReadingStore) as store:
            found = await store.troubled_refunds(owner.operator_no, limit)
            unordered = await UnorderedStore(store.connection).of_operator(owner.operator_no, limit)
            return found, unordered, ZoneInfo(owner.time_zone)

    found, unordered, zone = _run(work)
    if not (found or unordered):
        click.echo("none")
    for one in unordered:
        told = "?" if one.amount_minor is None else format_amount(one.amount_minor, one.currency)
        named = f"{debit_id(one.ride_no, one.ordinal)}  session {one.session_id}"
        told = f"{named}  not_ordered_here  {told} {one.currency}  since {instant(one.told_at, zone)}"
        say(f"{told}  (refund {one.refund_ref} of payment {one.payment_ref})")
    for row in found:
        amount, named = format_amount(row.amount_minor, row.currency), debit_id(row.ride_no, row.ordinal)
        named = f"{named}-{row.refund_ordinal}" if row.refund_ordinal else named
        told = f"{named}  session {row.session_id}  {row.state}  {amount} {row.currency}"
        say(f"{told}  since {instant(row.since_at, zone)}  ({row.code or row.reason})")


@debit.command("refund-again")
@click.argument("wanted", metavar="ID")
def refund_again(wanted: str) -> None:
    """Give back what is owed back and does not come, once what it failed for is put right.

    Refunds that wait are tried now; for one that failed another is begun, under a key of its own.
    """
    _change(wanted, lambda collection, row, _: wishes.refund_again(collection, row))


@debit.command("decide-refund")
@click.argument("wanted", metavar="REFUND")
@click.argument("decision", type=click.Choice(get_args(RefundDecision)))
@REASON
@BY
@click.option("--amount-minor", type=click.IntRange(1), help="What was given back, in minor units.  [default: all]")
@click.option("--provider-reference", help="The provider's number of the refund; only with `given_back`.")
def decide_refund(
    wanted: str,
    decision: RefundDecision,
    reason: str,
    by: str | None,
    amount_minor: int | None,
    provider_reference: str | None,
) -> None:
    """The way out of a refund that is `manual`: look at the provider's own books, and say what was given back.

    REFUND is its id, as `farebox debit refunds` and `farebox debit show` have it: a debit's id and a number.

    given_back: all of it, or so much; what is missing is asked for anew. submit_again: nothing, and it is asked for
    once more under the same key. cancel: nothing; `refund-again` begins another under a key of its own.
    """
    if decision != "given_back" and (amount_minor is not None or provider_reference is not None):
        raise click.UsageError("--amount-minor and --provider-reference are for `given_back`")
    debit_named, _, number = wanted.rpartition("-")
    if not DEBIT_ID.fullmatch(debit_named):
        raise click.BadParameter(f"{wanted!r} is no refund: `farebox debit refunds` lists them", param_hint="REFUND")
    decided = RefundDecided(decision, wishes.said(reason, by), amount_minor, provider_reference)
    _change(debit_named, lambda collection, row, _: wishes.decide_refund(collection, row, number, decided))


@debit.command()
@click.option("--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="Of rides that began since.")
def lost(days: int) -> None:
    """After a restore: what providers know of rides and our books do not, ride by ride; exit code 1 if there is any, or
    if an account could not be asked.

    Each key that could have been used is asked about; nothing is changed. Run it once nothing is unknown any more, do
    again what people did then (the same adjustments: the same keys), and run it again.
    """
    found = 0

    async def work(database: Database) -> None:
        nonlocal found
        since = ride_number(await business_now(database) - timedelta(days=days), 0)
        async with providers_of(database) as providers:
            async for one in lost_time(database, providers.by_number, since):
                found += 1
                if isinstance(one, NotAsked):
                    about = f"{one.operator_id}  account {one.account_id}"
                    why = "not asked: it can't be opened here, run this where its secrets are"
                    say(f"{about}  {why}; rides with debits on it: {one.rides}")
                    continue
                told, known = format_amount(one.told_minor, one.currency), format_amount(one.known_minor, one.currency)
                about = f"{one.operator_id}  {one.debit_id}  session {one.session_id}"
                say(f"{about}  {one.what}  {told} there, {known} here {one.currency}  key {one.key}")

    _run(work)
    sys.exit(1 if found else 0)


@debit.command()
@click.argument("wanted", metavar="ID")
@REASON
@BY
def elsewhere(wanted: str, reason: str, by: str | None) -> None:
    """The rider has paid in another way: nothing more is asked of him."""
    _wish(wanted, wishes.settle_elsewhere(reason, by))


@debit.command("given-back")
@click.argument("wanted", metavar="ID")
@click.argument("amount")
@REASON
@BY
@click.option("--refund", help="The provider's number of a refund that was made in his console.")
def given_back(wanted: str, amount: str, reason: str, by: str | None, refund: str | None) -> None:
    """The rider got AMOUNT back outside, such as 2.50: in cash, by a transfer; or by a refund of the console's.

    Of what he had paid elsewhere, or what its provider could not give back; no refund carries it any more. Refused is
    more than the ride does not owe, and what a refund may still give back. The same AMOUNT for the same reason is
    booked once: what he gets a second time has a reason of its own.
    """

    async def give(collection: Collection, row: DebitRow, rows: RideRows) -> None:
        given = GivenBack(exact_minor(amount, row.currency), wishes.said(reason, by), refund)
        await wishes.give_back(collection, row, given)

    _change(wanted, give)


@click.group()
def dispute() -> None:
    """Complaints and chargebacks about a debit."""


@dispute.command("open")
@click.argument("wanted", metavar="DEBIT")
@click.argument("kind", type=click.Choice(get_args(DisputeKind)))
def open_command(wanted: str, kind: DisputeKind) -> None:
    """A complaint leaves the money where it is, a chargeback has taken it; dunning and reports stop."""
    _wish(wanted, wishes.open_dispute(kind))


@dispute.command("close")
@click.argument("wanted", metavar="DEBIT")
@click.argument("result", type=click.Choice(get_args(DisputeResult)))
def close_command(wanted: str, result: DisputeResult) -> None:
    """A complaint is resolved, a chargeback won or lost, seen from the operator."""
    _wish(wanted, wishes.close_dispute(result))


def _wish(wanted: str, wish: Wish) -> None:
    """Lets it happen, and shows the debit as it is then."""
    _change(wanted, lambda collection, row, rows: fulfil(collection, row, rows, wish))


def _change(wanted: str, change: Callable[[Collection, DebitRow, RideRows], Awaitable[None]]) -> None:

    async def work(database: Database) -> DebitStory:
        (row, rows), clock = await _find(database, wanted), BusinessClock()
        async with providers_of(database) as providers:
            async with database.reading(CatalogStore) as store:
                clock.read(await store.installation())
            await change(Collection(database, providers.by_number, clock.now, machine_now), row, rows)
        return debit_story(*await _find(database, wanted))

    debit = _run(work)
    click.echo(debit_line(debit))
    for line in (*owing_lines(debit), *stop_lines(debit)):
        click.echo(f"  {line}")


@asynccontextmanager
async def providers_of(database: Database) -> AsyncIterator[Providers]:
    """Every merchant account whose secrets are at hand."""
    providers = Providers(sandbox=load_settings().sandbox)
    try:
        for owned in await list_accounts(database):
            with suppress(AccountSettingsError):  # Another machine's secrets: the provider is not called here.
                providers.of(merchant_account(owned.account))
        yield providers
    finally:
        await providers.close()


def _run(work: Callable[[Database], Awaitable[T]]) -> T:
    settings = load_settings()

    async def connected() -> T:
        async with database_of(settings) as database:
            return await work(database)

    return carry_out(connected(), NoSuchDebitError, WishRefusedError, OperatorError, AccountSettingsError, *RACES)


async def _named_so(
    database: Database, wanted: str, operator_id: str | None
) -> list[tuple[DebitRow, RideRows, ZoneInfo]]:
    """The debit of an id, or else every debit of a session or of a provider's number, each with its ride."""
    found: list[tuple[DebitRow, RideRows]] = []
    with suppress(NoSuchDebitError):
        found.append(await _find(database, wanted))
    if not found:
        async with database.reading(ReadingStore) as store:
            numbers = await store.debits_of_number(wanted)
        found += [await _find(database, debit_id(*number)) for number in numbers]
        # Where nobody was named and there is no default operator, ID is no session's.
        with suppress(*() if operator_id else (OperatorError,)):
            ride = await find_ride(database, (await whose(database, operator_id)).operator_id, wanted)
            if ride is not None:
                found += [(row, ride) for row in ride.debits or []]
    if not found:
        told = f"{wanted!r} is no debit, no session with one, and no provider's number of one"
        raise NoSuchDebitError(f"{told}: `farebox debit list` shows them")
    async with database.reading(CatalogStore) as store:
        operators = await store.operators()
    return [(row, rows, ZoneInfo(operators[row.operator_no].time_zone)) for row, rows in found]


async def _find(database: Database, wanted: str) -> tuple[DebitRow, RideRows]:
    named = DEBIT_ID.fullmatch(wanted)
    if named is not None and int(named[1]) <= BIGINT_MAX:
        async with database.reading(ReadingStore) as store:
            rows = await store.ride(int(named[1]))
        for row in rows.debits or []:
            if row.ordinal == int(named[2]):
                return row, rows
    raise NoSuchDebitError(f"there is no debit {wanted!r}: `farebox debit list` shows them")
