"""The provider's clock: the machine's, or a virtual one that is set and sped up from outside, and kept in the books."""

from __future__ import annotations

from datetime import UTC, datetime

from service.lab.provider.books import Books
from service.lab.provider.rows import ClockSet


class ProviderClock:
    """Tells the provider's time as the books say it was last set, over a restart too; else the machine's."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def now(self) -> datetime:
        """The provider's time, UTC; it never goes backwards but by `set`."""
        face = self._books.clock
        machine_now = datetime.now(UTC)
        return machine_now if face is None else face.shows + (machine_now - face.set_at) * face.speed

    @property
    def speed(self) -> float:
        """How fast it runs; 0: it stands still."""
        return 1.0 if self._books.clock is None else self._books.clock.speed

    def set(self, shows: datetime, speed: float) -> None:
        """From now on the clock shows this and runs at this speed."""
        self._books.put(ClockSet(datetime.now(UTC), shows.astimezone(UTC), speed))
