"""Instants as people, vehicles and files name them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

YEARS = range(1970, 2200)
"""A clock that was never set says 1970. What is reckoned from an instant of these years stays far from 9999, where
Python's calendar ends."""
LAST = datetime(YEARS[-1], 12, 31, 23, 59, 59, 999_999, UTC)
EXAMPLE = "2026-11-22T18:30:00+08:00"


class InstantError(ValueError):
    """No instant, or one that nobody can mean; the message goes on after "is", and names no value."""


def utc(instant: datetime) -> datetime:
    """The same instant in UTC; raises InstantError outside YEARS."""
    try:
        told = instant if instant.tzinfo is UTC else instant.astimezone(UTC)
    except OverflowError:
        told = None
    if told is None or not YEARS.start <= told.year < YEARS.stop:
        raise InstantError(_OUTSIDE)
    return told


def of_ms(milliseconds: int) -> datetime:
    """The instant so long after 1970 began; raises InstantError outside YEARS."""
    try:
        return utc(_EPOCH + timedelta(milliseconds=milliseconds))
    except OverflowError:
        raise InstantError(_OUTSIDE) from None


def read_instant(text: str) -> datetime:
    """The instant of an RFC 3339 text with its offset, in UTC; raises InstantError."""
    try:
        instant = msgspec.convert(text, datetime)
    except (msgspec.ValidationError, ValueError):
        raise InstantError(f"no instant; give RFC 3339 with its offset from UTC, such as {EXAMPLE}") from None
    if instant.tzinfo is None:
        raise InstantError(f"an instant without its offset from UTC; give it as in {EXAMPLE}")
    return utc(instant)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OUTSIDE = f"outside the years {YEARS[0]} to {YEARS[-1]}"
