"""Both servers away: what a role says of it, that it goes on afterwards, and that it ends when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from installation import Installation, Running

from service.adapters.migrate import migrate
from service.cli.roles import ALL
from service.lab.postgres import reachable_temp
from service.lab.processes import free_ports
from service.lab.servers import lab

LINES_MAX = 40
"""What a role may say over two outages; before there was a limit it was some hundred a second."""

AWAY, BACK = "a server is away: waiting for it", "a server is back"


class Roles:
    """Every role on an installation of its own, whose servers can be stopped."""

    def __init__(self, installation: Installation, logs: Path) -> None:
        self.installation = installation
        self.processes: dict[str, Running] = {}
        self._logs = logs
        self._ports = dict(zip(ALL, free_ports(len(ALL)), strict=True))

    async def start(self) -> None:
        """Starts them."""
        for role in ALL:
            variable = "FAREBOX_HTTP_PORT" if role == "serve" else "FAREBOX_HEALTH_PORT"
            self.processes[role] = await self.installation.role(role, **{variable: str(self._ports[role])})

    async def all_are(self, status: int, *roles: str) -> None:
        """Waits until these roles answer /readyz so, none having ended."""
        for role in roles:
            await self.installation.until(partial(self._is, role, status), f"{role} {status}")

    async def _is(self, role: str, status: int) -> bool:
        assert self.processes[role].returncode is None, self.installation.logs()
        url = f"http://127.0.0.1:{self._ports[role]}/readyz"
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                return answer.status == status
        except aiohttp.ClientConnectionError:
            return False

    async def end(self) -> dict[str, int]:
        """Tells all to stop; their exit codes, by role."""
        for process in self.processes.values():
            process.terminate()
        async with asyncio.timeout(60):
            codes = await asyncio.gather(*(process.wait() for process in self.processes.values()))
        return dict(zip(self.processes, codes, strict=True))

    def said(self, role: str) -> list[dict[str, Any]]:
        """The lines of a role's log; each has to be a JSON object."""
        file = self._logs / f"{self.installation.group}-{list(self.processes).index(role)}.log"
        return [msgspec.json.decode(line, type=dict[str, Any]) for line in file.read_bytes().splitlines()]


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that PostgreSQL's user may enter."""
    with tempfile.TemporaryDirectory(dir=reachable_temp()) as made:
        Path(made).chmod(0o711)
        yield Path(made) / "lab"


@contextlib.asynccontextmanager
async def running(home: Path, logs: Path, stack: contextlib.AsyncExitStack) -> AsyncIterator[Roles]:
    """The roles at work on servers that belong to `stack`: they are stopped when it is closed."""
    servers = await stack.enter_async_context(lab(home, fsync=False))
    url = await servers.create_database("outage")
    await migrate(url, datetime.now(UTC))
    installation = Installation("outage", servers, url, logs)
    await installation.open()
    roles = Roles(installation, logs)
    try:
        await roles.start()
        await roles.all_are(200, *ALL)
        yield roles
    finally:
        await installation.close()


async def test_every_role_outlives_an_outage_says_so_in_a_few_json_lines_and_stops_in_the_next_one(
    home: Path, tmp_path: Path
) -> None:
    stack = contextlib.AsyncExitStack()
    async with running(home, tmp_path, stack) as roles:
        await stack.aclose()
        await roles.all_are(503, *ALL)
        async with lab(home, fsync=False):
            await roles.all_are(200, *ALL)
        await roles.all_are(503, *ALL)
        assert await roles.end() == dict.fromkeys(ALL, 0)
    for role in ALL:
        lines = roles.said(role)
        assert len(lines) <= LINES_MAX, lines
        assert not [line for line in lines if "exception" in line]
        assert {line["role"] for line in lines} == {role}
        assert "role ends" in [line["event"] for line in lines[-2:]]
        told = [(line["server"], line["event"]) for line in lines if line["component"] == "health"]
        for server in {server for server, _ in told}:
            events = [event for about, event in told if about == server]
            assert events == [AWAY, BACK, AWAY][: len(events)]  # What the intake misses first is the luck of the draw.
        assert BACK in [event for _, event in told]
        assert role == "intake" or told == [("PostgreSQL", AWAY), ("PostgreSQL", BACK), ("PostgreSQL", AWAY)]
