"""What a debit or refund tells the world: its facts for `rental.billing`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from service.billing.debits.events import Publish
from service.billing.debits.refunds import Refund, RefundState
from service.billing.debits.state import (
    Debit,
    State,
    debit_id,
    dispute_id,
    for_all,
    payable,
    refund_id,
    waits_for_hold,
)
from service.billing.facts import EncodedFact, encode_fact
from service.billing.facts.data import (
    DebitDeclined,
    DebitNeedsRider,
    DebitOverdue,
    DebitSettled,
    DebitSubmitted,
    DebitWrittenOff,
    DisputeClosed,
    DisputeOpened,
    Fact,
    PerformanceReported,
    RefundFailed,
    RefundSettled,
    ReminderDue,
    ReminderOverdue,
    ReminderReportNotice,
)
from service.billing.facts.parts import Contact
from service.billing.outcomes import RiderAction


class Naming(msgspec.Struct, frozen=True):
    """How the outside calls what a debit refers to by number."""

    operator_id: str
    agreement_id: str
    provider: str
    contact: Contact = Contact("")
    language: str | None = None


def debit_fact(debit: Debit, publish: Publish, naming: Naming, now: datetime) -> EncodedFact:
    """The fact of one change of a debit, told apart from its others by the transition."""
    return encode_fact(_debit_fact(debit, publish, naming, now), ordinal=f"{debit.ordinal}/{debit.transitions}", at=now)


def refund_fact(refund: Refund, session_id: str, naming: Naming, now: datetime) -> EncodedFact:
    """The fact of a refund: it succeeded, or it failed; it may fail after it has succeeded."""
    common: dict[str, Any] = {
        "operator_id": naming.operator_id,
        "session_id": session_id,
        "agreement_id": naming.agreement_id,
        "refund_id": refund_id(refund.ride_no, refund.ordinal, refund.refund_ordinal),
        "debit_id": debit_id(refund.ride_no, refund.ordinal),
        "amount_minor": refund.amount_minor,
        "currency": refund.currency,
    }
    fact: Fact
    if refund.state is RefundState.SUCCEEDED:
        fact = RefundSettled(**common, reason=refund.reason, provider_reference=refund.provider_ref)
    else:
        fact = RefundFailed(**common, reason=for_all(refund.code or refund.reason))
    return encode_fact(fact, ordinal=f"{refund.ordinal}/{refund.refund_ordinal}", at=now)


def _debit_fact(debit: Debit, publish: Publish, naming: Naming, now: datetime) -> Fact:
    about: dict[str, Any] = {
        "operator_id": naming.operator_id,
        "session_id": debit.session_id,
        "agreement_id": naming.agreement_id,
        "debit_id": debit_id(debit.ride_no, debit.ordinal),
        "amount_minor": debit.amount_minor,
        "currency": debit.currency,
    }
    if publish.fact in ("dispute.opened", "dispute.closed"):
        return _dispute_fact(debit, publish, about)
    if publish.fact in _TOLD_TO_RIDERS:
        return _reminder(debit, publish, about, naming, now)
    if publish.fact == "performance.reported":
        assert debit.record is not None
        return PerformanceReported(
            operator_id=naming.operator_id,
            session_id=debit.session_id,
            agreement_id=naming.agreement_id,
            debit_id=about["debit_id"],
            record=debit.record,
        )
    common = {
        **about,
        "attempt": max(debit.attempts, 1),
        "provider": naming.provider,
        "provider_reference": debit.provider_ref,
    }
    unpaid = debit.amount_minor - debit.paid_minor - debit.excess_minor
    match publish.fact:
        case "debit.submitted":
            return DebitSubmitted(**common)
        case "debit.settled":
            assert debit.settled_at is not None
            elsewhere = debit.state is State.SETTLED_ELSEWHERE
            paid = debit.amount_minor if elsewhere else debit.paid_minor
            return DebitSettled(**common, paid_minor=paid, settled_at=debit.settled_at, elsewhere=elsewhere)
        case "debit.declined":
            return DebitDeclined(**common, reason=for_all(debit.reason or "declined"), retry_at=debit.due_at)
        case "debit.needs_rider":
            return DebitNeedsRider(**common, reason=for_all(debit.reason or ""), action=debit.action)
        case "debit.overdue":
            assert debit.pay_by is not None
            return DebitOverdue(**common, due_at=debit.pay_by, unpaid_minor=unpaid)
        case _:
            return DebitWrittenOff(**common, written_off_minor=debit.forgone_minor)


_TOLD_TO_RIDERS = frozenset({"reminder.due", "reminder.overdue", "reminder.report_notice"})


def _to_do(debit: Debit, now: datetime) -> RiderAction | None:
    """What the rider can still do: not what he was given to pay with, once the time for that is over."""
    lapsed = debit.payable_until is not None and not payable(debit, now) and not waits_for_hold(debit)
    return None if lapsed else debit.action


def _reminder(debit: Debit, publish: Publish, about: dict[str, Any], naming: Naming, now: datetime) -> Fact:
    """What the app is to tell the rider: what is to be paid, by when, how, and whom he can ask."""
    assert debit.pay_by is not None
    unpaid = debit.amount_minor - debit.paid_minor - debit.excess_minor
    common = about | {
        "amount_minor": unpaid,
        "due_at": debit.pay_by,
        "how_to_pay": _to_do(debit, now),
        "contact": naming.contact,
        "language": naming.language,
    }
    if publish.fact == "reminder.due":
        return ReminderDue(**common, attempt_at=publish.at)
    if publish.fact == "reminder.overdue":
        return ReminderOverdue(**common)
    assert publish.at is not None
    return ReminderReportNotice(**common, report_at=publish.at)


def contact_of(name: str, told: str) -> Contact:
    """An operator's contact, as he wrote it, in the field that it fits."""
    if told.startswith(("http://", "https://")):
        return Contact(name, url=told)
    return Contact(name, email=told) if "@" in told else Contact(name, phone=told or None)


def _dispute_fact(debit: Debit, publish: Publish, about: dict[str, Any]) -> Fact:
    about_it = debit.disputes[-1]
    common = {**about, "dispute_id": dispute_id(debit.ride_no, debit.ordinal, about_it.number)}
    if publish.fact == "dispute.opened":
        return DisputeOpened(**common, nature=about_it.kind)
    assert about_it.state != "opened"
    return DisputeClosed(**common, nature=about_it.kind, outcome=about_it.state)
