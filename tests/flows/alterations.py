"""Alterations of single rows by somebody who owns the tables: made, audited and undone in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from string import Template
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from service.adapters.postgres.audit import AuditStore
from service.billing.auditing.problems import Problem
from service.billing.proofs import BATCH_BITS
from service.flows.audit import audit_in

REFUSED = (
    asyncpg.CheckViolationError,
    asyncpg.NotNullViolationError,
    asyncpg.UniqueViolationError,
    asyncpg.InvalidTextRepresentationError,
    asyncpg.DataError,
)
"""What the database itself does not let happen."""
LONG_AGO = datetime(2026, 11, 1, tzinfo=UTC)


class Row(msgspec.Struct, frozen=True):
    """A row as it is."""

    table: str
    values: Mapping[str, Any]


class Altering:
    """`keys` are the tables with what a row of them is known by; `also`, where else a change of a table shows."""

    def __init__(
        self,
        connection: asyncpg.Connection[asyncpg.Record],
        keys: Mapping[str, Sequence[str]],
        also: Mapping[str, Sequence[str]],
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._also = also

    async def tables(self) -> set[str]:
        """Every table of the schema, partitions apart."""
        rows = await self._connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
            " AND relnamespace = current_schema()::regnamespace"
        )
        return {row["relname"] for row in rows}

    async def columns(self, table: str) -> dict[str, str]:
        """The columns of a table, with their types; not what PostgreSQL computes, as nobody can write that."""
        rows = await self._connection.fetch(
            "SELECT attname, format_type(atttypid, NULL) AS type FROM pg_attribute"
            " WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
            table,
        )
        return {row["attname"]: row["type"] for row in rows}

    async def rows(self, table: str) -> list[Row]:
        """Every row, in the order of its key."""
        text = _named("SELECT * FROM $table ORDER BY $key", table=table, key=", ".join(self._keys[table]))
        columns = await self.columns(table)
        return [Row(table, {name: row[name] for name in columns}) for row in await self._connection.fetch(text)]

    def name(self, row: Row) -> str:
        """What the row is known by."""
        return ", ".join(f"{column} {row.values[column]}" for column in self._keys[row.table])

    async def update(self, row: Row, column: str, others: Sequence[Any]) -> bool | None:
        """Whether an audit names the change to the first of `others` that is not refused; None where all are."""
        for value in others:
            found = await self.updated(row, column, value)
            if found is not None:
                return self.named(row, found, {column: value})
        return None

    async def updated(self, row: Row, column: str, value: Any) -> list[Problem] | None:
        """What an audit says after the change; None where the database refuses it."""
        text = "UPDATE $table SET $column = $$1 WHERE $place"
        text = _named(text, table=row.table, column=column, place=self._at(row, 2))
        return await self._after([(text, (value, *self._key(row)))])

    async def delete(self, row: Row) -> list[Problem]:
        """What an audit says once the row is gone."""
        found = await self._after([self._deleting(row)])
        assert found is not None
        return found

    async def invent(self, row: Row) -> bool:
        """Whether an audit names one more row like this, under a key of its own; True where the database refuses it."""
        *_, last = self._keys[row.table]
        kind = (await self.columns(row.table))[last]
        for value in next(other_values(row.values[last], kind)):
            found = await self._after([self._inserting(row, {last: value})])
            if found is not None:
                return self.named(row, found, {last: value})
        return True

    async def swap(self, one: Row, other: Row) -> list[Problem] | None:
        """What an audit says once two rows have exchanged their keys; None where the database refuses it."""
        keys = self._keys[one.table]
        return await self._after(
            [
                self._deleting(one),
                self._deleting(other),
                self._inserting(one, {column: other.values[column] for column in keys}),
                self._inserting(other, {column: one.values[column] for column in keys}),
            ]
        )

    async def audit(self) -> list[Problem]:
        """What an audit says now."""
        async with self._connection.transaction():
            return await self._audited()

    def named(self, row: Row, found: Sequence[Problem], changes: Mapping[str, Any] | None = None) -> bool:
        """Whether some problem is about the table, or what is held against it, and says which row it is, or was."""
        tables = (row.table, *self._also.get(row.table, ()))
        told = [*row.values.items(), *(changes or {}).items()]
        words = {str(value) for name, value in told if name in _NAMING}
        if row.table == "ride_revision":  # The last one, gone, is missed by the batch that wrote it.
            words.add(f"seq {row.values['batch_no'] % (1 << BATCH_BITS)}:")
        about = [problem for problem in found if problem.table in tables or problem.table.startswith(f"{row.table}.")]
        return any(word in problem.line() for problem in about for word in words)

    async def _after(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[Problem] | None:
        undo = self._connection.transaction()
        await undo.start()
        try:
            await self._connection.execute("SET LOCAL session_replication_role = replica")
            for text, arguments in statements:
                assert (await self._connection.execute(text, *arguments)).endswith(" 1")
            return await self._audited()
        except REFUSED:
            return None
        finally:
            await undo.rollback()

    async def _audited(self) -> list[Problem]:
        found: list[Problem] = []
        await audit_in(AuditStore(self._connection), found.append, lambda done, total: None)
        return found

    def _key(self, row: Row) -> list[Any]:
        return [row.values[column] for column in self._keys[row.table]]

    def _at(self, row: Row, first: int) -> str:
        return " AND ".join(f"{column} = ${number}" for number, column in enumerate(self._keys[row.table], first))

    def _deleting(self, row: Row) -> tuple[str, list[Any]]:
        return _named("DELETE FROM $table WHERE $place", table=row.table, place=self._at(row, 1)), self._key(row)

    def _inserting(self, row: Row, changes: Mapping[str, Any]) -> tuple[str, list[Any]]:
        values = {**row.values, **changes}
        places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
        text = "INSERT INTO $table ($columns) OVERRIDING SYSTEM VALUE VALUES ($places)"
        return _named(text, table=row.table, columns=", ".join(values), places=places), list(values.values())


def other_values(value: Any, kind: str) -> Iterator[Sequence[Any]]:
    """Other values for a column of this type that holds `value`, each with what else to take where it is refused."""
    for others in _OTHERS[kind](value):
        yield [other for other in others if other != value]
    if value is not None:
        yield [None]


Others = Iterator[Sequence[Any]]


def _numbers(value: Any) -> Others:
    yield [1, APART] if value is None else [value + 1, value - 1, value + APART]


def _texts(value: str | None) -> Others:
    yield ["" if value is None else f"{value}x", "settled", "failed", "new", "won", "noticed", "violated"]


def _documents(value: str | None) -> Others:
    known = [] if value is None else msgspec.json.decode(value)
    if isinstance(known, list) and known:
        yield [msgspec.json.encode(known[:-1]).decode()]
    yield ['[{"key": "x", "name": "x", "amount_minor": 1}]']
    yield ['{"kind": "url", "url": "https://pay.invalid/x"}']
    yield ['{"odd": "1"}']


def _arrays(value: Sequence[int] | None) -> Others:
    yield [[*(value or ()), 7]]
    yield [list(value or ())[:-1]]


_OTHERS: dict[str, Callable[[Any], Others]] = {
    **dict.fromkeys(("bigint", "integer", "smallint", "numeric"), _numbers),
    "text": _texts,
    "session_state": lambda _: iter([["review", "closed"]]),
    "boolean": lambda value: iter([[not value]]),
    "timestamp with time zone": lambda value: iter([[LONG_AGO if value is None else value + timedelta(seconds=1)]]),
    "jsonb": _documents,
    "bytea": lambda value: iter([[(value or b"") + bytes(1)]]),
    "uuid": lambda value: iter([[UUID(int=7 if value is None else value.int ^ 1)]]),
    "bigint[]": _arrays,
}
APART = 1_000_003
"""Added to what is to be another number, so that it is nobody else's."""
_NAMING = ("ride_no", "session_id", "balance_window", "writer_no", "seq", "number", "tariff_no")
"""The columns by whose values a row is told from others."""


def _named(text: str, **names: str) -> str:
    return Template(text).substitute(names)
