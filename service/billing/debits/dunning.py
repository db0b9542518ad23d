"""When a debit is looked at again: questions, polls, retries, due days, in the rider's civil days."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

from service.billing.bounds import bounded

QUERY_AFTER = tuple(timedelta(seconds=seconds) for seconds in (1, 2, 5, 10, 30, 60, 300))
"""Steps between questions about an unknown outcome; the last one repeats."""
POLL_AFTER = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, *[60] * 24, 1440))
"""Steps between polls of an accepted debit: soon, hourly for a day, then daily."""
WRITTEN_OFF_POLL = timedelta(days=7)
"""How often a debt that was given up, or a debit that has ended, is asked about while its number is open."""
WRITTEN_OFF_POLLS = 104
"""After so many polls (two years) it is left to notifications and reconciliation."""
NOT_FOUND_APART = (
    timedelta(seconds=60),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=6),
    timedelta(days=1),
    timedelta(days=2),
)
"""Two answers NOT_FOUND this far apart mean that the request never arrived: it is sent again under its key, so often
at most. What is never there then is refused in words that nobody has listed: only a person can tell."""
RETRY_AFTER = (
    timedelta(hours=6),
    timedelta(days=1),
    timedelta(days=3),
    timedelta(days=5),
    timedelta(days=7),
    timedelta(days=10),
    timedelta(days=14),
)
"""From the first attempt to each retry; stays inside Alipay's 15 days (providers.md, 1.2)."""


NOTICE_DAYS_MIN = 7
"""So long before a negative report its rider is told of it, whatever the calendar says: he may still pay (providers.md,
6; he is to be told before, 征信业管理条例 Art. 15)."""
REPORT_AFTER_DAYS = 15
"""No negative report earlier than so long after the first attempt, whatever the calendar says: until then the provider
takes further attempts under the same number (AUTH15 in providers.md, 1.2)."""


