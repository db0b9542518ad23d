"""What is believed of a notification, and what is asked about instead.

A verified notification may be old, repeated or in error. It is believed when it says what can be: the amount that was
asked for (or a part, where the provider collects in parts) of a debit that still waits for money. Anything else moves
nothing: the amount is noted as doubted, and the provider is asked; what he answers to that is the truth. What comes
here under a key that the debit had before is such an answer (`service.flows.collection.hearing`), and is believed.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from service.billing.debits import dunning
from service.billing.debits.answers import next_retry_at
from service.billing.debits.money import ENDED, Step, take_money, taken_minor
from service.billing.debits.state import Debit, State, Terms
from service.billing.outcomes import Outcome, Postponed, Succeeded, Unknown


def news(debit: Debit, key: str, outcome: Outcome, now: datetime, terms: Terms) -> Step:
    """What a notification about `key` makes of the debit. Older and repeated ones change nothing."""
    if not isinstance(outcome, Succeeded) or outcome.amount_minor <= 0:
        if isinstance(outcome, Unknown) and left_open(debit):  # A state that nobody listed may be money.
            return replace(debit, due_at=now), ()
        return heard(debit, key, outcome, now, terms)
    if key != debit.provider_key or _can_be(debit, outcome.amount_minor, terms):
        return take_money(debit, key, outcome, now, terms)
    if outcome.amount_minor <= max(_taken(debit), debit.doubted_minor or 0):
        return debit, ()
    due_at = debit.due_at if debit.state is State.SUBMITTING else now
    return replace(debit, doubted_minor=outcome.amount_minor, queries=0, due_at=due_at), ()


def heard(debit: Debit, key: str, outcome: Outcome, now: datetime, terms: Terms) -> Step:
    """What the provider's own answer, come late, makes of the debit: money counts, all else is a reason to ask."""
    if isinstance(outcome, Succeeded) and outcome.amount_minor > 0:
        return take_money(debit, key, outcome, now, terms)
    if debit.state in (State.UNKNOWN, State.PENDING) and key == debit.provider_key:
        return replace(debit, due_at=now), ()
    return debit, ()


def told(debit: Debit, outcome: Outcome, now: datetime, terms: Terms) -> Debit:
    """The doubt once the provider has answered the question about it; without an answer it is asked again."""
    if debit.doubted_minor is None:
        return debit
    if isinstance(outcome, Unknown | Postponed):
        wait = outcome.retry_after if isinstance(outcome, Postponed) else None
        again = now + wait if wait is not None else dunning.query_at(debit.queries, now)
        return replace(debit, queries=debit.queries + 1, due_at=again)
    return goes_on(replace(debit, doubted_minor=None, queries=0), now, terms)


def settled_doubt(debit: Debit) -> Debit:
    """The debit without a doubt that money has answered since."""
    if debit.doubted_minor is not None and debit.doubted_minor <= _taken(debit):
        return replace(debit, doubted_minor=None)
    return debit


def goes_on(debit: Debit, now: datetime, terms: Terms) -> Debit:
    """When the debit is looked at next, where a question came between: as if it had not."""
    match debit.state:
        case State.NEW:
            at = (
                None
                if debit.suspended
                else max(dunning.first_attempt_at(debit.created_at, terms.zone, terms.calendar), now)
            )
        case State.RETRY_WAIT:
            at = None if debit.suspended else _retried_at(debit, now, terms)
        case State.UNKNOWN | State.PENDING | State.SUBMITTING | State.NEEDS_RIDER:
            return debit
        case _ if debit.lowering_to is None and left_open(debit):
            at = now + dunning.WRITTEN_OFF_POLL
        case _:
            at = debit.due_at if debit.lowering_to is not None else None
    return replace(debit, due_at=at)


def left_open(debit: Debit) -> bool:
    """Whether nothing is asked of the rider any more, and the number may yet be paid at the provider."""
    return debit.state is State.WRITTEN_OFF or (debit.state in ENDED and debit.given)


def _retried_at(debit: Debit, now: datetime, terms: Terms) -> datetime:
    """The next day of the calendar since it was tried; or since it was opened, where no hold has let it be tried."""
    at = next_retry_at(debit, debit.submitted_at or debit.created_at, terms)
    return dunning.in_hours(max(at or now, now), terms.zone, terms.calendar)


def _can_be(debit: Debit, total_minor: int, terms: Terms) -> bool:
    if debit.state in ENDED or not debit.asked_minor:
        return False
    return total_minor == debit.asked_minor or (terms.capabilities.partial_debit and total_minor < debit.asked_minor)


def _taken(debit: Debit) -> int:
    """What is known to have been taken under the present key."""
    return taken_minor(debit, debit.provider_key)
