"""What follows when a ride's obligations are netted against its debits."""

from __future__ import annotations

import pytest
from debit_makers import CARD, KEY, NOW, ORDER, debit, terms
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from service.billing.capabilities import Capabilities
from service.billing.debits import FINAL, Debit, State, after
from service.billing.debits.events import (
    Call,
    DebitEvent,
    Due,
    Effect,
    GivenBack,
    LowerAnswered,
    NetAgain,
    Notified,
    OwedChanged,
    PaidElsewhere,
    Post,
    Queried,
    RefundAsked,
    RefundEnded,
    Submitted,
)
from service.billing.debits.obligations import (
    Change,
    Netting,
    OpenDebit,
    covered_minor,
    net,
    owed_back_minor,
    owed_of_minor,
)
from service.billing.debits.state import Receipt
from service.billing.outcomes import Accepted, CapExceeded, Closed, Declined, NotFound, Outcome, Succeeded, Unknown

NEW, SETTLED = debit(), debit(State.SETTLED)
CLOSING = replace(debit(State.SETTLED_ELSEWHERE), paid_minor=0, receipts=(), lowering_to=0)
PAID_TWICE = replace(debit(State.SETTLED_TWICE), forgone_minor=1000, outside_minor=1000, refunding_minor=1000)
WRITTEN_OFF_AND_PAID = replace(PAID_TWICE, outside_minor=0)
SECOND = replace(debit(), ordinal=2, amount_minor=200)
WAIVED = replace(debit(State.WAIVED), amount_minor=30, forgone_minor=30)
UNSENT = replace(debit(), ordinal=2, state=State.CANCELLED)
NO_SECOND = Capabilities(further_debit=False)
LEAST = Capabilities(debit_min_minor=50)
RIDER = "more than may be debited without the rider"


