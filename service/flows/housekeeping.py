"""Housekeeping (role `keep`): what must be looked at again by itself, and what must be there or be gone in time.

A ride counts as lost only when the stream of its partition was read past its deadline, never because the wall clock
says so: after a day's outage the ends are still in Kafka (intake.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from service.adapters.clock import Clock, machine_now
from service.adapters.postgres import RACES, UNAVAILABLE, Database
from service.adapters.postgres.catalog import CatalogStore
from service.adapters.postgres.housekeeping import HousekeepingStore, Watched
from service.adapters.postgres.rides import ride_number
from service.billing.batch import reconsider
from service.billing.catalog import BalanceBook, Catalog
from service.billing.rides import Revision, Ride
from service.billing.sessions import SessionState
from service.billing.verdicts import RECHECK_AFTER, deadline, shortest_wait
from service.flows.chores import Chores
from service.flows.decisions import Decision, decide_rides
from service.flows.knowledge import Knowledge
from service.telemetry import logger

LOG = logger("housekeeping")
SWEEP_REVISIONS_MAX = 20_000
"""How many revisions one step of the sweep passes over."""
RIDES_MAX = 500
"""How many watched rides one round decides about."""
UNREAD_RETRY = timedelta(minutes=1)
"""When a ride whose stream is not read far enough is looked at again, business time; twice as late each time."""
BROKEN_RETRY = timedelta(hours=1)
"""When a ride that our own rules trip over is tried again."""
PARKED_SECONDS = 2.0
"""How often, by the machine's clock, it is asked whether new agreements or tariffs are there for parked rides."""

WAITING = frozenset({SessionState.OPEN, SessionState.INCOMPLETE, SessionState.RESERVED})
"""What waits for an event, up to a deadline."""


