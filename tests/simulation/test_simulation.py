"""Worlds of sixty days under every fault we can think of end with equal books (sim_world, sim_script, sim_books), and
those that have a bug on purpose do not: a simulation that doesn't find them (sim_plants) finds nothing.

They are played in a process of their own: what a world costs grows with what else there is in its memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
from sim_plants import PLANTS, Plant
from sim_stage import Stage, open_stage
from sim_world import WorldError
from simulate import planted, share, without_plant

CHUNK = 25
CHUNKS = 8
SEARCHED = 60
"""Within so many worlds a planted bug must show, from where it did when somebody last looked."""

Play = Callable[..., Any]


@pytest.fixture(scope="session")
async def stage() -> AsyncIterator[Stage]:
    """A PostgreSQL of their own."""
    async with open_stage() as stage:
        yield stage


@pytest.fixture(scope="session")
def play(stage: Stage) -> Iterator[Play]:
    """Runs a function of simulate.py on the stage, there; what it raises is raised here."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield lambda work, *arguments: pool.submit(work, stage, *arguments).result()


@pytest.mark.parametrize("first", range(1, CHUNK * CHUNKS + 1, CHUNK))
def test_whatever_happens_the_books_are_equal_and_nobody_is_forgotten(play: Play, first: int) -> None:
    result = play(share, range(first, first + CHUNK))
    assert result.failures == [], "again with: make simulate SEED=" + str(result.failures[0].seed)
    assert result.problems == []


def test_a_seed_goes_the_same_way_each_time(play: Play) -> None:
    """In another database, after another world: what is decided depends on the seed alone."""
    assert play(share, [902]).decisions[902] == play(share, [901, 902]).decisions[902]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(play: Play, record_property: Callable[[str, object], None], plant: Plant) -> None:
    number = list(PLANTS).index(plant)
    found = play(planted, number, range(PLANTS[plant].first, PLANTS[plant].first + SEARCHED))
    assert found is not None, f"{SEARCHED} worlds went well"
    assert isinstance(found.error, WorldError | AssertionError)
    record_property("seed", found.seed)
    assert play(without_plant, number, found.seed) == [], "it fails without the bug, too"
