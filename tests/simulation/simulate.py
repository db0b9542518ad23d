"""`make simulate SEEDS=N [SEED=S]`: plays worlds on a PostgreSQL of its own, and names the seed of any failure."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context

from sim_plants import PLANTS, searched
from sim_run import Failure, Result, audited, run_worlds
from sim_stage import Stage, open_stage

SHARE = 50
"""So many worlds are played in one database."""


def main() -> int:
    """Returns the exit code: 1 when a world failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many worlds")
    parser.add_argument("--seed", type=int, help="this world alone, twice: the second time must go as the first")
    parser.add_argument("--first", type=int, default=1, help="the first world's seed")
    parser.add_argument("--twice", action="store_true", help="each world twice: the second time must go as the first")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first failure")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="between which the worlds are divided"
    )
    parser.add_argument("--each", action="store_true", help="say how each world went")
    parser.add_argument("--plants", action="store_true", help="the first of these worlds in which each bug shows")
    asked = parser.parse_args()
    if asked.seed is not None:
        asked.first, asked.seeds, asked.twice = asked.seed, 1, True
    return asyncio.run(_played(asked))


def _say(line: str) -> None:
    print(line, flush=True)


async def _played(asked: argparse.Namespace) -> int:
    began = time.monotonic()
    async with open_stage() as stage:
        if asked.plants:
            return await asyncio.to_thread(_plants, stage, asked)
        whole = await asyncio.to_thread(_shared, stage, asked)
    return _told(whole, began)


def _shared(stage: Stage, asked: argparse.Namespace) -> Result:
    end, whole = asked.first + asked.seeds, Result()
    play = partial(_twice if asked.twice else share, stage, keep_going=asked.keep_going, each=asked.each)
    processes = max(1, min(asked.processes, asked.seeds))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        size = min(SHARE, -(-asked.seeds // processes))
        shares = [pool.submit(play, range(first, min(first + size, end))) for first in range(asked.first, end, size)]
        for one in as_completed(shares):
            if one.cancelled():
                continue
            whole.add(one.result())
            if whole.failures and not asked.keep_going:
                for later in shares:
                    later.cancel()
    return whole


def share(
    stage: Stage,
    seeds: Sequence[int],
    *,
    keep_going: bool = False,
    each: bool = False,
    report: Callable[[str], None] = _say,
) -> Result:
    """Plays these worlds in a database of their own, which is audited when all went well."""
    with stage.database() as url:
        result = run_worlds(url, seeds, stop=not keep_going, each=each, report=report)
        if not result.failures:
            result.problems += audited(url)
    return result


def _twice(stage: Stage, seeds: Sequence[int], *, keep_going: bool, each: bool) -> Result:
    """The second time in another order, in another database."""
    first = share(stage, seeds, keep_going=keep_going, each=each)
    second = share(stage, seeds[::-1], keep_going=keep_going, each=False, report=lambda _: None)
    for seed in sorted(first.decisions.keys() & second.decisions.keys()):
        if first.decisions[seed] != second.decisions[seed]:
            _say(f"seed {seed} did not go the same way twice")
            first.failures.append(Failure(seed, AssertionError("it did not go the same way twice")))
    return first


def _plants(stage: Stage, asked: argparse.Namespace) -> int:
    """Prints the table of sim_plants anew."""
    with ProcessPoolExecutor(asked.processes, mp_context=get_context("spawn")) as pool:
        found = pool.map(partial(_plant, stage, range(asked.first, asked.first + asked.seeds)), range(len(PLANTS)))
        for plant, seed in zip(PLANTS, found, strict=True):
            _say(f"    {plant.__name__}: {seed},")
    return 0


def _plant(stage: Stage, seeds: range, number: int) -> int | None:
    found = planted(stage, number, seeds)
    return found.seed if found else None


def planted(stage: Stage, number: int, seeds: range) -> Failure | None:
    """The first of these worlds that fails with the bug of this number in PLANTS."""
    with stage.database() as url:
        return next(iter(searched(url, list(PLANTS)[number], seeds).failures), None)


def without_plant(stage: Stage, number: int, seed: int) -> list[Failure]:
    """How the world in which a bug shows fails without it."""
    with stage.database() as url:
        return run_worlds(url, [seed], focus=list(PLANTS.values())[number].focus).failures


def _told(result: Result, began: float) -> int:
    counts = result.counts
    seconds, each_s = time.monotonic() - began, counts["processor_ms"] / 1000 / max(counts["worlds"], 1)
    for problem in result.problems:
        _say(f"the audit says: {problem}")
    print(
        f"simulate: {counts['worlds']} worlds, {counts['decisions']} decisions, {counts['calls']} provider calls,"
        f" {counts['faults']} faults met, {counts['killed']} kills, {counts['cut']} cuts, {counts['race']} deadlocks,"
        f" {counts['lost']} lost commits, {each_s:.2f} s of processor a world without its server's, {seconds:.0f} s,"
        f" {len(result.failures)} failed, audit {len(result.problems)} problems"
        + "".join(f"; again with: make simulate SEED={failure.seed}" for failure in result.failures)
    )
    return 1 if result.failures or result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
