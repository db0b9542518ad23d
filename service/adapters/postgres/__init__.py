"""PostgreSQL: connections, transactions and the named queries.

`Store` runs named queries on one connection; each flow has a subclass in a module of its own with one method per
named query of `sql/<flow>.sql`. No method decides anything.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import parse_qs, urlsplit

import asyncpg

from service.adapters.postgres.access import dial, pooled

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

StoreT = TypeVar("StoreT", bound="Store")

UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
)
"""What it looks like when the server is away or going away: nobody's fault, wait and try again."""

RACES = (
    asyncpg.UniqueViolationError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
)
"""Somebody else decided first, on newer knowledge: drop what is known, read again, decide anew."""


def is_about_data(error: Exception) -> bool:
    """Whether PostgreSQL refused a value: one record of the batch is the culprit (SQLSTATE 22, 23502, 23514)."""
    state = getattr(error, "sqlstate", None) or ""
    return state.startswith("22") or (state in ("23502", "23514") and not is_partition_missing(error))


def is_partition_missing(error: Exception) -> bool:
    """Whether a month has no partition yet: nobody's fault but `keep`'s, which is to make it; no record is to blame."""
    return isinstance(error, asyncpg.CheckViolationError) and not getattr(error, "constraint_name", None)


_BLOCK = re.compile(r"(?ms)^-- (name|part): (.*?)(?=^-- (?:name|part): |\Z)")


def _load_queries() -> dict[str, str]:
    """Every `-- name: x` block of `sql/*.sql`, by name; a name stands once in the whole folder.

    Where a query says `{y}`, the block `-- part: y` stands, from above in the same file.
    """
    queries: dict[str, str] = {}
    for file in sorted(resources.files(__name__).joinpath("sql").iterdir(), key=lambda item: item.name):
        parts: dict[str, str] = {}
        for what, block in _BLOCK.findall(file.read_text(encoding="utf-8")):
            name, _, text = (piece.strip() for piece in block.partition("\n"))
            assert name not in queries and name not in parts, f"two queries are named {name}"
            text = text.rstrip(";")
            for part, words in parts.items():
                text = text.replace(f"{{{part}}}", words)
            (parts if what == "part" else queries)[name] = text
    return queries


QUERIES = _load_queries()


class Store:
    """Named queries on one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def all(self, query: str, *arguments: Any) -> Sequence[asyncpg.Record]:
        """Every row of a named query."""
        return await self.connection.fetch(QUERIES[query], *arguments)

    async def one(self, query: str, *arguments: Any) -> asyncpg.Record | None:
        """The first row of a named query, or None."""
        return await self.connection.fetchrow(QUERIES[query], *arguments)

    async def value(self, query: str, *arguments: Any) -> Any:
        """The first column of the first row of a named query, or None."""
        return await self.connection.fetchval(QUERIES[query], *arguments)

    @asynccontextmanager
    async def transaction(self, **options: Any) -> AsyncIterator[None]:
        """A transaction on this connection."""
        async with self.connection.transaction(**options):
            with let_go_in_silence(self.connection):
                yield

    async def run(self, query: str, *arguments: Any) -> int:
        """Runs a named query and tells how many rows it touched."""
        status = await self.connection.execute(QUERIES[query], *arguments)
        return int(status.rpartition(" ")[2]) if status[-1:].isdigit() else 0


@contextmanager
def let_go_in_silence(connection: Connection) -> Iterator[None]:
    """A connection that gave no answer in time is let go of at once: it may be half open, and what comes next on it, a
    ROLLBACK or the pool's reset, would wait for as long again."""
    try:
        yield
    except TimeoutError:
        connection.terminate()
        raise


class Database:
    """A pool of connections; each transaction gets a Store bound to one of them.

    Where all are taken, one is waited for; with `within_seconds` no longer than that: then TimeoutError.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], within_seconds: float | None = None) -> None:
        self._pool = pool
        self._within_seconds = within_seconds

    @classmethod
    async def open(cls, url: str, *, name: str, size_max: int = 10, hot: bool = False) -> Self:
        """Connects; raises UNAVAILABLE while the server is away, DatabaseAccessError where it does not let us in.
        `hot` is as for `connect`."""
        settings = session_settings(name, url) | (HOT_PLANS if hot else {})
        return cls(await pooled(url, min_size=1, max_size=size_max, command_timeout=30, server_settings=settings))

    async def close(self) -> None:
        """Closes the connections, after a moment by force."""
        try:
            async with asyncio.timeout(5):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def transaction(self, store: type[StoreT], *, snapshot: bool = False) -> AsyncIterator[StoreT]:
        """A transaction: READ COMMITTED, or one read-only snapshot (REPEATABLE READ) for a status."""
        async with self._pool.acquire(timeout=self._within_seconds) as connection:
            options: dict[str, Any] = {"isolation": "repeatable_read", "readonly": True} if snapshot else {}
            bound = store(connection)
            async with bound.transaction(**options):
                yield bound

    @asynccontextmanager
    async def reading(self, store: type[StoreT]) -> AsyncIterator[StoreT]:
        """A connection without a transaction: each statement is one of its own."""
        async with self._pool.acquire(timeout=self._within_seconds) as connection:
            with let_go_in_silence(connection):
                yield store(connection)


def session_settings(name: str, url: str = "") -> dict[str, str]:
    """What every connection of ours sets: a stopped process can't make its heir wait for ever.

    What the URL says itself (`?lock_timeout=5s`) is left to it.
    """
    settings = {
        "application_name": f"farebox {name}",
        "timezone": "UTC",
        "lock_timeout": "10s",
        "transaction_timeout": "30s",
        "idle_in_transaction_session_timeout": "20s",
        "jit": "off",
    }
    said = parse_qs(urlsplit(url).query)
    return {setting: value for setting, value in settings.items() if setting not in said}


HOT_PLANS = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}
"""Planning over a table's months takes longer than running what was planned."""


async def connect(url: str, *, name: str, hot: bool = False) -> asyncpg.Connection[asyncpg.Record]:
    """A dedicated connection. A hot path's plans are made once and never read a table from end to end."""
    plans = HOT_PLANS if hot else {}
    return await dial(url, command_timeout=30, server_settings=session_settings(name, url) | plans)
