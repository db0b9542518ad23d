"""An agreement ended by us where the provider then collects nothing any more: the ride under way is still collected.

At the simulator, where debits go through no hold, and at Stripe as localstripe knows it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import msgspec
import pytest
from builders import MIGRATED_AT, Party, Ride, owe
from collecting_bench import Bench, open_bench
from localstripe_door import KEY, Localstripe, localstripe
from sandbox_peer import Peer, debit_request, peer
from sandbox_peer import provider_at as sandbox_at
from sandbox_peer import sign as sign_sandbox
from stripe_world import WEBHOOK_SECRET
from stripe_world import provider_at as stripe_at
from stripe_world import sign as sign_stripe

from service.adapters.providers import Providers
from service.adapters.providers.port import AgreementRef, HoldRef, HoldRequest, MerchantAccount, Provider
from service.billing.agreements.signing import LOOK_AGAIN, LOOK_FIRST, READ_ANYWAY_AFTER
from service.billing.agreements.standing import AgreementStatus, HoldStatus
from service.billing.keys import session_key_bytes, slot_of
from service.billing.outcomes import Declined, Succeeded
from service.flows.agreement_replies import EligibilityAsk
from service.flows.agreements import Agreements
from service.flows.collection import Collection

_NUMBERS = count(2_000_000)
MONTH = int((MIGRATED_AT - datetime(2024, 1, 1, tzinfo=UTC)).total_seconds() * 1000)
DAYS = timedelta(days=1)


class Shop:
    """A bench whose account is a real provider's, and the agreements on it."""

    def __init__(self, bench: Bench, provider: Provider, providers: Providers) -> None:
        self.bench = bench
        self.provider = provider
        self.sign: Callable[[str], Awaitable[AgreementRef]]
        self.peer: Peer | None = None
        self.agreements = Agreements(bench.database, providers, lambda: bench.now, lambda: bench.machine)
        bench.collection = Collection(bench.database, providers.by_number, lambda: bench.now, lambda: bench.machine)

    @property
    def rider(self) -> str:
        """Whose wallet pays at the simulator."""
        return f"rider-{self.provider.account.account_id}"

    async def party(self, key: str) -> Party:
        """A rider who has signed."""
        agreement, party = await self.sign(key), await self.bench.party()
        await self.bench.connection.execute(
            "UPDATE agreement SET provider_key = $2, provider_ref = $3 WHERE agreement_no = $1",
            party.agreement_no,
            agreement.key,
            agreement.provider_ref,
        )
        return party

    async def begin(self, party: Party) -> Ride:
        """A ride that is under way."""
        number = next(_NUMBERS)
        ride = Ride(MONTH << 22 | number, f"under-way-{number}", party)
        key = session_key_bytes(party.operator_id, ride.session_id)
        await self.bench.connection.execute(
            "INSERT INTO ride_revision (ride_no, revision, slot, operator_no, state, agreement_no, tariff_no,"
            " tariff_version, events, decided_at, batch_no, digest)"
            " VALUES ($1, 0, $2, $3, 'open', $4, $5, 1, '[]', $6, 1, '')",
            ride.ride_no,
            slot_of(key),
            party.operator_no,
            party.agreement_no,
            party.tariff_no,
            MIGRATED_AT,
        )
        return ride

    async def end(self, ride: Ride, amount_minor: int = 300) -> None:
        """It ends, and owes."""
        await owe(self.bench.connection, [(ride, 1, amount_minor)])

    async def step(self, step: timedelta = LOOK_AGAIN) -> None:
        """Every round once, then time goes by for us and for the provider."""
        await self.agreements.refresh_round(self.bench.account_no)
        await self.bench.collection.plan_round()
        await self.bench.collection.submit_round(self.bench.account_no)
        self.bench.pass_time(step)
        if self.peer is not None:
            await self.peer.call("PUT", "/clock", {"now": self.bench.now.isoformat(), "speed": 0})

    async def read_through(self) -> None:
        """The intake has read all that was said until now."""
        await self.bench.connection.execute(
            "INSERT INTO stream_offset (consumer_group, topic, partition, next_offset, cluster_id, read_through_at)"
            " VALUES ('g', 't', 0, 0, 'c', $1) ON CONFLICT (consumer_group, topic, partition)"
            " DO UPDATE SET read_through_at = $1",
            self.bench.now,
        )

    async def at_provider(self, party: Party) -> str:
        """How the agreement stands there."""
        row = await self.bench.connection.fetchrow(
            "SELECT provider_key, provider_ref FROM agreement WHERE agreement_no = $1", party.agreement_no
        )
        assert row is not None
        told = await self.provider.get_agreement(AgreementRef(row["provider_key"], row["provider_ref"]))
        assert isinstance(told, AgreementStatus), told
        return told.state

    async def untold(self, party: Party) -> bool:
        """Whether the provider is still to be told."""
        text = "SELECT ending_at IS NOT NULL FROM agreement WHERE agreement_no = $1"
        return bool(await self.bench.connection.fetchval(text, party.agreement_no))


