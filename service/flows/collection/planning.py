"""What is newly owed becomes debits: the batches of all writers are read in turn, and their rides netted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial

from service.adapters.postgres import RACES
from service.adapters.postgres.aside import AsideStore
from service.adapters.postgres.collection import CollectionStore
from service.billing.debits.collecting import Book
from service.flows.collection.apart import Key, one_at_a_time, or_apart, set_aside
from service.flows.collection.dunning import Dunning
from service.flows.collection.keeping import keep, net_rides
from service.telemetry import ASIDE

BATCHES_MAX = 32
"""Batches of each writer that one plan round reads."""
PLANNED_MAX = 4000
"""With so many rides a plan round takes no further batch: its transaction is over long before its time limit, whatever
has piled up."""
RIDES_MAX = 100
"""Rides set aside that one round takes up."""
SAME_RACES_MAX = 10
"""So many lost races in a row are none: the rides are taken one at a time."""
TRIED = timedelta(hours=2)
"""After this time a debit that was set aside was tried again."""
WRITER = "collection/plan"


class Planning(Dunning):
    """Obligations become debits."""

    _races = 0

    async def plan_round(self) -> int:
        """Takes in the next batches that owe something; returns how many there were.

        A ride that trips over a bug of ours is set aside, and the cursor goes on. Raises one of RACES when somebody
        else decided first: the next round reads again.
        """
        try:
            planned = await or_apart(partial(self._plan, apart=False), partial(self._plan, apart=True))
        except RACES:
            self._races += 1
            if self._races < SAME_RACES_MAX:
                raise
            planned = await self._plan(apart=True)
        self._races = 0
        return planned

    async def aside_round(self) -> int:
        """Rides that were set aside, once more; returns how many of them are netted now."""
        async with self._database.transaction(CollectionStore) as store:
            asides = AsideStore(store.connection)
            rides = await asides.rides_due(self._now(), RIDES_MAX)
            await self._net_apart(store, rides)
            taken_up = await asides.take_up(rides, self._now())
            await asides.forget(self._now() - TRIED)
            counts = await asides.counts()
        for what in ("owing", "debit", "refund", "policy"):
            ASIDE.labels(what).set(counts.get(what, 0))
        return taken_up

    async def _plan(self, *, apart: bool) -> int:
        async with self._database.transaction(CollectionStore) as store:
            before = await store.lock_cursors()
            batches = await store.batches_owing(before, BATCHES_MAX, PLANNED_MAX) if before else ()
            if not batches:
                return 0
            rides = sorted({ride_no for batch in batches for ride_no in batch["owing"]})
            if apart:
                await self._net_apart(store, rides)
            else:
                await self._net(store, rides)
            moved = await store.move_cursors(before, {batch["writer_no"]: batch["seq"] for batch in batches})
            assert moved, "a cursor of collection moved while it was locked"
            return len(batches)

    async def _net(self, store: CollectionStore, rides: Sequence[int]) -> None:
        book = Book(self._now())
        rows = await net_rides(store, self._providers, book, rides)
        await keep(store, self._providers, book, rows, {}, self._machine_now(), WRITER, {})

    async def _net_apart(self, store: CollectionStore, rides: Sequence[int]) -> None:
        """Nets each ride by itself; what trips is set aside."""

        async def net_one(key: Key) -> None:
            assert isinstance(key, int)
            await self._net(store, [key])

        await set_aside(store, "owing", await one_at_a_time(store, rides, net_one), self._now())
