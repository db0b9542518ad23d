"""A provider who says nothing of a debit or refund that anybody has listed: shown after three days, and asked on."""

from __future__ import annotations

from datetime import timedelta

import pytest
from debit_makers import CARD, KEY, NOW, ORDER, debit, terms
from msgspec.structs import replace

from service.billing.capabilities import Capabilities
from service.billing.debits import Debit, ImpossibleEventError, State, after
from service.billing.debits.answers import RESTORED
from service.billing.debits.events import Call, Due, LowerAnswered, OperatorDecided, Queried
from service.billing.debits.refunds import Refund, RefundState, refund_after, stands_still
from service.billing.debits.unanswered import ANSWERED_WITHIN, UNANSWERED, unanswered
from service.billing.outcomes import (
    Accepted,
    Closed,
    Declined,
    NotFound,
    Outcome,
    Postponed,
    Rejected,
    Succeeded,
    Unknown,
)

ODD = Unknown("code NEVER_HEARD")
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
REFUND = Refund(
    ride_no=1, ordinal=1, refund_ordinal=1, slot=1, operator_no=1, agreement_no=1, account_no=1, currency="CNY",
    amount_minor=300, provider_key="R", debit_key=KEY, created_at=NOW, reason="owed less", state=RefundState.PENDING,
)  # fmt: skip


def asked(made: Debit, answers: list[tuple[timedelta, Outcome]], capabilities: Capabilities = ORDER) -> Debit:
    for at, outcome in answers:
        made, _ = after(made, Queried(KEY, outcome), NOW + at, terms(capabilities))
    return made


@pytest.mark.parametrize("state", [State.PENDING, State.UNKNOWN])
@pytest.mark.parametrize("odd", [ODD, Rejected("PARAM_ERROR")])
def test_after_three_days_of_words_that_nobody_listed_it_is_shown_with_them_and_asked_on_under_its_key(
    state: State, odd: Outcome
) -> None:
    made = asked(debit(state), [(timedelta(), odd), (DAY, odd), (ANSWERED_WITHIN - MINUTE, odd)])
    assert not unanswered(made)
    shown = asked(made, [(ANSWERED_WITHIN, odd)])
    assert (unanswered(shown), shown.state, shown.provider_key) == (True, state, KEY)
    assert shown.reason == f"{UNANSWERED}: {getattr(odd, 'reason', '') or getattr(odd, 'code', '')}"
    assert shown.due_at is not None
    again, effects = after(shown, Due(), shown.due_at, terms(ORDER))
    assert Call("query") in effects
    assert asked(again, [(5 * DAY, Unknown("another"))]).reason == shown.reason, "once is enough"


@pytest.mark.parametrize(
    ("said", "state", "reason"),
    [
        (Accepted(), State.PENDING, None),
        (Succeeded(1000, "ref"), State.SETTLED, None),
        (Declined(False, "CARD"), State.NEEDS_RIDER, "CARD"),
        (Closed("CLOSED"), State.NEEDS_RIDER, "CLOSED"),
    ],
)
def test_it_goes_on_by_itself_once_the_provider_says_what_became_of_it(
    said: Outcome, state: State, reason: str | None
) -> None:
    shown = asked(debit(State.PENDING), [(timedelta(), ODD), (ANSWERED_WITHIN, ODD)])
    on = asked(shown, [(4 * DAY, said)])
    assert (on.state, on.reason, on.unanswered_since) == (state, reason, None)


def test_what_is_said_between_begins_the_days_anew_and_being_turned_away_says_nothing() -> None:
    said = asked(debit(State.PENDING), [(timedelta(), ODD), (2 * DAY, Accepted()), (4 * DAY, ODD), (6 * DAY, ODD)])
    assert not unanswered(said)
    away = asked(
        debit(State.PENDING), [(timedelta(), Postponed(MINUTE)), (9 * DAY, Postponed(MINUTE)), (10 * DAY, ODD)]
    )
    assert not unanswered(away)
    other = asked(debit(State.UNKNOWN), [(timedelta(), ODD), (2 * DAY, Accepted()), (4 * DAY, ODD)])
    assert not unanswered(other)


def test_what_cannot_be_lowered_for_such_words_is_shown_too() -> None:
    made = replace(debit(State.PENDING), lowering_to=0)
    for at in (timedelta(), ANSWERED_WITHIN):
        made, _ = after(made, LowerAnswered(KEY, ODD), NOW + at, terms(CARD))
    assert (unanswered(made), made.lowering_to) == (True, 0)


def test_a_person_may_say_what_became_of_it_and_of_no_other_that_is_pending() -> None:
    shown = asked(debit(State.PENDING), [(timedelta(), ODD), (ANSWERED_WITHIN, ODD)])
    at = NOW + ANSWERED_WITHIN
    settled, _ = after(shown, OperatorDecided("settled", "his books", "ref"), at, terms(ORDER))
    assert (settled.state, settled.paid_minor) == (State.SETTLED, 1000)
    again, _ = after(shown, OperatorDecided("submit_again", "never there"), at, terms(ORDER))
    assert (again.state, again.provider_key) == (State.SUBMITTING, KEY)
    given_up, _ = after(shown, OperatorDecided("cancel", "never there"), at, terms(ORDER))
    assert (given_up.state, given_up.given) == (State.CANCELLED, True), "what comes all the same goes back"
    with pytest.raises(ImpossibleEventError):
        after(debit(State.PENDING), OperatorDecided("settled", "his books"), at, terms(ORDER))


def test_after_a_restore_it_is_still_known_why_it_is_asked_about() -> None:
    lost = replace(debit(State.UNKNOWN), reason=RESTORED)
    assert asked(lost, [(timedelta(), ODD), (ANSWERED_WITHIN, ODD)]).reason == RESTORED


def test_a_refund_of_which_nothing_is_said_stands_still_until_something_is() -> None:
    refund = REFUND
    for at in (timedelta(), ANSWERED_WITHIN - MINUTE):
        refund = refund_after(refund, Queried("R", ODD), NOW + at)
    assert not stands_still(refund)
    refund = refund_after(refund, Queried("R", ODD), NOW + ANSWERED_WITHIN)
    assert (stands_still(refund), refund.code) == (True, f"{UNANSWERED}: code NEVER_HEARD")
    assert refund.due_at is not None
    on = refund_after(refund, Queried("R", Accepted()), NOW + 4 * DAY)
    assert (on.state, on.code, on.unanswered_since) == (RefundState.PENDING, None, None)
    done = refund_after(refund, Queried("R", Succeeded(300, "r")), NOW + 4 * DAY)
    assert (done.state, done.code) == (RefundState.SUCCEEDED, None)
    assert refund_after(refund, Queried("R", NotFound()), NOW + 4 * DAY).state is RefundState.UNKNOWN
