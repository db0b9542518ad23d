"""Revisions as rows: the canonical text, its digest, and a ride read back from its rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ride_builders import World, at, catalog, event, tariff

from service.billing.proofs import revision_digest
from service.billing.rides import StoredRevision, charge_text, instant_text, read_charge, restore, stored_row

WORDS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=9)


def ridden(**start: Any) -> World:
    world = World()
    world.take(event("started", 0, **start))
    world.take(event("ended", 20, distance=1234))
    world.take(event("corrected", 60, distance=99))
    return world


def test_a_stored_row_has_the_digest_of_the_decided_one() -> None:
    before = b""
    for stored in ridden().stored():
        assert revision_digest(before, stored_row(stored)) == stored.digest
        before = stored.digest


CHANGES: dict[str, Any] = {
    "ride_no": 2,
    "revision": 9,
    "slot": 1,
    "operator_no": 2,
    "state": "review",
    "agreement_no": 9,
    "tariff_no": 9,
    "tariff_version": 9,
    "reason": "because",
    "events": "[]",
    "charge": "{}",
    "amount_minor": 1,
    "currency": "EUR",
    "decided_at": datetime(2026, 11, 22, 9, tzinfo=UTC),
}


@pytest.mark.parametrize("column", CHANGES)
def test_no_column_can_be_altered_unnoticed(column: str) -> None:
    """A contract's and a charge's columns stand together: the first of each says whether the others are there."""
    start, end, _ = ridden().stored()
    stored = start if column in ("agreement_no", "tariff_no", "tariff_version") else end
    altered = msgspec.structs.replace(stored, **{column: CHANGES[column]})
    assert stored_row(altered) != stored_row(stored)


@given(WORDS, WORDS)
def test_whatever_a_producer_writes_stays_in_its_column(vehicle: str, purpose: str) -> None:
    world = World()
    (revision,) = world.take(event("started", 0, vehicle_id=vehicle, billable=False, purpose=purpose))
    assert revision.row.count("\t") == len(StoredRevision.__struct_fields__) - 3
    assert not {"\n", "\r", "\0"} & set(revision.row)
    assert world.ride().session.counted[0].vehicle_id == vehicle


def test_a_ride_without_its_agreement_column_says_so_once() -> None:
    named = [stored.agreement_no for stored in ridden().stored()]
    assert named == [1, None, None]


def test_a_charge_reads_back_exactly() -> None:
    world = ridden()
    charge = world.ride().charge
    text = charge_text(charge)
    assert text is not None
    assert read_charge(text) == charge
    assert charge_text(None) is None
    with pytest.raises(msgspec.DecodeError):
        read_charge("{")


def test_a_lost_and_a_parked_ride_read_back_as_they_were() -> None:
    """`World` compares every ride with what its rows give back."""
    world = World(catalog(tariff({"day_cap": "2.00"})))
    world.take(event("started", 0), event("started", 1, tariff_id="none", session="s-2"))
    world.look(1440, "deadline")
    world.take(event("ended", 9), now=1450)
    world.look(1460, "recheck", "s-2")
    key = world.ride().key
    assert restore(key, world.operator, world.ride().agreement, world.stored()) == world.ride()


def test_an_instant_is_27_characters_in_utc() -> None:
    there = datetime(2026, 11, 22, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=8)))
    assert instant_text(there) == "2026-11-22T04:00:00.000005Z"
    assert len(instant_text(at(0))) == 27
