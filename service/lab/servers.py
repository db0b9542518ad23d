"""The lab: one PostgreSQL and one Kafka, started together, gone together."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import msgspec
from rich.console import Console

from service.adapters.kafka_access import Brokers
from service.lab.kafka import Ports, start_kafka
from service.lab.postgres import UNSAFE, reachable_temp, start_postgres
from service.lab.processes import POLL_S, Children, LabError, free_ports, port_is_free

PREFIX = "farebox-lab-"
STOPPING_S = 20.0


@dataclass(frozen=True)
class Servers:
    """Where the two servers are."""

    database_url: str  # of a database that may be used to make others
    kafka_bootstrap: str

    @property
    def brokers(self) -> Brokers:
        """Kafka as clients are told of it."""
        return Brokers(self.kafka_bootstrap)

    async def create_database(self, name: str, *, template: str = "template1") -> str:
        """Make a database and return its URL. `template` is copied, file by file, and must have no connections."""
        copied = f"{_identifier(template)} STRATEGY file_copy"  # By way of the log it takes twice to six times as long.
        await self._administer(f"CREATE DATABASE {_identifier(name)} TEMPLATE {copied}")
        return urlsplit(self.database_url)._replace(path=f"/{name}").geturl()

    async def drop_database(self, name: str) -> None:
        """Drop a database and end the connections to it; nothing happens if there is none of that name."""
        await self._administer(f"DROP DATABASE IF EXISTS {_identifier(name)} WITH (FORCE)")

    async def _administer(self, statement: str) -> None:
        connection = await asyncpg.connect(self.database_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


class Identity(msgspec.Struct, frozen=True):
    """What stays the same when a lab with a directory of its own is started again."""

    password: str
    cluster_id: str
    postgres_port: int
    kafka_port: int
    controller_port: int


@asynccontextmanager
async def lab(
    dir: Path | None = None,
    *,
    fsync: bool = True,
    settings: Mapping[str, str] | None = None,
    database_url: str | None = None,
    kafka_bootstrap: str | None = None,
    console: Console | None = None,
) -> AsyncIterator[Servers]:
    """Both servers on free ports of 127.0.0.1, until the context is left.

    With `dir` the data stay there and the next lab on it goes on with them, at the same addresses if they are free.
    Without, everything goes, also when this process is killed. `fsync=False` gives up durability for speed. `settings`
    are PostgreSQL's. A server whose address is given is not started. LabError says what to do when one cannot be.
    """
    settings = {**({} if fsync else UNSAFE), **(settings or {})}
    console = console or Console(stderr=True)
    kept = dir is not None
    space, lock = await asyncio.to_thread(_lock_kept, dir) if dir else _lock_new(reachable_temp())
    try:
        async with Children(hold=[lock]) as children:
            known = _identity(space, kept=kept)
            ports = Ports(known.kafka_port, known.controller_port)

            async def postgres() -> str:
                home, port, password = space / "postgres", known.postgres_port, known.password
                return database_url or await start_postgres(
                    children, home, port=port, password=password, settings=settings, kept=kept
                )

            async def kafka() -> str:
                home, cluster_id = space / "kafka", known.cluster_id
                return kafka_bootstrap or await start_kafka(
                    children, home, ports=ports, cluster_id=cluster_id, kept=kept, console=console
                )

            yield Servers(*await _both(postgres(), kafka()))
    finally:
        if not kept:
            shutil.rmtree(space, ignore_errors=True)
        os.close(lock)


async def _both(first: Coroutine[Any, Any, str], second: Coroutine[Any, Any, str]) -> tuple[str, str]:
    """Both results; the first failure ends the other start, and comes out as it is."""
    try:
        async with asyncio.TaskGroup() as tasks:
            started = tasks.create_task(first), tasks.create_task(second)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return started[0].result(), started[1].result()


def _identity(space: Path, *, kept: bool) -> Identity:
    """What the lab in this directory was, or is from now on; a port that somebody else has taken is replaced."""
    kept_in = space / "lab.json"
    if kept_in.exists():
        known = msgspec.json.decode(kept_in.read_bytes(), type=Identity)
        if all(map(port_is_free, (known.postgres_port, known.kafka_port, known.controller_port))):
            return known
    else:
        # A cluster id is 16 bytes in base64; the first is fixed, since an id with a dash in front looks like an option.
        cluster_id = base64.urlsafe_b64encode(b"\x01" + secrets.token_bytes(15)).decode().rstrip("=")
        known = Identity(secrets.token_hex(16), cluster_id, 0, 0, 0)
    postgres_port, kafka_port, controller_port = free_ports(3)
    known = msgspec.structs.replace(
        known, postgres_port=postgres_port, kafka_port=kafka_port, controller_port=controller_port
    )
    if kept:
        kept_in.touch(mode=0o600)
        kept_in.write_bytes(msgspec.json.encode(known))
    return known


def _lock_kept(path: Path) -> tuple[Path, int]:
    """A directory that stays, made if need be, and the descriptor of its lock; the lab before may still be stopping."""
    try:
        if not path.exists():
            path.mkdir(parents=True)
            path.chmod(0o711)  # PostgreSQL's user passes through it.
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise LabError(f"{path} cannot be the lab's directory: {error.strerror}") from error
    deadline = time.monotonic() + STOPPING_S
    while not _locked(lock):
        if time.monotonic() > deadline:
            os.close(lock)
            raise LabError(f"another lab runs in {path}: stop it, or choose another directory")
        time.sleep(POLL_S)
    return path.resolve(), lock


def _lock_new(base: Path) -> tuple[Path, int]:
    """A new directory that goes, and the descriptor of its lock, which says that somebody still works in there."""
    _sweep(base)
    while True:  # Another lab's sweep may take the directory before it is locked.
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        path.chmod(0o711)
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            if _locked(lock) and path.exists():
                return path, lock
            os.close(lock)


def _sweep(base: Path) -> None:
    """Remove what labs have left behind that were killed together with their guards."""
    for path in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # Another user's, or another sweep was faster.
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            if path.stat().st_uid == os.geteuid() and _locked(lock):
                shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _identifier(name: str) -> str:
    """A quoted SQL name; ValueError for one that PostgreSQL would not keep as it is."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):
        raise ValueError(f"not a name for a database: {name!r}")
    return f'"{name}"'
