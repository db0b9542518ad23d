"""The calendar: what a rider is told, when, and what the provider is told about him, in his civil days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from debit_makers import KEY, NOW, ORDER, ZONE, debit
from msgspec.structs import replace

from service.billing.capabilities import Capabilities
from service.billing.debits import Debit, State, after, dunning
from service.billing.debits.dunning import Calendar
from service.billing.debits.events import (
    Call,
    DebitEvent,
    DisputeClosed,
    DisputeOpened,
    Due,
    Effect,
    Notified,
    NudgeAnswered,
    PolicyDue,
    Publish,
    Queried,
    ReportAnswered,
    Resumed,
    Suspended,
)
from service.billing.debits.policy import REPORT_ASKS_MAX
from service.billing.debits.state import Terms
from service.billing.outcomes import Accepted, AlreadyDone, Closed, Rejected, Succeeded, Unknown

REPORTING = Capabilities(reports_performance="merchant", new_key_after_decline=False)
NUDGING = Capabilities(provider_retries=True, nudges=True, new_key_after_decline=False)
ACCEPTED = ReportAnswered("violated", Accepted())


def rules(capabilities: Capabilities, zone: ZoneInfo = ZONE, **calendar: Any) -> Terms:
    return Terms(capabilities, Calendar(**calendar), zone)


def told(effect: Effect) -> str | None:
    if isinstance(effect, Publish):
        return effect.fact
    return f"call {effect.what}" if isinstance(effect, Call) else None


def live(
    made: Debit, terms: Terms, days: float, events: dict[str, DebitEvent] | None = None, since: datetime = NOW
) -> tuple[Debit, list[str]]:
    """Lets the calendar go on for so many days; `events` answer its calls. Returns the diary."""
    diary: list[str] = []
    made, _ = after(made, PolicyDue(), since, terms)
    while made.policy_at is not None and made.policy_at <= since + timedelta(days=days):
        at = made.policy_at
        made, effects = after(made, PolicyDue(), at, terms)
        for said in filter(None, map(told, effects)):
            diary.append(f"{at.astimezone(terms.zone):%d %H:%M} {said}")
            answer = (events or {}).get(said)
            if answer is not None:
                made, more = after(made, answer, at, terms)
                diary += [f"{at.astimezone(terms.zone):%d %H:%M} {fact}" for fact in filter(None, map(told, more))]
        assert len(diary) < 99, "the calendar turns in a circle"
    return made, diary


def test_reminder_overdue_notice_and_only_then_the_report() -> None:
    """Noon in Shanghai on 22 November; due after 15 days, on 7 December."""
    made, diary = live(debit(State.NEEDS_RIDER), rules(REPORTING), 40, {"call report": ACCEPTED})
    assert diary == [
        "04 12:00 reminder.due",
        "07 12:00 debit.overdue",
        "07 12:00 reminder.overdue",
        "07 12:00 reminder.report_notice",
        "14 12:00 call report",
        "14 12:00 performance.reported",
    ]
    assert (made.record, made.overdue) == ("violated", True)


@pytest.mark.parametrize(
    ("calendar", "due", "notice", "report"),
    [
        ({"report_days": 0}, 1, "23 12:00", "07 11:58"),  # Fifteen days after the first attempt.
        ({"report_days": 3, "notice_days": 2}, 12, "06 12:00", "13 12:00"),  # Seven after the notice.
        ({"report_days": 30}, 1, "23 12:00", "23 12:00"),
    ],
)
def test_nobody_is_reported_sooner_than_he_must_be_told_or_his_provider_tries(
    calendar: dict[str, Any], due: int, notice: str, report: str
) -> None:
    """Noon on 22 November, the first attempt; due some days later. The notice names the day that it comes to."""
    made = debit(State.NEEDS_RIDER, pay_by=NOW + timedelta(days=due))
    made, diary = live(made, rules(REPORTING, **calendar), 40, {"call report": ACCEPTED})
    assert [entry for entry in diary if "report" in entry][:2] == [
        f"{notice} reminder.report_notice",
        f"{report} call report",
    ]


def test_what_reaches_the_rider_waits_for_the_morning() -> None:
    made = debit(State.NEEDS_RIDER, pay_by=datetime(2026, 12, 6, 19, tzinfo=UTC))
    _, diary = live(made, rules(REPORTING, notice_days=1), 16)
    assert diary == [
        "03 19:00 reminder.due",
        "07 03:00 debit.overdue",
        "07 10:00 reminder.overdue",
        "08 10:00 reminder.report_notice",
    ]


REFUSED = ReportAnswered("violated", Rejected("NO_PERMISSION"))


@pytest.mark.parametrize(
    ("answer", "asks"),
    [
        (None, REPORT_ASKS_MAX),
        (REFUSED, 15),
        (ReportAnswered("violated", Unknown("502")), REPORT_ASKS_MAX),
    ],
)
def test_a_report_that_is_not_taken_is_told_for_two_weeks_and_then_stands_as_not_taken(
    answer: DebitEvent | None, asks: int
) -> None:
    answers = {} if answer is None else {"call report": answer}
    made, diary = live(debit(State.NEEDS_RIDER), rules(REPORTING), 170, answers)
    assert sum(entry.endswith("call report") for entry in diary) == asks
    assert (made.record, made.record_at, made.overdue) == ("violated", None, True)
    late, _ = after(made, ReportAnswered("violated", AlreadyDone()), NOW + timedelta(days=170), rules(REPORTING))
    assert late.record_at is not None, "an answer is good however late"
    given_up, _ = live(made, rules(REPORTING), 40, since=NOW + timedelta(days=170))
    assert given_up.state is State.WRITTEN_OFF, "the calendar goes on"


def test_a_good_record_that_is_refused_ends_too_and_a_bad_one_that_was_makes_way_for_it() -> None:
    made, _ = live(debit(State.NEEDS_RIDER), rules(REPORTING), 60, {"call report": REFUSED})
    paid, _ = after(made, Queried(KEY, Succeeded(1000)), NOW + timedelta(days=60), rules(REPORTING))
    assert (paid.state, paid.record, paid.record_asks) == (State.SETTLED, "completed", 0)
    refused: dict[str, DebitEvent] = {"call report": ReportAnswered("completed", Rejected("NO_PERMISSION"))}
    kept, diary = live(paid, rules(REPORTING), 60, refused, since=NOW + timedelta(days=60))
    assert (len(diary), kept.policy_at, kept.record_at) == (15, None, None)


def test_a_report_is_repeated_under_its_key_until_the_provider_knows() -> None:
    made, diary = live(debit(State.NEEDS_RIDER), rules(REPORTING), 22.01)
    calls = [entry for entry in diary if entry.endswith("call report")]
    assert calls[:3] == ["14 12:00 call report", "14 12:01 call report", "14 12:06 call report"]
    knows, _ = after(made, ReportAnswered("violated", Accepted()), NOW, rules(REPORTING))
    assert knows.record_at == NOW
    again, effects = after(knows, ReportAnswered("violated", Accepted()), NOW, rules(REPORTING))
    assert (again, effects) == (knows, ()), "known is known"


@pytest.mark.parametrize("stop", [DisputeOpened("complaint"), Suspended("lock failed")])
def test_nobody_is_reported_who_objects_and_when_that_is_over_he_is_told_before(stop: DebitEvent) -> None:
    """The days after his notice ran while he objected: he was reported in the second in which his complaint ended."""
    made, _ = live(debit(State.NEEDS_RIDER), rules(REPORTING), 16)
    stopped, _ = after(made, stop, NOW + timedelta(days=16), rules(REPORTING))
    stopped, diary = live(stopped, rules(REPORTING), 60, since=NOW + timedelta(days=16))
    assert diary == []
    over: DebitEvent = Resumed() if isinstance(stop, Suspended) else DisputeClosed("lost")
    resumed, _ = after(stopped, over, NOW + timedelta(days=80), rules(REPORTING))
    noticed, effects = after(resumed, PolicyDue(), NOW + timedelta(days=80), rules(REPORTING))
    assert [told(effect) for effect in effects] == ["reminder.report_notice"]
    made, diary = live(noticed, rules(REPORTING), 6.9, {"call report": ACCEPTED}, since=NOW + timedelta(days=80))
    assert (diary, made.dunned_at) == ([], NOW + timedelta(days=80))
    made, diary = live(made, rules(REPORTING), 1, {"call report": ACCEPTED}, since=NOW + timedelta(days=86.9))
    assert [entry.split()[-1] for entry in diary] == ["report", "performance.reported"]
    assert made.dunned_at == NOW + timedelta(days=80), "of the notice, whatever is told the provider"


@pytest.mark.parametrize("given", [False, True])
def test_of_what_was_never_sent_nothing_is_reported_neither_bad_nor_good(given: bool) -> None:
    """The rider did not confirm the hold, and paid by a number of its own in the end, if at all."""
    unsent = debit(State.NEEDS_RIDER, attempts=0, begun_at=None, submitted_at=NOW if given else None, given=given)
    made, diary = live(unsent, rules(REPORTING), 100)
    assert diary == ["04 12:00 reminder.due", "07 12:00 debit.overdue", "07 12:00 reminder.overdue"]
    assert (made.overdue, made.record, made.record_asks) == (True, None, 0)
    paid, _ = after(made, Notified(KEY, Succeeded(1000)), NOW + timedelta(days=100), rules(REPORTING))
    assert (paid.state, paid.record, paid.policy_at) == (State.SETTLED, None, None)


def test_reports_can_be_switched_off_and_stopped() -> None:
    _, diary = live(debit(State.NEEDS_RIDER), rules(REPORTING, reports=False), 100)
    assert not any("report" in entry for entry in diary)
    _, diary = live(debit(State.NEEDS_RIDER), replace(rules(REPORTING), reporting=False), 24)
    assert not any("call report" in entry for entry in diary)


def test_an_overdue_debt_that_is_paid_is_told_as_kept() -> None:
    made, _ = live(debit(State.NEEDS_RIDER), rules(REPORTING), 30, {"call report": ACCEPTED})
    paid, _ = after(made, Queried(KEY, Succeeded(1000)), NOW + timedelta(days=30), rules(REPORTING))
    assert (paid.state, paid.overdue, paid.record, paid.record_at) == (State.SETTLED, False, "completed", None)
    answer = ReportAnswered("completed", Accepted())
    kept, diary = live(paid, rules(REPORTING), 1, {"call report": answer}, since=NOW + timedelta(days=30))
    assert [entry.split()[-1] for entry in diary] == ["report", "performance.reported"]
    assert kept.policy_at is None


def test_where_the_provider_reports_we_tell_him_nothing() -> None:
    made, diary = live(debit(State.NEEDS_RIDER), rules(Capabilities()), 100)
    assert not any("report" in entry for entry in diary)
    paid, _ = after(made, Queried(KEY, Succeeded(1000)), NOW + timedelta(days=30), rules(Capabilities()))
    assert (paid.record, paid.policy_at) == (None, None)


def test_a_reminder_before_each_attempt_of_ours_once() -> None:
    waits = debit(State.RETRY_WAIT, due_at=NOW + timedelta(days=1))
    made, diary = live(waits, rules(Capabilities()), 0.99)
    assert diary == ["22 19:00 reminder.due"], "four hours before noon it is too early: the evening before"
    assert made.reminded == 2
    _, diary = live(waits, replace(rules(Capabilities()), debiting=False), 0.99)
    assert diary == [], "while debits are stopped no attempt will be made"


def test_a_provider_that_retries_is_nudged_at_most_once_a_civil_day() -> None:
    made = debit(State.PENDING, pay_by=NOW + timedelta(days=60))
    _, diary = live(made, rules(NUDGING), 3.5, {"call nudge": NudgeAnswered(Accepted())})
    assert diary == ["23 10:00 call nudge", "24 10:00 call nudge", "25 10:00 call nudge"]
    _, diary = live(made, replace(rules(NUDGING), debiting=False), 3.5, {"call nudge": NudgeAnswered(Accepted())})
    assert diary == []
    asked, _ = after(made, NudgeAnswered(AlreadyDone()), NOW, rules(NUDGING))
    assert asked.due_at == NOW, "what came of it is asked"
    silent, _ = after(made, NudgeAnswered(Unknown("timeout")), NOW, rules(NUDGING))
    assert silent == made


def test_due_days_are_the_riders_civil_days_when_the_clocks_change() -> None:
    """Berlin leaves summer time on 25 October 2026: fifteen civil days are an hour longer."""
    berlin, owed = ZoneInfo("Europe/Berlin"), datetime(2026, 10, 20, 10, tzinfo=UTC)
    by = dunning.pay_by(owed, berlin, Calendar())
    assert by.astimezone(berlin) == datetime(2026, 11, 4, 12, tzinfo=berlin)
    assert by - owed == timedelta(days=15, hours=1)


def test_a_first_attempt_with_a_delay_does_not_come_at_night() -> None:
    night = datetime(2026, 11, 22, 15, tzinfo=UTC)
    assert dunning.first_attempt_at(night, ZONE, Calendar()) == night
    waited = dunning.first_attempt_at(night, ZONE, Calendar(debit_delay=timedelta(hours=1)))
    assert waited.astimezone(ZONE) == datetime(2026, 11, 23, 10, tzinfo=ZONE)


def test_an_order_is_written_off_at_last_and_its_debt_may_still_be_paid() -> None:
    made, _ = live(debit(State.PENDING), rules(ORDER), 300, {"call report": ACCEPTED})
    assert (made.state, made.overdue, made.policy_at) == (State.WRITTEN_OFF, True, None)
    assert made.due_at is not None, "its number is open: it is asked about, seldom"
    asked, [call] = after(made, Due(), made.due_at, rules(ORDER))
    again, _ = after(asked, Queried(KEY, Accepted()), made.due_at, rules(ORDER))
    assert (call, again.due_at) == (Call("query"), made.due_at + timedelta(days=7))
    paid, _ = after(asked, Queried(KEY, Succeeded(1000)), made.due_at, rules(ORDER))
    assert (paid.state, paid.overdue, paid.due_at) == (State.SETTLED, False, None)
    over, _ = after(asked, Queried(KEY, Closed()), made.due_at, rules(ORDER))
    assert (over.state, over.due_at) == (State.WRITTEN_OFF, None)
