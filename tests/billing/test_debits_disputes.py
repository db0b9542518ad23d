"""Disputes by the provider's number: a second one, a reversed end, fees, and messages in any order."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import timedelta
from itertools import permutations
from typing import NamedTuple

import pytest
from debit_makers import CARD, KEY, NOW, ORDER, debit, terms
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from service.adapters.providers.port import DisputeStatus
from service.billing.capabilities import Capabilities
from service.billing.debits import RefundRefusedError, after
from service.billing.debits.events import (
    Call,
    DebitEvent,
    DisputeClosed,
    DisputeOpened,
    Due,
    NetAgain,
    Notified,
    Post,
    Publish,
    RefundAsked,
    RefundEnded,
    Told,
)
from service.billing.debits.state import TO_CONFIRM, Debit, DisputeResult, State
from service.billing.outcomes import Succeeded
from service.flows.collection.disputing import _news  # What a provider's message is to the rules.


class End(NamedTuple):
    """How a debit of 1000 stands, and what was posted in all."""

    dispute: str | None
    disputed_minor: int
    posted: dict[str, int]


def opened(ref: str | None, minute: int | None = 0, of_minor: int | None = None, fee: int | None = None) -> DebitEvent:
    return DisputeOpened("chargeback", of_minor, fee, told(ref, minute))


def closed(result: DisputeResult, ref: str | None, minute: int | None = 0, fee: int | None = None) -> DebitEvent:
    return DisputeClosed(result, fee, told(ref, minute))


def told(ref: str | None, minute: int | None) -> Told:
    return Told(ref, None if minute is None else NOW + timedelta(minutes=minute))


def posted(made: Debit, events: list[DebitEvent]) -> tuple[Debit, Counter[str], list[object]]:
    sums: Counter[str] = Counter()
    all_effects: list[object] = []
    for event in events:
        made, effects = after(made, event, NOW, terms(CARD))
        all_effects += effects
        for effect in effects:
            if isinstance(effect, Post):
                sums[effect.fact] += effect.amount_minor
    return made, sums, all_effects


TABLE: dict[str, tuple[list[DebitEvent], End]] = {
    "a second one after the first was won": (
        [opened("A"), closed("won", "A", 1), opened("B", 2)],
        End("chargeback", 1000, {"chargeback": 2000, "chargeback_won": 1000}),
    ),
    "news of the first, late": (
        [opened("A"), closed("won", "A", 1), opened("A", 0), opened("B", 2), opened("A", 0), closed("won", "A", 1)],
        End("chargeback", 1000, {"chargeback": 2000, "chargeback_won": 1000}),
    ),
    "a second one of what the first left": (
        [opened("A", 0, 300), closed("lost", "A", 1), opened("B", 2), closed("won", "B", 3)],
        End("lost", 300, {"chargeback": 1000, "chargeback_won": 700}),
    ),
    "a second one that is told before the end of the first": (
        [opened("A", 0, 1000), opened("B", 2, 1000), closed("won", "A", 1)],
        End("chargeback", 1000, {"chargeback": 2000, "chargeback_won": 1000}),
    ),
    "and its end, too": (
        [opened("A", 0, 1000), opened("B", 2, 1000), closed("lost", "B", 3), closed("won", "A", 1)],
        End("lost", 1000, {"chargeback": 2000, "chargeback_won": 1000}),
    ),
    "of the first, all; of the second, what the end of the first leaves": (
        [opened("A", 0, 700), opened("B", 1, 700), closed("won", "A", 2)],
        End("chargeback", 700, {"chargeback": 1400, "chargeback_won": 700}),
    ),
    "two at once": (
        [opened("A", 0, 300), opened("B", 0, 300), closed("won", "A", 1)],
        End("chargeback", 300, {"chargeback": 600, "chargeback_won": 300}),
    ),
    "lost, then an appeal is won": (
        [opened("A"), closed("lost", "A", 1), opened("A", 2), closed("won", "A", 3)],
        End("won", 0, {"chargeback": 1000, "chargeback_won": 1000}),
    ),
    "won, then withdrawn once more": (
        [opened("A", 0, 400), closed("won", "A", 1), closed("lost", "A", 2)],
        End("lost", 400, {"chargeback": 800, "chargeback_won": 400}),
    ),
    "an appeal that is won is told before the loss": (
        [opened("A"), closed("won", "A", 3), closed("lost", "A", 1)],
        End("won", 0, {"chargeback": 1000, "chargeback_won": 1000}),
    ),
    "won, lost, won; the last is told twice, and before the second": (
        [opened("A"), *(closed("won", "A", 1), closed("won", "A", 3), closed("lost", "A", 2), closed("won", "A", 3))],
        End("won", 0, {"chargeback": 1000, "chargeback_won": 1000}),
    ),
    "a fee, told with each message": (
        [opened("A", 0, None, 15), opened("A", 1, None, 15), closed("lost", "A", 2, 15), closed("lost", "A", 2, 15)],
        End("lost", 1000, {"chargeback": 1000, "dispute_fee": 15}),
    ),
    "a fee that is told later": (
        [opened("A"), opened("A", 1, None, 15)],
        End("chargeback", 1000, {"chargeback": 1000, "dispute_fee": 15}),
    ),
    "a fee that is given back when it is won": (
        [opened("A", 0, None, 15), closed("won", "A", 1, 0), opened("A", 0, None, 15)],
        End("won", 0, {"chargeback": 1000, "chargeback_won": 1000, "dispute_fee": 15, "dispute_fee_back": 15}),
    ),
    "a fee and none in the same second": (
        [opened("A", 0, None, 15), opened("A", 0, None, 0)],
        End("chargeback", 1000, {"chargeback": 1000, "dispute_fee": 15}),
    ),
    "each dispute's own fee": (
        [opened("A", 0, None, 15), closed("won", "A", 1, 15), opened("B", 2, None, 15)],
        End("chargeback", 1000, {"chargeback": 2000, "chargeback_won": 1000, "dispute_fee": 30}),
    ),
    "what a person opened gets its number": (
        [DisputeOpened("chargeback"), opened("A"), closed("won", "A", 1), opened("B", 2)],
        End("chargeback", 1000, {"chargeback": 2000, "chargeback_won": 1000}),
    ),
    "what a person said was lost, and is won": (
        [opened("A"), DisputeClosed("lost"), closed("won", "A", 1)],
        End("won", 0, {"chargeback": 1000, "chargeback_won": 1000}),
    ),
    "without a number it is opened once": (
        [opened(None, None), closed("won", None, None), opened(None, None)],
        End("won", 0, {"chargeback": 1000, "chargeback_won": 1000}),
    ),
    "an inquiry's end is not the chargeback's": (
        [opened("A"), closed("resolved", "A", 5)],
        End("chargeback", 1000, {"chargeback": 1000}),
    ),
    "an end of nothing that is known": ([closed("lost", "A", 1)], End(None, 0, {})),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_disputes_by_their_numbers(case: str) -> None:
    events, expected = TABLE[case]
    made, sums, _ = posted(debit(State.SETTLED), events)
    assert End(made.dispute, made.disputed_minor, dict(sums)) == expected
    assert made.disputed_minor == sum(one.taken_minor for one in made.disputes)


def test_a_reversed_end_is_told_and_the_ride_is_netted() -> None:
    lost, _, _ = posted(debit(State.SETTLED), [opened("A"), closed("lost", "A", 1)])
    for made, result in ((lost, "won"), (posted(lost, [closed("won", "A", 2)])[0], "lost")):
        _, _, effects = posted(made, [closed("won" if result == "won" else "lost", "A", 3)])
        assert NetAgain() in effects and Publish("dispute.closed") in effects


def test_a_complaint_beside_another_is_its_own() -> None:
    events: list[DebitEvent] = [
        DisputeOpened("complaint", told=told("A", 0)),
        DisputeOpened("complaint", told=told("B", 1)),
        DisputeClosed("resolved", told=told("A", 2)),
    ]
    made, _, _ = posted(debit(State.SETTLED), events)
    assert made.dispute == "complaint"
    made, _, _ = posted(made, [DisputeClosed("resolved", told=told("B", 3))])
    assert made.dispute == "resolved"


MESSAGES = [
    *(("A", "opened", 0, 15), ("A", "won", 1, 0), ("A", "lost", 4, 15)),
    *(("B", "opened", 2, 20), ("B", "won", 3, 20)),
]


@pytest.mark.parametrize("each_minor", [400, 1000])
def test_messages_of_two_disputes_end_the_same_in_every_order(each_minor: int) -> None:
    for order in permutations(MESSAGES):
        made, sums = debit(State.SETTLED), Counter[str]()
        for ref, state, minute, fee in order:
            at = NOW + timedelta(minutes=minute)
            status = DisputeStatus("ref", "chargeback", state, each_minor, "CNY", ref, fee, "CNY", at)  # type: ignore[arg-type]  # A state of the table above.
            made, more, _ = posted(made, _news(made, status))
            sums += more
        ends = {one.ref: (one.state, one.taken_minor, one.fee_minor) for one in made.disputes}
        assert ends == {"A": ("lost", each_minor, 15), "B": ("won", 0, 20)}, order
        assert sums["chargeback"] - sums["chargeback_won"] == each_minor == made.disputed_minor
        assert made.dispute == "lost"
        assert sums["dispute_fee"] - sums["dispute_fee_back"] == 35


def test_a_chargeback_takes_what_is_paid_whether_the_payment_is_told_before_it_or_after() -> None:
    payment = Notified("KEY0", Succeeded(1000, "ref"))
    events: list[DebitEvent] = [payment, opened("A", 0, 1000), closed("lost", "A", 1)]
    for order in ([0, 1, 2], [1, 0, 2], [1, 2, 0]):
        for of_minor in (1000, None):
            events[1] = opened("A", 0, of_minor)
            made, sums, _ = posted(debit(State.PENDING, due_at=NOW), [events[place] for place in order])
            assert (made.state, made.dispute, made.disputed_minor) == (State.SETTLED, "lost", 1000)
            assert sums == {"settlement": 1000, "chargeback": 1000}


PROVIDERS_NEWS = st.lists(
    st.one_of(
        st.builds(
            opened, st.sampled_from(["A", "B", None]), st.integers(0, 5), st.sampled_from([None, 300]), st.just(15)
        ),
        st.builds(
            closed,
            st.sampled_from(["won", "lost", "resolved"]),
            st.sampled_from(["A", "B", None]),
            st.integers(0, 5),
            st.sampled_from([None, 0, 15]),
        ),
        st.sampled_from([DisputeOpened("complaint"), DisputeClosed("resolved"), RefundAsked(300, "r")]),
    ),
    max_size=12,
)


@given(PROVIDERS_NEWS)
def test_whatever_is_told_the_ledger_has_what_banks_and_providers_have(events: list[DebitEvent]) -> None:
    made, sums = debit(State.SETTLED), Counter[str]()
    for event in events:
        with suppress(RefundRefusedError):
            made, more, _ = posted(made, [event])
            sums += more
    assert sums["chargeback"] - sums["chargeback_won"] == made.disputed_minor <= made.paid_minor
    assert sums["dispute_fee"] - sums["dispute_fee_back"] == sum(one.fee_minor for one in made.disputes)
    assert (made.dispute in ("complaint", "chargeback")) == any(one.state == "opened" for one in made.disputes)


UNSENT = {
    "new": debit(),
    "to be tried again": debit(State.RETRY_WAIT),
    "turned away": debit(State.SUBMITTING, reason="throttled"),
    "not found": debit(State.SUBMITTING, reason="not found twice", resent=1, queries=1),
    "to confirm": debit(State.NEEDS_RIDER, attempts=0, begun_at=None, submitted_at=None, reason=TO_CONFIRM),
}


@pytest.mark.parametrize("able", [CARD, ORDER, replace(ORDER, new_key_after_decline=True)])
@pytest.mark.parametrize("what", UNSENT)
def test_while_the_rider_objects_nothing_is_sent_at_any_provider(what: str, able: Capabilities) -> None:
    """What a provider collects by himself goes on there; what he never had is not begun. Support opened a dispute while
    a debit waited for its day, and it was sent all the same."""
    calls = {Call("submit"), Call("close")}
    made, _ = after(UNSENT[what], DisputeOpened("complaint"), NOW, terms(able))
    for hours in (1, 2, 3):
        made, effects = after(made, Due(), NOW + timedelta(hours=hours), terms(able))
        assert not calls & set(effects)
    made, _ = after(made, DisputeClosed("resolved"), NOW + timedelta(hours=4), terms(able))
    assert made.due_at is not None
    assert calls & set(after(made, Due(), NOW + timedelta(hours=5), terms(able))[1])


@pytest.mark.parametrize("state", [State.RETRY_WAIT, State.NEEDS_RIDER, State.MANUAL, State.WRITTEN_OFF, State.PENDING])
def test_a_chargeback_in_the_banks_own_currency_takes_the_payment_that_is_told_after_it(state: State) -> None:
    unpaid, _ = after(debit(state), opened("A"), NOW, terms(CARD))
    paid, effects = after(unpaid, Notified(KEY, Succeeded(1000)), NOW, terms(CARD))
    assert (paid.paid_minor, paid.disputed_minor) == (1000, 1000)
    assert Post("chargeback", 1000) in effects


def test_an_inquiry_that_becomes_a_chargeback_beside_another_one_is_over_with_it() -> None:
    made, _ = after(debit(State.SETTLED), opened("A", 0, 300), NOW, terms(CARD))
    inquiry = DisputeStatus("pi", "complaint", "opened", 500, "CNY", "B", told_at=NOW + timedelta(minutes=1))
    became = replace(inquiry, kind="chargeback", told_at=NOW + timedelta(minutes=2))
    for status in (inquiry, became, replace(became, state="lost", told_at=NOW + timedelta(minutes=3))):
        for event in _news(made, status):
            made, _ = after(made, event, NOW, terms(CARD))
    made, _ = after(made, closed("won", "A", 4), NOW, terms(CARD))
    assert (made.dispute, made.disputed_minor) == ("lost", 500)
    assert [one.state for one in made.disputes if one.kind == "complaint"] == ["resolved"]


@pytest.mark.parametrize("lost", [False, True])
def test_of_a_chargeback_that_a_person_opened_the_provider_says_how_much_it_is_about(lost: bool) -> None:
    """A letter of the bank comes first, and names no amount that can be said here."""
    by_hand: list[DebitEvent] = [DisputeOpened("chargeback"), *([DisputeClosed("lost")] if lost else [])]
    made, sums, effects = posted(debit(State.SETTLED), [*by_hand, opened("A", 1, 300)])
    assert (made.disputed_minor, sums) == (300, {"chargeback": 1000, "chargeback_won": 700})
    assert NetAgain() in effects
    made, sums, _ = posted(debit(State.SETTLED), [*by_hand, opened("A", 1, 300), opened("A", 1, 300)])
    assert (made.disputed_minor, sums["chargeback"]) == (300, 1000)


MOVES = [("opened", 0, 0), ("opened", 1, 1000), ("won", 2, 1000), ("won", 3, 0), ("lost", 4, 1000), ("lost", 5, 950)]
"""A dispute's states, minutes, and what its provider has for it by then."""


