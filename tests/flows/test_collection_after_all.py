"""What is told, paid or owed again when nobody expects it any more, and whose money it is then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from collecting_bench import Bench, assert_books_agree, open_bench

from service.adapters.postgres.batches import FACTS_DECODER
from service.billing.capabilities import Capabilities
from service.billing.debits.events import PaidElsewhere
from service.billing.outcomes import Succeeded

ORDER = Capabilities(
    hold_needed=True, new_key_after_decline=False, further_debit=False, provider_retries=True, told_paid_elsewhere=True
)


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url) as bench:
        yield bench
        await assert_books_agree(bench)


async def test_news_of_an_orders_payment_are_not_of_the_next_debit_that_its_rider_pays_himself(bench: Bench) -> None:
    """Told again a day after it had settled the first debit, it settled the second one, which was never paid."""
    bench.provider.capabilities = ORDER
    ride = await bench.ride(await bench.party(), 300)
    await bench.hold(ride, "open", "HOLD-1", "ORDER-1", opened=True)
    await bench.settle_down(3)
    assert await bench.states(ride) == [("settled", 300, 300)]
    await bench.connection.execute("UPDATE hold SET state = 'completed' WHERE provider_ref = 'ORDER-1'")
    await bench.owe(ride, 2, 300)
    await bench.collection.ask_payment((ride.ride_no, 2))
    await bench.collection.noticed(bench.account_no, "ORDER-1", Succeeded(300, "PAY-1"), "hold_ref")
    assert await bench.states(ride) == [("settled", 300, 300), ("needs_rider", 300, 0)]


async def test_who_pays_at_the_desk_what_was_written_off_owes_nothing_and_the_provider_is_told(bench: Bench) -> None:
    bench.provider.capabilities = ORDER
    bench.provider.faults["*"] = ["accepted"]
    ride = await bench.ride(await bench.party(), 300)
    await bench.hold(ride, "open", "HOLD-1", "ORDER-1", opened=True)
    await bench.settle_down(1)
    for _ in range(7):
        bench.pass_time(timedelta(days=31))
        await bench.collection.policy_round(bench.account_no)
    assert await bench.states(ride) == [("written_off", 300, 0)]
    await bench.collection.happen([((ride.ride_no, 1), PaidElsewhere("cash"))])
    await bench.settle_down(3)
    [debit] = await bench.debits(ride)
    assert (debit["state"], debit["forgone_minor"], debit["outside_minor"]) == ("settled_elsewhere", 300, 300)
    assert [what for what, _ in bench.provider.calls] == ["debit", "close_debit"]


async def test_a_reminder_names_nothing_that_its_rider_can_not_do_any_more(bench: Bench) -> None:
    """It carried an order string whose time had been over for twelve days."""
    bench.provider.capabilities = Capabilities(new_key_after_decline=False, closes_unpaid=False)
    bench.provider.faults["*"] = ["short"]
    ride = await bench.ride(await bench.party(), 300)
    await bench.settle_down(1)
    await bench.collection.ask_payment((ride.ride_no, 1))
    for _ in range(20):
        bench.pass_time(timedelta(days=1))
        await bench.settle_down(1)
        await bench.collection.policy_round(bench.account_no)
    told = await bench.connection.fetch("SELECT facts FROM batch_facts ORDER BY writer_no, seq")
    facts = [fact for row in told for fact in FACTS_DECODER.decode(row["facts"])]
    reminders = [fact for fact in facts if any(b"reminder" in (value or b"") for _, value in fact.headers)]
    assert reminders
    assert not any(b"pay.invalid" in (fact.value or b"") for fact in reminders)
