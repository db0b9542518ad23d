"""Debits in every state, as they come about, for tests of the state machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from service.billing.capabilities import Capabilities
from service.billing.debits.dunning import Calendar
from service.billing.debits.state import Debit, HoldSeen, Receipt, State, Terms

NOW = datetime(2026, 11, 22, 4, tzinfo=UTC)
"""Noon in the rider's zone."""
ZONE = ZoneInfo("Asia/Shanghai")
KEY = "KEY0"

CARD = Capabilities(further_debit=True, new_key_after_decline=True, closes_unpaid=True, dispute="chargeback")
"""Like Stripe: a new key after a decline."""
ORDER = Capabilities(
    provider_retries=True,
    hold_needed=True,
    further_debit=False,
    new_key_after_decline=False,
    closes_unpaid=False,
    same_key_window=timedelta(days=15),
    reports_performance="merchant",
)
"""Like an order that the provider collects by itself: one number, one collection."""


def terms(capabilities: Capabilities = CARD, **calendar: Any) -> Terms:
    return Terms(capabilities, Calendar(**calendar), ZONE, HoldSeen("open"))


def debit(state: State = State.NEW, **fields: Any) -> Debit:
    """A debit of 1000 that has come to `state` in the usual way, a moment ago."""
    made = Debit(
        ride_no=1,
        ordinal=1,
        slot=1,
        operator_no=1,
        agreement_no=1,
        account_no=1,
        session_key=UUID(int=7),
        session_id="s",
        currency="CNY",
        amount_minor=1000,
        created_at=NOW - timedelta(minutes=5),
        provider_key=KEY,
        pay_by=NOW + timedelta(days=15),
        due_at=NOW,
        state=state,
        transitions=1,
    )
    if state not in (State.NEW, State.WAIVED):
        begun = NOW - timedelta(minutes=2)
        made = replace(made, attempts=1, begun_at=begun, submitted_at=begun, asked_minor=1000, transitions=3)
    match state:
        case State.SETTLED | State.SETTLED_TWICE:
            made = replace(
                made, receipts=(Receipt(KEY, 1000, NOW, "ref"),), paid_minor=1000, settled_at=NOW, due_at=None
            )
        case State.SETTLED_ELSEWHERE | State.WAIVED | State.WRITTEN_OFF:
            outside = 1000 if state is State.SETTLED_ELSEWHERE else 0
            overdue = state is State.WRITTEN_OFF
            made = replace(made, forgone_minor=1000, outside_minor=outside, overdue=overdue, due_at=None)
        case State.MANUAL | State.CANCELLED:
            made = replace(made, due_at=None)
        case State.PENDING | State.RETRY_WAIT | State.NEEDS_RIDER:
            made = replace(made, policy_at=made.pay_by)
        case _:
            pass
    return replace(made, **fields)
