"""What is debited on a hold is never more than its cap, whatever is owed when, and whenever the cap becomes known."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from debit_makers import NOW, ORDER, debit, terms
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from service.billing.capabilities import Capabilities
from service.billing.debits import after
from service.billing.debits.collecting import Book, Context, RideOwing
from service.billing.debits.events import (
    DebitEvent,
    Due,
    LowerAnswered,
    NetAgain,
    OpenHold,
    OwedChanged,
    Post,
    Submitted,
)
from service.billing.debits.facts import Naming
from service.billing.debits.obligations import OpenDebit, net, of_cap_minor
from service.billing.debits.state import TO_CONFIRM, Debit, HoldSeen, Receipt, State
from service.billing.outcomes import Accepted, CapExceeded, Closed, Declined, OpenUrl, Succeeded

POLICY_MINOR = 1000
"""What may be debited while no hold has said its own cap."""
ABLE = {
    "one debit an order": Capabilities(hold_needed=True, further_debit=False, new_key_after_decline=False),
    "further debits": Capabilities(hold_needed=True),
    "not less than": Capabilities(hold_needed=True, debit_min_minor=50),
}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("owe"), st.integers(-400, 900)),
        st.tuples(st.just("submit"), st.sampled_from([0, 1, 2])),
        st.tuples(st.just("confirm"), st.just(0)),
        st.tuples(st.just("open"), st.integers(0, 1200)),
    ),
    max_size=14,
)


class Counter:
    """A ride, its debits and its hold; nothing else goes wrong."""

    def __init__(self, able: Capabilities) -> None:
        self.able = able
        self.now = NOW
        self.hold: HoldSeen | None = None
        self.owed_minor = 0
        self.debits: dict[int, Debit] = {}

    def owe(self, more_minor: int) -> None:
        self.owed_minor = max(self.owed_minor + more_minor, 0)
        self._net()

    def open(self, cap_minor: int) -> None:
        if self.hold is None or self.hold.state != "open":
            self.hold = HoldSeen("open", cap_minor=cap_minor)

    def confirm(self, _: int) -> None:
        """The provider wants the rider to confirm."""
        if self.hold is None:
            self.hold = HoldSeen("requested", action=OpenUrl("https://confirm.invalid"), cap_minor=POLICY_MINOR)

    def submit(self, fate: int) -> None:
        """What is due goes as far as it can: paid, accepted, or declined."""
        self.now += timedelta(days=2)
        for ordinal in sorted(self.debits):
            for _ in range(3):
                if self.debits[ordinal].due_at is None or self.debits[ordinal].state not in BEGUN:
                    break
                self._happen(ordinal, Due())
                debit = self.debits[ordinal]
                if debit.state is State.SUBMITTING:
                    told = (Succeeded(debit.asked_minor), Accepted(), Declined(retryable=True, code="LOW"))[fate]
                    self._happen(ordinal, Submitted(debit.provider_key, told))

    def on_hold_minor(self) -> int:
        return sum(of_cap_minor(debit) for debit in self.debits.values() if debit.begun_at is not None)

    def _happen(self, ordinal: int, event: DebitEvent) -> None:
        book = Book(self.now)
        book.happen(self.debits[ordinal], event, self._context())
        self._keep(book)
        if book.net_again:
            self._net()

    def _net(self) -> None:
        book = Book(self.now)
        opened = None if self.hold is None or self.hold.state != "open" else self.hold.cap_minor
        numbers = (1, 1, 1, 1, 1)
        ride = RideOwing(
            *numbers, UUID(int=7), "s", "CNY", self.owed_minor, POLICY_MINOR if opened is None else opened,
            tuple(self.debits[ordinal] for ordinal in sorted(self.debits)), self._context(),
        )  # fmt: skip
        book.net_ride(ride)
        self._keep(book)

    def _context(self) -> Context:
        return Context(replace(terms(self.able), hold=self.hold), Naming("o", "a", "p"))

    def _keep(self, book: Book) -> None:
        self.debits |= {debit.ordinal: debit for debit in (*book.changed.values(), *book.opened)}


BEGUN = frozenset({State.NEW, State.RETRY_WAIT, State.NEEDS_RIDER, State.SUBMITTING})


@pytest.mark.parametrize("able", ABLE)
@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_what_is_debited_on_a_hold_is_never_more_than_its_cap(able: str, steps: list[tuple[str, int]]) -> None:
    it = Counter(ABLE[able])
    for what, number in [("owe", 300), *steps]:
        getattr(it, what)(number)
        if it.hold is not None and it.hold.state == "open" and it.hold.cap_minor is not None:
            assert it.on_hold_minor() <= it.hold.cap_minor
        assert it.on_hold_minor() <= max(POLICY_MINOR, (it.hold and it.hold.cap_minor) or 0)


def test_a_debit_above_its_holds_cap_is_cut_before_it_is_sent_and_the_rest_is_the_riders() -> None:
    it = Counter(ABLE["one debit an order"])
    it.owe(900)
    it.open(600)
    it.submit(0)
    told = [(debit.state, debit.amount_minor, debit.paid_minor) for debit in it.debits.values()]
    assert told == [(State.SETTLED, 600, 600), (State.NEEDS_RIDER, 300, 0)]


def test_more_that_comes_while_the_rider_is_to_confirm_the_hold_is_in_the_same_debit() -> None:
    it = Counter(ABLE["further debits"])
    it.owe(300)
    it.confirm(0)
    it.submit(0)
    it.owe(200)
    assert [(debit.state, debit.amount_minor) for debit in it.debits.values()] == [(State.NEEDS_RIDER, 500)]


def test_nothing_is_debited_on_a_hold_of_nothing() -> None:
    it = Counter(ABLE["further debits"])
    it.owe(300)
    it.open(0)
    it.submit(0)
    assert [(debit.state, debit.attempts) for debit in it.debits.values()] == [(State.NEEDS_RIDER, 0)]


TO_BE_CONFIRMED = replace(ORDER, hold_confirmed_by_rider=True)
UNTRIED = debit(State.NEEDS_RIDER, attempts=0, begun_at=None, submitted_at=None, asked_minor=0, reason=TO_CONFIRM)


@pytest.mark.parametrize(
    ("able", "hold", "wanted"),
    [
        (ORDER, None, OpenHold(0)),
        (ORDER, HoldSeen("expired", 2), OpenHold(3)),
        (TO_BE_CONFIRMED, None, OpenHold(0, 1000)),
        (TO_BE_CONFIRMED, HoldSeen("expired", 2), OpenHold(3, 1000)),
        (TO_BE_CONFIRMED, HoldSeen("refused", 0, refusal="final"), OpenHold(1, 1000)),
        (TO_BE_CONFIRMED, HoldSeen("requested"), None),
    ],
)
def test_a_hold_that_the_rider_confirms_after_the_ride_is_for_what_he_owes(
    able: Capabilities, hold: HoldSeen | None, wanted: OpenHold | None
) -> None:
    """Elsewhere it is for the cap, as before the ride: nothing is frozen there that he would miss."""
    effects = after(debit(), Due(), NOW, replace(terms(able), hold=hold))[1]
    assert [effect for effect in effects if isinstance(effect, OpenHold)] == ([] if wanted is None else [wanted])


def test_who_did_not_confirm_a_hold_in_time_is_asked_to_confirm_another() -> None:
    """It stood as "waits for a hold", which nothing woke: the second hold's action never reached him."""
    asked = replace(UNTRIED, action=OpenUrl("https://old.invalid"))
    over = replace(terms(TO_BE_CONFIRMED), hold=HoldSeen("expired"))
    made, effects = after(asked, Due(), NOW, over)
    assert (effects, made.state, made.reason, made.action) == (
        (OpenHold(1, 1000),), State.NEEDS_RIDER, TO_CONFIRM, None
    )  # fmt: skip
    assert made.due_at is not None
    again = replace(terms(TO_BE_CONFIRMED), hold=HoldSeen("requested", 1, OpenUrl("https://new.invalid")))
    shown, _ = after(made, Due(), made.due_at, again)
    assert (shown.state, shown.action) == (State.NEEDS_RIDER, OpenUrl("https://new.invalid"))
    confirmed = replace(terms(TO_BE_CONFIRMED), hold=HoldSeen("open", 1, cap_minor=1000))
    assert shown.due_at is not None
    assert after(shown, Due(), shown.due_at, confirmed)[0].state is State.SUBMITTING


