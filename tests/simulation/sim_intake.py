"""What operators decide about rides by the door, and records as apps put them on the topic."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

import msgspec

from service.adapters.postgres import Database
from service.adapters.postgres.catalog import CatalogStore
from service.adapters.postgres.rides import RideStore
from service.billing.events import Adjustment, Kind, RideEvent
from service.billing.keys import session_key_bytes
from service.flows.clock import BusinessClock
from service.flows.decisions import adjust_ride, decide_rides, taking_in
from service.flows.knowledge import Knowledge


class Place(Protocol):
    """What the door must know of a world."""

    operator_id: str

    def now(self) -> datetime:
        """The world's time."""


class Door:
    """What the door knows, kept over the worlds of a run; the clock is that of the world it is in."""

    def __init__(self) -> None:
        self.world: Place
        self._knowledge = Knowledge(BusinessClock(self._now), 0)

    def _now(self) -> datetime:
        return self.world.now()

    async def decide(self, database: Database, event: RideEvent) -> bool:
        """An operator's own event; False when there is no such ride yet."""
        await self._refresh(database)
        key = session_key_bytes(self.world.operator_id, event.session_id)
        return bool(await decide_rides(database, self._knowledge, taking_in(event), keys=[key], role="operator"))

    async def adjust(self, database: Database, operator_no: int, session_id: str, adjustment: Adjustment) -> None:
        """What support makes a ride owe beside its fare; raises AdjustmentError."""
        await self._refresh(database)
        await adjust_ride(database, self._knowledge, self._knowledge.operators[operator_no], session_id, adjustment)

    async def _refresh(self, database: Database) -> None:
        async with database.reading(RideStore) as store:
            await self._knowledge.refresh(CatalogStore(store.connection))


def record(kind: Kind, event_id: str, time: datetime, session_id: str, **data: Any) -> tuple[bytes, dict[str, str]]:
    """A ride event as an app sends it: the value and the headers."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_source": "urn:app",
        "ce_type": f"io.farebox.session.{kind}.v1",
        "ce_time": time.isoformat(),
        "content-type": "application/json",
    }
    return msgspec.json.encode({"session_id": session_id} | data), headers
