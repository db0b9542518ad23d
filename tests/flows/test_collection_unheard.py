"""A dispute that is told before its debit's number is known here is not lost: it is looked for until it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Literal

import msgspec
import pytest
from builders import Ride
from collecting_bench import Bench, assert_books_agree, open_bench

from service.adapters.providers.port import DisputeStatus, NamedBy
from service.billing.capabilities import Capabilities
from service.billing.outcomes import Succeeded
from service.flows.collection.disputing import GIVE_UP_AFTER

OUTAGE = timedelta(hours=5)
CHARGEBACKS = Capabilities(dispute="chargeback")
ORDERS = Capabilities(hold_needed=True, further_debit=False, new_key_after_decline=False)


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


def complaint(key: str, named_by: NamedBy, ref: str = "", *, over: bool = False) -> DisputeStatus:
    state: Literal["opened", "resolved"] = "resolved" if over else "opened"
    return DisputeStatus(ref, "complaint", state, 0, "CNY", "C1", key=key, named_by=named_by)


async def standing(bench: Bench, ride: Ride) -> tuple[str | None, int]:
    """Of its dispute, and how many there are."""
    [row] = await bench.debits(ride)
    return row["dispute"], len(msgspec.json.decode(row["disputes"]))


@pytest.mark.parametrize("named_by", ["hold", "hold_ref"])
async def test_a_complaint_about_an_order_finds_the_rides_debit_until_its_end(
    database_url: str, named_by: Literal["hold", "hold_ref"]
) -> None:
    """It is made while the rider rides: there is no debit yet. Its end is told when the order is long over."""
    async with open_bench(database_url, ORDERS) as bench:
        key = "0RDER" if named_by == "hold" else "ZMCB1"
        assert not await bench.collection.disputed(bench.account_no, complaint(key, named_by))
        ride = await bench.ride(await bench.party(), 500)
        await bench.hold(ride, "open", "0RDER", "ZMCB1", opened=True)
        bench.pass_time(timedelta(minutes=1))
        await bench.collection.policy_round(bench.account_no)
        assert (await standing(bench, ride), await kept(bench)) == (("complaint", 1), 0)
        for ref in (
            "",
            "ref-of-its-payment",
            "",
        ):  # Asked each day, with and without the number of what was paid since.
            assert await bench.collection.disputed(bench.account_no, complaint(key, named_by, ref))
        assert await standing(bench, ride) == ("complaint", 1)
        await bench.connection.execute("UPDATE hold SET state = 'completed' WHERE provider_key = '0RDER'")
        assert await bench.collection.disputed(bench.account_no, complaint(key, named_by, over=True))
        assert await standing(bench, ride) == ("resolved", 1)
        told = await bench.collection.noticed(bench.account_no, key, Succeeded(500))
        assert (told, await bench.states(ride)) == (False, [("new", 500, 0)])  # No payment came by that name.


async def test_a_complaint_about_what_was_never_paid_names_it_by_our_key(bench: Bench) -> None:
    bench.provider.faults["*"] = ["short"]
    ride = await bench.ride(await bench.party(), 500)
    await bench.collection.submit_round(bench.account_no)
    [row] = await bench.debits(ride)
    assert (row["state"], row["provider_ref"]) == ("retry_wait", None)
    key = row["provider_key"]
    assert await bench.collection.disputed(bench.account_no, complaint(key, "key", "2026-trade"))
    assert await standing(bench, ride) == ("complaint", 1)
    [row] = await bench.debits(ride)
    assert (await kept(bench), row["provider_key"]) == (0, key)


async def test_what_is_heard_by_another_name_is_not_looked_for_any_more(bench: Bench) -> None:
    """An order that nobody knows; then it was paid, and the payment is known."""
    ride = await bench.ride(await bench.party(), 500)
    await bench.settle_down(2)
    ref = str((await bench.debits(ride))[0]["provider_ref"])
    assert not await bench.collection.disputed(bench.account_no, complaint("0VER", "hold"))
    assert await kept(bench) == 1
    assert await bench.collection.disputed(bench.account_no, complaint("0VER", "hold", ref))
    assert (await standing(bench, ride), await kept(bench)) == (("complaint", 1), 0)
