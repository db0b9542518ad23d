"""Child processes of the workbench: each under a guard, so that none outlives whoever started it.

A child runs in a group of its own and writes to a log file. It ends when it is stopped, when its `Children` are left,
and also when the starting process is interrupted, crashes or is killed with -9 (`guard.py` says how).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict, Unpack, cast

import msgspec

from service.lab.guard import Plan

GUARD = Path(__file__).with_name("guard.py")
POLL_S = 0.02
READY_S = 90.0  # Far more than a server needs: the machine may be busy.
# Below the range from which Linux and macOS take the ports of outgoing connections: none of those gets in the way.
PORTS = range(15_000, 32_000)


class LabError(Exception):
    """The workbench cannot do what was asked; the message says why and what to do about it."""


@dataclass(frozen=True)
class User:
    """Who a child runs as, by number."""

    uid: int
    gid: int


class Child:
    """A running process and its guard. `pid` is the process's own, for `kill -9` and the like; so is the exit code."""

    def __init__(self, name: str, pid: int, log: Path, guard: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.pid = pid
        self.log = log
        self._guard = guard

    @property
    def running(self) -> bool:
        return self._guard.poll() is None

    @property
    def returncode(self) -> int | None:
        """None while it runs; -N if signal N ended it."""
        return self._guard.poll()

    def send(self, number: int) -> None:
        """Send a signal to the process and its group; nothing happens when it has ended."""
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._guard.stdin.write(b"%d\n" % number)
            self._guard.stdin.flush()

    async def wait(self, timeout_s: float | None = None) -> int:
        """The exit code, once it has ended by itself; TimeoutError if it has not in time."""
        async with asyncio.timeout(timeout_s):
            while True:
                if not self.running:
                    break
                await asyncio.sleep(POLL_S)
        self._close()
        return self._guard.wait()

    async def kill(self) -> None:
        """End it with -9, and return when it is gone."""
        self.send(signal.SIGKILL)
        await self.wait()

    async def stop(self) -> int:
        """End it with its stop signal, after its grace with -9; the exit code once it is gone."""
        self._close()
        return await self.wait()

    def tail(self, lines: int = 8) -> str:
        """The end of its log, for an error message."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _close(self) -> None:
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.close()


class Options(TypedDict, total=False):
    """How a child runs; every one may be left out."""

    env: Mapping[str, str]  # Added to this process's environment.
    cwd: Path
    user: User
    stop_signal: int  # SIGTERM
    grace_s: float  # 10: from the stop signal to SIGKILL.
    remove: Path  # A directory that goes with the child.
    hold: Sequence[int]  # Descriptors (locks) that stay open until the child is gone.


def start(name: str, command: Sequence[str | Path], log: Path, **options: Unpack[Options]) -> Child:
    """Start a command under a guard; LabError if it cannot be started."""
    cwd, user, remove = options.get("cwd"), options.get("user"), options.get("remove")
    plan = Plan(
        command=[str(word) for word in command],
        log=str(log),
        cwd=str(cwd) if cwd else None,
        uid=user.uid if user else None,
        gid=user.gid if user else None,
        stop_signal=int(options.get("stop_signal", signal.SIGTERM)),
        grace_s=options.get("grace_s", 10.0),
        remove=str(remove) if remove else None,
    )
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", str(GUARD), msgspec.json.encode(plan).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **options.get("env", {})},
        pass_fds=tuple(options.get("hold", ())),
        start_new_session=True,
    )
    assert guard.stdin is not None and guard.stdout is not None
    with guard.stdout:
        answer = guard.stdout.readline().decode().strip()
    if answer.isdecimal():
        return Child(name, int(answer), log, guard)
    guard.stdin.close()
    guard.wait()
    raise LabError(f"{name} could not be started: {answer.removeprefix('! ') or 'its guard ended'}")


class Children:
    """Processes that end together: `async with Children() as children: children.start(...)`."""

    def __init__(self, **shared: Unpack[Options]) -> None:
        """`shared` holds for each of them, unless it is started with another."""
        self._shared = shared
        self._children: list[Child] = []

    def start(self, name: str, command: Sequence[str | Path], log: Path, **options: Unpack[Options]) -> Child:
        child = start(name, command, log, **cast(Options, {**self._shared, **options}))
        self._children.append(child)
        return child

    async def run(self, name: str, command: Sequence[str | Path], log: Path, **options: Unpack[Options]) -> None:
        """Run a command to its end; LabError with the end of its log if it fails."""
        child = self.start(name, command, log, **options)
        if await child.wait() != 0:
            raise LabError(f"{name} failed ({child.returncode}):\n{child.tail()}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(child.stop() for child in self._children))


async def wait_for_port(child: Child, port: int, *, timeout_s: float = 30.0) -> None:
    """Return when 127.0.0.1:`port` answers; LabError with the end of the log if the child ends first or is too slow."""
    deadline = time.monotonic() + timeout_s
    while True:
        _check(child, deadline, f"port {port}")
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
            return
        await asyncio.sleep(POLL_S)


async def wait_for_line(child: Child, text: str, *, timeout_s: float = 30.0) -> str:
    """The first whole line of the child's log with `text` in it; LabError as `wait_for_port`."""
    deadline = time.monotonic() + timeout_s
    while True:
        ended = not child.running  # Asked before the log is read: the last words of a child count.
        for line in child.log.read_text(errors="replace").splitlines(keepends=True):
            if text in line and line.endswith("\n"):
                return line.rstrip("\n")
        if ended:
            raise LabError(f"{child.name} ended ({child.returncode}) without {text!r}:\n{child.tail()}")
        _check(child, deadline, repr(text), may_end=True)
        await asyncio.sleep(POLL_S)


def free_ports(count: int) -> tuple[int, ...]:
    """Ports of 127.0.0.1 on which nothing listens now; nothing keeps them for the caller."""
    found: set[int] = set()
    while len(found) < count:
        port = random.SystemRandom().choice(PORTS)
        if port_is_free(port):
            found.add(port)
    return tuple(found)


def port_is_free(port: int) -> bool:
    """Whether nothing listens on a port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _check(child: Child, deadline: float, what: str, *, may_end: bool = False) -> None:
    if not child.running and not may_end:
        raise LabError(f"{child.name} ended ({child.returncode}) before {what} was there:\n{child.tail()}")
    if time.monotonic() > deadline:
        raise LabError(f"{child.name}: {what} was not there in time:\n{child.tail()}")
