"""The rules inside the rows of the table: keys, questions, the calendar, caps, money that comes twice."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from debit_makers import CARD, KEY, NOW, ORDER, ZONE, debit, terms
from msgspec.structs import replace

from service.billing.capabilities import Capabilities
from service.billing.debits import Debit, RefundRefusedError, State, after, dunning
from service.billing.debits.dunning import Calendar
from service.billing.debits.events import (
    Call,
    DebitEvent,
    DisputeClosed,
    DisputeOpened,
    Due,
    Effect,
    LowerAnswered,
    NetAgain,
    Notified,
    OwedChanged,
    PaidElsewhere,
    PolicyDue,
    Post,
    Queried,
    RefundAsked,
    RefundEnded,
    Resumed,
    StartRefund,
    Submitted,
    Suspended,
)
from service.billing.debits.state import HoldSeen
from service.billing.outcomes import (
    Accepted,
    AlreadyDone,
    Barred,
    CapExceeded,
    Closed,
    Declined,
    NotFound,
    Succeeded,
    Throttled,
    Unknown,
)

LOW = Declined(retryable=True, code="LOW")


def live(
    made: Debit, events: Sequence[tuple[timedelta, DebitEvent]], capabilities: Capabilities = CARD
) -> tuple[Debit, list[Effect]]:
    """The debit after events at instants counted from NOW, and all effects."""
    told: list[Effect] = []
    for step, event in events:
        made, effects = after(made, event, NOW + step, terms(capabilities))
        told += effects
    return made, told


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def test_intent_and_key_are_decided_before_the_call() -> None:
    made, effects = live(debit(), [(seconds(0), Due())])
    assert (made.state, made.provider_key, made.attempts, made.submitted_at) == (State.SUBMITTING, KEY, 1, NOW)
    assert Call("submit") in effects


def test_questions_are_asked_after_1_2_5_10_30_60_seconds_then_every_5_minutes() -> None:
    made, at, waits = debit(State.SUBMITTING), NOW, []
    made, _ = after(made, Submitted(KEY, Unknown("timeout")), at, terms())
    for _ in range(9):
        assert made.due_at is not None
        waits.append((made.due_at - at).total_seconds())
        at = made.due_at
        made, [call] = after(made, Due(), at, terms())
        assert call == Call("query")
        made, _ = after(made, Queried(KEY, Unknown("timeout")), at, terms())
    assert waits == [1, 2, 5, 10, 30, 60, 300, 300, 300]
    assert made.provider_key == KEY


@pytest.mark.parametrize(("apart", "expected"), [(59, State.UNKNOWN), (60, State.SUBMITTING)])
def test_not_found_twice_a_minute_apart_submits_again_under_the_same_key(apart: int, expected: State) -> None:
    made, _ = live(
        debit(State.UNKNOWN), [(seconds(0), Queried(KEY, NotFound())), (seconds(apart), Queried(KEY, NotFound()))]
    )
    assert (made.state, made.provider_key, made.attempts) == (expected, KEY, 1)


def test_not_found_after_the_keys_window_needs_a_person() -> None:
    made, _ = live(
        debit(State.UNKNOWN), [(seconds(0), Queried(KEY, NotFound())), (timedelta(days=2), Queried(KEY, NotFound()))]
    )
    assert made.state is State.MANUAL


def test_where_sending_again_is_the_query_nothing_is_sent_after_the_window() -> None:
    resending = Capabilities(same_key_is_query=True)
    _, [call] = live(debit(State.UNKNOWN), [(timedelta(hours=23), Due())], resending)
    assert call == Call("query")
    made, effects = live(debit(State.UNKNOWN), [(timedelta(hours=24), Due())], resending)
    assert (made.state, effects) == (State.MANUAL, [])


def test_paid_elsewhere_and_at_the_provider_too_is_given_back() -> None:
    made, effects = live(
        debit(State.PENDING),
        [
            (seconds(0), PaidElsewhere("cash")),
            (seconds(1), Due()),
            (seconds(2), LowerAnswered(KEY, AlreadyDone())),
            (seconds(3), Due()),
            (seconds(4), Queried(KEY, Unknown("timeout"))),
            (seconds(9), Due()),
            (seconds(10), Queried(KEY, Succeeded(1000, "ref"))),
        ],
    )
    assert [effect.what for effect in effects if isinstance(effect, Call)] == ["lower", "query", "query"]
    assert (made.state, made.paid_minor, made.refunding_minor, made.doubted_minor) == (
        State.SETTLED_TWICE, 1000, 1000, None
    )  # fmt: skip


def test_already_done_is_asked_about_and_never_believed() -> None:
    made, _ = live(debit(State.SUBMITTING), [(seconds(0), Submitted(KEY, AlreadyDone()))])
    assert made.state is State.UNKNOWN


def test_throttled_waits_as_long_as_the_provider_says_under_the_same_key() -> None:
    made, _ = live(debit(State.SUBMITTING), [(seconds(0), Submitted(KEY, Throttled(seconds(7))))])
    assert (made.state, made.due_at, made.provider_key) == (State.SUBMITTING, NOW + seconds(7), KEY)
    made, [call] = live(made, [(seconds(7), Due())])
    assert (call, made.attempts) == (Call("submit"), 1)


def test_what_was_never_sent_is_sent_however_long_debits_were_stopped() -> None:
    stopped = debit(State.SUBMITTING)
    waiting, _ = live(stopped, [(seconds(0), Submitted(KEY, Throttled(seconds(0))))])
    made, effects = live(waiting, [(timedelta(days=9), Due())])
    assert (made.state, effects, made.submitted_at) == (State.SUBMITTING, [Call("submit")], NOW + timedelta(days=9))
    assert live(made, [(timedelta(days=9), Submitted(KEY, Unknown("timeout")))])[0].state is State.UNKNOWN


def test_who_is_not_let_in_waits_under_the_same_key_and_no_attempt_is_counted() -> None:
    barred = Barred(seconds(60), "UNAUTHORIZED", "the key is refused")
    made, effects = live(debit(State.SUBMITTING), [(seconds(0), Submitted(KEY, barred))])
    assert (made.state, made.due_at, made.reason, effects) == (
        State.SUBMITTING, NOW + seconds(60), "account_not_accepted", []
    )  # fmt: skip
    for days in range(1, 30):  # Longer than the provider would remember the key: it never saw it.
        made, effects = live(made, [(timedelta(days=days), Due()), (timedelta(days=days), Submitted(KEY, barred))])
        assert (made.state, made.provider_key, made.attempts, effects) == (
            State.SUBMITTING, KEY, 1, [Call("submit")]
        )  # fmt: skip


def test_an_unknown_outcome_is_asked_for_once_we_are_let_in_however_late_that_is() -> None:
    barred = Barred(seconds(60), "UNAUTHORIZED")
    made, _ = live(debit(State.UNKNOWN), [(timedelta(days=900), Queried(KEY, barred))])
    assert (made.state, made.due_at) == (State.UNKNOWN, NOW + timedelta(days=900) + seconds(60))
    assert live(made, [(timedelta(days=901), Queried(KEY, Succeeded(1000, "r")))])[0].state is State.SETTLED


def test_what_was_sent_and_then_throttled_needs_a_person_once_its_key_may_be_forgotten() -> None:
    pending = debit(State.PENDING)
    twice = [(seconds(0), Queried(KEY, NotFound())), (seconds(60), Queried(KEY, NotFound()))]
    again, _ = live(pending, [*twice, (seconds(61), Submitted(KEY, Throttled(seconds(0))))])
    assert again.state is State.SUBMITTING
    assert live(again, [(timedelta(days=9), Due())])[0].state is State.MANUAL


def test_a_number_whose_hold_is_over_is_asked_about_while_it_may_be_paid() -> None:
    over = replace(terms(ORDER), hold=HoldSeen("completed"))
    made, _ = after(debit(State.RETRY_WAIT), Due(), NOW, over)
    assert (made.state, made.reason) == (State.NEEDS_RIDER, "the hold is over")
    assert made.due_at is not None
    assert after(made, Due(), made.due_at, over)[1] == (Call("query"),)


def test_a_new_key_follows_a_definite_decline_where_the_provider_wants_one() -> None:
    declined, _ = live(debit(State.SUBMITTING), [(seconds(0), Submitted(KEY, LOW))])
    card, _ = live(declined, [(timedelta(days=1), Due())], CARD)
    order, _ = live(declined, [(timedelta(days=1), Due())], ORDER)
    assert (card.provider_key != KEY, order.provider_key == KEY, card.attempts) == (True, True, 2)


def test_an_answer_for_an_older_key_is_only_good_for_its_money() -> None:
    made = debit(State.SUBMITTING, provider_key="KEY1", attempts=2)
    assert live(made, [(seconds(0), Submitted(KEY, LOW))])[0] == made
    paid, effects = live(made, [(seconds(0), Submitted(KEY, Succeeded(1000)))])
    assert (paid.state, paid.paid_minor) == (State.SUBMITTING, 1000), "the present key's fate is not known yet"
    settled, _ = live(paid, [(seconds(1), Submitted("KEY1", LOW))])
    twice, more = live(paid, [(seconds(1), Submitted("KEY1", Succeeded(1000)))])
    assert (settled.state, twice.state) == (State.SETTLED, State.SETTLED_TWICE)
    assert [effect.amount_minor for effect in [*effects, *more] if isinstance(effect, Post)] == [1000, 1000]
    assert [effect.amount_minor for effect in more if isinstance(effect, StartRefund)] == [1000]


def test_a_part_leaves_it_pending_and_the_rest_settles_it() -> None:
    made, effects = live(
        debit(State.PENDING),
        [
            (seconds(0), Notified(KEY, Succeeded(400))),
            (seconds(1), Notified(KEY, Succeeded(400))),
            (seconds(2), Queried(KEY, Succeeded(1000))),
            (seconds(3), Notified(KEY, Succeeded(400))),
        ],
        Capabilities(partial_debit=True),
    )
    assert (made.state, made.paid_minor) == (State.SETTLED, 1000)
    assert [effect.amount_minor for effect in effects if isinstance(effect, Post)] == [400, 600]


def test_a_provider_that_takes_more_than_asked_gives_the_excess_back() -> None:
    made, effects = live(debit(State.PENDING), [(seconds(0), Queried(KEY, Succeeded(1200)))])
    [refund] = [effect for effect in effects if isinstance(effect, StartRefund)]
    assert (made.state, made.refunding_minor, refund.amount_minor) == (State.SETTLED_TWICE, 200, 200)


def test_over_the_cap_the_debit_is_cut_and_the_rides_remainder_netted_again() -> None:
    made, effects = live(debit(State.SUBMITTING), [(seconds(0), Submitted(KEY, CapExceeded(600)))])
    assert (made.state, made.amount_minor, made.capped, made.due_at) == (State.RETRY_WAIT, 600, True, NOW)
    assert NetAgain() in effects


def test_obligations_that_waited_are_netted_once_the_fate_is_known() -> None:
    waiting, effects = live(debit(State.UNKNOWN), [(seconds(0), OwedChanged(0))])
    assert (waiting.net_again, effects) == (True, [])
    made, effects = live(waiting, [(seconds(1), Queried(KEY, Succeeded(1000)))])
    assert (made.net_again, NetAgain() in effects) == (False, True)


@pytest.mark.parametrize("abilities", [CARD, ORDER, replace(ORDER, closes_unpaid=True)])
@pytest.mark.parametrize("told", [Notified, Queried, LowerAnswered])
def test_what_is_paid_before_it_could_be_closed_is_netted_again(
    abilities: Capabilities, told: type[Notified | Queried | LowerAnswered]
) -> None:
    voided, _ = after(debit(State.PENDING), OwedChanged(0), NOW, terms(abilities))
    paid, effects = after(voided, told(KEY, Succeeded(1000, "r")), NOW, terms(abilities))
    assert (paid.state, paid.paid_minor, paid.lowering_to) == (State.SETTLED, 1000, None)
    assert NetAgain() in effects, "owed nothing, paid 1000: somebody must give it back"


def test_what_is_lowered_while_pending_is_asked_of_the_provider() -> None:
    able = Capabilities(reduces_pending=True)
    lowering, _ = live(debit(State.PENDING), [(seconds(0), OwedChanged(700))], able)
    _, [call] = live(lowering, [(seconds(0), Due())], able)
    made, effects = live(lowering, [(seconds(1), LowerAnswered(KEY, Accepted()))], able)
    assert (call, made.state, made.amount_minor, made.lowering_to) == (Call("lower"), State.PENDING, 700, None)
    assert NetAgain() in effects
    refused, _ = live(lowering, [(seconds(1), LowerAnswered(KEY, AlreadyDone()))], able)
    assert (refused.state, refused.amount_minor, refused.net_again) == (State.PENDING, 1000, True)


def test_nobody_is_dunned_for_what_is_owed_no_longer() -> None:
    left, _ = live(debit(State.PENDING), [(seconds(0), OwedChanged(0))], ORDER)
    assert (left.state, left.excess_minor, left.policy_at) == (State.PENDING, 1000, None)
    again, _ = live(left, [(seconds(1), OwedChanged(1000))], ORDER)
    assert again.excess_minor == 0
    assert again.policy_at is not None


def test_who_owes_nothing_any_more_is_not_overdue_and_is_again_when_he_owes() -> None:
    """The order can't be closed: it stays open at the provider, as long as nobody pays it."""
    late = debit(State.PENDING, overdue=True, pay_by=NOW - timedelta(days=1))
    left, _ = live(late, [(seconds(0), OwedChanged(0))], ORDER)
    assert (left.state, left.excess_minor, left.overdue) == (State.PENDING, 1000, False)
    less, _ = live(late, [(seconds(0), OwedChanged(1))], ORDER)
    assert (less.excess_minor, less.overdue) == (999, True)
    again, _ = live(left, [(seconds(1), OwedChanged(1000)), (seconds(2), PolicyDue())], ORDER)
    assert again.overdue