@pytest.mark.parametrize("last", range(1, len(MOVES) + 1))
def test_what_the_provider_has_moved_is_booked_whatever_the_rider_has_back_already(last: int) -> None:
    """Stripe takes a disputed payment whole though a part of it was given back, before its payment is told or after,
    and in steps of its own (docs.stripe.com/api/disputes/object, balance_transactions)."""
    paid: list[DebitEvent] = [Notified("KEY0", Succeeded(1000, "ref"))]
    back: list[DebitEvent] = [RefundEnded("KEY0", 400, succeeded=True)]
    for order in permutations(range(last)):
        for before, after_it in (([*paid, *back], []), (paid, back), ([], [*paid, *back])):
            made, sums, _ = posted(debit(State.PENDING, due_at=NOW, refunding_minor=400), before)
            for place in order:
                state, minute, moved = MOVES[place]
                at = NOW + timedelta(minutes=minute)
                status = DisputeStatus("ref", "chargeback", state, 1000, "CNY", "A", told_at=at, moved_minor=moved)  # type: ignore[arg-type]  # A state of the table above.
                made, more, _ = posted(made, _news(made, status))
                sums += more
            made, more, _ = posted(made, after_it)
            sums += more
            assert made.disputed_minor == MOVES[last - 1][2] == sums["chargeback"] - sums["chargeback_won"], order
            assert (made.paid_minor, made.refunded_minor) == (1000, 400)


