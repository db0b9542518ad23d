"""Debts that are open elsewhere: brought over once, collected like any other, in the books, the audit clean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from import_world import Files
from ride_builders import adjustment
from rider_world import World, world

from service.adapters.postgres.catalog import CatalogStore
from service.billing.auditing.problems import Problem
from service.billing.debits.events import DebitEvent, DisputeOpened, PaidElsewhere, RefundAsked
from service.billing.events import Position, RideEvent
from service.billing.keys import session_key_bytes
from service.billing.ledger import KIND, Account
from service.flows.agreement_replies import EligibilityAsk, NewAgreement
from service.flows.audit import audit
from service.flows.clock import BusinessClock
from service.flows.collection import Collection
from service.flows.decisions import adjust_ride, decide_rides, taking_in
from service.flows.imports import ImportFileError
from service.flows.imports.debts import CHUNK
from service.flows.knowledge import Knowledge

COLUMNS = "reference,agreement_id,rider_ref,code,amount_minor,currency,due_since"
SINCE = "2026-10-03T21:05:00+08:00"


class City:
    """A world with what collects in it, and what looks after its books."""

    def __init__(self, world: World, url: str, directory: Path) -> None:
        self.world = world
        self.url = url
        self.files = Files(world, directory)

    def collector(self) -> Collection:
        it = self.world
        return Collection(it.database, it.providers.by_number, it.now, it.machine_now)

    async def bring(self, *rows: str) -> tuple[int, int, int]:
        return await self.files.debts(COLUMNS, *rows)

    async def collect(self) -> None:
        """Everything that is owed is asked for, and paid where the wallet has it."""
        while await self.collector().plan_round():
            pass
        await self.collector().submit_round(self.world.account_no)

    async def wallet(self, balance_minor: int) -> None:
        told = [{"rider": "rider", "currency": "CNY", "balance_minor": balance_minor}]
        await self.world.sandbox.call("PUT", "/wallets", told)

    async def debits(self) -> dict[str, tuple[str, int, int]]:
        """State, amount, paid, by session."""
        rows = await self.world.connection.fetch("SELECT * FROM debit WHERE operator_no = $1", self.world.operator_no)
        return {row["session_id"]: (row["state"], row["amount_minor"], row["paid_minor"]) for row in rows}

    async def happen(self, session: str, event: DebitEvent) -> None:
        row = await self.world.connection.fetchrow(
            "SELECT ride_no, ordinal FROM debit WHERE operator_no = $1 AND session_id = $2",
            self.world.operator_no,
            session,
        )
        assert row is not None
        await self.collector().happen([((row["ride_no"], row["ordinal"]), event)])

    async def accounts(self) -> dict[str, int]:
        """What stands on each kind of account: debits less credits, zeros left out."""
        rows = await self.world.connection.fetch(
            "SELECT account / $2 AS kind, sum(minor)::bigint AS minor FROM transfer,"
            " LATERAL (VALUES (debit_account, amount_minor), (credit_account, -amount_minor)) AS told (account, minor)"
            " WHERE operator_no = $1 GROUP BY 1 HAVING sum(minor) <> 0",
            self.world.operator_no,
            KIND,
        )
        return {Account(row["kind"]).name: row["minor"] for row in rows}

    async def problems(self) -> list[Problem]:
        found: list[Problem] = []
        told = await audit(self.url, found.append, lambda done, total: None, self.world.operator_id)
        assert told.rides
        return found

    async def knowledge(self) -> Knowledge:
        knowledge = Knowledge(BusinessClock(), 0)
        async with self.world.database.reading(CatalogStore) as store:
            await knowledge.refresh(store)
        return knowledge

    async def eligible(self) -> str | None:
        asked = EligibilityAsk(operator_no=self.world.operator_no, agreement_id="ag", tariff_id="bike")
        return (await self.world.agreements.eligibility(asked)).reason

    async def switch(
        self, mode: str | None = None, bill_from: datetime | None = None, exposure_max_minor: int | None = None
    ) -> None:
        await self.world.connection.execute(
            "UPDATE operator SET mode = coalesce($2, mode), bill_from = coalesce($3, bill_from),"
            " exposure_max_minor = coalesce($4, exposure_max_minor) WHERE operator_no = $1",
            self.world.operator_no,
            mode,
            bill_from,
            exposure_max_minor,
        )


@pytest.fixture
async def it(database_url: str, tmp_path: Path) -> AsyncIterator[City]:
    async with world(database_url) as found:
        await found.sign()
        yield City(found, database_url, tmp_path)


def debt(number: int = 1, **cells: str) -> str:
    given = {
        "reference": f"D-{number}",
        "agreement_id": "ag",
        "code": "ride",
        "amount_minor": "730",
        "currency": "CNY",
        "due_since": SINCE,
    }
    return ",".join((given | cells).get(column, "") for column in COLUMNS.split(","))


async def test_a_debt_is_collected_like_any_other(it: City) -> None:
    assert await it.bring(debt(1), debt(2, amount_minor="12000", code="damage", rider_ref="rider")) == (2, 0, 0)
    assert await it.accounts() == {"RECEIVABLE": 12_730, "OPENING": -12_730}
    await it.collect()
    assert await it.debits() == {"debt-D-1": ("settled", 730, 730), "debt-D-2": ("settled", 12_000, 12_000)}
    assert await it.accounts() == {"CLEARING": 12_730, "OPENING": -12_730}
    assert await it.world.facts("debt-D-1") == ["charge.rated", "debit.submitted", "debit.settled"]
    assert await it.problems() == []


async def test_the_same_file_again_changes_nothing(it: City) -> None:
    assert await it.bring(debt(1), debt(2)) == (2, 0, 0)
    await it.collect()
    before = await it.debits()
    assert await it.bring(debt(1), debt(2), debt(3)) == (1, 2, 0)
    assert await it.bring(debt(1), debt(2), debt(3)) == (0, 3, 0)
    await it.collect()
    assert {session: one for session, one in (await it.debits()).items() if session != "debt-D-3"} == before
    assert await it.accounts() == {"CLEARING": 3 * 730, "OPENING": -3 * 730}


@pytest.mark.parametrize(
    "changed",
    [
        {"agreement_id": "other"},
        {"code": "damage"},
        {"amount_minor": "731"},
        {"due_since": "2026-10-03T21:05:01+08:00"},
    ],
)
async def test_a_line_that_says_something_else_is_refused_by_column(it: City, changed: dict[str, str]) -> None:
    await it.world.sign("other")
    assert await it.bring(debt(1)) == (1, 0, 0)
    assert await it.bring(debt(2), debt(1, **changed)) == (0, 0, 1)
    assert [(line, column) for line, column, _ in it.files.said] == [(3, next(iter(changed)))]
    assert await it.accounts() == {"RECEIVABLE": 730, "OPENING": -730}, "nothing of the file was written"


async def test_the_exposure_limit_counts_it_and_overdue_ones_refuse_a_ride(it: City) -> None:
    await it.wallet(0)
    await it.switch(exposure_max_minor=1000)
    assert await it.eligible() is None
    await it.bring(debt(1), debt(2))
    await it.collect()
    assert {state for state, _, _ in (await it.debits()).values()} == {"retry_wait"}
    assert await it.eligible() == "exposure_limit"
    await it.switch(exposure_max_minor=2000)
    assert await it.eligible() is None, "the calendar begins with the import: not due yet"
    it.world.pass_time(timedelta(days=16))
    await it.collector().policy_round(it.world.account_no)
    assert await it.eligible() == "overdue_debts"


async def test_it_is_paid_elsewhere_disputed_and_given_back(it: City) -> None:
    await it.bring(debt(1))
    await it.collect()
    await it.wallet(0)
    await it.bring(debt(1), debt(2), debt(3))
    await it.collect()
    await it.happen("debt-D-1", RefundAsked(230, "too much"))
    await it.happen("debt-D-2", PaidElsewhere("cash at the counter"))
    await it.happen("debt-D-3", DisputeOpened("complaint"))
    await it.collect()
    assert {session: state for session, (state, _, _) in (await it.debits()).items()} == {
        "debt-D-1": "settled",
        "debt-D-2": "settled_elsewhere",
        "debt-D-3": "retry_wait",
    }
    told = await it.accounts()
    assert (told["CLEARING"], told["ELSEWHERE"], told["OPENING"]) == (500, 730, -3 * 730)


async def test_support_adjusts_and_voids_it(it: City) -> None:
    await it.bring(debt(1), debt(2))
    await it.collect()
    knowledge = await it.knowledge()
    operator = knowledge.operators[it.world.operator_no]
    await adjust_ride(it.world.database, knowledge, operator, "debt-D-1", adjustment("goodwill", 230))
    at = knowledge.clock.now()
    void = RideEvent("voided", "urn:farebox:operator", "v", at, "debt-D-2", Position("", 0, 0))
    key = session_key_bytes(operator.operator_id, "debt-D-2")
    await decide_rides(it.world.database, knowledge, taking_in(void), keys=[key], role="serve")
    await it.collect()
    await it.collect()
    assert await it.accounts() == {"CLEARING": 500, "OPENING": -730, "GOODWILL": 230}
    assert await it.problems() == []


async def test_it_is_written_off_after_its_time(it: City) -> None:
    await it.wallet(0)
    await it.bring(debt(1))
    await it.collect()
    for _ in range(3):
        it.world.pass_time(timedelta(days=100))
        await it.collector().policy_round(it.world.account_no)
    assert await it.debits() == {"debt-D-1": ("written_off", 730, 0)}
    assert await it.accounts() == {"WRITE_OFFS": 730, "OPENING": -730}
    assert await it.problems() == []


async def test_rides_from_before_bill_from_are_brought_over_all_the_same(it: City) -> None:
    await it.switch(bill_from=it.world.now())
    assert await it.bring(debt(1)) == (1, 0, 0)
    await it.collect()
    assert await it.debits() == {"debt-D-1": ("settled", 730, 730)}


async def test_a_paused_operator_collects_it_later(it: City) -> None:
    await it.switch("paused")
    assert await it.bring(debt(1)) == (1, 0, 0)
    assert await it.accounts() == {"RECEIVABLE": 730, "OPENING": -730}


async def test_nothing_is_owed_in_shadow_mode(it: City) -> None:
    await it.switch("shadow")
    with pytest.raises(ImportFileError, match="shadow mode"):
        await it.bring(debt(1))
    assert await it.accounts() == {}


@pytest.mark.parametrize(
    ("cells", "column", "said"),
    [
        ({"agreement_id": "nobody"}, "agreement_id", "bring the agreements over first"),
        ({"agreement_id": "unsigned"}, "agreement_id", "nobody has signed it"),
        ({"rider_ref": "another"}, "rider_ref", "another rider's"),
        ({"currency": "EUR"}, "currency", "the agreement is in CNY"),
        ({"reference": "ridden"}, "reference", "the same as on line 3: keep one"),
        ({"agreement_id": "ag", "reference": "taken"}, "reference", "there with another one"),
    ],
)
async def test_what_nobody_can_owe_is_refused(it: City, cells: dict[str, str], column: str, said: str) -> None:
    await it.world.agreements.create(it.world.operator_no, NewAgreement(agreement_id="unsigned", rider_ref="rider"))
    await it.world.ride("debt-taken")
    assert await it.bring(debt(1), debt(2, reference="ridden"), debt(3, **cells)) == (0, 0, 1)
    assert [(line, told) for line, told, _ in it.files.said] == [(4, column)]
    assert said in it.files.said[0][2]


async def test_two_at_once_bring_each_debt_over_once(it: City, tmp_path: Path) -> None:
    rows = [debt(number) for number in range(CHUNK // 4)]
    others = Files(it.world, tmp_path / "other")
    (tmp_path / "other").mkdir()
    await it.files.terms("CNY")
    one, two = await asyncio.gather(it.bring(*rows), others.debts(COLUMNS, *reversed(rows)))
    assert (one[0] + two[0], one[1] + two[1], one[2] + two[2]) == (len(rows), len(rows), 0)
    assert await it.accounts() == {"RECEIVABLE": 730 * len(rows), "OPENING": -730 * len(rows)}
    assert await it.problems() == []


async def test_more_than_a_chunk_of_lines(it: City) -> None:
    rows = [debt(number, amount_minor="1") for number in range(CHUNK + 20)]
    assert await it.bring(*rows) == (CHUNK + 20, 0, 0)
    assert await it.bring(*rows) == (0, CHUNK + 20, 0)
    assert await it.accounts() == {"RECEIVABLE": CHUNK + 20, "OPENING": -(CHUNK + 20)}
