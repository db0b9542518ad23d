"""What every bench needs: where it ran, how long things took, and the report."""

from __future__ import annotations

import io
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from service.adapters.postgres import Connection

PACKAGE = Path(__file__).parents[1]


class Machine(msgspec.Struct, frozen=True):
    """Where and with what the figures were measured."""

    date: str
    system: str
    processors: int
    memory_gb: float
    python: str
    commit: str


class Spread(msgspec.Struct, frozen=True):
    """A cost over several batches, in microseconds per row (or per key, or per call)."""

    median: float
    mean: float
    p90: float

    def __str__(self) -> str:
        return f"{self.median:.1f} ({self.mean:.1f}, {self.p90:.1f})"


class Section(msgspec.Struct, frozen=True):
    """A table of the report; cells that are a Spread are printed as `median (mean, 90th percentile)`."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


class Report(msgspec.Struct, frozen=True):
    """What a bench found: where it ran, with what settings, table by table."""

    machine: Machine
    settings: dict[str, str]
    sections: list[Section]


class Copied(msgspec.Struct, frozen=True):
    """One batch brought in by COPY in a transaction of its own."""

    copy_s: float
    commit_s: float
    wal_bytes: int


COPIED_COLUMNS = ("COPY", "COMMIT", "WAL bytes")


def this_machine() -> Machine:
    """This machine, today, at this commit."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Machine(
        date=datetime.now(UTC).date().isoformat(),
        system=_system(),
        processors=os.cpu_count() or 1,
        memory_gb=round(pages * page_bytes / 2**30, 1),
        python=platform.python_version(),
        commit=_commit(),
    )


async def timed(step: Callable[[], Awaitable[object]]) -> float:
    """The seconds that a step took."""
    began = time.perf_counter()
    await step()
    return time.perf_counter() - began


def spread(seconds: Sequence[float], size: int) -> Spread:
    """The cost of one of the `size` things that each of the measured steps did."""
    costs = sorted(1e6 * step / size for step in seconds)
    return Spread(statistics.median(costs), statistics.fmean(costs), costs[int(0.9 * (len(costs) - 1))])


async def copied(connection: Connection, table: str, columns: Sequence[str], rows: bytes) -> Copied:
    """COPY rows in text format, which were made before: without Python's part of the cost."""
    wal_from = await connection.fetchval("SELECT pg_current_wal_insert_lsn()")
    transaction = connection.transaction()
    await transaction.start()
    copy = partial(connection.copy_to_table, table, source=io.BytesIO(rows), columns=columns)
    copy_s, commit_s = await timed(copy), await timed(transaction.commit)
    wal_bytes = await connection.fetchval("SELECT pg_current_wal_insert_lsn() - $1::pg_lsn", wal_from)
    return Copied(copy_s, commit_s, int(wal_bytes))


def copied_cells(batches: Sequence[Copied], size: int) -> tuple[Spread, Spread, int]:
    """Per row of batches of `size`: COPY, COMMIT, and the WAL that was written (`COPIED_COLUMNS`)."""
    copy = spread([batch.copy_s for batch in batches], size)
    commit = spread([batch.commit_s for batch in batches], size)
    return copy, commit, sum(batch.wal_bytes for batch in batches) // (len(batches) * size)


def show(report: Report, console: Console) -> None:
    """Prints a report."""
    machine = report.machine
    console.print(
        f"{machine.date} · {machine.system} · {machine.processors} processors, {machine.memory_gb} GB"
        f" · Python {machine.python} · commit {machine.commit}"
    )
    console.print(" · ".join(f"{name} {value}" for name, value in report.settings.items()))
    for section in report.sections:
        table = Table(*section.columns, title=section.title, title_justify="left")
        for row in section.rows:
            table.add_row(*(_cell(cell) for cell in row))
        console.print(table)


def write(report: Report, path: Path) -> None:
    """Write the report as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}" if isinstance(value, float) else str(value)


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return f"{platform.system()} {platform.release()}"


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    command = [git, "-C", str(PACKAGE), "rev-parse", "--short", "HEAD"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"
