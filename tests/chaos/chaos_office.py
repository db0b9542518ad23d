"""What an operator does while the service runs, under the same load: an account is added and taken away again, another
is stopped for a while, the tariff gets a version that costs the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any

import msgspec
from chaos_fleet import Site
from chaos_town import TARIFF

from service.adapters.postgres import UNAVAILABLE, Database
from service.adapters.postgres.catalog import CatalogStore
from service.adapters.postgres.operators import KnownOperator, OperatorStore
from service.billing.agreements.asking import ConflictingAskError, UnknownAskError
from service.billing.capabilities import Capabilities
from service.billing.tariffs import import_document
from service.flows.accounts import add_account, list_accounts, remove_account
from service.flows.clock import BusinessClock
from service.flows.stops import resume_account, stop_account
from service.flows.tariffs import publish_tariff
from service.lab.provider.mirror import terms_of
from service.lab.provider.rows import Account

SPARE = "spare"
AHEAD = timedelta(minutes=5)
"""How long after now a version of the tariff begins: the clock may be put back meanwhile."""
WHY: dict[str, Any] = {"reason": "chaos", "by": "chaos"}

Act = Callable[[Database, KnownOperator, datetime], Awaitable[object]]


class Office:
    """An operator who does not give up when PostgreSQL is away."""

    def __init__(self, site: Site, seed: int) -> None:
        self._site = site
        self._random = Random(seed)
        self._valid_from = datetime.min.replace(tzinfo=UTC)

    async def open(self) -> None:
        """The spare account is there at its provider."""
        await self._site.put("/accounts", Account(SPARE, f"key-of-{SPARE}", terms_of(Capabilities())))

    async def work(self, seconds: float) -> None:
        """Everything; what was added and stopped goes after so many seconds."""
        await self._do(self._add)
        stopped = await self._do(self._stop_one)
        await self._do(self._renew)
        await asyncio.sleep(seconds)
        await self._do(self._remove)
        await self._do(partial(self._resume, stopped))

    async def _do(self, act: Act) -> Any:
        """Does it until it was done; what was done already, and its answer lost, is done."""
        while True:
            with suppress(*UNAVAILABLE):
                database = await Database.open(self._site.database_url, name="office", size_max=1)
                try:
                    clock = BusinessClock()
                    async with database.reading(CatalogStore) as store:
                        clock.read(await store.installation())
                    async with database.reading(OperatorStore) as operators:
                        operator = await operators.default()
                    assert operator is not None
                    return await act(database, operator, clock.now())
                finally:
                    await database.close()
            await asyncio.sleep(0.2)

    async def _add(self, database: Database, operator: KnownOperator, now: datetime) -> None:
        settings = {"api_key": f"key-of-{SPARE}", "capabilities": msgspec.to_builtins(Capabilities())}
        with suppress(ConflictingAskError):
            await add_account(
                database,
                operator.operator_no,
                account_id=SPARE,
                provider="sandbox",
                base_url=self._site.places.provider,
                settings=settings,
                now=now,
            )

    async def _remove(self, database: Database, operator: KnownOperator, _now: datetime) -> None:
        with suppress(UnknownAskError):
            await remove_account(database, operator.operator_no, SPARE)

    async def _stop_one(self, database: Database, operator: KnownOperator, now: datetime) -> str:
        names = sorted(owned.account.account_id for owned in await list_accounts(database))
        account_id = self._random.choice([name for name in names if name != SPARE])
        await stop_account(database, operator.operator_no, account_id, now=now, **WHY)
        return account_id

    async def _resume(self, account_id: str, database: Database, operator: KnownOperator, now: datetime) -> None:
        await resume_account(database, operator.operator_no, account_id, now=now, **WHY)

    async def _renew(self, database: Database, operator: KnownOperator, now: datetime) -> None:
        self._valid_from = max(self._valid_from + timedelta(seconds=1), now + AHEAD)
        plan = TARIFF["plan"] | {"description": f"From {self._valid_from}: {TARIFF['plan']['description']}"}
        document = TARIFF | {"valid_from": self._valid_from.isoformat(), "plan": plan}
        (draft,) = import_document(msgspec.json.encode(document))
        await publish_tariff(database, operator, draft, now=now, lead=timedelta(0))
