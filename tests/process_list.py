"""What the system shows of processes: their command lines to everybody, their environments to who runs them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil


def command_lines() -> dict[int, str]:
    """Of every process by its number; what has ended meanwhile is left out."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found


def variables(pid: int) -> dict[str, str]:
    """The environment of a process, and of those that it started: what each of them has under a name, line by line."""
    found: dict[str, str] = {}
    whole = psutil.Process(pid)
    for process in (whole, *whole.children(recursive=True)):
        for name, text in process.environ().items():
            found[name] = f"{found[name]}\n{text}" if name in found else text
    return found
