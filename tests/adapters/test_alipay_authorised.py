"""Pre-authorised rides at the simulator's Alipay gateway, which others wrote from the same public texts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alipay_peer import Merchant, merchant_at, ref, request, simulator_with_alipay
from msgspec.structs import replace
from sandbox_peer import Peer

from service.adapters.providers.port import (
    AgreementRef,
    HoldRef,
    HoldRequest,
    RefundRequest,
)
from service.billing.agreements.standing import HoldStatus
from service.billing.outcomes import (
    Accepted,
    AlreadyDone,
    CapExceeded,
    Conflict,
    Declined,
    NeedsRider,
    NotFound,
    Succeeded,
)

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.fixture(scope="module")
async def peer() -> AsyncIterator[Peer]:
    async with simulator_with_alipay() as it:
        yield it


@pytest.fixture
async def preauth(peer: Peer, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Merchant]:
    async with merchant_at(peer, "preauth", request.node.name[:60], tmp_path, timeout_s=1.0) as it:
        yield it


async def test_a_ride_on_a_pre_authorisation(preauth: Merchant) -> None:
    provider = preauth.provider
    none = AgreementRef("none")
    hold = await preauth.frozen("HOLD_AUTH", "rider")
    heard = await preauth.ear.hears("hold", "HOLD_AUTH")
    assert heard.answer == HoldStatus("open", hold.provider_ref, 10_000)
    debit = request("DEBIT_AUTH", hold, none)
    assert await provider.debit(replace(debit, amount_minor=10_001)) == CapExceeded(10_000)
    paid = await provider.debit(debit)
    assert isinstance(paid, Succeeded) and paid.amount_minor == 1234
    heard = await preauth.ear.hears("debit", "DEBIT_AUTH")
    assert heard.named_by == "key" and heard.answer == paid == await provider.get_debit(ref(debit))
    assert await provider.debit(debit) == AlreadyDone()
    finished = await provider.finish_hold(hold)
    assert isinstance(finished, HoldStatus) and finished.state == "completed"
    reported = await provider.report_performance(ref(debit, paid.provider_ref), "completed", "PERF_AUTH")
    assert isinstance(reported, Accepted)
    assert await provider.refund(RefundRequest("BACK_AUTH", ref(debit), 34, "CNY", "x")) == Succeeded(34, "BACK_AUTH")
    await preauth.peer.books()


async def test_a_freeze_that_is_refused_not_used_or_not_enough(preauth: Merchant) -> None:
    provider = preauth.provider
    refusing = HoldRequest("HOLD_REFUSED", AgreementRef("none"), 10_000, "CNY", "bike 7", AT)
    asked = await provider.open_hold(refusing)
    assert isinstance(asked, HoldStatus)
    assert await provider.get_hold(HoldRef("HOLD_REFUSED")) == NotFound()
    assert await preauth.opens(asked.action, "rider", answer="refuse") == "6001"
    ended = await provider.get_hold(HoldRef("HOLD_REFUSED"))
    assert isinstance(ended, HoldStatus) and ended.state == "expired"
    looked_at = await provider.open_hold(replace(refusing, key="HOLD_LOOKED"))
    assert isinstance(looked_at, HoldStatus)
    await preauth.opens(looked_at.action, "rider", answer="look")
    waiting = await provider.get_hold(HoldRef("HOLD_LOOKED"))
    assert isinstance(waiting, HoldStatus) and waiting.state == "pending"
    cancelled = await provider.release_hold(HoldRef("HOLD_LOOKED"))
    assert isinstance(cancelled, HoldStatus) and cancelled.state == "released"
    await preauth.opens(waiting.action, "rider")
    gone = await provider.get_hold(HoldRef("HOLD_LOOKED"))
    assert isinstance(gone, HoldStatus) and gone.state in ("released", "expired")
    unused = await preauth.frozen("HOLD_UNUSED", "rider")
    released = await provider.release_hold(unused)
    assert isinstance(released, HoldStatus) and released.state == "released"
    seen = await provider.get_hold(unused)
    assert isinstance(seen, HoldStatus) and seen.state == "released"
    assert isinstance(await provider.release_hold(unused), HoldStatus)


async def test_a_pre_authorised_debit_that_fails_is_tried_again_by_us(preauth: Merchant) -> None:
    provider = preauth.provider
    hold = await preauth.frozen("HOLD_SHORT", "short")
    await preauth.wallet("short", 0)
    debit = request("DEBIT_SHORT", hold, AgreementRef("none"))
    assert await provider.debit(debit) == Declined(True, "ACQ.BUYER_BALANCE_NOT_ENOUGH")
    assert await provider.get_debit(ref(debit)) == Declined(True, "WAIT_BUYER_PAY")
    assert await provider.debit(replace(debit, amount_minor=1235)) == Conflict("ACQ.CONTEXT_INCONSISTENT")
    reported = await provider.report_performance(ref(debit), "violated", "PERF_SHORT")
    assert isinstance(reported, Accepted)
    asked = await provider.request_payment(debit)
    assert isinstance(asked, NeedsRider)
    await preauth.wallet("short", 1234)
    assert await preauth.opens(asked.action, "short") == "9000"
    paid = await provider.get_debit(ref(debit))
    assert isinstance(paid, Succeeded)
    assert await provider.debit(debit) == AlreadyDone()
    assert (await preauth.peer.debit(debit.key))["payments"] == 1
    finished = await provider.finish_hold(hold)
    assert isinstance(finished, HoldStatus) and finished.state == "completed"
    await preauth.peer.books()
