"""What is switched of an operator: its mode, its calendar, its policy on holds, its limits."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import rich_click as click
from msgspec.structs import replace

from service.adapters.postgres.operators import OperatorStore, Switches
from service.billing.agreements.holds import HoldPolicy
from service.billing.debits.dunning import Calendar
from service.billing.instants import InstantError, read_instant
from service.billing.money import format_amount
from service.cli.amounts import exact_minor
from service.cli.connections import carry_out, database_of, load_settings, named_values
from service.cli.told import instant as instant_there
from service.flows.operators import OperatorError, Rules, changed_rules, operator_of, read_switches, switch

MODES = ("live", "shadow", "paused")
SECONDS = re.compile(r"T([1-9]\d+)S")
"""The time of a duration of ten seconds and more, as msgspec writes it."""


def add_switches(operator: click.Group) -> None:
    """Adds the switches to `farebox operator`."""
    for command in (show, mode, calendar, hold_policy, exposure, bill_from):
        operator.add_command(command)


@click.command()
@click.argument("operator_id", metavar="[ID]", required=False)
def show(operator_id: str | None) -> None:
    """Show how an operator is switched, instants in its time zone; without an ID the default operator."""
    now = _read(operator_id)
    click.echo(f"mode         {now.mode}")
    click.echo(f"bill from    {'every ride' if now.bill_from is None else _told(now.bill_from, now)}")
    click.echo(f"exposure     {_limit(now)}")
    for title, shape, stored in (("calendar", Calendar, now.calendar), ("hold policy", HoldPolicy, now.hold_policy)):
        click.echo(title)
        _tell_rules(shape, stored)


@click.command()
@click.argument("operator_id", metavar="ID")
@click.argument("wanted", metavar="MODE", type=click.Choice(MODES))
def mode(operator_id: str, wanted: str) -> None:
    """Let an operator be live, in shadow, or paused.

    live: rides are charged and debited. shadow: rides are charged, nothing is owed and nothing reaches riders; what was
    charged in shadow stays unowed later. paused: rides are charged and owed, no new debit or refund is submitted until
    it is live again.
    """
    _switch(operator_id, lambda now: replace(now, mode=wanted))
    click.echo(f"operator {operator_id}: {wanted}")


@click.command()
@click.argument("words", metavar="[ID] [NAME=VALUE]...", nargs=-1)
def calendar(words: tuple[str, ...]) -> None:
    """Show or change when debits are tried, due, overdue and written off; debits from now on go by it. Without an ID it
    is the default operator's.

    VALUE is a number, an hour such as 09:00, an ISO 8601 duration such as PT6H or P1D, a JSON list of those, or true
    or false (reports); NAME= goes back to the default. Days are up to 3650, durations up to P3650D. Example: farebox
    operator calendar city due_days=10 debit_delay=PT2H

    From the charge on: debit_delay to the first attempt; retry_after, from that to each further one, the shortest
    first; between retry_from and retry_until of the rider's day he is charged again and told. due_days until a debit
    is overdue, and from then write_off_days until it is written off.

    What he is told: remind_before an attempt of ours; remind_days before the due day of what is not ours to try;
    notice_days after the due day that he will be reported; report_days after that he is (7 at least, and never before
    the 15th day after the first attempt; reports=false: never).

    payment_open_for: nothing else is tried while a rider pays by himself. collect_revoked_for: what is owed may be
    collected on an agreement that we have ended. A tariff's debits stop by themselves after stop_run of them in an hour
    above stop_factor times the mean of 30 days, or above stop_above_minor (null: no such limit).
    """
    _rules("calendar", Calendar, words)


@click.command("hold-policy")
@click.argument("words", metavar="[ID] [NAME=VALUE]...", nargs=-1)
def hold_policy(words: tuple[str, ...]) -> None:
    """Show or change how holds are asked for before the unlock, and when they are given up. Without an ID it is the
    default operator's.

    VALUE is true or false, a number of minor units, or an ISO 8601 duration such as PT3S; NAME= goes back to the
    default. Example: farebox operator hold-policy city unlock_while_pending=true answer_within=PT2S

    cap_minor is asked for where the agreement has no cap of its own (that it was made with, or that its provider said).
    answer_within: the app waits so long for the provider, PT0.1S to PT60S, and is told `pending` then, on which
    unlock_while_pending decides. A hold that is not open after give_up_after is wanted no more; one that no ride began
    on is released after release_after, or after release_anyway_after where the events are not read that far.
    """
    _rules("hold policy", HoldPolicy, words)


@click.command()
@click.argument("operator_id", metavar="ID")
@click.argument("amount", required=False)
@click.option("--none", "unlimited", is_flag=True, help="No limit.")
def exposure(operator_id: str, amount: str | None, unlimited: bool) -> None:
    """Limit what a rider may have ridden and not paid before he begins another ride: AMOUNT of the operator's currency,
    such as 200.00, over all his agreements."""
    if (amount is None) is not unlimited:
        raise click.UsageError("give either an AMOUNT, or --none")

    def change(now: Switches) -> Switches:
        return replace(now, exposure_max_minor=None if amount is None else exact_minor(amount, now.currency))

    click.echo(f"operator {operator_id}: exposure {_limit(_switch(operator_id, change))}")


@click.command("bill-from")
@click.argument("operator_id", metavar="ID")
@click.argument("instant", metavar="RFC3339", required=False)
@click.option("--none", "every", is_flag=True, help="Every ride is billed.")
def bill_from(operator_id: str, instant: str | None, every: bool) -> None:
    """Bill only rides that start at or after an instant, such as 2027-01-01T00:00:00+08:00: rides before it, which the
    system before bills, are recorded and never charged. It holds for what is decided from now on."""
    if (instant is None) is not every:
        raise click.UsageError("give either an instant, or --none")
    try:
        at = None if instant is None else read_instant(instant)
    except InstantError as error:
        raise click.BadParameter(f"{instant!r} is {error}", param_hint="RFC3339") from None
    now = _switch(operator_id, lambda known: replace(known, bill_from=at))
    told = "every ride" if now.bill_from is None else f"rides from {_told(now.bill_from, now)} on"
    click.echo(f"operator {operator_id}: bills {told}")


def _rules(what: str, shape: type[Rules], words: tuple[str, ...]) -> None:
    """Changes an operator's rules of this shape, if asked to, and shows them; his id has no = in it."""
    named = bool(words) and "=" not in words[0]
    operator_id, pairs = (words[0] if named else None), words[named:]
    field = "calendar" if shape is Calendar else "hold_policy"
    changes = {name: None if value == "" else value for name, value in named_values(pairs, "NAME=VALUE").items()}

    def change(now: Switches) -> Switches:
        return replace(now, **{field: changed_rules(what, shape, getattr(now, field), changes)})

    now = _read(operator_id)
    _tell_rules(shape, getattr(_switch(now.operator_id, change) if changes else now, field))


