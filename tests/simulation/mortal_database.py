"""The real PostgreSQL, as a process sees it that may die, or be cut off, at each statement and commit."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from inspect import iscoroutinefunction
from typing import Any, TypeAlias, TypeVar, cast

import asyncpg
from turns import Process, Turns

from service.adapters.postgres import HOT_PLANS, Database, Store, session_settings

StoreT = TypeVar("StoreT", bound=Store)
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
NEVER_IDLE = {"idle_in_transaction_session_timeout": "0", "transaction_timeout": "0"}
"""The machine's time is not a world's; `HotConnection.expire` is what a server does."""
DEADLOCK = "DO $$ BEGIN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = 'deadlock_detected'; END $$"
WRITES = re.compile(r"\bINSERT INTO\b|\bDELETE FROM\b|(?<!FOR )(?<!KEY )\bUPDATE\b")


class Connections:
    """Connections that every process of every world takes and gives back; who uses which makes no difference."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._free: list[Connection] = []
        self._begun: list[Connection] = []
        self._all: list[Connection] = []
        self.kept: list[HotConnection] = []
        """Those that a life keeps for itself."""

    async def take(self) -> Connection:
        """One that nobody uses."""
        while self._free:
            connection = self._free.pop()
            if not connection.is_closed():
                return connection
        connection = await asyncpg.connect(
            self._url,
            server_settings=session_settings("simulation", self._url) | HOT_PLANS | NEVER_IDLE,
            statement_cache_size=1000,
            max_cached_statement_lifetime=0,  # For ever: time flies in a world.
        )
        self._all.append(connection)
        return connection

    async def begin(self, how: str = "BEGIN") -> Connection:
        """One that nobody uses, in a transaction without a statement yet; mostly it has been since its last one."""
        if self._begun and how == "BEGIN":
            return self._begun.pop()
        connection = await self.take()
        await connection.execute(how)
        return connection

    async def keep(self, turns: Turns, process: Process) -> HotConnection:
        """One for a life of a process alone."""
        await turns.turn(process, "connection")
        kept = HotConnection(self, await turns.statement(0, self.take()), turns, process)
        self.kept.append(kept)
        return kept

    def give_back(self, connection: Connection) -> None:
        """For the next one."""
        (self._begun if connection.is_in_transaction() else self._free).append(connection)

    async def close(self) -> None:
        """Closes all of them."""
        for connection in self._all:
            await connection.close()


class MortalConnection:
    """A connection each statement of which waits for its turn; "cut" is a connection lost before the statement, "race"
    a deadlock that PostgreSQL finds at it: what was written before it in the transaction is gone."""

    def __init__(self, connection: Connection, turns: Turns, process: Process) -> None:
        self._connection = connection
        self._turns = turns
        self._process = process
        self._savepoints = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """A savepoint, as asyncpg makes one of a transaction within a transaction; of one outside it is not used."""
        self._savepoints += 1
        name = f"s{self._savepoints}"

        async def end(_: object, error: BaseException | None, __: object) -> None:
            if error is None or isinstance(error, Exception):  # A process that dies says nothing more.
                await self.execute(f"{'ROLLBACK TO' if error else 'RELEASE'} {name}")

        await self.execute(f"SAVEPOINT {name}")
        async with AsyncExitStack() as ending:
            ending.push_async_exit(end)
            yield

    def _check(self) -> None:
        """Raises where the connection can't be used any more."""

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._connection, name)
        assert _is_statement(name), f"{name} is no statement: say here how a world goes through it"

        async def statement(*arguments: Any, **options: Any) -> Any:
            writes = name == "copy_records_to_table" or _writes(arguments[0])
            verdict = await self._turns.turn(self._process, f"{'write' if writes else 'statement'} {name}")
            if verdict == "cut":
                raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
            self._check()
            pid = self._connection.get_server_pid()
            try:
                if verdict == "race":
                    await self._turns.statement(pid, self._connection.execute(DEADLOCK))
                return await self._turns.statement(pid, call(*arguments, **options))
            finally:
                self._turns.changes += writes

        return statement


@cache
def _is_statement(name: str) -> bool:
    return iscoroutinefunction(getattr(asyncpg.Connection, name))


