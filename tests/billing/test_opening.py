"""A debt of another system, brought over: a ride that is nothing but a debt, in the books, the facts and the audit."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from ride_builders import NOON, World, adjustment, at, catalog, event, told, whole
from test_adjustments import accounts
from test_auditing import problems, rows

from service.billing.adjustments import AdjustmentError
from service.billing.announcements import announce
from service.billing.opening import OpenDebt, debt_of
from service.billing.rides import charge_text
from service.billing.sessions import SessionState

DEBT = OpenDebt("old-77", "agr-1", "ride", 730, "CNY", NOON - timedelta(days=40))
SESSION = "debt-old-77"


def brought(**operator: Any) -> World:
    world = told([whole("s-1")], catalog(), **operator)
    world.bring(DEBT)
    return world


def test_a_debt_is_owed_against_an_account_of_its_own_and_audited() -> None:
    world = brought()
    ride = world.ride(SESSION)
    assert (ride.state, world.total(SESSION), world.owed(SESSION)) == (SessionState.CLOSED, 730, [730])
    assert accounts(world, SESSION) == {"RECEIVABLE": 730, "OPENING": -730}
    assert [row.kind for row in rows(world, SESSION).obligations] == ["opening"]
    assert problems(world, rows(world, SESSION), SESSION) == []
    assert debt_of(ride) == DEBT
    assert debt_of(world.ride("s-1")) is None


def test_bill_from_and_the_mode_are_about_rides_and_not_about_what_was_billed() -> None:
    later = brought(bill_from=NOON + timedelta(days=1))
    assert (later.owed("s-1"), later.owed(SESSION)) == ([], [730])
    assert problems(later, rows(later, SESSION), SESSION) == []


def test_its_charge_is_told_with_one_line() -> None:
    world = brought()
    fact = next(msgspec.json.decode(one.value) for one in announce(world.revisions[-1], NOON))
    assert (fact["session_id"], fact["amount_minor"], fact.get("owed", True)) == (SESSION, 730, True)
    assert [(line["code"], line["amount"], line["path"]) for line in fact["lines"]] == [
        ("opening", "7.30", "adjustment:old-77")
    ]


def test_support_adjusts_it_like_any_ride() -> None:
    world = brought()
    world.adjust(adjustment("goodwill", 230), SESSION)
    world.adjust(adjustment("extra", 100), SESSION)
    assert world.owed(SESSION) == [730, -230, 100]
    assert accounts(world, SESSION) == {"RECEIVABLE": 600, "OPENING": -730, "GOODWILL": 230, "EXTRAS": -100}
    assert problems(world, rows(world, SESSION), SESSION) == []
    with pytest.raises(AdjustmentError) as refused:
        world.adjust(adjustment("goodwill", 601, "too much"), SESSION)
    assert refused.value.code == "more_than_owed"


def test_nobody_adds_one_to_a_ride() -> None:
    world = brought()
    for session in ("s-1", SESSION):
        with pytest.raises(AdjustmentError) as refused:
            world.adjust(adjustment("opening", 100), session)
        assert refused.value.code == "bad_adjustment"


def test_a_void_takes_it_back() -> None:
    world = brought()
    world.take(event("voided", 60, session=SESSION))
    assert (world.ride(SESSION).state, world.owed(SESSION)) == (SessionState.VOIDED, [730, -730])
    assert accounts(world, SESSION) == {}
    assert problems(world, rows(world, SESSION), SESSION) == []


@pytest.mark.parametrize("corrected", [{"corrected_end": at(30)}, {"corrected_start": at(0), "corrected_end": at(30)}])
def test_what_has_no_fare_is_not_corrected_by_itself(corrected: dict[str, Any]) -> None:
    world = brought()
    world.take(event("corrected", 60, session=SESSION, **corrected))
    assert (world.ride(SESSION).state, world.owed(SESSION)) == (SessionState.REVIEW, [730])
    assert problems(world, rows(world, SESSION), SESSION) == []


def test_events_of_a_ride_with_its_id_move_no_money() -> None:
    world = brought()
    world.take(*whole(SESSION))
    assert (world.owed(SESSION), len(world.ride(SESSION).session.conflicts)) == ([730], 2)
    assert problems(world, rows(world, SESSION), SESSION) == []


def test_the_audit_finds_another_amount() -> None:
    world = brought()
    found = rows(world, SESSION)
    charge = world.ride(SESSION).charge
    assert charge is not None
    line = msgspec.structs.replace(charge.charge.lines[0], amount=Decimal("1.00"))
    other = msgspec.structs.replace(charge, charge=msgspec.structs.replace(charge.charge, lines=(line,)))
    found.revisions = [msgspec.structs.replace(found.revisions[0], charge=charge_text(other))]
    told_of = Counter("charge" in line or "digest" in line for line in problems(world, found, SESSION))
    assert told_of[True] >= 2, "neither the digest nor the charge is as it was"
