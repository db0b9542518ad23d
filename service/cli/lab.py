"""`farebox lab`: the two servers for trying things."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import rich_click as click

from service.lab.processes import LabError
from service.lab.servers import lab


def register(group: click.Group) -> None:
    """Adds the lab."""
    group.add_command(lab_command)


@click.command("lab")
@click.option("--dir", "directory", type=click.Path(file_okay=False, path_type=Path), help="Keep the data here.")
def lab_command(directory: Path | None) -> None:
    """Start a real PostgreSQL and a real Kafka from packages, print their addresses, stay until Ctrl-C.

    The two lines on stdout are settings of the roles: FAREBOX_DATABASE_URL=… and FAREBOX_KAFKA_BOOTSTRAP=…
    """
    try:
        asyncio.run(_until_told(directory))
    except LabError as error:
        click.echo(f"farebox lab: {error}", err=True)
        raise SystemExit(2) from error


async def _until_told(directory: Path | None) -> None:
    """Run the lab; the first SIGINT or SIGTERM ends it, also while it starts."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def end() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: None)  # The servers are being stopped already.
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    try:
        async with lab(directory) as servers:
            click.echo(f"FAREBOX_DATABASE_URL={servers.database_url}")
            click.echo(f"FAREBOX_KAFKA_BOOTSTRAP={servers.kafka_bootstrap}")
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        return
