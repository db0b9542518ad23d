"""An agreement that is over at the provider without our being told: every refusal has it asked about, and time does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from collecting_bench import open_bench
from rider_world import World, world

from service.adapters.postgres.agreements import AgreementStore
from service.adapters.providers.port import DebitRequest
from service.billing.agreements.signing import LOOK_SELDOM, NOT_THERE, SPREAD, answered
from service.billing.agreements.standing import AgreementStatus
from service.billing.outcomes import Declined, NeedsRider, NotFound, Outcome, Rejected
from service.flows.agreement_replies import EligibilityAsk


@pytest.fixture
async def it(database_url: str) -> AsyncIterator[World]:
    async with world(database_url, hold_needed=True) as it:
        await it.sign()
        yield it


async def ended_there(it: World) -> None:
    """The rider ends his agreement at the provider, who tells nobody."""
    key = await it.connection.fetchval("SELECT provider_key FROM agreement WHERE operator_no = $1", it.operator_no)
    await it.sandbox.call("POST", "/agreements", {"account_id": it.account_id, "key": key, "revoke": True})


async def may_ride(it: World) -> tuple[bool, str | None]:
    told = await it.agreements.eligibility(EligibilityAsk(operator_no=it.operator_no, agreement_id="ag"))
    return told.eligible, told.reason


async def test_a_hold_that_is_refused_for_good_has_the_agreement_asked_about(it: World) -> None:
    await ended_there(it)
    assert await may_ride(it) == (True, None)  # Nobody has told us.
    refused = await it.ask("s1")
    assert (refused.status, refused.reason) == ("refused", "AGREEMENT_REVOKED")
    assert await it.agreements.refresh_round(it.account_no) == 1
    assert await may_ride(it) == (False, "agreement_revoked")
    assert await it.facts("ag") == ["agreement.active", "agreement.revoked"]


async def test_one_that_is_in_force_stays_so_and_is_asked_about_once(it: World) -> None:
    await it.sandbox.script("refuse", on="rider", op="hold.open", code="SCORE_TOO_LOW")
    assert (await it.ask("s1")).status == "refused"
    assert await it.agreements.refresh_round(it.account_no) == 1
    assert await it.agreements.refresh_round(it.account_no) == 0
    assert await may_ride(it) == (True, None)


async def test_what_our_own_rules_refuse_is_no_reason_to_ask(it: World) -> None:
    ride_no = await it.ride("s0", "closed", 300)
    await it.debit("s0", ride_no, "needs_rider", 300, 0, overdue=True)
    assert (await it.ask("s1")).reason == "overdue_debts"
    assert await it.agreements.refresh_round(it.account_no) == 0


@pytest.mark.parametrize(
    ("outcome", "asked"),
    [
        (Declined(False, "AGREEMENT_REVOKED"), True),
        (NeedsRider("payment_method_detached"), True),
        (Rejected("AGREEMENT_UNKNOWN"), True),
        (Declined(True, "BALANCE_NOT_ENOUGH"), False),
    ],
)
async def test_a_debit_that_is_refused_for_good_has_the_agreement_asked_about(
    database_url: str, outcome: Outcome, asked: bool
) -> None:
    async with open_bench(database_url) as bench:
        party = await bench.party()
        await bench.ride(party, 300)

        async def refuse(_request: DebitRequest) -> Outcome:
            return outcome

        bench.provider.debit = refuse  # type: ignore[method-assign,assignment]  # A fake of ours, which has no fault of this kind.
        await bench.collection.submit_round(bench.account_no)
        due_at = "SELECT due_at FROM agreement WHERE agreement_no = $1"
        told = await bench.connection.fetchval(due_at, party.agreement_no)
        assert told == (bench.now if asked else None)


async def test_a_signed_agreement_is_asked_about_seldom_each_at_its_own_time(it: World) -> None:
    for rider in ("kim", "lee"):
        await it.sign(f"ag-{rider}", rider)
    rows = await it.connection.fetch("SELECT due_at FROM agreement WHERE operator_no = $1", it.operator_no)
    waits = {row["due_at"] - it.now() for row in rows}
    assert len(waits) == 3 and all(LOOK_SELDOM <= wait < LOOK_SELDOM + SPREAD for wait in waits)
    await ended_there(it)
    it.pass_time(LOOK_SELDOM + SPREAD)
    assert await it.agreements.refresh_round(it.account_no) == 3
    assert await may_ride(it) == (False, "agreement_revoked")
    states = {view.agreement_id: view.state for view in await it.agreements.page(it.operator_no)}
    assert states == {"ag": "revoked", "ag-kim": "active", "ag-lee": "active"}


async def test_what_the_provider_does_not_know_however_often_he_is_asked_is_over(it: World) -> None:
    async with it.database.reading(AgreementStore) as store:
        row = await store.find(it.operator_no, "ag")
    assert row is not None
    agreement, now = row.agreement, it.now()
    times = list[datetime]()
    while agreement.state == "active" and len(times) < 20:
        times.append(now)
        agreement = answered(agreement, NotFound(), now)
        now = agreement.due_at or now
    assert (agreement.state, agreement.reason, agreement.due_at) == ("revoked", NOT_THERE, None)
    assert times[-1] - times[0] > timedelta(minutes=30)  # Not for an answer that is wrong for a moment.


async def test_a_provider_names_an_agreement_by_any_of_his_numbers(it: World) -> None:
    ref = "UPDATE agreement SET provider_ref = 'cus_1:seti_1:pm_1' WHERE operator_no = $1"
    await it.connection.execute(ref, it.operator_no)
    gone = AgreementStatus("revoked", code="detached")
    for unknown in ("pm_2", "cus_1:seti_1", "pm_"):
        assert not await it.agreements.noticed(it.account_no, unknown, gone, by_ref=True)
    assert not await it.agreements.noticed(it.account_no + 1, "pm_1", gone, by_ref=True)
    assert await may_ride(it) == (True, None)
    assert await it.agreements.noticed(it.account_no, "pm_1", gone, by_ref=True)
    assert await may_ride(it) == (False, "agreement_revoked")
    assert await it.agreements.noticed(it.account_no, "cus_1", gone, by_ref=True)


async def test_finding_what_is_due_and_what_a_number_names_reads_no_other_agreements(it: World) -> None:
    """However many there are: each of the two has an index of its own."""
    await it.connection.execute("SET enable_seqscan = off")
    claim = "SELECT agreement_no FROM agreement WHERE account_no = 1 AND due_at <= now() ORDER BY due_at LIMIT 200"
    named = (
        "SELECT agreement_no FROM agreement WHERE account_no = 1 AND provider_ref LIKE '%:%'"
        " AND string_to_array(provider_ref, ':') @> ARRAY['pm_1']"
    )
    for query, index in ((claim, "agreement_due"), (named, "agreement_by_provider_parts")):
        plan = "\n".join(row[0] for row in await it.connection.fetch(f"EXPLAIN {query}"))
        assert index in plan, plan
