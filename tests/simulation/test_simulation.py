"""Worlds of sixty days under every fault we can think of end with equal books (sim_world, sim_script, sim_books), and
those that have a bug on purpose do not: a simulation that doesn't find them (sim_plants) finds nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from sim_plants import FIRST, PLANTS, Plant, searched
from sim_run import audited, run_worlds
from sim_stage import Stage, open_stage
from sim_world import WorldError

CHUNK = 25
CHUNKS = 8
SEARCHED = 60
"""Within so many worlds a planted bug must show, from where it did when somebody last looked."""


@pytest.fixture(scope="session")
async def stage() -> AsyncIterator[Stage]:
    """A PostgreSQL of their own."""
    async with open_stage() as stage:
        yield stage


@pytest.mark.parametrize("first", range(1, CHUNK * CHUNKS + 1, CHUNK))
def test_whatever_happens_the_books_are_equal_and_nobody_is_forgotten(stage: Stage, first: int) -> None:
    with stage.database() as url:
        result = run_worlds(url, range(first, first + CHUNK))
        assert result.failures == [], "again with: make simulate SEED=" + str(result.failures[0].seed)
        assert audited(url) == []


def test_a_seed_goes_the_same_way_each_time(stage: Stage) -> None:
    """In another database, after another world: what is decided depends on the seed alone."""
    told = []
    for before in ([], [901]):
        with stage.database() as url:
            told.append(run_worlds(url, [*before, 902]).decisions[902])
    assert told[0] == told[1]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(stage: Stage, record_property: Callable[[str, object], None], plant: Plant) -> None:
    with stage.database() as url:
        found = searched(url, plant, range(FIRST[plant], FIRST[plant] + SEARCHED)).failures
    assert found, f"{SEARCHED} worlds went well"
    assert isinstance(found[0].error, WorldError | AssertionError)
    record_property("seed", found[0].seed)
    with stage.database() as url:
        clean = run_worlds(url, [found[0].seed], focus=PLANTS[plant]).failures
    assert clean == [], "it fails without the bug, too"
