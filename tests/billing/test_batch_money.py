"""What rides owe: modes, corrections, tax, caps across rides, and what holds for any history of events."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ride_builders import OPERATOR, World, at, catalog, event, tariff, told, whole

from service.billing.catalog import TariffVersion
from service.billing.events import RideEvent
from service.billing.rating import rate
from service.billing.sessions import SessionState
from service.billing.tariffs import Tariff

START, END = event("started", 0), event("ended", 20)
DAY = 1440


MODES: dict[str, tuple[dict[str, Any], bool]] = {
    "live": ({}, True),
    "shadow": ({"live": False}, False),
    "from later on": ({"bill_from": at(1)}, False),
    "from then on": ({"bill_from": at(0)}, True),
}


@pytest.mark.parametrize("what", MODES)
def test_only_a_live_ride_owes_and_a_correction_never_changes_that(what: str) -> None:
    operator, owes = MODES[what]
    found = told([], **operator)
    found.take(START, END)
    found.operator = msgspec.structs.replace(OPERATOR, live=not owes)
    found.take(event("corrected", 60, corrected_end=at(10)))
    found.take(event("voided", 70))
    assert found.owed() == ([250, -100, -150] if owes else [])
    assert [bool(revision.transfers) for revision in found.revisions] == [owes, owes, owes]
    assert found.revisions[0].charge is not None


def test_a_ride_whose_first_charge_was_not_owed_owes_nothing_when_it_is_charged_anew() -> None:
    found = told([], live=False)
    found.take(START, event("cancelled", 10))
    found.operator = msgspec.structs.replace(OPERATOR, live=True)
    found.take(event("corrected", 60, "c1", corrected_start=at(9.5)))
    assert found.revisions[-1].ride.state is SessionState.CANCELLED
    found.take(event("corrected", 62, "c2", corrected_start=at(0)))
    assert found.total() == 150
    assert found.owed() == []


def test_an_end_after_an_assumed_one_is_charged_to_whom_that_was() -> None:
    """Without its start the ride has the agreement of its reservation, and then that of its end."""
    found = told([[event("reservation_started", -5)], [event("corrected", 1, corrected_start=at(0))]])
    assert found.look(DAY + 1, "deadline") is not None
    charged = found.owed()
    found.take(event("ended", 20, agreement_id="agr-2"), now=DAY + 60)
    assert found.owed() == charged == [3050]
    assert [told.kind for told in found.revisions[-1].conflicts] == ["ended"]


def test_what_a_correction_owes_is_the_difference_and_a_void_gives_all_back() -> None:
    found = told([[START, END], [event("corrected", 60, corrected_end=at(50))], [event("voided", 70)]])
    assert found.owed() == [250, 200, -450]
    assert found.total() is None
    balance: dict[int, int] = {}
    for revision in found.revisions:
        for transfer in revision.transfers:
            balance[transfer.debit_account] = balance.get(transfer.debit_account, 0) + transfer.amount_minor
            balance[transfer.credit_account] = balance.get(transfer.credit_account, 0) - transfer.amount_minor
    assert set(balance.values()) == {0}


def test_tax_that_moves_inside_an_equal_total_is_posted() -> None:
    tax = {"rate": "0.10", "included": True, "lines": {"parking_fee": {"rate": "0", "included": True}}}
    rules = {"tax": tax, "parking_fees": {"invalid": "1.00"}}
    found = told([[START, END]], catalog(tariff(rules)))
    end = event("corrected", 60, corrected_end=at(10), parking_category="invalid")
    (revision,) = found.take(end)
    assert revision.owing_minor == 0
    assert sorted(transfer.amount_minor for transfer in revision.transfers) == [9, 9]


def capped(**rules: Any) -> Tariff:
    return tariff({"ride_max": None, **rules})


def test_a_day_cap_holds_across_the_riders_rides_and_each_movement_is_proven() -> None:
    found = told([], catalog(capped(day_cap="4.00"), agreements=("agr-1", "agr-2")))
    for number in range(3):
        found.take(*whole(f"s-{number}"))
    assert [found.total(f"s-{number}") for number in range(3)] == [250, 150, 0]
    uses = [(use.before, use.after) for revision in found.revisions for use in revision.cap_uses]
    assert uses == [(Decimal(0), Decimal("2.50")), (Decimal("2.50"), Decimal("4.00"))]
    found.take(event("voided", 60, session="s-0"))
    assert found.revisions[-1].cap_uses[0].after == Decimal("1.50")
    assert found.total("s-1") == 150, "a correction of one ride does not open others again"
    found.take(*whole("o", agreement_id="agr-2"))
    assert found.total("o") == 250, "another rider has a cap of his own"


def test_rides_of_one_batch_share_the_cap() -> None:
    found = told([], catalog(capped(day_cap="4.00")))
    found.take(*(item for number in range(3) for item in whole(f"s-{number}")))
    assert [found.total(f"s-{number}") for number in range(3)] == [250, 150, 0]


def test_a_rerate_uses_the_balance_of_the_first_charge() -> None:
    found = told([], catalog(capped(day_cap="4.00")))
    found.take(START, END)
    found.take(*whole("s-2", 30, 50))
    assert (found.total(), found.total("s-2")) == (250, 150)
    found.take(event("corrected", 60, distance=5))
    assert found.total() == 250, "it was the first of the day, and stays so"
    found.take(event("corrected", 70, session="s-2", corrected_end=at(40)))
    assert found.total("s-2") == 150
    assert found.owed("s-2") == [150]


def test_whom_a_reservation_was_charged_to_pays_the_ride_or_somebody_decides() -> None:
    """Nobody else's account takes its difference, nor gives back what another one paid."""
    found = told([], catalog(capped(lost_end=None), agreements=("agr-1", "agr-2")))
    found.take(event("reservation_started", 0))
    found.look(200, "deadline")
    reserved = found.total()
    assert reserved
    found.take(event("started", 10, agreement_id="agr-2"), event("ended", 60, agreement_id="agr-2"))
    assert (found.total(), len(found.ride().session.conflicts)) == (reserved, 2)
    found.take(event("voided", 90))
    balances: Counter[int] = Counter()
    for revision in found.revisions:
        for transfer in revision.transfers:
            balances[transfer.debit_account] += transfer.amount_minor
            balances[transfer.credit_account] -= transfer.amount_minor
    assert set(balances.values()) == {0}


