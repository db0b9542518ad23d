"""The invariants of collection.md: whatever happens to a debit, in whatever order and number."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from debit_makers import CARD, KEY, NOW, ORDER, debit, terms
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from service.billing.capabilities import Capabilities
from service.billing.debits import FINAL, Debit, ImpossibleEventError, RefundRefusedError, State, after
from service.billing.debits.answers import may_be_given
from service.billing.debits.events import (
    Call,
    CloseAnswered,
    DebitEvent,
    DisputeClosed,
    DisputeOpened,
    Due,
    Effect,
    GivenBack,
    LeaseOver,
    LowerAnswered,
    Notified,
    NudgeAnswered,
    OperatorDecided,
    OwedChanged,
    PaidElsewhere,
    PaymentAnswered,
    PaymentWanted,
    PolicyDue,
    Post,
    Queried,
    RefundAsked,
    RefundEnded,
    ReportAnswered,
    Resumed,
    RetryAsked,
    StartRefund,
    Submitted,
    Suspended,
)
from service.billing.debits.state import Verify
from service.billing.debits.truth import left_open
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
    Outcome,
    Rejected,
    Succeeded,
    Throttled,
    Unknown,
)

PROVIDERS = {
    "card": CARD,
    "order": ORDER,
    "resending": Capabilities(same_key_is_query=True, closes_unpaid=False),
    "able": Capabilities(reduces_pending=True, reduces_declined=True, new_key_after_decline=False),
}
OUTCOMES: list[Outcome] = [
    Accepted(),
    Succeeded(1000),
    Succeeded(400),
    Succeeded(1300),
    Succeeded(0),
    Declined(retryable=True, code="LOW"),
    Declined(retryable=False, code="GONE"),
    Closed(),
    NotFound(),
    NeedsRider("N"),
    Rejected("R"),
    CapExceeded(600),
    CapExceeded(0),
    CapExceeded(),
    Conflict("X"),
    AlreadyDone(),
    Barred(timedelta(seconds=3), "UNAUTHORIZED"),
    Throttled(timedelta(seconds=9)),
    Unknown("T"),
]
DEFINITE = (Declined, Closed, CapExceeded)
PRESENT = "the present key"


def answers(shape: type[DebitEvent]) -> st.SearchStrategy[DebitEvent]:
    return st.builds(shape, st.sampled_from([*[PRESENT] * 6, KEY, "RIDER"]), st.sampled_from(OUTCOMES))


def usual() -> st.SearchStrategy[DebitEvent]:
    """What a life is mostly made of: an attempt, and answers that do not end it."""
    told = [Unknown("T"), NotFound(), Declined(retryable=True, code="LOW"), Accepted(), CapExceeded(600), Closed()]
    return st.builds(
        lambda shape, told: shape(PRESENT, told), st.sampled_from([Submitted, Queried]), st.sampled_from(told)
    )


EVENTS: st.SearchStrategy[DebitEvent] = st.one_of(
    st.just(Due()),
    st.just(Due()),
    usual(),
    usual(),
    answers(Submitted),
    answers(Queried),
    answers(LowerAnswered),
    answers(Notified),
    answers(PaymentAnswered),
    answers(CloseAnswered),
    st.builds(OwedChanged, st.sampled_from([0, 400, 700, 1000])),
    st.sampled_from(
        [
            LeaseOver(),
            Notified("RIDER", Succeeded(1000)),
            *[PaymentWanted()] * 3,
            RetryAsked(),
            ReportAnswered("violated", Accepted()),
            ReportAnswered("completed", Unknown("T")),
            NudgeAnswered(Accepted()),
            *[PolicyDue()] * 4,
            PaidElsewhere("cash"),
            OperatorDecided("settled", "r"),
            OperatorDecided("submit_again", "r"),
            OperatorDecided("cancel", "r"),
            Suspended("s"),
            Resumed(),
            DisputeOpened("complaint"),
            DisputeOpened("chargeback"),
            DisputeClosed("won"),
            DisputeClosed("lost"),
            RefundAsked(300, "r"),
            *[GivenBack(300, "cash")] * 2,
        ]
    ),
)
STEPS = st.sampled_from([timedelta(seconds=seconds) for seconds in (0, 1, 61, 61, 108_000, 1_728_000)])
LIVES = st.lists(st.tuples(STEPS, EVENTS), max_size=25)


def addressed(event: DebitEvent, made: Debit) -> DebitEvent:
    """An answer to the present key, whatever it is now."""
    if (
        isinstance(event, Submitted | Queried | LowerAnswered | Notified | PaymentAnswered | CloseAnswered)
        and event.key == PRESENT
    ):
        return type(event)(made.provider_key, event.outcome)
    return event


def live(made: Debit, events: Sequence[tuple[timedelta, DebitEvent]], capabilities: Capabilities) -> None:
    now, started = NOW, 0
    posted = made.paid_minor
    for step, template in events:
        now += step
        event = addressed(template, made)
        try:
            changed, effects = after(made, event, now, terms(capabilities))
        except (ImpossibleEventError, RefundRefusedError):
            continue
        started += sum(
            effect.amount_minor for effect in effects if isinstance(effect, StartRefund) and not effect.refused
        )
        posted += sum(e.amount_minor for e in effects if isinstance(e, Post) and e.fact in ("settlement", "recovery"))
        check_money(changed, posted, started)
        check_keys(made, changed, event)
        check_rest(changed, effects)
        made = changed
        if started > made.refunded_minor and isinstance(event, RefundAsked):  # One refund of them ends at once.
            key = made.receipts[-1].key
            amount = min(made.receipts[-1].returned_minor, made.refunding_minor)
            if amount:
                made, _ = after(made, RefundEnded(key, amount, succeeded=True), now, terms(capabilities))


def check_money(made: Debit, posted: int, started: int) -> None:
    """Money moved per debit ≤ its amount, refunds ≤ paid, one settlement in the ledger per movement."""
    assert made.paid_minor == sum(receipt.amount_minor for receipt in made.receipts) == posted
    assert made.paid_minor + made.forgone_minor <= made.amount_minor or made.state is State.SETTLED_TWICE
    assert made.refunding_minor + made.refunded_minor == started <= made.paid_minor - made.given_back_minor
    assert 0 <= made.outside_minor <= made.forgone_minor
    assert all(0 <= receipt.returned_minor <= receipt.amount_minor for receipt in made.receipts)
    assert 0 <= made.excess_minor <= made.amount_minor
    if made.state is State.SETTLED:
        assert made.paid_minor == made.amount_minor


def check_keys(before: Debit, made: Debit, event: DebitEvent) -> None:
    """Another key only at the beginning of an attempt, and never while it is unknown what became of the one before."""
    if made.provider_key != before.provider_key:
        assert isinstance(event, Due | LeaseOver | PaymentWanted)
        assert before.state in (State.RETRY_WAIT, State.NEEDS_RIDER, State.WRITTEN_OFF)
        assert not may_be_given(before), "the rider could pay both"
        assert before.state is not State.WRITTEN_OFF or before.due_at is None, (
            "the provider could collect the other one"
        )
    if before.state in (State.SUBMITTING, State.UNKNOWN) and made.state is State.RETRY_WAIT:
        assert isinstance(event, Submitted | Queried)
        assert isinstance(event.outcome, DEFINITE)


def check_rest(made: Debit, effects: Sequence[Effect]) -> None:
    """Whoever waits is looked at again; whoever is done is not; nothing suspended or settled is submitted."""
    calls = [effect.what for effect in effects if isinstance(effect, Call)]
    if made.state in FINAL:
        assert made.policy_at is None or (made.record == "completed" and made.record_at is None)
        asking = made.lowering_to is not None or made.doubted_minor is not None
        assert made.due_at is None or asking or left_open(made)
        assert made.due_at is not None or made.state is State.WRITTEN_OFF or not left_open(made)
        assert "submit" not in calls
    if made.state in (State.SUBMITTING, State.UNKNOWN, State.PENDING):
        assert made.due_at is not None
        assert not made.overdue or made.pay_by is not None
    if made.suspended:
        assert "submit" not in calls
        assert made.policy_at is None
    if made.payable_until is not None and made.state is not State.PENDING:
        assert made.given
        assert "submit" not in calls
    if "submit" in calls:
        assert made.state is State.SUBMITTING


@pytest.mark.parametrize("provider", PROVIDERS)
@settings(max_examples=400, deadline=None)
@given(state=st.sampled_from(State), verify=st.sampled_from([None, "present", "next"]), events=LIVES)
def test_whatever_happens_the_invariants_hold(
    provider: str, state: State, verify: Verify | None, events: list[tuple[timedelta, DebitEvent]]
) -> None:
    live(debit(state, verify=verify), events, PROVIDERS[provider])


NEWS: st.SearchStrategy[list[DebitEvent]] = st.lists(
    st.builds(
        Notified,
        st.just(KEY),
        st.sampled_from(
            [
                *(Succeeded(400), Succeeded(600), Succeeded(1000), Succeeded(1300), Accepted(), Closed()),
                Declined(retryable=True, code="LOW"),
            ]
        ),
    ),
    min_size=1,
    max_size=6,
)
PARTS = Capabilities(partial_debit=True)


@pytest.mark.parametrize("provider", ["card", "order", "parts"])
@pytest.mark.parametrize("state", State)
@settings(max_examples=60, deadline=None)
@given(news=NEWS, data=st.data())
def test_all_notifications_in_any_order_and_number_end_in_the_same_state(
    provider: str, state: State, news: list[DebitEvent], data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(news), max_size=4))
    shuffled = data.draw(st.permutations([*news, *again]))

    def end(events: Sequence[DebitEvent]) -> tuple[object, ...]:
        made = debit(state)
        for event in events:
            made, _ = after(made, event, NOW, terms(capabilities))
        return (
            *(made.state, made.paid_minor, made.forgone_minor, made.refunding_minor, made.lowering_to, made.overdue),
            *(made.doubted_minor, made.due_at is None),
        )

    capabilities = PARTS if provider == "parts" else PROVIDERS[provider]
    assert end(shuffled) == end(news)


@pytest.mark.parametrize("state", State)
@settings(max_examples=60, deadline=None)
@given(news=NEWS, truth=st.sampled_from([None, 400, 1000, 1300]))
def test_what_the_provider_answers_is_the_truth_whatever_notifications_said(
    state: State, news: list[DebitEvent], truth: int | None
) -> None:
    """A notification moves nothing but what was asked for; a doubt is asked about, and ends with an answer."""
    made = debit(state)
    for event in news:
        made, _ = after(made, event, NOW, terms())
    believed = made.paid_minor
    assert believed in (0, debit(state).paid_minor, made.asked_minor)
    if made.doubted_minor is None:
        return
    assert made.due_at is not None
    made = replace(made, state=State.UNKNOWN) if made.state is State.SUBMITTING else made
    asked, effects = after(made, Due(), NOW, terms())
    assert Call("query") in effects or made.lowering_to is not None
    answer = Closed("never") if truth is None else Succeeded(truth)
    known, _ = after(asked, Queried(KEY, answer), NOW, terms())
    assert known.doubted_minor is None
    assert known.paid_minor == max(truth or 0, believed)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_three_events_deep_every_path_is_defined(provider: str) -> None:
    """An exhaustive walk: each debit that a few events can lead to meets each event, and is answered or refused."""
    capabilities = PROVIDERS[provider]
    events: list[DebitEvent] = [
        *(shape(PRESENT, outcome) for shape in (Submitted, Queried, LowerAnswered, Notified) for outcome in OUTCOMES),
        *(
            Due(),
            LeaseOver(),
            PolicyDue(),
            OwedChanged(0),
            OwedChanged(700),
            PaidElsewhere("c"),
            Notified("R", Succeeded(1000)),
        ),
        *(PaymentWanted(), PaymentAnswered(PRESENT, NeedsRider("N", OpenUrl("u"))), CloseAnswered(PRESENT, Closed())),
        *(OperatorDecided("submit_again", "r"), Suspended("s"), Resumed(), DisputeOpened("chargeback")),
        *(DisputeClosed("won"), RefundAsked(300, "r")),
    ]
    seen, edge, now = {debit()}, [debit()], NOW
    for _ in range(3):
        now += timedelta(days=20)
        reached = set()
        for made in edge:
            for template in events:
                try:
                    changed, effects = after(made, addressed(template, made), now, terms(capabilities))
                except (ImpossibleEventError, RefundRefusedError):
                    continue
                check_rest(changed, effects)
                reached.add(changed)
        edge = [made for made in reached if made not in seen]
        seen |= reached
    assert {made.state for made in seen} >= set(State) - {State.WAIVED, State.WRITTEN_OFF, State.MANUAL}