CASES: list[tuple[str, int, list[Debit], Capabilities, int | None, list[Netting]]] = [
    ("the first charge is one debit", 1000, [], CARD, None, [OpenDebit(1, 1000, State.NEW)]),
    ("nothing owed is waived", 0, [], CARD, None, [OpenDebit(1, 0, State.WAIVED, "nothing owed")]),
    ("too little is waived", 49, [], LEAST, None, [OpenDebit(1, 49, State.WAIVED, "too little for a debit")]),
    (
        "above the cap the rest is the rider's",
        1000,
        [],
        CARD,
        600,
        [OpenDebit(1, 600, State.NEW), OpenDebit(2, 400, State.NEEDS_RIDER, RIDER)],
    ),
    (
        "and what is too little for him, too, is waived",
        1010,
        [],
        LEAST,
        1000,
        [OpenDebit(1, 1000, State.NEW), OpenDebit(2, 10, State.WAIVED, "too little for a debit")],
    ),
    ("without a cap to use all is the rider's", 1000, [], CARD, 0, [OpenDebit(1, 1000, State.NEEDS_RIDER, RIDER)]),
    ("what is covered needs nothing", 1000, [NEW], CARD, None, []),
    ("more before the first attempt is in the same debit", 1200, [NEW], CARD, None, [Change(1, OwedChanged(1200))]),
    (
        "but not above the cap",
        1200,
        [NEW],
        CARD,
        1100,
        [Change(1, OwedChanged(1100)), OpenDebit(2, 100, State.NEEDS_RIDER, RIDER)],
    ),
    ("more after it is a further debit", 1200, [SETTLED], CARD, None, [OpenDebit(2, 200, State.NEW)]),
    ("while the provider is told of cash, too", 1200, [CLOSING], CARD, None, [OpenDebit(2, 200, State.NEW)]),
    ("less than the cash is no matter of ours", 900, [CLOSING], CARD, None, []),
    ("or the rider's", 1200, [SETTLED], NO_SECOND, None, [OpenDebit(2, 200, State.NEEDS_RIDER, RIDER)]),
    (
        "a debit that was cut to a cap is not followed by another",
        1200,
        [replace(SETTLED, capped=True)],
        CARD,
        None,
        [OpenDebit(2, 200, State.NEEDS_RIDER, RIDER)],
    ),
    (
        "what was waived, or cancelled before it was sent, is not the one debit that there may be",
        1200,
        [WAIVED, UNSENT],
        NO_SECOND,
        None,
        [OpenDebit(3, 1170, State.NEW)],
    ),
    (
        "what was sent and given up may be",
        1200,
        [replace(debit(State.CANCELLED), ordinal=1)],
        NO_SECOND,
        None,
        [OpenDebit(2, 1200, State.NEEDS_RIDER, RIDER)],
    ),
    ("less while unpaid lowers it", 700, [NEW], CARD, None, [Change(1, OwedChanged(700))]),
    ("nothing any more ends it", 0, [NEW], CARD, None, [Change(1, OwedChanged(0))]),
    ("less when settled is given back", 700, [SETTLED], CARD, None, [Change(1, RefundAsked(300, "owed less"))]),
    (
        "the unpaid is lowered before money goes back",
        900,
        [SETTLED, SECOND],
        CARD,
        None,
        [Change(2, OwedChanged(0)), Change(1, RefundAsked(100, "owed less"))],
    ),
    ("what goes back is not given twice", 700, [replace(SETTLED, refunding_minor=300)], CARD, None, []),
    ("it waits for a debit under way", 700, [debit(State.UNKNOWN)], CARD, None, [Change(1, OwedChanged(1000))]),
    ("and for more than that", 1700, [debit(State.SUBMITTING)], CARD, None, [Change(1, OwedChanged(1000))]),
    (
        "and for one that is being lowered, though it makes no difference now",
        1000,
        [debit(State.PENDING, lowering_to=400)],
        ORDER,
        None,
        [Change(1, OwedChanged(1000))],
    ),
    ("and for an operator", 700, [debit(State.MANUAL)], CARD, None, [Change(1, OwedChanged(1000))]),
    (
        "what is owed after all is owed again",
        1000,
        [debit(State.PENDING, excess_minor=400)],
        ORDER,
        None,
        [Change(1, OwedChanged(1000))],
    ),
    (
        "less of what was given up is less given up",
        600,
        [debit(State.WRITTEN_OFF)],
        CARD,
        None,
        [Change(1, OwedChanged(600))],
    ),
    ("money paid outside is the operator's to return", 600, [debit(State.SETTLED_ELSEWHERE)], CARD, None, []),
    ("also when it was paid here, too, and is given back", 600, [PAID_TWICE], CARD, None, []),
    (
        "what was written off is written off no more, though it was paid and is given back",
        600,
        [WRITTEN_OFF_AND_PAID],
        CARD,
        None,
        [Change(1, OwedChanged(600))],
    ),
    ("a bank that takes it back is not helped", 600, [replace(SETTLED, dispute="chargeback")], CARD, None, []),
]


@pytest.mark.parametrize(
    ("owed", "debits", "capabilities", "cap", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_netting(
    owed: int, debits: list[Debit], capabilities: Capabilities, cap: int | None, expected: list[Netting]
) -> None:
    assert list(net(owed, debits, capabilities, cap)) == expected


ANSWERS: list[Outcome] = [
    Accepted(),
    Succeeded(0),
    Declined(retryable=True, code="LOW"),
    Closed(),
    NotFound(),
    Unknown("T"),
    CapExceeded(30),
    CapExceeded(300),
]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("owe"), st.sampled_from([-700, -300, 0, 200, 500])),
        st.tuples(st.sampled_from(["due", "submit", "query", "lower", "pay"]), st.integers(0, 7)),
    ),
    max_size=15,
)