def test_no_rerate_charges_more_than_the_cap_leaves_of_what_other_rides_used_since() -> None:
    found = told([], catalog(capped(day_cap="4.00")))
    found.take(*whole("s-1", 0, 10))
    found.take(*whole("s-2", 30, 60))
    assert (found.total("s-1"), found.total("s-2")) == (150, 250), "the cap is met"
    found.take(event("corrected", 70, session="s-1", corrected_end=at(50)))
    assert (found.total("s-1"), found.total("s-2")) == (150, 250)
    assert set(found.balances.values()) == {Decimal("4.00")}
    found.take(event("voided", 80, session="s-2"))
    found.take(event("corrected", 90, "again", session="s-1", corrected_end=at(20)))
    assert (found.total("s-1"), found.total("s-2")) == (150, None), "a ride taken back makes no other dearer"


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-1, 120)), min_size=1, max_size=12), st.booleans())
def test_no_day_and_no_month_costs_more_than_its_cap_whatever_is_corrected(
    wanted: list[tuple[str, int]], by_day: bool
) -> None:
    """Each is a ride and its minutes: closed by the first, corrected by the others, voided by -1."""
    found = told([], catalog(capped(lost_end=None, **{"day_cap" if by_day else "month_cap": "4.00"})))
    for number, (session, minutes) in enumerate(wanted):
        if session not in dict(wanted[:number]):
            found.take(*whole(session, 0, max(minutes, 1)))
        elif minutes < 0:
            found.take(event("voided", 200 + number, f"v{number}", session=session))
        else:
            found.take(event("corrected", 200 + number, f"c{number}", session=session, corrected_end=at(minutes)))
        totals = [found.total(name) or 0 for name in dict(wanted[: number + 1])]
        assert sum(totals) <= 400
        assert sum(found.balances.values()) * 100 == sum(totals)


def test_a_true_end_that_comes_late_charges_no_more_than_the_cap_leaves() -> None:
    lost = {"after_hours": 5, "charge": "last_sign"}
    found = told([], catalog(capped(day_cap="40.00", lost_end=lost)))
    found.take(event("started", 0, session="s-1"))
    found.look(400, "deadline", "s-1")
    assert found.total("s-1") == 0
    found.take(*whole("s-2", 0, 590))
    assert found.total("s-2") == 4000
    found.take(event("ended", 299, session="s-1"))
    assert (found.total("s-1"), found.total("s-2")) == (0, 4000)