LEAST = Capabilities(debit_min_minor=50)
SAME_NUMBER = replace(LEAST, new_key_after_decline=False, reduces_declined=True)


@pytest.mark.parametrize("state", [State.NEW, State.RETRY_WAIT, State.NEEDS_RIDER])
@pytest.mark.parametrize("paid", [0, 100])
def test_what_little_is_left_of_an_unpaid_debit_is_waived(state: State, paid: int) -> None:
    """It was submitted, was too little for the provider, and waited for a person."""
    receipts = (Receipt("OLDER", paid, NOW, "r"),) if paid else ()
    unpaid = debit(state, paid_minor=paid, receipts=receipts)
    made, effects = after(unpaid, OwedChanged(paid + 49), NOW, terms(LEAST))
    ended = State.SETTLED if paid else State.WAIVED
    assert (made.state, made.amount_minor, made.forgone_minor, made.due_at) == (ended, paid + 49, 49, None)
    assert effects[0] == Post("waiver", 49)
    back, [post] = after(made, OwedChanged(paid + 9), NOW, terms(LEAST))
    assert (back.amount_minor, back.forgone_minor, post) == (paid + 9, 9, Post("waiver_back", 40))
    enough, _ = after(unpaid, OwedChanged(paid + 50), NOW, terms(LEAST))
    assert (enough.state, enough.amount_minor) == (state, paid + 50)


