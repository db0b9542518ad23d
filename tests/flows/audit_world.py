"""Books with everything in them: rides of every kind, debits in every state, refunds, disputes, tariffs' versions."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import cast

import msgspec
from fakes import FakeProvider, KilledError
from ride_builders import PLAN, RULES, adjustment, at, event, tariff, whole
from ride_world import RideWorld

from service.adapters.postgres import Database
from service.adapters.postgres.catalog import CatalogStore
from service.adapters.postgres.operators import OperatorStore
from service.adapters.providers.port import Provider
from service.billing.auditing.problems import Problem
from service.billing.capabilities import Capabilities
from service.billing.debits.events import (
    DebitEvent,
    DisputeClosed,
    DisputeOpened,
    GivenBack,
    OperatorDecided,
    PaidElsewhere,
    PaymentAnswered,
    PaymentWanted,
    PolicyDue,
    Queried,
    Submitted,
    Suspended,
    Told,
)
from service.billing.events import Adjustment, Position
from service.billing.keys import provider_key, session_key_bytes
from service.billing.outcomes import Accepted, Declined, MiniProgram, NeedsRider, OpenUrl, Rejected, Succeeded, Unknown
from service.billing.tariffs import TariffDraft
from service.flows.audit import Audited, audit
from service.flows.collection import Collection
from service.flows.decisions import adjust_ride, decide_rides, taking_in
from service.flows.tariffs import publish_tariff

NOWHERE = Position("", 0, 0)
ADJUSTED = {
    "taxed": [adjustment("extra", 700, "a-1", tax_rate=Decimal("0.19")), adjustment("goodwill", 100, "a-2")],
    "cap-2": [adjustment("refund", 150)],
    "broken": [adjustment("extra", 90, "a-1", regardless=True), adjustment("goodwill", 300, "a-2")],
}
LIVES: dict[str, Sequence[DebitEvent]] = {
    "submitting": (),
    "unknown": (Submitted("", Unknown("timeout")),),
    "pending": (Submitted("", Accepted("ref-p")),),
    "retry": (Submitted("", Declined(retryable=True, code="BALANCE")),),
    "rider": (
        Submitted("", Declined(retryable=False, code="CARD")),
        PaymentWanted(),
        PaymentAnswered("", NeedsRider("3DS", OpenUrl("https://pay.invalid/1"))),
    ),
    "mini program": (
        Submitted("", Declined(retryable=False, code="CARD")),
        PaymentWanted(),
        PaymentAnswered("", NeedsRider("PAY", MiniProgram("wx1", "pages/pay", {"mch_id": "1", "sign": "s"}))),
    ),
    "suspended": (Submitted("", Declined(retryable=False, code="CARD")), Suspended("the lock had failed")),
    "manual": (Submitted("", Rejected("PARAMETER")),),
    "decided": (Submitted("", Rejected("PARAMETER")), OperatorDecided("settled", "his books", "ref-o")),
    "given up": (Submitted("", Rejected("PARAMETER")), OperatorDecided("cancel", "too old")),
    "elsewhere": (Submitted("", Declined(retryable=True, code="BALANCE")), PaidElsewhere("cash")),
    "outside": (Submitted("", Declined(retryable=True, code="BALANCE")), PaidElsewhere("cash")),
    "twice": (
        Submitted("", Declined(retryable=True, code="BALANCE")),
        PaidElsewhere("cash"),
        Queried("", Succeeded(250, "ref-t")),
    ),
    "complaint": (Submitted("", Succeeded(250, "ref-c")), DisputeOpened("complaint")),
    "bank": (Submitted("", Succeeded(250, "ref-b")), DisputeOpened("chargeback", 250, 15)),
    "won": (
        Submitted("", Succeeded(250, "ref-w")),
        DisputeOpened("chargeback", 250, 15),
        DisputeClosed("won"),
    ),
    "bank, twice": (
        Submitted("", Succeeded(250, "ref-d")),
        DisputeOpened("chargeback", 250, 15, Told("D1")),
        DisputeClosed("won", 0, Told("D1")),
        DisputeOpened("chargeback", 100, 15, Told("D2")),
        DisputeClosed("lost", 15, Told("D2")),
    ),
    "bank, appealed": (
        Submitted("", Succeeded(250, "ref-e")),
        DisputeOpened("chargeback", 250, 15, Told("D3")),
        DisputeClosed("lost", 15, Told("D3")),
        DisputeClosed("won", 0, Told("D3")),
    ),
    "written off": (Submitted("", Declined(retryable=False, code="CARD")),),
}
"""What becomes of a ride's debit once it was claimed; "" stands for its key."""


