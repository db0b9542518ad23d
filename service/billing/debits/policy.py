"""The calendar's side of a debit: reminders, nudges, overdue, notice, report, write-off, each at its hour.

`planned` says what comes next and when; `policy_due` does it. Whoever talks to a rider does so at the hours at which
he may be charged. Nothing happens while the debit is suspended or disputed; what it says is told once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from msgspec.structs import replace

from service.billing.debits import dunning
from service.billing.debits.disputes import disputed
from service.billing.debits.events import (
    Call,
    NudgeAnswered,
    PolicyDue,
    Post,
    Publish,
    ReportAnswered,
)
from service.billing.debits.money import Step
from service.billing.debits.state import CAN_BE_OVERDUE, FINAL, Debit, State, Terms
from service.billing.outcomes import Accepted, AlreadyDone, Postponed, Prepared, Succeeded, Unknown

What = Literal["remind_attempt", "remind_due", "overdue", "remind_overdue", "notice", "report", "write_off", "nudge"]
QUIET = frozenset({"remind_attempt", "remind_due", "remind_overdue", "notice", "nudge"})
"""What reaches riders: not at night."""
STOPPED_AGAIN = timedelta(hours=1)
"""How soon a nudge, a report or the reminder of an attempt that is stopped is looked at again."""
DAILY = len(dunning.POLL_AFTER)
"""After so many times a report that the provider has not taken is told once a day."""
REPORT_ASKS_MAX = DAILY + 14
"""So often a report is told: two weeks are enough for a person to put right what the provider refuses. After that it
stands as not taken (`record` without `record_at`); what the rider then does is reported anew."""


class Planned(NamedTuple):
    """What the calendar does next."""

    at: datetime
    what: What


def planned(debit: Debit, now: datetime, terms: Terms) -> Planned | None:
    """The next of it, not before `now`'s quiet hours are over; None: nothing."""
    steps = [Planned(_awake(step, now, terms), step.what) for step in _steps(debit, now, terms)]
    return min(steps, key=lambda step: step.at, default=None)


def policy_at(debit: Debit, now: datetime, terms: Terms) -> datetime | None:
    """When the calendar next looks."""
    step = planned(debit, now, terms)
    return None if step is None else step.at


def policy_due(debit: Debit, _event: PolicyDue, now: datetime, terms: Terms) -> Step:
    """The calendar's hour has come: one step of it."""
    step = planned(debit, now, terms)
    if step is None or step.at > now:
        return replace(debit, policy_at=None if step is None else step.at), ()
    match step.what:
        case "overdue":
            return replace(debit, overdue=True), ()
        case "remind_attempt":
            return replace(debit, reminded=debit.attempts + 1), (Publish("reminder.due", debit.due_at),)
        case "remind_due":
            assert debit.pay_by is not None
            told = (Publish("reminder.due"),) if now < debit.pay_by else ()
            return replace(debit, dunned="reminded", dunned_at=now), told
        case "remind_overdue":
            return replace(debit, dunned="overdue_reminded", dunned_at=now), (Publish("reminder.overdue"),)
        case "notice":
            noticed = replace(debit, dunned="noticed", dunned_at=now)
            return noticed, (Publish("reminder.report_notice", _report_at(noticed, terms)),)
        case "report":
            record = debit.record or "violated"
            report = replace(debit, record=record, record_asks=debit.record_asks + 1, record_asked_at=now)
            return report, (Call("report"),)
        case "write_off":
            rest = debit.amount_minor - debit.paid_minor
            return replace(debit, state=State.WRITTEN_OFF, forgone_minor=rest), (Post("write_off", rest),)
        case "nudge":
            return replace(debit, nudged_at=now), (Call("nudge"),)


def nudge_answered(debit: Debit, event: NudgeAnswered, now: datetime, _terms: Terms) -> Step:
    """A nudge moves nothing by itself: what came of it is asked."""
    if debit.state is not State.PENDING or not isinstance(event.outcome, Accepted | AlreadyDone | Succeeded):
        return debit, ()
    at = dunning.poll_at(0, now) if isinstance(event.outcome, Accepted) else now
    return replace(debit, queries=0, due_at=at), ()


def report_answered(debit: Debit, event: ReportAnswered, now: datetime, _terms: Terms) -> Step:
    """The provider knows; or he is told again, under the same key: what he refuses, once a day."""
    if event.record != debit.record or debit.record_at is not None:
        return debit, ()
    if isinstance(event.outcome, Unknown | Postponed | Prepared):
        return debit, ()
    if not isinstance(event.outcome, Accepted | AlreadyDone | Succeeded):
        return replace(debit, record_asks=max(debit.record_asks, DAILY)), ()
    return replace(debit, record_at=now), (Publish("performance.reported"),)