def test_past_due_is_overdue_and_goes_on_being_tried() -> None:
    made, _ = live(debit(State.RETRY_WAIT), [(timedelta(days=15), PolicyDue())])
    assert (made.state, made.overdue) == (State.RETRY_WAIT, True)
    tried, effects = live(made, [(timedelta(days=15), Due())])
    assert (tried.state, tried.overdue, Call("submit") in effects) == (State.SUBMITTING, True, True)
    paid, effects = live(tried, [(timedelta(days=15), Submitted(tried.provider_key, Succeeded(1000)))], ORDER)
    assert (paid.state, paid.overdue, paid.record, paid.policy_at) == (
        State.SETTLED,
        False,
        "completed",
        NOW + timedelta(days=15),
    )


def test_a_disputed_debt_is_neither_dunned_nor_written_off() -> None:
    events: list[tuple[timedelta, DebitEvent]] = [
        (timedelta(0), DisputeOpened("complaint")),
        (timedelta(days=400), PolicyDue()),
        (timedelta(days=400), Due()),
    ]
    made, effects = live(debit(State.RETRY_WAIT), events)
    assert (made.state, made.overdue, made.due_at) == (State.RETRY_WAIT, False, None)
    assert Call("submit") not in effects
    made, _ = live(made, [(timedelta(days=401), DisputeClosed("lost"))])
    assert made.due_at is not None


