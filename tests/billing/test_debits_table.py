"""The whole table of "The life of a debit": every event in every state, for a card and for an order."""

from __future__ import annotations

from datetime import timedelta

import pytest
from debit_makers import CARD, KEY, NOW, ORDER, debit, terms
from msgspec.structs import replace

from service.billing.capabilities import Capabilities
from service.billing.debits import Debit, ImpossibleEventError, RefundRefusedError, State, after
from service.billing.debits.events import (
    CloseAnswered,
    DebitEvent,
    DisputeClosed,
    DisputeOpened,
    Due,
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
    Queried,
    RefundAsked,
    RefundEnded,
    ReportAnswered,
    Resumed,
    RetryAsked,
    Submitted,
    Suspended,
)
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
    Postponed,
    Prepared,
    Rejected,
    Succeeded,
    Throttled,
    Unknown,
)

# "..." changes nothing (acknowledged), "=" changes something but not the state, "!" is refused by name.
# The debit is one of 1000 that came to its state in the usual way; for "lower:" it is being closed at the provider.
CARD_TABLE = """
                      NEW SUB PEN UNK RET NEE MAN SET ELS TWI WAI OFF CAN
due                   SUB ... ... ... SUB   = ... ... ... ... ...   = ...
lease over            SUB UNK ... ... SUB   = ... ... ... ... ...   = ...
submit: accepted      ... PEN ... ... ... ... ... ... ... ... ... ... ...
submit: prepared      ...   = ... ... ... ... ... ... ... ... ... ... ...
submit: succeeded     SET SET SET SET SET SET SET ... TWI ... TWI SET TWI
submit: in part         = MAN MAN MAN MAN MAN   = ... TWI ... TWI   = TWI
submit: last part       = MAN MAN MAN MAN MAN   = ... TWI ... TWI   = TWI
submit: nothing       ... UNK ... ... ... ... ... ... ... ... ... ... ...
submit: retryable     ... RET ... ... ... ... ... ... ... ... ... ... ...
submit: final         ... NEE ... ... ... ... ... ... ... ... ... ... ...
submit: closed        ... RET ... ... ... ... ... ... ... ... ... ... ...
submit: not found     ... UNK ... ... ... ... ... ... ... ... ... ... ...
submit: needs rider   ... NEE ... ... ... ... ... ... ... ... ... ... ...
submit: rejected      ... MAN ... ... ... ... ... ... ... ... ... ... ...
submit: over cap      ... RET ... ... ... ... ... ... ... ... ... ... ...
submit: cap unnamed   ... MAN ... ... ... ... ... ... ... ... ... ... ...
submit: conflict      ... MAN ... ... ... ... ... ... ... ... ... ... ...
submit: already       ... UNK ... ... ... ... ... ... ... ... ... ... ...
submit: throttled     ...   = ... ... ... ... ... ... ... ... ... ... ...
submit: postponed     ...   = ... ... ... ... ... ... ... ... ... ... ...
submit: barred        ...   = ... ... ... ... ... ... ... ... ... ... ...
submit: unknown       ... UNK ... ... ... ... ... ... ... ... ... ... ...
query: accepted       ... ...   = PEN ...   = ... ... ... ... ...   = ...
query: prepared       ... ...   = SUB ...   = ... ... ... ... ...   = ...
query: succeeded      SET SET SET SET SET SET SET ... TWI ... TWI SET TWI
query: in part          = MAN MAN MAN MAN MAN   = ... TWI ... TWI   = TWI
query: last part        = MAN MAN MAN MAN MAN   = ... TWI ... TWI   = TWI
query: nothing        ... ...   =   = ...   = ... ... ... ... ...   = ...
query: retryable      ... ... RET RET ...   = ... ... ... ... ...   = ...
query: final          ... ... NEE NEE ...   = ... ... ... ... ...   = ...
query: closed         ... ... RET RET ...   = ... ... ... ... ... ... ...
query: not found      ... ... UNK   = ...   = ... ... ... ... ... ... ...
query: needs rider    ... ... NEE NEE ...   = ... ... ... ... ...   = ...
query: rejected       ... ...   =   = ...   = ... ... ... ... ...   = ...
query: over cap       ... ...   =   = ...   = ... ... ... ... ...   = ...
query: cap unnamed    ... ...   =   = ...   = ... ... ... ... ...   = ...
query: conflict       ... ... MAN MAN ...   = ... ... ... ... ...   = ...
query: already        ... ...   =   = ...   = ... ... ... ... ...   = ...
query: throttled      ... ...   =   = ...   = ... ... ... ... ...   = ...
query: postponed      ... ...   =   = ...   = ... ... ... ... ...   = ...
query: barred         ... ...   =   = ...   = ... ... ... ... ...   = ...
query: unknown        ... ...   =   = ...   = ... ... ... ... ...   = ...
lower: accepted       ... ...   = ...   =   = ... ...   = ... ... ... ...
lower: prepared       ... ...   = ...   =   = ... ...   = ... ... ... ...
lower: succeeded      SET SET SET SET SET SET SET ... TWI ... TWI SET TWI
lower: in part          = MAN SET MAN   =   =   = ... TWI ... TWI   = TWI
lower: last part        = MAN SET MAN   =   =   = ... TWI ... TWI   = TWI
lower: nothing        ... ...   = ...   =   = ... ...   = ... ... ... ...
lower: retryable      ... ...   = ...   =   = ... ...   = ... ... ... ...
lower: final          ... ...   = ...   =   = ... ...   = ... ... ... ...
lower: closed         ... ... CAN ... CAN CAN ... ...   = ... ... ... ...
lower: not found      ... ...   = ... CAN CAN ... ...   = ... ... ... ...
lower: needs rider    ... ...   = ...   =   = ... ...   = ... ... ... ...
lower: rejected       ... ...   = ...   =   = ... ...   = ... ... ... ...
lower: over cap       ... ...   = ...   =   = ... ...   = ... ... ... ...
lower: cap unnamed    ... ...   = ...   =   = ... ...   = ... ... ... ...
lower: conflict       ... ...   = ...   =   = ... ...   = ... ... ... ...
lower: already        ... ...   = ...   =   = ... ...   = ... ... ... ...
lower: throttled      ... ...   = ...   =   = ... ...   = ... ... ... ...
lower: postponed      ... ...   = ...   =   = ... ...   = ... ... ... ...
lower: barred         ... ...   = ...   =   = ... ...   = ... ... ... ...
lower: unknown        ... ...   = ...   =   = ... ...   = ... ... ... ...
news: accepted        ... ... ... ... ... ... ... ... ... ... ... ... ...
news: succeeded         = SET SET SET SET SET SET ...   = ...   = SET   =
news: in part           =   =   =   =   =   =   = ...   = ...   =   =   =
news: retryable       ... ... ... ... ... ... ... ... ... ... ... ... ...
news: closed          ... ... ... ... ... ... ... ... ... ... ... ... ...
news: older key       SET   =   =   = SET SET SET TWI TWI   = TWI SET TWI
payment wanted          !   !   =   !   =   =   !   !   !   !   !   =   !
payment: action       ... ...   = ...   =   = ... ... ... ... ...   = ...
payment: prepared     ... ...   = ...   =   = ... ... ... ... ...   = ...
payment: already      ... ...   = ...   =   = ... ... ... ... ...   = ...
payment: rejected     ... ... ... ...   = ... ... ... ... ... ...   = ...
close: closed         ... ... ... ...   = ... ... ... ... ... ... ... ...
close: already        ... ... ... ... UNK ... ... ... ... ... ... ... ...
close: rejected       ... ... ... ... NEE ... ... ... ... ... ... ... ...
nudged                ... ...   = ... ... ... ... ... ... ... ... ... ...
reported              ... ... ... ... ... ... ... ... ... ... ... ... ...
retry asked           ...   ! ... ... ...   !   !   !   !   !   !   !   !
policy due            ... ...   = ...   =   = ... ... ... ... ... ... ...
owed 0                CAN   =   =   = CAN CAN   =   !   !   !   = CAN   !
owed less               =   =   =   =   =   =   =   !   !   !   =   =   !
paid elsewhere          !   ! ELS   ! ELS ELS   !   !   !   !   ! ELS   !
given back              !   !   !   !   !   !   !   =   =   =   !   !   !
given back too much     !   !   !   !   !   !   !   !   !   !   !   !   !
decided settled         !   !   !   !   !   ! SET   !   !   !   !   !   !
decided again           !   !   !   !   !   ! SUB   !   !   !   !   !   !
decided cancel          !   !   !   !   !   ! CAN   !   !   !   !   !   !
suspended               =   !   !   !   =   =   !   !   !   !   !   !   !
resumed               ... ... ... ... ... ... ... ... ... ... ... ... ...
complaint               =   =   =   =   =   =   =   =   =   =   =   =   =
chargeback              =   =   =   =   =   =   =   =   =   =   =   =   =
dispute closed        ... ... ... ... ... ... ... ... ... ... ... ... ...
refund asked            !   !   !   !   !   !   !   =   !   =   !   !   !
refund failed         ... ... ... ... ... ... ...   = ...   = ... ... ...
"""
ORDER_TABLE = """
                      NEW SUB PEN UNK RET NEE MAN SET ELS TWI WAI OFF CAN
due                   SUB ... ... ... SUB ... ... ... ... ... ...   = ...
lease over            SUB UNK ... ... SUB ... ... ... ... ... ...   = ...
submit: closed        ... NEE ... ... ... ... ... ... ... ... ... ... ...
query: retryable      ... ... NEE RET ...   = ... ... ... ... ...   = ...
query: closed         ... ... NEE NEE ...   = ... ... ... ... ... ... ...
owed 0                CAN   =   =   = CAN   =   =   !   !   !   = CAN   !
chargeback              !   !   !   !   !   !   !   !   !   !   !   !   !
"""
"""Where an order differs: polled while the rider may still pay it, a late failure is the rider's, nothing closes."""
PARTS_TABLE = """
                      NEW SUB PEN UNK RET NEE MAN SET ELS TWI WAI OFF CAN
submit: in part         = PEN   = PEN   =   =   = ... TWI ... TWI   = TWI
query: in part          = PEN   = PEN   =   =   = ... TWI ... TWI   = TWI
lower: in part          = PEN   = PEN   =   =   = ... TWI ... TWI   = TWI
news: in part           = PEN   = PEN   =   =   = ...   = ...   =   =   =
"""
"""Where a debit may be collected in parts: the rest is waited for."""

