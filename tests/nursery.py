"""`farebox` commands that are born with everything loaded.

A command loads for a second and works for a fraction of it. The nursery has loaded once what commands need and forks
for each that is asked for: a process like any other, with arguments, environment, directory and standard streams of
its own; only the list of processes shows the nursery's command line. Run as a script this file is the nursery;
`newborn.py` asks it for one.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import newborn
from newborn import LENGTH

from service.cli import app

STREAMS = 3


def farebox(*arguments: str | Path) -> list[str]:
    """The words that run `farebox ARGUMENTS` as a process of its own, as `python -m service ARGUMENTS` would."""
    return [sys.executable, "-I", "-S", newborn.__file__, _door(), *map(str, arguments)]


class Born:
    """A process of the nursery, as asyncio.subprocess.Process is one; it is killed when its test's process ends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ending = asyncio.create_task(self._end(reader, writer))

    async def _end(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.returncode = int(await reader.readline())
        writer.close()

    async def wait(self) -> int:
        """Its exit code, negative for a signal, once it has ended."""
        await asyncio.shield(self._ending)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """See Process."""
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def terminate(self) -> None:
        """See Process."""
        self.send_signal(signal.SIGTERM)


async def farebox_forked(*arguments: str | Path, env: Mapping[str, str], output: IO[bytes]) -> Born:
    """`farebox ARGUMENTS` as a process of its own with these variables, all that it says in one file."""
    with Path(os.devnull).open("rb") as nothing:  # noqa: ASYNC230  It never blocks.
        streams = (nothing.fileno(), output.fileno(), output.fileno())
        asking = newborn.ask(_door(), [str(word) for word in arguments], env, streams)
    asking.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=asking)
    return Born(reader, writer, int(await reader.readline()))


@functools.cache
def _door() -> str:
    """The address of this process's nursery, which ends with it."""
    place = tempfile.TemporaryDirectory(prefix="farebox-nursery-")
    door = f"{place.name}/door"
    nursery = subprocess.Popen(
        [sys.executable, __file__, door], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert nursery.stdout is not None
    assert nursery.stdout.readline() == b"ready\n", "the nursery did not start"

    @atexit.register
    def end() -> None:
        nursery.communicate()
        place.cleanup()

    return door


def _keep_nursery(door: str) -> Callable[[], None] | None:
    """Gives birth until the tests end; returns the command's main in those that are born, None in the nursery."""
    for subject in app.SUBJECTS:
        importlib.import_module(f"service.cli.{subject}")
    importlib.import_module("service.wiring.serving")
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody waits for those who attend.
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(door)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                return None
            asker, _ = listener.accept()
            if os.fork() == 0:
                break
            asker.close()
    _attend(asker)
    return app.main


def _attend(asker: socket.socket) -> None:
    """Reads what is asked for and returns in the process that is born; the one that attends it tells its number and
    how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    said, streams, _, _ = socket.recv_fds(asker, 1 << 16, STREAMS)
    while len(said) < LENGTH or len(said) < LENGTH + int.from_bytes(said[:LENGTH]):
        said += asker.recv(1 << 16)
    born = os.fork()
    if born:
        for stream in streams:
            os.close(stream)  # Who reads them waits for those that are born, not for this.
        asker.sendall(b"%d\n" % born)
        threading.Thread(target=_end_with, args=(asker, born), daemon=True).start()
        _, status = os.waitpid(born, 0)
        asker.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    asker.close()
    arguments, environment, directory = json.loads(said[LENGTH:])
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    random.seed()
    sys.argv = ["farebox", *arguments]


def _end_with(asker: socket.socket, born: int) -> None:
    """Kills what was born when the one who asked for it is gone: it was killed."""
    if not asker.recv(1):
        with suppress(ProcessLookupError):  # It has ended by itself.
            os.kill(born, signal.SIGKILL)


def _lived(main: Callable[[], None]) -> int | None:
    """The exit code that the command came to; whatever else it raises ends it as it would any."""
    try:
        main()
    except SystemExit as end:
        assert end.code is None or isinstance(end.code, int)
        return end.code
    return None


if __name__ == "__main__":
    main = _keep_nursery(sys.argv[1])
    if main is not None:
        code = _lived(main)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)  # To take down all that was loaded takes four times as long as a command.
