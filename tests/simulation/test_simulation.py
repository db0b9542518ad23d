"""Worlds of sixty days under every fault we can think of end with equal books (sim_world, sim_script, sim_books)."""

from __future__ import annotations

import asyncio

import pytest
from sim_run import audited, run_worlds

from service.lab.servers import Servers

CHUNK = 20
CHUNKS = 6


@pytest.mark.parametrize("first", range(1, CHUNK * CHUNKS + 1, CHUNK))
def test_whatever_happens_the_books_are_equal_and_nobody_is_forgotten(database_url: str, first: int) -> None:
    result = run_worlds(database_url, range(first, first + CHUNK))
    assert result.failures == [], "again with: make simulate SEED=" + str(result.failures[0].seed)


def test_the_audit_finds_nothing_in_all_these_worlds(database_url: str) -> None:
    run_worlds(database_url, range(900, 904))
    assert audited(database_url) == []


async def test_a_seed_goes_the_same_way_each_time(servers: Servers, migrated_template: str) -> None:
    """In another database, after another world: what is decided depends on the seed alone."""
    told = []
    for before in ([], [901]):
        name = f"simulation_again_{len(before)}"
        url = await servers.create_database(name, template=migrated_template)
        result = await asyncio.to_thread(run_worlds, url, [*before, 902])
        told.append(result.decisions[902])
        await servers.drop_database(name)
    assert told[0] == told[1]
