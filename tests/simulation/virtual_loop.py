"""An event loop whose clock stands still until it is moved, and that can tell when nothing is left to run."""

from __future__ import annotations

import asyncio


class VirtualLoop(asyncio.SelectorEventLoop):
    """Timers run when `virtual_s` is moved past them; sockets are the real ones."""

    def __init__(self) -> None:
        self.virtual_s = 0.0
        super().__init__()

    def time(self) -> float:
        """Seconds of virtual time since the loop was made; nothing but `move_to` changes it."""
        return self.virtual_s

    def move_to(self, virtual_s: float) -> None:
        """The clock shows this from now on; what waits for it runs in the loop's next turn."""
        assert virtual_s >= self.virtual_s, "time does not run backwards"
        self.virtual_s = virtual_s

    @property
    def quiet(self) -> bool:
        """Whether everything that could run has run; what is left waits for a socket, a timer, or its turn."""
        return not self._ready  # type: ignore[attr-defined]  # Private to asyncio since 3.4, and always a deque there.

    def next_timer_s(self) -> float | None:
        """When the next timer is due that was not cancelled."""
        times = [
            handle.when()
            for handle in self._scheduled  # type: ignore[attr-defined]  # As `_ready`.
            if not handle.cancelled()
        ]
        return min(times, default=None)
