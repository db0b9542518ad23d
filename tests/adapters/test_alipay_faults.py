"""Every fault that the simulator knows, on each kind of call to its Alipay gateway: nothing moves twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from alipay_peer import Merchant, merchant_at, ref, request, simulator_with_alipay
from sandbox_peer import Peer

from service.adapters.providers.port import (
    AgreementRef,
    HoldRef,
    HoldRequest,
    RefundRef,
    RefundRequest,
    Statement,
)
from service.billing.agreements.standing import AgreementStatus, HoldStatus
from service.billing.outcomes import (
    Accepted,
    AlreadyDone,
    Closed,
    Declined,
    NotFound,
    Succeeded,
    Throttled,
    Unknown,
)

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.fixture(scope="module")
async def peer() -> AsyncIterator[Peer]:
    async with simulator_with_alipay() as it:
        yield it


@pytest.fixture
async def zhima(peer: Peer, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Merchant]:
    async with merchant_at(peer, "zhima", request.node.name[:60], tmp_path, timeout_s=1.0) as it:
        yield it


@pytest.fixture
async def preauth(peer: Peer, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Merchant]:
    async with merchant_at(peer, "preauth", request.node.name[:60], tmp_path, timeout_s=1.0) as it:
        yield it


BEFORE = {"drop", "reset", "error_before", "unavailable_before", "throttle", "unknown_code"}
AFTER = {
    "half_open",
    "lost",
    "error_after",
    "unavailable_after",
    "html",
    "truncated",
    "unknown_enum",
    "bad_signature",
    "rotated_key",
}
FAULTS = sorted(BEFORE | AFTER)


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_on_the_way_of_a_debit_moves_money_twice(zhima: Merchant, fault: str) -> None:
    provider = zhima.provider
    agreement = await zhima.signed(f"AG_{fault}", "rider")
    hold = await zhima.ordered(f"HOLD_{fault}", agreement)
    debit = request(f"DEBIT_{fault}", hold, agreement)
    await zhima.peer.script(fault, on=str(hold.provider_ref), op="debit.take", seconds=2)
    outcome = await provider.debit(debit)
    assert isinstance(outcome, Throttled if fault == "throttle" else Unknown), outcome
    asked = await provider.get_debit(ref(debit))
    assert isinstance(asked, NotFound if fault in BEFORE else Succeeded), asked
    again = await provider.debit(debit)
    assert isinstance(again, Accepted if fault in BEFORE else AlreadyDone), again
    line = await zhima.peer.debit(str(hold.provider_ref))
    assert (line["paid_minor"], line["payments"]) == (1234, 1)
    await zhima.peer.books()


@pytest.mark.parametrize("fault", [*FAULTS, "query_fails"])
async def test_a_query_that_fails_in_any_way_says_nothing(zhima: Merchant, fault: str) -> None:
    provider = zhima.provider
    agreement = await zhima.signed(f"AGQ_{fault}", "rider")
    hold = await zhima.ordered(f"HOLDQ_{fault}", agreement)
    debit = request(f"DEBITQ_{fault}", hold, agreement)
    await provider.debit(debit)
    back = RefundRequest(f"BACKQ_{fault}", ref(debit), 100, "CNY", "goodwill")
    await provider.refund(back)
    for op, on in (("debit.get", hold.provider_ref), ("refund.get", back.key), ("hold.get", hold.key)):
        await zhima.peer.script(fault, on=str(on), op=op, seconds=2)
    await zhima.peer.script(fault, on=agreement.key, op="agreement.get", seconds=2)
    for answer in (
        await provider.get_debit(ref(debit)),
        await provider.get_refund(RefundRef(back.key, ref(debit))),
        await provider.get_hold(hold),
        await provider.get_agreement(agreement),
    ):
        assert isinstance(answer, Throttled if fault == "throttle" else Unknown), answer
    assert isinstance(await provider.get_debit(ref(debit)), Succeeded)
    assert isinstance(await provider.get_refund(RefundRef(back.key, ref(debit))), Succeeded)


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_on_the_way_of_anything_else_does_it_twice(zhima: Merchant, fault: str) -> None:
    provider = zhima.provider
    agreement = await zhima.signed(f"AGE_{fault}", "rider")
    order = HoldRequest(f"HOLDE_{fault}", agreement, 10_000, "CNY", "bike 7", AT)
    said = Throttled if fault == "throttle" else Unknown
    quiet = fault == "unknown_enum"  # Where an answer has no state, there is nothing to change.
    await zhima.peer.script(fault, on=order.key, op="hold.open", seconds=2)
    assert isinstance(await provider.open_hold(order), said)
    opened = await provider.open_hold(order)
    assert isinstance(opened, HoldStatus) and opened.state == "open"
    hold = HoldRef(order.key, opened.provider_ref)
    debit = request(f"DEBITE_{fault}", hold, agreement)
    await provider.debit(debit)
    back = RefundRequest(f"BACKE_{fault}", ref(debit), 100, "CNY", "goodwill")
    await zhima.peer.script(fault, on=back.key, op="refund.make", seconds=2)
    assert quiet or isinstance(await provider.refund(back), said)
    assert await provider.refund(back) == Succeeded(100, back.key)
    await zhima.peer.script(fault, on=hold.key, op="hold.finish", seconds=2)
    ended = await provider.finish_hold(hold)
    assert isinstance(ended, said | HoldStatus), ended
    finished = await provider.finish_hold(hold)
    assert isinstance(finished, HoldStatus) and finished.state == "completed"
    await zhima.peer.script(fault, on=agreement.key, op="agreement.revoke", seconds=2)
    ended_too = await provider.revoke_agreement(agreement)  # A refusal of Alipay's own is looked into at once.
    assert isinstance(ended_too, said | AgreementStatus), ended_too
    revoked = await provider.revoke_agreement(agreement)
    assert isinstance(revoked, AgreementStatus) and revoked.state == "revoked"
    line = await zhima.peer.debit(str(hold.provider_ref))
    assert (line["payments"], line["refunded_minor"]) == (1, 100)
    await zhima.peer.books()


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_keeps_a_debit_from_being_stopped(zhima: Merchant, fault: str) -> None:
    provider = zhima.provider
    agreement = await zhima.signed(f"AGC_{fault}", "empty")
    await zhima.wallet("empty", 0)
    hold = await zhima.ordered(f"HOLDC_{fault}", agreement)
    debit = request(f"DEBITC_{fault}", hold, agreement)
    await provider.debit(debit)
    for op in ("performance.report", "debit.close"):
        await zhima.peer.script(fault, on=str(hold.provider_ref), op=op, seconds=2)
    said = Throttled if fault == "throttle" else Unknown
    for _ in range(3):
        ended = await provider.settle_elsewhere(ref(debit), AT)
        assert isinstance(ended, said | Closed), ended
    assert isinstance(ended, Closed)
    await zhima.peer.script(fault, on=hold.key, op="hold.release", seconds=2)
    assert isinstance(await provider.release_hold(hold), said | HoldStatus)
    released = await provider.release_hold(hold)
    assert isinstance(released, HoldStatus) and released.state == "released"
    assert (await zhima.peer.debit(str(hold.provider_ref)))["payments"] == 0


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_makes_a_statement_up(zhima: Merchant, fault: str) -> None:
    day = date(2026, 1, 1)
    await zhima.peer.script(fault, on=day.isoformat(), op="statement.get", account=zhima.account_id, seconds=2)
    answer = await zhima.provider.statement(day)
    quiet = fault == "unknown_enum"  # There is no state in the answer.
    assert isinstance(answer, Statement if quiet else Throttled if fault == "throttle" else Unknown), answer


async def test_an_agreement_that_ends_a_moment_before_a_call(zhima: Merchant) -> None:
    agreement = await zhima.signed("AG_MOMENT", "rider")
    hold = await zhima.ordered("HOLD_MOMENT", agreement)
    debit = request("DEBIT_MOMENT", hold, agreement)
    await zhima.peer.script("revoke", on=str(hold.provider_ref), op="debit.take")
    assert isinstance(await zhima.provider.debit(debit), Accepted)  # The ride under way is still collected.
    assert isinstance(await zhima.provider.get_debit(ref(debit)), Succeeded)
    late = HoldRequest("HOLD_MOMENT2", agreement, 10_000, "CNY", "bike 7", AT)
    assert await zhima.provider.open_hold(late) == Declined(False, "AGREEMENT_INVALID")


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_moves_pre_authorised_money_twice(preauth: Merchant, fault: str) -> None:
    provider = preauth.provider
    hold = await preauth.frozen(f"HOLDP_{fault}", "rider")
    debit = request(f"DEBITP_{fault}", hold, AgreementRef("none"))
    await preauth.peer.script(fault, on=debit.key, op="debit.take", seconds=2)
    outcome = await provider.debit(debit)
    quiet = fault == "unknown_enum"  # The answer to a debit has no state here.
    expected = Succeeded if quiet else Throttled if fault == "throttle" else Unknown
    assert isinstance(outcome, expected), outcome
    asked = await provider.get_debit(ref(debit))
    assert isinstance(asked, NotFound if fault in BEFORE else Succeeded), asked
    again = await provider.debit(debit)
    assert isinstance(again, Succeeded if fault in BEFORE else AlreadyDone), again
    line = await preauth.peer.debit(debit.key)
    assert (line["paid_minor"], line["payments"]) == (1234, 1)
    await preauth.peer.books()
