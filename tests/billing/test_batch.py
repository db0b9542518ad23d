"""The whole decision of the intake and of `keep`, row by row of the design's table of difficult events."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from ride_builders import World, at, catalog, event, tariff, told, whole

from service.billing.announcements import announce
from service.billing.catalog import AgreementRef, Operator, TariffVersion
from service.billing.events import RideEvent
from service.billing.rides import Revision
from service.billing.sessions import SessionState
from service.billing.verdicts import lead_event

START, END = event("started", 0), event("ended", 20)
DAY = 1440

Batches = list[list[RideEvent]]
REVIEW, CLOSED, PARKED, OPEN = SessionState.REVIEW, SessionState.CLOSED, SessionState.PARKED, SessionState.OPEN


def outcome(found: World) -> tuple[str, str | None, int | None]:
    ride = found.ride()
    return ride.state, ride.reason, found.total()


DIFFICULT: dict[str, tuple[Batches, tuple[str, str | None, int | None]]] = {
    "start and end": ([[START, END]], (CLOSED, None, 250)),
    "start, then end": ([[START], [END]], (CLOSED, None, 250)),
    "end, then start": ([[END], [START]], (CLOSED, None, 250)),
    "only a start": ([[START]], (OPEN, None, None)),
    "only an end": ([[END]], (SessionState.INCOMPLETE, "start_missing", None)),
    "only a pause": ([[event("paused", 5)]], (SessionState.INCOMPLETE, "start_missing", None)),
    "the same twice": ([[START, START], [END, START], [END]], (CLOSED, None, 250)),
    "the same id, other content": ([[START, event("started", 5)], [END]], (CLOSED, None, 250)),
    "two starts that differ": ([[START], [event("started", -20, "other")], [END]], (CLOSED, None, 350)),
    "two ends that differ, at once": ([[START, event("ended", 50, "other"), END]], (CLOSED, None, 250)),
    "a second end after the charge": ([[START, END], [event("ended", 50, "other")]], (CLOSED, None, 250)),
    "an earlier second end after the charge": ([[START, END], [event("ended", 10, "other")]], (CLOSED, None, 250)),
    "a late pause": ([[START, END], [event("paused", 3)]], (CLOSED, None, 250)),
    "end before start": ([[START, event("ended", -1)]], (REVIEW, "ended_before_start", None)),
    "negative distance": ([[START, event("ended", 20, distance=-5)]], (REVIEW, "negative_distance", None)),
    "longer than the longest": ([[START, event("ended", 31 * DAY)]], (REVIEW, "longer_than_ride_hours_max", None)),
    "an unknown agreement": (
        [[event("started", 0, agreement_id="agr-9"), event("ended", 20, agreement_id="agr-9")]],
        (PARKED, "unknown_agreement", None),
    ),
    "an unknown tariff": (
        [[event("started", 0, tariff_id="none"), event("ended", 20, tariff_id="none")]],
        (PARKED, "unknown_tariff", None),
    ),
    "an unknown version": ([[event("started", 0, tariff_version=9), END]], (PARKED, "unknown_tariff_version", None)),
    "from before the first version": (
        [[event("started", -60 * DAY), event("ended", -60 * DAY + 20)]],
        (PARKED, "no_tariff_version_at_start", None),
    ),
    "an impossible ride with an unknown agreement": (
        [[event("started", 0, agreement_id="agr-9"), event("ended", -20, agreement_id="agr-9")]],
        (REVIEW, "ended_before_start", None),
    ),
    "another tariff on the end": ([[START, event("ended", 20, tariff_id="dear")]], (CLOSED, None, 250)),
    "another agreement on the end": ([[START, event("ended", 20, agreement_id="agr-2")]], (CLOSED, None, 250)),
    "cancelled within the free abort": (
        [[START], [event("cancelled", 1)]],
        (SessionState.CANCELLED, "within_free_abort", None),
    ),
    "cancelled later": ([[START], [event("cancelled", 20)]], (CLOSED, None, 250)),
    "cancelled before its start": ([[START], [event("cancelled", -1)]], (REVIEW, "ended_before_start", None)),
    "cancelled, without a start": ([[event("cancelled", 1)]], (SessionState.INCOMPLETE, "start_missing", None)),
    "a staff ride": (
        [[event("started", 0, billable=False, purpose="staff")], [END]],
        (SessionState.NOT_BILLABLE, "staff", None),
    ),
    "a staff ride of nobody's agreement": (
        [[event("started", 0, billable=False, agreement_id="agr-9")]],
        (SessionState.NOT_BILLABLE, None, None),
    ),
    "voided while open": ([[START], [event("voided", 5)], [END]], (SessionState.VOIDED, None, None)),
    "voided after the charge": ([[START, END], [event("voided", 60)]], (SessionState.VOIDED, None, None)),
    "corrected after the charge": ([[START, END], [event("corrected", 60, corrected_end=at(10))]], (CLOSED, None, 150)),
    "corrected to the impossible": (
        [[START, END], [event("corrected", 60, corrected_end=at(-10))]],
        (REVIEW, "ended_before_start", 250),
    ),
    "corrected to the impossible, and back": (
        [
            [START, END],
            [event("corrected", 60, corrected_end=at(-10))],
            [event("corrected", 61, "c2", corrected_end=at(20))],
        ],
        (CLOSED, None, 250),
    ),
    "a pause after a correction to the impossible": (
        [[START, END], [event("corrected", 60, corrected_end=at(-10))], [event("paused", 3)]],
        (REVIEW, "ended_before_start", 250),
    ),
    "a start by an operator, for an end": (
        [[END], [event("corrected", 60, corrected_start=at(0))]],
        (CLOSED, None, 250),
    ),
    "an end by an operator": ([[START], [event("corrected", 60, corrected_end=at(20))]], (CLOSED, None, 250)),
    "a reservation": ([[event("reservation_started", 0)]], (SessionState.RESERVED, None, None)),
    "a reservation read a day late": (
        [[event("reservation_started", 0), event("reservation_started", DAY, session="s-2")]],
        (SessionState.RESERVED, None, None),
    ),
    "a reservation given up": (
        [[event("reservation_started", 0)], [event("reservation_cancelled", 4.5)]],
        (CLOSED, "reservation", 50),
    ),
    "a reservation given up before it began": (
        [[event("reservation_started", 0), event("reservation_cancelled", -1)]],
        (REVIEW, "ended_before_start", None),
    ),
    "a ride with a reservation": ([[event("reservation_started", -10)], [START], [END]], (CLOSED, None, 350)),
}


@pytest.mark.parametrize("what", DIFFICULT)
def test_a_difficult_event(what: str) -> None:
    batches, expected = DIFFICULT[what]
    found = told(batches)
    assert outcome(found) == expected
    assert sum(found.owed()) == (found.total() or 0)
    for batch in batches:
        assert not found.take(*batch), "what is delivered again decides nothing"


def test_a_reservation_alone_costs_its_minutes() -> None:
    found = told([[event("reservation_started", 0)], [event("reservation_cancelled", 4.5)]])
    charge = found.ride().charge
    assert charge is not None
    assert [line.amount for line in charge.charge.lines if line.code == "reservation"] == [Decimal("0.50")]


def test_what_contradicts_is_recorded_and_told_once() -> None:
    for late in (event("ended", 50, "other"), event("paused", 3), event("ended", 50)):
        found = told([[START, END]])
        (revision,) = found.take(late)
        assert revision.conflicts == (late,)
        assert revision.owing_minor == 0
        assert [dict(fact.headers)["ce_type"] for fact in announce(revision, at(60))] == [
            b"io.farebox.billing.session.conflict.v1"
        ]
        assert not found.take(late)
        assert not found.take(msgspec.structs.replace(late, position=START.position))


def test_the_half_that_was_missing_completes_a_ride_however_late() -> None:
    found = told([[END]])
    revision = found.look(20 + DAY, "deadline")
    assert revision is not None
    assert outcome(found) == (REVIEW, "start_missing", None)
    found.take(event("paused", 3), now=3 * DAY)
    assert outcome(found) == (REVIEW, "start_missing", None), "a pause is not what is missing"
    found.take(START, now=4 * DAY)
    assert outcome(found)[0] == CLOSED


LOST: dict[str, tuple[dict[str, Any], tuple[str, str | None, int | None]]] = {
    "the maximum": ({}, (CLOSED, "end_missing", 3000)),
    "up to the last sign of life": (
        {"lost_end": {"after_hours": 24, "charge": "last_sign"}},
        (CLOSED, "end_missing", 250),
    ),
    "review": ({"lost_end": {"after_hours": 24, "charge": "review"}}, (REVIEW, "end_missing", None)),
    "no rule": ({"lost_end": None}, (REVIEW, "end_missing", None)),
}


@pytest.mark.parametrize("what", LOST)
def test_a_lost_end_is_closed_by_the_tariffs_rule_and_corrected_by_the_true_one(what: str) -> None:
    rules, expected = LOST[what]
    found = told([[START], [event("paused", 18), event("resumed", 19)]], catalog(tariff(rules)))
    assert found.look(DAY - 1, "deadline") is None
    found.look(DAY, "deadline")
    assert outcome(found) == expected
    assert found.look(DAY + 1, "deadline") is None
    assert found.ride().session.assumed_end == (expected[0] == CLOSED)
    found.take(event("paused", 5, "more"), now=DAY + 2)
    assert outcome(found) == expected, "a pause is not the end"
    found.take(event("ended", 40), now=DAY + 9)
    total = found.total()
    assert outcome(found) == (CLOSED, None, total)
    assert total is not None
    assert total < 3000
    assert sum(found.owed()) == total
    assert not found.ride().session.assumed_end
    found.take(event("ended", 41, "other"), now=DAY + 10)
    assert found.total() == total, "the second true end is a conflict"


@pytest.mark.parametrize("lost_end", ["ride_max", "last_sign"])
def test_pauses_that_come_late_with_the_true_end_count_as_if_they_had_come_in_time(lost_end: str) -> None:
    """A vehicle was off line for a day, and then tells it all at once, or bit by bit."""
    terms = catalog(tariff({"pause_rate": "0.01", "lost_end": {"after_hours": 24, "charge": lost_end}}))
    late = [event("paused", 3), event("resumed", 30), event("ended", 40)]
    in_time = told([[START, *late]], terms)
    assert in_time.total() != told([[START, event("ended", 40)]], terms).total()
    for batches in ([late], [[one] for one in late]):
        found = told([[START]], terms)
        found.look(DAY, "deadline")
        for number, batch in enumerate(batches):
            found.take(*batch, now=DAY + 1 + number)
        assert outcome(found) == outcome(in_time)
        assert found.ride().session.conflicts == ()
        assert sum(found.owed()) == in_time.total()
    found.take(event("paused", 35, "after the end"), now=DAY + 9)
    assert found.total() == in_time.total()
    assert len(found.ride().session.conflicts) == 1


def test_an_impossible_true_end_leaves_the_lost_ends_charge_until_a_better_one_comes() -> None:
    found = told([[START]])
    found.look(DAY, "deadline")
    found.take(event("ended", -5, "bad"), now=DAY + 1)
    assert outcome(found) == (REVIEW, "ended_before_start", 3000)
    found.take(event("corrected", DAY + 2, corrected_end=at(20)))
    assert outcome(found) == (CLOSED, None, 250)
    assert found.owed() == [3000, -2750]


def test_a_correction_without_an_end_is_rated_with_the_assumed_one() -> None:
    fees = tariff({"zone_fees": {"OUT": "5.00"}})
    found = told([[START]], catalog(fees))
    found.look(DAY, "deadline")
    found.take(event("corrected", DAY + 5, zone_fees=("OUT",)))
    assert outcome(found) == (CLOSED, "end_missing", 3500)
    assert found.ride().session.assumed_end


def test_a_lost_end_is_only_closed_at_its_deadline() -> None:
    found = told([[START]])
    assert found.look(2 * DAY, "events") is None
    assert found.look(2 * DAY, "recheck") is None
    found.take(event("paused", 5), now=2 * DAY)
    assert found.ride().state == OPEN, "the end may be the next record of the stream"


def test_a_reservation_runs_out_only_when_the_stream_was_read_so_far() -> None:
    found = told([[event("reservation_started", 0)]])
    assert found.look(15, "recheck") is None
    assert found.look(14, "deadline") is None
    found.look(15, "deadline")
    assert found.ride().state == CLOSED
    alone = found.total()
    assert alone is not None
    found.take(event("started", 16))
    assert outcome(found) == (OPEN, None, alone)
    assert found.look(DAY + 15, "deadline") is None
    found.take(event("ended", 36))
    total = found.total()
    assert found.ride().state == CLOSED
    assert found.owed() == [alone, (total or 0) - alone]


def unknown_tariff(found: World) -> None:
    known = tariff(name="new")
    found.catalog.add_tariffs({(1, "new"): [TariffVersion(7, 1, known.valid_from, known)]})


def unknown_agreement(found: World) -> None:
    found.catalog.agreements[1, "new"] = AgreementRef(7, 17, "CNY")


PARKED_FOR: dict[str, tuple[dict[str, str], Callable[[World], None]]] = {
    "a tariff": ({"tariff_id": "new"}, unknown_tariff),
    "an agreement": ({"agreement_id": "new"}, unknown_agreement),
}


@pytest.mark.parametrize("what", PARKED_FOR)
@pytest.mark.parametrize("whole", [True, False])
def test_a_parked_ride_is_taken_up_when_what_it_lacks_arrives(what: str, whole: bool) -> None:
    lacks, arrives = PARKED_FOR[what]
    start, end = event("started", 0, **lacks), event("ended", 20, **lacks)
    found = told([[start, end] if whole else [start]])
    assert found.ride().state == PARKED
    assert found.revisions[-1].verdict.watch_at is not None
    assert found.look(30, "recheck") is None
    arrives(found)
    revision = found.look(40, "recheck")
    assert revision is not None
    if whole:
        assert outcome(found) == (CLOSED, None, 250)
    else:
        assert found.ride().state == OPEN
        assert revision.verdict.watch_at == at(DAY), "the sweep may have passed it already"
        found.look(DAY, "deadline")
        assert found.total() == 3000


def test_a_parked_ride_is_taken_up_by_its_own_next_event_too() -> None:
    lacks, arrives = PARKED_FOR["an agreement"]
    found = told([[event("started", 0, **lacks)]])
    arrives(found)
    (revision,) = found.take(event("paused", 5))
    assert found.ride().state == OPEN
    assert revision.verdict.watch_at == at(DAY)


def test_the_tariff_version_of_the_start_is_kept_whatever_comes_later() -> None:
    old, new = tariff(), tariff(version=2, price="9.00")
    found = told([[START]], catalog(old))
    found.catalog.add_tariffs({(1, "bike"): [TariffVersion(1, 2, at(10), new)]})
    found.take(END)
    assert found.total() == 250
    found.take(event("corrected", 60, corrected_end=at(10)))
    assert found.total() == 150
    found.take(*whole("s-2", 12, 20))
    assert found.total("s-2") == 900


def test_the_version_that_the_rider_was_shown_counts() -> None:
    known = catalog(tariff())
    newer = tariff(version=2, price="9.00")
    known.add_tariffs({(1, "bike"): [TariffVersion(1, 2, at(-10), newer)]})
    found = told([[event("started", 0, tariff_version=1), END]], known)
    assert found.total() == 250


def test_another_currency_is_for_somebody_to_look_at() -> None:
    found = told([[START, END]], catalog(currency="JPY"))
    assert outcome(found) == (REVIEW, "currency_differs", None)


def test_the_agreement_of_the_start_that_counts_is_the_one_that_owes() -> None:
    known = catalog(tariff({"day_cap": "2.00"}), agreements=("agr-1", "agr-2"))
    found = told([[START], [event("started", -1, "earlier", agreement_id="agr-2")], [END]], known)
    ride = found.ride()
    assert ride.agreement == known.agreements[1, "agr-2"]
    assert found.revisions[1].row.split("\t")[5] == "2"
    assert found.revisions[-1].transfers[0].debit_account == 10**15 + 2
    assert {use.rider_no for revision in found.revisions for use in revision.cap_uses} == {12}


def test_an_operators_rules_of_today_hold_for_a_ride_of_yesterday() -> None:
    found = told([[START]])
    found.operator = Operator(1, "default", "Asia/Shanghai", "CNY", ride_hours_max=1)
    found.take(event("ended", 61))
    assert outcome(found) == (REVIEW, "longer_than_ride_hours_max", None)


def test_a_conflict_alone_keeps_what_stands() -> None:
    found = told([[START, END], [event("voided", 30)]])
    (revision,) = found.take(event("ended", 50, "other"))
    assert revision.ride.state == SessionState.VOIDED
    assert not revision.transfers


def told_types(revision: Revision) -> list[bytes]:
    return [dict(fact.headers)["ce_type"].removeprefix(b"io.farebox.billing.") for fact in announce(revision, at(0))]


ANNOUNCED: dict[str, tuple[Batches, list[bytes]]] = {
    "a charge": ([[START, END]], [b"charge.rated.v1"]),
    "a correction": ([[START, END], [event("corrected", 60, distance=5)]], [b"charge.revised.v1"]),
    "a void": ([[START, END], [event("voided", 60)]], [b"charge.revised.v1"]),
    "a void of an open ride": ([[START], [event("voided", 60)]], []),
    "an open ride": ([[START]], []),
    "a review": ([[START, event("ended", -1)]], [b"session.review.v1"]),
    "a review that stays one": ([[START, event("ended", -1)], [event("paused", 3)]], []),
    "a parked ride": ([[event("started", 0, tariff_id="none")]], [b"session.parked.v1"]),
    "a conflict": ([[START, event("started", 3, "b")]], [b"session.conflict.v1"]),
}


@pytest.mark.parametrize("what", ANNOUNCED)
def test_the_last_decision_announces(what: str) -> None:
    batches, expected = ANNOUNCED[what]
    assert told_types(told(batches).revisions[-1]) == expected


def test_deadlines_are_in_business_time_to_the_microsecond() -> None:
    found = told([[START]])
    deadline = at(DAY) - timedelta(microseconds=1)
    assert found.look((deadline - at(0)) / timedelta(minutes=1), "deadline") is None


def test_what_is_told_of_a_ride_names_whom_and_what_it_is_charged_by() -> None:
    """And not whichever event came first."""
    known = catalog(tariff(), tariff(name="dear"), agreements=("agr-1", "agr-2"))
    found = told([[event("ended", 20, agreement_id="agr-2", tariff_id="dear")], [START]], known)
    assert (found.ride().agreement, found.total()) == (known.agreements[1, "agr-1"], 250)
    lead = lead_event(found.ride().session)
    assert (lead.agreement_id, lead.tariff_id) == ("agr-1", "bike")
