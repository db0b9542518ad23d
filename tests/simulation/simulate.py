"""`make simulate SEEDS=N [SEED=S]`: plays worlds on a PostgreSQL of its own, and names the seed of any failure."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from multiprocessing import get_context
from pathlib import Path

from sim_run import Result, run_worlds
from sim_world import BEGINNING

from service.adapters.migrate import migrate
from service.lab.postgres import UNSAFE, start_postgres
from service.lab.processes import Children, free_ports
from service.lab.servers import Servers


def main() -> int:
    """Returns the exit code: 1 when a world failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many worlds")
    parser.add_argument("--seed", type=int, help="this world alone, twice: the second time must go as the first")
    parser.add_argument("--first", type=int, default=1, help="the first world's seed")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first failure")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="between which the worlds are divided"
    )
    parser.add_argument("--each", action="store_true", help="say how each world went")
    asked = parser.parse_args()
    began = time.monotonic()
    with asyncio.Runner() as runner:
        processes = 2 if asked.seed is not None else max(1, min(asked.processes, asked.seeds))
        stage = _databases(processes)
        urls = runner.run(_first(stage))
        try:
            if asked.seed is not None:
                first, second = (run_worlds(url, [asked.seed], report=_say) for url in urls)
                if first.decisions != second.decisions:
                    print(f"seed {asked.seed} did not go the same way twice: {first.decisions} {second.decisions}")
                return _told(first, began) or int(first.decisions != second.decisions)
            end, shares = asked.first + asked.seeds, []
            with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
                for number, url in enumerate(urls):
                    seeds = range(asked.first + number, end, processes)
                    shares.append(pool.submit(_share, url, seeds, keep_going=asked.keep_going, each=asked.each))
                return _told(_together([share.result() for share in shares]), began)
        finally:
            runner.run(stage.aclose())


def _share(url: str, seeds: range, *, keep_going: bool, each: bool) -> Result:
    return run_worlds(url, seeds, stop=not keep_going, each=each, report=_say)


def _together(results: list[Result]) -> Result:
    whole = Result()
    for result in results:
        whole.counts.update(result.counts)
        whole.failures += result.failures
    return whole


def _say(line: str) -> None:
    print(line, flush=True)


def _told(result: Result, began: float) -> int:
    counts = result.counts
    seconds, each_s = time.monotonic() - began, counts["processor_ms"] / 1000 / max(counts["worlds"], 1)
    print(
        f"simulate: {counts['worlds']} worlds, {counts['decisions']} decisions, {counts['calls']} provider calls,"
        f" {counts['faults']} faults met, {counts['killed']} kills, {counts['cut']} cuts,"
        f" {counts['lost']} lost commits, {each_s:.2f} s of processor a world, {seconds:.0f} s,"
        f" {len(result.failures)} failed"
        + "".join(f"; again with: make simulate SEED={failure.seed}" for failure in result.failures)
    )
    return 1 if result.failures else 0


async def _first(stage: AsyncGenerator[list[str], None]) -> list[str]:
    return await anext(stage)


async def _databases(count: int) -> AsyncGenerator[list[str], None]:
    """So many migrated databases on a server that goes with this process, or on FAREBOX_DATABASE_URL's."""
    async with _server() as servers:
        names = [f"simulation_{secrets.token_hex(6)}" for _ in range(count)]
        urls = [await servers.create_database(name) for name in names]
        for url in urls:
            await migrate(url, BEGINNING)
        yield urls
        for name in names:
            await servers.drop_database(name)


@asynccontextmanager
async def _server() -> AsyncIterator[Servers]:
    known = os.environ.get("FAREBOX_DATABASE_URL")
    if known:
        yield Servers(known, "")
        return
    with tempfile.TemporaryDirectory(prefix="farebox-simulation-") as space:
        await asyncio.to_thread(Path(space).chmod, 0o711)  # PostgreSQL's user passes through it.
        async with Children() as children:
            [port] = free_ports(1)
            password = secrets.token_hex(16)
            home = Path(space) / "postgres"
            url = await start_postgres(children, home, port=port, password=password, settings=UNSAFE, kept=False)
            yield Servers(url, "")


if __name__ == "__main__":
    sys.exit(main())
