"""The sandbox adapter against the real simulator over sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import pytest
from sandbox_peer import Peer, debit_ref, debit_request, peer, provider_at, rider_path, sign

from service.adapters.providers import open_provider
from service.adapters.providers.port import (
    AgreementRef,
    AgreementRequest,
    HoldRef,
    HoldRequest,
    MerchantAccount,
    RefundRef,
    RefundRequest,
    Statement,
)
from service.billing.agreements.standing import AgreementStatus, HoldStatus
from service.billing.outcomes import (
    Accepted,
    AlreadyDone,
    CapExceeded,
    Closed,
    Conflict,
    Declined,
    NeedsRider,
    NotFound,
    OpenUrl,
    Rejected,
    Succeeded,
    Throttled,
    Unknown,
)

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Peer]:
    async with peer() as it:
        yield it


def hold_request(key: str, agreement: AgreementRef, cap_minor: int = 10_000) -> HoldRequest:
    return HoldRequest(key, agreement, cap_minor, "CNY", "bike 7", AT)


@pytest.mark.parametrize(
    ("fault", "said", "executed"),
    [
        ("slow", Unknown, False),  # Not yet: it executes later, and finds the money taken.
        ("drop", Unknown, False),
        ("lost", Unknown, True),
        ("error_before", Unknown, False),
        ("error_after", Unknown, True),
        ("html", Unknown, True),
        ("truncated", Unknown, True),
        ("unknown_enum", Unknown, True),
        ("unknown_code", Unknown, False),
        ("throttle", Throttled, False),
    ],
)
async def test_no_fault_on_the_way_moves_money_twice(sandbox: Peer, fault: str, said: type, executed: bool) -> None:
    async with provider_at(sandbox, f"faults-{fault}", timeout_s=0.3) as provider:
        agreement = await sign(sandbox, provider, "ag")
        request = debit_request(f"debit_{fault}", agreement)
        await sandbox.script(fault, on=request.key, op="debit.take", seconds=2)
        outcome = await provider.debit(request)
        assert isinstance(outcome, said), outcome
        if fault == "throttle":
            assert outcome == Throttled(timedelta(seconds=2))
        asked = await provider.get_debit(debit_ref(request))
        assert isinstance(asked, Succeeded if executed else NotFound), asked
        assert isinstance(await provider.debit(request), Succeeded)
        line = await sandbox.debit(request.key)
        assert (line["paid_minor"], line["payments"]) == (250, 1)
        await sandbox.books()


async def test_a_query_that_fails_in_any_way_stays_unknown(sandbox: Peer) -> None:
    async with provider_at(sandbox, "queries") as provider:
        agreement = await sign(sandbox, provider, "ag")
        request = debit_request("debit_q", agreement)
        assert await provider.get_debit(debit_ref(request)) == NotFound()
        await provider.debit(request)
        for fault in ("lost", "error_after", "html", "truncated", "unknown_enum", "unknown_code"):
            await sandbox.script(fault, on=request.key, op="debit.get", times=2 if fault == "lost" else 1)
            assert isinstance(await provider.get_debit(debit_ref(request)), Unknown), fault
        assert isinstance(await provider.get_debit(debit_ref(request)), Succeeded)


async def test_a_provider_that_is_not_there_was_provably_not_asked() -> None:
    account = MerchantAccount(1, "gone", "sandbox", "http://127.0.0.1:9", {"api_key": "k"})
    provider = open_provider(account)
    assert isinstance(await provider.debit(debit_request("d", AgreementRef("ag"))), Throttled)
    await provider.close()


async def test_declines_are_told_apart(sandbox: Peer) -> None:
    async with provider_at(sandbox, "declines", new_key_after_decline=False) as provider:
        agreement = await sign(sandbox, provider, "ag", rider="poor")
        request = debit_request("debit_poor", agreement)
        await sandbox.call("PUT", "/wallets", [{"rider": "poor", "currency": "CNY", "balance_minor": 249}])
        assert await provider.debit(request) == Declined(True, "BALANCE_NOT_ENOUGH")
        assert await provider.get_debit(debit_ref(request)) == Declined(True, "BALANCE_NOT_ENOUGH")
        await sandbox.call("PUT", "/wallets", [{"rider": "poor", "currency": "CNY", "balance_minor": 250}])
        assert isinstance(await provider.debit(request), Succeeded)
        await sandbox.script("decline", on="debit_final", code="CARD_STOLEN")
        assert await provider.debit(debit_request("debit_final", agreement)) == Declined(False, "CARD_STOLEN")
        assert await provider.debit(debit_request("debit_poor", agreement, 251)) == Conflict("KEY_CONFLICT")
        assert await provider.debit(debit_request("debit_cap", agreement, 100_001)) == CapExceeded(100_000)
        rejected = await provider.debit(debit_request("debit_eur", agreement, currency="EUR"))
        assert isinstance(rejected, Rejected)


async def test_where_a_decline_wants_a_new_key_the_old_one_repeats_it(sandbox: Peer) -> None:
    async with provider_at(sandbox, "newkeys", new_key_after_decline=True) as provider:
        agreement = await sign(sandbox, provider, "ag", rider="poorer")
        await sandbox.call("PUT", "/wallets", [{"rider": "poorer", "currency": "CNY", "balance_minor": 0}])
        await provider.debit(debit_request("first", agreement))
        await sandbox.call("PUT", "/wallets", [{"rider": "poorer", "currency": "CNY", "balance_minor": 1000}])
        assert isinstance(await provider.debit(debit_request("first", agreement)), Declined)
        assert isinstance(await provider.debit(debit_request("second", agreement)), Succeeded)


async def test_from_a_provider_that_retries_an_answer_is_at_best_accepted(sandbox: Peer) -> None:
    async with provider_at(sandbox, "retries", provider_retries=True) as provider:
        agreement = await sign(sandbox, provider, "ag")
        request = debit_request("debit_r", agreement)
        assert isinstance(await provider.debit(request), Accepted)
        assert isinstance(await provider.get_debit(debit_ref(request)), Succeeded)
        assert isinstance(await provider.debit(request), Accepted)


async def test_a_hold_is_opened_debited_and_finished_in_the_order_the_provider_demands(sandbox: Peer) -> None:
    async with provider_at(sandbox, "holds", hold_needed=True, further_debit=False) as provider:
        agreement = await sign(sandbox, provider, "ag")
        hold = HoldRef("hold1")
        assert await provider.get_hold(hold) == NotFound()
        opened = await provider.open_hold(hold_request("hold1", agreement))
        assert isinstance(opened, HoldStatus)
        assert (opened.state, opened.cap_minor) == ("open", 10_000)
        assert await provider.open_hold(hold_request("hold1", agreement)) == opened
        assert await provider.open_hold(hold_request("hold1", agreement, 9_999)) == Conflict("KEY_CONFLICT")
        assert isinstance(await provider.debit(debit_request("no_hold", agreement)), Rejected)
        assert await provider.debit(debit_request("d1", agreement, 10_001, hold=hold)) == CapExceeded(10_000)
        assert isinstance(await provider.debit(debit_request("d1", agreement, 9_000, hold=hold)), Succeeded)
        assert isinstance(await provider.debit(debit_request("d2", agreement, 1_000, hold=hold)), Rejected)
        assert await provider.release_hold(hold) == Conflict("WRONG_STATE")
        finished = await provider.finish_hold(hold)
        assert isinstance(finished, HoldStatus) and finished.state == "completed"
        assert await provider.finish_hold(hold) == finished
        late = await provider.debit(debit_request("d3", agreement, 1, hold=hold))
        assert late == Declined(False, "HOLD_CLOSED", "the hold is finished")


async def test_a_revoked_agreement_still_pays_what_is_on_hold_and_opens_nothing_new(sandbox: Peer) -> None:
    async with provider_at(sandbox, "revoked", hold_needed=True) as provider:
        agreement = await sign(sandbox, provider, "ag")
        await provider.open_hold(hold_request("hold2", agreement))
        revoked = await provider.revoke_agreement(agreement)
        assert isinstance(revoked, AgreementStatus) and revoked.state == "revoked"
        assert isinstance(await provider.debit(debit_request("d4", agreement, hold=HoldRef("hold2"))), Succeeded)
        refused = await provider.open_hold(hold_request("hold3", agreement))
        assert isinstance(refused, Declined) and refused.code == "AGREEMENT_REVOKED"


async def test_an_unpaid_debit_is_lowered_closed_or_paid_elsewhere(sandbox: Peer) -> None:
    async with provider_at(sandbox, "unpaid", reduces_declined=True, new_key_after_decline=False) as provider:
        agreement = await sign(sandbox, provider, "ag", rider="broke")
        await sandbox.call("PUT", "/wallets", [{"rider": "broke", "currency": "CNY", "balance_minor": 0}])
        lowered, closed, elsewhere = (debit_request(key, agreement) for key in ("lower", "close", "elsewhere"))
        for request in (lowered, closed, elsewhere):
            assert isinstance(await provider.debit(request), Declined)
        assert isinstance(await provider.reduce_debit(debit_ref(lowered), 100), Accepted)
        assert isinstance(await provider.close_debit(debit_ref(closed)), Closed)
        assert await provider.settle_elsewhere(debit_ref(elsewhere), AT) == Closed("PAID_ELSEWHERE")
        await sandbox.call("PUT", "/wallets", [{"rider": "broke", "currency": "CNY", "balance_minor": 500}])
        assert isinstance(await provider.debit(closed), Closed)
        assert await provider.debit(lowered) == Conflict("KEY_CONFLICT")
        paid = await provider.debit(debit_request("lower", agreement, 100))
        assert isinstance(paid, Succeeded) and paid.amount_minor == 100
        assert await provider.close_debit(debit_ref(lowered)) == AlreadyDone()


async def test_the_rider_pays_now_by_himself(sandbox: Peer) -> None:
    async with provider_at(sandbox, "paynow") as provider:
        agreement = await sign(sandbox, provider, "ag")
        await sandbox.script("decline", on="now")
        request = debit_request("now", agreement)
        await provider.debit(request)
        asked = await provider.request_payment(request)
        assert isinstance(asked, NeedsRider) and isinstance(asked.action, OpenUrl)
        await sandbox.call("POST", rider_path(sandbox, asked.action) + "&answer=pay")
        assert isinstance(await provider.get_debit(debit_ref(request)), Succeeded)
        assert await provider.request_payment(request) == AlreadyDone()
        more = debit_request("more", agreement, 999_999)  # Above any cap: what he approves himself may be.
        assert isinstance(await provider.request_payment(more), NeedsRider)
        assert isinstance(await provider.get_debit(debit_ref(more)), NeedsRider)


async def test_refunds_never_exceed_what_was_paid_and_the_same_key_refunds_once(sandbox: Peer) -> None:
    async with provider_at(sandbox, "refunds") as provider:
        agreement = await sign(sandbox, provider, "ag")
        request = debit_request("refunded", agreement, 1_000)
        await provider.debit(request)
        debit = debit_ref(request)
        first = RefundRequest("r1", debit, 600, "CNY", "goodwill")
        done = await provider.refund(first)
        assert isinstance(done, Succeeded) and done.amount_minor == 600
        assert await provider.refund(first) == done
        assert await provider.refund(RefundRequest("r1", debit, 601, "CNY", "goodwill")) == Conflict("KEY_CONFLICT")
        assert isinstance(await provider.refund(RefundRequest("r2", debit, 401, "CNY", "goodwill")), Rejected)
        await sandbox.script("later", on="r3", seconds=0.0)
        assert isinstance(await provider.get_refund(RefundRef("r3", debit)), NotFound)
        assert isinstance(await provider.refund(RefundRequest("r4", debit, 400, "CNY", "goodwill")), Succeeded)
        assert (await sandbox.debit("refunded"))["refunded_minor"] == 1_000


async def test_reports_and_the_statement_of_a_day(sandbox: Peer) -> None:
    async with provider_at(sandbox, "days", terms={"fee_per_mille": 6, "time_zone": "UTC"}) as provider:
        agreement = await sign(sandbox, provider, "ag")
        await sandbox.call("PUT", "/clock", {"now": "2026-11-21T23:59:59Z", "speed": 0})
        await provider.debit(debit_request("yesterday", agreement, 1_000))
        await sandbox.call("PUT", "/clock", {"now": "2026-11-22T00:00:00Z", "speed": 0})
        request = debit_request("today", agreement, 2_000)
        await provider.debit(request)
        await provider.refund(RefundRequest("back", debit_ref(request), 500, "CNY", "goodwill"))
        statement = await provider.statement(date(2026, 11, 22))
        assert isinstance(statement, Statement)
        assert [(row.kind, row.key, row.amount_minor, row.fee_minor) for row in statement.rows] == [
            ("debit", "today", 2_000, 12),
            ("refund", "back", 500, 0),
        ]
        assert isinstance(await provider.report_performance(debit_ref(request), "completed", "p1"), Accepted)
        await sandbox.call("PUT", "/clock", {"now": datetime.now(UTC), "speed": 1})


async def test_an_agreement_waits_for_the_rider_and_can_be_refused_or_expire(sandbox: Peer) -> None:
    async with provider_at(sandbox, "signing") as provider:
        agreement = await sign(sandbox, provider, "ag_ok", rider="a")
        status = await provider.get_agreement(agreement)
        assert isinstance(status, AgreementStatus)
        assert (status.state, status.cap_minor, status.action) == ("active", 100_000, None)
        await sandbox.script("refuse", on="nobody", code="SCORE_TOO_LOW")
        refused = await provider.begin_agreement(AgreementRequest("ag_no", "nobody", "CNY"))
        assert isinstance(refused, AgreementStatus)
        assert (refused.state, refused.code) == ("refused", "SCORE_TOO_LOW")
        limit = {"account_id": "signing", "key": "ag_ok", "valid_until": "2020-01-01T00:00:00Z"}
        await sandbox.call("POST", "/agreements", limit)
        expired = await provider.get_agreement(agreement)
        assert isinstance(expired, AgreementStatus) and expired.state == "expired"
