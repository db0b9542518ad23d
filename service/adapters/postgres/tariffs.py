"""Tariffs in PostgreSQL, for those who publish them; every process reads them through the catalog."""

from __future__ import annotations

from datetime import datetime

import asyncpg
import msgspec

from service.adapters.postgres import Store


class KeptVersion(msgspec.Struct, frozen=True):
    """A version of a tariff: its whole document, and that document's digest."""

    version: int
    valid_from: datetime
    document: bytes
    digest: bytes


class TariffStore(Store):
    """Versions of tariffs, appended one publication at a time."""

    async def order_changes(self) -> None:
        """Waits for other publications; from here to the commit there is no other."""
        await self.run("order_tariff_changes")

    async def newest(self, operator_no: int, tariff_id: str) -> tuple[int | None, KeptVersion | None]:
        """The tariff's number and its last version; None for what is not there yet."""
        row = await self.one("newest_tariff_version", operator_no, tariff_id)
        if row is None:
            return None, None
        if row["version"] is None:
            return row["tariff_no"], None
        return row["tariff_no"], _kept(row)

    async def beginning(self, tariff_no: int, valid_from: datetime) -> KeptVersion | None:
        """The version that begins at an instant, the last of several; None where none does."""
        row = await self.one("tariff_version_from", tariff_no, valid_from)
        return None if row is None else _kept(row)

    async def ensure(self, operator_no: int, tariff_id: str) -> None:
        """Makes the tariff of an id, without a version."""
        await self.run("ensure_tariff", operator_no, tariff_id)

    async def append(
        self, tariff_no: int, version: int, valid_from: datetime, document: bytes, digest: bytes, now: datetime
    ) -> None:
        """Appends a version."""
        await self.run("append_tariff_version", tariff_no, version, valid_from, document.decode(), digest, now)


def _kept(row: asyncpg.Record) -> KeptVersion:
    return KeptVersion(row["version"], row["valid_from"], row["document"].encode(), row["digest"])
