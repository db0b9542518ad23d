"""The provider's clock: the machine's, or a virtual one that is set and sped up from outside."""

from __future__ import annotations

from datetime import UTC, datetime


class ProviderClock:
    """Tells the provider's time: `set_at` of the machine was `shows`, and since then it runs `speed` times as fast."""

    def __init__(self) -> None:
        self._set_at = self._shows = datetime.now(UTC)
        self.speed = 1.0

    def now(self) -> datetime:
        """The provider's time, UTC; it never goes backwards but by `set`."""
        return self._shows + (datetime.now(UTC) - self._set_at) * self.speed

    def set(self, shows: datetime, speed: float) -> None:
        """From now on the clock shows this and runs at this speed; 0 stops it."""
        self._set_at, self._shows, self.speed = datetime.now(UTC), shows.astimezone(UTC), speed
