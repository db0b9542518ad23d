"""Asks the nursery for a process, passes it its own streams and signals, and ends as it does."""

import json
import os
import signal
import socket
import sys

with socket.socket(socket.AF_UNIX) as asking:
    asking.connect(sys.argv[1])
    said = json.dumps([sys.argv[2:], dict(os.environ), os.getcwd()]).encode()  # noqa: PTH109  pathlib is slow to load.
    said = len(said).to_bytes(4) + said
    sent = socket.send_fds(asking, [said], [0, 1, 2])
    asking.sendall(said[sent:])
    answers = asking.makefile()
    born = int(answers.readline())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(born, number))
    code = int(answers.readline())
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
