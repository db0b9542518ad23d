"""`farebox pause`, `resume` and `stops`: what is not to be sent to a provider for now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, get_args
from zoneinfo import ZoneInfo

import rich_click as click

from service.adapters.postgres import Database
from service.adapters.postgres.operators import KnownOperator, OperatorStore, Switches
from service.adapters.postgres.stops import StopRow
from service.cli.connections import BY, REASON, business_now, carry_out, database_of, load_settings
from service.cli.plain import say
from service.cli.told import instant
from service.flows import stops as flow
from service.flows.operators import OperatorError, operator_of, read_switches
from service.flows.stops import UnknownStopError, What

T = TypeVar("T")
MODES = {
    "paused": "paused, no new debit or refund is sent",
    "shadow": "in shadow mode, nothing is owed and nothing is sent",
}
"""What the modes of an operator hold back."""
OPERATOR = click.option("--operator", "operator_id", help="Whose.  [default: the default operator]")


def register(group: click.Group) -> None:
    """Adds the subject to the command line."""
    for command in (pause, resume, stops):
        group.add_command(command)


@click.command()
@click.argument("what", type=click.Choice(get_args(What)))
@OPERATOR
@click.option("--account", "account_id", help="Only of this merchant account.")
@click.option("--tariff", "tariff_id", help="Only of rides on this tariff.")
@REASON
@BY
def pause(
    what: What, operator_id: str | None, account_id: str | None, tariff_id: str | None, reason: str, by: str
) -> None:
    """Send no new debits, refunds or reports: of an operator, of an account, or of a tariff.

    Rides are charged on, and what is under way is still asked about.
    """

    async def work(database: Database, operator: KnownOperator) -> bool:
        now = await business_now(database)
        scope = {"account_id": account_id, "tariff_id": tariff_id}
        return await flow.stop(database, operator.operator_no, what, reason=reason, by=by, now=now, **scope)

    stopped = _run(operator_id, work)
    click.echo(f"{what}: {'paused' if stopped else 'paused before'}; `farebox stops` shows what is paused")


@click.command()
@click.argument("stop_no", metavar="NUMBER", type=click.IntRange(1, 2**31 - 1))
@OPERATOR
@REASON
@BY
def resume(stop_no: int, operator_id: str | None, reason: str, by: str) -> None:
    """Let what was paused go on: NUMBER is that of `farebox stops`."""

    async def work(database: Database, operator: KnownOperator) -> None:
        now = await business_now(database)
        await flow.resume(database, operator.operator_no, stop_no, reason=reason, by=by, now=now)

    _run(operator_id, work)
    click.echo(f"{stop_no}: goes on")


@click.command()
@OPERATOR
@click.option("--ended", is_flag=True, help="Those of before, too.")
def stops(operator_id: str | None, ended: bool) -> None:
    """Show what is paused, by whom and why, the newest first; instants in the operator's time zone. An operator whose
    mode is another than live is named first."""

    async def work(database: Database, operator: KnownOperator) -> tuple[list[StopRow], ZoneInfo, Switches]:
        found = await flow.list_stops(database, operator.operator_no, ended=ended)
        return found, ZoneInfo(operator.time_zone), await read_switches(database, operator.operator_id)

    found, zone, now = _run(operator_id, work)
    if now.mode in MODES:
        say(f"operator {now.operator_id} is {MODES[now.mode]}: `farebox operator mode {now.operator_id} live` ends it")
    elif not found:
        click.echo("nothing is paused")
    for row in found:
        of = "  ".join(
            f"{kind} {name}" for kind, name in (("account", row.account_id), ("tariff", row.tariff_id)) if name
        )
        over = f"  resumed {instant(row.resumed_at, zone)} by {row.resumed_by}" if row.resumed_at is not None else ""
        since = f"since {instant(row.stopped_at, zone)} by {row.stopped_by}: {row.reason}"
        say(f"{row.stop_no}  {row.what}  {of or 'everything'}  {since}{over}")


def _run(operator_id: str | None, work: Callable[[Database, KnownOperator], Awaitable[T]]) -> T:
    settings = load_settings()

    async def connected() -> T:
        async with database_of(settings) as database:
            async with database.reading(OperatorStore) as store:
                operator = await operator_of(store, operator_id)
            return await work(database, operator)

    return carry_out(connected(), OperatorError, UnknownStopError)
