"""Stops in PostgreSQL: what is not to be sent to a provider, who stopped it and why; what is usual for a tariff."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from service.adapters.postgres import Store


class Standing(msgspec.Struct, frozen=True):
    """What of one merchant account is stopped; the tariffs are numbers."""

    paused: bool
    debits: bool
    refunds: bool
    reports: bool
    debit_tariffs: Sequence[int]
    refund_tariffs: Sequence[int]
    report_tariffs: Sequence[int]


GONE = Standing(
    paused=True, debits=True, refunds=True, reports=True, debit_tariffs=(), refund_tariffs=(), report_tariffs=()
)
"""Of an account that is not there any more."""


class StopRow(msgspec.Struct, frozen=True):
    """A stop; `account_id` and `tariff_id` are None where all of them are stopped."""

    stop_no: int
    account_id: str | None
    tariff_id: str | None
    what: str
    reason: str
    stopped_by: str
    stopped_at: datetime
    resumed_by: str | None
    resumed_reason: str | None
    resumed_at: datetime | None


class StopStore(Store):
    """One method per named query of `stops.sql`."""

    async def stopped(self, account_no: int) -> Standing:
        """What of the account is stopped now; all of one that was removed."""
        row = await self.one("standing_stops", account_no)
        return GONE if row is None else Standing(**dict(row))

    async def scope(self, operator_no: int, account_id: str | None, tariff_id: str | None) -> tuple[int | None, ...]:
        """(account number, tariff number); None for what is not there."""
        row = await self.one("find_stop_scope", operator_no, account_id, tariff_id)
        assert row is not None
        return row["account_no"], row["tariff_no"]

    async def add_stop(
        self,
        operator_no: int,
        account_no: int | None,
        tariff_no: int | None,
        what: str,
        reason: str,
        by: str,
        now: datetime,
    ) -> int | None:
        """The number of the new stop; None where the same stands already."""
        number = await self.value("add_stop", operator_no, account_no, tariff_no, what, reason, by, now)
        return None if number is None else int(number)

    async def end_stop(self, operator_no: int, stop_no: int, by: str, reason: str, now: datetime) -> bool:
        """False where no such stop stands."""
        return bool(await self.run("end_stop", operator_no, stop_no, by, reason, now))

    async def list_stops(self, operator_no: int, *, ended: bool, limit: int) -> list[StopRow]:
        """An operator's stops, the newest first."""
        return [StopRow(**dict(row)) for row in await self.all("list_stops", operator_no, ended, limit)]

    async def usual(self, tariff_nos: Sequence[int], hour_at: datetime, since: datetime) -> dict[int, tuple[int, int]]:
        """Tariff → (debits, their sum in minor units) of the hours in [since, hour_at)."""
        rows = await self.all("usual_debits", list(tariff_nos), hour_at, since)
        return {row["tariff_no"]: (row["debits"], row["amount_minor"]) for row in rows}

    async def count_debits(self, hour_at: datetime, counts: Sequence[tuple[int, int, int, int]]) -> dict[int, int]:
        """Adds (tariff, debits, sum, unusually high ones) to an hour; returns the high ones of each tariff's hour."""
        rows = await self.all("count_debits", hour_at, *map(list, zip(*counts, strict=True)))
        return {row["tariff_no"]: row["high"] for row in rows}
