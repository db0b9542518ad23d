"""What the world does beside the service under test: setting up, looking on. Nothing goes wrong here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import asyncpg
from mortal_database import Connections

from service.adapters.postgres import Database, Store

StoreT = TypeVar("StoreT", bound=Store)


class CalmDatabase(Database):
    """Transactions without turns, for when nobody else is at work."""

    def __init__(self, connections: Connections) -> None:
        super().__init__(cast("asyncpg.Pool[asyncpg.Record]", None))  # There is no pool: connections outlive it.
        self._connections = connections

    async def close(self) -> None:
        """Nothing is its own."""

    @asynccontextmanager
    async def transaction(self, store: type[StoreT], *, snapshot: bool = False) -> AsyncIterator[StoreT]:
        """See Database."""
        async with self.reading(store) as made, made.connection.transaction():
            yield made

    @asynccontextmanager
    async def reading(self, store: type[StoreT]) -> AsyncIterator[StoreT]:
        """See Database."""
        connection = await self._connections.take()
        try:
            yield store(connection)
        finally:
            self._connections.give_back(connection)

    async def rows(self, statement: str, *arguments: Any) -> list[dict[str, Any]]:
        """Any statement's rows."""
        async with self.reading(Store) as store:
            return [dict(row) for row in await store.connection.fetch(statement, *arguments)]