class Housekeeping:
    """The rounds of `keep` for one topic. Any number of processes may run them."""

    def __init__(
        self, database: Database, knowledge: Knowledge, group: str, topic: str, machine: Clock = machine_now
    ) -> None:
        self._database = database
        self._knowledge = knowledge
        self._group = group
        self._topic = topic
        self._machine = machine
        self._chores = Chores(database, machine)
        self._terms_seen: tuple[int, int] | None = None
        self._terms_asked_at: datetime | None = None
        self._parked_after: int | None = None

    async def round(self) -> int:
        """One bounded round; returns how much it found to do."""
        async with self._database.reading(CatalogStore) as store:
            await self._knowledge.refresh(store)
        async with self._database.reading(HousekeepingStore) as keeper:
            read_through = await keeper.read_through(self._group, self._topic)
        now = self._knowledge.clock.now()
        did = await self._chores.round(now)
        did += await self._sweep(now, read_through)
        did += await self._look_at_due(now, read_through)
        return did + await self._look_at_parked(now, read_through)

    async def _sweep(self, now: datetime, read_through: Mapping[int, datetime]) -> int:
        """Passes once over the rides that are old enough; what is still open is watched from then on.

        A number is minted after its partition's past was read, so nothing smaller than that can still be committed.
        """
        if not read_through:
            return 0
        settled_at = min(now - shortest_wait(self._knowledge.catalog), *read_through.values())
        until = ride_number(settled_at, 0)
        async with self._database.transaction(HousekeepingStore) as store:
            after = await store.swept_through()
            if until <= after:
                return 0
            step = await store.sweep_step(after, until, SWEEP_REVISIONS_MAX)
            watched = await store.watch_open(after, step, now)
            moved = await store.move_sweep(after, step)
        return watched + (moved and step < until)

    async def _look_at_due(self, now: datetime, read_through: Mapping[int, datetime]) -> int:
        async with self._database.reading(HousekeepingStore) as store:
            due = await store.due_rides(now, RIDES_MAX)
        decisions = await self._decide(due, now, read_through)
        await self._settle(due, decisions, now, read_through)
        return sum(decision.revision is not None for decision in decisions) + (len(due) == RIDES_MAX)

    async def _look_at_parked(self, now: datetime, read_through: Mapping[int, datetime]) -> int:
        """Parked rides, before they are due: all of them once, whenever an agreement or a tariff is new."""
        async with self._database.reading(HousekeepingStore) as store:
            if self._parked_after is None and not await self._new_terms(store):
                return 0
            page = await store.parked_rides(self._parked_after or 0, RIDES_MAX)
        decisions = await self._decide(page, now, read_through)
        self._parked_after = page[-1].ride_no if len(page) == RIDES_MAX else None
        taken_up = [decision for decision in decisions if decision.revision is not None]
        await self._settle(page, taken_up, now, read_through)
        return len(taken_up)

    async def _new_terms(self, store: HousekeepingStore) -> bool:
        """Whether there is anything that was not there when parked rides were last looked at."""
        at = self._machine()
        if self._terms_asked_at is not None and (at - self._terms_asked_at).total_seconds() < PARKED_SECONDS:
            return False
        self._terms_asked_at = at
        newest = await store.newest_terms()
        new = newest != self._terms_seen
        self._terms_seen = newest
        return new

    async def _decide(
        self, rows: Sequence[Watched], now: datetime, read_through: Mapping[int, datetime]
    ) -> list[Decision]:
        """Decides about watched rides; one that our own rules trip over is set aside, loudly, and the others go on."""
        if not rows:
            return []
        looked = _Look(self._topic, read_through)
        try:
            return await decide_rides(
                self._database, self._knowledge, looked.decide, numbers=[row.ride_no for row in rows]
            )
        except UNAVAILABLE:
            raise
        except RACES as error:
            LOG.info("somebody else keeps deciding about these rides", error=type(error).__name__, rides=len(rows))
            return []
        except Exception:
            if len(rows) > 1:
                middle = len(rows) // 2
                halves = rows[:middle], rows[middle:]
                return [decision for half in halves for decision in await self._decide(half, now, read_through)]
            LOG.exception("a ride can't be decided: our error", ride_no=rows[0].ride_no)
            async with self._database.transaction(HousekeepingStore) as store:
                await store.look_again({rows[0]: now + BROKEN_RETRY})
            return []

    async def _settle(
        self,
        rows: Sequence[Watched],
        decisions: Sequence[Decision],
        now: datetime,
        read_through: Mapping[int, datetime],
    ) -> None:
        """When to look at each decided ride again, if ever."""
        looked = _Look(self._topic, read_through)
        states = {decision.ride.ride_no: decision.ride for decision in decisions}
        seen = [row for row in rows if row.ride_no in states]
        dues = {row: looked.again_at(states[row.ride_no], self._knowledge.catalog, row, now) for row in seen}
        async with self._database.transaction(HousekeepingStore) as store:
            await store.look_again({row: due_at for row, due_at in dues.items() if due_at is not None})
            await store.stop_watching(row for row, due_at in dues.items() if due_at is None)


class _Look(msgspec.Struct, frozen=True):
    """How a watched ride is looked at, given how far each partition was read."""

    topic: str
    read_through: Mapping[int, datetime]

    def decide(self, ride: Ride, catalog: Catalog, book: BalanceBook, now: datetime) -> Revision | None:
        """What its time, or what it waits for, makes of a ride."""
        if ride.state is SessionState.PARKED:
            return reconsider(ride, catalog, book, now, "recheck")
        until = deadline(ride.session, ride.operator, catalog) if ride.state in WAITING else None
        if until is None or until > now or not self._all_read(ride, until):
            return None
        return reconsider(ride, catalog, book, now, "deadline")

    def again_at(self, ride: Ride, catalog: Catalog, row: Watched, now: datetime) -> datetime | None:
        """When it is to be looked at again; None: never by itself."""
        later = 1 << min(row.attempts, 4)
        if ride.state is SessionState.PARKED:
            return now + RECHECK_AFTER * later
        if ride.state not in WAITING:
            return None
        until = deadline(ride.session, ride.operator, catalog)
        return until if until is not None and until > now else now + UNREAD_RETRY * later

    def _all_read(self, ride: Ride, until: datetime) -> bool:
        """Whether nothing from before `until` can be unread on the partitions that the ride's events came from."""
        places = {event.position.partition for event in ride.session.events() if event.position.topic == self.topic}
        through = [self.read_through.get(partition) for partition in places or self.read_through]
        return bool(through) and all(at is not None and at >= until for at in through)
