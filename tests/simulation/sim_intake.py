"""The intake's side: events of rides decided by the real rules and written as the intake writes them, without Kafka."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from service.adapters.postgres import Database
from service.adapters.postgres.batches import OutRecord
from service.adapters.postgres.catalog import CatalogStore
from service.adapters.postgres.rides import RideNumbers, RideStore
from service.billing.announcements import announce
from service.billing.batch import Arrival, advance
from service.billing.catalog import BalanceBook
from service.billing.events import RideEvent
from service.billing.keys import session_key_bytes
from service.billing.proofs import batch_no
from service.flows.clock import BusinessClock
from service.flows.decisions import decide_rides, taking_in
from service.flows.knowledge import Knowledge


class Place(Protocol):
    """What the intake must know of a world."""

    operator_id: str

    def now(self) -> datetime:
        """The world's time."""


class Intake:
    """What the intake knows, kept over the worlds of a run; the clock is that of the world it is in."""

    def __init__(self) -> None:
        self.world: Place
        self.knowledge = Knowledge(BusinessClock(self._now), 0)
        self.numbers = RideNumbers()

    def _now(self) -> datetime:
        return self.world.now()

    async def take(self, database: Database, operator_no: int, event: RideEvent) -> None:
        """One batch of one event; taken before, it changes nothing."""
        async with database.transaction(RideStore) as store:
            await self.knowledge.refresh(CatalogStore(store.connection))
            operator = self.knowledge.operators[operator_no]
            assert event.agreement_id is not None
            await self.knowledge.learn_agreements(store, {(operator_no, event.agreement_id)})
            arrivals = [Arrival(session_key_bytes(operator.operator_id, event.session_id), operator, event)]
            known = await store.find_rides([arrivals[0].key], self.knowledge.operators)
            await self.numbers.reserve(store, 1)
            now = self.knowledge.clock.now()
            book = BalanceBook()
            revisions = advance(known, arrivals, self.knowledge.catalog, book, now, self.numbers.at(now)).revisions
            assert not book.asked, "the tariff of these worlds has no caps"
            if revisions:
                batch = await store.take_batch("intake/simulation")
                number = batch_no(batch.writer_no, batch.seq)
                await store.append_revisions(revisions, lambda _: number)
                facts = [OutRecord("billing", *fact) for revision in revisions for fact in announce(revision, now)]
                digests = [revision.ride.digest for revision in revisions]
                owing = [revision.ride.ride_no for revision in revisions if revision.owing_minor]
                await store.seal_batch(batch, facts, now, now, revisions=digests, owing=owing)

    async def decide(self, database: Database, event: RideEvent, world: Place) -> bool:
        """An operator's own event; False when there is no such ride yet."""
        async with database.reading(RideStore) as store:
            await self.knowledge.refresh(CatalogStore(store.connection))
        key = session_key_bytes(world.operator_id, event.session_id)
        return bool(await decide_rides(database, self.knowledge, taking_in(event), keys=[key], role="operator"))
