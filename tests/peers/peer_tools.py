"""The simulator with an Alipay merchant, and Node's clients installed from their lock."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from service.lab.provider.server import Plan, simulator

HERE = Path(__file__).parent / "node"
INSTALLED = Path(__file__).parents[2] / ".lab" / "peers"
NODE_MIN = 18
INSTALL_S = 300


@asynccontextmanager
async def workbench() -> AsyncIterator[Workbench]:
    """A simulator, and the doors of its workbench."""
    async with simulator(Plan()) as url, aiohttp.ClientSession() as session:
        yield Workbench(url, session)


class Workbench:
    """What is not the merchant's: accounts, riders, books."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        data = body.encode() if isinstance(body, str) else msgspec.json.encode(body)
        async with self._session.request(method, self.url + path, data=data) as answer:
            text = await answer.text()
            assert answer.status == 200, text
            return msgspec.json.decode(text)

    async def file(self, url: str) -> bytes:
        """What lies at an address that an answer named."""
        async with self._session.get(url) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.read()


async def node_clients() -> tuple[str, Path]:
    """Node, and the folder with the clients of the lock; the test is skipped where one can't be had."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node and npm are not on the PATH: the clients written for Node are not tried")
    version = (await run(node, "--version"))[1].strip()
    if int(version.removeprefix("v").partition(".")[0]) < NODE_MIN:
        pytest.skip(f"Node {version} is older than {NODE_MIN}: the clients written for Node are not tried")
    lock = (HERE / "package-lock.json").read_bytes()
    folder = INSTALLED / sha256(lock).hexdigest()[:16]
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder / name)
        code, said = await run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)
        if code:
            pytest.skip(f"npm could not install the clients of tests/peers/node: {said.strip()[-300:]}")
        (folder / "installed").touch()
    for script in HERE.glob("*.mjs"):
        shutil.copy(script, folder / script.name)
    return node, folder


async def run(*command: str, cwd: Path | None = None, told: bytes = b"") -> tuple[int, str]:
    """A process to its end: its exit status and everything it printed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(INSTALL_S):
        said, _ = await process.communicate(told)
    assert process.returncode is not None
    return process.returncode, said.decode()
