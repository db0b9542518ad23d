"""Operators and their sources in PostgreSQL, for those who set them up."""

from __future__ import annotations

from datetime import datetime

import asyncpg
import msgspec

from service.adapters.postgres import Store


class NewOperator(msgspec.Struct, frozen=True, kw_only=True):
    """Who an operator is, as it is added and changed; `ride_hours_max` is in hours."""

    operator_id: str
    name: str
    time_zone: str
    currency: str
    contact: str = ""
    ride_hours_max: int = 720


class KnownOperator(msgspec.Struct, frozen=True):
    """An operator as the set-up needs it."""

    operator_no: int
    operator_id: str
    time_zone: str
    currency: str


class Switches(msgspec.Struct, frozen=True, kw_only=True):
    """What of an operator can be switched. `calendar` and `hold_policy` are JSON: what differs from the defaults;
    `exposure_max_minor` None: no limit, `bill_from` None: every ride is billed."""

    operator_no: int
    operator_id: str
    currency: str
    time_zone: str
    mode: str
    bill_from: datetime | None
    exposure_max_minor: int | None
    calendar: str
    hold_policy: str


class ListedOperator(msgspec.Struct, frozen=True, kw_only=True):
    """An operator for people; `sources` are "topic source"."""

    operator_id: str
    name: str
    time_zone: str
    currency: str
    mode: str
    ride_hours_max: int
    contact: str
    is_default: bool
    sources: list[str]


class OperatorStore(Store):
    """Operators and the map of their sources, which only grows."""

    async def add(self, operator: NewOperator, now: datetime) -> bool:
        """Adds an operator; False when its id is taken."""
        fields = (operator.operator_id, operator.name, operator.time_zone, operator.currency)
        return await self.value("add_operator", *fields, operator.contact, operator.ride_hours_max, now) is not None

    async def whole(self, operator_id: str) -> tuple[NewOperator, bool] | None:
        """Who an operator is, locked until commit, and whether he has tariffs or agreements."""
        row = await self.one("operator_whole", operator_id)
        if row is None:
            return None
        fields = {name: value for name, value in row.items() if name != "in_use"}
        return NewOperator(**fields), row["in_use"]

    async def change(self, operator: NewOperator) -> None:
        """Writes who an operator is, but for his id."""
        fields = (operator.operator_id, operator.name, operator.time_zone, operator.currency)
        await self.run("change_operator", *fields, operator.contact, operator.ride_hours_max)

    async def find(self, operator_id: str) -> KnownOperator | None:
        """The operator of this id."""
        return _known(await self.one("operator_by_id", operator_id))

    async def default(self) -> KnownOperator | None:
        """The operator that takes the events of unmapped sources."""
        return _known(await self.one("default_operator"))

    async def set_default(self, operator_no: int | None) -> None:
        """Says who takes the events of unmapped sources; None: nobody."""
        await self.run("set_default_operator", operator_no)

    async def switches(self, operator_id: str) -> Switches | None:
        """An operator's switches, locked until commit."""
        row = await self.one("operator_switches", operator_id)
        return None if row is None else Switches(**dict(row))

    async def switch(self, new: Switches) -> None:
        """Writes them; who the operator is never changes."""
        told = (new.mode, new.bill_from, new.exposure_max_minor, new.calendar, new.hold_policy)
        await self.run("switch_operator", new.operator_no, *told)

    async def map_source(self, topic: str, source: str, operator_no: int, now: datetime) -> bool:
        """Maps a source for ever; False when it had an operator before, whoever that is. Nothing is held meanwhile."""
        await self.run("lock_quarantine")
        return await self.run("map_source", topic, source, operator_no, now) == 1

    async def give_quarantined(self, topic: str, source: str, operator_no: int) -> None:
        """What is held of a source, of which nothing was taken, is an operator's from now on."""
        await self.run("give_quarantined", topic, source, operator_no)

    async def source_owner(self, topic: str, source: str) -> tuple[str, bool]:
        """The id of the operator whose a source is, and whether he took it since nobody had mapped it; the caller knows
        that it is somebody's."""
        row = await self.one("source_owner", topic, source)
        assert row is not None
        return row["operator_id"], row["by_default"]

    async def list(self) -> list[ListedOperator]:
        """Every operator, oldest first."""
        return [ListedOperator(**dict(row)) for row in await self.all("list_operators")]


def _known(row: asyncpg.Record | None) -> KnownOperator | None:
    return None if row is None else KnownOperator(**dict(row))
