"""How fast `rate` is: rides per second on one core, on GBFS plans, every charge with its lines (speed.md)."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from service.billing.rating import rate
from service.billing.rating.compiled import compiled
from service.billing.sessions import Usage
from service.billing.tariffs import Tariff, build, import_document

PLANS = b"""{"data": {"plans": [
  {"plan_id": "bike", "currency": "CNY", "price": "1.50",
   "per_min_pricing": [{"start": 15, "rate": "1.00", "interval": 15}]},
  {"plan_id": "ebike", "currency": "USD", "price": "4.99",
   "per_min_pricing": [{"start": 0, "rate": "0.41", "interval": 1}]},
  {"plan_id": "car", "currency": "EUR", "price": 0,
   "per_km_pricing": [{"start": 0, "end": 100, "rate": 0.29, "interval": 1},
                      {"start": 100, "rate": 0.22, "interval": 1}],
   "per_min_pricing": [{"start": 0, "end": 60, "rate": 5.9, "interval": 60},
                       {"start": 60, "rate": 1.475, "interval": 15}]},
  {"plan_id": "capped", "currency": "JPY", "price": 130, "fare_capping": {"duration": 720, "price": 1800},
   "per_min_pricing": [{"start": 30, "rate": 100, "interval": 15}]}
]}}"""
"""Plans in the shape of published ones, for a bench without files."""

SECONDS_MEAN = 1500
METERS_MEAN = 4000


def run(n: int = 200_000, plans: Sequence[Path] = ()) -> dict[str, Any]:
    """Rates `n` random rides on the plans of the files (on `PLANS` without any).

    Returns `rides_per_s` of a process that starts cold, `rides_per_s_warm` of the same rides once more, and
    `rides_per_s_unshared`, where no charge is taken over from an equal ride; and how many `tariffs` and rides there
    were. Seconds are those of the process, so that a shared machine does not count. Lengths and distances are
    exponential, seeded.
    """
    tariffs = _tariffs([path.read_bytes() for path in plans] or [PLANS])
    rides = _rides(n, tariffs)
    cold, lines = _seconds(rides)
    warm, _ = _seconds(rides)
    few = rides[: max(1, n // 10)]
    unshared, _ = _seconds(few, share=False)
    return {
        "rides": n,
        "tariffs": len(tariffs),
        "lines": lines,
        "rides_per_s": round(n / cold),
        "rides_per_s_warm": round(n / warm),
        "rides_per_s_unshared": round(len(few) / unshared),
    }


def _tariffs(documents: Sequence[bytes]) -> list[Tariff]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    drafts = [draft for document in documents for draft in import_document(document)]
    return [build(draft, valid_from=start, time_zone="Europe/Berlin") for draft in drafts]


def _rides(n: int, tariffs: Sequence[Tariff]) -> list[tuple[Usage, Tariff]]:
    chance = random.Random(20261122)
    rides = []
    for _ in range(n):
        start = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=chance.randrange(30 * 86400))
        length = int(min(chance.expovariate(1 / SECONDS_MEAN), 86400) * 1_000_000)
        meters = int(chance.expovariate(1 / METERS_MEAN))
        ended = start + timedelta(microseconds=length)
        usage = Usage(started_at=start, ended_at=ended, duration_us=length, meters=meters)
        rides.append((usage, chance.choice(tariffs)))
    return rides


def _seconds(rides: Sequence[tuple[Usage, Tariff]], *, share: bool = True) -> tuple[float, int]:
    """Seconds of one core to rate the rides, and how many lines that gave."""
    charges = []
    begun = time.process_time()
    for usage, tariff in rides:
        if not share:
            compiled(tariff).memo.clear()
        charges.append(rate(usage, tariff))
    spent = time.process_time() - begun
    return spent, sum(len(charge.lines) for charge in charges)
