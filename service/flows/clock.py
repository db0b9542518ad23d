"""The two clocks (intake.md): the business clock says when rides and debits are, the machine's rules leases."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from service.adapters.clock import Clock, machine_now
from service.adapters.postgres.catalog import Installation
from service.billing.instants import of_ms


def elapsed() -> float:
    """Seconds by the running loop's clock, of which only differences mean anything: pauses and stalls go by it."""
    return asyncio.get_running_loop().time()


class BusinessClock:
    """The installation's business clock: real, or virtual with a speed, from a row that every role reads each round."""

    def __init__(self, machine: Clock = machine_now) -> None:
        self._machine = machine
        self._installation: Installation | None = None

    def read(self, installation: Installation) -> None:
        """Takes over what the installation's row says now."""
        self._installation = installation

    def now(self) -> datetime:
        """The business time."""
        return self.at(self._machine())

    def at(self, machine_at: datetime) -> datetime:
        """The business time at an instant of the machine's clock, by the clock's present setting."""
        row = self._installation
        if row is None or row.clock_mode == "real" or row.clock_machine_at is None or row.clock_business_at is None:
            return machine_at
        elapsed = (machine_at - row.clock_machine_at) / timedelta(microseconds=1)
        return row.clock_business_at + timedelta(microseconds=round(elapsed * row.clock_speed))

    def at_ms(self, timestamp_ms: int) -> datetime:
        """The business time at a Kafka timestamp, by the clock's present setting.

        Raises InstantError, OverflowError.
        """
        return self.at(of_ms(timestamp_ms))
