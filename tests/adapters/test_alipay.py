"""Alipay's adapter against the simulator's gateway, which others wrote from the same public texts, over sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from alipay_double import private_pem
from alipay_peer import Merchant, merchant_at, ref, request, simulator_with_alipay
from msgspec.structs import replace
from sandbox_peer import Peer

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
    Rejected,
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


async def test_a_whole_ride_on_zhima(zhima: Merchant) -> None:
    provider = zhima.provider
    assert await provider.check() is None
    assert await provider.get_agreement(AgreementRef("AG_WHOLE")) == NotFound()
    agreement = await zhima.signed("AG_WHOLE", "rider")
    heard = await zhima.ear.hears("agreement", "AG_WHOLE")
    assert isinstance(heard.answer, Unknown)
    hold = await zhima.ordered("HOLD_WHOLE", agreement)
    assert await provider.get_hold(HoldRef("HOLD_WHOLE")) == HoldStatus("open", hold.provider_ref)
    debit = request("DEBIT_WHOLE", hold, agreement)
    assert await provider.get_debit(ref(debit)) == NotFound()
    taken = await provider.debit(debit)
    assert isinstance(taken, Accepted)
    assert hold.provider_ref is not None
    heard = await zhima.ear.hears("debit", hold.provider_ref)
    assert heard.named_by == "hold_ref"
    paid = await provider.get_debit(ref(debit))
    assert paid == heard.answer == Succeeded(1234, taken.provider_ref)
    assert await provider.debit(debit) == AlreadyDone()
    assert await provider.request_payment(debit) == AlreadyDone()
    assert await provider.close_debit(ref(debit)) == AlreadyDone()
    finished = await provider.finish_hold(hold)
    assert isinstance(finished, HoldStatus) and finished.state == "completed"
    assert await provider.finish_hold(hold) == finished
    assert await provider.revoke_agreement(agreement) == AgreementStatus("revoked", agreement.provider_ref)
    assert await provider.revoke_agreement(AgreementRef("AG_WHOLE")) == AgreementStatus(
        "revoked", agreement.provider_ref
    )
    await zhima.peer.books()


async def test_an_order_that_can_not_be(zhima: Merchant) -> None:
    provider = zhima.provider
    agreement = await zhima.signed("AG_NONE", "rider")
    hold = await zhima.ordered("HOLD_NONE", agreement)
    same = HoldRequest("HOLD_NONE", agreement, 10_000, "CNY", "bike 7", AT)
    assert await provider.open_hold(same) == await provider.open_hold(same)
    assert await provider.release_hold(hold) == HoldStatus("released", hold.provider_ref)
    assert await provider.get_hold(hold) == HoldStatus("released", hold.provider_ref)
    late = await provider.debit(request("DEBIT_NONE", hold, agreement))
    assert late == Closed("ACQ.TRADE_HAS_CLOSE")
    assert await provider.get_hold(HoldRef("HOLD_NEVER")) == NotFound()
    assert await provider.release_hold(HoldRef("HOLD_NEVER")) == NotFound()
    await provider.revoke_agreement(agreement)
    refused = await provider.open_hold(replace(same, key="HOLD_LATE"))
    assert refused == Declined(False, "AGREEMENT_INVALID")
    unsigned = await provider.open_hold(replace(same, key="HOLD_OTHER", agreement=AgreementRef("AG_NEVER")))
    assert unsigned == Declined(False, "AGREEMENT_NOT_SIGNED")


async def test_a_rider_who_does_not_qualify(zhima: Merchant) -> None:
    await zhima.peer.script("refuse", on="bad", op="agreement.begin", code="SCORE_TOO_LOW")
    begun = await zhima.provider.begin_agreement(AgreementRequest("AG_BAD", "bad", "CNY"))
    assert isinstance(begun, AgreementStatus)
    assert await zhima.opens(begun.action, "bad") == "4000"
    assert await zhima.opens(begun.action, "coy", answer="refuse") == "6001"
    assert await zhima.provider.get_agreement(AgreementRef("AG_BAD")) == NotFound()


async def test_a_revoked_agreement_still_pays_what_was_ordered(zhima: Merchant) -> None:
    agreement = await zhima.signed("AG_MID", "rider")
    hold = await zhima.ordered("HOLD_MID", agreement)
    limit = {"account_id": zhima.account_id, "key": "AG_MID", "revoke": True}
    await zhima.peer.call("POST", "/agreements", limit)
    status = await zhima.provider.get_agreement(agreement)
    assert isinstance(status, AgreementStatus) and status.state == "revoked"
    debit = request("DEBIT_MID", hold, agreement)
    assert isinstance(await zhima.provider.debit(debit), Accepted)
    assert isinstance(await zhima.provider.get_debit(ref(debit)), Succeeded)


async def test_alipay_collects_again_and_again_and_the_rider_may_pay_first(zhima: Merchant) -> None:
    provider = zhima.provider
    agreement = await zhima.signed("AG_POOR", "poor")
    later = await zhima.ordered("HOLD_POOR1", agreement)
    await zhima.wallet("poor", 1000)
    debit = request("DEBIT_POOR1", later, agreement)
    assert isinstance(await provider.debit(debit), Accepted)
    assert isinstance(await provider.get_debit(ref(debit)), Accepted)
    assert isinstance(await provider.debit(debit), Accepted)  # The same number again: nothing more is taken.
    assert await provider.debit(replace(debit, amount_minor=1235)) == Conflict("ACQ.CONTEXT_INCONSISTENT")
    asked = await provider.request_payment(debit)
    assert isinstance(asked, NeedsRider)
    await zhima.wallet("poor", 5000)
    assert await zhima.opens(asked.action, "poor") == "9000"
    paid = await provider.get_debit(ref(debit))
    assert isinstance(paid, Succeeded) and paid.amount_minor == 1234
    assert await zhima.opens(asked.action, "poor") == "4000"
    assert (await zhima.peer.debit(str(later.provider_ref)))["payments"] == 1
    await zhima.peer.books()


async def test_what_the_rider_approves_goes_under_our_own_key(zhima: Merchant) -> None:
    provider = zhima.provider
    agreement = await zhima.signed("AG_OWN", "rider")
    extra = request("DEBIT_OWN", None, agreement, 999_999)  # Above any cap: he approves it himself.
    asked = await provider.debit(extra)
    assert isinstance(asked, NeedsRider)
    assert await provider.get_debit(ref(extra)) == NotFound()
    assert await zhima.opens(asked.action, "rider", answer="refuse") == "6001"
    assert await provider.get_debit(ref(extra)) == NeedsRider("WAIT_BUYER_PAY")
    assert await zhima.opens(asked.action, "rider") == "9000"
    heard = await zhima.ear.hears("debit", "DEBIT_OWN")
    paid = await provider.get_debit(ref(extra))
    assert heard.named_by == "key" and paid == heard.answer
    assert isinstance(paid, Succeeded) and paid.amount_minor == 999_999


async def test_an_unpaid_debit_is_closed_or_paid_elsewhere(zhima: Merchant) -> None:
    provider = zhima.provider
    agreement = await zhima.signed("AG_BROKE", "broke")
    await zhima.wallet("broke", 0)
    for key in ("CLOSED", "ELSEWHERE"):
        hold = await zhima.ordered(f"HOLD_{key}", agreement)
        debit = request(f"DEBIT_{key}", hold, agreement)
        assert isinstance(await provider.debit(debit), Accepted)
        if key == "CLOSED":
            assert await provider.close_debit(ref(debit)) == Closed()
        else:
            assert await provider.settle_elsewhere(ref(debit), AT) == Closed()
        assert hold.provider_ref is not None
        heard = await zhima.ear.hears("debit", hold.provider_ref)
        assert heard.answer == await provider.get_debit(ref(debit)) == Closed("TRADE_CLOSED")
        assert await provider.debit(debit) == Closed("ACQ.TRADE_HAS_CLOSE")
        assert isinstance(await provider.release_hold(hold), HoldStatus)


async def test_an_order_that_ends_with_its_debit_is_finished_all_the_same(peer: Peer, tmp_path: Path) -> None:
    async with merchant_at(peer, "zhima", "ends_by_itself", tmp_path, ends_hold=True) as merchant:
        agreement = await merchant.signed("AG_ENDS", "rider")
        hold = await merchant.ordered("HOLD_ENDS", agreement)
        await merchant.provider.debit(request("DEBIT_ENDS", hold, agreement))
        assert await merchant.provider.get_hold(hold) == HoldStatus("completed", hold.provider_ref)
        finished = await merchant.provider.finish_hold(hold)
        assert isinstance(finished, HoldStatus) and finished.state == "completed"
        released = await merchant.provider.release_hold(hold)  # It was paid: there is nothing to give up.
        assert isinstance(released, HoldStatus | Unknown) and released != HoldStatus("released", hold.provider_ref)


async def test_after_fifteen_days_alipay_closes_the_debit_and_the_rider_pays_a_second_number(
    peer: Peer, tmp_path: Path
) -> None:
    async with merchant_at(peer, "zhima", "fifteen_days", tmp_path, give_up_s=15 * 86_400) as merchant:
        provider = merchant.provider
        agreement = await merchant.signed("AG_DAYS", "late")
        hold = await merchant.ordered("HOLD_DAYS", agreement)
        await merchant.wallet("late", 0)
        debit = request("DEBIT_DAYS", hold, agreement)
        await provider.debit(debit)
        early = await provider.request_payment(debit)
        await merchant.at("2030-01-01T00:00:00Z")
        assert await provider.get_debit(ref(debit)) == Closed("TRADE_CLOSED")
        await merchant.wallet("late", 5000)
        assert isinstance(early, NeedsRider) and await merchant.opens(early.action, "late") == "4000"
        late = await provider.request_payment(debit)
        assert isinstance(late, NeedsRider)
        assert await merchant.opens(late.action, "late", answer="refuse") == "6001"
        assert await provider.get_debit(ref(debit)) == NeedsRider("WAIT_BUYER_PAY")
        assert await merchant.opens(late.action, "late") == "9000"
        heard = await merchant.ear.hears("debit", "DEBIT_DAYS")
        paid = await provider.get_debit(ref(debit))
        assert isinstance(paid, Succeeded) and paid == heard.answer
        assert await provider.close_debit(ref(debit)) == AlreadyDone()
        back = RefundRequest("BACK_DAYS", ref(debit), 1234, "CNY", "x")
        assert await provider.refund(back) == Succeeded(1234, "BACK_DAYS")
        await merchant.peer.books()
        await merchant.peer.call("PUT", "/clock", {"now": datetime.now(UTC), "speed": 1})


async def test_over_the_orders_cap(zhima: Merchant) -> None:
    agreement = await zhima.signed("AG_CAP", "rider")
    hold = await zhima.ordered("HOLD_CAP", agreement, 1000)
    debit = request("DEBIT_CAP", hold, agreement, 1001)
    assert await zhima.provider.debit(debit) == CapExceeded(1000)
    assert isinstance(await zhima.provider.debit(replace(debit, amount_minor=1000)), Accepted)


async def test_refunds_in_parts_repeated_and_whole(zhima: Merchant) -> None:
    provider = zhima.provider
    agreement = await zhima.signed("AG_BACK", "rider")
    hold = await zhima.ordered("HOLD_BACK", agreement)
    asked = request("DEBIT_BACK", hold, agreement)
    await provider.debit(asked)
    paid = await provider.get_debit(ref(asked))
    assert isinstance(paid, Succeeded)
    debit = ref(asked, paid.provider_ref)
    first = RefundRequest("REFUND_1", debit, 234, "CNY", "goodwill")
    assert await provider.get_refund(RefundRef("REFUND_1", debit)) == NotFound()
    assert await provider.refund(first) == Succeeded(234, "REFUND_1")
    heard = await zhima.ear.hears("refund", "REFUND_1")
    assert isinstance(heard.answer, Unknown)
    assert await provider.refund(first) == Succeeded(234, "REFUND_1")  # fund_change N: looked up.
    assert await provider.get_refund(RefundRef("REFUND_1", debit)) == Succeeded(234, "REFUND_1")
    other = await provider.refund(replace(first, amount_minor=235))
    assert other == Conflict("ACQ.DISCORDANT_REPEAT_REQUEST")
    too_much = await provider.refund(RefundRequest("REFUND_2", debit, 1001, "CNY", "goodwill"))
    assert too_much == Rejected("ACQ.REASON_TRADE_REFUND_FEE_ERR")
    assert await provider.get_debit(debit) == paid
    rest = RefundRequest("REFUND_3", ref(asked), 1000, "CNY", "goodwill")  # By our number alone.
    assert await provider.refund(rest) == Succeeded(1000, "REFUND_3")
    assert await provider.get_debit(debit) == paid  # TRADE_CLOSED, and yet it was paid.
    await zhima.peer.books()


async def test_a_refund_that_takes_its_time(peer: Peer, tmp_path: Path) -> None:
    async with merchant_at(peer, "zhima", "slow_refunds", tmp_path, refund_s=3600.0) as merchant:
        agreement = await merchant.signed("AG_SLOW", "rider")
        hold = await merchant.ordered("HOLD_SLOW", agreement)
        debit = request("DEBIT_SLOW", hold, agreement)
        await merchant.provider.debit(debit)
        back = RefundRequest("REFUND_SLOW", ref(debit), 100, "CNY", "goodwill")
        assert await merchant.provider.refund(back) == Accepted("REFUND_SLOW")
        assert await merchant.provider.get_refund(RefundRef("REFUND_SLOW", ref(debit))) == NotFound()
        assert await merchant.provider.refund(back) == Accepted("REFUND_SLOW")


async def test_notifications_are_heard_again_late_twice_and_never_tampered_with(zhima: Merchant) -> None:
    agreement = await zhima.signed("AG_EAR", "rider")
    faults = ("notify_twice", "notify_both_at_once", "notify_before_reply", "notify_unknown_enum")
    for number, fault in enumerate(faults):
        hold = await zhima.ordered(f"HOLD_EAR{number}", agreement)
        assert hold.provider_ref is not None
        op = "debit.take" if fault == "notify_before_reply" else "notice"
        await zhima.peer.script(fault, on=hold.provider_ref, op=op)
        await zhima.provider.debit(request(f"DEBIT_EAR{number}", hold, agreement))
        heard = await zhima.ear.hears("debit", hold.provider_ref)
        strange = fault == "notify_unknown_enum"
        assert heard.answer == Unknown("trade_status QUANTUM") if strange else isinstance(heard.answer, Succeeded)
        if fault in ("notify_twice", "notify_both_at_once"):
            assert (await zhima.ear.hears("debit", hold.provider_ref)).notification_id == heard.notification_id
    hold = await zhima.ordered("HOLD_EAR9", agreement)
    await zhima.peer.script("notify_tampered", on=str(hold.provider_ref), op="notice")
    await zhima.provider.debit(request("DEBIT_EAR9", hold, agreement))
    assert (await zhima.ear.refuses()).reason == "the signature is wrong"


async def test_keys_rotate_without_a_restart(zhima: Merchant) -> None:
    provider = zhima.provider
    agreement = await zhima.signed("AG_KEYS", "rider")
    await zhima.rotate()
    assert isinstance(await provider.get_agreement(agreement), Unknown)
    await zhima.take_key()
    assert isinstance(await provider.get_agreement(agreement), AgreementStatus)
    (zhima.directory / "app.pem").write_text(private_pem("somebody"))
    hold = await zhima.ordered("HOLD_KEYS", agreement)  # The key in use is good until it is refused.
    assert hold.provider_ref is not None


async def test_wrong_credentials_are_named(zhima: Merchant, tmp_path: Path) -> None:
    settings = zhima.provider.account.settings
    (tmp_path / "other.pem").write_text(private_pem("somebody"))
    for changed, told in (
        ({"app_id": "2021999999999999"}, "settings.app_id"),
        ({"app_private_key_file": str(tmp_path / "other.pem")}, "app_private_key"),
    ):
        wrong = open_provider(MerchantAccount(1, "wrong", "alipay", zhima.peer.url, settings | changed))
        found = await wrong.check()
        assert isinstance(found, Rejected) and told in found.message, found
        await wrong.close()
    await zhima.rotate()
    found = await zhima.provider.check()
    assert isinstance(found, Rejected) and "alipay_public_key" in found.message
    gone = open_provider(MerchantAccount(1, "gone", "alipay", "http://127.0.0.1:9", settings))
    assert isinstance(await gone.check(), Throttled)
    await gone.close()


async def test_the_bill_of_a_day(peer: Peer, tmp_path: Path) -> None:
    async with merchant_at(peer, "zhima", "bills", tmp_path, fee_per_mille=6) as merchant:
        await merchant.at("2026-11-22T15:59:59Z")
        agreement = await merchant.signed("AG_BILL", "rider")
        hold = await merchant.ordered("HOLD_BILL", agreement)
        debit = request("DEBIT_BILL", hold, agreement, 2000)
        await merchant.provider.debit(debit)
        await merchant.provider.refund(RefundRequest("BACK_BILL", ref(debit), 500, "CNY", "goodwill"))
        await merchant.at("2026-11-23T16:00:01Z")
        read = await merchant.provider.statement(date(2026, 11, 22))
        assert isinstance(read, Statement), read
        assert [(row.kind, row.key, row.amount_minor, row.fee_minor) for row in read.rows] == [
            ("debit", hold.provider_ref, 2000, 12),
            ("refund", "BACK_BILL", 500, 0),
        ]
        await merchant.peer.call("PUT", "/clock", {"now": datetime.now(UTC), "speed": 1})
