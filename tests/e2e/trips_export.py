"""A trips export for the tests: made from a seed, in the columns that bike-share operators publish."""

from __future__ import annotations

import csv
import random
from datetime import datetime, timedelta
from pathlib import Path

PLACES = "start_station_name,start_station_id,end_station_name,end_station_id,start_lat,start_lng,end_lat,end_lng"
HEADER = f"ride_id,rideable_type,started_at,ended_at,{PLACES},member_casual,distance_m"
FIRST = datetime.fromisoformat("2026-02-01 06:00:00")


def write_trips(path: Path, count: int | None, seed: int = 1, prefix: str = "T") -> Path:
    """Writes `count` trips of one week and two odd ones, an end before its start and one of 104 days; None: no trip."""
    chance = random.Random(seed)
    with path.open("w", newline="") as file:
        file.write(f"{HEADER}\n")
        rows = csv.writer(file)
        if count is None:
            return path
        for number in range(count):
            start = FIRST + timedelta(seconds=chance.randrange(7 * 86_400))
            rows.writerow(_row(f"{prefix}{number:05}", start, timedelta(seconds=chance.randrange(7200)), chance))
        rows.writerow(_row(f"{prefix}-backwards", FIRST, timedelta(seconds=-30), chance))
        rows.writerow(_row(f"{prefix}-forgotten", FIRST, timedelta(days=104), chance))
    return path


def _row(ride_id: str, start: datetime, length: timedelta, chance: random.Random) -> list[str]:
    end = start + length
    kind = chance.choice(["docked_bike", "electric_bike"])
    station = ["Harbour, North", "HA01", "Market", "MA02"]
    places = [f"{chance.uniform(-89, 89):.6f}" for _ in range(4)]
    return [ride_id, kind, str(start), str(end), *station, *places, "member", str(chance.randrange(9000))]
