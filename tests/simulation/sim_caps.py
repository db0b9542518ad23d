"""Caps over all rides of a rider: what they leave of each ride, as far as that can be said without knowing in which
order the rides were closed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from zoneinfo import ZoneInfo

import msgspec
from sim_people import MINUTE_MINOR, UNLOCK_MINOR, Ride

ZONE = ZoneInfo("Asia/Shanghai")


class Cap(msgspec.Struct, frozen=True):
    """The most that a rider's civil days or months cost; his rides begin within so many `hours`."""

    rule: str
    amount_minor: int
    hours: int

    def parts(self, ride: Ride, minutes: int) -> dict[str, int]:
        """What a ride of so many minutes costs in each day or month, were there no cap."""
        parts: dict[str, int] = defaultdict(int)
        length = 10 if self.rule == "day_cap" else 7
        for minute in range(minutes + 1):
            day = (ride.began_at + timedelta(minutes=minute)).astimezone(ZONE).date().isoformat()[:length]
            parts[day] += MINUTE_MINOR + (UNLOCK_MINOR if not minute else 0)
        return parts


CAPS = (Cap("day_cap", 400, 1), Cap("day_cap", 400, 24), Cap("day_cap", 700, 48), Cap("month_cap", 900, 720))


def wrong(cap: Cap, rides: Iterable[Ride], owed: dict[str, int]) -> list[str]:
    """What can't be of what the rides of one rider owe: more than the cap in all or than a ride costs, or less than is
    left of the cap when all others have used as much as they ever did. All of it where nothing was decided twice."""
    rides = [ride for ride in rides if ride.counted is not None]
    ever = {ride.session_id: cap.parts(ride, max(_lengths(ride))) for ride in rides}
    now = {ride.session_id: cap.parts(ride, ride.counted or 0) if _stands(ride) else {} for ride in rides}
    found, windows = [], {window for parts in now.values() for window in parts}
    in_all = sum(min(cap.amount_minor, sum(parts.get(window, 0) for parts in now.values())) for window in windows)
    together = sum(owed.get(ride.session_id, 0) for ride in rides)
    if together > in_all or (
        together < in_all and all(_stands(ride) and len(set(_lengths(ride))) == 1 for ride in rides)
    ):
        found.append(f"{[ride.session_id for ride in rides]} owe {together} under a cap that comes to {in_all}")
    for ride in rides:
        others = [ever[other.session_id] for other in rides if other is not ride]
        least = sum(
            min(part, max(0, cap.amount_minor - sum(parts.get(window, 0) for parts in others)))
            for window, part in now[ride.session_id].items()
        )
        most, told = sum(now[ride.session_id].values()), owed.get(ride.session_id, 0)
        if not least <= told <= most:
            found.append(f"{ride.session_id} owes {told} under its cap, and not {least} to {most}")
    return found


def _lengths(ride: Ride) -> list[int]:
    return [one.minutes for one in ride.said if one.kind in ("ended", "corrected")]


def _stands(ride: Ride) -> bool:
    """Whether it is charged; it was, perhaps, if not."""
    return not ride.voided and any(one.kind == "started" for one in ride.said)
