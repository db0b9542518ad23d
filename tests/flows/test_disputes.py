"""Complaints and ends of agreements that Alipay only announces: the simulator's face, PostgreSQL, our questions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from alipay_peer import Merchant, merchant_at, request, simulator_with_alipay
from builders import Ride
from collecting_bench import Bench, open_bench
from fakes import KilledError

from service.adapters.providers import Providers
from service.adapters.providers.port import DisputeStatus, MerchantAccount
from service.billing.debits.events import RefundAsked
from service.billing.outcomes import Accepted, Succeeded, Unknown
from service.flows.agreements import Agreements
from service.flows.collection import Collection
from service.flows.disputes import GIVE_UP_AFTER, LOOK_AGAIN, Disputes, announced


class Shop:
    """A bench whose account is one at the simulator's Alipay face."""

    def __init__(self, bench: Bench, merchant: Merchant, providers: Providers) -> None:
        self.bench = bench
        self.merchant = merchant
        self.providers = providers
        self.disputes = self.asking()

    def asking(self) -> Disputes:
        """A process that asks."""
        bench = self.bench
        hear = self.collecting().disputed
        return Disputes(bench.database, self.providers, hear, lambda: bench.now, lambda: bench.machine)

    def collecting(self) -> Collection:
        """A process that collects at Alipay."""
        bench = self.bench
        return Collection(bench.database, self.providers.by_number, lambda: bench.now, lambda: bench.machine)

    async def declined(self, hold_key: str) -> Ride:
        """A ride whose debit on a pre-authorisation its rider could not pay."""
        hold = await self.merchant.frozen(hold_key, "poor")
        await self.merchant.wallet("poor", 0)
        ride = await self.bench.ride(await self.bench.party(), 1234)
        await self.bench.hold(ride, "open", hold_key, hold.provider_ref, cap_minor=10_000, opened=True)
        await self.collecting().submit_round(self.bench.account_no)
        [row] = await self.bench.debits(ride)
        assert (row["state"], row["provider_ref"]) == ("retry_wait", None)
        self.number = row["provider_key"]
        return ride

    async def paid(self, order: str) -> Ride:
        """A ride that was paid on an order at Alipay."""
        agreement = await self.merchant.signed(f"AG_{order}", order)
        await self.merchant.wallet(order, 10_000)
        hold = await self.merchant.ordered(order, agreement)
        assert isinstance(await self.merchant.provider.debit(request(f"K_{order}", hold, agreement)), Accepted)
        told = await self.merchant.ear.hears("debit", hold.provider_ref or "")
        assert isinstance(told.answer, Succeeded)
        ride = await self.bench.ride(await self.bench.party(), 1234)
        await self.bench.settle_down(3)
        assert await self.bench.states(ride) == [("settled", 1234, 1234)]
        await self.bench.connection.execute(
            "UPDATE debit SET provider_ref = $2 WHERE ride_no = $1", ride.ride_no, told.answer.provider_ref
        )
        self.number = hold.provider_ref or ""
        return ride

    async def complains(self, state: str = "open") -> None:
        """The rider complains, or is content; Alipay says that something changed, and we keep that."""
        named = {"account_id": self.merchant.account_id, "debit": self.number, "kind": "complaint", "state": state}
        dispute = await self.merchant.peer.call("POST", "/disputes", named)
        ref = f"DI{dispute['number']:010d}"
        told = await self.merchant.ear.hears("dispute", ref)
        assert await announced(self.bench.database, self.bench.account_no, told.key, self.bench.now)

    async def dispute_of(self, ride: Ride) -> str | None:
        return str((await self.bench.debits(ride))[0]["dispute"])

    async def asked_again_in(self) -> timedelta | None:
        """When the only question is due; None when there is none."""
        due = await self.bench.connection.fetchval(
            "SELECT due_at FROM dispute_question WHERE account_no = $1", self.bench.account_no
        )
        return None if due is None else due - self.bench.now


