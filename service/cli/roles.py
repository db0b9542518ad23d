"""The roles: `migrate`, `intake`, `publish` … and `all`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

import asyncpg
import rich_click as click

from service.adapters.migrate import MigrationError, SchemaVersionError, ServiceRoleError
from service.adapters.migrate import migrate as run_migrations
from service.adapters.postgres.access import DatabaseAccessError
from service.cli.connections import AWAY, Ended, away, fail, load_settings
from service.flows.intake.watchdog import StalledError
from service.settings import Settings, settings_table
from service.telemetry import configure_logs
from service.wiring import REFUSALS, STOPS, Process, run_collect, run_intake, run_keep, run_publish


async def run_serve(process: Process) -> None:
    """The role `serve`: the HTTP doors."""
    from service.wiring.serving import run_serve as serve  # noqa: PLC0415  Only this role loads the web.

    await serve(process)


ROLES: dict[str, tuple[Callable[[Process], Awaitable[None]], str]] = {
    "intake": (run_intake, "Ride events become charges."),
    "collect": (run_collect, "What is owed becomes debits on pay-later agreements."),
    "publish": (run_publish, "Committed facts go to Kafka."),
    "keep": (run_keep, "Lost ends, parked rides, partitions ahead, what is done with."),
    "serve": (run_serve, "HTTP: status, quotes, tariffs, agreements, holds, corrections, quarantine."),
}
ALL = tuple(ROLES)


def register(group: click.Group) -> None:
    """Adds the roles' commands."""
    for name, (work, text) in ROLES.items():
        group.add_command(_role(name, work, text))
    for command in (migrate, run_all, settings):
        group.add_command(command)


def _role(name: str, work: Callable[[Process], Awaitable[None]], text: str) -> click.Command:
    @click.command(name, help=text)
    @click.option("--last-words", type=int, hidden=True, help="A pipe for the line that says why the role ends.")
    def command(last_words: int | None) -> None:
        try:
            configured = load_settings()
            configure_logs(configured.log_level, name, AWAY)
            run(name, configured, work)
        except Ended as ended:
            if last_words is not None:
                os.write(last_words, ended.message.encode())
            raise

    return command


def run(name: str, configured: Settings, work: Callable[[Process], Awaitable[None]]) -> None:
    """Runs a role until it is told to stop; what stops it by itself is one line and exit code 2, a stall 1: a fresh
    process cures that."""
    import uvloop  # noqa: PLC0415  Not on every platform.

    async def main() -> None:
        await Process(name, configured).run(work)

    try:
        uvloop.run(main())
    except StalledError as error:
        fail(f"{name} ends: {error}", 1)
    except (*STOPS, *REFUSALS) as error:
        fail(f"{name} stops: {error}")
    except OSError as error:
        ports = f"FAREBOX_HTTP_PORT is {configured.http_port}, FAREBOX_HEALTH_PORT {configured.health_port}"
        fail(f"{name}: {error.strerror or error} (is another process using the port? {ports})")


@click.command()
@click.option(
    "--service-role", metavar="ROLE", help="Give this database role, which owns no table, what the roles need."
)
def migrate(service_role: str | None) -> None:
    """Brings the database to this release's schema; safe to run again."""
    configured = load_settings()
    try:
        version = asyncio.run(
            run_migrations(
                configured.database_url,
                datetime.now(UTC),
                time_zone=configured.time_zone,
                currency=configured.currency,
                service_role=service_role,
            )
        )
    except (MigrationError, SchemaVersionError, ServiceRoleError, DatabaseAccessError) as error:
        fail(str(error))
    except AWAY as error:
        fail(away(error))
    except asyncpg.PostgresError as error:
        fail(f"PostgreSQL refuses: {error}")
    click.echo(f"database at schema {version}")


@click.command("all")
def run_all() -> None:
    """Every role, each a process of its own, until told to stop; ends when one of them does.

    With FAREBOX_HEALTH_PORT set, the roles' probes listen on that port and the ones after it, in alphabetical order.
    """
    health = load_settings().health_port
    children = [_Child(name, health and health + place) for place, name in enumerate(sorted(ALL))]
    told = False

    def stop(*_: object) -> None:
        nonlocal told
        told = True
        for child in children:
            child.process.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    first = _first_end(children)
    if not told:
        click.echo(f"farebox: {first.name} ended with {first.code}; stopping the others", err=True)
        stop()
    for child in children:
        child.process.wait()
    failed = next((child for child in (first, *children) if child.code), None)
    if failed is not None:
        fail(failed.last_words() or f"{failed.name} ended with {failed.code}: see its log above", failed.code)


class _Child:
    """A role as a process, and the pipe by which it says why it ended."""

    def __init__(self, name: str, health_port: int) -> None:
        self.name = name
        self._words, write = os.pipe()
        os.set_blocking(self._words, False)
        self.process = subprocess.Popen(  # noqa: S603  Our own roles, by fixed names.
            [sys.executable, "-m", "service", name, "--last-words", str(write)],
            env=os.environ | ({"FAREBOX_HEALTH_PORT": str(health_port)} if health_port else {}),
            pass_fds=[write],
        )
        os.close(write)

    @property
    def code(self) -> int:
        """The exit code as a shell has it; 0 for one that was told to stop before it could listen to that."""
        code = self.process.returncode or 0
        return 0 if code == -signal.SIGTERM else code if code >= 0 else 128 - code

    def last_words(self) -> str:
        """Why it ended; nothing where it was killed or ended by a bug."""
        with suppress(BlockingIOError):
            return os.read(self._words, 65_536).decode()
        return ""


def _first_end(children: list[_Child]) -> _Child:
    """Waits for the first role that ends."""
    while True:
        for child in children:
            if child.process.poll() is not None:
                return child
        time.sleep(0.2)


@click.command()
def settings() -> None:
    """Every setting: its name, what it means, its default."""
    for variable, meaning, default in settings_table():
        click.echo(f"{variable:<34} {meaning} [{default}]")
