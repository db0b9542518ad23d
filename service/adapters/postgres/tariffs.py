"""Tariffs in PostgreSQL, for those who publish them; every process reads them through the catalog."""

from __future__ import annotations

from datetime import datetime

import msgspec

from service.adapters.postgres import Store


class NewestVersion(msgspec.Struct, frozen=True):
    """The last version of a tariff: its whole document, and that document's digest."""

    version: int
    valid_from: datetime
    document: bytes
    digest: bytes


class TariffStore(Store):
    """Versions of tariffs, appended one publication at a time."""

    async def order_changes(self) -> None:
        """Waits for other publications; from here to the commit there is no other."""
        await self.run("order_tariff_changes")

    async def newest(self, operator_no: int, tariff_id: str) -> tuple[int | None, NewestVersion | None]:
        """The tariff's number and its last version; None for what is not there yet."""
        row = await self.one("newest_tariff_version", operator_no, tariff_id)
        if row is None:
            return None, None
        if row["version"] is None:
            return row["tariff_no"], None
        return row["tariff_no"], NewestVersion(
            row["version"], row["valid_from"], row["document"].encode(), row["digest"]
        )

    async def ensure(self, operator_no: int, tariff_id: str) -> None:
        """Makes the tariff of an id, without a version."""
        await self.run("ensure_tariff", operator_no, tariff_id)

    async def append(
        self, tariff_no: int, version: int, valid_from: datetime, document: bytes, digest: bytes, now: datetime
    ) -> None:
        """Appends a version."""
        await self.run("append_tariff_version", tariff_no, version, valid_from, document.decode(), digest, now)
