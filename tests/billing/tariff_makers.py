"""Tariffs and rides for tests, in as few words as a table can hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from service.billing.rating.charges import Charge
from service.billing.sessions import Usage
from service.billing.tariffs import Tariff, TariffDraft, build

START = datetime(2026, 11, 22, 4, tzinfo=UTC)
"""Noon in Shanghai, a Sunday."""


def tariff(
    plan: dict[str, Any] | None = None,
    rules: dict[str, Any] | None = None,
    *,
    zone: str = "Asia/Shanghai",
    name: str = "t",
) -> Tariff:
    """A CNY tariff of price 0 and the given plan and rules."""
    whole = {"currency": "CNY", "price": 0, **(plan or {})}
    draft = TariffDraft(tariff_id=name, plan=json.dumps(whole).encode(), rules=json.dumps(rules or {}).encode())
    return build(draft, valid_from=datetime(2020, 1, 1, tzinfo=UTC), time_zone=zone)


def per_min(rate: object, interval: int = 1, start: int = 0, **end: int) -> dict[str, Any]:
    """A plan part of one segment."""
    return {"per_min_pricing": [{"start": start, "rate": rate, "interval": interval, **end}]}


def ride(
    minutes: float = 0,
    meters: int = 0,
    *,
    start: datetime = START,
    pauses: Sequence[tuple[float, float]] = (),
    **more: Any,
) -> Usage:
    """A ride of so many minutes; pauses are given in minutes since its start."""
    end = start + timedelta(minutes=minutes)
    spans = tuple((start + timedelta(minutes=a), start + timedelta(minutes=b)) for a, b in pauses)
    micros = (end - start) // timedelta(microseconds=1)
    return Usage(started_at=start, ended_at=end, duration_us=micros, meters=meters, pauses=spans, **more)


def amounts(charge: Charge) -> dict[str, str]:
    """The amount of each line by its code (and window, where it has one)."""
    return {line.code + (f" {line.window}" if line.window else ""): f"{line.amount:f}" for line in charge.lines}
