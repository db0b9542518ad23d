"""What support adds to a ride or takes off it: lines, what is owed, the books, and what any history leaves of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ride_builders import World, adjustment, at, catalog, event, tariff, told, whole
from test_auditing import problems, rows

from service.billing.adjustments import AMOUNT_MAX, AdjustmentError
from service.billing.announcements import announce
from service.billing.events import Adjustment
from service.billing.ledger import KIND, Account
from service.billing.rides import Revision

TAXED = {"tax": {"rate": "0.10", "included": True}, "zone_fees": {"OUT": "5.00"}}


def charged(**rules: Any) -> World:
    """A ride that was charged 2.50."""
    return told([whole("s-1")], catalog(tariff(rules), agreements=("agr-1", "agr-2")))


def shorter(minutes: float, event_id: str = "corrected") -> Any:
    """The ride truly ended so many minutes after noon: 1.50 up to 15, 2.50 up to 30, 3.50 up to 45."""
    return event("corrected", 60, event_id, corrected_end=at(minutes))


def lines(world: World) -> list[tuple[str, str | None, Decimal]]:
    """Code, window and amount of the lines that support made."""
    charge = world.ride().charge
    assert charge is not None
    return [(line.code, line.window, line.amount) for line in charge.charge.lines if line.path.startswith("adjust")]


def accounts(world: World, session: str = "s-1") -> dict[str, int]:
    """What stands on each kind of account: debits less credits; nothing is left out but zeros."""
    found: Counter[int] = Counter()
    for revision in world.revisions:
        if revision.ride.key == world.ride(session).key:
            for transfer in revision.transfers:
                found[transfer.debit_account // KIND] += transfer.amount_minor
                found[transfer.credit_account // KIND] -= transfer.amount_minor
    return {Account(kind).name: amount for kind, amount in found.items() if amount}


def test_an_extra_charge_is_a_line_of_its_own_and_stays_when_the_fare_is_corrected() -> None:
    world = charged()
    world.adjust(adjustment("extra", 5000))
    assert lines(world) == [("extra", "damage", Decimal("50.00"))]
    world.take(shorter(10))
    assert (world.total(), world.owed()) == (5150, [250, 5000, -100])
    assert accounts(world) == {"RECEIVABLE": 5150, "REVENUE": -150, "EXTRAS": -5000}
    assert [row.kind for row in rows(world).obligations] == ["charge", "extra", "correction"]


def test_goodwill_and_a_refund_have_accounts_of_their_own_and_leave_the_revenue() -> None:
    world = charged()
    world.adjust(adjustment("goodwill", 100))
    world.adjust(adjustment("refund", 30, code="wrong_zone"))
    assert (world.total(), world.owed()) == (120, [250, -100, -30])
    assert lines(world) == [("goodwill", "damage", Decimal("-1.00")), ("refund", "wrong_zone", Decimal("-0.30"))]
    assert accounts(world) == {"RECEIVABLE": 120, "REVENUE": -250, "GOODWILL": 100, "REFUNDS": 30}
    assert [row.kind for row in rows(world).obligations] == ["charge", "goodwill", "refund"]


def test_a_reduction_counts_up_to_what_there_is_to_reduce_and_again_when_there_is_more() -> None:
    world = charged()
    world.adjust(adjustment("goodwill", 200))
    world.take(shorter(10))
    assert (world.total(), world.owed()) == (0, [250, -200, -50])
    assert lines(world) == [("goodwill", "damage", Decimal("-2.00")), ("zero_floor", "damage", Decimal("0.50"))]
    assert accounts(world) == {"REVENUE": -150, "GOODWILL": 150}
    world.take(shorter(40, "again"))
    assert (world.total(), accounts(world)["GOODWILL"]) == (150, 200)


def test_what_moves_between_accounts_is_posted_even_where_nothing_is_owed_more_or_less() -> None:
    world = charged()
    world.adjust(adjustment("refund", 250))
    (revision,) = world.take(shorter(10))
    assert (world.total(), revision.owing_minor) == (0, 0)
    assert accounts(world) == {"REVENUE": -150, "REFUNDS": 150}
    assert not problems(world, rows(world))


VOIDS: dict[str, tuple[list[Adjustment], int]] = {
    "nothing": ([], 0),
    "an extra charge goes with the ride": ([adjustment("extra", 700)], 0),
    "what is owed regardless stays": ([adjustment("extra", 700, regardless=True)], 700),
    "only what is owed regardless stays": (
        [adjustment("extra", 700, regardless=True), adjustment("extra", 9, "b")],
        700,
    ),
    "goodwill goes with the fare": ([adjustment("extra", 700, regardless=True), adjustment("goodwill", 200)], 700),
    "what goodwill took beyond the fare is not owed again": (
        [adjustment("extra", 700, regardless=True), adjustment("goodwill", 900)],
        50,
    ),
    "what was given back whole stays so": (
        [adjustment("extra", 700, regardless=True), adjustment("refund", 950)],
        0,
    ),
}


@pytest.mark.parametrize("what", VOIDS)
def test_a_void_takes_back_all_but_what_is_owed_regardless(what: str) -> None:
    given_, left = VOIDS[what]
    world = charged()
    for one in given_:
        world.adjust(one)
    before = world.total() or 0
    world.take(event("voided", 70))
    kept = world.total()
    assert (kept or 0) == left <= before
    assert (kept is None) == (not any(one.regardless for one in given_)), "no charge is left, or one that says why"
    assert sum(world.owed()) == left
    assert accounts(world).get("RECEIVABLE", 0) == left
    assert "REVENUE" not in accounts(world)
    world.take(event("ended", 33, "late"), event("paused", 3))
    assert (world.total() or 0) == left, "what arrives later changes nothing"
    assert not problems(world, rows(world))


def test_of_a_voided_ride_what_is_left_can_still_be_given_back() -> None:
    world = charged(**TAXED)
    world.adjust(adjustment("extra", 700, regardless=True, tax_rate=Decimal("0.2")))
    world.take(event("voided", 70))
    world.adjust(adjustment("refund", 300))
    world.adjust(adjustment("goodwill", 400))
    assert (world.total(), accounts(world)) == (0, {"EXTRAS": -583, "REFUNDS": 250, "GOODWILL": 333})
    with pytest.raises(AdjustmentError, match="more than the 0") as refused:
        world.adjust(adjustment("refund", 1, "more"))
    assert refused.value.code == "more_than_owed"
    assert not problems(world, rows(world))


def test_tax_is_within_what_is_adjusted_and_all_of_it_goes_back_with_all_of_the_charge() -> None:
    world = charged(**TAXED)
    charge = world.adjust(adjustment("extra", 1190, tax_rate=Decimal("0.19")))
    assert charge is not None and charge.charge is not None
    assert (charge.charge.charge.total_minor, charge.charge.charge.tax_minor) == (1440, 23 + 190)
    world.adjust(adjustment("goodwill", 720))
    assert accounts(world)["TAX"] == -(213 - 107)
    world.adjust(adjustment("refund", 720))
    assert accounts(world) == {"REVENUE": -227, "EXTRAS": -1000, "GOODWILL": 613, "REFUNDS": 614}
    stands = world.ride().charge
    assert stands is not None and (stands.charge.total_minor, stands.charge.tax_minor) == (0, 0)


def test_the_rate_of_a_reduction_is_that_of_what_it_reduces_where_there_is_one() -> None:
    world = charged(**TAXED)
    world.adjust(adjustment("goodwill", 10))
    world.adjust(adjustment("extra", 10))
    world.adjust(adjustment("refund", 10))
    stands = world.ride().charge
    assert stands is not None
    found = {line.path: line.tax_rate for line in stands.charge.lines if line.path.startswith("adjust")}
    assert found == {f"adjustment:{name}": None for name in ("goodwill", "extra", "refund")}
    alone = charged(**TAXED)
    alone.adjust(adjustment("goodwill", 10))
    alone_stands = alone.ride().charge
    assert alone_stands is not None and alone_stands.charge.lines[-1].tax_rate == Decimal("0.10")


def test_the_same_adjustment_again_says_nothing_and_another_under_its_id_is_refused() -> None:
    world = charged()
    assert world.adjust(adjustment("extra", 500)) is not None
    assert world.adjust(adjustment("extra", 500)) is None
    with pytest.raises(AdjustmentError) as refused:
        world.adjust(adjustment("extra", 501))
    assert refused.value.code == "id_reused"
    world.take(event("voided", 70))
    assert world.adjust(adjustment("extra", 500)) is None, "a void does not make it new"


def after(*events: Any, **operator: Any) -> World:
    return told([events], **operator)


REFUSED: dict[str, tuple[Callable[[], World], Adjustment, str, str]] = {
    "still riding": (lambda: after(event("started", 0)), adjustment("extra", 1), "not_charged", "is open"),
    "in review": (
        lambda: after(event("started", 0), event("ended", -5)),
        adjustment("goodwill", 1),
        "not_charged",
        "is review",
    ),
    "voided": (lambda: after(*whole("s-1"), event("voided", 70)), adjustment("extra", 1), "voided", "is voided"),
    "voided, back": (lambda: after(*whole("s-1"), event("voided", 70)), adjustment("refund", 1), "voided", "is voided"),
    "not billable": (
        lambda: after(event("started", 0, billable=False)),
        adjustment("extra", 1),
        "not_charged",
        "is not_billable",
    ),
    "shadow mode": (lambda: after(*whole("s-1"), live=False), adjustment("extra", 1), "not_billed", "shadow"),
    "other currency": (charged, adjustment("extra", 1, currency="EUR"), "wrong_currency", "charged in CNY"),
    "more than owed": (charged, adjustment("refund", 251), "more_than_owed", "251 is more than the 250"),
    "goodwill, more than owed": (charged, adjustment("goodwill", 251), "more_than_owed", "251 is more than the 250"),
    "nothing": (charged, adjustment("extra", 0), "bad_adjustment", "the amount"),
    "less than nothing": (charged, adjustment("refund", -5), "bad_adjustment", "the amount"),
    "too much": (charged, adjustment("extra", AMOUNT_MAX + 1), "bad_adjustment", "the amount"),
    "code": (charged, adjustment("extra", 1, code="Damage!"), "bad_adjustment", "the code"),
    "no reason": (charged, adjustment("extra", 1, reason="  "), "bad_adjustment", "the reason"),
    "NUL": (charged, adjustment("extra", 1, reason="a\0b"), "bad_adjustment", "the reason"),
    "nobody": (charged, adjustment("extra", 1, by=""), "bad_adjustment", "by"),
    "no id": (charged, adjustment("extra", 1, "a\tb"), "bad_adjustment", "adjustment_id"),
    "rate": (charged, adjustment("extra", 1, tax_rate=Decimal("19")), "bad_adjustment", "the tax rate"),
    "no number": (charged, adjustment("extra", 1, tax_rate=Decimal("NaN")), "bad_adjustment", "the tax rate"),
    "goodwill regardless": (charged, adjustment("goodwill", 1, regardless=True), "bad_adjustment", "falls with it"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_adjusted_is_said_and_changes_nothing(what: str) -> None:
    make, asked, code, text = REFUSED[what]
    world = make()
    count = len(world.revisions)
    with pytest.raises(AdjustmentError, match=text) as refused:
        world.adjust(asked)
    assert (refused.value.code, len(world.revisions)) == (code, count)


def test_the_fact_says_what_was_adjusted_and_not_support_s_own_words() -> None:
    world = charged()
    revision = world.adjust(adjustment("extra", 700, reason="Mr Tester rang us"))
    assert revision is not None
    (fact,) = announce(revision, at(90))
    told_ = msgspec.json.decode(fact.value)
    assert dict(fact.headers)["ce_type"] == b"io.farebox.billing.charge.revised.v1"
    assert (told_["amount_minor"], told_["difference_minor"]) == (950, 700)
    assert told_["adjustment"] == {
        "adjustment_id": "extra",
        "kind": "extra",
        "code": "damage",
        "amount_minor": 700,
    }
    assert told_["lines"][-1]["path"] == "adjustment:extra"
    assert b"Tester" not in fact.value


def test_a_correction_of_a_lost_ride_is_not_its_last_sign_of_life() -> None:
    rules = {"lost_end": {"after_hours": 24, "charge": "last_sign"}}
    world = told([[event("started", 0), event("paused", 40)]], catalog(tariff(rules)))
    world.look(2000, "deadline")
    assert world.total() == 350
    world.adjust(adjustment("extra", 100))
    world.take(event("corrected", 2100, distance=5))
    assert world.total() == 450


adjusting = st.builds(
    lambda kind, amount, number, regardless, rate: adjustment(
        kind,
        amount,
        f"{kind}{number}",
        regardless=regardless and kind == "extra",
        tax_rate=Decimal(rate) if rate and kind == "extra" else None,
    ),
    st.sampled_from(["extra", "goodwill", "refund"]),
    st.integers(1, 400),
    st.integers(0, 5),
    st.booleans(),
    st.sampled_from([None, "0.19", "0"]),
)
happening = st.one_of(
    st.builds(lambda minute: event("corrected", 60, f"c{minute}", corrected_end=at(minute)), st.integers(-2, 60)),
    st.builds(lambda minute: event("corrected", 60, f"z{minute}", zone_fees=("OUT",)), st.integers(0, 1)),
    st.builds(lambda: event("cancelled", 0.5, "given up")),
    st.builds(lambda: event("voided", 90)),
    st.builds(lambda minute: event("ended", minute, f"e{minute}"), st.integers(18, 22)),
    st.builds(lambda minute: event("started", minute, f"s{minute}"), st.integers(-1, 1)),
    st.builds(lambda: event("reservation_cancelled", -3)),
)


@settings(max_examples=400)
@given(
    st.lists(st.one_of(adjusting, adjusting, happening), max_size=10),
    st.sampled_from([{}, TAXED, {"tax": {"rate": "0.19"}, "day_cap": "4.00", "zone_fees": {"OUT": "1.00"}}]),
    st.booleans(),
)
def test_any_order_of_corrections_adjustments_and_voids_adds_up(
    history: list[Any], rules: dict[str, Any], reserved: bool
) -> None:
    first = [event("reservation_started", -9)] if reserved else [*whole("s-1")]
    world = told([first], catalog(tariff(rules, is_taxable="rate" in rules.get("tax", {}) and "day_cap" in rules)))
    if reserved:
        world.look(90, "deadline")
    for step in history:
        before = world.total() or 0
        try:
            revision = (
                world.adjust(step) if isinstance(step, Adjustment) else next(iter(world.take(step, now=3000)), None)
            )
        except AdjustmentError:
            continue
        _adds_up(world)
        if revision is not None:
            _moves_as_said(step, revision, before, world.total() or 0)
    assert problems(world, rows(world)) == []


def _adds_up(world: World) -> None:
    """What is owed is the sum of the obligations, each charge the sum of its lines, the books the same."""
    stands = world.ride().charge
    total = stands.charge.total_minor if stands is not None else 0
    assert sum(world.owed()) == total >= 0
    books = accounts(world)
    assert (books.get("RECEIVABLE", 0), sum(books.values())) == (total, 0)
    assert -books.get("TAX", 0) == (stands.charge.tax_minor if stands is not None else 0) >= 0
    if stands is not None:
        assert sum((line.amount for line in stands.charge.lines), Decimal(0)) * 100 == total
        for kind, name in (("extra", "EXTRAS"), ("goodwill", "GOODWILL"), ("refund", "REFUNDS")):
            counted = sum(one.amount_minor - one.tax_minor for one in stands.adjusted if one.kind == kind)
            assert -books.get(name, 0) == counted


def _moves_as_said(step: Any, revision: Revision, before: int, now: int) -> None:
    """An adjustment changes what is owed by exactly what it says; a void never raises it."""
    if isinstance(step, Adjustment):
        assert now - before == (step.amount_minor if step.kind == "extra" else -step.amount_minor)
        assert revision.owing_minor == now - before
    elif step.kind == "voided":
        assert now <= before
