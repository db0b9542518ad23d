"""`farebox validate` and `farebox schemas`: for those who write events, and for those who change their shapes."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import msgspec
import rich_click as click
from rich.console import Console
from rich.progress import open as open_with_progress

from service.billing.events import Malformed, RideEvent, Skipped, decode
from service.billing.events.exports import record_of_line
from service.billing.events.strict_json import MalformedEventError
from service.cli.connections import fail
from service.cli.plain import say


def register(group: click.Group) -> None:
    """Adds the commands of this file."""
    group.add_command(validate_command)
    group.add_command(schemas_command)


@click.command("validate")
@click.argument("file", metavar="FILE|-")
def validate_command(file: str) -> None:
    """Say which lines of FILE are not events that Farebox can read, and why.

    Each line is a CloudEvent in JSON (structured mode), or a record as consumers export it:
    {"key": "…", "headers": {"ce_type": "…"}, "value": {…}}, where `headers` may be a list of pairs and `value` the
    record's text. A bare CloudEvent is taken to have its session id as Kafka key. Types that are not Farebox's are
    skipped.

    The last line is `N valid, N invalid, N skipped`; the exit code is 1 if any line is invalid, 2 if FILE can't be
    read.
    """
    counts: Counter[type] = Counter()
    try:
        with _lines(file) as lines:
            for number, answer in _answers(_one_document(lines)):
                counts[type(answer)] += 1
                if isinstance(answer, Malformed):
                    say(f"line {number}: {answer.path}: {answer.reason}")
                elif isinstance(answer, Skipped):
                    click.echo(f"line {number}: skipped, {answer.type!r} is no event of a ride")
    except OSError as error:
        fail(f"{file} can't be read: {error.strerror}; give a file with one JSON object on a line, or - for stdin")
    click.echo(f"{counts[RideEvent]} valid, {counts[Malformed]} invalid, {counts[Skipped]} skipped")
    sys.exit(1 if counts[Malformed] else 0)


@click.command("schemas")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if a file differs from the code.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("schemas"),
    show_default=True,
    help="Where the schemas are.",
)
def schemas_command(check: bool, directory: Path) -> None:
    """Write the JSON Schemas and asyncapi.yaml from the code, or check that they are in step."""
    from service.lab.schemas import PRODUCERS, differing, json_text, write_schemas  # noqa: PLC0415  Only this command
    from service.web.app import openapi_document  # noqa: PLC0415  loads them.

    producers = {**PRODUCERS, "openapi.json": lambda: json_text(openapi_document)}
    if not check:
        changed = write_schemas(directory, producers)
        click.echo(f"{len(producers)} files in {directory}, {len(changed)} changed")
        return
    wrong = differing(directory, producers)
    for path in wrong:
        click.echo(f"{directory / path} differs from the code: run `farebox schemas`")
    sys.exit(1 if wrong else 0)


def _one_document(lines: BinaryIO) -> Iterable[bytes]:
    """The lines; or all of them as one, where the first is only the beginning of an object written over several."""
    first = lines.readline()
    if first.strip() in (b"{", b"["):
        whole = first + lines.read()
        try:
            return [msgspec.json.encode(msgspec.json.decode(whole))]
        except msgspec.DecodeError:
            return whole.splitlines()
    return itertools.chain([first], lines)


def _answers(lines: Iterable[bytes]) -> Iterable[tuple[int, RideEvent | Malformed | Skipped]]:
    """What each line that is not blank decodes to, with its number."""
    for number, line in enumerate(lines, 1):
        if line := line.strip():
            try:
                yield number, decode(record_of_line(line))
            except MalformedEventError as error:
                yield number, Malformed(error.reason, error.path)


def _lines(file: str) -> AbstractContextManager[BinaryIO]:
    """The file, or stdin for `-`; with a progress bar where somebody is looking."""
    if file == "-":
        return click.open_file("-", "rb")  # type: ignore[return-value]  # Opened in binary mode.
    console = Console(stderr=True)
    return open_with_progress(
        file, "rb", description="Validating", console=console, disable=not console.is_terminal, transient=True
    )