@asynccontextmanager
async def shop_at(url: str, simulator: Peer, server: Localstripe | None = None) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as stack:
        bench = await stack.enter_async_context(open_bench(url))
        await bench.connection.execute("DELETE FROM stream_offset")
        provider, sign = await _side(stack, simulator, server)
        account = provider.account
        row = await bench.connection.fetchrow(
            "UPDATE merchant_account SET provider = $2, base_url = $3, settings = $4 WHERE account_no = $1"
            " RETURNING account_id",
            bench.account_no,
            account.provider,
            account.base_url,
            msgspec.json.encode(account.settings).decode(),
        )
        assert row is not None
        providers = Providers()
        stack.push_async_callback(providers.close)
        own = (bench.account_no, row["account_id"], account.provider, account.base_url, account.settings)
        providers.of(MerchantAccount(*own))
        made = Shop(bench, provider, providers)
        made.sign, made.peer = sign, None if server else simulator
        yield made


async def _side(
    stack: AsyncExitStack, simulator: Peer, server: Localstripe | None
) -> tuple[Provider, Callable[[str], Awaitable[AgreementRef]]]:
    """The provider's side: an adapter, and how a rider signs there."""
    if server is not None:
        cards = await stack.enter_async_context(stripe_at(server.url, currency="CNY"))
        return cards, lambda key: sign_stripe(server, cards, key, currency="CNY")
    await simulator.call("PUT", "/clock", {"now": MIGRATED_AT.isoformat(), "speed": 0})
    name = f"shop-{next(_NUMBERS)}"
    shop = await stack.enter_async_context(sandbox_at(simulator, name))
    return shop, lambda key: sign_sandbox(simulator, shop, key, f"rider-{name}")


@pytest.fixture(scope="module")
async def simulator() -> AsyncIterator[Peer]:
    async with peer() as it:
        yield it


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Localstripe]:
    async with localstripe() as it:
        yield it


@pytest.fixture(params=["sandbox", "stripe"])
async def shop(
    database_url: str,
    simulator: Peer,
    server: Localstripe,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Shop]:
    monkeypatch.setenv("STRIPE_KEY", KEY)
    monkeypatch.setenv("STRIPE_WEBHOOK", WEBHOOK_SECRET)
    async with shop_at(database_url, simulator, server if request.param == "stripe" else None) as made:
        yield made


