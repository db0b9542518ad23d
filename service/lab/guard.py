"""The guard of one child process: what it started never outlives the process that asked for it.

Run by path with the standard library alone: ``python -I -S guard.py PLAN``, PLAN being a `Plan` as JSON. A guard lives
in a session of its own, so that Ctrl-C in the terminal or a `kill -9` of its starter's whole group does not reach it.

stdin   signal numbers, one per line, sent on to the child's group; the end of the file says that the starter is gone,
        or wants the child gone: it gets its stop signal, then, after the grace, SIGKILL
stdout  one line: the child's pid, or `! ` and why it could not be started
end     when the child has ended: with its exit code, or by the same signal
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


class Plan(TypedDict):
    """What to start and how to end it."""

    command: list[str]
    log: str  # The child's stdout and stderr are appended to this file.
    cwd: str | None
    uid: int | None  # None: the starter's own user.
    gid: int | None
    stop_signal: int
    grace_s: float
    remove: str | None  # A directory that goes when the child is gone, and the one above it if that is empty then.


def main() -> None:
    """Starts the command of the plan in `argv`, and ends it when whoever asked is gone."""
    plan: Plan = json.loads(sys.argv[1])
    wake = wake_up_on_signals()
    starter = os.getppid()
    try:
        child = start(plan)
    except OSError as error:
        print("!", error, flush=True)
        remove(plan)
        sys.exit(127)
    with contextlib.suppress(BrokenPipeError):  # A starter that is gone already is found out below.
        print(child.pid, flush=True)
    if not ended_by_itself(child, wake, starter):
        stop(child, plan)
    send(child.pid, signal.SIGKILL)  # Whatever the child left in its group.
    remove(plan)
    end_like(child.wait())


def start(plan: Plan) -> subprocess.Popen[bytes]:
    """The plan's command in a group of its own, as its user, writing to its log; raises OSError."""
    as_user: dict[str, Any] = {}
    if plan["uid"] is not None:
        as_user = {"user": plan["uid"], "group": plan["gid"], "extra_groups": []}
    with Path(plan["log"]).open("ab") as log:
        return subprocess.Popen(
            plan["command"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=plan["cwd"],
            start_new_session=True,
            preexec_fn=die_with_the_guard(),  # noqa: PLW1509  The guard has one thread: no lock is held at the fork.
            **as_user,
        )


def die_with_the_guard() -> Callable[[], object] | None:
    """Linux ends the child even when the guard itself is killed with -9; elsewhere nothing does."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG.


def wake_up_on_signals() -> int:
    """A descriptor that gets a byte, its number, for each signal: `select` then sees the end of the child."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    for number in {signal.SIGCHLD, *ENDING}:
        signal.signal(number, lambda *_: None)
    return read


def ended_by_itself(child: subprocess.Popen[bytes], wake: int, starter: int) -> bool:
    """Pass signals on until the child has ended (true) or has to be stopped (false)."""
    while child.poll() is None:
        # A forked copy of the starter may hold the pipe open after it: so the guard asks for its parent, too.
        ready, _, _ = select.select([0, wake], [], [], 1.0)
        if os.getppid() != starter or (wake in ready and not ENDING.isdisjoint(os.read(wake, 4096))):
            return False
        if 0 in ready:
            orders = os.read(0, 4096)
            for order in orders.split():
                send(child.pid, int(order))
            if not orders:
                return False
    return True


def stop(child: subprocess.Popen[bytes], plan: Plan) -> None:
    """Ends the child with its stop signal, after its grace with SIGKILL."""
    send(child.pid, plan["stop_signal"])
    try:
        child.wait(plan["grace_s"])
    except subprocess.TimeoutExpired:
        send(child.pid, signal.SIGKILL)
        child.wait()


def send(group: int, number: int) -> None:
    """Sends a signal to a group; nothing happens when it has ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says EPERM for a group of zombies.
        os.killpg(group, number)


def remove(plan: Plan) -> None:
    """Removes the directory that goes with the child."""
    if plan["remove"]:
        shutil.rmtree(plan["remove"], ignore_errors=True)
        with contextlib.suppress(OSError):  # Another guard still works in there.
            Path(plan["remove"]).parent.rmdir()


def end_like(returncode: int) -> None:
    """Ends this process as the child ended: with its exit code, or by its signal."""
    if returncode >= 0:
        sys.exit(returncode)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if -returncode not in {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(-returncode, signal.SIG_DFL)
    os.kill(os.getpid(), -returncode)


if __name__ == "__main__":
    main()
