"""What the tariff commands read: documents of tariffs, zones; and how they refuse what they can't use."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import rich_click as click

from service.billing.refusals import brief
from service.billing.tariffs import Tariff, TariffDraft, TariffError, build, import_document
from service.billing.zones import UnknownZoneError, zone_named
from service.cli.plain import say

BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)
"""When a plan without a start of its own is taken to hold from, offline."""

FILE = click.Path(path_type=Path, dir_okay=False)


def refused(message: str) -> SystemExit:
    """Says on standard error, in one line, what input can't be used; raise what it returns (exit 2)."""
    say(f"farebox: {brief(' '.join(message.split()))}", err=True)
    return SystemExit(2)


def one_tariff(file: Path, plan_id: str | None, time_zone: str | None, begins: datetime = BEGINNING) -> Tariff:
    """The tariff of a file, or the one of the given id; one without a start of its own holds from when it `begins`."""
    draft = one_draft(file, plan_id)
    if time_zone is not None:
        zone_of(time_zone)
    return built(file, draft, time_zone or "UTC", begins)


def one_draft(file: Path, plan_id: str | None) -> TariffDraft:
    """The tariff of a file, or the one of the given id, not yet checked."""
    drafts = drafts_of(file)
    names = [draft.tariff_id for draft in drafts]
    if plan_id is None and len(drafts) != 1:
        raise refused(f"{file} holds {len(drafts)} plans; add --plan-id, one of {', '.join(names)}")
    chosen = [draft for draft in drafts if plan_id in (None, draft.tariff_id)]
    if not chosen:
        raise refused(f"{file} has no plan {plan_id!r}; --plan-id is one of {', '.join(names)}")
    return chosen[0]


def drafts_of(file: Path) -> list[TariffDraft]:
    """The tariffs in a file; refused when it is none of the kinds of document."""
    try:
        return import_document(read(file))
    except TariffError as error:
        raise refused(f"{file}: {error}") from error


def built(file: Path, draft: TariffDraft, time_zone: str, begins: datetime = BEGINNING) -> Tariff:
    """A draft of a file as a tariff, in the zone and from the instant where it names none; refused with what is wrong
    with it."""
    try:
        return build(draft, valid_from=begins, time_zone=time_zone)
    except TariffError as error:
        raise refused(f"{file}: {error}") from error


def read(file: Path) -> bytes:
    """A file's content, standard input's for `-`, or a refusal. That is read where it is open already: in a container,
    opening `/dev/stdin` anew is refused where it is another user's pipe, or a socket."""
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise refused(f"{file}: {error.strerror}; give a file that can be read") from error


def zone_of(name: str) -> ZoneInfo:
    """The zone of `--time-zone`, or a refusal."""
    try:
        return zone_named(name)
    except UnknownZoneError as error:
        raise refused(f"--time-zone {name!r} is {error}") from error
