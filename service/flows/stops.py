"""Stopping debits, refunds or reports of an operator, a merchant account or a tariff, and letting them go on.

Rides go on being charged, and what is under way at a provider is still asked about: only what was not sent yet waits.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, get_args

from service.adapters.postgres import Database
from service.adapters.postgres.stops import StopRow, StopStore

What = Literal["debits", "refunds", "reports"]
STOPS_MAX = 200


class UnknownStopError(Exception):
    """There is no such account, tariff or standing stop; the message says which."""


async def list_stops(database: Database, operator_no: int, *, ended: bool = False) -> list[StopRow]:
    """An operator's stops, the newest first: those that stand, and with `ended` those of before."""
    async with database.reading(StopStore) as store:
        return await store.list_stops(operator_no, ended=ended, limit=STOPS_MAX)


async def stop(
    database: Database,
    operator_no: int,
    what: What,
    *,
    reason: str,
    by: str,
    now: datetime,
    account_id: str | None = None,
    tariff_id: str | None = None,
) -> bool:
    """Stops what is not sent yet, of everything or of an account or a tariff; False where that stands already.

    Raises UnknownStopError for an account or tariff that is not there.
    """
    async with database.transaction(StopStore) as store:
        account_no, tariff_no = await store.scope(operator_no, account_id, tariff_id)
        for name, number, kind in ((account_id, account_no, "merchant account"), (tariff_id, tariff_no, "tariff")):
            if name is not None and number is None:
                raise UnknownStopError(f"there is no {kind} {name}")
        return await store.add_stop(operator_no, account_no, tariff_no, what, reason, by, now) is not None


async def stop_account(
    database: Database, operator_no: int, account_id: str, *, reason: str, by: str, now: datetime
) -> None:
    """Stops debits, refunds and reports of an account. Raises UnknownStopError where it is not there."""
    for what in get_args(What):
        await stop(database, operator_no, what, reason=reason, by=by, now=now, account_id=account_id)


async def resume_account(
    database: Database, operator_no: int, account_id: str, *, reason: str, by: str, now: datetime
) -> int:
    """Ends whatever stands on an account for all its tariffs; returns how many stops that were. Raises UnknownStopError
    where the account is not there."""
    async with database.transaction(StopStore) as store:
        if (await store.scope(operator_no, account_id, None))[0] is None:
            raise UnknownStopError(f"there is no merchant account {account_id}")
        standing = await store.list_stops(operator_no, ended=False, limit=STOPS_MAX)
        own = [row.stop_no for row in standing if row.account_id == account_id and row.tariff_id is None]
        for stop_no in own:
            await store.end_stop(operator_no, stop_no, by, reason, now)
        return len(own)


async def resume(database: Database, operator_no: int, stop_no: int, *, reason: str, by: str, now: datetime) -> None:
    """Ends a stop: what waited is sent. Raises UnknownStopError where it does not stand."""
    async with database.transaction(StopStore) as store:
        if not await store.end_stop(operator_no, stop_no, by, reason, now):
            raise UnknownStopError(f"no stop {stop_no} stands")
