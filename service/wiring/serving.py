"""The role `serve`: the HTTP doors on granian, in this process or in several that share the port."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from litestar import Litestar

from service.adapters.migrate import check_version
from service.adapters.postgres import UNAVAILABLE, connect
from service.adapters.postgres.access import DatabaseAccessError
from service.settings import Settings
from service.telemetry import configure_logs, logger
from service.web.app import create_app
from service.web.doors import DOORS, Doors, DoorSettings
from service.wiring import AWAY, REFUSALS, STOPS, Process
from service.wiring.accounts import AccountWatch

LOG = logger("serving")
CONNECTIONS_MAX = 16_384
FILES_KEPT = 256
"""Open files that are no connections of callers: the pools', the providers', our own."""
DRAIN_SECONDS = 25
"""How long a process that is told to stop may go on, leaving included; then it ends all the same."""


async def run_serve(process: Process) -> None:
    """Serves until told to stop: then it is not ready, lets its clients go elsewhere for a while
    (`http_leave_seconds`, in which each answer closes its connection), takes no new connections, and finishes what is
    under way.

    Raises OSError at once when the port is in use, DatabaseAccessError where PostgreSQL does not let us in, and
    SchemaVersionError where it is not at this release's schema. It may be away: requests get a 503 until it is there.
    """
    settings = process.settings
    check_port(settings.http_host, settings.http_port)
    await _check_database(process)
    if settings.http_workers > 1:
        await _run_workers(process)
        return
    await _serve_here(process)


async def _check_database(process: Process) -> None:
    """One connection, to end at the start rather than at each request: refused, or at another schema."""
    try:
        connection = await connect(process.settings.database_url, name="serve")
        try:
            await check_version(connection)
        finally:
            await connection.close()
    except DatabaseAccessError:
        raise
    except UNAVAILABLE as error:
        process.health.away("PostgreSQL", DOORS, error)


async def _serve_here(process: Process) -> None:
    settings = process.settings
    doors = Doors(door_settings(settings))
    doors.health = process.health
    watch = AccountWatch(doors.providers, process.health)
    doors.watch = watch
    await doors.open()
    refreshing = asyncio.create_task(doors.keep_fresh())
    watching = asyncio.create_task(watch.run(process, lambda: doors.accounts))
    stopping = asyncio.create_task(process.stopping.wait())
    try:
        drain_seconds = DRAIN_SECONDS - settings.http_leave_seconds
        async with listening(create_app(doors), settings.http_host, settings.http_port, drain_seconds):
            LOG.info("listening", host=settings.http_host, port=settings.http_port)
            await asyncio.wait([refreshing, watching, stopping], return_when=asyncio.FIRST_COMPLETED)
            for lasting in (refreshing, watching):
                if lasting.done():
                    lasting.result()
            await asyncio.sleep(settings.http_leave_seconds)
    finally:
        for task in (refreshing, watching, stopping):
            task.cancel()
        await doors.close()


def door_settings(settings: Settings) -> DoorSettings:
    """What the doors need of the settings."""
    return DoorSettings(
        database_url=settings.database_url,
        tariff_lead=timedelta(seconds=settings.tariff_lead_seconds),
        sandbox=settings.sandbox,
        rate=settings.http_token_rate,
        rider_rate=settings.http_rider_rate,
    )


@asynccontextmanager
async def listening(app: Litestar, host: str, port: int, drain_seconds: float = DRAIN_SECONDS) -> AsyncIterator[None]:
    """Serves the application in this process's loop; leaving it finishes the requests under way, in so many seconds."""
    server = Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=30_000),
        websockets=False,
        backlog=1024,
        backpressure=_connections_max(),
        log_enabled=False,
    )
    logging.getLogger("_granian").setLevel(logging.ERROR)
    serving = asyncio.create_task(server.serve())
    try:
        await _accepting(host, port, serving)
        yield
    finally:
        server.stop()  # type: ignore[no-untyped-call]  # Granian says no types here.
        with suppress(TimeoutError):
            await asyncio.wait_for(serving, drain_seconds)


def _connections_max() -> int:
    """How many connections may be open at once: as many as there may be files, once we have asked for as many as we are
    allowed. An idle one, or one whose head does not end, is closed after 30 s, and keeps others out until then only
    where all are taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + FILES_KEPT
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return CONNECTIONS_MAX if soft == resource.RLIM_INFINITY else max(1, min(CONNECTIONS_MAX, soft - FILES_KEPT))


def check_port(host: str, port: int) -> None:
    """Raises OSError when somebody listens there: granian itself would share the port with him."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


async def _accepting(host: str, port: int, serving: asyncio.Task[None]) -> None:
    """Waits until the server accepts; raises what stopped it before."""
    where = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  A comparison, nothing listens.
    while not serving.done():
        with suppress(OSError):
            _, writer = await asyncio.open_connection(where, port)
            writer.close()
            return
        await asyncio.sleep(0.01)
    serving.result()


async def _run_workers(process: Process) -> None:
    """Several processes that share the port; when one ends by itself all do, and whoever watches starts them anew."""
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_work, args=(process.settings,), name=f"serve-{number}")
        for number in range(process.settings.http_workers)
    ]
    for worker in workers:
        worker.start()
    process.health.ready()
    while not process.stopping.is_set() and all(worker.is_alive() for worker in workers):
        await process.pause(0.2)
    failed = not process.stopping.is_set()
    for worker in workers:
        worker.terminate()
    for worker in workers:
        await asyncio.to_thread(worker.join, DRAIN_SECONDS + 5)
        if worker.is_alive():
            worker.kill()
    if failed:
        await _check_database(process)  # Which may be why, and says what to do.
        raise RuntimeError("a serving process ended by itself; see its log")


def _work(settings: Settings) -> None:
    """One of several serving processes."""
    configure_logs(settings.log_level, "serve", AWAY)
    process = Process("serve", settings)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, process.stop)
        await _serve_here(process)

    try:
        uvloop.run(main())
    except (*STOPS, *REFUSALS) as error:
        LOG.error("a serving process ends", error=str(error))
        sys.exit(2)
