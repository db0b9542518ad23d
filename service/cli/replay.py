"""`farebox replay`: the price of a trips export, offline, or its trips as events on Kafka."""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from zoneinfo import ZoneInfo

import msgspec
import rich_click as click
from rich.console import Console
from rich.progress import Progress

from service.billing.money import format_amount
from service.billing.tariffs import Tariff, too_early
from service.cli.ranges import Times
from service.cli.replay_kafka import Delivery, publish_trips
from service.cli.tariff_files import FILE, built, one_draft, refused, zone_of
from service.lab.replay import PricedTrip, TripsError, price_trip, read_trips

UNMEASURED = "unmeasured"


@click.command()
@click.argument("file", type=FILE)
@click.option("--plan", "plan_file", type=FILE, required=True, help="A tariff document, a GBFS plan or a whole feed.")
@click.option("--plan-id", help="Which plan of the file.")
@click.option("--time-zone", required=True, help="The zone of the file's local times, and of a plan that names none.")
@click.option("--json-lines", "out", type=FILE, help="Where to write one JSON line per trip.  [default: stdout]")
@click.option("--kafka", is_flag=True, help="Publish the trips as events for a running intake instead.")
@click.option("--agreement", "agreement_id", help="Who pays.  [default: sandbox agreements, made if need be]")
@click.option("--speed", type=Times(min=0, min_open=True), help="× real time.  [default: as fast as possible]")
@click.option("--twice", is_flag=True, help="Deliver every event a second time.")
@click.option("--shuffle", type=int, metavar="SEED", help="Deliver in another order.")
def replay(
    file: Path, plan_file: Path, plan_id: str | None, time_zone: str, out: Path | None, kafka: bool, **how: Any
) -> None:
    """Price a trips export offline, or publish its trips as events with --kafka.

    FILE is CSV in UTF-8 with a first line of names: ride_id, started_at and ended_at (2026-11-22 18:30:00, in
    --time-zone where they have no offset: of a time that comes twice as clocks are put back the first is meant), and if
    it has them distance_m (metres) and rideable_type; other columns, as Citi Bike's exports have them, are not read.

    A row that can't be read stops it before anything is written or published. The events of the same file have the
    same ids: publishing it again is a second delivery.
    """
    zone = zone_of(time_zone)
    delivery = Delivery(**how)
    if kafka and (out is not None or (delivery.speed and delivery.shuffle is not None)):
        raise refused("--kafka takes no --json-lines, and no --speed with --shuffle")
    if not kafka and delivery != Delivery():
        raise refused("--agreement, --speed, --twice and --shuffle are about --kafka: add it")
    try:
        if kafka:
            publish_trips(file, zone, one_draft(plan_file, plan_id), delivery)
        else:
            draft = one_draft(plan_file, plan_id)
            terms = built(plan_file, draft, time_zone)
            _price(file, zone, terms, out, from_its_start=draft.valid_from is not None)
    except TripsError as error:
        raise refused(f"{error}; nothing was written") from error
    except OSError as error:
        raise refused(f"{error.filename}: {error.strerror}; nothing was written") from error


def _price(file: Path, zone: ZoneInfo, terms: Tariff, out: Path | None, *, from_its_start: bool) -> None:
    """Prices the trips, and says in one line what they come to; refused where the tariff has a start of its own, and a
    trip begins before it."""
    count = 0
    for trip in read_trips(file, zone):
        count += 1
        early = too_early(terms, trip.started_at) if from_its_start else None
        if early is not None:
            raise TripsError(f"{file}: {early}, {trip.session_id}: replay it on the tariff that held then")
    with _output(out) as lines:
        counts, total_minor = _price_all(file, zone, terms, count, lines)
    unmeasured = counts.pop(UNMEASURED, 0)
    reviewed = {name: number for name, number in counts.items() if name != "priced"}
    reasons = "".join(f", {number} {name}" for name, number in sorted(reviewed.items()))
    total = f"{format_amount(total_minor, terms.currency)} {terms.currency}"
    summary = f"{count} trips, {counts['priced']} priced, {sum(reviewed.values())} to review{reasons}, total {total}"
    click.echo(f"replay: {summary}", err=True)
    if unmeasured:
        click.echo(f"replay: {unmeasured} without a distance, taken as 0", err=True)


def _price_all(file: Path, zone: ZoneInfo, terms: Tariff, count: int, lines: IO[bytes]) -> tuple[Counter[str], int]:
    """Writes a line per trip; returns how many were priced, went to review by reason, or had no distance where the
    tariff asks for it, and the sum of all prices."""
    counts: Counter[str] = Counter()
    total_minor = 0
    by_distance = bool(terms.plan.per_km_pricing)
    encoder = msgspec.json.Encoder()
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        for trip in progress.track(read_trips(file, zone), total=count, description="pricing"):
            priced: PricedTrip = price_trip(trip, terms)
            counts[priced.reason or "priced"] += 1
            total_minor += priced.amount_minor or 0
            counts[UNMEASURED] += by_distance and not trip.row.get("distance_m")
            lines.write(encoder.encode(priced) + b"\n")
    return counts, total_minor


@contextmanager
def _output(out: Path | None) -> Iterator[IO[bytes]]:
    """Standard output, or a file that appears under its name only when it is complete."""
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    except OSError as error:  # Its name is not one that was given.
        raise OSError(error.errno, error.strerror, str(out)) from error
    try:
        with os.fdopen(handle, "wb") as lines:
            yield lines
        Path(name).replace(out)
    finally:
        Path(name).unlink(missing_ok=True)
