"""A dispute that is told before its debit's number is known here is not lost: it is looked for until it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Literal

import pytest
from collecting_bench import Bench, assert_books_agree, open_bench

from service.adapters.providers.port import DisputeStatus
from service.billing.capabilities import Capabilities
from service.flows.collection.disputing import GIVE_UP_AFTER

OUTAGE = timedelta(hours=5)
CHARGEBACKS = Capabilities(dispute="chargeback")


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url, CHARGEBACKS) as it:
        yield it


def news(
    ref: str,
    state: Literal["opened", "won", "lost", "resolved"],
    kind: Literal["complaint", "chargeback"] = "chargeback",
) -> DisputeStatus:
    return DisputeStatus(ref, kind, state, 500, "CNY", "D1")


async def kept(bench: Bench) -> int:
    count = await bench.connection.fetchval(
        "SELECT count(*) FROM dispute_unheard WHERE account_no = $1", bench.account_no
    )
    assert isinstance(count, int)
    return count


@pytest.mark.parametrize("told", [("opened",), ("opened", "opened"), ("opened", "lost"), ("lost", "opened")])
async def test_a_chargeback_told_while_the_answer_is_lost_is_booked_once_the_number_is_known(
    bench: Bench, told: tuple[Literal["opened", "lost"], ...]
) -> None:
    bench.provider.faults["*"] = ["lost_after"]
    ride = await bench.ride(await bench.party(), 500)
    await bench.collection.submit_round(bench.account_no)
    [row] = await bench.debits(ride)
    assert (row["state"], row["provider_ref"]) == ("unknown", None)
    ref = f"ref-{row['provider_key']}"
    for state in told:
        assert not await bench.collection.disputed(bench.account_no, news(ref, state))
    await bench.collection.policy_round(bench.account_no)
    assert await kept(bench) == 1
    bench.pass_time(OUTAGE)
    await bench.settle_down(3)
    assert await bench.states(ride) == [("settled", 500, 500)]
    bench.pass_time(OUTAGE)
    await bench.collection.policy_round(bench.account_no)
    [row] = await bench.debits(ride)
    assert (row["dispute"], row["disputed_minor"]) == ("lost" if "lost" in told else "chargeback", 500)
    assert await kept(bench) == 0
    assert await bench.balance(4, bench.account_no) == 0


async def test_a_dispute_about_nothing_of_ours_is_given_up_after_a_while(bench: Bench) -> None:
    assert not await bench.collection.disputed(bench.account_no, news("of somebody else", "opened"))
    bench.pass_time(GIVE_UP_AFTER - timedelta(minutes=1))
    await bench.collection.policy_round(bench.account_no)
    assert await kept(bench) == 1
    bench.pass_time(timedelta(days=1))
    await bench.collection.policy_round(bench.account_no)
    assert await kept(bench) == 0


async def test_a_chargeback_that_follows_an_inquiry_which_is_over_takes_the_funds(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 500)
    await bench.settle_down(2)
    ref = str((await bench.debits(ride))[0]["provider_ref"])
    for status in (news(ref, "opened", "complaint"), news(ref, "resolved", "complaint"), news(ref, "opened")):
        assert await bench.collection.disputed(bench.account_no, status)
    assert (await bench.debits(ride))[0]["dispute"] == "chargeback"
    assert await bench.balance(4, bench.account_no) == 0
    assert await bench.collection.disputed(bench.account_no, news(ref, "won"))
    assert await bench.collection.disputed(bench.account_no, news(ref, "opened"))
    assert (await bench.debits(ride))[0]["dispute"] == "won"
    await assert_books_agree(bench)
