"""The audit finds nothing in what the service wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from audit_world import Books, filled_books

from service.flows.audit import Audited, UnknownOperatorError


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