class Ride:
    """A ride's debits, netted when more or less is owed and when a debit says so, never otherwise."""

    def __init__(self, capabilities: Capabilities, cap_minor: int | None) -> None:
        self.debits: dict[int, Debit] = {}
        self.owed = 0
        self.capabilities = capabilities
        self.cap_minor = cap_minor

    def owe(self, owed: int) -> None:
        self.owed = owed
        self.net()

    def net(self) -> None:
        known = [self.debits[ordinal] for ordinal in sorted(self.debits)]
        for step in net(self.owed, known, self.capabilities, self.cap_minor):
            if isinstance(step, OpenDebit):
                forgone = step.amount_minor if step.state is State.WAIVED else 0
                made = debit(State.NEW, ordinal=step.ordinal, amount_minor=step.amount_minor, forgone_minor=forgone)
                self.debits[step.ordinal] = replace(made, state=step.state, provider_key=f"{KEY}-{step.ordinal}")
            else:
                self.debits[step.ordinal], _ = self.after(step.ordinal, step.event)

    def happen(self, ordinal: int, event: DebitEvent) -> None:
        self.debits[ordinal], effects = self.after(ordinal, event)
        if NetAgain() in effects:
            self.net()

    def after(self, ordinal: int, event: DebitEvent) -> tuple[Debit, tuple[Effect, ...]]:
        made, effects = after(self.debits[ordinal], event, NOW, terms(self.capabilities))
        if Call("submit") in effects:
            assert made.asked_minor >= self.capabilities.debit_min_minor
        return made, effects

    def act(self, what: str, value: int) -> None:
        made = list(self.debits.values())[value % len(self.debits)]
        key, outcome = made.provider_key, ANSWERS[value]
        match what:
            case "due":
                self.happen(made.ordinal, Due())
            case "submit":
                self.happen(made.ordinal, Submitted(key, outcome))
            case "query":
                self.happen(made.ordinal, Queried(key, outcome))
            case "lower":
                self.happen(made.ordinal, LowerAnswered(key, outcome))
            case "pay" if made.asked_minor and made.state is not State.RETRY_WAIT:
                self.happen(made.ordinal, Notified(key, Succeeded(made.asked_minor)))
            case _:
                pass

    def resolve(self, ordinal: int) -> None:
        """One step towards the end: what is under way is paid, what is being closed is closed, refunds arrive."""
        made = self.debits[ordinal]
        if made.refunding_minor:
            self.happen(ordinal, RefundEnded(made.receipts[-1].key, made.refunding_minor, succeeded=True))
        elif made.lowering_to is not None:
            self.happen(ordinal, LowerAnswered(made.provider_key, Closed()))
        elif made.state in (State.NEW, State.RETRY_WAIT):
            self.happen(ordinal, Due())
        elif made.state in (State.SUBMITTING, State.UNKNOWN, State.PENDING, State.NEEDS_RIDER):
            self.happen(ordinal, Queried(made.provider_key, Succeeded(made.asked_minor or made.amount_minor)))


@pytest.mark.parametrize(
    "capabilities",
    [
        *(CARD, ORDER, Capabilities(reduces_pending=True, reduces_declined=True), Capabilities(debit_min_minor=250)),
        Capabilities(debit_min_minor=250, reduces_declined=True, new_key_after_decline=False),
    ],
)
@settings(max_examples=300, deadline=None)
@given(steps=STEPS, cap=st.sampled_from([None, 600]))
def test_what_stands_for_a_ride_ends_as_what_it_owes(
    capabilities: Capabilities, steps: list[tuple[str, int]], cap: int | None
) -> None:
    """After any life of its debits, once all is known and paid or closed, paid less refunded is what is owed, less what
    is too little for a debit: that is never asked for."""
    ride = Ride(capabilities, cap)
    ride.owe(1000)
    for what, value in steps:
        if what == "owe":
            ride.owe(max(ride.owed + value, 0))
        else:
            ride.act(what, value)
    for _ in range(12):
        for ordinal in list(ride.debits):
            ride.resolve(ordinal)
    assert sum(map(covered_minor, ride.debits.values())) == ride.owed
    assert all(made.state in FINAL for made in ride.debits.values())
    waived = [made.forgone_minor for made in ride.debits.values()]
    assert all(minor < capabilities.debit_min_minor for minor in waived)
    assert sum(made.paid_minor - made.refunded_minor for made in ride.debits.values()) == ride.owed - sum(waived)


def test_what_was_paid_of_a_voided_ride_goes_back_though_the_rest_was_settled_in_cash() -> None:
    """500 of 860 had come when the ride was voided, and can't be lowered there; then somebody said that it was paid
    outside. While the provider was told, nothing was netted, and afterwards nothing ever was."""
    part = debit(
        State.PENDING, amount_minor=860, asked_minor=860, receipts=(Receipt(KEY, 500, NOW, "r"),), paid_minor=500
    )
    voided, _ = after(part, OwedChanged(0), NOW, terms(ORDER))
    assert (voided.excess_minor, voided.net_again) == (360, True)
    made, effects = after(voided, PaidElsewhere("cash"), NOW, terms(ORDER))
    assert (made.state, made.lowering_to, made.net_again, NetAgain() in effects) == (
        State.SETTLED_ELSEWHERE, 500, False, True
    )  # fmt: skip
    assert net(0, [made], ORDER, None) == (Change(1, RefundAsked(500, "owed less")),)


