"""`farebox import`: agreements and open debts of the system that an operator comes from."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.adapters.clock import machine_now
from service.adapters.csv_file import Columns, CsvFileError, Line, read_lines
from service.adapters.postgres import RACES, Database
from service.adapters.postgres.catalog import CatalogStore
from service.adapters.postgres.operators import KnownOperator, OperatorStore
from service.adapters.providers import Providers
from service.adapters.providers.secrets import AccountSettingsError
from service.billing.agreements.asking import AskError
from service.billing.catalog import TariffVersion
from service.billing.opening import opening_tariff
from service.cli.connections import carry_out, database_of, load_settings
from service.cli.plain import say as say_line
from service.flows.accounts import merchant_account
from service.flows.clock import BusinessClock
from service.flows.imports import Desk, ImportFileError, Problem, Tally
from service.flows.imports.agreements import AgreementImport, account_setting
from service.flows.imports.debts import DebtImport
from service.flows.imports.lines import AGREEMENT_COLUMNS, DEBT_COLUMNS
from service.flows.operators import OperatorError, operator_of
from service.flows.tariffs import publish_tariff
from service.settings import Settings

SAID_MAX = 50
"""So many lines are told of; the rest is counted."""
REFUSALS = (CsvFileError, ImportFileError, AskError, AccountSettingsError, OperatorError, *RACES)

Work = Callable[[Database, KnownOperator, Desk], Awaitable[None]]


def register(group: click.Group) -> None:
    """Adds the subject to the command line."""
    group.add_command(bring)


@click.group("import")
def bring() -> None:
    """Agreements and open debts of another system.

    A file is looked at whole before the first row is written: where a line is refused then, nothing of the file is
    written, the good lines neither. The same file again changes nothing, a line that says something else than what is
    there is refused; one that was cut short is run again.
    """


FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
OPERATOR = click.option("--operator", "operator_id", help="Whose they are.  [default: the default operator]")
CHECK = click.option("--check", "check_only", is_flag=True, help="Only say what would become of each line.")


@bring.command("agreements")
@FILE
@OPERATOR
@click.option("--account", "account_id", help="The merchant account they were signed with.  [default: the only one]")
@CHECK
def agreements_command(file: Path, operator_id: str | None, account_id: str | None, check_only: bool) -> None:
    """Bring over agreements that riders have signed elsewhere, each once its provider says that it is in force.

    FILE is CSV in UTF-8. Its columns: agreement_id, rider_ref, and provider_key (the number that the merchant gave the
    agreement: Alipay's out_agreement_no, WeChat Pay's authorization_code) or provider_ref (the provider's own: Stripe's
    customer:setup_intent), or both; where they are known, currency, cap_minor, created_at (signed), valid_until,
    time_zone, language. What the provider says of cap and end is what is kept; one that is not in force there is
    refused alone. No names, phone or identity numbers.
    """
    settings = load_settings()

    async def work(database: Database, operator: KnownOperator, desk: Desk) -> None:
        setting, clock = await account_setting(database, operator.operator_no, account_id), await _clock(database)
        lines, providers = (
            partial(_lines, file, AGREEMENT_COLUMNS),
            Providers(sandbox=settings.sandbox),
        )
        try:
            assert setting.account is not None
            provider = providers.of(merchant_account(setting.account))
            flow = AgreementImport(database, provider, operator.operator_no, setting, clock.now, machine_now, desk)
            count = await flow.look(lines)
            if not desk.tally.refused:
                await flow.knock()
                with _progress() as progress:
                    task = progress.add_task("asking the provider", total=count)
                    await flow.take(lines, partial(progress.advance, task), write=not check_only)
        finally:
            await providers.close()

    _import(settings, file, operator_id, work, check_only)


@bring.command("debts")
@FILE
@OPERATOR
@CHECK
def debts_command(file: Path, operator_id: str | None, check_only: bool) -> None:
    """Bring over open debts of rides that another system has billed: they are collected like any other.

    FILE is CSV in UTF-8. Its columns: reference (the debt's number there: it is brought over once), agreement_id, code
    (what it is for, such as ride or damage), amount_minor (730 is 7.30 CNY), currency, due_since (RFC 3339); rider_ref,
    if it is there, is held against the agreement's. Each becomes a session debt-REFERENCE. The rider's calendar begins
    with the import: attempts, due day, reminders. Where one line is refused, no debt of the file is brought over.
    """
    settings = load_settings()

    async def work(database: Database, operator: KnownOperator, desk: Desk) -> None:
        clock = await _clock(database)
        async with database.reading(CatalogStore) as store:
            known = (await store.operators())[operator.operator_no]
        flow, lines = DebtImport(database, known, clock.now, machine_now, desk), partial(_lines, file, DEBT_COLUMNS)
        found = await flow.look(lines)
        if desk.tally.refused or check_only:
            return
        terms = {currency: await _terms(database, operator, currency, clock) for currency in sorted(found.currencies)}
        with _progress() as progress:
            task = progress.add_task("writing", total=found.lines)
            await flow.take(lines, terms, partial(progress.advance, task))

    _import(settings, file, operator_id, work, check_only)


def _import(settings: Settings, file: Path, operator_id: str | None, work: Work, check_only: bool) -> None:
    """Does the work and says what became of the lines: exit code 1 where one was refused, 2 where the file was."""
    said = 0

    def say(problem: Problem) -> None:
        nonlocal said
        said += 1
        if said <= SAID_MAX:
            where = f"{file}:{problem.line}:{f' {problem.column}:' if problem.column else ''}"
            say_line(f"{where} {'note: ' if problem.note else ''}{problem.said}", err=True)

    desk = Desk(say)

    async def connected() -> None:
        async with database_of(settings) as database:
            async with database.reading(OperatorStore) as store:
                operator = await operator_of(store, operator_id)
            await work(database, operator, desk)

    carry_out(connected(), *REFUSALS)
    if said > SAID_MAX:
        click.echo(f"{file}: and {said - SAID_MAX} more like these", err=True)
    click.echo(_closing(desk.tally, check_only))
    sys.exit(1 if desk.tally.refused else 0)


def _closing(tally: Tally, check_only: bool) -> str:
    taken = "to be imported" if check_only else "imported"
    counts = f"{tally.imported} {taken}, {tally.there} were there already, {tally.refused} refused"
    nothing = f"; nothing {'would be' if check_only else 'was'} written"
    return f"import: {counts}{nothing if tally.refused and not tally.imported else ''}"


def _lines(file: Path, columns: Columns) -> Iterator[Line]:
    """The file from its beginning; raises CsvFileError where it can't be read at all."""
    try:
        yield from read_lines(file, columns)
    except OSError as error:
        raise CsvFileError(f"{file}: {error.strerror}; give a file that can be read") from error


async def _clock(database: Database) -> BusinessClock:
    clock = BusinessClock()
    async with database.reading(CatalogStore) as store:
        clock.read(await store.installation())
    return clock


async def _terms(database: Database, operator: KnownOperator, currency: str, clock: BusinessClock) -> TariffVersion:
    """The version that rides of what is brought over name; made where it is not there."""
    draft = opening_tariff(currency)
    found = await publish_tariff(database, operator, draft, now=clock.now(), lead=timedelta())
    return TariffVersion(found.tariff_no, found.tariff.version, found.tariff.valid_from, found.tariff)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)