async def test_the_ride_under_way_is_collected_and_only_then_the_provider_is_told(shop: Shop) -> None:
    party = await shop.party("AGWAY")
    ride = await shop.begin(party)
    ended = await shop.agreements.revoke(party.operator_no, party.agreement_id)
    assert (ended.state, ended.ending_at) == ("revoked", shop.bench.now)
    asked = EligibilityAsk(operator_no=party.operator_no, agreement_id=party.agreement_id)
    assert (await shop.agreements.eligibility(asked)).reason == "agreement_revoked"
    for _ in range(4):
        await shop.step()
        await shop.read_through()
    assert (await shop.at_provider(party), await shop.untold(party)) == ("active", True)
    await shop.end(ride)
    for _ in range(4):
        await shop.step()
    assert await shop.bench.states(ride) == [("settled", 300, 300)], await shop.bench.transitions(ride)
    assert (await shop.at_provider(party), await shop.untold(party)) == ("revoked", False)
    assert (await shop.agreements.revoke(party.operator_no, party.agreement_id)).ending_at is None


async def test_a_ride_that_was_not_read_yet_is_waited_for(shop: Shop) -> None:
    """It began before the end, and its events are still on their way."""
    party = await shop.party("AGLATE")
    await shop.agreements.revoke(party.operator_no, party.agreement_id)
    for _ in range(3):
        await shop.step()
    assert await shop.at_provider(party) == "active"
    ride = await shop.begin(party)
    await shop.read_through()
    await shop.end(ride)
    for _ in range(4):
        await shop.step()
    assert await shop.bench.states(ride) == [("settled", 300, 300)]
    assert await shop.at_provider(party) == "revoked"


async def test_with_nothing_under_way_it_is_told_soon_and_without_an_intake_after_a_day(shop: Shop) -> None:
    read, unread = await shop.party("AGSOON"), await shop.party("AGDAY")
    await shop.agreements.revoke(read.operator_no, read.agreement_id)
    assert await shop.at_provider(read) == "active"
    shop.bench.pass_time(LOOK_FIRST)
    await shop.read_through()
    await shop.step()
    assert (await shop.at_provider(read), await shop.untold(read)) == ("revoked", False)
    await shop.agreements.revoke(unread.operator_no, unread.agreement_id)
    await shop.step(READ_ANYWAY_AFTER)
    assert await shop.at_provider(unread) == "active"
    await shop.step()
    assert (await shop.at_provider(unread), await shop.untold(unread)) == ("revoked", False)


async def test_time_ends_the_waiting_and_what_is_unpaid_then_is_the_riders_to_pay(shop: Shop) -> None:
    """The ride does not end for longer than the operator's calendar waits. (localstripe debits a detached card: what
    Stripe says then is tried in tests/adapters/test_stripe.py.)"""
    party = await shop.party("AGLONG")
    ride = await shop.begin(party)
    await shop.agreements.revoke(party.operator_no, party.agreement_id)
    for _ in range(30):
        await shop.step(DAYS)
        await shop.read_through()
    assert (await shop.at_provider(party), await shop.untold(party)) == ("active", True)
    await shop.step()
    assert (await shop.at_provider(party), await shop.untold(party)) == ("revoked", False)
    if shop.peer is not None:
        await shop.end(ride)
        for _ in range(4):
            await shop.step()
        assert await shop.bench.states(ride) == [("needs_rider", 300, 0)], await shop.bench.transitions(ride)


@pytest.fixture
async def sandbox(database_url: str, simulator: Peer) -> AsyncIterator[Shop]:
    async with shop_at(database_url, simulator) as made:
        yield made


async def test_a_debit_that_is_tried_again_for_days_keeps_the_agreement(sandbox: Shop) -> None:
    party = await sandbox.party("AGPOOR")
    ride = await sandbox.begin(party)
    await sandbox.end(ride)
    assert sandbox.peer is not None
    await sandbox.peer.call("PUT", "/wallets", [{"rider": sandbox.rider, "currency": "CNY", "balance_minor": 0}])
    await sandbox.step()
    await sandbox.agreements.revoke(party.operator_no, party.agreement_id)
    for _ in range(3):
        await sandbox.step(DAYS)
        await sandbox.read_through()
    assert await sandbox.bench.states(ride) == [("retry_wait", 300, 0)]
    assert await sandbox.at_provider(party) == "active"
    await sandbox.peer.call("PUT", "/wallets", [{"rider": sandbox.rider, "currency": "CNY", "balance_minor": 1000}])
    for _ in range(6):
        await sandbox.step(DAYS)
    assert await sandbox.bench.states(ride) == [("settled", 300, 300)]
    assert await sandbox.at_provider(party) == "revoked"


