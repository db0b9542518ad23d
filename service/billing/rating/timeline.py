"""The clocks of a ride: where civil days, hours of the day, cap windows and pauses cut it.

Everything is in microseconds since the ride's start ("elapsed"). A ride is cut into buckets so that a bucket lies in
one cap window, one civil day, and inside or outside of each set of hours as a whole.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import accumulate
from zoneinfo import ZoneInfo

import msgspec

from service.billing.sessions import Usage
from service.billing.tariffs.rules import DAYS, Hours, minutes_of_day

_MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1)
_DAY_MINUTES = 1440


class Span(msgspec.Struct, frozen=True, gc=False):
    """Local hours as minutes of the day, and the weekdays (0 is Monday) they begin on."""

    start: int
    end: int
    weekdays: frozenset[int]

    def holds(self, local: datetime) -> bool:
        """Whether the local time is within; hours over midnight belong to the day they began on."""
        minute = local.hour * 60 + local.minute
        weekday = local.weekday()
        if self.start < self.end:
            return self.start <= minute < self.end and weekday in self.weekdays
        return (minute >= self.start and weekday in self.weekdays) or (
            minute < self.end and (weekday - 1) % 7 in self.weekdays
        )


def span_of(hours: Hours) -> Span:
    """The hours, ready to be asked."""
    weekdays = frozenset(DAYS.index(day) for day in hours.days)
    return Span(minutes_of_day(hours.from_), minutes_of_day(hours.to), weekdays)


def elapsed(usage: Usage, instant: datetime) -> int:
    """Microseconds from the ride's start to an instant."""
    return (instant - usage.started_at) // _MICROSECOND


def local_at(usage: Usage, at: int, zone: ZoneInfo) -> datetime:
    """The civil time in the zone, `at` microseconds into the ride."""
    return (usage.started_at + timedelta(microseconds=at)).astimezone(zone)


def cuts(usage: Usage, zone: ZoneInfo, minutes: Sequence[int], cap_us: int | None) -> list[int]:
    """Where buckets begin: 0, each cap window's start, and each time the civil clock reads one of `minutes`.

    `minutes` are minutes of the day, 0 for midnight. Where the zone's clock is put back a time comes twice, and both
    cut; where it is put forward over one, the change itself cuts.
    """
    duration = usage.duration_us
    found = {0}
    if cap_us is not None:
        found.update(range(cap_us, duration, cap_us))
    if minutes:
        for day in civil_days(usage, zone):
            for minute in minutes:
                instants = (civil_instant(day, minute, zone, fold) for fold in (0, 1))
                found.update(at for instant in instants if 0 < (at := elapsed(usage, instant)) < duration)
        found.update(elapsed(usage, change) for change in clock_changes(usage.started_at, usage.ended_at, zone))
    return sorted(found)


def civil_days(usage: Usage, zone: ZoneInfo) -> Iterator[date]:
    """The civil days from the ride's start to its end."""
    day = usage.started_at.astimezone(zone).date()
    last = usage.ended_at.astimezone(zone).date()
    yield day
    while day < last:
        day += _DAY
        yield day


def civil_instant(day: date, minute: int, zone: ZoneInfo, fold: int = 0) -> datetime:
    """The instant at which the zone's clock reads that minute of that day; 1440 is the next midnight."""
    day += _DAY * (minute // _DAY_MINUTES)
    clock = time(minute % _DAY_MINUTES // 60, minute % 60, fold=fold)
    return datetime.combine(day, clock, tzinfo=zone).astimezone(UTC)


def clock_changes(start: datetime, end: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """The instants in (start, end) at which the zone's clock is put forward or back."""
    while start < end:
        step = min(start + _DAY, end)
        if start.astimezone(zone).utcoffset() != step.astimezone(zone).utcoffset():
            before, after = start, step
            while after - before > _MICROSECOND:
                middle = before + (after - before) // 2
                changed = middle.astimezone(zone).utcoffset() != start.astimezone(zone).utcoffset()
                before, after = (before, middle) if changed else (middle, after)
            if after < end:
                yield after
        start = step


class Pauses:
    """The pauses of a ride, in microseconds since its start; however many there are, a question is a short search."""

    __slots__ = ("_before", "_ends", "_starts")

    def __init__(self, usage: Usage) -> None:
        self._starts = [elapsed(usage, start) for start, _ in usage.pauses]
        self._ends = [elapsed(usage, end) for _, end in usage.pauses]
        lengths = (end - start for start, end in zip(self._starts, self._ends, strict=True))
        self._before = list(accumulate(lengths, initial=0))

    def before(self, at: int) -> int:
        """How long the ride had been paused, `at` microseconds into it."""
        begun = bisect_left(self._starts, at)
        return self._before[begun - 1] + min(self._ends[begun - 1], at) - self._starts[begun - 1] if begun else 0
