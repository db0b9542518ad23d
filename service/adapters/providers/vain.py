"""How often something is fetched for numbers that turn out to be nobody's: anyone can send us one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic

VAIN_MAX, WITHIN_S = 5, 60.0
"""So often in so many seconds; then it is not tried for a while."""


class Vain:
    """What was fetched in vain; `clock` gives seconds that only grow."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=VAIN_MAX)

    @property
    def often(self) -> bool:
        """Whether it was in vain too often just now."""
        return len(self._times) == VAIN_MAX and self._clock() - self._times[0] < WITHIN_S

    def again(self) -> None:
        """It was in vain once more."""
        self._times.append(self._clock())
