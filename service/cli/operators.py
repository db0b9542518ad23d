"""`farebox operator`: who rents out vehicles here, and whose the events of a source are."""

from __future__ import annotations

import rich_click as click

from service.adapters.postgres.operators import ListedOperator, NewOperator, OperatorStore
from service.cli.connections import business_now, carry_out, database_of, load_settings
from service.cli.plain import say
from service.cli.switches import add_switches
from service.flows.operators import (
    OperatorError,
    add_operator,
    change_operator,
    map_source,
    set_default_operator,
)


def register(group: click.Group) -> None:
    """Adds the commands that set an installation up."""
    add_switches(operator)
    group.add_command(operator)


@click.group()
def operator() -> None:
    """Rental operators and their event sources."""


@operator.command("add")
@click.argument("operator_id", metavar="ID")
@click.option("--name", help="What people call it.  [default: the id]")
@click.option("--time-zone", help="IANA name; civil days and nights are its own.  [default: FAREBOX_TIME_ZONE]")
@click.option("--currency", help="ISO 4217.  [default: FAREBOX_CURRENCY]")
@click.option("--contact", default="", help="Whom riders call; stands on receipts and reminders.")
@click.option(
    "--ride-hours-max",
    type=int,
    default=720,
    show_default=True,
    help="A longer ride is reviewed, not charged.",
)
def add_command(
    operator_id: str, name: str | None, time_zone: str | None, currency: str | None, contact: str, ride_hours_max: int
) -> None:
    """Add an operator: its tariffs, agreements, accounts and tokens are nobody else's."""
    settings = load_settings()
    new = NewOperator(
        operator_id=operator_id,
        name=name or operator_id,
        time_zone=time_zone or settings.time_zone,
        currency=currency or settings.currency,
        contact=contact,
        ride_hours_max=ride_hours_max,
    )

    async def work() -> None:
        async with database_of(settings) as database:
            await add_operator(database, new, await business_now(database))

    carry_out(work(), OperatorError)
    click.echo(f"operator {operator_id} added; next: farebox operator map-source {operator_id} SOURCE")


@operator.command("change")
@click.argument("operator_id", metavar="ID")
@click.option("--name", help="What people call it; stands on receipts and reminders.")
@click.option("--contact", help="Whom riders call; stands on receipts and reminders.")
@click.option("--ride-hours-max", type=int, help="A longer ride is reviewed, not charged.")
@click.option("--time-zone", help="IANA name; only while it has no tariffs and agreements.")
@click.option("--currency", help="ISO 4217; only while it has no tariffs and agreements.")
def change_command(operator_id: str, **given: str | int | None) -> None:
    """Change who an operator is, the default one too. Its id stays; its time zone and currency stay once a tariff is
    published or a rider has signed: what is priced and owed stands in them. Without an option: show it."""
    settings = load_settings()
    changes = {name: value for name, value in given.items() if value is not None}

    async def work() -> NewOperator:
        async with database_of(settings) as database:
            return await change_operator(database, operator_id, changes)

    now = carry_out(work(), OperatorError)
    contact = f"  contact {now.contact}" if now.contact else "  no contact: riders are not told whom to call"
    say(
        f"operator {now.operator_id}: {now.name}  {now.time_zone}  {now.currency}  rides up to {now.ride_hours_max} h"
        f"{contact}"
    )


@operator.command("map-source")
@click.argument("operator_id", metavar="ID")
@click.argument("source")
@click.option("--topic", help="The topic the source writes to.  [default: FAREBOX_TOPIC_SESSIONS]")
def map_source_command(operator_id: str, source: str, topic: str | None) -> None:
    """Give the events of SOURCE (a CloudEvents source) to an operator, for ever: a source never changes hands. Do so
    before its first event: one that nobody has mapped by then is the default operator's."""
    settings = load_settings()
    place = topic or settings.topic_sessions

    async def work() -> bool:
        async with database_of(settings) as database:
            return await map_source(database, operator_id, place, source, await business_now(database))

    mapped = carry_out(work(), OperatorError)
    click.echo(f"{source} on {place}: operator {operator_id}{'' if mapped else ', as before'}")


@operator.command("default")
@click.argument("operator_id", metavar="ID", required=False)
@click.option("--none", "nobody", is_flag=True, help="Nobody: such events are held until their source is mapped.")
def default_command(operator_id: str | None, nobody: bool) -> None:
    """Say which operator takes the events of sources that nobody mapped."""
    if (operator_id is None) is not nobody:
        raise click.UsageError("give either the ID of an operator, or --none")
    settings = load_settings()

    async def work() -> None:
        async with database_of(settings) as database:
            await set_default_operator(database, operator_id)

    carry_out(work(), OperatorError)
    click.echo(f"unmapped sources: {'held until mapped' if operator_id is None else f'operator {operator_id}'}")


@operator.command("list")
def list_command() -> None:
    """Show every operator with its sources; * takes the events of unmapped ones."""
    settings = load_settings()

    async def work() -> list[ListedOperator]:
        async with database_of(settings) as database, database.reading(OperatorStore) as store:
            return await store.list()

    for item in carry_out(work()):
        mark = "*" if item.is_default else " "
        contact = f"  contact {item.contact}" if item.contact else ""
        say(
            f"{mark} {item.operator_id}  {item.name}  {item.time_zone}  {item.currency}  {item.mode}"
            f"  rides up to {item.ride_hours_max} h{contact}"
        )
        for source in item.sources:
            say(f"    {source}")
