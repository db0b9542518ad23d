"""What every role reads again and again: operators, their sources, tariffs, the installation's row."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import asyncpg
import msgspec

from service.adapters.postgres import Store
from service.billing.catalog import Operator, TariffVersion, UnreadVersion
from service.billing.tariffs import load
from service.billing.tariffs.gbfs import TariffError
from service.telemetry import logger

LOG = logger("catalog")


class Installation(msgspec.Struct, frozen=True):
    """The installation's one row: the default operator and the business clock."""

    default_operator_no: int | None
    clock_mode: str
    clock_machine_at: datetime | None
    clock_business_at: datetime | None
    clock_speed: float


class CatalogStore(Store):
    """Small tables, read whole or since the last time."""

    async def installation(self) -> Installation:
        """The one row that `migrate` made."""
        row = await self.one("installation")
        assert row is not None
        return Installation(**dict(row))

    async def operators(self) -> dict[int, Operator]:
        """Every operator by number."""
        return {
            row["operator_no"]: Operator(
                row["operator_no"],
                row["operator_id"],
                row["time_zone"],
                row["currency"],
                row["mode"] != "shadow",
                row["bill_from"],
                row["ride_hours_max"],
            )
            for row in await self.all("operators")
        }

    async def sources(self) -> Mapping[tuple[str, str], int]:
        """(topic, source) → operator number."""
        return {(row["topic"], row["source"]): row["operator_no"] for row in await self.all("operator_sources")}

    async def tariffs_since(
        self, change_no: int, versions_max: int
    ) -> tuple[int, dict[tuple[int, str], list[TariffVersion | UnreadVersion]]]:
        """The next tariff versions after a change number, by (operator number, tariff id), and the change number of the
        last."""
        found: dict[tuple[int, str], list[TariffVersion | UnreadVersion]] = {}
        for row in await self.all("tariffs_since", change_no, versions_max):
            found.setdefault((row["operator_no"], row["tariff_id"]), []).append(_version(row))
            change_no = row["change_no"]
        return change_no, found


def _version(row: asyncpg.Record) -> TariffVersion | UnreadVersion:
    try:
        tariff = load(row["document"].encode(), row["version"])
    except TariffError as error:
        named = {"tariff": row["tariff_id"], "version": row["version"]}
        LOG.error(
            "a tariff version can't be read, its rides wait: a newer release published it", why=str(error), **named
        )
        return UnreadVersion(row["version"], row["valid_from"])
    return TariffVersion(row["tariff_no"], row["version"], row["valid_from"], tariff)
