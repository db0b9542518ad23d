"""The floor of collection: the same calls by a bare HTTP client with the same concurrency, nothing kept or decided.

Run as a process: `python -m service.lab.bench_calls <provider's address> <calls> <concurrency> <name>`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator

import aiohttp
import msgspec
import uvloop

from service.lab.bench_debits import AMOUNT_MINOR, HEADERS, RIDERS


def bodies(calls: int, name: str) -> list[bytes]:
    """The bodies that collection sends for the debits of `bench_debits.add_due`, byte for byte."""
    return [
        msgspec.json.encode(
            {
                "key": f"{name}d{number}",
                "agreement": f"k{number % RIDERS + 1}",
                "amount_minor": AMOUNT_MINOR,
                "currency": "CNY",
                "hold": None,
                "subject": f"Ride {name}-{number}",
            }
        )
        for number in range(calls)
    ]


async def run(url: str, calls: int, concurrency: int, name: str) -> float:
    """Makes the calls; the calls per second of all but the first `concurrency`."""
    waiting = iter(bodies(calls, name))
    ended: list[float] = []
    connector = aiohttp.TCPConnector(limit=concurrency, keepalive_timeout=30)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:
        for _ in range(concurrency):
            tasks.create_task(_caller(session, f"{url}/v1/debits", waiting, ended))
    return (calls - concurrency) / (ended[-1] - ended[concurrency - 1])


async def _caller(session: aiohttp.ClientSession, url: str, waiting: Iterator[bytes], ended: list[float]) -> None:
    for body in waiting:
        async with session.post(url, headers=HEADERS, data=body, allow_redirects=False) as answer:
            await answer.read()
            answer.raise_for_status()
        ended.append(time.perf_counter())


if __name__ == "__main__":
    print(f"{uvloop.run(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])):.0f}")
