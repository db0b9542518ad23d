"""A trips export read back: rows of a bike-share operator's CSV as trips, and what they cost offline.

Columns are those of the Citi Bike system data (`ride_id`, `rideable_type`, `started_at`, `ended_at`, ...), and
`distance_m` where a file has it. Times are local, without offset, in a zone that is given: a time that comes twice when
the clock is put back is taken as its first coming, one that is skipped when it is put forward is read with the offset
from before (fold 0, PEP 495).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from service.adapters.csv_file import CsvFileError, Seen, read_rows, twice
from service.billing.extent import SESSION_ID_MAX
from service.billing.instants import InstantError, utc
from service.billing.money import MoneyError, parse_decimal
from service.billing.rating import Line, rate
from service.billing.refusals import is_id
from service.billing.sessions import RIDE_HOURS_MAX, Usage, review_reason
from service.billing.tariffs import Tariff

REQUIRED = ("ride_id", "started_at", "ended_at")


class TripsError(ValueError):
    """A trips file that can't be read; the message says where (line, column) and what to do."""


class Trip(msgspec.Struct, frozen=True, gc=False):
    """One row: instants in UTC, whole metres, and the row as it stands for what else one wants of it."""

    session_id: str
    started_at: datetime
    ended_at: datetime
    meters: int
    row: dict[str, str]

    @property
    def duration_us(self) -> int:
        """Exact microseconds from start to end, negative when the end is first."""
        return (self.ended_at - self.started_at) // timedelta(microseconds=1)


class PricedTrip(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a trip costs; `amount_minor` is None, with a `reason`, where the ride would go to review."""

    session_id: str
    seconds: int | float
    meters: int
    currency: str
    amount_minor: int | None
    lines: tuple[Line, ...]
    reason: str | None = None


def read_trips(path: Path, zone: ZoneInfo) -> Iterator[Trip]:
    """The file's trips in order. Raises TripsError at the first row that can't be read, OSError for the file."""
    with path.open("rb") as file:
        try:
            yield from _trips(read_rows(file, path), path, zone)
        except CsvFileError as error:
            raise TripsError(str(error)) from error


def price_trip(trip: Trip, tariff: Tariff, ride_hours_max: int = RIDE_HOURS_MAX) -> PricedTrip:
    """The trip's price as if the rider had no other rides, or why it would go to review."""
    micros = trip.duration_us
    seconds = micros // 1_000_000 if micros % 1_000_000 == 0 else micros / 1_000_000
    reason = review_reason(trip.started_at, trip.ended_at, trip.meters, ride_hours_max)
    if reason is not None:
        return PricedTrip(trip.session_id, seconds, trip.meters, tariff.currency, None, (), reason)
    charge = rate(usage_of(trip), tariff)
    return PricedTrip(trip.session_id, seconds, trip.meters, charge.currency, charge.total_minor, charge.lines)


def usage_of(trip: Trip) -> Usage:
    """The trip as usage; its end must not be before its start."""
    return Usage(
        started_at=trip.started_at,
        ended_at=trip.ended_at,
        duration_us=trip.duration_us,
        meters=trip.meters,
        vehicle_type=trip.row.get("rideable_type") or None,
    )


def _trips(rows: Iterator[tuple[int, list[str]]], path: Path, zone: ZoneInfo) -> Iterator[Trip]:
    header = next(((row for _, row in rows if row)), [])
    missing = [column for column in REQUIRED if column not in header]
    if missing:
        raise TripsError(f"{path}: no column {missing[0]}; the first line must name {', '.join(REQUIRED)}")
    if len(set(header)) < len(header):
        raise TripsError(f"{path}: {twice(header)}")
    seen = Seen()
    for number, row in rows:
        if not row:
            continue
        where = f"{path}:{number}"
        if len(row) != len(header):
            raise TripsError(f"{where}: not as many cells as columns; check for stray commas")
        trip = _trip(dict(zip(header, row, strict=True)), where, zone)
        first = seen.before("ride_id", trip.session_id, number)
        if first is not None:
            raise TripsError(f"{where}: ride_id: the same as on line {first}; keep one")
        yield trip


def _trip(row: dict[str, str], where: str, zone: ZoneInfo) -> Trip:
    session_id = row["ride_id"]
    if not is_id(session_id, SESSION_ID_MAX):
        raise TripsError(f"{where}: ride_id: allowed are 1 to {SESSION_ID_MAX} visible characters")
    return Trip(
        session_id=session_id,
        started_at=_instant(row["started_at"], f"{where}: started_at", zone),
        ended_at=_instant(row["ended_at"], f"{where}: ended_at", zone),
        meters=_meters(row.get("distance_m", ""), f"{where}: distance_m"),
        row=row,
    )


def _instant(text: str, where: str, zone: ZoneInfo) -> datetime:
    try:
        local = datetime.fromisoformat(text)
        return utc(local if local.tzinfo is not None else local.replace(tzinfo=zone))
    except InstantError as error:
        raise TripsError(f"{where} {text!r} is {error}") from error
    except ValueError as error:
        raise TripsError(f"{where} {text!r} is no time; give 2026-11-22 18:30:00") from error


def _meters(text: str, where: str) -> int:
    """Whole metres, the nearest for a fraction; an empty cell is 0."""
    try:
        return int(parse_decimal(text or "0").to_integral_value(ROUND_HALF_UP))
    except MoneyError as error:
        raise TripsError(f"{where} {error}; give metres") from error
