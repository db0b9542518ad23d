"""Tariffs on the command line, offline: worked fares, quotes, lint, diff, and the price of a trips export."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import msgspec
import rich_click as click
from msgspec import Meta

from service.billing.extent import METERS_MAX
from service.billing.instants import InstantError, read_instant, utc
from service.billing.linting import lint_document
from service.billing.linting.changes import changes, fare_changes
from service.billing.money import MoneyError, format_amount, from_minor, parse_decimal
from service.billing.rating import Charge, rate
from service.billing.rating.compiled import depends_on_start
from service.billing.refusals import in_words, printable
from service.billing.sessions import Usage
from service.billing.tariffs import Tariff, TariffDraft, TariffError, build, has_balance_rules, too_early
from service.cli.plain import say
from service.cli.replay import replay
from service.cli.tariff_files import BEGINNING, FILE, built, drafts_of, one_tariff, read, refused
from service.cli.tariff_import import import_command
from service.cli.told import charge_lines
from service.cli.told import instant as instant_there
from service.web.views import charge_view


class FareCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A worked fare: plan and rules, what was used, and what it must come to in major units; `basis`, `source` and
    `note` are for people."""

    id: str
    plan: msgspec.Raw
    expected: Decimal
    duration_s: Decimal
    distance_m: Annotated[int, Meta(ge=0, le=METERS_MAX)] = 0
    rules: msgspec.Raw = msgspec.Raw(b"{}")
    started_at: datetime = BEGINNING
    time_zone: str = "UTC"
    reserved_s: Decimal | None = None
    basis: str = ""
    source: str = ""
    note: str = ""


class FareCases(msgspec.Struct, frozen=True):
    """A file of worked fares."""

    fares: list[FareCase]


def register(group: click.Group) -> None:
    """Adds the tariff commands to the command line."""
    group.add_command(fares)
    group.add_command(quote)
    group.add_command(replay)
    group.add_command(tariff)
    tariff.add_command(import_command)


SECONDS_MAX = 100 * 366 * 86_400


@click.group()
def tariff() -> None:
    """Tariffs: check, compare and publish them."""


