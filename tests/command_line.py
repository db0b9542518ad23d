"""`farebox` as a process of its own, for the tests of the command line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import nursery

Farebox = Callable[..., Awaitable[tuple[int, str, str]]]


def command(database_url: str, **always: str) -> Farebox:
    """Runs `farebox ARGUMENTS`: exit code, standard output, standard error. `always` and `more` are variables of its
    environment."""
    settings = {"FAREBOX_DATABASE_URL": database_url, "FAREBOX_KAFKA_BOOTSTRAP": "127.0.0.1:1", "COLUMNS": "400"}

    async def run(*arguments: str | Path, **more: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *nursery.farebox(*arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | settings | always | more,
        )
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    return run