def test_a_number_that_may_be_paid_is_closed_before_what_little_is_left_is_waived() -> None:
    made, _ = after(debit(State.NEEDS_RIDER), OwedChanged(49), NOW, terms(SAME_NUMBER))
    assert (made.state, made.lowering_to, made.due_at) == (State.NEEDS_RIDER, 0, NOW)
    closed, effects = after(made, LowerAnswered(made.provider_key, Closed()), NOW, terms(SAME_NUMBER))
    assert (closed.state, effects) == (State.CANCELLED, (NetAgain(),))
    assert net(49, [closed], SAME_NUMBER, None) == (OpenDebit(2, 49, State.WAIVED, "too little for a debit"),)


def test_a_cap_below_the_least_leaves_all_to_the_rider() -> None:
    submitted, _ = after(debit(), Due(), NOW, terms(LEAST))
    made, _ = after(submitted, Submitted(submitted.provider_key, CapExceeded(30)), NOW, terms(LEAST))
    assert (made.state, made.amount_minor, made.reason) == (State.NEEDS_RIDER, 1000, "cap_exceeded")
    small = replace(terms(replace(ORDER, debit_min_minor=50)), hold=HoldSeen("open", cap_minor=30))
    made, _ = after(debit(), Due(), NOW, small)
    assert (made.state, made.amount_minor, made.reason) == (State.NEEDS_RIDER, 1000, "cap_exceeded")


def test_a_rest_that_is_too_little_for_another_attempt_is_waived() -> None:
    rest = debit(State.RETRY_WAIT, receipts=(Receipt(debit().provider_key, 970, NOW, "r"),), paid_minor=970)
    made, effects = after(rest, Due(), NOW, terms(LEAST))
    assert (made.state, made.paid_minor, made.forgone_minor, effects[0]) == (
        State.SETTLED, 970, 30, Post("waiver", 30)
    )  # fmt: skip