@pytest.fixture
async def shop(database_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    async with _shop(database_url, tmp_path) as it:
        yield it


@pytest.fixture
async def preauth(database_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    async with _shop(database_url, tmp_path, "preauth") as it:
        yield it


@asynccontextmanager
async def _shop(url: str, directory: Path, product: str = "zhima") -> AsyncIterator[Shop]:
    providers = Providers()
    async with (
        open_bench(url) as bench,
        simulator_with_alipay() as peer,
        merchant_at(peer, product, "shop", directory, timeout_s=1.0) as merchant,
    ):
        account = merchant.provider.account
        row = await bench.connection.fetchrow(
            "UPDATE merchant_account SET provider = $2, base_url = $3, settings = $4 WHERE account_no = $1"
            " RETURNING account_id",
            bench.account_no,
            "alipay",
            account.base_url,
            msgspec.json.encode(account.settings).decode(),
        )
        assert row is not None
        providers.of(MerchantAccount(bench.account_no, row["account_id"], "alipay", account.base_url, account.settings))
        try:
            yield Shop(bench, merchant, providers)
        finally:
            await providers.close()


async def test_a_complaint_is_asked_about_and_followed_to_its_end(shop: Shop) -> None:
    ride = await shop.paid("ORDER_WHOLE")
    await shop.complains()
    assert await shop.disputes.ask_round(shop.bench.account_no) == 1
    assert await shop.dispute_of(ride) == "complaint"
    assert await shop.asked_again_in() == LOOK_AGAIN
    await shop.bench.collection.happen([((ride.ride_no, 1), RefundAsked(34, "the usual remedy"))])
    await shop.complains("resolved")
    assert await shop.disputes.ask_round(shop.bench.account_no) == 1
    assert (await shop.dispute_of(ride), await shop.asked_again_in()) == ("resolved", None)
    assert await shop.disputes.ask_round(shop.bench.account_no) == 0


async def test_a_complaint_about_a_debit_that_was_never_paid_stops_its_attempts_and_its_report(preauth: Shop) -> None:
    """Alipay's number of the trade is in no answer of ours: the complaint names the trade by our own as well."""
    bench = preauth.bench
    ride = await preauth.declined("HOLD_POOR")
    await preauth.complains()
    assert await preauth.disputes.ask_round(bench.account_no) == 1
    assert await preauth.dispute_of(ride) == "complaint"
    collection = preauth.collecting()
    for _ in range(40):
        bench.pass_time(timedelta(days=1))
        await collection.submit_round(bench.account_no)
        await collection.policy_round(bench.account_no)
    [row] = await bench.debits(ride)
    assert (row["state"], row["attempts"], row["overdue"], row["record"]) == ("retry_wait", 1, False, None)
    await preauth.complains("resolved")
    await preauth.disputes.ask_round(bench.account_no)
    assert await preauth.dispute_of(ride) == "resolved"


async def test_an_end_that_nobody_announces_is_found_the_next_day(shop: Shop) -> None:
    ride = await shop.paid("ORDER_QUIET")
    await shop.complains()
    await shop.disputes.ask_round(shop.bench.account_no)
    named = {"account_id": "shop", "debit": shop.number, "kind": "complaint", "state": "resolved"}
    await shop.merchant.peer.call("POST", "/disputes", named)
    assert await shop.disputes.ask_round(shop.bench.account_no) == 0
    shop.bench.pass_time(LOOK_AGAIN)
    assert await shop.disputes.ask_round(shop.bench.account_no) == 1
    assert (await shop.dispute_of(ride), await shop.asked_again_in()) == ("resolved", None)


async def test_a_process_that_dies_with_the_answer_in_its_hand_loses_nothing(shop: Shop) -> None:
    async def die(_: int, __: DisputeStatus) -> bool:
        raise KilledError

    ride, bench = await shop.paid("ORDER_KILL"), shop.bench
    await shop.complains()
    dying = Disputes(bench.database, shop.providers, die, lambda: bench.now, lambda: bench.machine)
    with pytest.raises(KilledError):
        await dying.ask_round(bench.account_no)
    assert await shop.disputes.ask_round(bench.account_no) == 0
    bench.pass_time(timedelta(seconds=31))
    assert await shop.disputes.ask_round(bench.account_no) == 1
    assert await shop.dispute_of(ride) == "complaint"


@pytest.mark.parametrize("fault", ["error_before", "lost", "html", "throttle", "bad_signature"])
async def test_a_question_without_an_answer_is_asked_again(shop: Shop, fault: str) -> None:
    ride = await shop.paid("ORDER_FAULT")
    await shop.complains()
    await shop.merchant.peer.script(fault, op="dispute.get", seconds=1.0)
    await shop.disputes.ask_round(shop.bench.account_no)
    assert await shop.dispute_of(ride) == "None"
    shop.bench.pass_time(timedelta(minutes=1))
    assert await shop.disputes.ask_round(shop.bench.account_no) == 1
    assert await shop.dispute_of(ride) == "complaint"


async def test_a_number_that_means_nothing_is_left_to_people_in_the_end(shop: Shop) -> None:
    await announced(shop.bench.database, shop.bench.account_no, "DI9999999999", shop.bench.now)
    await shop.disputes.ask_round(shop.bench.account_no)
    assert await shop.asked_again_in() is not None
    shop.bench.pass_time(GIVE_UP_AFTER)
    await shop.disputes.ask_round(shop.bench.account_no)
    assert await shop.asked_again_in() is None


async def test_an_announcement_during_a_question_is_asked_about_once_more(shop: Shop) -> None:
    async def hear(account_no: int, status: DisputeStatus) -> bool:
        if status.state == "opened":
            await shop.complains("resolved")
        return await bench.collection.disputed(account_no, status)

    ride, bench = await shop.paid("ORDER_AGAIN"), shop.bench
    await shop.complains()
    asking = Disputes(bench.database, shop.providers, hear, lambda: bench.now, lambda: bench.machine)
    await asking.ask_round(bench.account_no)
    assert await shop.asked_again_in() == timedelta()
    await asking.ask_round(bench.account_no)
    assert (await shop.dispute_of(ride), await shop.asked_again_in()) == ("resolved", None)


async def test_an_agreement_that_its_rider_ends_at_alipay_is_asked_about_and_its_trade_still_collected(
    shop: Shop,
) -> None:
    """Alipay's message is about the change alone. The order that is open is debited all the same."""
    bench, merchant = shop.bench, shop.merchant
    agreement = await merchant.signed("AG_ENDS", "rider_ends")
    await merchant.wallet("rider_ends", 10_000)
    party = await bench.party()
    await bench.connection.execute(
        "UPDATE agreement SET provider_key = $2, provider_ref = $3 WHERE agreement_no = $1",
        party.agreement_no,
        agreement.key,
        agreement.provider_ref,
    )
    hold = await merchant.ordered("ORDER_ENDS", agreement)
    await merchant.ear.hears("agreement", "AG_ENDS")  # That it was signed.
    limit = {"account_id": merchant.account_id, "key": "AG_ENDS", "revoke": True}
    await merchant.peer.call("POST", "/agreements", limit)
    told = await merchant.ear.hears("agreement", "AG_ENDS")
    assert isinstance(told.answer, Unknown)
    agreements = Agreements(bench.database, shop.providers, lambda: bench.now, lambda: bench.machine)
    assert await agreements.noticed(bench.account_no, told.key, told.answer)
    bench.pass_time(timedelta(seconds=5))
    assert await agreements.refresh_round(bench.account_no) == 1
    assert (await agreements.get(party.operator_no, party.agreement_id)).state == "revoked"
    assert isinstance(await merchant.provider.debit(request("K_ENDS", hold, agreement)), Accepted)
    assert isinstance((await merchant.ear.hears("debit", hold.provider_ref or "")).answer, Succeeded)