@cache
def _writes(statement: str) -> bool:
    """Whether a statement may change what is due for somebody."""
    return WRITES.search(statement) is not None


class MortalDatabase(Database):
    """Transactions of one life of a process. A death rolls back; a commit's acknowledgement may be lost."""

    def __init__(self, connections: Connections, turns: Turns, process: Process) -> None:
        super().__init__(cast("asyncpg.Pool[asyncpg.Record]", None))  # There is no pool: connections outlive it.
        self._connections = connections
        self._turns = turns
        self._process = process

    async def close(self) -> None:
        """Nothing is its own."""

    @asynccontextmanager
    async def transaction(self, store: type[StoreT], *, snapshot: bool = False) -> AsyncIterator[StoreT]:
        """See Database."""
        await self._turns.turn(self._process, "connection")
        how = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if snapshot else "BEGIN"
        connection = await self._turns.statement(0, self._connections.begin(how))
        try:
            async with _transaction(connection, self._turns, self._process, "" if snapshot else " AND CHAIN"):
                yield store(cast("Connection", MortalConnection(connection, self._turns, self._process)))
        finally:
            self._connections.give_back(connection)

    @asynccontextmanager
    async def reading(self, store: type[StoreT]) -> AsyncIterator[StoreT]:
        """See Database."""
        await self._turns.turn(self._process, "connection")
        connection = await self._turns.statement(0, self._connections.take())
        try:
            yield store(cast("Connection", MortalConnection(connection, self._turns, self._process)))
        finally:
            self._connections.give_back(connection)


class HotConnection(MortalConnection):
    """A connection that one life of a process keeps for itself, as `service.adapters.postgres.connect` gives it."""

    def __init__(self, connections: Connections, connection: Connection, turns: Turns, process: Process) -> None:
        super().__init__(connection, turns, process)
        self._connections = connections
        self._inside = False
        self._lost = False
        self._over = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """The outer one is a transaction, one within it a savepoint."""
        if self._inside:
            async with super().transaction():
                yield
            return
        await self._turns.turn(self._process, "begin")
        self._check()
        self._inside = True
        try:
            await _to_its_end(self._turns, self._connection, "BEGIN")
            async with _transaction(self._connection, self._turns, self._process, lost=lambda: self._lost):
                yield
        finally:
            self._inside = False
            self._let_go()

    def terminate(self) -> None:
        """The process has no use for it any more, or is dead."""
        self._over = True
        if not self._inside:
            self._let_go()

    async def expire(self) -> None:
        """The server ends a transaction that has been idle for too long, and the connection with it."""
        if self._inside and not self._lost:
            self._lost = True
            await _to_its_end(self._turns, self._connection, "ROLLBACK")

    def _check(self) -> None:
        """What the server has ended takes no statement more; it may have done so while this one waited for its turn."""
        if self._over:
            raise asyncpg.InterfaceError("connection is closed")
        if self._lost:
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    def _let_go(self) -> None:
        if self._over and self in self._connections.kept:
            self._connections.kept.remove(self)
            self._connections.give_back(self._connection)


@asynccontextmanager
async def _transaction(
    connection: Connection, turns: Turns, process: Process, then: str = "", lost: Callable[[], bool] = lambda: False
) -> AsyncIterator[None]:
    """One that has begun, to its end; `then` follows the statement that ends it, `lost` tells that the server did."""
    turns.open_transactions += 1
    before = turns.changes
    ends = "ROLLBACK"
    try:
        try:
            yield
            verdict = await turns.turn(process, "commit")
            if verdict == "cut" or lost():
                raise asyncpg.ConnectionDoesNotExistError("connection was closed before the commit")
            ends = "COMMIT"
        finally:
            if not lost():
                await _to_its_end(turns, connection, ends + then)
        if verdict == "lost":
            raise asyncpg.ConnectionDoesNotExistError("connection was closed after the commit")
    finally:
        turns.open_transactions -= 1
        turns.changes += turns.changes != before  # Somebody's statements count again once they may be seen.
        turns.locks_freed()


async def _to_its_end(turns: Turns, connection: Connection, statement: str) -> None:
    """Even when the task is ended meanwhile: the server rolls back for a process that died."""
    task = asyncio.ensure_future(turns.statement(connection.get_server_pid(), connection.execute(statement)))
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError
