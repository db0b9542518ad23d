"""Decisions about rides by everybody but the intake: `keep` at a deadline, an operator's correction or adjustment.

Rides are read, decided without a lock, and appended under the unique (ride, revision): whoever comes second reads again
and decides anew. Rides whose slots are of one group share a transaction and a numbered batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import msgspec

from service.adapters.clock import machine_now
from service.adapters.postgres import RACES, Database
from service.adapters.postgres.batches import writer_name
from service.adapters.postgres.rides import RideStore
from service.billing.adjustments import AdjustmentError, adjust, check_adjustment
from service.billing.batch import Arrival, advance
from service.billing.catalog import BalanceBook, Catalog, Operator
from service.billing.events import Adjustment, RideEvent
from service.billing.extent import DECISIONS_MAX
from service.billing.keys import session_key_bytes, slot_of
from service.billing.rides import Revision, Ride
from service.flows.knowledge import Knowledge
from service.telemetry import CHARGED, REVISIONS

RACES_MAX = 10
"""How often a decision is taken anew before its rides are left to whoever keeps coming first."""

Decide = Callable[[Ride, Catalog, BalanceBook, datetime], Revision | None]
"""What to append about a ride, or None. Pure: it is asked again with locked balances, or on newer knowledge."""


class CrowdedError(ValueError):
    """A ride has so many decisions that it takes no more; the message says so."""


class Decision(msgspec.Struct, frozen=True):
    """A ride as it was when it was decided, and what was appended about it, if anything."""

    before: Ride
    revision: Revision | None

    @property
    def ride(self) -> Ride:
        """The ride as it stands now."""
        return self.before if self.revision is None else self.revision.ride


def taking_in(event: RideEvent) -> Decide:
    """The decision that an operator's own event (`corrected`, `voided`) asks for; taken in already, it says nothing.

    It raises CrowdedError where the ride takes no more of them.
    """

    def decide(ride: Ride, catalog: Catalog, book: BalanceBook, now: datetime) -> Revision | None:
        arrivals = [Arrival(ride.key, ride.operator, event)]
        decision = advance({ride.key: ride}, arrivals, catalog, book, now, _no_new_ride)
        if decision.excess:
            raise CrowdedError(
                f"the ride was corrected {DECISIONS_MAX} times, or contradicted as often: it takes no more"
            )
        return next(iter(decision.revisions), None)

    return decide


async def adjust_ride(
    database: Database,
    knowledge: Knowledge,
    operator: Operator,
    session_id: str,
    adjustment: Adjustment,
    *,
    role: str = "operator",
) -> Decision:
    """An extra charge, goodwill or a refund of a ride that is charged: decided, and committed with what it owes then.

    `revision` is None where the ride has this adjustment already: the same id twice does nothing the second time. The
    money follows by netting, as for a correction. Raises AdjustmentError, and then nothing was changed; one of RACES
    as `decide_rides` does.
    """

    def decide(ride: Ride, catalog: Catalog, book: BalanceBook, now: datetime) -> Revision | None:
        return adjust(ride, adjustment, now)

    check_adjustment(adjustment)
    key = session_key_bytes(operator.operator_id, session_id)
    decisions = await decide_rides(database, knowledge, decide, keys=[key], role=role)
    if not decisions:
        raise AdjustmentError("unknown_session", f"there is no ride {session_id!r}")
    return decisions[0]


async def decide_rides(
    database: Database,
    knowledge: Knowledge,
    decide: Decide,
    *,
    numbers: Iterable[int] = (),
    keys: Iterable[bytes] = (),
    also: Sequence[RideEvent] = (),
    role: str = "keep",
) -> list[Decision]:
    """Decides about rides by number or session key and commits it; those that do not exist are left out.

    `also` are events that the decision will take in, so that the agreements they name are looked up. Raises one of
    RACES when somebody else came first RACES_MAX times in a row; groups that were decided before stay decided.
    """
    async with database.reading(RideStore) as store:
        rides = await _read(store, knowledge, numbers, keys, also)
    groups: dict[str, list[Ride]] = {}
    for ride in rides:
        groups.setdefault(writer_name(role, slot_of(ride.key)), []).append(ride)
    decisions: list[Decision] = []
    for writer, group in sorted(groups.items()):
        decisions += await _decide_group(database, knowledge, decide, writer, group, also)
    return decisions


async def _decide_group(
    database: Database,
    knowledge: Knowledge,
    decide: Decide,
    writer: str,
    rides: Sequence[Ride],
    also: Sequence[RideEvent],
) -> list[Decision]:
    """One transaction, taken again from the reading on when somebody else decided first."""
    for attempt in range(1, RACES_MAX + 1):
        book, now = BalanceBook(), knowledge.clock.now()
        decisions = _decided(rides, decide, knowledge.catalog, book, now)
        if all(decision.revision is None for decision in decisions):
            return decisions
        try:
            async with database.transaction(RideStore) as store:
                if book.asked:
                    book = BalanceBook(await store.lock_balances(book.asked))
                    decisions = _decided(rides, decide, knowledge.catalog, book, now)
                revisions = [decision.revision for decision in decisions if decision.revision is not None]
                await store.write_batch(writer, revisions, now, machine_now())
        except RACES:
            if attempt == RACES_MAX:
                raise
            async with database.reading(RideStore) as store:
                rides = await _read(store, knowledge, [ride.ride_no for ride in rides], (), also)
            continue
        _count(decisions)
        return decisions
    raise AssertionError  # The last attempt has returned or raised.


def _decided(
    rides: Sequence[Ride], decide: Decide, catalog: Catalog, book: BalanceBook, now: datetime
) -> list[Decision]:
    return [Decision(ride, decide(ride, catalog, book, now)) for ride in rides]


async def _read(
    store: RideStore,
    knowledge: Knowledge,
    numbers: Iterable[int],
    keys: Iterable[bytes],
    also: Sequence[RideEvent],
) -> list[Ride]:
    """The rides by number, with everything their decision looks at."""
    rides = await store.read_rides(numbers, knowledge.operators)
    asked = [key for key in keys if key not in rides]
    if asked:
        rides |= await store.find_rides(asked, knowledge.operators)
    named = {
        (ride.operator.operator_no, event.agreement_id)
        for ride in rides.values()
        for event in (*ride.session.counted, *also)
        if event.agreement_id is not None
    }
    await knowledge.learn_agreements(store, named)
    return sorted(rides.values(), key=lambda ride: ride.ride_no)


def _count(decisions: Sequence[Decision]) -> None:
    for decision in decisions:
        if decision.revision is not None:
            REVISIONS.labels(decision.ride.state).inc()
            if decision.revision.charge is not None:
                charge = decision.revision.charge.charge
                CHARGED.labels(charge.currency).inc(charge.total_minor)


def _no_new_ride() -> int:
    raise AssertionError("a ride that is there needs no number")
