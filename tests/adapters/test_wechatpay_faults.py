"""Every fault that the simulator knows, on each kind of call to its WeChat Pay face: nothing moves twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from sandbox_peer import Peer, peer
from wechatpay_peer import AT, Merchant, hold_request, merchant_at, ref, request

from service.adapters.providers.port import AgreementRequest, HoldRef, RefundRef, RefundRequest, Statement
from service.billing.agreements.standing import AgreementStatus, HoldStatus
from service.billing.outcomes import (
    Accepted,
    AlreadyDone,
    Closed,
    NeedsRider,
    NotFound,
    Postponed,
    Rejected,
    Succeeded,
    Throttled,
    Unknown,
)

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
    "clock_skew",
}
FAULTS = sorted(BEFORE | AFTER)
ASKED_AGAIN = {"drop", "reset", "lost"}
"""After these the HTTP client itself asks again, where asking changes nothing (GET)."""
QUIET = "unknown_enum"
"""Where an answer has no state, or the state does not matter, this changes nothing."""


@pytest.fixture(scope="module")
async def simulator() -> AsyncIterator[Peer]:
    async with peer() as it:
        yield it


@pytest.fixture
async def shop(simulator: Peer, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Merchant]:
    async with merchant_at(simulator, request.node.name[:60], tmp_path, timeout_s=1.0) as it:
        yield it


def seconds(fault: str) -> float:
    return 360 if fault == "clock_skew" else 2


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_on_the_way_of_a_debit_moves_money_twice(shop: Merchant, fault: str) -> None:
    provider = shop.provider
    agreement = await shop.signed(f"AG_{fault}", "rider")
    hold = await shop.ordered(f"HOLD_{fault}", agreement)
    debit = request(f"DEBIT_{fault}", hold, agreement)
    await shop.peer.script(fault, on=hold.key, op="debit.take", seconds=seconds(fault))
    outcome = await provider.debit(debit)
    expected = Throttled if fault == "throttle" else Accepted | Unknown if fault == QUIET else Unknown
    assert isinstance(outcome, expected), outcome
    asked = await provider.get_debit(ref(debit))
    assert isinstance(asked, NotFound if fault in BEFORE else Succeeded), asked
    again = await provider.debit(debit)
    assert isinstance(again, Accepted if fault in BEFORE else Unknown | AlreadyDone), again  # A paid one is DONE.
    assert isinstance(await provider.get_debit(ref(debit)), Succeeded)
    line = await shop.peer.debit(hold.key)
    assert (line["paid_minor"], line["payments"]) == (1234, 1)
    await shop.peer.books()


@pytest.mark.parametrize("fault", [*FAULTS, "query_fails"])
async def test_a_query_that_fails_in_any_way_says_nothing(shop: Merchant, fault: str) -> None:
    provider = shop.provider
    agreement = await shop.signed(f"AGQ_{fault}", "rider")
    hold = await shop.ordered(f"HOLDQ_{fault}", agreement)
    debit = request(f"DEBITQ_{fault}", hold, agreement)
    await provider.debit(debit)
    paid = await provider.get_debit(ref(debit))
    assert isinstance(paid, Succeeded)
    back = RefundRequest(f"BACKQ_{fault}", ref(debit, paid.provider_ref), 100, "CNY", "goodwill")
    await provider.refund(back)
    said = Postponed if fault == "throttle" else Unknown
    for op, on, ask in (
        ("debit.get", hold.key, lambda: provider.get_debit(ref(debit))),
        ("debit.get", hold.key, lambda: provider.get_hold(hold)),
        ("refund.get", back.key, lambda: provider.get_refund(RefundRef(back.key, back.debit))),
        ("agreement.get", agreement.key, lambda: provider.get_agreement(agreement)),
    ):
        await shop.peer.script(fault, on=on, op=op, seconds=seconds(fault))
        answer = await ask()
        truth = Succeeded | HoldStatus | AgreementStatus if fault in ASKED_AGAIN else said
        assert isinstance(answer, said | truth), (op, answer)
    assert isinstance(await provider.get_debit(ref(debit)), Succeeded)
    assert isinstance(await provider.get_refund(RefundRef(back.key, back.debit)), Succeeded)


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_on_the_way_of_anything_else_does_it_twice(shop: Merchant, fault: str) -> None:
    provider = shop.provider
    agreement = await shop.signed(f"AGE_{fault}", "rider")
    order = hold_request(f"HOLDE_{fault}", agreement)
    said = Postponed if fault == "throttle" else Unknown
    await shop.peer.script(fault, on=order.key, op="hold.open", seconds=seconds(fault))
    assert isinstance(await provider.open_hold(order), said)
    opened = await provider.open_hold(order)
    assert isinstance(opened, HoldStatus) and opened.state == "open"
    hold = HoldRef(order.key, opened.provider_ref)
    debit = request(f"DEBITE_{fault}", hold, agreement)
    await provider.debit(debit)
    paid = await provider.get_debit(ref(debit))
    assert isinstance(paid, Succeeded)
    back = RefundRequest(f"BACKE_{fault}", ref(debit, paid.provider_ref), 100, "CNY", "goodwill")
    await shop.peer.script(fault, on=back.key, op="refund.make", seconds=seconds(fault))
    assert isinstance(await provider.refund(back), said)
    await shop.later(timedelta(minutes=1))
    assert isinstance(await provider.refund(back), Succeeded | Accepted)
    given = await provider.get_refund(RefundRef(back.key, back.debit))
    assert isinstance(given, Succeeded) and given.amount_minor == 100
    await shop.peer.script(fault, on=agreement.key, op="agreement.revoke", seconds=seconds(fault))
    ended = await provider.revoke_agreement(agreement)  # A refusal of WeChat Pay's own is looked into at once.
    assert isinstance(ended, said | AgreementStatus), ended
    for _ in range(3):  # The connection that a truncated answer came on may be gone.
        revoked = await provider.revoke_agreement(agreement)
        if isinstance(revoked, AgreementStatus):
            break
    assert isinstance(revoked, AgreementStatus) and revoked.state == "revoked"
    line = await shop.peer.debit(hold.key)
    assert (line["payments"], line["refunded_minor"]) == (1, 100)
    await shop.peer.books()


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_keeps_an_order_from_being_lowered_and_stopped(shop: Merchant, fault: str) -> None:
    provider = shop.provider
    agreement = await shop.signed(f"AGC_{fault}", "empty")
    await shop.wallet("empty", 0)
    unused = await shop.ordered(f"HOLDU_{fault}", agreement)
    await shop.peer.script(fault, on=unused.key, op="hold.release", seconds=seconds(fault))
    said = Postponed if fault == "throttle" else Unknown
    assert isinstance(await provider.release_hold(unused), said | HoldStatus)
    released = await provider.release_hold(unused)
    assert isinstance(released, HoldStatus) and released.state == "released"
    hold = await shop.ordered(f"HOLDC_{fault}", agreement)
    debit = request(f"DEBITC_{fault}", hold, agreement)
    assert await provider.debit(debit) == Accepted()
    await shop.peer.script(fault, on=hold.key, op="debit.nudge", seconds=seconds(fault))
    assert isinstance(await provider.nudge_debit(ref(debit)), said | Accepted)
    await shop.peer.script(fault, on=hold.key, op="debit.reduce", seconds=seconds(fault))
    assert isinstance(await provider.reduce_debit(ref(debit), 1000), said | Accepted)
    assert await provider.reduce_debit(ref(debit), 1000) == Accepted()
    await shop.peer.script(fault, on=hold.key, op="debit.settle_elsewhere", seconds=seconds(fault))
    assert isinstance(await provider.settle_elsewhere(ref(debit), AT), said | Closed)
    assert await provider.settle_elsewhere(ref(debit), AT) == Closed("PAID_ELSEWHERE", "paid")
    assert (await shop.peer.debit(hold.key))["payments"] == 0
    await shop.peer.books()


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_asks_a_rider_to_pay_twice(shop: Merchant, fault: str) -> None:
    provider = shop.provider
    await shop.wallet("payer", 5000)
    agreement = await shop.signed(f"AGP_{fault}", "payer")
    extra = request(f"EXTRA_{fault}", None, agreement, 800)
    await shop.peer.script(fault, on=extra.key, op="debit.request_payment", seconds=seconds(fault))
    said = Postponed if fault == "throttle" else Unknown
    assert isinstance(await provider.request_payment(extra), said | NeedsRider)
    asked = await provider.request_payment(extra)
    assert isinstance(asked, NeedsRider)
    assert await shop.opens(asked.action, "payer") == "openBusinessView:ok"
    assert isinstance(await provider.get_debit(ref(extra)), Succeeded)
    assert await provider.request_payment(extra) == AlreadyDone()
    line = await shop.peer.debit(extra.key)
    assert (line["paid_minor"], line["payments"]) == (800, 1)
    await shop.peer.books()


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_makes_a_permission_or_a_statement_up(shop: Merchant, fault: str) -> None:
    await shop.peer.script(fault, on=f"AGB_{fault}", op="agreement.begin", seconds=seconds(fault))
    begun = await shop.provider.begin_agreement(AgreementRequest(f"AGB_{fault}", "rider", "CNY"))
    said = Postponed if fault == "throttle" else Unknown
    assert isinstance(begun, said | AgreementStatus | Rejected), begun
    assert not isinstance(begun, AgreementStatus) or begun.state == "pending"
    day = date(2026, 1, 1)
    await shop.later(timedelta(days=1))
    await shop.peer.script(
        fault, on=day.isoformat(), op="statement.get", account=shop.account_id, seconds=seconds(fault)
    )
    answer = await shop.provider.statement(day)
    quiet = Statement | NotFound if fault in {QUIET, *ASKED_AGAIN} else said
    assert isinstance(answer, said | quiet), answer


async def test_a_refund_that_the_riders_bank_does_not_take_stays_under_way(shop: Merchant) -> None:
    provider = shop.provider
    agreement = await shop.signed("AGA", "rider")
    hold = await shop.ordered("HOLDA", agreement)
    debit = request("DEBITA", hold, agreement)
    await provider.debit(debit)
    paid = await provider.get_debit(ref(debit))
    assert isinstance(paid, Succeeded)
    back = RefundRequest("BACKA", ref(debit, paid.provider_ref), 100, "CNY", "goodwill")
    await shop.peer.script("refund_abnormal", on=back.key)
    assert isinstance(await provider.refund(back), Accepted)
    assert isinstance(await provider.get_refund(RefundRef(back.key, back.debit)), Accepted)


async def test_a_debit_of_which_the_query_lags_is_not_believed_to_be_nothing_for_good(shop: Merchant) -> None:
    agreement = await shop.signed("AGL", "rider")
    hold = await shop.ordered("HOLDL", agreement)
    debit = request("DEBITL", hold, agreement)
    await shop.peer.script("query_lag", on=hold.key, op="debit.get", seconds=3600)
    await shop.provider.debit(debit)
    assert isinstance(await shop.provider.get_debit(ref(debit)), NotFound | Accepted | Unknown | Succeeded)
    assert isinstance(await shop.provider.get_debit(ref(debit)), Succeeded)
