"""Runs worlds one after the other in one database (sim_stage), and says what it saw."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from random import Random
from typing import NamedTuple

import asyncpg
from mortal_database import Connections
from msgspec.structs import replace
from sim_books import check_world
from sim_calm import CalmDatabase
from sim_fleet import unread
from sim_intake import Door
from sim_memory import remember
from sim_order import break_ties
from sim_profiles import Focus, calm, draw_chaos
from sim_script import Script
from sim_topic import CLUSTER, GROUP, PARTITIONS, TOPIC
from sim_trips import caught
from sim_world import BEGINNING, World, WorldError
from turns import Turns
from virtual_loop import VirtualLoop

from service.adapters.migrate import PARTITION_MONTHS
from service.adapters.postgres import QUERIES
from service.adapters.postgres.batches import SLOT_GROUPS
from service.adapters.postgres.housekeeping import HousekeepingStore
from service.adapters.postgres.intake import IntakeStore
from service.adapters.postgres.streams import NOTHING_READ
from service.billing.auditing.problems import Problem
from service.flows.audit import audit

ANYTHING = Focus()
FORGET_ASIDE = "DELETE FROM set_aside RETURNING 1"
SKIP_LEFT = """
UPDATE batch_reader r SET seq = (SELECT max(seq) FROM batch b WHERE b.writer_no = r.writer_no)
WHERE r.reader = 'collection' AND EXISTS (SELECT FROM batch b WHERE b.writer_no = r.writer_no) RETURNING 1
"""
"""Of batches that owe nothing a world need not take note, and the next one would, or not, by the order of worlds."""
OWING = """
SELECT writer_no FROM writer WHERE name LIKE ANY('{operator/%,keep/%}')
UNION ALL SELECT writer_no FROM stream_offset ORDER BY 1
"""
"""The numbers of those who may come to owe something."""


class Failure(NamedTuple):
    """A world that is not as it must be."""

    seed: int
    error: BaseException


class Result:
    """What the worlds of a run were like."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.decisions: dict[int, str] = {}
        self.failures: list[Failure] = []
        self.problems: list[str] = []
        """What an audit of their databases found."""

    def add(self, other: Result) -> None:
        """What other worlds of the run were like."""
        self.counts.update(other.counts)
        self.decisions.update(other.decisions)
        self.failures += other.failures
        self.problems += other.problems


def run_worlds(
    url: str,
    seeds: Sequence[int],
    *,
    stop: bool = True,
    each: bool = False,
    focus: Focus = ANYTHING,
    report: Callable[[str], None] = lambda _: None,
) -> Result:
    """Plays the worlds of these seeds; stops at the first failure unless told otherwise. `each`: reports each world."""
    break_ties()
    remember()
    with _tidied_by_hand(), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_run(url, seeds, stop, each, focus, report))


@contextmanager
def _tidied_by_hand() -> Iterator[None]:
    """No garbage is collected but where `_run` says so: timers that go with it would be in a world or not."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def audited(url: str) -> list[str]:
    """What `farebox audit` finds in a database of worlds."""
    found: list[str] = []

    def report(problem: Problem) -> None:
        found.append(str(problem))

    asyncio.run(audit(url, report, lambda _, __: None))
    return found


async def _run(
    url: str, seeds: Sequence[int], stop: bool, each: bool, focus: Focus, report: Callable[[str], None]
) -> Result:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.set_exception_handler(lambda *_: None)  # Tasks of killed processes are never asked how they ended.
    connections, door, result = Connections(url), Door(), Result()
    side = await asyncpg.connect(url, max_cached_statement_lifetime=0)  # A timer of it would be one of the world.
    try:
        writers = [row["writer_no"] for row in await CalmDatabase(connections).rows(OWING)]
        for seed in seeds:
            began = time.process_time()
            gc.collect()
            world, error = await _play(loop, side, connections, door, writers, seed, focus)
            result.counts.update(world.counts)
            result.counts["worlds"] += 1
            result.counts["calls"] += world.wire.calls
            result.counts["processor_ms"] += round(1000 * (time.process_time() - began))
            if each:
                report(f"{seed} {time.process_time() - began:.2f} s of processor, {dict(world.counts)}")
            result.decisions[seed] = world.decisions
            if error is not None:
                result.failures.append(Failure(seed, error))
                report(f"seed {seed}: {error!r}" if not str(error) else f"seed {seed}: {error}")
                if stop:
                    break
                await CalmDatabase(connections).rows(FORGET_ASIDE)  # What it left must not fail the next world.
            await CalmDatabase(connections).rows(SKIP_LEFT)
    finally:
        await connections.close()
        await side.close()
    return result


async def prepare(url: str) -> None:
    """What worlds share is there before the first: none finds less than another, and so does other statements."""
    names = ["collection/plan", "collection/wishes", *(f"collection/{n}" for n in range(64))]
    names += [f"collection/policies/{number}" for number in range(64)]
    names += [
        f"{role}/{number}" for role in ("agreements", "holds", "operator", "keep") for number in range(SLOT_GROUPS)
    ]
    connections = Connections(url)
    database = CalmDatabase(connections)
    await database.rows("INSERT INTO writer (name) SELECT unnest($1::text[]) RETURNING 1", names)
    async with database.reading(IntakeStore) as store:
        for partition in range(PARTITIONS):
            await store.begin_stream(GROUP, TOPIC, partition, 0, CLUSTER, NOTHING_READ)
    await database.rows(QUERIES["ensure_collection_cursors"] + " RETURNING 1")
    async with database.transaction(HousekeepingStore) as store:
        for at in (BEGINNING, BEGINNING + timedelta(days=110)):
            await store.make_partitions(at, PARTITION_MONTHS)
    await connections.close()


async def _play(
    loop: VirtualLoop,
    side: asyncpg.Connection[asyncpg.Record],
    connections: Connections,
    door: Door,
    writers: list[int],
    seed: int,
    focus: Focus,
) -> tuple[World, BaseException | None]:
    loop.begin()
    turns = Turns(loop, side)
    chaos = draw_chaos(Random(f"chaos {seed}"))
    if focus.quiet:
        chaos = replace(calm(), both=0.9)
    if focus.faults is not None:
        chaos = replace(chaos, faults=focus.faults)
    if focus.freeze:
        chaos = replace(chaos, freeze=focus.freeze)
    world = World(seed, chaos, turns, CalmDatabase(connections), connections)
    door.world, world.writers = world, writers
    script = Script(world, door, focus)
    playing = loop.create_task(_from_beginning_to_end(world, script))
    await asyncio.wait({playing})  # Whatever it raises: the seed is what finds it again.
    return world, playing.exception()


async def _from_beginning_to_end(world: World, script: Script) -> None:
    with caught(world.trips):
        await script.set_up()
        await world.play()
    world.look_for_trips()
    if wrong := await unread(world.fleet, world.rows):
        raise WorldError("\n".join([f"world {world.seed}, {world.weather}", *wrong]))
    await check_world(world, script)