def test_of_two_messages_of_one_second_that_counts_which_has_come_further() -> None:
    for order in permutations([0, 1000]):
        events: list[DebitEvent] = [DisputeOpened("chargeback", 1000, told=Told("A", NOW, moved)) for moved in order]
        assert posted(debit(State.SETTLED), events)[0].disputed_minor == 1000
        won = [DisputeClosed("won", told=Told("A", NOW, moved, over=True)) for moved in order]
        assert posted(debit(State.SETTLED), [opened("A", 0), *won])[0].disputed_minor == 0


def test_what_a_person_has_closed_is_not_what_is_told_open_after_it() -> None:
    """A person opened and closed one by a letter; the next one had been taken for it, and its money was not booked."""
    by_hand: list[DebitEvent] = [DisputeOpened("chargeback"), DisputeClosed("won")]
    made, _, _ = posted(debit(State.SETTLED), [*by_hand, opened("A", 1)])
    assert (made.dispute, made.disputed_minor, len(made.disputes)) == ("chargeback", 1000, 2)
    made, _, _ = posted(made, [closed("won", "A", 2)])
    assert (made.dispute, made.disputed_minor) == ("won", 0)
    late, _, _ = posted(debit(State.SETTLED), [*by_hand, DisputeClosed("won", told=Told("A", NOW, over=True))])
    assert [one.ref for one in late.disputes] == ["A"]


def test_a_chargeback_that_a_person_has_lost_by_mistake_is_won_after_all() -> None:
    """Its money had stayed a loss for good, while the provider had never taken it."""
    events: list[DebitEvent] = [DisputeOpened("chargeback"), DisputeClosed("lost"), DisputeClosed("won")]
    made, sums, effects = posted(debit(State.SETTLED), events)
    assert (made.dispute, made.disputed_minor, sums) == ("won", 0, {"chargeback": 1000, "chargeback_won": 1000})
    assert NetAgain() in effects
    again, sums, _ = posted(made, [DisputeClosed("won")])
    assert (again, sums) == (made, {})
