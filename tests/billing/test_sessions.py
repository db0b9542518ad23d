"""Folding events: what counts, what contradicts, what says nothing new."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from ride_builders import NOON, at, event

from service.billing.events import RideEvent
from service.billing.sessions import (
    Session,
    SessionState,
    Usage,
    course,
    decided,
    last_sign,
    microseconds,
    reservation_usage,
    review_reason,
    take,
    take_all,
    usage,
)

NOTHING = Session()
RODE = Usage(started_at=NOON, ended_at=at(20), duration_us=1_200_000_000)


def fold(*events: RideEvent, session: Session = NOTHING) -> Session:
    for item in events:
        session, _ = take(session, item)
    return session


def used(*events: RideEvent) -> Usage:
    session = fold(*events)
    told = course(session)
    assert told.ended_at is not None
    return usage(session, told, told.ended_at)


START, END = event("started", 0), event("ended", 20)

AGAIN: dict[str, tuple[list[RideEvent], str]] = {
    "the same id and content": ([START, START], "duplicate"),
    "the same id and other content": ([START, event("started", 1)], "conflict"),
    "the same id and other content, twice": ([START, event("started", 1), event("started", 1)], "duplicate"),
    "the same id, once a start and once an end": ([START, event("ended", 20, "started")], "conflict"),
    "another id and the same content": ([START, event("started", 0, "again")], "duplicate"),
    "another id and other content": ([START, event("started", 1, "again")], "conflict"),
    "another id that says what a conflict said": (
        [START, event("started", 1), event("started", 1, "again")],
        "duplicate",
    ),
    "a second pause": ([START, event("paused", 3), event("paused", 5, "p2")], "counted"),
    "another tariff on the end": ([START, event("ended", 20, tariff_id="dear")], "conflict"),
    "another agreement on the end": ([START, event("ended", 20, agreement_id="agr-2")], "conflict"),
    "the other half": ([END, START], "counted"),
}


@pytest.mark.parametrize("what", AGAIN)
def test_the_last_of_these_events_is(what: str) -> None:
    events, expected = AGAIN[what]
    _, taken = take(fold(*events[:-1]), events[-1])
    assert taken == expected


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_least_of_differing_ends_counts_in_any_order(order: tuple[int, ...]) -> None:
    ends = [event("ended", 25, "a"), event("ended", 20, "c"), event("ended", 20, "b", distance=7)]
    session = fold(START, *(ends[index] for index in order))
    assert course(session).end == ends[2]
    assert len(session.conflicts) == 2


AFTER: dict[str, tuple[Usage | None, SessionState, list[RideEvent], RideEvent, str]] = {
    "a second end after the charge": (RODE, SessionState.CLOSED, [START, END], event("ended", 30, "e2"), "conflict"),
    "a late pause": (RODE, SessionState.CLOSED, [START, END], event("paused", 5), "conflict"),
    "a correction": (RODE, SessionState.CLOSED, [START, END], event("corrected", 60), "counted"),
    "a void": (RODE, SessionState.CLOSED, [START, END], event("voided", 60), "counted"),
    "a pause of a charged ride in review": (RODE, SessionState.REVIEW, [START, END], event("paused", 5), "conflict"),
    "the true end of a lost one": (
        Usage(started_at=NOON, ended_at=at(1440), duration_us=0, lost_end="ride_max"),
        SessionState.CLOSED,
        [START],
        END,
        "counted",
    ),
    "a late cancellation of a lost one": (
        Usage(started_at=NOON, ended_at=at(1440), duration_us=0, lost_end="ride_max"),
        SessionState.CLOSED,
        [START],
        event("cancelled", 0.5),
        "counted",
    ),
    "a late pause of a lost one": (
        Usage(started_at=NOON, ended_at=at(1440), duration_us=0, lost_end="ride_max"),
        SessionState.CLOSED,
        [START],
        event("paused", 5),
        "counted",
    ),
    "the ride after its reservation was charged": (
        Usage(started_at=NOON, ended_at=NOON, duration_us=0, rode=False),
        SessionState.CLOSED,
        [event("reservation_started", -20)],
        START,
        "counted",
    ),
    "a ride of another rider after its reservation was charged": (
        Usage(started_at=NOON, ended_at=NOON, duration_us=0, rode=False),
        SessionState.CLOSED,
        [event("reservation_started", -20)],
        event("started", 0, agreement_id="agr-2"),
        "conflict",
    ),
    "a ride of another tariff after its reservation was charged": (
        Usage(started_at=NOON, ended_at=NOON, duration_us=0, rode=False),
        SessionState.CLOSED,
        [event("reservation_started", -20)],
        event("started", 0, tariff_id="van"),
        "conflict",
    ),
    "another reservation of the same": (
        Usage(started_at=NOON, ended_at=NOON, duration_us=0, rode=False),
        SessionState.CLOSED,
        [event("reservation_started", -20)],
        event("reservation_started", -10, "again"),
        "conflict",
    ),
    "the late end of a reservation that ran out": (
        Usage(started_at=NOON, ended_at=NOON, duration_us=0, rode=False),
        SessionState.CLOSED,
        [event("reservation_started", -20)],
        event("reservation_cancelled", -10),
        "counted",
    ),
    "another end of a reservation that was given up": (
        Usage(started_at=NOON, ended_at=NOON, duration_us=0, rode=False),
        SessionState.CLOSED,
        [event("reservation_started", -20), event("reservation_cancelled", -10)],
        event("reservation_cancelled", -5, "again"),
        "conflict",
    ),
    "the end of a staff ride": (None, SessionState.NOT_BILLABLE, [event("started", 0, billable=False)], END, "counted"),
    "the end of a voided ride": (None, SessionState.VOIDED, [START, event("voided", 5)], END, "counted"),
    "the end of a cancelled ride": (None, SessionState.CANCELLED, [START, event("cancelled", 0.5)], END, "conflict"),
    "the end of an open ride": (None, SessionState.OPEN, [START], END, "counted"),
}


@pytest.mark.parametrize("what", AFTER)
def test_after_the_decision(what: str) -> None:
    charged, state, before, late, expected = AFTER[what]
    session = decided(fold(*before), state, charged)
    after, taken = take(session, late)
    assert taken == expected
    assert (late in after.counted, late in after.conflicts) == (expected == "counted", expected == "conflict")
    assert take(after, late)[1] == "duplicate", "what was recorded once says nothing new"


kinds = st.sampled_from(["started", "paused", "resumed", "ended", "cancelled", "reservation_started", "corrected"])
some_events = st.lists(
    st.builds(
        lambda kind, minute, number, distance: event(kind, minute, f"e{number}", distance=distance),
        kinds,
        st.integers(0, 4),
        st.integers(0, 6),
        st.sampled_from([None, 5]),
    ),
    max_size=9,
)


@given(some_events)
def test_taking_everything_again_changes_nothing(events: list[RideEvent]) -> None:
    session = fold(*events)
    assert fold(*events, session=session) == session
    assert fold(*reversed(events), session=session) == session


@given(some_events, st.sampled_from(list(SessionState)))
def test_a_decided_session_takes_nothing_twice(events: list[RideEvent], state: SessionState) -> None:
    session = decided(fold(*events[:4]), state, None)
    once = fold(*events, session=session)
    assert fold(*events, session=once) == once


named = st.builds(
    lambda item, agreement_id, tariff_id: replace(item, agreement_id=agreement_id, tariff_id=tariff_id),
    some_events.filter(bool).map(lambda events: events[0]),
    st.sampled_from([None, "agr-1", "agr-2"]),
    st.sampled_from([None, "city"]),
)


@given(st.lists(named, max_size=12), st.lists(named, max_size=6), st.sampled_from([None, *SessionState]))
def test_many_events_at_once_are_what_they_are_one_by_one(
    before: list[RideEvent], events: list[RideEvent], state: SessionState | None
) -> None:
    session = take_all(Session(), before)
    assert session == fold(*before)
    session = session if state is None else decided(session, state, None)
    assert take_all(session, events) == fold(*events, session=session)


@given(st.permutations([START, END, event("paused", 3), event("resumed", 8), event("reservation_started", -5)]))
def test_the_order_of_arrival_does_not_change_the_usage(events: list[RideEvent]) -> None:
    assert used(*events) == used(START, END, event("paused", 3), event("resumed", 8), event("reservation_started", -5))


PAUSES: dict[str, tuple[list[RideEvent], list[tuple[float, float]]]] = {
    "none": ([], []),
    "one": ([event("paused", 3), event("resumed", 8)], [(3, 8)]),
    "two": (
        [event("paused", 3), event("resumed", 8), event("paused", 9, "b"), event("resumed", 10, "c")],
        [(3, 8), (9, 10)],
    ),
    "one that ends in the second in which another begins": (
        [event("paused", 3), event("resumed", 8), event("paused", 8, "b"), event("resumed", 10, "c")],
        [(3, 10)],
    ),
    "never resumed": ([event("paused", 3)], [(3, 20)]),
    "paused twice": ([event("paused", 3), event("paused", 5, "b"), event("resumed", 8)], [(3, 8)]),
    "resumed twice": ([event("paused", 3), event("resumed", 8), event("resumed", 9, "b")], [(3, 8)]),
    "resumed without a pause": ([event("resumed", 8)], []),
    "paused before the start": ([event("paused", -5), event("resumed", 2)], [(0, 2)]),
    "resumed after the end": ([event("paused", 18), event("resumed", 25)], [(18, 20)]),
    "outside of the ride": ([event("paused", 21), event("resumed", 25)], []),
    "of no length": ([event("paused", 5), event("resumed", 5)], []),
}


@pytest.mark.parametrize("what", PAUSES)
def test_pauses_lie_inside_the_ride_sorted_and_disjoint(what: str) -> None:
    events, expected = PAUSES[what]
    assert used(START, *events, END).pauses == tuple((at(a), at(b)) for a, b in expected)


@given(st.lists(st.tuples(st.sampled_from(["paused", "resumed"]), st.integers(-5, 25)), max_size=8))
def test_any_marks_make_pauses_inside_the_ride(marks: list[tuple[Any, int]]) -> None:
    pauses = used(START, *(event(kind, minute, f"p{n}") for n, (kind, minute) in enumerate(marks)), END).pauses
    edges = [instant for pause in pauses for instant in pause]
    assert edges == sorted(edges)
    assert all(since < until for since, until in pauses)
    assert all(NOON <= edge <= at(20) for edge in edges)


CORRECTIONS: dict[str, tuple[list[RideEvent], dict[str, Any]]] = {
    "an end": ([event("corrected", 60, corrected_end=at(10))], {"ended_at": at(10)}),
    "a start": ([event("corrected", 60, corrected_start=at(5))], {"started_at": at(5)}),
    "a distance": ([event("corrected", 60, distance=9)], {"meters": 9}),
    "a distance of nothing": ([event("corrected", 60, distance=0)], {"meters": 0}),
    "a category and fees": (
        [event("corrected", 60, parking_category="invalid", zone_fees=("OUT",))],
        {"parking_category": "invalid", "zone_fees": ("OUT",)},
    ),
    "a fee that was none": (
        [event("corrected", 60, zone_fees=("OUT",)), event("corrected", 61, "c2", zone_fees=())],
        {"zone_fees": ()},
    ),
    "what the second does not say stays as the first left it": (
        [event("corrected", 60, corrected_end=at(10)), event("corrected", 61, "c2", distance=9)],
        {"ended_at": at(10), "meters": 9},
    ),
    "the last word counts": (
        [event("corrected", 60, corrected_end=at(10)), event("corrected", 61, "c2", corrected_end=at(11))],
        {"ended_at": at(11)},
    ),
}


@pytest.mark.parametrize("what", CORRECTIONS)
def test_a_correction_is_laid_over_the_events(what: str) -> None:
    corrections, expected = CORRECTIONS[what]
    end = event("ended", 20, distance=1200, parking_category="rack")
    plain = {"started_at": NOON, "ended_at": at(20), "meters": 1200, "parking_category": "rack", "zone_fees": ()}
    found = used(START, end, *corrections)
    assert {name: getattr(found, name) for name in plain} == {**plain, **expected}
    assert found.duration_us == microseconds(found.started_at, found.ended_at)


def test_a_reservation_lasts_until_the_ride_or_until_it_is_given_up() -> None:
    reserved = event("reservation_started", -10)
    assert used(reserved, START, END).reserved_us == 600_000_000
    assert used(reserved, event("reservation_cancelled", -4), START, END).reserved_us == 360_000_000
    assert used(event("reservation_started", 3), START, END).reserved_us == 0
    assert used(START, END).reserved_us is None
    alone = reservation_usage(reserved, at(-2))
    assert (alone.rode, alone.reserved_us, alone.duration_us) == (False, 480_000_000, 0)


def test_the_last_sign_of_life_is_the_latest_event() -> None:
    assert last_sign(fold(START, event("paused", 7), event("resumed", 3))) == at(7)


REVIEWS = {
    "an ordinary ride": (at(20), 100, None),
    "a ride of no length": (NOON, None, None),
    "an end before the start": (at(-1), None, "ended_before_start"),
    "a negative distance": (at(20), -1, "negative_distance"),
    "as far as can be": (at(20), 2**31 - 1, None),
    "farther than can be": (at(20), 2**31, "distance_out_of_range"),
    "exactly the longest": (NOON + timedelta(hours=720), None, None),
    "a moment longer": (NOON + timedelta(hours=720, microseconds=1), None, "longer_than_ride_hours_max"),
}


@pytest.mark.parametrize("what", REVIEWS)
def test_somebody_must_look_at(what: str) -> None:
    ended_at, distance, expected = REVIEWS[what]
    assert review_reason(NOON, ended_at, distance) == expected


@given(st.datetimes(), st.datetimes())
def test_microseconds_are_exact(since: Any, until: Any) -> None:
    assert timedelta(microseconds=microseconds(since, until)) == until - since