@pytest.mark.parametrize("fault", ["drop", "lost", "error_before", "error_after", "throttle", "html"])
async def test_a_lost_answer_to_the_telling_is_told_again(sandbox: Shop, fault: str) -> None:
    party = await sandbox.party("AGLOST")
    assert sandbox.peer is not None
    await sandbox.agreements.revoke(party.operator_no, party.agreement_id)
    await sandbox.peer.script(fault, op="agreement.revoke", seconds=1.0)
    sandbox.bench.pass_time(LOOK_FIRST)
    await sandbox.read_through()
    await sandbox.step()
    assert await sandbox.untold(party)
    for _ in range(3):
        await sandbox.step()
    assert (await sandbox.at_provider(party), await sandbox.untold(party)) == ("revoked", False)


async def test_the_riders_own_end_at_the_provider_needs_no_telling(sandbox: Shop) -> None:
    party = await sandbox.party("AGBOTH")
    await sandbox.agreements.revoke(party.operator_no, party.agreement_id)
    for state, untold in (("active", True), ("revoked", False)):
        assert await sandbox.agreements.noticed(sandbox.bench.account_no, "AGBOTH", AgreementStatus(state))  # type: ignore[arg-type]  # Both are states.
        assert await sandbox.untold(party) is untold
    view = await sandbox.agreements.get(party.operator_no, party.agreement_id)
    assert (view.state, view.ending_at) == ("revoked", None)


@pytest.mark.parametrize("ends", [True, False])
async def test_on_a_revoked_agreements_hold_is_debited_where_the_provider_lets_it(ends: bool) -> None:
    """The simulator's term that such a provider is tried with; the flow before it: test_agreements.py."""
    async with peer() as simulator, shop_of(simulator, ends) as shop:
        agreement = await sign_sandbox(simulator, shop, "AGORDER")
        hold = HoldRef("H")
        opened = await shop.open_hold(HoldRequest("H", agreement, 1000, "CNY", "bike 7", MIGRATED_AT))
        assert isinstance(opened, HoldStatus) and opened.state == "open"
        await shop.revoke_agreement(agreement)
        debited = await shop.debit(debit_request("K", agreement, hold=hold))
        if ends:
            assert debited == Declined(False, "AGREEMENT_REVOKED", "the agreement is revoked")
        else:
            assert isinstance(debited, Succeeded)


async def test_a_declined_debit_is_not_tried_again_on_an_agreement_that_has_ended() -> None:
    async with peer() as simulator, shop_of(simulator, True, new_key_after_decline=False) as shop:
        agreement = await sign_sandbox(simulator, shop, "AGPOOR")
        await shop.open_hold(HoldRequest("H", agreement, 1000, "CNY", "bike 7", MIGRATED_AT))
        asked = debit_request("K", agreement, hold=HoldRef("H"))
        await simulator.call("PUT", "/wallets", [{"rider": "rider", "currency": "CNY", "balance_minor": 0}])
        assert await shop.debit(asked) == Declined(True, "BALANCE_NOT_ENOUGH")
        await simulator.call("PUT", "/wallets", [{"rider": "rider", "currency": "CNY", "balance_minor": 1000}])
        await shop.revoke_agreement(agreement)
        assert await shop.debit(asked) == Declined(False, "AGREEMENT_REVOKED")


def shop_of(simulator: Peer, ends: bool, **more: Any) -> AbstractAsyncContextManager[Provider]:
    return sandbox_at(simulator, "orders", hold_needed=True, revoking_ends_collection=ends, **more)
