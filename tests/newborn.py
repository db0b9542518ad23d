"""Asks the nursery for a process, passes it its own streams and signals, and ends as it does.

It loads nothing that takes long: it stands in for each command of a test.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

LENGTH = 4
"""So many bytes of what is asked say how long it is."""


def ask(door: str, arguments: Sequence[str], env: Mapping[str, str], streams: Sequence[int]) -> socket.socket:
    """Asks for `farebox ARGUMENTS` in this directory on these three streams; the connection tells, a line each, the
    number of the process and how it ended."""
    said = json.dumps([arguments, dict(env), os.getcwd()]).encode()  # noqa: PTH109  pathlib is slow to load.
    message = len(said).to_bytes(LENGTH) + said
    asking = socket.socket(socket.AF_UNIX)
    asking.connect(door)
    sent = socket.send_fds(asking, [message], streams)
    asking.sendall(message[sent:])
    return asking


def _stand_in(door: str, arguments: Sequence[str]) -> int:
    with ask(door, arguments, os.environ, (0, 1, 2)) as asking:
        answers = asking.makefile()
        born = int(answers.readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(born, number))
        return int(answers.readline())


if __name__ == "__main__":
    code = _stand_in(sys.argv[1], sys.argv[2:])
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
