"""Children of the workbench: started, watched, and gone with whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from service.lab.processes import Child, Children, LabError, free_ports, port_is_free, wait_for_line, wait_for_port

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
)
PATIENT = "import time; print('here', flush=True); time.sleep(600)"


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


def gone(pid: int) -> bool:
    """The process is not there, or ends in a moment."""
    if not psutil.pid_exists(pid):
        return True
    _, alive = psutil.wait_procs([psutil.Process(pid)], timeout=10)
    return not alive


@pytest.fixture
async def children() -> AsyncIterator[Children]:
    async with Children() as children:
        yield children


@pytest.fixture
async def patient(children: Children, tmp_path: Path) -> Child:
    child = children.start("patient", python(PATIENT), tmp_path / "log")
    await wait_for_line(child, "here")
    return child


@pytest.mark.parametrize("code", [0, 3])
async def test_a_child_that_ends_gives_its_exit_code(children: Children, tmp_path: Path, code: int) -> None:
    child = children.start("ending", python(f"raise SystemExit({code})"), tmp_path / "log")
    assert await child.wait(10) == code
    assert not child.running


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_child_ended_by_a_signal_tells_which(patient: Child, number: int) -> None:
    patient.send(number)
    assert await patient.wait(10) == -number


async def test_a_child_has_the_pid_that_is_told(patient: Child) -> None:
    os.kill(patient.pid, signal.SIGKILL)
    assert await patient.wait(10) == -signal.SIGKILL


async def test_a_child_that_ignores_its_stop_signal_is_killed_after_its_grace(
    children: Children, tmp_path: Path
) -> None:
    child = children.start("deaf", python(STUBBORN), tmp_path / "log", grace_s=0.1)
    await wait_for_line(child, "deaf")
    assert await child.stop() == -signal.SIGKILL


async def test_a_stopped_child_takes_its_directory_along(children: Children, tmp_path: Path) -> None:
    (tmp_path / "space" / "own").mkdir(parents=True)
    child = children.start("guest", python(PATIENT), tmp_path / "log", remove=tmp_path / "space" / "own")
    await child.stop()
    assert not (tmp_path / "space").exists()


async def test_leaving_the_children_ends_them_all(tmp_path: Path) -> None:
    async with Children() as children:
        pids = [children.start(name, python(PATIENT), tmp_path / name).pid for name in ("one", "two")]
    assert not any(map(psutil.pid_exists, pids))


async def test_a_command_that_is_not_there_is_told(children: Children, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"nowhere could not be started: .*no-such-command"):
        children.start("nowhere", ["no-such-command"], tmp_path / "log")


async def test_a_child_gets_the_environment_it_is_given(children: Children, tmp_path: Path) -> None:
    code = "import os; print('MOOD is', os.environ['MOOD'])"
    child = children.start("moody", python(code), tmp_path / "log", env={"MOOD": "fine"})
    assert await wait_for_line(child, "MOOD") == "MOOD is fine"


async def test_waiting_for_a_port_ends_when_somebody_listens(children: Children, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    code = f"import socket; s = socket.create_server(('127.0.0.1', {port}))\nwhile True: s.accept()"
    child = children.start("listener", python(code), tmp_path / "log")
    await wait_for_port(child, port)
    assert not port_is_free(port)


async def test_waiting_for_a_child_that_has_ended_tells_its_last_words(children: Children, tmp_path: Path) -> None:
    child = children.start("ending", python("raise SystemExit('out of luck')"), tmp_path / "log")
    with pytest.raises(LabError, match="out of luck"):
        await wait_for_line(child, "never")
    with pytest.raises(LabError, match="out of luck"):
        await wait_for_port(child, 1)


def test_ports_given_together_differ() -> None:
    assert len(set(free_ports(50))) == 50


STARTER = """
import asyncio, sys
from pathlib import Path
from service.lab.processes import start
child = start("orphan", sys.argv[2:], Path(sys.argv[1]))
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_child_outlives_its_starter(tmp_path: Path, how: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path / "log"), *python(PATIENT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert psutil.pid_exists(pid)
        os.killpg(starter.pid, how)
    assert gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_no_child_outlives_its_guard(patient: Child) -> None:
    guard = psutil.Process(patient.pid).parent()
    assert guard is not None
    guard.kill()
    assert gone(patient.pid)