def test_a_written_off_debt_is_recovered_in_parts() -> None:
    made, effects = live(
        debit(State.WRITTEN_OFF),
        [(seconds(0), Notified("R", Succeeded(400))), (seconds(1), Notified("R", Succeeded(1000)))],
    )
    assert (made.state, made.paid_minor, made.forgone_minor, made.overdue) == (State.SETTLED, 1000, 0, False)
    assert [effect for effect in effects if isinstance(effect, Post)] == [Post("recovery", 400), Post("recovery", 600)]


def test_refunds_never_exceed_what_was_paid_and_rest_during_a_chargeback() -> None:
    made, _ = live(debit(State.SETTLED), [(seconds(0), RefundAsked(700, "goodwill"))])
    with pytest.raises(RefundRefusedError, match="300 is left"):
        live(made, [(seconds(1), RefundAsked(301, "goodwill"))])
    failed, _ = live(
        made, [(seconds(1), RefundEnded(KEY, 700, succeeded=False)), (seconds(2), RefundAsked(1000, "void"))]
    )
    assert (failed.refunding_minor, failed.refunds) == (1000, 2)
    contested, effects = live(debit(State.SETTLED), [(seconds(0), DisputeOpened("chargeback"))])
    assert Post("chargeback", 1000) in effects
    with pytest.raises(RefundRefusedError, match="chargeback"):
        live(contested, [(seconds(1), RefundAsked(1, "x"))])
    won, effects = live(contested, [(seconds(1), DisputeClosed("won"))])
    assert (won.dispute, Post("chargeback_won", 1000) in effects) == ("won", True)


