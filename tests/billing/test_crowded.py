"""Rides of which far too much is said: what they take is bounded, and so is what is told of them."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace
from ride_builders import NOON, OPERATOR, World, adjustment, at, catalog, event, whole

from service.billing.adjustments import AdjustmentError
from service.billing.announcements import announce
from service.billing.batch import Advance, Arrival, advance
from service.billing.catalog import BalanceBook
from service.billing.events import RideEvent
from service.billing.extent import CONFLICTS_MAX, DECISIONS_MAX, EVENTS_MAX, EVENTS_SPARE
from service.billing.keys import session_key_bytes
from service.billing.rides import Ride
from service.billing.sessions import SessionState

KEY = session_key_bytes(OPERATOR.operator_id, "s-1")
KAFKA_TAKES = 1_000_000


def taken(*batches: list[RideEvent], known: dict[bytes, Ride] | None = None) -> tuple[Ride, list[Advance]]:
    """The ride after these batches, and what each of them decided."""
    rides = dict(known or {})
    decisions = []
    for batch in batches:
        arrivals = [Arrival(KEY, OPERATOR, item) for item in batch]
        decision = advance(rides, arrivals, catalog(), BalanceBook(), NOON + timedelta(days=9), lambda: 1)
        rides |= {revision.ride.key: revision.ride for revision in decision.revisions}
        decisions.append(decision)
    return rides[KEY], decisions


def flaps(count: int, since: int = 0, **fields: Any) -> list[RideEvent]:
    """So many pauses and resumptions, a second apart."""
    return [
        event(("paused", "resumed")[number % 2], 1 + number / 60, f"flap-{number}", **fields)
        for number in range(since, since + count)
    ]


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_a_ride_takes_so_many_pauses_in_however_many_batches_and_its_end_all_the_same(parts: int) -> None:
    told = [event("started", 0), *flaps(EVENTS_MAX + 50)]
    cuts = [len(told) * part // parts for part in range(parts + 1)]
    ride, decisions = taken(*(told[since:until] for since, until in pairwise(cuts)), [event("ended", 200)])
    assert len(ride.session.counted) == EVENTS_MAX + 1
    assert sum(len(decision.excess) for decision in decisions) == 51
    assert (ride.state, ride.reason, ride.charge) == (SessionState.REVIEW, "too_many_events", None)
    again, (repeated,) = taken(told, known={KEY: ride})
    assert again == ride
    assert (repeated.duplicates, len(repeated.excess)) == (EVENTS_MAX, 51), "what it has is no excess"
    fixed, _ = taken([event("corrected", 201, corrected_end=at(200), reason="a lock flaps")], known={KEY: ride})
    assert fixed.state is SessionState.CLOSED


def test_of_what_contradicts_itself_so_much_is_kept() -> None:
    """Each such event cost the square of what the ride had: 2,000 starts took 21 seconds."""
    twins = [event("started", number / 60, f"start-{number}") for number in range(10_000)]
    ride, (decision,) = taken(twins)
    assert (len(ride.session.counted), len(ride.session.conflicts)) == (1 + CONFLICTS_MAX, CONFLICTS_MAX)
    assert len(decision.excess) == 10_000 - 1 - CONFLICTS_MAX
    ended, _ = taken([event("ended", 200)], known={KEY: ride})
    assert ended.session.counted[-1].kind == "ended"


def test_a_ride_is_corrected_and_adjusted_so_often() -> None:
    fixes = [
        event("corrected", 30 + number, f"fix-{number}", corrected_end=at(20 + number % 5), reason="again")
        for number in range(DECISIONS_MAX + 5)
    ]
    ride, (_, decision) = taken(list(whole("s-1")), fixes)
    assert len(decision.excess) == 5
    assert sum(item.kind == "corrected" for item in ride.session.counted) == DECISIONS_MAX
    world = World()
    world.take(*whole("s-1"))
    for number in range(DECISIONS_MAX):
        world.adjust(adjustment("extra", 1, f"extra-{number}"))
    assert world.adjust(adjustment("extra", 1, "extra-0")) is None
    with pytest.raises(AdjustmentError, match="takes no more") as refused:
        world.adjust(adjustment("extra", 1, "one more"))
    assert refused.value.code == "too_many"


def test_what_is_told_of_the_fullest_ride_is_taken_by_kafka() -> None:
    """A fact of more than a megabyte stopped the facts of all rides for ever: Kafka refuses it each time."""
    wide = "\U0001f6b2" * 200
    told = [event("started", 0, wide), *flaps(EVENTS_MAX), *(event("ended", 200 + n, f"{wide}{n}") for n in range(200))]
    ride, (decision,) = taken([replace(item, source=wide) for item in told])
    assert 90 < len(ride.session.conflicts) <= CONFLICTS_MAX
    assert len(ride.session.counted) <= EVENTS_MAX + EVENTS_SPARE
    facts = [fact for revision in decision.revisions for fact in announce(revision, NOON)]
    assert len(facts) == 2
    assert max(len(fact.value) for fact in facts) < KAFKA_TAKES