class Books:
    """A database with rides of every kind, debited; `audit` says what an audit of it finds."""

    def __init__(self, url: str, world: RideWorld) -> None:
        self.url = url
        self.world = world

    async def audit(self, operator_id: str | None = None) -> tuple[Audited, list[Problem]]:
        problems: list[Problem] = []
        return await audit(self.url, problems.append, lambda done, total: None, operator_id), problems


@asynccontextmanager
async def filled_books(url: str) -> AsyncIterator[Books]:
    """The books, in a migrated database of their own."""
    database = await Database.open(url, name="test", size_max=6)
    world = RideWorld(database)
    await world.open(100)
    try:
        await _fill(world)
        yield Books(url, world)
    finally:
        await database.close()


def key_of(session: str) -> bytes:
    return session_key_bytes("default", session)


async def _fill(world: RideWorld) -> None:
    await _publish(world)
    await world.agree("agr-2")
    await _rides(world)
    provider, clock = FakeProvider(1, Capabilities(dispute="chargeback")), world.knowledge.clock
    collection = Collection(world.database, {1: cast(Provider, provider)}, clock.now, clock.now)
    await collection.plan_round()
    await collection.submit_round(1)
    await _changes(world)
    while await collection.plan_round():
        pass
    await collection.submit_round(1)
    await _give_back(world, collection, provider)
    await world.take(*(item for name in LIVES for item in whole(name)))
    while await collection.plan_round():
        pass
    with contextlib.suppress(KilledError):
        provider.faults["*"] = ["killed_before"]
        await collection.submit_round(1)
    await _live(world, collection)
    await world.take(*whole("unpaid"), *whole("nothing owed"))
    for voided in ("nothing owed", "outside"):
        await _void(world, voided, 1504)
    await collection.plan_round()
    for session, amount_minor in (("outside", 100), ("too late", 5)):
        ((ride_no,),) = await world.sql("SELECT ride_no FROM debit WHERE session_id = $1", session)
        await collection.given_back((ride_no, 1), GivenBack(amount_minor, "cash"))
    ((ref,),) = await world.sql("SELECT provider_ref FROM debit WHERE session_id = 'too late'")
    await collection.noticed(1, "re_9", Succeeded(4, "re_9"), about="refund", payment=ref)
    await collection.given_back((ride_no, 1), GivenBack(4, "in the console", "re_9"))


async def _publish(world: RideWorld) -> None:
    await world.publish(tariff({"day_cap": "4.00"}, name="capped"))
    await world.publish(
        tariff({"tax": {"rate": "0.10", "included": True}, "parking_fees": {"invalid": "2.00"}}, name="taxed")
    )
    async with world.database.reading(OperatorStore) as store:
        operator = await store.find("default")
    assert operator is not None
    for number, price in enumerate(("1.50", "2.50")):
        draft = TariffDraft(
            tariff_id="versions",
            plan=msgspec.json.encode({**PLAN, "plan_id": "versions", "price": price}),
            rules=msgspec.json.encode(RULES),
            valid_from=at(-1000 + 5000 * number),
        )
        await publish_tariff(world.database, operator, draft, now=at(100), lead=timedelta(minutes=1))