class Calendar(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's collection calendar; durations are ISO 8601, hours are those of the rider's day."""

    debit_delay: timedelta = timedelta()
    """From the charge to the first attempt: time to object."""
    due_days: int = msgspec.field(default=15)
    """A debit that is not paid after this many days is overdue."""
    write_off_days: int = 180
    """An undisputed debt is written off this many days after it became overdue."""
    remind_before: timedelta = timedelta(hours=4)
    """How long before an attempt of ours the rider is reminded."""
    remind_days: int = 3
    """How many days before the due date he is reminded of what is not tried by us."""
    payment_open_for: timedelta = timedelta(hours=1)
    """How long a rider who wants to pay now is left to do so before anything else is tried."""
    reports: bool = True
    """Whether negative reports are made at all, where they are ours to make."""
    notice_days: int = 0
    """How many days after the due date he is told that he will be reported."""
    report_days: int = 7
    """How many days after that notice he is reported: 7 at least, and never before the 15th day after the first
    attempt."""
    collect_revoked_for: timedelta = timedelta(days=30)
    """How long what was ridden may be collected on an agreement that we have ended, before a provider who collects
    nothing on it from then on is told all the same; what is unpaid then is the rider's to pay."""
    stop_above_minor: int | None = None
    """A debit above this is unusual."""
    stop_factor: int = 20
    """So is one above this many times what the tariff's debits of the last 30 days were on average."""
    stop_run: int = 10
    """So many unusual debits of a tariff in one hour stop its debits."""
    retry_from: time = time(10)
    retry_until: time = time(20)
    retry_after: tuple[timedelta, ...] = RETRY_AFTER


@lru_cache(maxsize=1024)
def calendar(settings: str) -> Calendar:
    """The calendar an operator's settings (JSON) say, no value above what is allowed; raises msgspec.ValidationError
    naming the field."""
    return bounded(msgspec.json.decode(settings.encode(), type=Calendar))


def first_attempt_at(owed_at: datetime, zone: ZoneInfo, rules: Calendar) -> datetime:
    """When a debit is first tried: at once, or after the delay at an hour when riders are charged."""
    return in_hours(owed_at + rules.debit_delay, zone, rules) if rules.debit_delay else owed_at


def pay_by(owed_at: datetime, zone: ZoneInfo, rules: Calendar) -> datetime:
    """The instant from which an unpaid debit is overdue."""
    return civil_days(owed_at, rules.due_days, zone)


def write_off_at(pay_by_at: datetime, zone: ZoneInfo, rules: Calendar) -> datetime:
    """The instant from which an undisputed overdue debit is written off."""
    return civil_days(pay_by_at, rules.write_off_days, zone)


def civil_days(at: datetime, days: float, zone: ZoneInfo) -> datetime:
    """The same hour of the rider's clock so many civil days later, whatever the offset does in between."""
    return (at.astimezone(zone) + timedelta(days=days)).astimezone(ZoneInfo("UTC"))


def query_at(queries: int, now: datetime) -> datetime:
    """When to ask again after `queries` questions that told nothing."""
    return now + QUERY_AFTER[min(queries, len(QUERY_AFTER) - 1)]


def never_arrived(first_at: datetime, resent: int, now: datetime) -> bool:
    """Whether what was first NOT_FOUND at `first_at`, and was sent again `resent` times, is NOT_FOUND for certain."""
    return now - first_at >= _apart(resent)


def given_up(reason: str) -> str:
    """Why a person must look at what was sent so often and never found; `reason` is what the provider said to it."""
    return f"sent {len(NOT_FOUND_APART) + 1} times and never found: {reason}"


def asked_again_at(first_at: datetime | None, resent: int, queries: int, now: datetime) -> datetime:
    """When to ask about an unknown outcome again: what was found neither before nor now, when that can be certain."""
    if first_at is None or not resent:
        return query_at(queries, now)
    return max(first_at + _apart(resent), now + QUERY_AFTER[0])


def _apart(resent: int) -> timedelta:
    """Nothing is sent after the last time: what is not found then is not waited for."""
    return NOT_FOUND_APART[resent] if resent < len(NOT_FOUND_APART) else NOT_FOUND_APART[0]


def poll_at(polls: int, now: datetime) -> datetime:
    """When to ask again after an accepted debit was asked about `polls` times."""
    return now + POLL_AFTER[min(polls, len(POLL_AFTER) - 1)]


def retry_at(begun_at: datetime, attempts: int, now: datetime, zone: ZoneInfo, rules: Calendar) -> datetime | None:
    """When a debit that was declined `attempts` times is tried again; None when the calendar is used up.

    Steps count from the first attempt in the rider's civil days; those that an outage let pass are skipped, so that
    no two attempts follow each other in a hurry.
    """
    for step in rules.retry_after[attempts - 1 :]:
        at = _step(begun_at, step, zone, rules)
        if at > now:
            return at
    return None


def in_hours(at: datetime, zone: ZoneInfo, rules: Calendar) -> datetime:
    """`at`, or the next instant after it at which a rider may be charged again."""
    local = at.astimezone(zone)
    if local.time() < rules.retry_from:
        return _on(local, rules.retry_from)
    if local.time() >= rules.retry_until:
        return _on(local + timedelta(days=1), rules.retry_from)
    return at


def hours_before(at: datetime, zone: ZoneInfo, rules: Calendar) -> datetime:
    """`at`, or the last hour before it at which a rider may be told something."""
    local = at.astimezone(zone)
    if local.time() < rules.retry_from:
        local -= timedelta(days=1)
    elif local.time() < rules.retry_until:
        return at
    return max(_on(local, rules.retry_until) - timedelta(hours=1), _on(local, rules.retry_from))


def next_day(at: datetime, zone: ZoneInfo, rules: Calendar) -> datetime:
    """The first hour of the next civil day at which a rider may be charged."""
    return _on(at.astimezone(zone) + timedelta(days=1), rules.retry_from)


def _step(begun_at: datetime, step: timedelta, zone: ZoneInfo, rules: Calendar) -> datetime:
    if step < timedelta(days=1):
        return in_hours(begun_at + step, zone, rules)
    return in_hours(civil_days(begun_at, step / timedelta(days=1), zone), zone, rules)


def _on(local: datetime, hour: time) -> datetime:
    at = datetime.combine(local.date(), hour, tzinfo=local.tzinfo)
    return at.astimezone(ZoneInfo("UTC"))