def _tell_rules(shape: type[Rules], stored: str) -> None:
    now: dict[str, Any] = msgspec.to_builtins(msgspec.json.decode(stored, type=shape))
    default: dict[str, Any] = msgspec.to_builtins(shape())
    for name, value in now.items():
        told = SECONDS.sub(_duration, value if isinstance(value, str) else msgspec.json.encode(value).decode())
        click.echo(f"  {name:<22}{told}{'' if value == default[name] else '  *'}")
    if now != default:
        click.echo("  *: not the default")


def _duration(found: re.Match[str]) -> str:
    """Seconds of an ISO 8601 duration as hours, minutes and seconds, the way a person writes it."""
    minutes, seconds = divmod(int(found[1]), 60)
    hours, minutes = divmod(minutes, 60)
    return "T" + "".join(
        f"{count}{unit}" for count, unit in zip((hours, minutes, seconds), "HMS", strict=True) if count
    )


def _read(operator_id: str | None) -> Switches:
    settings = load_settings()

    async def work() -> Switches:
        async with database_of(settings) as database:
            async with database.reading(OperatorStore) as store:
                owner = await operator_of(store, operator_id)
            return await read_switches(database, owner.operator_id)

    return carry_out(work(), OperatorError)


def _switch(operator_id: str, change: Callable[[Switches], Switches]) -> Switches:
    settings = load_settings()

    async def work() -> Switches:
        async with database_of(settings) as database:
            return await switch(database, operator_id, change)

    return carry_out(work(), OperatorError)


def _told(at: datetime, now: Switches) -> str:
    return instant_there(at, ZoneInfo(now.time_zone))


def _limit(now: Switches) -> str:
    if now.exposure_max_minor is None:
        return "no limit"
    return f"up to {format_amount(now.exposure_max_minor, now.currency)} {now.currency}"
