"""The audit of a ride agrees with whatever the rules decided, in any history; and says in words what disagrees."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ride_builders import World, at, catalog, event, store, tariff, told, whole

from service.billing.auditing import Known, check_ride
from service.billing.auditing.problems import Place, Problem, differing
from service.billing.auditing.rows import RideRows, StoredCapUse, StoredKey, StoredObligation, StoredTransfer
from service.billing.charged import obligation_kind
from service.billing.events import RideEvent
from service.billing.rides import compose
from service.billing.sessions import SessionState
from service.billing.verdicts import Verdict

DAY = 1440
RowT = TypeVar("RowT", bound=msgspec.Struct)


def rows(world: World, session: str = "s-1") -> RideRows:
    """What the database holds of a ride once its revisions were appended."""
    ride = world.ride(session)
    revisions = [item for item in world.revisions if item.ride.key == ride.key]
    found = RideRows(
        ride_no=ride.ride_no, revisions=[msgspec.structs.replace(store(item), batch_no=1) for item in revisions]
    )
    for item, stored in zip(revisions, found.revisions, strict=True):
        place, charge = (ride.ride_no, stored.revision), item.ride.charge or item.before.charge
        own = (stored.slot, stored.operator_no)
        if item.owing_minor:
            assert item.ride.agreement is not None and charge is not None
            kind = obligation_kind(item.before.charge, item.events)
            money = (item.ride.agreement.agreement_no, kind, item.owing_minor, charge.charge.currency)
            found.obligations = [*found.obligations, row(StoredObligation, *place, *own, *money, stored.decided_at)]
        found.transfers = [
            *found.transfers,
            *(
                row(StoredTransfer, ride.ride_no, 1, stored.revision, line, *own, *transfer, stored.decided_at)
                for line, transfer in enumerate(item.transfers)
            ),
        ]
        found.cap_uses = [
            *found.cap_uses,
            *(StoredCapUse(*place, use.window, *own, use.rider_no, use.before, use.after) for use in item.cap_uses),
        ]
    return found


def row(shape: type[RowT], *values: Any) -> RowT:
    """A row from its columns in order."""
    return shape(*values)


def problems(world: World, found: RideRows, session: str = "s-1") -> list[str]:
    ride = world.ride(session)
    key = StoredKey(UUID(bytes=ride.key), ride.ride_no, found.revisions[0].slot)
    owing = {1: frozenset(item.ride.ride_no for item in world.revisions)}
    known = Known({1: world.operator}, world.catalog, {ride.key: key}, owing, {})
    return [problem.line() for problem in check_ride(found, known)]


events = st.one_of(
    st.builds(
        lambda kind, minute, name, fields: event(kind, minute, f"{kind}{name}{minute}", **fields),
        st.sampled_from(["started", "ended", "paused", "resumed", "cancelled"]),
        st.integers(-3, 40),
        st.sampled_from("ab"),
        st.sampled_from([{}, {}, {"tariff_id": "none"}, {"agreement_id": "agr-2"}, {"tariff_version": 1}]),
    ),
    st.builds(
        lambda minute, fees: event(
            "corrected", 50 + minute, f"c{minute}{fees}", corrected_end=at(minute), zone_fees=fees
        ),
        st.integers(-3, 60),
        st.sampled_from([(), ("OUT",)]),
    ),
    st.builds(lambda minute: event("corrected", 70, f"d{minute}", distance=minute), st.integers(0, 3)),
    st.builds(lambda minute: event("corrected", 70, f"s{minute}", corrected_start=at(minute)), st.integers(-5, 9)),
    st.builds(lambda minute: event("voided", 90 + minute, f"v{minute}"), st.integers(0, 1)),
    st.builds(lambda minute: event("reservation_started", minute, f"r{minute}"), st.integers(-9, -1)),
    st.builds(lambda minute: event("reservation_cancelled", minute, f"q{minute}"), st.integers(-9, 3)),
    st.builds(lambda: event("ended", 15, "nb", billable=False)),
)
steps = st.lists(
    st.one_of(
        st.lists(events, min_size=1, max_size=4), st.sampled_from(["deadline", "deadline", "recheck", "another"])
    ),
    min_size=1,
    max_size=7,
)


@settings(max_examples=300)
@given(steps)
def test_whatever_was_decided_is_derived_again(history: list[list[RideEvent] | str]) -> None:
    rules = {"day_cap": "4.00", "zone_fees": {"OUT": "5.00"}, "tax": {"rate": "0.1", "included": True}}
    world = World(catalog(tariff(rules), agreements=("agr-1", "agr-2")))
    world.take(*whole("other"))
    now = 200.0
    for step in history:
        if isinstance(step, list):
            world.take(*step, now=now)
        elif step == "another":
            world.take(*whole(f"other at {now}"), now=now)
        elif world.knows("s-1"):
            now += DAY
            world.look(now, "deadline" if step == "deadline" else "recheck")
        now += 1
    for session in {ride.session.counted[0].session_id for ride in world.rides.values()}:
        assert problems(world, rows(world, session), session) == []


def test_a_charge_that_moves_to_another_agreement_is_named() -> None:
    world = told([whole("s-1"), [event("corrected", 70, corrected_end=at(50))]])
    found = rows(world)
    moved = msgspec.structs.replace(found.revisions[1], agreement_no=2, tariff_no=1, tariff_version=1)
    found.revisions = [found.revisions[0], moved]
    assert any("(1, 1), charged before, found (2, 1)" in line for line in problems(world, found))


def test_a_rerate_with_less_than_other_rides_had_used_is_named() -> None:
    world = World(catalog(tariff({"day_cap": "4.00"})))
    world.take(*whole("s-1", 0, 10))
    world.take(*whole("s-2", 30, 60))
    used = dict(world.balances)
    world.balances = dict.fromkeys(used, Decimal("1.50"))
    world.take(event("corrected", 70, corrected_end=at(50)))
    found = rows(world)
    assert problems(world, found) == []
    move = found.cap_uses[-1]
    (held,) = used.values()
    found.cap_uses = [
        *found.cap_uses[:-1],
        msgspec.structs.replace(move, before=held, after=held + move.after - move.before),
    ]
    assert any("cap_use.before" in line for line in problems(world, found))


@pytest.mark.parametrize(
    ("batches", "state"),
    [
        ([[event("started", 0)], [event("ended", 20)]], "open"),
        ([[event("ended", 20)], [event("started", 0)]], "incomplete"),
        ([[event("reservation_started", 0)], [event("reservation_cancelled", 5)]], "reserved"),
        ([whole("s-1")], "closed"),
    ],
)
def test_a_ride_that_is_over_and_was_never_charged_is_named(batches: list[list[RideEvent]], state: str) -> None:
    """Its digests are right: it was decided so."""
    world = told(batches)
    assert problems(world, rows(world)) == []
    last = world.revisions[-1]
    verdict = Verdict(SessionState(state), terms=last.verdict.terms)
    world.revisions[-1] = compose(last.before, last.ride.session, last.events, verdict, None, at(60))
    (line,) = problems(world, rows(world))
    assert f"state, charge: expected closed, and a charge, found {state}, and none" in line


def test_a_problem_says_where_and_what() -> None:
    world = told([whole("s-1")])
    found = rows(world)
    (owing,) = found.obligations
    found.obligations = [msgspec.structs.replace(owing, amount_minor=251)]
    assert problems(world, found) == [
        "operator default, session s-1, ride 1, revision 1: obligation.amount_minor: expected 250, found 251"
    ]
    found.obligations = []
    (line,) = problems(world, found)
    assert line.startswith("operator default, session s-1, ride 1, revision 1: obligation.*: expected (ride_no=1, ")
    assert line.endswith("found no row")


def test_bytes_are_shown_in_hex_and_long_texts_cut() -> None:
    assert Problem(Place(), "batch", "digest", b"\x01\xff", b"").line() == "batch.digest: expected 01ff, found nothing"
    assert len(Problem(Place(), "t", "c", "x" * 10_000, 1).line()) < 400
    assert not list(differing(Place(), "t", None, None))
