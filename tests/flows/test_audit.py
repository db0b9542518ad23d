"""The audit finds nothing in what the service wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from audit_world import Books, filled_books

from service.adapters.postgres.audit import AuditStore
from service.billing.auditing.problems import Problem
from service.flows.audit import Audited, UnknownOperatorError, audit_in


@pytest.fixture(scope="module")
async def books(database_url: str) -> AsyncIterator[Books]:
    async with filled_books(database_url) as books:
        yield books


async def test_what_the_service_wrote_is_in_order(books: Books) -> None:
    audited, problems = await books.audit()
    assert [problem.line() for problem in problems] == []
    ((rides,),) = await books.world.sql("SELECT count(*) FROM session_key")
    ((charges,),) = await books.world.sql("SELECT count(*) FROM ride_revision WHERE charge IS NOT NULL")
    ((transfers,),) = await books.world.sql("SELECT count(*) FROM transfer")
    assert audited == Audited(rides, charges, transfers, 0)
    assert await books.world.sql("SELECT count(*) FROM refund WHERE state = 'succeeded'") != [(0,)]
    assert (await books.audit("default"))[0] == audited


async def test_an_operator_that_is_not_there_is_named(books: Books) -> None:
    with pytest.raises(UnknownOperatorError, match="nobody"):
        await books.audit("nobody")


async def altered(books: Books, statement: str) -> list[str]:
    """What an audit says after a statement that is undone."""
    found: list[Problem] = []
    connection = await asyncpg.connect(books.url)
    try:
        undone = connection.transaction()
        await undone.start()
        await connection.execute(statement)
        await audit_in(AuditStore(connection), found.append, lambda done, total: None)
        await undone.rollback()
    finally:
        await connection.close()
    return [problem.line() for problem in found]


async def test_a_payment_of_a_provider_that_settles_two_debits_is_named(books: Books) -> None:
    said = await altered(
        books,
        "UPDATE debit SET receipts = jsonb_set(receipts, '{0,provider_ref}', '\"ref-c\"')"
        " WHERE session_id IN ('bank', 'won')",
    )
    named = [line for line in said if "payment ref-c at account 1" in line]
    assert len(named) == 1
    assert named[0].count("-1") == 3


HOLD = """
INSERT INTO hold (session_key, slot, operator_no, session_id, agreement_no, account_no, tariff_id, state, cap_minor,
  currency, provider_key, requested_at, opened_at, updated_at)
SELECT session_key, slot, operator_no, session_id, agreement_no, account_no, 'bike', 'open', {cap}, currency, 'K',
  created_at, created_at, created_at FROM debit WHERE session_id = 'bank' AND ordinal = 1
"""


async def test_more_that_is_debited_on_a_hold_than_its_cap_is_named(books: Books) -> None:
    assert await altered(books, HOLD.format(cap=250)) == []
    said = await altered(books, HOLD.format(cap=249))
    assert len(said) == 1
    assert "the hold's cap" in said[0]
