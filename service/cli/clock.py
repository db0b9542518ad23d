"""`farebox clock`: the business clock; setting it is for sandbox installations only."""

from __future__ import annotations

import re
from datetime import timedelta

import rich_click as click

from service.billing.instants import InstantError, read_instant
from service.cli.connections import carry_out, database_of, load_settings
from service.cli.ranges import Times
from service.flows.clock_setting import (
    SPEED_MAX,
    Change,
    ClockError,
    Setting,
    faster,
    later,
    read_clock,
    set_clock,
    standing_at,
)
from service.settings import Settings

_STEP = re.compile(r"(?=.)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?", re.ASCII)


@click.group()
def clock() -> None:
    """The business clock: when rides, debits, reminders and calendars are."""


@clock.command()
def show() -> None:
    """Show the business time and how fast it runs."""
    _tell(carry_out(_read(load_settings())))


@clock.command()
@click.argument("times", type=Times(0, SPEED_MAX))
def speed(times: float) -> None:
    """Let the clock run TIMES as fast as the machine's; 0 stops it."""
    _set(faster(times))


@clock.command()
@click.argument("step", metavar="DURATION")
def advance(step: str) -> None:
    """Jump ahead by DURATION: 90s, 15m, 36h, 60d, 1d12h."""
    _set(later(_duration(step)))


@clock.command()
@click.option("--at", "text", metavar="RFC3339", required=True, help="Where it begins, with the offset.")
def virtual(text: str) -> None:
    """Set the clock to an instant that lies ahead; it goes on at its speed."""
    try:
        instant = read_instant(text)
    except InstantError as error:
        raise click.BadParameter(f"{text!r} is {error}", param_hint="--at") from None
    _set(standing_at(instant))


def _duration(text: str) -> timedelta:
    found = _STEP.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no duration: give 90s, 15m, 36h, 60d or 1d12h", param_hint="DURATION")
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    try:
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        raise click.BadParameter(f"{text!r} is too long", param_hint="DURATION") from None


def _set(change: Change) -> None:
    settings = load_settings()
    if not settings.sandbox:
        raise click.UsageError(
            f"FAREBOX_ENVIRONMENT is {settings.environment}: only a sandbox installation has a virtual clock"
        )
    _tell(carry_out(_change(settings, change), ClockError))


async def _change(settings: Settings, change: Change) -> Setting:
    async with database_of(settings) as database:
        return await set_clock(database, change)


async def _read(settings: Settings) -> Setting:
    async with database_of(settings) as database:
        return await read_clock(database)


def _tell(setting: Setting) -> None:
    pace = "the machine's clock" if setting.mode == "real" else f"virtual, {setting.speed:g} times as fast"
    click.echo(f"{setting.business_at.isoformat()}  {pace}")


def register(group: click.Group) -> None:
    """Adds the commands of the clock."""
    group.add_command(clock)
