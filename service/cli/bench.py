"""`farebox bench`: measurements on the lab's servers. A bench is not a test."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import rich_click as click
from rich.console import Console

from service.lab import bench_rating
from service.lab.bench_claims import bench_claims
from service.lab.bench_collection import AT_ONCE_AND_AS_A_NETWORK, bench_collection
from service.lab.bench_holds import bench_holds
from service.lab.bench_intake import bench_intake
from service.lab.bench_tables import bench_tables
from service.lab.measure import Report, Section, show, this_machine, write
from service.lab.processes import LabError


def register(group: click.Group) -> None:
    """Adds the commands of this file."""
    group.add_command(bench)


@click.group("bench")
def bench() -> None:
    """Measure, print a table, write JSON. The machine should have nothing else to do."""


@bench.command("tables")
@click.option("--rows", type=click.IntRange(min=100_000), default=20_000_000, show_default=True, help="How full.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("build/bench-tables.json"),
    show_default=True,
)
def tables_command(rows: int, json_file: Path) -> None:
    """Measure the identity table and the range partitions, filled with 20 million rows each.

    Takes about ten minutes and up to 10 GB in the temporary directory, which are gone at the end.
    """
    _report(bench_tables(rows, Console(stderr=True)), json_file)


@bench.command("intake")
@click.option("--rides", type=click.IntRange(min=50_000), default=400_000, show_default=True)
@click.option("--pairs", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each, in turn.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("build/bench-intake.json"),
    show_default=True,
)
def intake_command(rides: int, pairs: int, json_file: Path) -> None:
    """Measure the intake beside its floor: the same topic into the same tables, nothing decided or looked up."""
    _report(bench_intake(rides, pairs, Console(stderr=True)), json_file)


@bench.command("collection")
@click.option("--debits", type=click.IntRange(min=100), default=20_000, show_default=True)
@click.option("--pairs", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each, in turn.")
@click.option("--concurrency", type=click.IntRange(1, 1000), default=64, show_default=True, help="Calls under way.")
@click.option(
    "--answer-ms",
    "answers_ms",
    type=click.IntRange(0, 10_000),
    multiple=True,
    default=AT_ONCE_AND_AS_A_NETWORK,
    show_default=True,
    help="How long the simulator takes to answer; may be given several times.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("build/bench-collection.json"),
    show_default=True,
)
def collection_command(debits: int, pairs: int, concurrency: int, answers_ms: tuple[int, ...], json_file: Path) -> None:
    """Measure collection beside its floor: due debits to the simulator and into the ledger; the same calls alone."""
    _report(bench_collection(debits, pairs, concurrency, answers_ms, Console(stderr=True)), json_file)


@bench.command("claims")
@click.option("--settled", type=click.IntRange(min=1000), default=10_000_000, show_default=True, help="How full.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("build/bench-claims.json"),
    show_default=True,
)
def claims_command(settled: int, json_file: Path) -> None:
    """Measure how due debits are found beside 10 million settled ones.

    Takes a few minutes and up to 12 GB in the temporary directory, which are gone at the end.
    """
    _report(bench_claims(settled, Console(stderr=True)), json_file)


@bench.command("holds")
@click.option("--holds", type=click.IntRange(min=100), default=2_000, show_default=True)
@click.option("--rate", type=click.IntRange(1, 1000), default=25, show_default=True, help="Holds a second.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("build/bench-holds.json"),
    show_default=True,
)
def holds_command(holds: int, rate: int, json_file: Path) -> None:
    """Measure how long an app waits for a hold before the unlock, beside what its provider takes by itself."""
    _report(bench_holds(holds, rate, Console(stderr=True)), json_file)


@bench.command("rating")
@click.argument("plans", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--rides", type=click.IntRange(min=1000), default=200_000, show_default=True)
def rating_command(plans: tuple[Path, ...], rides: int) -> None:
    """Measure rate() alone, on GBFS PLANS or on some of our own: rides per second of one core, with their lines."""
    found = bench_rating.run(rides, plans)
    columns = ("plans", "rides/s", "once more", "nothing shared between equal rides")
    rows = [
        (
            found["tariffs"],
            f"{found['rides_per_s']:,}",
            f"{found['rides_per_s_warm']:,}",
            f"{found['rides_per_s_unshared']:,}",
        )
    ]
    report = Report(this_machine(), {"rides": f"{rides:,}"}, [Section("Rating", columns, rows)])
    show(report, Console(width=120))


def _report(measuring: Coroutine[Any, Any, Report], json_file: Path) -> None:
    """Measures, shows, writes; what the workbench can't do is one line and exit code 2."""
    try:
        report = asyncio.run(measuring)
    except LabError as error:
        click.echo(f"farebox bench: {error}", err=True)
        raise SystemExit(2) from error
    show(report, Console(width=120))
    write(report, json_file)
