"""The machine's clock, and what any clock is: whoever needs the time is handed one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Gives an aware instant in UTC."""


def machine_now() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)