async def _rides(world: RideWorld) -> None:
    await world.take(*whole("plain"), *whole("taxed", tariff_id="taxed"), event("started", 90, session="open"))
    await world.take(event("ended", 50, session="reversed"))
    await world.take(event("started", 0, session="reversed"), event("started", 1, "b", session="reversed"))
    for name in ("cap-1", "cap-2", "cap-3"):
        await world.take(*whole(name, tariff_id="capped"))
    await world.take(*whole("parked", tariff_id="none"), event("ended", 3, session="half"))
    await world.take(event("started", 0, session="odd"), event("ended", -5, session="odd"))
    await world.take(event("started", 0, session="staff", billable=False, purpose="staff"))
    await world.take(event("reservation_started", 0, session="reserved"))
    await world.take(*whole("corrected", agreement_id="agr-2"), *whole("voided"), *whole("broken"))
    await world.take(*whole("versioned", tariff_id="versions"), event("started", 0, session="lost"))
    await world.take(*whole("too late"), *whole("in parts"))


async def _changes(world: RideWorld) -> None:
    """Late events, lost ends, corrections, voids and adjustments of rides that were debited."""
    await world.take(*whole("late"), event("paused", 5, session="plain"))
    await world.rounds(1500)
    for name, end in {"corrected": 50, "cap-1": 5}.items():
        correction = event("corrected", 1501, session=name, position=NOWHERE, corrected_end=at(end))
        await decide_rides(world.database, world.knowledge, taking_in(correction), keys=[key_of(name)], role="serve")
    await _void(world, "voided", 1502)
    await world.take(event("ended", 30, session="lost"))
    for session, given in ADJUSTED.items():
        await _adjust(world, session, given)
    await _void(world, "broken", 1503)


async def _void(world: RideWorld, session: str, minutes: float) -> None:
    void = event("voided", minutes, session=session, position=NOWHERE)
    await decide_rides(world.database, world.knowledge, taking_in(void), keys=[key_of(session)], role="serve")


async def _live(world: RideWorld, collection: Collection) -> None:
    """The lives of the debits that were claimed and never came back."""
    for session, life in LIVES.items():
        ((ride_no,),) = await world.sql("SELECT ride_no FROM debit WHERE session_id = $1", session)
        for happening in life:
            named = {"key": provider_key(key_of(session), "debit", 1)} if hasattr(happening, "key") else {}
            await collection.happen([((ride_no, 1), msgspec.structs.replace(happening, **named))])
    ((ride_no,),) = await world.sql("SELECT ride_no FROM debit WHERE session_id = 'written off'")
    await _at(world, 200 * 24 * 60)
    for _ in range(4):
        await collection.happen([((ride_no, 1), PolicyDue())])
    await _at(world, 1510)


async def _give_back(world: RideWorld, collection: Collection, provider: FakeProvider) -> None:
    """Refunds in every state: too late, lost on their way, not yet sent."""
    provider.capabilities = Capabilities(dispute="chargeback", refund_window=timedelta())
    await _adjust(world, "too late", [adjustment("goodwill", 20)])
    await _at(world, 1511)
    while await collection.plan_round():
        pass
    provider.capabilities = Capabilities(dispute="chargeback")
    provider.faults["*"] = ["lost_before"] * 2
    await _adjust(world, "in parts", [adjustment("goodwill", 20, "a-1")])
    while await collection.plan_round():
        pass
    await collection.submit_round(1)
    await _adjust(world, "in parts", [adjustment("refund", 30, "a-2")])
    while await collection.plan_round():
        pass


async def _adjust(world: RideWorld, session: str, given: Sequence[Adjustment]) -> None:
    for one in given:
        await adjust_ride(world.database, world.knowledge, world.knowledge.operators[1], session, one)


async def _at(world: RideWorld, minutes: float) -> None:
    """So many minutes after noon, for everybody."""
    await world.clock(minutes)
    async with world.database.reading(CatalogStore) as store:
        await world.knowledge.refresh(store)
