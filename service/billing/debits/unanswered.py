"""A provider who was asked for days, and says nothing of a debit or a refund that anybody has listed: it is shown to
people as such. He is asked all the same, nothing is sent anew, and it goes on by itself once he says what became of it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from service.billing.debits.state import Debit, State
from service.billing.outcomes import Outcome

ANSWERED_WITHIN = timedelta(days=3)
"""How long a provider may leave open what becomes of a hold, a debit or a refund before a person must look: it may be
words that nobody has listed."""
UNANSWERED = "its provider says neither yes nor no"
ASKED = (State.UNKNOWN, State.PENDING)


def unanswered(debit: Debit) -> bool:
    """Whether a person must look into the provider's books: he may decide what became of it."""
    return says_nothing(debit.state, debit.reason)


def says_nothing(state: str, reason: str | None) -> bool:
    """The same of a debit of which no more is known."""
    return state in ASKED and (reason or "").startswith(UNANSWERED)


def left_open(debit: Debit, outcome: Outcome, now: datetime) -> Debit:
    """The debit once its provider has answered something that settles nothing."""
    since = debit.unanswered_since or now
    waiting = replace(debit, unanswered_since=since)
    if now < since + ANSWERED_WITHIN or unanswered(debit):
        return waiting
    return replace(waiting, reason=told(outcome))


def answered(debit: Debit) -> Debit:
    """The debit once its provider has said something of it."""
    return replace(debit, unanswered_since=None, reason=None if unanswered(debit) else debit.reason)


def told(outcome: Outcome) -> str:
    """What people are shown, with the provider's words where they are kept."""
    words = getattr(outcome, "reason", "") or getattr(outcome, "code", "") or type(outcome).__name__
    return f"{UNANSWERED}: {words}"
