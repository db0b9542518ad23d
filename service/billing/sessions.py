"""A ride, folded from its events in any order of arrival, and its usage."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec

RIDE_HOURS_MAX = 720
"""How long a ride may last before somebody must look at it, unless the operator says otherwise (events.md)."""

ReviewReason = Literal["ended_before_start", "negative_distance", "longer_than_ride_hours_max", "time_in_the_future"]


class Usage(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a ride used: the only thing that can be rated.

    Instants are aware and in UTC; `duration_us` is exact microseconds between them; `meters` is whole metres;
    `pauses` lie inside the ride, sorted and disjoint; `reserved_us` is the length of a reservation before the ride,
    or, where `rode` is False, of a reservation that no ride followed.
    """

    started_at: datetime
    ended_at: datetime
    duration_us: int
    meters: int = 0
    pauses: tuple[tuple[datetime, datetime], ...] = ()
    vehicle_type: str | None = None
    parking_category: str | None = None
    zone_fees: tuple[str, ...] = ()
    reserved_us: int | None = None
    rode: bool = True
    lost_end: Literal["ride_max", "last_sign"] | None = None


def review_reason(
    started_at: datetime, ended_at: datetime, distance: int | None, ride_hours_max: int = RIDE_HOURS_MAX
) -> ReviewReason | None:
    """Why a ride must not be charged by itself, or None when it may be."""
    if ended_at < started_at:
        return "ended_before_start"
    if distance is not None and distance < 0:
        return "negative_distance"
    if ended_at - started_at > timedelta(hours=ride_hours_max):
        return "longer_than_ride_hours_max"
    return None
