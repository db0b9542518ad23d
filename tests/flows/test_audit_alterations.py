"""Whatever is done to a single row of money, behind the service's back, is found by the audit and named.

Tables and columns come from the catalog: one that is new must be held against something, or be listed here with the
reason why no money hangs on it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import asyncpg
import pytest
from alterations import Altering, Row, other_values
from audit_world import filled_books

KEYS: dict[str, tuple[str, ...]] = {
    "session_key": ("session_key",),
    "ride_revision": ("ride_no", "revision"),
    "obligation": ("ride_no", "revision"),
    "cap_use": ("ride_no", "revision", "balance_window"),
    "balance": ("operator_no", "rider_no", "balance_window"),
    "debit": ("ride_no", "ordinal"),
    "debit_transition": ("ride_no", "ordinal", "transition"),
    "refund": ("ride_no", "ordinal", "refund_ordinal"),
    "transfer": ("ride_no", "fact", "ordinal", "line"),
    "batch": ("writer_no", "seq"),
    "batch_facts": ("writer_no", "seq"),
    "writer": ("writer_no",),
    "tariff_version": ("tariff_no", "version"),
}
"""The tables of money, by what a row of them is known by."""
OTHERS = {
    "alembic_version": "which schema this is",
    "agreement": "terms as the provider has them: he refuses what he does not know, and is asked again",
    "batch_reader": "how far readers are: what was read has debits, which is checked; what was not is read again",
    "debit_number": "by what numbers a provider may name a debit: found by those, it is asked about",
    "dispute_question": "questions to the provider, asked until they are answered",
    "dispute_unheard": "questions to the provider, asked until they are answered",
    "hold": "what the provider holds: his books are the truth, and debits on it are checked by themselves",
    "hold_unopened": "questions to the provider, asked until they are answered",
    "idempotency": "answers to writes, for a day",
    "installation": "the clock, the default operator and which cluster this is",
    "merchant_account": "settings of an operator, changed by command",
    "notification": "that something was told; what it says is never believed",
    "operator": "settings of an operator, changed by command",
    "operator_source": "settings of an operator, changed by command",
    "quarantine": "records that were not taken: they are on their topic as well",
    "refund_unordered": "what a provider has told: a person books it, and that stands in the ledger",
    "rider": "who is meant by a number; the books know the number alone",
    "set_aside": "what is tried again, and when",
    "stop": "what waits, and why",
    "stream_offset": "how far the topic is read: the intake compares the record before it at its start; the end of its"
    " chain of batches is checked as a writer's",
    "stream_restart": "who let a partition be read from elsewhere, and why",
    "sweep": "how far keep has passed: what is behind is found again",
    "tariff": "the name of a tariff: its documents name it too, which is checked",
    "tariff_hour": "how many debits an hour had: stops by itself go by it",
    "token": "who may come in",
    "watch": "what is looked at again, and when",
}
"""Tables on which no money hangs, or whose truth is elsewhere, and why."""
UNSEEN = {
    "debit": {
        "queries": "how often the provider was asked",
        "not_found_at": "when the provider first knew nothing: it is asked again",
        "resent": "how often it was sent again, always under the same key",
        "unanswered_since": "since when the provider says nothing of it: it is asked all the same",
        "due_at": "when the provider is called next; what is never called stays unpaid, which is shown by age",
        "policy_at": "when the calendar looks next",
        "lease_until": "who has it now",
        "net_again": "that obligations wait: what a debit stands for is held against them once it rests",
        "record_asks": "how often a report was tried",
        "verify": "set for all debits after a restore, and no key is changed by it",
        "updated_at": "when it was last written",
    },
    "refund": {
        "attempts": "how often it was sent, always under one key",
        "code": "why it waits or failed, in the provider's words",
        "queries": "how often the provider was asked",
        "not_found_at": "when the provider first knew nothing: it is asked again",
        "resent": "how often it was sent again, always under the same key",
        "unanswered_since": "since when the provider says nothing of it: it is asked all the same",
        "denied": "whether it is asked about once more: what it moved stands in the ledger",
        "due_at": "when the provider is called next",
        "lease_until": "who has it now",
        "updated_at": "when it was last written",
    },
    "writer": {"name": "a label: another one begins a chain of its own"},
    "tariff_version": {
        "change_no": "in what order processes learn of versions",
        "created_at": "when it was published: when it holds is in the document",
    },
}
"""Columns of those tables on which no money hangs, and why."""
ALSO = {
    "ride_revision": ("batch", "obligation", "session_key"),
    "session_key": ("ride_revision",),
    "transfer": ("debit",),
    "debit_transition": ("debit", "transfer"),
    "balance": ("cap_use",),
    "writer": ("writer or stream_offset", "batch"),
    "refund": ("debit", "transfer"),
    "debit": ("transfer", "debit_transition", "refund"),
    "tariff_version": ("ride_revision",),
}
"""Where else a change of a table shows: in what is held against it."""
QUICK = {"plan_cache_mode": "force_generic_plan", "jit": "off"}
DERIVED = [
    ("ride_revision", "charge", '"total_minor":250', '"total_minor":249'),
    ("ride_revision", "charge", '"amount_minor":700', '"amount_minor":701'),
    ("ride_revision", "charge", '"taken_back":true', '"taken_back":false'),
    ("ride_revision", "events", '"amount_minor":700', '"amount_minor":701'),
    ("ride_revision", "events", ":20:00", ":41:00"),
    ("obligation", "amount_minor", "250", "249"),
    ("transfer", "amount_minor", "250", "249"),
    ("transfer", "debit_account", "12000000000000001", "6000000000000001"),
    ("debit", "state", "settled", "cancelled"),
    ("refund", "provider_key", "", "X"),
]
"""What the rules say again: (table, column, what stands there, what is put in its place)."""
ROWS_MAX = 4
"""So many rows of a table, far apart, are deleted, invented or swapped."""


@pytest.fixture(scope="module")
async def altering(database_url: str) -> AsyncIterator[Altering]:
    async with filled_books(database_url) as books:
        assert (await books.audit())[1] == []
        connection = await asyncpg.connect(database_url, statement_cache_size=1000, server_settings=QUICK)
        yield Altering(connection, KEYS, ALSO)
        await connection.close()


async def test_every_table_is_audited_or_says_why_not(altering: Altering) -> None:
    tables = await altering.tables()
    assert tables == KEYS.keys() | OTHERS.keys()
    assert not KEYS.keys() & OTHERS.keys()
    for table, reasons in UNSEEN.items():
        assert reasons.keys() <= set(await altering.columns(table))


@pytest.mark.parametrize("table", KEYS)
async def test_each_column_of_a_row_altered_is_found_and_named(altering: Altering, table: str) -> None:
    columns = await altering.columns(table)
    rows, seen = await altering.rows(table), columns.keys() - UNSEEN.get(table, {}).keys()
    missed, altered = [], set()
    for column in sorted(seen):
        for row in _with_and_without(rows, column):
            for others in other_values(row.values[column], columns[column]):
                found = await altering.update(row, column, others)
                altered |= {column} if found is not None else set()
                if found is False:
                    missed.append(f"{column}: {row.values[column]!r} to one of {others} of {altering.name(row)}")
            if column in altered and row.values[column] is not None:
                break
    assert not missed, "\n" + "\n".join(missed)
    assert altered == seen


@pytest.mark.parametrize("table", KEYS)
async def test_a_deleted_row_is_found_and_named(altering: Altering, table: str) -> None:
    rows = _far_apart(await altering.rows(table))
    assert [altering.name(row) for row in rows if not altering.named(row, await altering.delete(row))] == []


@pytest.mark.parametrize("table", KEYS)
async def test_an_invented_row_is_found_and_named(altering: Altering, table: str) -> None:
    rows = _far_apart(await altering.rows(table))
    assert [altering.name(row) for row in rows if not await altering.invent(row)] == []


@pytest.mark.parametrize("table", KEYS)
async def test_two_rows_that_are_swapped_are_found_and_named(altering: Altering, table: str) -> None:
    rows = _far_apart(await altering.rows(table))
    missed = []
    for one, other in pairwise(rows):
        found = await altering.swap(one, other)
        if found is not None and not altering.named(one, found):
            missed.append(f"{altering.name(one)} and {altering.name(other)}")
    assert not missed


@pytest.mark.parametrize(("table", "column", "old", "new"), DERIVED)
async def test_what_can_be_derived_again_is_named_by_more_than_a_digest(
    altering: Altering, table: str, column: str, old: str, new: str
) -> None:
    row = next(row for row in await altering.rows(table) if old in str(row.values[column]))
    value = str(row.values[column]).replace(old, new)
    found = await altering.updated(row, column, int(value) if value.isdigit() else value)
    assert found is not None
    told = [problem for problem in found if "digest" not in problem.column]
    assert altering.named(row, [problem for problem in told if problem.table.startswith(table)])


async def test_in_the_end_nothing_is_altered(altering: Altering) -> None:
    assert await altering.audit() == []


def _far_apart(rows: Sequence[Row]) -> list[Row]:
    """At most ROWS_MAX of the rows, from the first to the last."""
    step = max(len(rows) / ROWS_MAX, 1)
    return [rows[int(number * step)] for number in range(min(len(rows), ROWS_MAX))]


def _with_and_without(rows: Sequence[Row], column: str) -> list[Row]:
    """A row that has nothing in a column, and then those that have something; another one first for each column."""
    turn = len(column) % len(rows)
    turned = [*rows[turn:], *rows[:turn]]
    nothing = [row for row in turned if row.values[column] is None]
    return [*nothing[:1], *(row for row in turned if row.values[column] is not None)]
