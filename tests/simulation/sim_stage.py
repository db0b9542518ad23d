"""The PostgreSQL of worlds: a server of their own, and in it a fresh database for each share of them.

What a world costs grows with what the worlds before it left in its database.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from sim_run import prepare
from sim_world import BEGINNING

from service.adapters.migrate import migrate
from service.lab.postgres import DATABASE, ROLE, UNSAFE, reachable_temp, start_postgres
from service.lab.processes import Children, free_ports
from service.lab.servers import Servers

SETTINGS = {
    **UNSAFE,
    "autovacuum": "off",
    "track_counts": "off",
    "track_activities": "off",
    "update_process_title": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "checkpoint_timeout": "1d",
}
"""No database lives long enough for what these would be good for."""


class Stage(NamedTuple):
    """Where worlds are played: the server's URL, and the database that is copied for them."""

    server_url: str
    template: str

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a database without worlds; it goes afterwards. Not within a running loop."""
        servers, name = Servers(self.server_url, ""), f"simulation_{secrets.token_hex(6)}"
        yield asyncio.run(servers.create_database(name, template=self.template))
        asyncio.run(servers.drop_database(name))


@asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    """On a server that goes with this process, or on FAREBOX_DATABASE_URL's."""
    async with _server() as servers:
        template = f"simulation_{secrets.token_hex(6)}"
        url = await servers.create_database(template)
        await migrate(url, BEGINNING)
        await prepare(url)
        yield Stage(servers.database_url, template)
        await servers.drop_database(template)


@asynccontextmanager
async def _server() -> AsyncIterator[Servers]:
    known = os.environ.get("FAREBOX_DATABASE_URL")
    if known:
        yield Servers(known, "")
        return
    with tempfile.TemporaryDirectory(prefix="farebox-simulation-", dir=reachable_temp()) as space:
        await asyncio.to_thread(Path(space).chmod, 0o711)  # PostgreSQL's user passes through it.
        async with Children() as children:
            [port] = free_ports(1)
            password, home = secrets.token_hex(16), Path(space) / "postgres"
            settings = SETTINGS | {"unix_socket_directories": str(home)}  # A third of a small statement is TCP's.
            await start_postgres(children, home, port=port, password=password, settings=settings, kept=False)
            yield Servers(f"postgresql://{ROLE}:{password}@/{DATABASE}?host={quote(str(home))}&port={port}", "")
