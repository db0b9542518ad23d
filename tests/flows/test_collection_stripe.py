"""Collection through the Stripe adapter at localstripe, which ignores idempotency keys: its books are the oracle."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from builders import Party, Ride
from collecting_bench import Bench, open_bench
from localstripe_door import KEY, Localstripe, localstripe
from proxy import Proxy
from stripe_world import DECLINED_CARD, WEBHOOK_SECRET, provider_at, sign

from service.adapters.providers.port import AgreementRef, Provider
from service.billing.outcomes import ClientSecret
from service.flows.collection import Collection


class Cards:
    """A bench whose provider is Stripe as localstripe knows it, behind a line that can lose answers."""

    def __init__(self, bench: Bench, server: Localstripe, proxy: Proxy, provider: Provider) -> None:
        self.bench = bench
        self.server = server
        self.proxy = proxy
        self.provider = provider

    async def party(self, key: str, number: str = "4242424242424242") -> tuple[Party, AgreementRef]:
        """A rider who has signed."""
        agreement = await sign(self.server, self.provider, key, number, "CNY")
        party = await self.bench.party()
        await self.bench.connection.execute(
            "UPDATE agreement SET provider_key = $2, provider_ref = $3 WHERE agreement_no = $1",
            party.agreement_no,
            agreement.key,
            agreement.provider_ref,
        )
        return party, agreement

    async def settle_down(self) -> None:
        """Minutes of questions, then days of polls and retries; what was lost once is heard the next time."""
        for step in [timedelta(seconds=61)] * 6 + [timedelta(hours=9)] * 8:
            await self.bench.collection.submit_round(self.bench.account_no)
            self.proxy.mend()
            self.bench.pass_time(step)

    async def charges(self, ride: Ride) -> list[Any]:
        """Every charge that localstripe made for a ride, under whatever number."""
        keys = {row["provider_key"] for row in await self.bench.debits(ride)}
        listed = await self.server.call("GET", "v1/payment_intents", limit="10000")
        made = [paid["id"] for paid in listed["data"] if paid["metadata"].get("farebox_key") in keys]
        return [charge for number in made for charge in await self.server.charges(number)]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_KEY", KEY)
    monkeypatch.setenv("STRIPE_WEBHOOK", WEBHOOK_SECRET)


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Localstripe]:
    async with localstripe() as it:
        yield it


@asynccontextmanager
async def cards(url: str, server: Localstripe, **settings: str) -> AsyncIterator[Cards]:
    host, port = server.url.removeprefix("http://").split(":")
    proxy = Proxy(host, int(port))
    line = f"http://127.0.0.1:{await proxy.start()}"
    async with AsyncExitStack() as stack:
        stack.push_async_callback(proxy.stop)
        bench = await stack.enter_async_context(open_bench(url))
        provider = await stack.enter_async_context(provider_at(line, currency="CNY", **settings))
        providers = {bench.account_no: provider}
        bench.collection = Collection(bench.database, providers, lambda: bench.now, lambda: bench.machine)
        yield Cards(bench, server, proxy, provider)


@pytest.fixture
async def it(database_url: str, server: Localstripe) -> AsyncIterator[Cards]:
    async with cards(database_url, server) as made:
        yield made


@pytest.mark.parametrize("lost", [None, 1, 2, 3])
async def test_a_ride_is_paid_once_whichever_answer_is_lost(it: Cards, lost: int | None) -> None:
    """The first call makes the payment, the second confirms it; a third is only a question after one was lost."""
    party, _ = await it.party(f"AGFLOW{lost}")
    ride = await it.bench.ride(party, 300)
    if lost is not None:
        it.server.door.at_call(lost, it.proxy.lose_replies)
    await it.settle_down()
    assert await it.bench.states(ride) == [("settled", 300, 300)], await it.bench.transitions(ride)
    assert ("unknown" in await it.bench.transitions(ride)) is (lost in (1, 2))
    assert [charge["amount"] for charge in await it.charges(ride)] == [300]


@pytest.mark.parametrize("lost", [None, 1, 2])
async def test_what_is_owed_no_longer_is_given_back_once(it: Cards, lost: int | None) -> None:
    """The first call looks for the refund, the second makes it."""
    party, _ = await it.party(f"AGBACK{lost}")
    ride = await it.bench.ride(party, 300)
    await it.settle_down()
    await it.bench.owe(ride, 2, -120)
    if lost is not None:
        it.server.door.at_call(lost, it.proxy.lose_replies)
    await it.settle_down()
    [debit] = await it.bench.debits(ride)
    assert (debit["state"], debit["paid_minor"], debit["refunded_minor"]) == ("settled", 300, 120)
    assert [(charge["amount"], charge["amount_refunded"]) for charge in await it.charges(ride)] == [(300, 120)]


async def test_a_rider_whose_card_is_declined_pays_the_same_number_himself(it: Cards) -> None:
    party, agreement = await it.party("AGOWN", DECLINED_CARD)
    ride = await it.bench.ride(party, 300)
    for _ in range(3):
        await it.bench.collection.submit_round(it.bench.account_no)
        it.bench.pass_time(timedelta(seconds=61))
    [debit] = await it.bench.debits(ride)
    assert (debit["state"], debit["reason"]) == ("retry_wait", "card_declined")
    asked = await it.bench.collection.ask_payment((ride.ride_no, debit["ordinal"]))
    assert isinstance(asked.action, ClientSecret) and asked.provider_ref is not None
    assert asked.action.client_secret.startswith(f"{asked.provider_ref}_secret_")
    card = await it.server.card(str(agreement.provider_ref).split(":")[0])
    confirm = f"{it.server.url}/v1/payment_intents/{asked.provider_ref}/confirm"
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as app,
        app.post(confirm, data={"payment_method": card}) as answer,  # In his app, with another card.
    ):
        assert answer.status == 200
    await it.settle_down()
    assert await it.bench.states(ride) == [("settled", 300, 300)], await it.bench.transitions(ride)
    assert [charge["amount"] for charge in await it.charges(ride)] == [300]


async def test_a_ride_without_a_hold_is_paid_without_one_where_rides_begin_with_a_hold(
    database_url: str, server: Localstripe
) -> None:
    """Stripe can debit without: no authorisation over a whole cap is made for a ride that is over."""
    async with cards(database_url, server, hold="manual_capture") as it:
        party, _ = await it.party("AGNOHOLD")
        ride = await it.bench.ride(party, 300)
        await it.settle_down()
        assert await it.bench.states(ride) == [("settled", 300, 300)], await it.bench.transitions(ride)
        listed = await server.call("GET", "v1/payment_intents", limit="10000")
        assert [paid for paid in listed["data"] if paid["capture_method"] == "manual"] == []
