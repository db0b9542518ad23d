"""Clocks that are wrong: what lies far ahead is left to people, whatever event says it."""

from __future__ import annotations

import pytest
from ride_builders import World, at, catalog, event, tariff, told

from service.billing.events import Kind
from service.billing.sessions import SessionState

REVIEW, CLOSED = SessionState.REVIEW, SessionState.CLOSED
START = event("started", 0)
DAY = 1440


def outcome(found: World) -> tuple[SessionState, str | None, int | None]:
    ride = found.ride()
    return ride.state, ride.reason, found.total()


FUTURE = {
    "a start": [event("started", 30)],
    "an end": [START, event("ended", 30)],
    "a cancellation": [START, event("cancelled", 30)],
}


def test_a_reservation_that_ends_far_ahead_and_a_last_sign_that_does_are_left_to_people() -> None:
    found = told([])
    found.take(event("reservation_started", 525_600), event("reservation_cancelled", 525_610), now=1)
    assert outcome(found) == (REVIEW, "time_in_the_future", None)
    found = told([], catalog(tariff({"lost_end": {"after_hours": 24, "charge": "last_sign"}})))
    found.take(START, event("paused", 6000), now=5)
    found.look(DAY + 1, "deadline")
    assert outcome(found) == (REVIEW, "time_in_the_future", None)


def test_a_start_whose_time_has_come_is_still_left_to_people() -> None:
    found = told([])
    found.take(event("started", 60), now=0)
    found.take(event("paused", 65), now=66)
    found.take(event("ended", 70), now=71)
    assert outcome(found) == (REVIEW, "time_in_the_future", None)


@pytest.mark.parametrize("what", FUTURE)
def test_what_lies_far_ahead_is_never_charged_by_itself(what: str) -> None:
    found = told([])
    found.take(*FUTURE[what], now=1)
    assert outcome(found) == (REVIEW, "time_in_the_future", None)
    found.take(event("ended", 40, "late"), now=200)
    assert outcome(found) == (REVIEW, "time_in_the_future", None)
    assert found.look(300, "recheck") is None
    assert found.look(300, "deadline") is None
    found.take(event("corrected", 300, corrected_end=at(45)))
    assert outcome(found)[0] == CLOSED


@pytest.mark.parametrize("kind", ["ended", "cancelled"])
def test_an_end_far_ahead_awaits_no_start_for_as_long(kind: Kind) -> None:
    found = told([])
    found.take(event(kind, 5_256_000), now=1)
    assert outcome(found) == (REVIEW, "time_in_the_future", None)
    found.take(START, now=2)
    assert outcome(found) == (REVIEW, "time_in_the_future", None)
    found.take(event("paused", 5_256_000), now=5_256_001)
    found.take(event("corrected", 5_256_002, corrected_end=at(20)))
    assert outcome(found) == (CLOSED, None, 250)


def test_a_little_ahead_is_only_another_clock() -> None:
    found = told([])
    found.take(START, event("ended", 15), now=0)
    assert outcome(found) == (CLOSED, None, 150)
