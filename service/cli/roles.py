"""The roles: `migrate`, `intake`, `publish` … and `all`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import asyncpg
import rich_click as click

from service.adapters.migrate import ServiceRoleError
from service.adapters.migrate import migrate as run_migrations
from service.adapters.postgres.access import DatabaseAccessError
from service.cli.connections import AWAY, away, fail, load_settings
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
    def command() -> None:
        configured = load_settings()
        configure_logs(configured.log_level, name)
        run(name, configured, work)

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
        click.echo(f"farebox: {name} ends: {error}", err=True)
        sys.exit(1)
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
    except (ServiceRoleError, DatabaseAccessError) as error:
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
    children = {}
    for place, name in enumerate(sorted(ALL)):
        own = {"FAREBOX_HEALTH_PORT": str(health + place)} if health else {}
        command = [sys.executable, "-m", "service", name]
        children[name] = subprocess.Popen(command, env=os.environ | own)  # noqa: S603  Our own roles, by fixed names.

    def stop(*_: object) -> None:
        for child in children.values():
            child.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    code = _first_end(children)
    stop()
    for child in children.values():
        child.wait()
    sys.exit(code)


def _first_end(children: dict[str, subprocess.Popen[bytes]]) -> int:
    """Waits for the first role that ends, and tells how."""
    while True:
        for name, child in children.items():
            code = child.poll()
            if code is not None:
                if code:
                    click.echo(f"farebox: {name} ended with {code}; stopping the others", err=True)
                return code
        time.sleep(0.2)


@click.command()
def settings() -> None:
    """Every setting: its name, what it means, its default."""
    for variable, meaning, default in settings_table():
        click.echo(f"{variable:<34} {meaning} [{default}]")
