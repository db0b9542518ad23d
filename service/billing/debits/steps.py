"""Why a debit became what it is, in words: what stands beside each transition of its life."""

from __future__ import annotations

import re
from functools import cache

from service.billing.debits.events import (
    DebitEvent,
    DisputeClosed,
    DisputeOpened,
    GivenBack,
    GivenBackFailed,
    OperatorDecided,
    PaidElsewhere,
    RefundEnded,
    RefundReturned,
    Suspended,
)
from service.billing.debits.state import Debit, Dispute, by_support
from service.billing.money import format_amount


def why_text(event: DebitEvent, debit: Debit) -> str:
    """The event that has made the debit so, in words: with the provider's answer, a person's reason, or how a refund or
    a dispute ended and about how much."""
    name = _words(type(event).__name__)
    match event:
        case OperatorDecided() | PaidElsewhere() | Suspended():
            return f"{name}: {by_support(event.reason)}"
        case GivenBack():
            return given_back_text(event, debit.currency)
        case GivenBackFailed():
            return f"{name}: refund {event.refund}, {_amount(event.amount_minor, debit)}"
        case RefundEnded():
            ended = "succeeded" if event.succeeded else "failed"
            return f"{name}: {ended}, {_amount(event.amount_minor, debit)}"
        case RefundReturned():
            return f"{name}: {_amount(event.amount_minor, debit)}"
        case DisputeOpened() | DisputeClosed():
            return f"{name}: {_disputed(_dispute(event, debit), debit)}"
    outcome = getattr(event, "outcome", None)
    if outcome is not None:
        code = getattr(outcome, "code", None) or getattr(outcome, "reason", None) or ""
        return f"{name}: {_words(type(outcome).__name__)} {code}".rstrip()
    return f"{name}: {getattr(event, 'reason', '')}".rstrip(": ")


def given_back_text(event: GivenBack, currency: str) -> str:
    """What was given back outside, in words: the same amount for the same reason is booked once."""
    what = f"{_words(type(event).__name__)} {format_amount(event.amount_minor, currency)} {currency}"
    return f"{what}{f' by refund {event.refund}' if event.refund else ''}: {by_support(event.reason)}"


def _dispute(event: DisputeOpened | DisputeClosed, debit: Debit) -> Dispute:
    """The dispute that the event is about: by the provider's number, else the last to change that fits."""
    ref = None if event.told is None else event.told.ref
    fits = [
        one
        for one in debit.disputes
        if (one.state == event.result if isinstance(event, DisputeClosed) else one.kind == event.kind)
    ]
    return next((one for one in reversed(fits) if one.ref == ref), (fits or debit.disputes)[-1])


def _disputed(one: Dispute, debit: Debit) -> str:
    state = "" if one.state == "opened" else f" {one.state}"
    return f"{one.kind}{state}" + (f", about {_amount(one.amount_minor, debit)}" if one.amount_minor else "")


def _amount(minor: int, debit: Debit) -> str:
    return f"{format_amount(minor, debit.currency)} {debit.currency}"


@cache
def _words(name: str) -> str:
    """`PaymentWanted` as people read it: "payment wanted"."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()
