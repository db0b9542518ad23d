"""A merchant account that is taken away under a running collector: nothing refers to it, and nothing minds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from collecting_bench import Bench, only, open_bench

from service.flows.accounts import remove_account
from service.flows.agreements import Agreements
from service.flows.disputes import Disputes

Round = Callable[[int], Awaitable[int]]


def rounds(bench: Bench) -> dict[str, Round]:
    """What `collect` does for each account (service.wiring)."""
    providers = only(bench.provider)
    clocks = (lambda: bench.now, lambda: bench.machine)
    holds, agreements = bench.holder(), Agreements(bench.database, providers, *clocks)
    return {
        "collect": bench.collection.collect_round,
        "policies": bench.collection.policy_round,
        "holds": holds.resolve_round,
        "used holds": holds.release_round,
        "agreements": agreements.refresh_round,
        "disputes": Disputes(bench.database, providers, bench.collection.disputed, *clocks).ask_round,
    }


@pytest.mark.parametrize("before", [0, 1], ids=["before its first round", "after one"])
async def test_the_rounds_of_an_account_that_was_removed_find_nothing(database_url: str, before: int) -> None:
    async with open_bench(database_url) as bench:
        every = rounds(bench)
        for one_round in list(every.values()) * before:
            await one_round(bench.account_no)
        name = "SELECT account_id FROM merchant_account WHERE account_no = $1"
        await remove_account(bench.database, 1, await bench.connection.fetchval(name, bench.account_no))
        assert {what: await one_round(bench.account_no) for what, one_round in every.items()} == dict.fromkeys(every, 0)
        await bench.collection.end(bench.account_no)
