"""Real processes and servers killed under load: nothing acknowledged is lost, no ride is charged twice (chaos.py)."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from service.lab.servers import Servers

HERE = Path(__file__).parent
KILLS, SEED, RIDES_PER_S, READERS = 8, 57457, 1, 1
"""This plan kills an intake, collectors, keep, the provider, PostgreSQL, a backend, and serve while an operator is at
work; it fills the disk, throttles everybody's PostgreSQL and cuts a collector off. Half-open connections wait half a
minute by rule, and Kafka's start costs as much as ten roles': those are the longer runs', and e2e/test_outages.py's.
That serve is killed while PostgreSQL is away is for those, too: a hold that was asked for then is told for a minute
that it is under way."""
NOTHING = "0 lost, 0 charged twice, 0 reads back in time, 0 problems, audit 0 problems"


async def test_eight_kills_in_a_row_lose_nothing_and_charge_nothing_twice(servers: Servers) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(HERE / "chaos.py"), "--rides", str(RIDES_PER_S), "--readers", str(READERS)),
        *("--kills", str(KILLS), "--seed", str(SEED), "--kafka", servers.kafka_bootstrap),
        env=os.environ | {"PYTHONPATH": f"{HERE.parents[1]}:{HERE.parent}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    told = out.decode()
    assert process.returncode == 0, told
    assert re.match(rf"chaos: {KILLS} kills, [1-9]\d* other faults, .*, {NOTHING},", told.splitlines()[-1]), told
