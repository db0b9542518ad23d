"""The real PostgreSQL, as a process sees it that may die, or be cut off, at each statement and commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from inspect import iscoroutinefunction
from typing import Any, TypeAlias, TypeVar, cast

import asyncpg
from turns import Process, Turns

from service.adapters.postgres import HOT_PLANS, Database, Store, session_settings

StoreT = TypeVar("StoreT", bound=Store)
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Connections:
    """Connections that every process of every world takes and gives back; who uses which makes no difference."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._free: list[Connection] = []
        self._all: list[Connection] = []

    async def take(self) -> Connection:
        """One that nobody uses."""
        while self._free:
            connection = self._free.pop()
            if not connection.is_closed():
                return connection
        settings = session_settings("simulation", self._url) | HOT_PLANS
        connection = await asyncpg.connect(
            self._url,
            server_settings=settings,
            statement_cache_size=1000,
            max_cached_statement_lifetime=0,  # For ever: time flies in a world.
        )
        self._all.append(connection)
        return connection

    def give_back(self, connection: Connection) -> None:
        """For the next one."""
        self._free.append(connection)

    async def close(self) -> None:
        """Closes all of them."""
        for connection in self._all:
            await connection.close()


class MortalConnection:
    """A connection each statement of which waits for its turn; "cut" is a connection lost before the statement."""

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

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._connection, name)
        assert iscoroutinefunction(call), f"{name} is no statement: say here how a world goes through it"

        async def statement(*arguments: Any, **options: Any) -> Any:
            if await self._turns.turn(self._process, f"statement {name}") == "cut":
                raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
            pid = self._connection.get_server_pid()
            return await self._turns.statement(pid, call(*arguments, **options))

        return statement


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
        connection = await self._begun()
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if snapshot else "BEGIN"
        await self._run(connection, begin)
        self._turns.open_transactions += 1
        ends = "ROLLBACK"
        try:
            try:
                yield store(cast("Connection", MortalConnection(connection, self._turns, self._process)))
                verdict = await self._turns.turn(self._process, "commit")
                if verdict == "cut":
                    raise asyncpg.ConnectionDoesNotExistError("connection was closed before the commit")
                ends = "COMMIT"
            finally:
                await self._run(connection, ends)
            if verdict == "lost":
                raise asyncpg.ConnectionDoesNotExistError("connection was closed after the commit")
        finally:
            self._turns.open_transactions -= 1
            self._turns.locks_freed()
            self._connections.give_back(connection)

    @asynccontextmanager
    async def reading(self, store: type[StoreT]) -> AsyncIterator[StoreT]:
        """See Database."""
        connection = await self._begun()
        try:
            yield store(cast("Connection", MortalConnection(connection, self._turns, self._process)))
        finally:
            self._connections.give_back(connection)

    async def _begun(self) -> Connection:
        await self._turns.turn(self._process, "connection")
        self._turns.connections += 1
        return await self._turns.statement(0, self._connections.take())

    async def _run(self, connection: Connection, statement: str) -> None:
        """To its end, even when the task is ended meanwhile: the server rolls back for a process that died."""
        running = self._turns.statement(connection.get_server_pid(), connection.execute(statement))
        task = asyncio.ensure_future(running)
        cancelled = False
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                cancelled = True
        task.result()
        if cancelled:
            raise asyncio.CancelledError