@click.command()
@click.argument("file", type=FILE)
def fares(file: Path) -> None:
    """Check worked fares: each case of FILE is rated and compared; exit 1 when one disagrees.

    FILE is JSON: {"fares": [{"id": "an hour", "plan": {...}, "duration_s": 3600, "expected": "6.90"}]}, with a GBFS
    plan, and where a case needs them distance_m, rules, started_at (RFC 3339), time_zone and reserved_s; basis, source
    and note say where it is from.
    """
    try:
        cases = msgspec.json.decode(read(file), type=FareCases).fares
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        told = in_words(str(error), FareCases)
        raise refused(f'{file}: {told}; give {{"fares": [...]}} with id, plan, duration_s, expected') from error
    if not cases:
        raise refused(f"{file}: there is no case in it; give at least one fare")
    failed = 0
    for case in cases:
        wrong, charge = _judged(case)
        if wrong is not None:
            failed += 1
            say(f"FAILED {case.id}: {wrong}")
        if charge is not None:
            click.echo(_receipt(charge))
    click.echo(f"{len(cases) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


@click.command()
@click.option("--plan", "file", type=FILE, required=True, help="A tariff document, a GBFS plan or a whole feed.")
@click.option("--plan-id", help="Which plan of the file.")
@click.option("--seconds", required=True, help="How long the ride lasts.")
@click.option("--meters", type=int, default=0, show_default=True, help="How far it goes.")
@click.option("--at", help="When it starts (RFC 3339).  [default: when the tariff begins]")
@click.option("--time-zone", help="The zone of a plan that names none.  [default: UTC]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def quote(
    file: Path, plan_id: str | None, seconds: str, meters: int, at: str | None, time_zone: str | None, as_json: bool
) -> None:
    """What a ride costs, line by line, for a rider without earlier rides, passes or coupons."""
    asked_at = None if at is None else _instant(at)
    terms = one_tariff(file, plan_id, time_zone, asked_at or BEGINNING)
    try:
        length = _microseconds(seconds, "--seconds")
    except _LengthError as error:
        raise refused(str(error)) from error
    if meters < 0:
        raise refused(f"--meters {meters} is negative; give 0 or more")
    if meters > METERS_MAX:
        raise refused(f"--meters {meters} is out of range; give at most {METERS_MAX}")
    start = asked_at or terms.valid_from
    early = too_early(terms, start)
    if early is not None:
        raise refused(f"--at: {early}; give an instant from then on")
    charge = rate(_usage(start, length, meters), terms)
    click.echo(_quote_json(terms, charge, start) if as_json else _receipt(charge))
    if at is None and depends_on_start(terms):
        click.echo(f"assumed: the ride starts at {instant_there(start, terms.zone)}; say when with --at", err=True)
    if has_balance_rules(terms):
        click.echo("assumed: nothing used of day and month caps before this ride", err=True)


@tariff.command()
@click.argument("file", type=FILE)
@click.option("--debit-max", help="The most that may be debited for a ride, in major units: none may cost more.")
def lint(file: Path, debit_max: str | None) -> None:
    """Say what is wrong or odd in FILE, and where; exit 1 when a tariff would be refused, or a ride on it can cost more
    than --debit-max: fees of zones, parking and reservation come on top of that."""
    try:
        highest = None if debit_max is None else parse_decimal(debit_max)
    except MoneyError as error:
        raise refused(f"--debit-max: {error}; give an amount such as 100.00") from error
    findings = lint_document(read(file), highest)
    for finding in findings:
        about = f" ({finding.tariff_id})" if finding.tariff_id else ""
        say(f"{finding.severity}: {finding.path or '/'}{about}: {finding.message} [{finding.code}]")
    severities = Counter(finding.severity for finding in findings)
    click.echo(f"{_counted(severities['error'], 'error')}, {_counted(severities['warning'], 'warning')}")
    sys.exit(1 if severities["error"] else 0)


@tariff.command()
@click.argument("file", type=FILE)
@click.argument("other", type=FILE)
def diff(file: Path, other: Path) -> None:
    """What changes from FILE to OTHER: the fields, and what example rides cost."""
    before = {draft.tariff_id: built(file, draft, "UTC") for draft in drafts_of(file)}
    after = {draft.tariff_id: built(other, draft, "UTC") for draft in drafts_of(other)}
    if len(before) == len(after) == 1:
        _print_changes(next(iter(before.values())), next(iter(after.values())))
        return
    for tariff_id in [*before, *(name for name in after if name not in before)]:
        if tariff_id not in after:
            say(f"{tariff_id}: removed")
        elif tariff_id not in before:
            say(f"{tariff_id}: added")
        else:
            _print_changes(before[tariff_id], after[tariff_id])


def _judged(case: FareCase) -> tuple[str | None, Charge | None]:
    """What is wrong with a worked fare, or with its price, and then what it comes to."""
    draft = TariffDraft(tariff_id=case.id, plan=bytes(case.plan), rules=bytes(case.rules))
    try:
        terms = build(draft, valid_from=BEGINNING, time_zone=case.time_zone)
        length, reserved = _microseconds(case.duration_s, "duration_s"), case.reserved_s
        reserved_us = None if reserved is None else _microseconds(reserved, "reserved_s")
        start = utc(case.started_at if case.started_at.tzinfo else case.started_at.replace(tzinfo=terms.zone))
        expected = parse_decimal(case.expected)
    except InstantError as error:
        return f"started_at is {error}", None
    except MoneyError as error:
        return f"expected: {error}; give an amount such as 6.90", None
    except (TariffError, _LengthError) as error:
        return str(error), None
    charge = rate(_usage(start, length, case.distance_m, reserved_us), terms)
    if from_minor(charge.total_minor, charge.currency) == expected:
        return None, None
    got = format_amount(charge.total_minor, charge.currency)
    return f"expected {expected} {charge.currency}, got {got}", charge


def _usage(start: datetime, length_us: int, meters: int, reserved_us: int | None = None) -> Usage:
    return Usage(
        started_at=start,
        ended_at=start + timedelta(microseconds=length_us),
        duration_us=length_us,
        meters=meters,
        reserved_us=reserved_us,
    )


def _receipt(charge: Charge) -> str:
    """The lines of a charge for people, and its total."""
    return "\n".join(map(printable, charge_lines(charge_view(charge))))


def _quote_json(terms: Tariff, charge: Charge, start: datetime) -> str:
    shown = {
        "tariff_id": terms.tariff_id,
        "currency": charge.currency,
        "amount_minor": charge.total_minor,
        "tax_minor": charge.tax_minor,
        "lines": charge.lines,
        "started_at": start,
        "balance": charge.balance.uses,
    }
    return msgspec.json.encode(shown).decode()


def _print_changes(before: Tariff, after: Tariff) -> None:
    changed, rides = changes(before, after), fare_changes(before, after)
    say(f"{after.tariff_id}: {_counted(len(changed), 'change')}")
    for change in changed:
        say(f"  {change.path}: {change.before or 'nothing'} -> {change.after or 'nothing'}")
    for ride in rides:
        distance = f", {ride.kilometres} km" if ride.kilometres else ""
        was = f"{format_amount(ride.before_minor, before.currency)} {before.currency}"
        will = f"{format_amount(ride.after_minor, after.currency)} {after.currency}"
        click.echo(f"  ride of {ride.minutes} min{distance}: {was} -> {will}")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _instant(text: str) -> datetime:
    try:
        return read_instant(text)
    except InstantError as error:
        raise refused(f"--at {text!r} is {error}") from error


class _LengthError(ValueError):
    """No length of time, or one that nothing lasts; the message names it."""


def _microseconds(seconds: str | Decimal, name: str) -> int:
    """Seconds as exact microseconds, 0 to a hundred years; raises _LengthError."""
    try:
        length = parse_decimal(seconds) * 1_000_000
    except MoneyError as error:
        raise _LengthError(f"{name}: {error}; give a number of seconds") from error
    if length % 1:
        raise _LengthError(f"{name}: {seconds} is too fine; give at most 6 decimal places")
    if not 0 <= length <= SECONDS_MAX * 1_000_000:
        raise _LengthError(f"{name}: {seconds} is out of range; give 0 to {SECONDS_MAX}")
    return int(length)