OUTCOMES: dict[str, Outcome] = {
    "accepted": Accepted("r"),
    "prepared": Prepared("p"),
    "succeeded": Succeeded(1000, "r"),
    "in part": Succeeded(400, "r"),
    "last part": Succeeded(400, "r", last=True),
    "nothing": Succeeded(0),
    "retryable": Declined(retryable=True, code="LOW"),
    "final": Declined(retryable=False, code="GONE"),
    "closed": Closed("C"),
    "not found": NotFound(),
    "needs rider": NeedsRider("N"),
    "rejected": Rejected("R"),
    "over cap": CapExceeded(600),
    "cap unnamed": CapExceeded(),
    "conflict": Conflict("X"),
    "already": AlreadyDone(),
    "throttled": Throttled(timedelta(seconds=9)),
    "postponed": Postponed(timedelta(seconds=9)),
    "barred": Barred(timedelta(seconds=9), "UNAUTHORIZED"),
    "unknown": Unknown("T"),
}
EVENTS: dict[str, DebitEvent] = {
    "due": Due(),
    "lease over": LeaseOver(),
    **{f"submit: {name}": Submitted(KEY, outcome) for name, outcome in OUTCOMES.items()},
    **{f"query: {name}": Queried(KEY, outcome) for name, outcome in OUTCOMES.items()},
    **{f"lower: {name}": LowerAnswered(KEY, outcome) for name, outcome in OUTCOMES.items()},
    **{
        f"news: {name}": Notified(KEY, OUTCOMES[name])
        for name in ("accepted", "succeeded", "in part", "retryable", "closed")
    },
    "news: older key": Notified("OLDER", Succeeded(1000)),
    "payment wanted": PaymentWanted(),
    "payment: action": PaymentAnswered(KEY, NeedsRider("N", OpenUrl("u"))),
    "payment: prepared": PaymentAnswered(KEY, Prepared("p")),
    "payment: already": PaymentAnswered(KEY, AlreadyDone()),
    "payment: rejected": PaymentAnswered(KEY, Rejected("R")),
    "close: closed": CloseAnswered(KEY, Closed()),
    "close: already": CloseAnswered(KEY, AlreadyDone()),
    "close: rejected": CloseAnswered(KEY, Rejected("R")),
    "nudged": NudgeAnswered(Accepted()),
    "reported": ReportAnswered("violated", Accepted()),
    "retry asked": RetryAsked(),
    "policy due": PolicyDue(),
    "owed 0": OwedChanged(0),
    "owed less": OwedChanged(700),
    "paid elsewhere": PaidElsewhere("cash"),
    "given back": GivenBack(300, "cash"),
    "given back too much": GivenBack(1001, "cash"),
    "decided settled": OperatorDecided("settled", "seen in the statement"),
    "decided again": OperatorDecided("submit_again", "never arrived"),
    "decided cancel": OperatorDecided("cancel", "goodwill"),
    "suspended": Suspended("the lock failed"),
    "resumed": Resumed(),
    "complaint": DisputeOpened("complaint"),
    "chargeback": DisputeOpened("chargeback"),
    "dispute closed": DisputeClosed("won"),
    "refund asked": RefundAsked(300, "goodwill"),
    "refund failed": RefundEnded(KEY, 0, succeeded=False),
}
CODES = {
    "NEW": State.NEW,
    "SUB": State.SUBMITTING,
    "PEN": State.PENDING,
    "UNK": State.UNKNOWN,
    "RET": State.RETRY_WAIT,
    "NEE": State.NEEDS_RIDER,
    "MAN": State.MANUAL,
    "SET": State.SETTLED,
    "ELS": State.SETTLED_ELSEWHERE,
    "TWI": State.SETTLED_TWICE,
    "WAI": State.WAIVED,
    "OFF": State.WRITTEN_OFF,
    "CAN": State.CANCELLED,
}


