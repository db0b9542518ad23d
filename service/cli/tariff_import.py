"""`farebox tariff import`: a document becomes the next version of its tariffs."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import rich_click as click

from service.adapters.postgres import Database
from service.adapters.postgres.operators import KnownOperator, OperatorStore
from service.billing.instants import InstantError, read_instant
from service.billing.linting import BEYOND_DEBIT_MAX, OTHER_CURRENCY, lint_at
from service.billing.tariffs import Tariff, TariffDraft, TariffError
from service.cli.connections import business_now, carry_out, database_of, load_settings
from service.cli.plain import say
from service.cli.tariff_files import FILE, drafts_of, refused, zone_of
from service.cli.told import instant
from service.flows.accounts import hold_cap_minor
from service.flows.operators import OperatorError, operator_of
from service.flows.tariffs import PublishedTariff, publish_tariffs


@click.command("import")
@click.argument("file", type=FILE)
@click.option("--operator", "operator_id", help="Whose tariffs they are.  [default: the default operator]")
@click.option("--plan-id", help="Only this plan of a feed.")
@click.option("--tariff-id", help="The id to know the one tariff by.  [default: its own]")
@click.option("--valid-from", help="From when it holds (RFC 3339), whatever the document says.")
@click.option("--time-zone", help="The zone of a plan that names none.  [default: the operator's]")
def import_command(
    file: Path,
    operator_id: str | None,
    plan_id: str | None,
    tariff_id: str | None,
    valid_from: str | None,
    time_zone: str | None,
) -> None:
    """Publish the tariffs in FILE (a tariff document, a GBFS plan or a whole feed; `-`: standard input): all of them or
    none.

    Where a ride can cost more than a hold is for, at an operator whose rides are debited through holds, that is said.
    A first version may begin in the past; a later one only ahead of now, so that every process knows it by then. A
    tariff that the newest version says already, or the one that begins when it does, in whatever order and however its
    numbers are written, changes nothing.
    """
    settings = load_settings()
    drafts = _chosen(file, plan_id, tariff_id, valid_from)
    if time_zone is not None:
        zone_of(time_zone)
    lead = timedelta(seconds=settings.tariff_lead_seconds)

    async def work() -> tuple[KnownOperator, list[PublishedTariff], int | None]:
        async with database_of(settings) as database:
            operator = await _operator(database, operator_id)
            now = await business_now(database)
            made = await publish_tariffs(database, operator, drafts, now=now, lead=lead, time_zone=time_zone)
            return operator, made, await hold_cap_minor(database, operator.operator_id)

    try:
        operator, published, cap_minor = carry_out(work(), OperatorError)
    except TariffError as error:
        start = error.path == "/valid_from" and valid_from is None
        raise refused(f"{file}: {error}{' (--valid-from)' if start else ''}; nothing was imported") from error
    for item in published:
        found = "published" if item.created else "there already"
        tariff = item.tariff
        begins = instant(tariff.valid_from, tariff.zone)
        say(f"{tariff.tariff_id}: version {tariff.version} {found}, {tariff.currency}, from {begins}")
        if item.created:
            _say_odd(tariff, operator.currency, cap_minor)


def _say_odd(tariff: Tariff, currency: str, cap_minor: int | None) -> None:
    """What few mean: another currency than the operator's, or that a ride can cost more than a hold is for, and the
    rest is the rider's to pay. The rest of what is odd is `farebox tariff lint`'s to say."""
    for finding in lint_at(tariff, currency, cap_minor):
        if finding.code in BEYOND_DEBIT_MAX:
            way = "or have holds ask for more, as far as the provider's contract goes: `farebox operator hold-policy`"
            say(f"{tariff.tariff_id}: {finding.path}: {finding.message}, {way}", err=True)
        elif finding.code == OTHER_CURRENCY:
            say(f"{tariff.tariff_id}: {finding.path}: {finding.message}", err=True)


async def _operator(database: Database, operator_id: str | None) -> KnownOperator:
    async with database.reading(OperatorStore) as store:
        return await operator_of(store, operator_id)


def _chosen(file: Path, plan_id: str | None, tariff_id: str | None, valid_from: str | None) -> list[TariffDraft]:
    """The drafts of the file that are meant, under the id and start that were asked for."""
    drafts = [draft for draft in drafts_of(file) if plan_id in (None, draft.tariff_id)]
    if not drafts:
        names = ", ".join(draft.tariff_id for draft in drafts_of(file))
        raise refused(f"{file} has no plan {plan_id!r}; --plan-id is one of {names}" if plan_id else f"{file} is empty")
    if tariff_id is not None and len(drafts) > 1:
        raise refused(f"{file} holds {len(drafts)} plans; --tariff-id names one: choose it with --plan-id")
    start = None if valid_from is None else _instant(valid_from)
    return [
        msgspec.structs.replace(draft, tariff_id=tariff_id or draft.tariff_id, valid_from=start or draft.valid_from)
        for draft in drafts
    ]


def _instant(text: str) -> datetime:
    try:
        return read_instant(text)
    except InstantError as error:
        raise refused(f"--valid-from {text!r} is {error}") from error