def good_record(before: Debit, debit: Debit, terms: Terms) -> Debit:
    """What was reported as violated, or was overdue, is reported as kept once nothing is owed any more."""
    ended = debit.state in FINAL and debit.state is not State.WRITTEN_OFF and before.state is not debit.state
    late = before.overdue and debit.state is not State.CANCELLED and debit.attempts > 0
    if not ended or terms.capabilities.reports_performance != "merchant" or not (late or debit.record == "violated"):
        return debit
    return replace(debit, record="completed", record_at=None, record_asks=0, record_asked_at=None)


def counts_down(debit: Debit) -> bool:
    """Whether the rider is dunned: he owes, nobody objects, nobody has stopped it."""
    tried = debit.state in CAN_BE_OVERDUE and not debit.suspended and not disputed(debit)
    return tried and debit.pay_by is not None and debit.amount_minor - debit.paid_minor - debit.excess_minor > 0


def _steps(debit: Debit, now: datetime, terms: Terms) -> Iterator[Planned]:
    """Everything that is still to come, as far as it is known, in the order in which it happens at one instant."""
    if debit.record == "completed" and debit.state in FINAL and _to_be_told(debit):
        yield Planned(_told_at(debit, now, terms), "report")
    if not counts_down(debit):
        return
    assert debit.pay_by is not None
    zone, rules, able = terms.zone, terms.calendar, terms.capabilities
    if debit.state is State.RETRY_WAIT:
        coming = debit.due_at is not None and debit.due_at > now and debit.payable_until is None
        if coming and debit.due_at is not None and debit.reminded <= debit.attempts:
            at = dunning.hours_before(debit.due_at - rules.remind_before, zone, rules)
            yield Planned(at if terms.debiting else max(at, now + STOPPED_AGAIN), "remind_attempt")
    elif debit.dunned is None and not debit.overdue:
        at = dunning.civil_days(debit.pay_by, -rules.remind_days, zone)
        yield Planned(max(dunning.hours_before(at, zone, rules), debit.created_at), "remind_due")
    if not debit.overdue:
        yield Planned(debit.pay_by, "overdue")
    else:
        yield from _overdue_steps(debit, debit.pay_by, now, terms)
    if debit.state is State.PENDING and able.provider_retries and able.nudges and debit.submitted_at is not None:
        at = dunning.next_day(debit.nudged_at or debit.submitted_at, zone, rules)
        yield Planned(at if terms.debiting else max(at, now + STOPPED_AGAIN), "nudge")


def _overdue_steps(debit: Debit, pay_by: datetime, now: datetime, terms: Terms) -> Iterator[Planned]:
    zone, rules = terms.zone, terms.calendar
    ours = terms.capabilities.reports_performance == "merchant" and rules.reports and _to_be_told(debit)
    if debit.dunned in (None, "reminded"):
        yield Planned(pay_by, "remind_overdue")
    elif ours and debit.attempts > 0:  # Of what was never sent, the provider has nothing that could be reported on.
        if debit.dunned == "overdue_reminded":
            yield Planned(dunning.civil_days(pay_by, rules.notice_days, zone), "notice")
        else:
            yield Planned(_told_at(debit, now, terms), "report")
    yield Planned(dunning.write_off_at(pay_by, zone, rules), "write_off")


def _to_be_told(debit: Debit) -> bool:
    """Whether the provider does not know the record yet, and may still take it."""
    return debit.record_at is None and debit.record_asks < REPORT_ASKS_MAX


def _told_at(debit: Debit, now: datetime, terms: Terms) -> datetime:
    """When the provider is told of the record, for the first time or again; the same key never counts twice."""
    at = now
    if debit.record_asks and debit.record_asked_at is not None:
        at = dunning.poll_at(debit.record_asks - 1, debit.record_asked_at)
    elif debit.record is None:
        at = _report_at(debit, terms)
    return at if terms.reporting else max(at, now + STOPPED_AGAIN)


def _report_at(debit: Debit, terms: Terms) -> datetime:
    """When a rider who was told of it is reported; a calendar that was stored before there were floors has them too."""
    assert debit.dunned_at is not None and debit.begun_at is not None
    told_for = max(terms.calendar.report_days, dunning.NOTICE_DAYS_MIN)
    noticed_at = dunning.civil_days(debit.dunned_at, told_for, terms.zone)
    return max(noticed_at, dunning.civil_days(debit.begun_at, dunning.REPORT_AFTER_DAYS, terms.zone))


def _awake(step: Planned, now: datetime, terms: Terms) -> datetime:
    return dunning.in_hours(max(step.at, now), terms.zone, terms.calendar) if step.what in QUIET else step.at