def rows(table: str) -> list[tuple[str, State, str]]:
    """(event, state, what follows) of each cell."""
    header, *lines = table.strip("\n").splitlines()
    states = [CODES[code] for code in header.split()]
    cells = [(line[:22].strip(), line[22:].split()) for line in lines]
    return [(event, state, cell) for event, row in cells for state, cell in zip(states, row, strict=True)]


def before(event: str, state: State) -> Debit:
    """The debit that the event meets."""
    made = debit(state)
    tried = state in (State.PENDING, State.RETRY_WAIT, State.NEEDS_RIDER)
    if event.startswith("lower") and (tried or state is State.SETTLED_ELSEWHERE):
        return replace(made, lowering_to=0)
    if event.startswith("close") and state is State.RETRY_WAIT:
        return replace(made, given=True, payable_until=NOW)
    if event == "payment: already":
        return replace(made, given=True, due_at=NOW + timedelta(minutes=5))
    if event == "payment: rejected" and state is State.RETRY_WAIT:
        return replace(made, given=True, payable_until=NOW + timedelta(hours=1))
    return replace(made, policy_at=NOW, pay_by=NOW) if event == "policy due" and tried else made


def what_follows(event: str, state: State, capabilities: Capabilities) -> str:
    made = before(event, state)
    try:
        changed, _ = after(made, EVENTS[event], NOW, terms(capabilities))
    except (ImpossibleEventError, RefundRefusedError):
        return "!"
    if changed.state is not made.state:
        return next(code for code, named in CODES.items() if named is changed.state)
    return "..." if changed == made else "="


def test_the_table_is_whole() -> None:
    assert {(event, state) for event, state, _ in rows(CARD_TABLE)} == {(e, s) for e in EVENTS for s in State}


@pytest.mark.parametrize(("event", "state", "expected"), rows(CARD_TABLE))
def test_every_event_in_every_state_of_a_card(event: str, state: State, expected: str) -> None:
    assert what_follows(event, state, CARD) == expected


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_in_every_state_of_an_order(event: str) -> None:
    expected = {(e, s): cell for e, s, cell in rows(CARD_TABLE)} | {(e, s): cell for e, s, cell in rows(ORDER_TABLE)}
    assert {s: what_follows(event, s, ORDER) for s in State} == {s: expected[event, s] for s in State}


@pytest.mark.parametrize(("event", "state", "expected"), rows(PARTS_TABLE))
def test_what_is_collected_in_parts(event: str, state: State, expected: str) -> None:
    assert what_follows(event, state, replace(CARD, partial_debit=True)) == expected
