"""When a ride has waited long enough, and under which terms it is decided."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import pytest
from ride_builders import OPERATOR, at, catalog, event, tariff

from service.billing.catalog import TariffVersion
from service.billing.events import RideEvent
from service.billing.sessions import Session, SessionState, course, take
from service.billing.verdicts import Terms, deadline, find_terms, judge

DAY = 1440


def fold(*events: RideEvent) -> Session:
    session = Session()
    for item in events:
        session, _ = take(session, item)
    return session


DEADLINES: dict[str, tuple[list[RideEvent], dict[str, Any], datetime | None]] = {
    "an open ride": ([event("started", 0)], {}, at(DAY)),
    "by the tariff's own hours": (
        [event("started", 0), event("paused", 9)],
        {"lost_end": {"after_hours": "0.5", "charge": "review"}},
        at(30),
    ),
    "without a rule": ([event("started", 0)], {"lost_end": None}, at(DAY)),
    "of an unknown tariff": ([event("started", 0, tariff_id="none")], {}, None),
    "an end alone": ([event("ended", 20)], {}, at(20 + DAY)),
    "an end alone, with the tariff's hours": (
        [event("ended", 20)],
        {"lost_end": {"after_hours": 2, "charge": "review"}},
        at(140),
    ),
    "an end alone of an unknown tariff": ([event("ended", 20, tariff_id="none")], {}, at(20 + DAY)),
    "a pause alone": ([event("paused", 20)], {}, at(20 + DAY)),
    "a reservation": ([event("reservation_started", 0)], {}, at(15)),
    "a reservation of GBFS's silence": ([event("reservation_started", 0)], {"default_reserve_time": None}, at(DAY)),
    "a reservation of an unknown agreement": ([event("reservation_started", 0, agreement_id="agr-9")], {}, None),
    "a ride after its reservation": ([event("reservation_started", 0), event("started", 5)], {}, at(5 + DAY)),
}


@pytest.mark.parametrize("what", DEADLINES)
def test_a_ride_has_waited_long_enough(what: str) -> None:
    events, rules, expected = DEADLINES[what]
    assert deadline(fold(*events), OPERATOR, catalog(tariff(rules))) == expected


@pytest.mark.parametrize("what", [name for name, row in DEADLINES.items() if row[2] is not None])
def test_the_deadline_is_when_the_verdict_changes(what: str) -> None:
    events, rules, until = DEADLINES[what]
    assert until is not None
    session, known = fold(*events), catalog(tariff(rules))
    waiting = (SessionState.OPEN, SessionState.INCOMPLETE, SessionState.RESERVED)
    moment = until - datetime.resolution
    assert judge(session, OPERATOR, known, moment, "deadline").state in waiting
    assert judge(session, OPERATOR, known, until, "events").state in waiting
    assert judge(session, OPERATOR, known, until, "deadline").state not in waiting


TERMS: dict[str, tuple[list[RideEvent], str | tuple[int, int]]] = {
    "the start's": ([event("started", 0), event("ended", 9, tariff_id="none", agreement_id="agr-9")], (1, 1)),
    "the end's, while there is no start": ([event("ended", 9)], (1, 1)),
    "the reservation's": ([event("reservation_started", 0)], (1, 1)),
    "nobody's": ([event("reservation_started", 0, agreement_id=None)], "no_agreement_named"),
    "an unknown agreement's": ([event("started", 0, agreement_id="agr-9")], "unknown_agreement"),
    "an unknown tariff's": ([event("started", 0, tariff_id="none")], "unknown_tariff"),
    "the second version's from its first instant": ([event("started", 60)], (1, 2)),
    "the first version's until then": ([event("started", 59.9)], (1, 1)),
    "the version's that was agreed": ([event("started", 60, tariff_version=1)], (1, 1)),
    "an unknown version's": ([event("started", 0, tariff_version=3)], "unknown_tariff_version"),
    "those of before the first version": ([event("started", -60 * DAY)], "no_tariff_version_at_start"),
}


@pytest.mark.parametrize("what", TERMS)
def test_the_terms_are(what: str) -> None:
    events, expected = TERMS[what]
    known = catalog()
    known.add_tariffs({(1, "bike"): [TariffVersion(1, 2, at(60), tariff(version=2))]})
    told = course(fold(*events))
    found = find_terms(told, OPERATOR, known, told.started_at or events[0].time)
    assert (found if isinstance(found, str) else (found.version.tariff_no, found.version.version)) == expected


def test_versions_are_found_in_whatever_order_they_were_read() -> None:
    known = catalog()
    versions = [TariffVersion(1, number, at(60 * number), tariff(version=number)) for number in (4, 2, 3)]
    for version in versions:
        known.add_tariffs({(1, "bike"): [version]})
    found = [known.tariff_at(1, "bike", at(60 * number)) for number in range(6)]
    assert [version.version if version else None for version in found] == [1, 1, 2, 3, 4, 4]
    third = known.tariff_version(1, "bike", 3)
    assert third is not None
    assert (third.key, third.tariff.document) == ((1, 3), versions[2].tariff.document)
    assert known.tariff_version(2, "bike", 3) is None


def test_a_purpose_is_one_line_of_text_whatever_the_producer_wrote() -> None:
    session = fold(event("started", 0, billable=False, purpose="a\tb\nc\\N"))
    assert judge(session, OPERATOR, catalog(), at(1), "events").reason == "a b c N"


def test_the_operators_longest_ride_counts() -> None:
    session = fold(event("started", 0), event("ended", 121))
    for hours, state in ((3, SessionState.CLOSED), (2, SessionState.REVIEW)):
        operator = msgspec.structs.replace(OPERATOR, ride_hours_max=hours)
        assert judge(session, operator, catalog(), at(130), "events").state == state


def test_a_verdict_on_a_charge_names_its_terms() -> None:
    known = catalog()
    verdict = judge(fold(event("started", 0), event("ended", 9)), OPERATOR, known, at(10), "events")
    version = known.tariff_at(1, "bike", at(0))
    assert version is not None
    assert verdict.terms == Terms(known.agreements[1, "agr-1"], version)
