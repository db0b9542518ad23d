"""What support decides about a ride becomes money: debited, lowered or given back; any order of it is in the books."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import cast

import pytest
from fakes import FakeProvider
from ride_builders import adjustment, at, event, whole
from ride_world import RideWorld

from service.adapters.postgres import Database
from service.adapters.providers.port import Provider
from service.billing.adjustments import AdjustmentError
from service.billing.auditing.problems import Problem
from service.billing.capabilities import Capabilities
from service.billing.events import Adjustment, AdjustmentKind, Position, RideEvent
from service.billing.keys import session_key_bytes
from service.flows.audit import audit
from service.flows.collection import Collection
from service.flows.decisions import Decision, adjust_ride, decide_rides, taking_in

NOWHERE = Position("", 0, 0)


class Support:
    """Rides, what support decides about them, and the collection that follows."""

    def __init__(self, url: str, world: RideWorld) -> None:
        self.url = url
        self.world = world
        self.minutes = 100.0
        self.provider = FakeProvider(1)
        self.collection = Collection(
            world.database, {1: cast(Provider, self.provider)}, lambda: at(self.minutes), world.knowledge.clock.now
        )

    def of(self, capabilities: Capabilities) -> None:
        """The provider can do this from now on, and nobody has called it since."""
        self.provider.capabilities = capabilities
        self.provider.calls.clear()
        self.provider.faults.clear()

    async def adjust(self, session: str, one: Adjustment) -> Decision:
        world = self.world
        return await adjust_ride(world.database, world.knowledge, world.knowledge.operators[1], session, one)

    async def decide(self, session: str, item: RideEvent) -> None:
        keys = [session_key_bytes("default", session)]
        await decide_rides(self.world.database, self.world.knowledge, taking_in(item), keys=keys, role="operator")

    async def plan(self) -> None:
        """Everything that is owed by now is netted."""
        while await self.collection.plan_round():
            pass

    async def settle(self) -> None:
        """Netted, debited and given back, until nothing is due."""
        for _ in range(12):
            await self.plan()
            if not await self.collection.submit_round(1):
                return
            self.minutes += 2
        raise AssertionError("collection finds no end")

    async def debits(self, session: str) -> list[tuple[str, int, int, int]]:
        """(state, amount, paid, given back) of each debit."""
        return await self.world.sql(
            "SELECT state, amount_minor, paid_minor, refunded_minor FROM debit WHERE session_id = $1 ORDER BY ordinal",
            session,
        )

    async def problems(self) -> list[str]:
        found: list[Problem] = []
        await audit(self.url, found.append, lambda done, total: None)
        return [problem.line() for problem in found]


@pytest.fixture(scope="module")
async def support(database_url: str) -> AsyncIterator[Support]:
    database = await Database.open(database_url, name="test", size_max=6)
    world = RideWorld(database)
    await world.open(100)
    yield Support(database_url, world)
    await database.close()


@pytest.fixture(autouse=True)
async def in_order(support: Support) -> AsyncIterator[None]:
    support.of(Capabilities())
    yield
    assert await support.problems() == []


async def test_an_extra_charge_before_the_debit_is_in_it_and_later_a_further_one(support: Support) -> None:
    await support.world.take(*whole("extra"))
    await support.plan()
    await support.adjust("extra", adjustment("extra", 700, "a-1"))
    await support.settle()
    assert await support.debits("extra") == [("settled", 950, 950, 0)]
    await support.adjust("extra", adjustment("extra", 300, "a-2"))
    await support.settle()
    assert await support.debits("extra") == [("settled", 950, 950, 0), ("settled", 300, 300, 0)]


async def test_an_extra_charge_where_no_further_debit_is_allowed_needs_the_rider(support: Support) -> None:
    support.of(Capabilities(further_debit=False))
    await support.world.take(*whole("asks"))
    await support.settle()
    await support.adjust("asks", adjustment("extra", 700))
    await support.settle()
    assert await support.debits("asks") == [("settled", 250, 250, 0), ("needs_rider", 700, 0, 0)]


async def test_goodwill_lowers_what_is_unpaid_and_gives_back_what_was_paid(support: Support) -> None:
    await support.world.take(*whole("kind"))
    await support.plan()
    await support.adjust("kind", adjustment("goodwill", 100, "a-1"))
    await support.settle()
    assert await support.debits("kind") == [("settled", 150, 150, 0)]
    await support.adjust("kind", adjustment("goodwill", 50, "a-2"))
    await support.settle()
    assert await support.debits("kind") == [("settled", 150, 150, 50)]


async def test_refunds_are_partial_and_repeated_up_to_what_is_owed(support: Support) -> None:
    await support.world.take(*whole("back"))
    await support.settle()
    for number, amount in enumerate((100, 100, 50)):
        await support.adjust("back", adjustment("refund", amount, f"a-{number}"))
        await support.settle()
    with pytest.raises(AdjustmentError, match="more than the 0"):
        await support.adjust("back", adjustment("refund", 1, "a-9"))
    assert await support.debits("back") == [("settled", 250, 250, 250)]
    assert [what for what, _ in support.provider.calls].count("refund") == 3


async def test_a_refund_of_what_is_not_paid_yet_is_not_asked_of_the_rider(support: Support) -> None:
    await support.world.take(*whole("unpaid"))
    await support.plan()
    await support.adjust("unpaid", adjustment("refund", 250))
    await support.settle()
    assert await support.debits("unpaid") == [("cancelled", 250, 0, 0)]
    assert support.provider.calls == []


async def test_the_same_adjustment_twice_is_done_once_whoever_comes_second(support: Support) -> None:
    await support.world.take(*whole("twice"))
    first = await support.adjust("twice", adjustment("extra", 100))
    second = await support.adjust("twice", adjustment("extra", 100))
    assert first.revision is not None and second.revision is None
    assert second.ride == first.ride
    await support.settle()
    assert await support.debits("twice") == [("settled", 350, 350, 0)]


async def test_a_ride_nobody_knows_is_said(support: Support) -> None:
    with pytest.raises(AdjustmentError, match="no ride 'nobody'") as refused:
        await support.adjust("nobody", adjustment("extra", 100))
    assert refused.value.code == "unknown_session"


async def test_a_void_gives_back_all_but_what_is_owed_regardless(support: Support) -> None:
    await support.world.take(*whole("void"))
    await support.adjust("void", adjustment("extra", 700, "a-1", regardless=True))
    await support.settle()
    await support.decide("void", event("voided", 90, session="void", position=NOWHERE))
    await support.settle()
    assert await support.debits("void") == [("settled", 950, 950, 250)]


@pytest.mark.parametrize("seed", range(8))
async def test_any_order_of_decisions_and_collection_leaves_books_that_agree(support: Support, seed: int) -> None:
    chance, session = random.Random(seed), f"any-{seed}"
    able = chance.choice([Capabilities(), Capabilities(further_debit=False), Capabilities(closes_unpaid=False)])
    support.of(able)
    await support.world.take(*whole(session))
    for step in range(8):
        match chance.choice(["adjust", "adjust", "adjust", "correct", "collect", "collect", "fault", "void"]):
            case "adjust":
                kind = chance.choice(KINDS)
                regardless = kind == "extra" and chance.random() < 0.4
                one = adjustment(kind, chance.randint(1, 400), f"a-{step}", regardless=regardless)
                try:
                    await support.adjust(session, one)
                except AdjustmentError as refused:
                    assert refused.code in ("more_than_owed", "voided")
            case "correct":
                ended = at(chance.randint(5, 60))
                fix = event("corrected", 90, f"c-{step}", session=session, corrected_end=ended, position=NOWHERE)
                await support.decide(session, fix)
            case "collect":
                await support.plan()
                await support.collection.submit_round(1)
                support.minutes += 2
            case "fault":
                support.provider.faults["*"] = [chance.choice(["lost_after", "lost_before", "accepted"])]
            case "void" if chance.random() < 0.4:
                await support.decide(session, event("voided", 95, session=session, position=NOWHERE))
        assert await support.problems() == []
    ride = await support.world.ride(session)
    owed = sum(amount for (amount,) in await support.world.sql(OWED, ride.ride_no))
    assert owed == (ride.charge.charge.total_minor if ride.charge is not None else 0) >= 0
    assert await support.world.sql(RECEIVABLE, ride.ride_no) == [(owed,)], "owed is receivable, paid or given up"


KINDS: tuple[AdjustmentKind, ...] = ("extra", "goodwill", "refund")
OWED = "SELECT amount_minor FROM obligation WHERE ride_no = $1"
RECEIVABLE = (
    "SELECT (SELECT coalesce(sum(CASE WHEN debit_account / 1000000000000000 = 1 THEN amount_minor ELSE 0 END)"
    " - sum(CASE WHEN credit_account / 1000000000000000 = 1 THEN amount_minor ELSE 0 END), 0)::bigint FROM transfer"
    " WHERE ride_no = $1)"
    " + (SELECT coalesce(sum(paid_minor - refunded_minor + forgone_minor), 0)::bigint FROM debit WHERE ride_no = $1)"
)
