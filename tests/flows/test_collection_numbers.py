"""What a debit was called before finds it for good: keys of earlier attempts, the provider's older numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from io import StringIO

import msgspec
import pytest
import structlog
from builders import Ride
from collecting_bench import Bench, assert_books_agree, open_bench
from fakes import FakeProvider

from service.adapters.providers.port import DebitRef, DisputeStatus
from service.billing.capabilities import Capabilities
from service.billing.outcomes import Declined, Outcome, Succeeded, Unknown
from service.flows.collection import hearing
from service.flows.collection.hearing import NoAnswerError

ABLE = Capabilities(dispute="chargeback", partial_debit=True)


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url, ABLE) as bench:
        yield bench
        await assert_books_agree(bench)


async def tried_twice(bench: Bench) -> tuple[Ride, str]:
    """A ride whose first attempt was declined and whose second one is pending, and the key of the first."""
    ride = await bench.ride(await bench.party(), 300)
    bench.provider.faults["*"] = ["short", "accepted"]
    await bench.collection.submit_round(bench.account_no)
    first = (await bench.debits(ride))[0]["provider_key"]
    bench.pass_time(timedelta(hours=24))
    await bench.collection.submit_round(bench.account_no)
    assert (await bench.debits(ride))[0]["provider_key"] != first
    return ride, first


async def paid_late(bench: Bench, key: str) -> bool:
    """A notification says that an earlier attempt has brought the money after all."""
    bench.provider.taken[key] = 300
    return await bench.collection.noticed(bench.account_no, key, Succeeded(300, f"ref-{key}"))


async def test_an_earlier_attempt_that_is_paid_after_all_pays_the_debit_once(bench: Bench) -> None:
    ride, first = await tried_twice(bench)
    assert await paid_late(bench, first)
    await bench.settle_down(3)
    assert await bench.states(ride) == [("settled", 300, 300)]
    assert bench.provider.pending == {}, "the present attempt is closed"


async def test_an_earlier_attempt_that_is_paid_too_goes_back(bench: Bench) -> None:
    ride, first = await tried_twice(bench)
    bench.provider.collect((await bench.debits(ride))[0]["provider_key"])
    bench.pass_time(timedelta(days=1))
    await bench.settle_down(2)
    assert await bench.states(ride) == [("settled", 300, 300)]
    for _ in range(2):
        assert await paid_late(bench, first)
        await bench.settle_down(2)
    assert await bench.states(ride) == [("settled_twice", 300, 600)]
    assert list(bench.provider.given_back.values()) == [300]


@pytest.mark.parametrize("told", [299, 301])
async def test_of_an_earlier_attempt_the_providers_answer_counts_and_not_the_amount_he_tells(
    bench: Bench, told: int
) -> None:
    ride, first = await tried_twice(bench)
    bench.provider.taken[first] = 300
    assert await bench.collection.noticed(bench.account_no, first, Succeeded(told, "ref"))
    await bench.settle_down(3)
    assert await bench.states(ride) == [("settled", 300, 300)]


async def test_money_that_an_earlier_attempt_never_brought_is_not_believed(bench: Bench) -> None:
    ride, first = await tried_twice(bench)
    before = await bench.debits(ride)
    assert await bench.collection.noticed(bench.account_no, first, Succeeded(300, "ref"))
    assert await bench.debits(ride) == before
    bench.provider.collect(before[0]["provider_key"])
    bench.pass_time(timedelta(days=1))
    await bench.settle_down(2)
    assert await bench.collection.noticed(bench.account_no, first, Succeeded(300, "ref"))
    assert await bench.states(ride) == [("settled", 300, 300)]
    assert bench.provider.given_back == {}


class Silent(FakeProvider):
    """Answers no question."""

    async def get_debit(self, debit: DebitRef) -> Outcome:
        return Unknown("HTTP 502")


class Chatty(FakeProvider):
    """Says of each debit that it was declined, and whose it is."""

    async def get_debit(self, debit: DebitRef) -> Outcome:
        return Declined(True, "LOW", "王小明 has no money")


async def test_what_a_provider_answers_about_money_that_is_not_there_is_not_logged_in_his_words(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = await tried_twice(bench)
    talking, log = bench.provider, StringIO()
    bench.provider = Chatty(bench.account_no, ABLE)
    every, form = structlog.make_filtering_bound_logger("debug"), structlog.processors.JSONRenderer()
    logger = structlog.wrap_logger(structlog.PrintLogger(log), processors=[form], wrapper_class=every)
    monkeypatch.setattr(hearing, "LOG", logger)
    assert await bench.collector().noticed(bench.account_no, first, Succeeded(300, "ref"))
    bench.provider = talking
    (line,) = log.getvalue().splitlines()
    assert msgspec.json.decode(line) == {
        "event": "told of money that is not there",
        "key": first,
        "told_minor": 300,
        "answer": "Declined",
    }


async def test_without_an_answer_nothing_is_changed_and_the_provider_tells_again(bench: Bench) -> None:
    ride, first = await tried_twice(bench)
    before = await bench.debits(ride)
    talking = bench.provider
    bench.provider = Silent(bench.account_no, ABLE)
    with pytest.raises(NoAnswerError):
        await bench.collector().noticed(bench.account_no, first, Succeeded(300, "ref"))
    assert await bench.debits(ride) == before
    bench.provider = talking
    assert await paid_late(bench, first)
    await bench.settle_down(3)
    assert await bench.states(ride) == [("settled", 300, 300)]


async def test_bad_news_of_an_earlier_attempt_changes_nothing(bench: Bench) -> None:
    ride, first = await tried_twice(bench)
    before = await bench.debits(ride)
    assert await bench.collection.noticed(bench.account_no, first, Declined(True, "LOW"))
    assert await bench.debits(ride) == before


@pytest.mark.parametrize("about", ["older number", "earlier attempt"])
async def test_a_dispute_may_name_what_is_not_the_debits_number_any_more(bench: Bench, about: str) -> None:
    ride, first = await tried_twice(bench)
    key = (await bench.debits(ride))[0]["provider_key"]
    if about == "older number":  # Collected in two parts, each with a number of its own.
        bench.provider.collect(key)
        for taken, number in ((100, "PART-1"), (300, "PART-2")):
            assert await bench.collection.noticed(bench.account_no, key, Succeeded(taken, number))
    else:
        assert await paid_late(bench, first)
        await bench.settle_down(2)
    named = "PART-1" if about == "older number" else f"ref-{first}"
    opened = DisputeStatus(named, "chargeback", "opened", 100, "CNY")
    assert await bench.collection.disputed(bench.account_no, opened)
    [debit] = await bench.debits(ride)
    assert (debit["dispute"], debit["disputed_minor"]) == ("chargeback", 100)
    assert await bench.collection.disputed(bench.account_no, DisputeStatus(named, "chargeback", "won", 100, "CNY"))
