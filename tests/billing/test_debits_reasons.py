"""Why a debit stands where it stands: the present reason is of now, what came before is its life."""

from __future__ import annotations

import pytest
from debit_makers import KEY, NOW, ORDER, debit, terms

from service.billing.debits import State, after
from service.billing.debits.dunning import given_up
from service.billing.debits.events import DebitEvent, Due, Queried, Resumed, Submitted, Suspended
from service.billing.debits.state import HOLD_REFUSED, TO_CONFIRM, Debit, by_support, for_all, refused_a_hold
from service.billing.outcomes import Accepted, Declined, Succeeded, Unknown

PAID = Succeeded(1000, "ref-1")


def lived(begun: Debit, *events: DebitEvent) -> Debit:
    for event in events:
        begun, _ = after(begun, event, NOW, terms(ORDER))
    return begun


@pytest.mark.parametrize("failure", [Unknown("ServerDisconnectedError"), Declined(True, "BALANCE_NOT_ENOUGH")])
def test_what_failed_before_is_no_reason_of_what_is_paid(failure: Unknown | Declined) -> None:
    failed = lived(debit(), Due(), Submitted(KEY, failure))
    assert failed.reason
    paid = lived(failed, Queried(KEY, PAID))
    assert (paid.state, paid.reason) == (State.SETTLED, None)


def test_what_was_not_answered_before_is_no_reason_of_what_is_accepted() -> None:
    failed = lived(debit(), Due(), Submitted(KEY, Unknown("ServerDisconnectedError")))
    taken = lived(failed, Queried(KEY, Accepted("ref-1")))
    assert (taken.state, taken.reason) == (State.PENDING, None)


def test_why_support_stopped_a_debit_is_no_reason_once_it_goes_on() -> None:
    stopped = lived(debit(), Suspended("lock failed"))
    assert (stopped.suspended, stopped.reason) == (True, "support: lock failed")
    going_on = lived(stopped, Resumed())
    assert (going_on.suspended, going_on.reason) == (False, None)


@pytest.mark.parametrize("reason", [TO_CONFIRM, f"{HOLD_REFUSED}: TOO_MANY_ORDERS"])
def test_a_debit_that_waits_for_its_hold_goes_on_waiting_after_a_pause(reason: str) -> None:
    """The rules know by the reason what it waits for."""
    waits = debit(State.NEEDS_RIDER, attempts=0, begun_at=None, reason=reason, due_at=None)
    assert lived(waits, Suspended("lock failed"), Resumed()).reason == reason


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("BALANCE_NOT_ENOUGH", "BALANCE_NOT_ENOUGH"),
        ("support: Mr Li paid at the desk", "support"),
        (given_up(by_support("Mr Li, support: asked twice")), "sent 8 times and never found: support"),
        ("", ""),
    ],
)
def test_what_support_said_is_for_nobody_outside(reason: str, told: str) -> None:
    assert for_all(reason) == told


def test_what_support_says_is_never_taken_for_what_a_debit_waits_for() -> None:
    stopped = lived(debit(), Suspended(f"{HOLD_REFUSED}: he says"))
    assert not refused_a_hold(stopped)
