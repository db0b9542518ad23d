"""Meters: the segments of a tariff compiled to integers, and how many of their charges fall due.

A meter charges at t_k = start + k x interval, as long as t_k is before its end; a charge falls due once the clock has
run beyond t_k. So ceil((min(used, end) - start) / interval) are due, none when nothing is used beyond the start
(GBFS v3.1-RC3, system_pricing_plans.json; the half-open reading reproduces the published worked fares).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec

from service.billing.rating.timeline import Span, span_of
from service.billing.tariffs.gbfs import KM_MM, MINUTE_US, Plan, Segment
from service.billing.tariffs.rules import Rules, SegmentWindow, pause_segments

Clock = Literal["ride", "distance", "pause"]


class Meter(msgspec.Struct, frozen=True, gc=False):
    """A segment on its clock: microseconds of riding, millimetres, or microseconds of pause.

    `end` is None where there is none; `interval` is 0 for a charge that falls due once; `spans` are the hours in which
    it charges, () for always; `window` is those hours as written.
    """

    code: str
    clock: Clock
    unit: str
    path: str
    rate: Decimal
    start: int
    interval: int
    end: int | None
    spans: tuple[Span, ...] = ()
    window: str | None = None


def begun(meter: Meter, used: int) -> int:
    """How many charges lie before `used` on the meter's clock."""
    if meter.end is not None and used > meter.end:
        used = meter.end
    beyond = used - meter.start
    if beyond <= 0:
        return 0
    return -(-beyond // meter.interval) if meter.interval else 1


def due(meter: Meter, used: int, *, completed: bool = False, grace: int = 0) -> int:
    """How many charges a ride owes that used so much.

    With `completed`, only whole intervals count. A `grace` lets a ride run so far into a further interval before that
    is charged; it does not make the first charge at 0 free.
    """
    if completed and meter.interval:
        spent = used if meter.end is None else min(used, meter.end)
        return max(0, (spent - meter.start) // meter.interval)
    if grace and meter.clock == "ride":
        used = max(used - grace, min(used, 1))
    return begun(meter, used)


def meters_of(plan: Plan, rules: Rules) -> tuple[Meter, ...]:
    """The meters of a tariff, in the order of its document."""
    windows: dict[str, list[SegmentWindow]] = {}
    for window in rules.windows:
        windows.setdefault(window.segment, []).append(window)
    lists = (
        ("per_min", "ride", "/plan/per_min_pricing", plan.per_min_pricing or ()),
        ("per_km", "distance", "/plan/per_km_pricing", plan.per_km_pricing or ()),
        ("pause", "pause", "/rules/pause_rate", pause_segments(rules)),
    )
    return tuple(
        _meter(code, clock, segment, path, tuple(windows.get(path, ())))
        for code, clock, at, segments in lists
        for index, segment in enumerate(segments)
        for path in (at if isinstance(rules.pause_rate, Decimal) and code == "pause" else f"{at}/{index}",)
    )


def hours_label(windows: tuple[SegmentWindow, ...]) -> str | None:
    """The hours as a receipt names them: `fri,sat 22:00-06:00`."""
    texts = [
        ("" if len(window.days) == 7 else ",".join(window.days) + " ") + f"{window.from_}-{window.to}"
        for window in windows
    ]
    return "; ".join(texts) or None


def _meter(code: str, clock: str, segment: Segment, path: str, windows: tuple[SegmentWindow, ...]) -> Meter:
    one, name = (KM_MM, "km") if clock == "distance" else (MINUTE_US, "min")
    interval = segment.interval.normalize()
    started = name if interval == 1 else f"{interval:f} {name}"
    return Meter(
        code=code,
        clock="distance" if clock == "distance" else "pause" if clock == "pause" else "ride",
        unit=started if interval else "once",
        path=path,
        rate=segment.rate,
        start=int(segment.start * one),
        interval=int(segment.interval * one),
        end=None if segment.end is None else int(segment.end * one),
        spans=tuple(span_of(window) for window in windows),
        window=hours_label(windows),
    )
