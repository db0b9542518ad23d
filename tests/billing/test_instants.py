"""Instants that anybody can mean, and what is said of others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.billing.instants import LAST, YEARS, InstantError, of_ms, read_instant


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2026-11-22T18:30:00+08:00", datetime(2026, 11, 22, 10, 30, tzinfo=UTC)),
        ("2026-11-22T10:30:00.000001Z", datetime(2026, 11, 22, 10, 30, 0, 1, UTC)),
        ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("2200-01-01T00:59:59.999999+01:00", LAST),
        ("2026-11-22t10:30:00z", datetime(2026, 11, 22, 10, 30, tzinfo=UTC)),
        ("", "no instant"),
        ("2026-11-22", "no instant"),
        ("2026-W49-1T00:00:00Z", "no instant"),
        ("20261201T000000Z", "no instant"),
        ("2026-11-22T18:30:00+08:00:30", "no instant"),
        ("2026-12-31T23:59:60Z", "no instant"),
        ("\udcff", "no instant"),
        ("tomorrow", "no instant"),
        ("2026-02-29T00:00:00Z", "no instant"),
        ("2026-11-22T18:30:00", "without its offset"),
        ("1969-12-31T23:59:59Z", "outside the years 1970 to 2199"),
        ("2200-01-01T00:00:00Z", "outside the years 1970 to 2199"),
        ("2199-12-31T23:59:59-00:01", "outside the years 1970 to 2199"),
        ("0001-01-01T00:00:00+14:00", "outside the years 1970 to 2199"),
        ("9999-12-31T23:59:59-12:00", "outside the years 1970 to 2199"),
    ],
)
def test_a_text_is_an_instant_in_utc_or_refused_in_words(text: str, told: datetime | str) -> None:
    if isinstance(told, datetime):
        assert read_instant(text) == told
        assert read_instant(text).tzinfo is UTC
        return
    with pytest.raises(InstantError, match=told):
        read_instant(text)


@given(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 7_258_118_399_999))
def test_milliseconds_are_exact_or_refused(milliseconds: int) -> None:
    """Kafka and MDS count them; a float would lose some."""
    try:
        instant = of_ms(milliseconds)
    except InstantError:
        assert not 0 <= milliseconds <= 7_258_118_399_999
    else:
        assert instant.year in YEARS
        assert (instant - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1) == milliseconds
