"""The demo, small: a city through every role as real processes, and a closing line that is true."""

from __future__ import annotations

import asyncio
import re
import sys

CLOSING = re.compile(
    r"demo: (?P<rides>\d+) rides, (?P<charged>\d+) charged, (?P<settled>\d+) debits settled, (?P<pending>\d+) pending,"
    r" (?P<quarantined>\d+) quarantined, 0 lost, 0 charged twice, trial balance 0, audit 0 problems"
)


async def test_the_demo_comes_to_rest_with_nothing_lost_or_charged_twice() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "demo", "--rides", "150", "--seed", "7", "--seconds", "8"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    said = out.decode()
    assert process.returncode == 0, said
    closing = CLOSING.fullmatch(said.splitlines()[-1])
    assert closing is not None, said
    counts = {name: int(count) for name, count in closing.groupdict().items()}
    assert 100 < counts["charged"] <= counts["rides"] <= 150
    assert 0 < counts["settled"] <= counts["charged"]
    assert counts["quarantined"] == 1
    for tariff in ("city-bike", "city-scooter"):
        assert f"· {tariff} ─" in said
