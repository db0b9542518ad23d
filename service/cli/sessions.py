"""`farebox session`: a ride explained, from its events to its money."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
import rich_click as click

from service.adapters.postgres import Database
from service.adapters.postgres.catalog import CatalogStore
from service.adapters.postgres.operators import OperatorStore
from service.adapters.postgres.reading import BIGINT_MAX, ReadingStore, RideRows
from service.billing.catalog import Operator
from service.billing.keys import session_key_bytes, slot_of
from service.billing.sessions import SessionState
from service.cli.connections import business_now, carry_out, database_of, load_settings
from service.cli.told import session_line, session_lines
from service.flows.operators import OperatorError, operator_of
from service.web.views import session_view, summary_of

PAGE_MAX = 200
"""How many rides are read at once."""


def register(group: click.Group) -> None:
    """Adds the subject to the command line."""
    group.add_command(session)


class NoSuchSessionError(ValueError):
    """There is no ride of this id."""


@click.group()
def session() -> None:
    """Rides: what they cost, why, and how their money stands."""


@session.command("list")
@click.option("--operator", "operator_id", help="Whose.  [default: the default operator]")
@click.option("--state", type=click.Choice([str(state) for state in SessionState]), help="Only those; `review` waits.")
@click.option("--agreement", "agreement_id", help="Only those of an agreement.")
@click.option("--rider", "rider_ref", help="Only those of a rider.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
def list_command(
    operator_id: str | None, state: str | None, agreement_id: str | None, rider_ref: str | None, limit: int
) -> None:
    """Show rides, the one that was heard of last first; instants in the operator's time zone.

    A ride belongs to an agreement, and so to a rider, once it was decided under both its agreement and its tariff: what
    is parked or incomplete is found by its state.
    """
    settings = load_settings()
    filters = {"state": state, "agreement_id": agreement_id, "rider_ref": rider_ref}

    async def work() -> tuple[Operator, list[RideRows]]:
        found: list[RideRows] = []
        before: int | None = BIGINT_MAX
        async with database_of(settings) as database:
            operator = await whose(database, operator_id)
            while before is not None and len(found) < limit:
                async with database.reading(ReadingStore) as store:
                    page = min(limit - len(found), PAGE_MAX)
                    numbers = await store.newest_sessions(operator.operator_no, before, page, **filters)
                    found += await store.rides(numbers.ride_nos)
                before = numbers.through_no
        return operator, found

    operator, found = carry_out(work(), OperatorError)
    if not found:
        click.echo("none")
    for rows in found:
        click.echo(session_line(summary_of(rows, operator), ZoneInfo(operator.time_zone)))


@session.command()
@click.argument("session_id", metavar="SESSION")
@click.option("--operator", "operator_id", help="Whose.  [default: the default operator]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as GET /v1/sessions/SESSION answers.")
def show(session_id: str, operator_id: str | None, as_json: bool) -> None:
    """Explain a ride: its charge line by line, revisions, adjustments, debits, hold, and what is open.

    Amounts are exact, instants in the operator's time zone; JSON has instants in UTC.
    """
    settings = load_settings()

    async def work() -> tuple[Operator, RideRows, datetime]:
        async with database_of(settings) as database:
            operator = await whose(database, operator_id)
            rows = await find_ride(database, operator.operator_id, session_id)
            now = await business_now(database)
        if rows is None:
            told = (
                f"operator {operator.operator_id} has no ride {session_id!r} (--operator names another one): `farebox"
            )
            told += " session list` shows them"
            raise NoSuchSessionError(f"{told}, and records that could not be read are at GET /v1/quarantine")
        return operator, rows, now

    operator, rows, now = carry_out(work(), NoSuchSessionError, OperatorError)
    view = session_view(rows, operator)
    if as_json:
        click.echo(msgspec.json.encode(view).decode())
        return
    for line in session_lines(view, operator.operator_id, ZoneInfo(operator.time_zone), now):
        click.echo(line)


async def whose(database: Database, operator_id: str | None) -> Operator:
    """The operator of an id, or the default one; raises OperatorError when there is none."""
    async with database.reading(OperatorStore) as store:
        known = await operator_of(store, operator_id)
    async with database.reading(CatalogStore) as store:
        return (await store.operators())[known.operator_no]


async def find_ride(database: Database, operator_id: str, session_id: str) -> RideRows | None:
    """Everything about an operator's ride; None where there is none."""
    key = session_key_bytes(operator_id, session_id)
    async with database.reading(ReadingStore) as store:
        number = await store.ride_no(key)
        return None if number is None else await store.ride(number, key, slot_of(key))