CASH = replace(debit(State.SETTLED_ELSEWHERE), paid_minor=0, receipts=())
BACK = replace(SETTLED, given_back_minor=300)


@pytest.mark.parametrize(
    ("what", "owed", "debits", "back"),
    [
        ("all that was paid is owed", 1000, [SETTLED], [0]),
        ("less is, and no refund is on its way", 700, [SETTLED], [300]),
        ("a refund is on its way", 700, [replace(SETTLED, refunding_minor=300)], [0]),
        ("the rider has it", 700, [replace(SETTLED, refunded_minor=200)], [100]),
        ("he got it at the desk", 700, [BACK], [0]),
        ("cash of a ride that owes less", 400, [CASH], [600]),
        ("a bank has it", 700, [replace(SETTLED, disputed_minor=900, dispute="lost")], [100]),
        ("a bank is taking it", 700, [replace(SETTLED, dispute="chargeback")], [0]),
        ("of two, what each has brought, and no more than all", 500, [SETTLED, replace(CASH, ordinal=2)], [1000, 1000]),
        ("what is not over gives back by itself", 0, [replace(debit(State.PENDING), paid_minor=400)], [0]),
        ("more is owed than was paid", 1300, [SETTLED], [0]),
    ],
)
def test_what_is_the_riders_and_on_no_way_to_him(what: str, owed: int, debits: list[Debit], back: list[int]) -> None:
    assert [owed_back_minor(owed, debits, one) for one in debits] == back, what


@pytest.mark.parametrize(
    ("made", "amount", "posted"),
    [
        (SETTLED, 300, [Post("given_back", 300)]),
        (CASH, 300, [Post("elsewhere_back", 300)]),
        (SETTLED, 300, [Post("given_back_there", 300)]),
        (replace(CASH, paid_minor=500), 1200, [Post("elsewhere_back", 1000), Post("given_back", 200)]),
    ],
)
def test_what_was_given_back_outside_is_covered_no_more_and_in_no_refund(
    made: Debit, amount: int, posted: list[Post]
) -> None:
    there = "re_9" if posted[0].fact == "given_back_there" else None
    given_back, effects = after(made, GivenBack(amount, "cash", there), NOW, terms())
    assert list(effects) == posted
    assert covered_minor(given_back) == covered_minor(made) - amount
    assert net(covered_minor(given_back), [given_back], CARD, None) == ()
    assert net(0, [BACK], CARD, None) == (Change(1, RefundAsked(700, "owed less")),)


@pytest.mark.parametrize(
    ("owed", "first", "second"), [(1200, 1000, 200), (1100, 1000, 100), (1000, 1000, 0), (300, 300, 0), (0, 0, 0)]
)
def test_of_what_is_owed_by_now_the_oldest_debit_has_its_share_first(owed: int, first: int, second: int) -> None:
    """As netting lowers the newest first: what is told of each is what netting would leave of it."""
    debits = [NEW, SECOND]
    assert [owed_of_minor(owed, debits[:number], one) for number, one in enumerate(debits)] == [first, second]
    events = {step.ordinal: step.event for step in net(owed, debits, CARD, None) if isinstance(step, Change)}
    amounts = {number: event.amount_minor for number, event in events.items() if isinstance(event, OwedChanged)}
    assert [amounts.get(one.ordinal, one.amount_minor) for one in debits] == [first, second]


def test_of_a_debit_whose_ride_was_paid_by_another_nothing_is_owed() -> None:
    assert owed_of_minor(1000, [SETTLED], SECOND) == 0
    assert owed_of_minor(1150, [SETTLED], SECOND) == 150
    given_back = replace(SETTLED, refunded_minor=50, refunding_minor=50)
    assert owed_of_minor(1000, [given_back], SECOND) == 100