def test_what_stood_still_does_not_become_overdue_for_it() -> None:
    made, _ = live(debit(State.RETRY_WAIT), [(seconds(0), Suspended("lock")), (timedelta(days=30), PolicyDue())])
    assert (made.due_at, made.policy_at, made.overdue) == (None, None, False)
    made, _ = live(made, [(timedelta(days=30), Resumed())])
    assert made.pay_by == NOW + timedelta(days=45)
    assert made.due_at == NOW + timedelta(days=30)


def test_closing_confirmed_cancels_and_money_after_that_goes_back() -> None:
    closing, _ = live(debit(State.PENDING), [(seconds(0), OwedChanged(0))])
    made, _ = live(closing, [(seconds(1), LowerAnswered(KEY, Closed()))])
    assert (made.state, made.due_at) == (State.CANCELLED, None)
    doubted, effects = live(made, [(seconds(2), Notified(KEY, Succeeded(1000)))])
    assert (doubted.state, doubted.due_at, effects) == (State.CANCELLED, NOW + seconds(2), [])
    late, effects = live(doubted, [(seconds(3), Due()), (seconds(4), Queried(KEY, Succeeded(1000)))])
    assert effects[0] == Call("query")
    assert (late.state, [e.amount_minor for e in effects if isinstance(e, StartRefund)]) == (
        State.SETTLED_TWICE,
        [1000],
    )


