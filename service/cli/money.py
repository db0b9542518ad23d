"""`farebox audit`: everything is derived again from what it rests on."""

from __future__ import annotations

import sys

import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.billing.auditing.problems import Problem
from service.cli.connections import carry_out, database_of, load_settings
from service.cli.plain import say
from service.flows.audit import Audited, UnknownOperatorError
from service.flows.audit import audit as audit_everything
from service.settings import Settings


@click.command()
@click.option("--operator", "operator_id", metavar="ID", help="The rides and the ledger of one operator alone.")
def audit(operator_id: str | None) -> None:
    """Derive every charge again, check digests, ledger, balances and debits.

    Prints each disagreement with where to look; exit code 1 if there is any.
    """
    audited = carry_out(_audit(load_settings(), operator_id), UnknownOperatorError)
    click.echo(
        f"audit: {audited.rides} rides, {audited.charges} charges, {audited.transfers} transfers,"
        f" {audited.problems} problems"
    )
    sys.exit(1 if audited.problems else 0)


async def _audit(settings: Settings, operator_id: str | None) -> Audited:
    async with database_of(settings):
        pass  # The schema is this release's.
    columns = TextColumn("auditing rides"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("rides", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        return await audit_everything(settings.database_url, _print, progress, operator_id)


def _print(problem: Problem) -> None:
    say(problem.line())


def register(group: click.Group) -> None:
    """Adds the commands about money."""
    group.add_command(audit)
