"""The lives of holds and agreements, and who may ride: total functions, shown by tables and properties."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from service.billing.agreements import Debt, Standing, refusal, signing
from service.billing.agreements.holds import (
    ENDED,
    OVER,
    Hold,
    HoldPolicy,
    HoldState,
    RideSeen,
    answered,
    next_step,
    unopened_at,
)
from service.billing.agreements.standing import AgreementState, AgreementStatus, HoldStatus, HoldStatusState
from service.billing.keys import session_key
from service.billing.outcomes import (
    Accepted,
    AlreadyDone,
    Barred,
    CapExceeded,
    Closed,
    Conflict,
    Declined,
    NeedsRider,
    NotFound,
    OpenUrl,
    Rejected,
    Succeeded,
    Throttled,
    Unknown,
)

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
POLICY = HoldPolicy()
OUTCOMES: tuple[Any, ...] = (
    Accepted(),
    Succeeded(1),
    Declined(True, "C"),
    Declined(False, "C"),
    Closed("C"),
    NotFound(),
    NeedsRider("C", OpenUrl("u")),
    Rejected("C"),
    CapExceeded(1),
    Conflict("C"),
    AlreadyDone(),
    Barred(timedelta(seconds=3), "UNAUTHORIZED"),
    Throttled(timedelta(seconds=3)),
    Unknown("timeout"),
)
HOLD_ANSWERS = (*OUTCOMES, *(HoldStatus(state) for state in get_args(HoldStatusState)))
AGREEMENT_ANSWERS = (*OUTCOMES, *(AgreementStatus(state) for state in get_args(AgreementState)))


def hold(state: HoldState, **more: Any) -> Hold:
    return Hold(
        session_key=session_key("op", "s1"),
        slot=1,
        operator_no=1,
        session_id="s1",
        agreement_no=1,
        account_no=1,
        tariff_id="bike",
        vehicle_id=None,
        state=state,
        cap_minor=1_000,
        currency="CNY",
        provider_key="k",
        **({"requested_at": AT, "due_at": AT} | more),
    )


def agreement(state: signing.State, **more: Any) -> signing.Agreement:
    return signing.Agreement(
        agreement_no=1,
        operator_no=1,
        agreement_id="ag",
        rider_no=1,
        rider_ref="rider",
        account_no=1,
        state=state,
        currency="CNY",
        cap_asked_minor=None,
        cap_minor=None,
        time_zone="UTC",
        language="zh",
        provider_key="k",
        created_at=AT,
        **more,
    )


@given(st.sampled_from(HoldState), st.lists(st.sampled_from(HOLD_ANSWERS), max_size=12))
def test_whatever_the_provider_says_a_hold_is_looked_at_again_or_over_for_good(
    state: HoldState, said: list[Any]
) -> None:
    now = AT
    it = hold(state, due_at=None if state in ENDED else AT)
    for answer in said:
        now += timedelta(seconds=1)
        before, it = it, answered(it, answer, now, POLICY)
        assert (it.due_at is None) is (it.state in ENDED)
        assert it.provider_key == before.provider_key
        assert it.cap_minor <= before.cap_minor
        if before.state in ENDED:
            assert it == before
        if it.due_at is not None:
            assert it.due_at > now


@pytest.mark.parametrize("answer", OUTCOMES)
def test_nothing_but_a_status_opens_a_hold(answer: Any) -> None:
    assert answered(hold(HoldState.REQUESTED), answer, AT, POLICY).state is not HoldState.OPEN


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (HoldStatus("open"), HoldState.OPEN),
        (HoldStatus("refused", code="C"), HoldState.REFUSED),
        (Declined(False, "C"), HoldState.REFUSED),
        (Conflict("C"), HoldState.REFUSED),
        (Rejected("C"), HoldState.REFUSED),
        (CapExceeded(1), HoldState.REFUSED),
        (Unknown("timeout"), HoldState.REQUESTED),
        (NotFound(), HoldState.REQUESTED),
        (AlreadyDone(), HoldState.REQUESTED),
        (NeedsRider("C", OpenUrl("u")), HoldState.REQUESTED),
    ],
)
def test_a_requested_hold_becomes_what_the_answer_says(answer: Any, state: HoldState) -> None:
    assert answered(hold(HoldState.REQUESTED), answer, AT, POLICY).state is state


CONFIRM = HoldStatus("pending", action=OpenUrl("u"))


@pytest.mark.parametrize("say", [CONFIRM, NeedsRider("C", OpenUrl("u")), Unknown("timeout")])
def test_a_hold_that_its_rider_never_confirms_is_asked_about_less_and_less(say: Any) -> None:
    """Every five minutes until its debt was written off: 51,840 questions in half a year."""
    it, asked = answered(hold(HoldState.REQUESTED), CONFIRM, AT, POLICY), []
    while it.due_at is not None and it.due_at < AT + timedelta(days=180):
        asked.append(it.due_at - AT)
        it = answered(it, say, it.due_at, POLICY)
    steps = [after - before for before, after in itertools.pairwise(asked)]
    assert steps == sorted(steps) and len(asked) < 250
    assert all(step <= timedelta(minutes=5) for step, at in zip(steps, asked, strict=False) if at < timedelta(hours=2))
    assert sum(1 for at in asked if timedelta(days=7) <= at < timedelta(days=8)) == 4


def test_a_hold_that_nobody_answers_is_asked_about_as_before() -> None:
    it = hold(HoldState.REQUESTED, asks=1_000)
    assert answered(it, Unknown("timeout"), AT + timedelta(days=2), POLICY).due_at == AT + timedelta(days=2, minutes=5)


UNOPENED = HoldStatus("released", unopened=True)


@given(st.timedeltas(timedelta(), timedelta(days=900)), st.sampled_from([UNOPENED, NotFound()]))
def test_what_may_still_be_opened_is_looked_for_within_as_long_again(opened_after: timedelta, say: Any) -> None:
    looked_at, looks = AT, 0
    while looked_at < AT + opened_after:
        due_at = unopened_at(AT, say, looked_at)
        assert due_at is not None and due_at > looked_at
        looked_at, looks = due_at, looks + 1
    assert looked_at - AT <= max(2 * opened_after, timedelta(minutes=5)) and looks < 22


@pytest.mark.parametrize("say", HOLD_ANSWERS)
def test_only_an_end_at_the_provider_ends_the_looking(say: Any) -> None:
    over = isinstance(say, HoldStatus) and say.state not in ("open", "pending")
    assert (unopened_at(AT, say, AT + timedelta(days=9)) is None) is over


def test_what_is_not_ended_for_an_unclear_answer_is_tried_again_within_the_hour() -> None:
    assert unopened_at(AT, Unknown("timeout"), AT) == AT + timedelta(minutes=5)
    assert unopened_at(AT, HoldStatus("open"), AT + timedelta(days=9)) == AT + timedelta(days=9, hours=1)


@pytest.mark.parametrize(
    ("state", "more", "ride", "step"),
    [
        (HoldState.REQUESTED, {}, RideSeen(), "ask"),
        (HoldState.REQUESTED, {"requested_at": AT - timedelta(minutes=10)}, RideSeen(), "release"),
        (HoldState.REQUESTED, {"requested_at": AT - timedelta(minutes=10)}, RideSeen("open"), "ask"),
        (HoldState.REQUESTED, {"action": OpenUrl("u")}, RideSeen("voided"), "release"),
        (HoldState.REQUESTED, {"action": OpenUrl("u")}, RideSeen("closed", 5), "ask"),
        (HoldState.REQUESTED, {"action": OpenUrl("u")}, RideSeen("closed", 5, 1, 1, 5, 5), "release"),
        (HoldState.REQUESTED, {"requested_at": AT - timedelta(minutes=10), "action": OpenUrl("u")}, RideSeen(), "ask"),
        (HoldState.OPEN, {"opened_at": AT - timedelta(minutes=29)}, RideSeen(read_through_at=AT), "wait"),
        (HoldState.OPEN, {"opened_at": AT - timedelta(minutes=30)}, RideSeen(read_through_at=AT), "release"),
        (HoldState.OPEN, {"opened_at": AT - timedelta(minutes=30)}, RideSeen(), "wait"),
        (HoldState.OPEN, {"opened_at": AT - timedelta(hours=24)}, RideSeen(), "release"),
        (HoldState.OPEN, {"opened_at": AT, "expires_at": AT}, RideSeen(), "ask"),
        (HoldState.OPEN, {"opened_at": AT - timedelta(days=9)}, RideSeen("open"), "wait"),
        (HoldState.OPEN, {}, RideSeen("closed", 5, 1, 1, 5, 5), "finish"),
        (HoldState.OPEN, {}, RideSeen("closed", 9, 1, 1, 5, 5), "wait"),
        (HoldState.OPEN, {}, RideSeen("closed", 5, 2, 1, 5, 5), "wait"),
        (HoldState.COMPLETING, {}, RideSeen("closed", 5, 1, 1, 5, 5), "finish"),
        (HoldState.COMPLETING, {}, RideSeen("closed", 0, 1, 1, 0, 0), "release"),
        (HoldState.COMPLETING, {}, RideSeen("closed", 5, 1, 0, 5, 0, debits_on_hold=1), "wait"),
        (HoldState.COMPLETING, {}, RideSeen("closed", 5, 2, 1, 5, 0), "release"),
    ],
)
def test_what_is_done_about_a_hold(state: HoldState, more: dict[str, Any], ride: RideSeen, step: str) -> None:
    assert next_step(hold(state, **more), ride, AT, POLICY)[0] == step


@given(
    st.sampled_from((HoldState.OPEN, HoldState.COMPLETING)),
    st.sampled_from((*sorted(OVER), "open", "parked", "review")),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(0, 3),
)
def test_a_hold_is_never_finished_while_a_debit_may_still_be_taken_on_it(
    state: HoldState, ride: str, final: int, on_hold: int, not_begun: int, paid_minor: int
) -> None:
    debits = final + on_hold + not_begun
    seen = RideSeen(ride, 5, debits, final, 5, paid_minor, debits_on_hold=on_hold)
    step, _ = next_step(hold(state), seen, AT, POLICY)
    if on_hold or (not_begun and state is HoldState.OPEN):
        assert step == "wait"
    if state is HoldState.COMPLETING and not on_hold:
        assert step != "wait", "what is not begun waits for the end of this hold"


@given(st.sampled_from(get_args(signing.State)), st.lists(st.sampled_from(AGREEMENT_ANSWERS), max_size=12))
def test_an_agreement_that_is_over_stays_over(state: signing.State, said: list[Any]) -> None:
    now = AT
    it = agreement(state)
    for answer in said:
        now += timedelta(seconds=1)
        before, it = it, signing.answered(it, answer, now)
        if before.state in ("refused", "revoked", "expired"):
            assert it == before
        assert it.due_at is None or it.due_at > now
        assert (before.state, it.state) != ("suspended", "active")


@pytest.mark.parametrize("answer", OUTCOMES)
def test_nothing_but_a_status_makes_an_agreement_active(answer: Any) -> None:
    assert signing.answered(agreement("pending"), answer, AT).state != "active"


GOOD = Standing(state="active", currency="CNY", cap_minor=1_000, valid_until=None, exposure_max_minor=500, debts=())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"state": "suspended"}, "agreement_suspended"),
        ({"state": "pending"}, "agreement_pending"),
        ({"valid_until": AT}, "agreement_expired"),
        ({"valid_until": AT + timedelta(seconds=1)}, None),
        ({"debts": [Debt("EUR", 1, 5, 5)]}, "overdue_debts"),
        ({"debts": [Debt("CNY", 0, 0, 500)]}, None),
        ({"debts": [Debt("CNY", 0, 0, 501)]}, "exposure_limit"),
        ({"debts": [Debt("CNY", 0, 0, 501)], "exposure_max_minor": None}, None),
        ({"debts": [Debt("EUR", 0, 0, 501)]}, None),
        ({"tariff_currency": "EUR"}, "tariff_in_another_currency"),
        ({"tariff_currency": "CNY", "tariff_least_minor": 1_000}, None),
        ({"tariff_currency": "CNY", "tariff_least_minor": 1_001}, "cap_below_tariff_minimum"),
        ({"tariff_least_minor": 1_001, "cap_minor": None}, None),
    ],
)
def test_who_may_ride(change: dict[str, Any], why: str | None) -> None:
    assert refusal(replace(GOOD, **change), AT) == why