event_lists = st.lists(
    st.one_of(
        st.builds(
            lambda kind, minute, name: event(kind, minute, f"{name}{minute}"),
            st.sampled_from(["started", "ended", "paused", "resumed", "cancelled"]),
            st.integers(-3, 40),
            st.sampled_from("ab"),
        ),
        st.builds(
            lambda minute: event("corrected", 50 + minute, f"c{minute}", corrected_end=at(minute)), st.integers(-3, 60)
        ),
        st.builds(lambda minute: event("voided", 90 + minute, f"v{minute}"), st.integers(0, 1)),
        st.builds(lambda minute: event("reservation_started", minute), st.integers(-9, -1)),
        st.builds(lambda minute: event("started", minute, f"x{minute}", agreement_id="agr-2"), st.integers(0, 9)),
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=150)
@given(event_lists, st.lists(st.integers(1, 3), max_size=9), st.booleans())
def test_obligations_add_up_to_the_charge_that_stands(events: list[RideEvent], cuts: list[int], keep: bool) -> None:
    known = catalog(capped(day_cap="4.00"), agreements=("agr-1", "agr-2"))
    found, rest = told([], known), list(events)
    for cut in [*cuts, len(rest)]:
        if rest[:cut]:
            found.take(*rest[:cut], now=200)
        rest = rest[cut:]
    if keep:
        found.look(5 * DAY, "deadline")
        found.take(event("ended", 33, "true"), now=5 * DAY)
    assert sum(found.owed()) == (found.total() or 0)
    _check_trail(found, known.tariff_version(1, "bike", 1))
    count = len(found.revisions)
    found.take(*events, now=6 * DAY)
    assert len(found.revisions) == count, "everything delivered again decides nothing"


def _check_trail(found: World, version: TariffVersion | None) -> None:
    """Numbers without gaps, each charge derived again, balances that sum to what stands."""
    assert version is not None
    assert [revision.ride.revision for revision in found.revisions] == list(range(1, len(found.revisions) + 1))
    for revision in found.revisions:
        if revision.charge is not None:
            charge = revision.charge
            assert rate(charge.usage, version.tariff, charge.charge.balance) == charge.charge
            assert sum((line.amount for line in charge.charge.lines), Decimal(0)) * 100 == charge.charge.total_minor
    stands = found.ride().charge
    standing = sum((use.used for use in stands.charge.used), Decimal(0)) if stands is not None else Decimal(0)
    assert sum(found.balances.values(), Decimal(0)) == standing


@given(st.permutations([START, END, event("paused", 3), event("resumed", 10)]), st.integers(1, 4))
def test_the_order_of_arrival_does_not_change_the_charge(events: list[RideEvent], cut: int) -> None:
    """As long as the whole ride is known before it is decided; a pause that comes after the charge moves nothing."""
    found = told([events])
    assert found.total() == told([[START, END, event("paused", 3), event("resumed", 10)]]).total()
    early = [item for item in events if item.kind in ("paused", "resumed")]
    late = [item for item in events if item.kind in ("started", "ended")]
    assert told([early[:cut], early[cut:], late] if early[cut:] else [early, late]).total() == found.total()


def test_a_version_with_a_higher_cap_takes_nothing_of_what_was_charged_by_the_one_before() -> None:
    """Later rides may use more of the month than the earlier version's cap: no correction gives back for that."""
    versions = [
        TariffVersion(1, number, begins, msgspec.structs.replace(tariff(rules), version=number, valid_from=begins))
        for number, begins, rules in (
            (1, at(-9999), {"month_cap": "2.50"}),
            (2, at(60), {"month_cap": "60.00"}),
        )
    ]
    known = catalog()
    known.add_tariffs({(1, "bike"): versions})
    found = told([whole("s-1")], known)
    for number in range(5):
        found.take(*whole(f"s-{number + 2}", 70 + 30 * number, 90 + 30 * number))
    assert [found.total(f"s-{number}") for number in (1, 2, 6)] == [250, 250, 250]
    found.take(event("corrected", 300, distance=900))
    assert found.total() == 250
    found.take(event("corrected", 301, "longer", corrected_end=at(50)))
    assert found.total() == 250, "and it takes no more than the cap of its own version"


def test_a_correction_that_charges_nothing_anew_leaves_the_version_that_the_charge_is_by() -> None:
    known = catalog()
    dearer = msgspec.structs.replace(tariff(price="9.00"), version=2, valid_from=at(-5))
    known.add_tariffs({(1, "bike"): [TariffVersion(1, 2, at(-5), dearer)]})
    found = told([whole("s-1")], known)
    found.take(event("corrected", 60, corrected_start=at(-10), corrected_end=at(-20)))
    ride = found.ride()
    assert (ride.state, ride.tariff, found.total()) == (SessionState.REVIEW, (1, 2), 1000)
    found.take(event("corrected", 61, "mended", corrected_end=at(20)))
    assert (found.ride().tariff, found.total()) == ((1, 1), 250)


def test_a_cancellation_that_comes_after_the_lost_end_was_charged_is_the_true_end() -> None:
    for minutes, owed in ((0.5, 0), (20, 250)):
        world = told([[event("started", 0)]])
        world.look(DAY, "deadline")
        world.take(event("cancelled", minutes), now=DAY + 5)
        assert world.owed() == [3000, owed - 3000]
        in_time = told([[event("started", 0), event("cancelled", minutes)]])
        assert (world.ride().state, world.total()) == (in_time.ride().state, in_time.total())


def test_a_reservation_that_was_given_up_costs_no_more_because_that_was_told_late() -> None:
    world = told([[event("reservation_started", 0)]])
    world.look(15, "deadline")
    assert world.total() == 150
    world.take(event("reservation_cancelled", 3), now=20)
    assert world.owed() == [150, -120]
    world.take(event("reservation_cancelled", 9, "again"), now=21)
    assert (world.total(), len(world.ride().session.conflicts)) == (30, 1)
    world.take(event("started", 30), event("ended", 40), now=45)
    assert world.total() == 180


def test_a_ride_that_was_paused_and_never_heard_of_again_was_paused() -> None:
    rules = {"pause_rate": "0.01", "lost_end": {"after_hours": 2, "charge": "ride_max"}}
    world = told([[event("started", 0)], [event("paused", 1)]], catalog(tariff(rules)))
    world.look(120, "deadline")
    assert world.total() == 150 + 119
    world.take(event("corrected", 130))
    assert world.owed() == [269], "a correction that says nothing moves nothing"


def test_a_ride_after_its_reservation_was_charged_is_looked_at_again_when_its_end_is_lost() -> None:
    found = told([[event("reservation_started", 0)], [event("reservation_cancelled", 5)]])
    (revision,) = found.take(event("started", 16))
    assert revision.verdict.watch_at == at(16 + DAY)
    found.look(16 + DAY, "deadline")
    assert (found.ride().reason, found.total()) == ("end_missing", 3050)
    found.take(event("ended", 36), now=17 + DAY)
    assert found.owed() == [50, 3000, -2750]


def test_a_ride_that_was_cancelled_before_its_start_came_is_charged_when_that_comes() -> None:
    world = told([[event("cancelled", 20)]])
    world.look(20 + DAY, "deadline")
    assert (world.ride().state, world.ride().reason) == (SessionState.CANCELLED, "start_missing")
    world.take(event("started", 0), now=21 + DAY)
    assert world.owed() == [250]
    assert world.ride().session.conflicts == ()


@pytest.mark.parametrize(("cancelled", "owed"), [(0.5, []), (10, [150]), (20, [250]), (40, [350])])
def test_the_first_of_a_cancellation_and_an_end_counts_however_the_stream_is_cut(
    cancelled: float, owed: list[int]
) -> None:
    events = sorted([*whole("s-1", 0, 40), event("cancelled", cancelled)], key=lambda one: one.time)
    assert told([events]).owed() == told([[one] for one in events]).owed() == owed
    reserved = [event("reservation_started", 0), event("cancelled", 4), event("reservation_cancelled", 9)]
    assert told([reserved]).owed() == told([[one] for one in reserved]).owed() == [40]


def test_rides_share_a_cap_in_the_order_of_their_closing_however_the_stream_is_cut() -> None:
    long, short = whole("long", 0, 3 * DAY), whole("short", 2 * DAY, 2 * DAY + 200)
    events = [long[0], *short, long[1]]
    totals = []
    for batches in ([events], [[one] for one in events]):
        world = told(batches, catalog(tariff({"day_cap": "12.00", "ride_max": "30.00"})))
        totals.append((world.total("short"), world.total("long")))
    assert totals[0] == totals[1]
    assert totals[0][0] == 1200
