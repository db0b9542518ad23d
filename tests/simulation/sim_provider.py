"""The provider's simulator in a world: its clock is the world's, and its faults are counted as they are met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

from service.lab.provider.clock import ProviderClock
from service.lab.provider.faults import Faults, Rates


class WorldClock(ProviderClock):
    """The provider's clock is the world's."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now()


MET = ("of_call", "of_notice", "refusal", "later_s", "decline", "takes_half", "refund_fails")


class CountedFaults(Faults):
    """The simulator's faults, counted as they are met."""

    def __init__(self, counts: Counter[str], seed: int, rates: Rates) -> None:
        super().__init__(seed, rates)
        self._counts = counts

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in MET:
            return found
        counts = self._counts

        def counted(*about: Any, **more: Any) -> Any:
            fault = found(*about, **more)
            counts["faults"] += bool(fault) or fault == 0.0
            return fault

        return counted

    def refusal(self, op: str, account: str, key: str, names: Collection[str] = ()) -> str | None:
        """Half of the holds that are refused are refused for now alone."""
        code = super().refusal(op, account, key, names)
        return "TOO_MANY_HOLDS" if code and op == "hold.open" and self._draw("for now", account, key) < 0.5 else code
