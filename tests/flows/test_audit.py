"""The audit finds nothing in what the service wrote, and whatever somebody changed behind its back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from string import Template
from typing import Any, cast

import pytest
from fakes import FakeProvider
from ride_builders import adjustment, at, event, tariff, whole
from ride_world import RideWorld

from service.adapters.postgres import Database
from service.adapters.providers.port import Provider
from service.billing.auditing.problems import Problem
from service.billing.events import Position
from service.billing.keys import session_key_bytes
from service.flows.audit import Audited, UnknownOperatorError, audit
from service.flows.collection import Collection
from service.flows.decisions import adjust_ride, decide_rides, taking_in

NOWHERE = Position("", 0, 0)


class Books:
    """A database with rides of every kind, debited; `problems` is what an audit of it says."""

    def __init__(self, url: str, world: RideWorld) -> None:
        self.url = url
        self.world = world

    async def audit(self, operator_id: str | None = None) -> tuple[Audited, list[Problem]]:
        problems: list[Problem] = []
        return await audit(self.url, problems.append, lambda done, total: None, operator_id), problems

    @asynccontextmanager
    async def changed(self, table: str) -> AsyncIterator[None]:
        """What is done to a table inside is undone afterwards."""
        await self.world.sql(named("CREATE TABLE kept AS TABLE $table", table=table))
        try:
            yield
        finally:
            await self.world.tamper(named("DELETE FROM $table", table=table))
            await self.world.tamper(named("INSERT INTO $table SELECT * FROM kept", table=table))
            await self.world.sql("DROP TABLE kept")

    async def row(self, table: str, place: str) -> dict[str, Any]:
        """One row, before anything is done to it."""
        rows = await self.world.sql(
            named("SELECT to_jsonb(t)::text FROM $table t WHERE $place", table=table, place=place)
        )
        found: dict[str, Any] = json.loads(rows[0][0])
        return found


def named(statement: str, **names: str) -> str:
    """A statement with names of this file in it."""
    return Template(statement).substitute(names)


def one_row(table: str, where: str = "true") -> str:
    """A condition that holds for a single row, whichever partition it is in."""
    chosen = "(SELECT $what FROM $table WHERE $where ORDER BY tableoid, ctid LIMIT 1)"
    ctid, home = (named(chosen, what=what, table=table, where=where) for what in ("ctid", "tableoid"))
    return f"ctid = {ctid} AND tableoid = {home}"


@pytest.fixture(scope="module")
async def books(database_url: str) -> AsyncIterator[Books]:
    database = await Database.open(database_url, name="test", size_max=6)
    world = RideWorld(database)
    await world.open(100)
    await fill(world)
    yield Books(database_url, world)
    await database.close()


ADJUSTED = {
    "taxed": [adjustment("extra", 700, "a-1", tax_rate=Decimal("0.19")), adjustment("goodwill", 100, "a-2")],
    "cap-2": [adjustment("refund", 150)],
    "broken": [adjustment("extra", 90, "a-1", regardless=True), adjustment("goodwill", 300, "a-2")],
}


async def fill(world: RideWorld) -> None:
    """Rides of every kind, and debits in several states."""
    await world.publish(tariff({"day_cap": "4.00"}, name="capped"))
    await world.publish(
        tariff({"tax": {"rate": "0.10", "included": True}, "parking_fees": {"invalid": "2.00"}}, name="taxed")
    )
    await world.agree("agr-2")
    await world.take(*whole("plain"), *whole("taxed", tariff_id="taxed"), event("started", 90, session="open"))
    await world.take(event("ended", 50, session="reversed"))
    await world.take(event("started", 0, session="reversed"), event("started", 1, "b", session="reversed"))
    for name in ("cap-1", "cap-2", "cap-3"):
        await world.take(*whole(name, tariff_id="capped"))
    await world.take(*whole("parked", tariff_id="none"), event("ended", 3, session="half"))
    await world.take(event("started", 0, session="odd"), event("ended", -5, session="odd"))
    await world.take(event("started", 0, session="staff", billable=False, purpose="staff"))
    await world.take(event("reservation_started", 0, session="reserved"))
    await world.take(*whole("corrected", agreement_id="agr-2"), *whole("voided"), *whole("broken"))
    await world.take(event("started", 0, session="lost"))
    collection = Collection(
        world.database,
        {1: cast(Provider, FakeProvider(1))},
        world.knowledge.clock.now,
        world.knowledge.clock.now,
    )
    await collection.plan_round()
    await collection.submit_round(1)
    await world.take(*whole("late"), event("paused", 5, session="plain"))
    await world.rounds(1500)
    for name, end in {"corrected": 50, "cap-1": 5}.items():
        correction = event("corrected", 1501, session=name, position=NOWHERE, corrected_end=at(end))
        await decide_rides(world.database, world.knowledge, taking_in(correction), keys=[key_of(name)], role="serve")
    void = event("voided", 1502, session="voided", position=NOWHERE)
    await decide_rides(world.database, world.knowledge, taking_in(void), keys=[key_of("voided")], role="serve")
    await world.take(event("ended", 30, session="lost"))
    for session, given in ADJUSTED.items():
        for one in given:
            await adjust_ride(world.database, world.knowledge, world.knowledge.operators[1], session, one)
    broken = event("voided", 1503, session="broken", position=NOWHERE)
    await decide_rides(world.database, world.knowledge, taking_in(broken), keys=[key_of("broken")], role="serve")
    while await collection.plan_round():
        pass
    await collection.submit_round(1)
    await world.take(*whole("unpaid"))
    await collection.plan_round()


def key_of(session: str) -> bytes:
    return session_key_bytes("default", session)


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


CHARGED = "charge IS NOT NULL AND revision = 1 AND ride_no = (SELECT min(ride_no) FROM obligation)"
NAMED = "agreement_no IS NOT NULL AND charge IS NOT NULL"
ADJUSTING = """charge LIKE '%"amount_minor":700%' AND events LIKE '%"amount_minor":700%'"""
TAKEN_BACK = """charge LIKE '%"taken_back":true%'"""
FIRST = "ride_no = (SELECT min(ride_no) FROM obligation)"
COLUMNS: dict[str, dict[str, tuple[str, str]]] = {
    "ride_revision": {
        "ride_no": ("ride_no + 4194304", CHARGED),
        "revision": ("revision + 7", CHARGED),
        "slot": ("(slot + 1) % 1024", CHARGED),
        "operator_no": ("2", CHARGED),
        "state": ("'review'", CHARGED),
        "agreement_no": ("agreement_no + 1", NAMED),
        "tariff_no": ("tariff_no + 1", NAMED),
        "tariff_version": ("tariff_version + 1", NAMED),
        "reason": ("'because'", CHARGED),
        "events": ("replace(events, ':20:00', ':21:00')", CHARGED),
        "charge": ("""replace(charge, '"total_minor":250', '"total_minor":249')""", CHARGED),
        "amount_minor": ("amount_minor - 1", CHARGED),
        "currency": ("'EUR'", CHARGED),
        "decided_at": ("decided_at + interval '1 microsecond'", CHARGED),
        "batch_no": ("batch_no + 1", CHARGED),
        "digest": (r"'\x00'", CHARGED),
        "charge, adjusted": ("""replace(charge, '"amount_minor":700', '"amount_minor":701')""", ADJUSTING),
        "events, adjusted": ("""replace(events, '"amount_minor":700', '"amount_minor":701')""", ADJUSTING),
        "charge, taken back": ("""replace(charge, '"taken_back":true', '"taken_back":false')""", TAKEN_BACK),
        "charge, gone": ("NULL", TAKEN_BACK),
    },
    "obligation": {
        "ride_no": ("ride_no + 4194304", FIRST),
        "revision": ("revision + 1", FIRST),
        "slot": ("(slot + 1) % 1024", FIRST),
        "operator_no": ("2", FIRST),
        "agreement_no": ("agreement_no + 1", FIRST),
        "kind": ("'correction'", FIRST),
        "amount_minor": ("amount_minor + 1", FIRST),
        "currency": ("'EUR'", FIRST),
        "occurred_at": ("occurred_at + interval '1 second'", FIRST),
        "kind, of an adjustment": ("'correction'", "kind = 'extra'"),
    },
    "transfer": {
        "ride_no": ("ride_no + 4194304", f"fact = 1 AND {FIRST}"),
        "fact": ("2", f"fact = 1 AND {FIRST}"),
        "ordinal": ("ordinal + 1", f"fact = 1 AND {FIRST}"),
        "line": ("line + 7", f"fact = 1 AND {FIRST}"),
        "slot": ("(slot + 1) % 1024", f"fact = 1 AND {FIRST}"),
        "operator_no": ("2", f"fact = 1 AND {FIRST}"),
        "debit_account": ("debit_account + 1", f"fact = 1 AND {FIRST}"),
        "credit_account": ("credit_account + 1", f"fact = 1 AND {FIRST}"),
        "amount_minor": ("amount_minor + 1", f"fact = 1 AND {FIRST}"),
        "currency": ("'EUR'", f"fact = 1 AND {FIRST}"),
        "posted_at": ("posted_at + interval '1 second'", f"fact = 1 AND {FIRST}"),
        "debit_account, of goodwill": ("6000000000000001", "debit_account = 12000000000000001"),
    },
    "cap_use": {
        "ride_no": ("ride_no + 4194304", "before = 0"),
        "revision": ("revision + 7", "before = 0"),
        "balance_window": ("balance_window || '0'", "before = 0"),
        "slot": ("(slot + 1) % 1024", "before = 0"),
        "operator_no": ("2", "before = 0"),
        "rider_no": ("rider_no + 1", "before = 0"),
        "before": ("before + 1", "before = 0"),
        "after": ("after + 1", "before = 0"),
    },
    "debit": {
        "amount_minor": ("amount_minor + 1", "state = 'new'"),
        "paid_minor": ("paid_minor - 1", "state = 'settled' AND refunded_minor = 0 AND paid_minor > 0"),
        "refunding_minor": ("refunding_minor + 1", "state = 'settled' AND refunded_minor = 0"),
        "refunded_minor": ("refunded_minor - 1", "refunded_minor > 0"),
        "forgone_minor": ("forgone_minor + 1", "state = 'new'"),
        "disputed_minor": ("disputed_minor + 1", "state = 'settled'"),
        "currency": ("'EUR'", "state = 'settled'"),
        "state": ("'cancelled'", "state = 'new'"),
        "provider_key": ("provider_key || '0'", "state = 'settled'"),
        "session_id": ("session_id || '0'", "state = 'settled'"),
        "receipts": ("'[]'", "state = 'settled' AND paid_minor > 0"),
        "transitions": ("transitions + 1", "state = 'settled'"),
        "refunds": ("refunds + 1", "state = 'settled'"),
    },
    "session_key": {
        "session_key": ("'00000000-0000-0000-0000-000000000007'", FIRST),
        "ride_no": ("ride_no + 4194304", FIRST),
        "slot": ("(slot + 1) % 1024", FIRST),
    },
    "batch": {
        "writer_no": ("writer_no + 1000", "seq = 2 AND revisions > 0"),
        "seq": ("seq + 1000", "seq = 2 AND revisions > 0"),
        "number": ("1", "seq = 2 AND revisions > 0"),
        "revisions": ("revisions + 1", "seq = 2 AND revisions > 0"),
        "facts_digest": (r"'\x00'", "seq = 2 AND revisions > 0"),
        "digest": (r"'\x00'", "seq = 2 AND revisions > 0"),
        "owing": ("'{}'", "cardinality(owing) > 0 AND seq = 1"),
        "business_at": ("business_at + interval '1 second'", "seq = 2 AND revisions > 0"),
        "machine_at": ("machine_at + interval '1 second'", "seq = 2 AND revisions > 0"),
    },
    "batch_facts": {"facts": (r"facts || '\x00'", "seq = 2"), "seq": ("seq + 1000", "seq = 2")},
    "balance": {"used": ("used + 1", "used > 0")},
    "debit_transition": {
        "transition": ("transition + 7", "to_state = 'settled'"),
        "from_state": ("'manual'", "to_state = 'settled'"),
        "to_state": ("'manual'", "to_state = 'settled'"),
        "amount_minor": ("amount_minor + 1", "to_state = 'new' AND ride_no = (SELECT max(ride_no) FROM debit)"),
    },
    "refund": {"amount_minor": ("amount_minor + 1", "true"), "state": ("'failed'", "true")},
    "writer": {"seq": ("seq + 1", "seq > 0"), "digest": (r"'\x00'", "seq > 0")},
}
ALSO = {
    "ride_revision": {"ride_revision", "batch", "obligation", "session_key"},
    "transfer": {"transfer", "debit"},
    "debit_transition": {"debit_transition", "debit"},
    "balance": {"cap_use"},
    "writer": {"writer or stream_offset"},
    "refund": {"debit", "transfer"},
    "debit": {"debit", "transfer"},
}
"""Where else a change of a table shows: in what is held against it."""


@pytest.mark.parametrize(("table", "column"), [(table, column) for table in COLUMNS for column in COLUMNS[table]])
async def test_a_single_altered_column_is_found_and_named(books: Books, table: str, column: str) -> None:
    value, where = COLUMNS[table][column]
    place = one_row(table, where)
    row = await books.row(table, place)
    update = named(
        "UPDATE $table SET $column = $value WHERE $place",
        table=table,
        column=column.partition(",")[0],
        value=value,
        place=place,
    )
    async with books.changed(table):
        assert await books.world.tamper(update) == 1
        _, problems = await books.audit()
    assert_named(table, row, problems)


ROWS = [table for table in COLUMNS if table != "writer"]


@pytest.mark.parametrize("table", ROWS)
async def test_a_deleted_row_is_found_and_named(books: Books, table: str) -> None:
    place = one_row(table)
    row = await books.row(table, place)
    async with books.changed(table):
        assert await books.world.tamper(named("DELETE FROM $table WHERE $place", table=table, place=place)) == 1
        _, problems = await books.audit()
    assert_named(table, row, problems)


INVENTED = {
    "ride_revision": "revision = r.revision + 1",
    "obligation": "revision = r.revision + 1",
    "transfer": "line = r.line + 7",
    "cap_use": "revision = r.revision + 7",
    "session_key": "session_key = '00000000-0000-0000-0000-000000000007'",
    "batch": "seq = (SELECT max(seq) + 1 FROM batch WHERE writer_no = r.writer_no)",
    "batch_facts": "seq = r.seq + 1000",
    "balance": "balance_window = 'day:x:2026-11-22'",
    "debit": "ordinal = r.ordinal + 7",
    "debit_transition": "transition = r.transition + 10",
    "refund": "refund_ordinal = r.refund_ordinal + 1",
}


@pytest.mark.parametrize("table", INVENTED)
async def test_an_invented_row_is_found_and_named(books: Books, table: str) -> None:
    async with books.changed(table):
        await books.world.sql("DROP TABLE IF EXISTS invented")
        await books.world.sql(named("CREATE TABLE invented AS SELECT * FROM $table LIMIT 1", table=table))
        await books.world.sql(named("UPDATE invented r SET $change", change=INVENTED[table]))
        row = await books.row("invented", "true")
        await books.world.tamper(named("INSERT INTO $table SELECT * FROM invented", table=table))
        _, problems = await books.audit()
    assert_named(table, row, problems)


def assert_named(table: str, row: Mapping[str, Any], problems: list[Problem]) -> None:
    """Some problem is about the table, and says where the row is."""
    lines = "\n".join(problem.line() for problem in problems)
    tables = ALSO.get(table, {table})
    names = [str(row[name]) for name in ("ride_no", "balance_window", "seq") if name in row]
    about = [problem.line() for problem in problems if problem.table in tables or problem.table.startswith(f"{table}.")]
    assert any(name in line for line in about for name in names), lines or "nothing was found"


async def test_the_books_are_as_they_were(books: Books) -> None:
    assert not (await books.audit())[1]
