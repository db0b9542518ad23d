"""Writes that this process began under a key and could not let go of: PostgreSQL was away when it wanted to."""

from __future__ import annotations

from datetime import datetime, timedelta

DIED_AFTER = timedelta(seconds=60)
"""A write that was begun and not answered for so long was left by a process that died (machine time)."""
Write = tuple[int, str, str]
"""Operator, route and key."""


class LeftWrites:
    """This process knows that nobody is at them, which others have to wait `DIED_AFTER` for."""

    def __init__(self) -> None:
        self._begun_at: dict[Write, datetime] = {}

    def add(self, write: Write, begun_at: datetime) -> None:
        """One more; what others would take over anyway by now is forgotten."""
        for old, at in list(self._begun_at.items()):
            if at > begun_at - DIED_AFTER:
                break
            del self._begun_at[old]
        self._begun_at.pop(write, None)
        self._begun_at[write] = begun_at

    def has(self, write: Write, begun_at: datetime) -> bool:
        """Whether it was this process that began it at that instant."""
        return self._begun_at.get(write) == begun_at