# Noon in Shanghai on 22 November; the times below are those of the rider's day.
RETRIES = [
    ("12:00", ["22 18:00", "23 12:00", "25 12:00", "27 12:00", "29 12:00", "02 12:00", "06 12:00"]),
    ("15:30", ["23 10:00", "23 15:30", "25 15:30", "27 15:30", "29 15:30", "02 15:30", "06 15:30"]),
    ("02:00", ["22 10:00", "23 10:00", "25 10:00", "27 10:00", "29 10:00", "02 10:00", "06 10:00"]),
    ("21:00", ["23 10:00", "24 10:00", "26 10:00", "28 10:00", "30 10:00", "03 10:00", "07 10:00"]),
]


@pytest.mark.parametrize(("first", "expected"), RETRIES)
def test_retries_fall_into_the_riders_day(first: str, expected: list[str]) -> None:
    begun = datetime.fromisoformat(f"2026-11-22T{first}").replace(tzinfo=ZONE)
    at, found = begun, []
    for attempts in range(1, 9):
        retry = dunning.retry_at(begun.astimezone(NOW.tzinfo), attempts, at, ZONE, Calendar())
        if retry is not None:
            found.append(retry.astimezone(ZONE).strftime("%d %H:%M"))
            at = retry
    assert found == expected


def test_retries_that_an_outage_let_pass_are_skipped() -> None:
    late = NOW + timedelta(days=4)
    retry = dunning.retry_at(NOW, 1, late, ZONE, Calendar())
    assert retry == NOW + timedelta(days=5)
    assert dunning.retry_at(NOW, 1, NOW + timedelta(days=14), ZONE, Calendar()) is None


def test_a_calendar_that_is_used_up_needs_the_rider() -> None:
    made, _ = live(replace(debit(State.SUBMITTING), attempts=8), [(timedelta(days=14), Submitted(KEY, LOW))])
    assert made.state is State.NEEDS_RIDER


def test_what_waits_for_the_rider_says_so_again_when_it_goes_on() -> None:
    waits = replace(debit(State.NEEDS_RIDER), reason="CARD_DECLINED")
    made, _ = live(waits, [(seconds(0), Suspended("lock failed")), (seconds(1), Resumed())])
    assert made.reason == "CARD_DECLINED"
