"""The demo, small: a city through every role and four providers as real processes, and a summary that is true."""

from __future__ import annotations

import asyncio
import os
import re
import sys

from service.lab.demo.merchants import NAMES
from service.lab.demo.telling import MUST, STEPS

CLOSING = re.compile(
    r"demo: (?P<rides>\d+) rides, (?P<charged>\d+) charged, (?P<settled>\d+) debits settled, (?P<open>\d+) open,"
    r" (?P<quarantined>\d+) quarantined, 0 lost, 0 charged twice, trial balance 0, audit 0 problems"
)
RIDES, STORY = 60, 1


async def test_the_demo_balances_at_every_provider_and_tells_one_riders_story() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "demo", "--rides", str(RIDES), "--seed", "7", "--seconds", "6"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "COLUMNS": "100"},
    )
    out, _ = await process.communicate()
    said = out.decode()
    assert process.returncode == 0, said
    lines = said.splitlines()
    closing = CLOSING.fullmatch(lines[-1])
    assert closing is not None, said
    counts = {name: int(count) for name, count in closing.groupdict().items()}
    assert RIDES * 0.7 < counts["charged"] <= counts["rides"] <= RIDES + STORY, said
    assert 0 < counts["settled"] <= counts["charged"], said
    assert sum(_settled_at(name, lines, said) for name in NAMES.values()) == counts["settled"], said
    told = iter(said[said.index("The story of") :].splitlines())
    for title in (STEPS[step][1] for step in MUST):
        assert any(f"  {title}  " in line for line in told), f"the story has no {title!r} at its place:\n{said}"


def _settled_at(name: str, lines: list[str], said: str) -> int:
    """An account's line in the table of the providers: both books agree; how many debits were settled there."""
    (line,) = (line for line in lines if line.strip().startswith(name))
    riders, holds, settled, _refunds, theirs, equal, ours, heard = line.strip().removeprefix(name).split()
    assert (theirs, equal) == (ours, "="), said
    assert int(riders) > 0 and int(heard) > 0, said
    assert (holds == "-") == (name in ("Sandbox", "Stripe")), said
    return int(settled)
