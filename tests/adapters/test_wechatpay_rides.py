"""Whole rides through the simulator's WeChat Pay face, over HTTP, with real signatures in both directions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path

import msgspec
import pytest
from sandbox_peer import Peer, peer
from wechatpay_double import ITEMS
from wechatpay_peer import AT, Merchant, hold_request, merchant_at, ref, request

from service.adapters.providers import open_provider
from service.adapters.providers.port import (
    AgreementRef,
    AgreementRequest,
    DisputeStatus,
    HoldRef,
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
    MiniProgram,
    NeedsRider,
    NotFound,
    Postponed,
    Rejected,
    Succeeded,
    Unknown,
)


@pytest.fixture(scope="module")
async def simulator() -> AsyncIterator[Peer]:
    async with peer() as it:
        yield it


@pytest.fixture
async def shop(simulator: Peer, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Merchant]:
    async with merchant_at(simulator, request.node.name[:60], tmp_path) as it:
        yield it


async def test_a_ride_from_permission_to_refund(shop: Merchant) -> None:
    provider = shop.provider
    assert await provider.check() is None
    await shop.wallet("ann", 5000)
    assert await provider.get_agreement(AgreementRef("AG")) == NotFound()
    agreement = await shop.signed("AG", "ann")
    assert isinstance((await shop.ear.hears("agreement", "AG")).answer, Unknown)
    hold = await shop.ordered("H0LD", agreement)
    assert await provider.open_hold(hold_request("H0LD", agreement)) == HoldStatus("open", hold.provider_ref, 10_000)
    debit = msgspec.structs.replace(request("DEBIT", hold, agreement), items=ITEMS)
    assert await provider.get_debit(ref(debit)) == NotFound()
    assert await provider.debit(debit) == Accepted()
    assert await provider.debit(debit) in (Accepted(), Unknown("code INVALID_REQUEST_271302262"))
    paid = await provider.get_debit(ref(debit))
    assert isinstance(paid, Succeeded) and paid.amount_minor == 1234
    told = await shop.ear.hears("debit", "H0LD")
    assert (told.named_by, told.answer) == ("hold", paid)
    taken = ref(debit, paid.provider_ref)
    back = RefundRequest("BACK1", taken, 234, "CNY", "goodwill")
    given = await provider.refund(back)
    assert isinstance(given, Succeeded | Accepted), given
    assert await provider.get_refund(RefundRef("BACK1", taken)) == Succeeded(234, given.provider_ref)
    assert (await shop.ear.hears("refund", "BACK1")).answer == Succeeded(234, given.provider_ref)
    second = RefundRequest("BACK2", taken, 1000, "CNY", "all of it")
    soon = await provider.refund(second)
    assert isinstance(soon, Postponed) and soon.retry_after == timedelta(minutes=1)
    assert await provider.get_refund(RefundRef("BACK2", taken)) == NotFound()
    await shop.later(timedelta(minutes=1))
    assert isinstance(await provider.refund(second), Succeeded | Accepted)
    assert isinstance(
        await provider.refund(msgspec.structs.replace(back, amount_minor=1)), Unknown | Rejected | Conflict
    )
    assert await provider.finish_hold(hold) == HoldStatus("completed", hold.provider_ref)
    line = await shop.peer.debit("DEBIT") or await shop.peer.debit("H0LD")
    assert (line["paid_minor"], line["payments"], line["refunded_minor"]) == (1234, 1, 1234)
    assert await provider.revoke_agreement(agreement) == AgreementStatus("revoked", agreement.provider_ref)
    await shop.peer.books()


async def test_a_ride_that_was_charged_before_its_order_is_sent_with_the_orders_time(shop: Merchant) -> None:
    await shop.wallet("bea", 5000)
    agreement = await shop.signed("AG", "bea")
    await shop.later(timedelta(hours=2))
    hold = await shop.ordered("H0LD", agreement)
    debit = request("DEBIT", hold, agreement)
    assert await shop.provider.debit(debit) == Accepted()
    assert isinstance(await shop.provider.get_debit(ref(debit)), Succeeded)
    later = await shop.ordered("H0LD2", agreement)
    end = AT + timedelta(days=1)
    future = msgspec.structs.replace(request("DEBIT2", later, agreement), started_at=AT, ended_at=end)
    assert await shop.provider.debit(future) == Accepted()


async def test_a_debit_waits_for_money_and_is_nudged_lowered_or_paid_by_the_rider(shop: Merchant) -> None:
    provider = shop.provider
    await shop.wallet("cy", 0)
    agreement = await shop.signed("AG", "cy")
    hold = await shop.ordered("H0LD", agreement)
    debit = request("DEBIT", hold, agreement)
    assert await provider.debit(debit) == Accepted()
    assert await provider.get_debit(ref(debit)) == Accepted()
    assert isinstance(await provider.close_debit(ref(debit)), Rejected)
    assert await provider.reduce_debit(ref(debit), 1000) == Accepted()
    assert await provider.reduce_debit(ref(debit), 1000) == Accepted()
    lower = msgspec.structs.replace(ref(debit), amount_minor=1000)
    assert await provider.get_debit(lower) == Accepted()
    assert await provider.nudge_debit(lower) == Accepted()
    assert await provider.get_debit(lower) == Accepted()
    asked = await provider.request_payment(debit)
    assert isinstance(asked, NeedsRider) and isinstance(asked.action, MiniProgram)
    assert asked.action.extra_data["out_order_no"] == "H0LD"
    await shop.wallet("cy", 4000)
    await shop.pays("H0LD")
    paid = await provider.get_debit(lower)
    assert isinstance(paid, Succeeded) and paid.amount_minor == 1000
    assert await provider.nudge_debit(lower) == AlreadyDone()
    assert await provider.request_payment(debit) == AlreadyDone()
    assert await provider.settle_elsewhere(lower, AT) == AlreadyDone()
    assert await provider.close_debit(lower) == AlreadyDone()
    assert isinstance(await provider.reduce_debit(lower, 500), Succeeded)
    assert (await shop.ear.hears("debit", "H0LD")).answer == paid
    await shop.peer.books()


async def test_what_is_paid_elsewhere_is_collected_by_nobody(shop: Merchant) -> None:
    await shop.wallet("dan", 0)
    agreement = await shop.signed("AG", "dan")
    hold = await shop.ordered("H0LD", agreement)
    debit = request("DEBIT", hold, agreement)
    await shop.provider.debit(debit)
    assert await shop.provider.settle_elsewhere(ref(debit), AT) == Closed("PAID_ELSEWHERE", "paid")
    assert await shop.provider.settle_elsewhere(ref(debit), AT) == Closed("PAID_ELSEWHERE", "paid")
    await shop.wallet("dan", 5000)
    await shop.later(timedelta(days=2))
    assert await shop.provider.get_debit(ref(debit)) == Closed("PAID_ELSEWHERE", "paid")
    assert await shop.provider.close_debit(ref(debit)) == Closed("PAID_ELSEWHERE", "paid")
    assert await shop.provider.finish_hold(hold) == HoldStatus("completed", hold.provider_ref)


async def test_an_order_that_nobody_used_is_cancelled(shop: Merchant) -> None:
    agreement = await shop.signed("AG", "eve")
    hold = await shop.ordered("H0LD", agreement)
    assert await shop.provider.release_hold(hold) == HoldStatus("released", hold.provider_ref)
    assert await shop.provider.release_hold(hold) == HoldStatus("released", hold.provider_ref)
    assert await shop.provider.get_hold(hold) == HoldStatus("released", hold.provider_ref)
    assert await shop.provider.get_debit(ref(request("DEBIT", hold, agreement))) == Closed("REVOKED", "cancelled")
    assert await shop.provider.get_hold(HoldRef("NEVER_PAID")) == NotFound()
    await shop.peer.books()


async def test_the_order_under_way_is_still_collected_after_the_permission_ends(shop: Merchant) -> None:
    await shop.wallet("flo", 5000)
    agreement = await shop.signed("AG", "flo")
    hold = await shop.ordered("H0LD", agreement)
    await shop.terminates("flo")
    assert await shop.provider.get_agreement(agreement) == AgreementStatus("revoked", agreement.provider_ref)
    await shop.ear.hears("agreement", "AG")
    debit = request("DEBIT", hold, agreement)
    assert await shop.provider.debit(debit) == Accepted()
    assert isinstance(await shop.provider.get_debit(ref(debit)), Succeeded)
    refused = await shop.provider.open_hold(hold_request("H0LD2", agreement))
    assert isinstance(refused, Declined) and refused.code == "NO_AUTH"


async def test_a_permission_is_ended_once_nothing_is_open(shop: Merchant) -> None:
    agreement = await shop.signed("AG", "gus")
    hold = await shop.ordered("H0LD", agreement)
    assert isinstance(await shop.provider.revoke_agreement(agreement), Unknown)
    await shop.provider.release_hold(hold)
    assert await shop.provider.revoke_agreement(agreement) == AgreementStatus("revoked", agreement.provider_ref)
    assert await shop.provider.revoke_agreement(agreement) == AgreementStatus("revoked", agreement.provider_ref)


async def test_a_rider_who_has_not_agreed_gets_no_order(shop: Merchant) -> None:
    begun = await shop.provider.begin_agreement(AgreementRequest("AG", "hal", "CNY"))
    assert isinstance(begun, AgreementStatus) and begun.state == "pending"
    assert await shop.provider.get_agreement(AgreementRef("AG")) == AgreementStatus("pending")
    unsigned = await shop.provider.open_hold(hold_request("H0LD", AgreementRef("AG")))
    assert unsigned == Declined(False, "AGREEMENT_NOT_SIGNED")
    assert await shop.opens(begun.action, "hal", "refuse") == "openBusinessView:cancel"
    assert await shop.provider.get_agreement(AgreementRef("AG")) == AgreementStatus("pending")


async def test_conflicts_and_caps_are_told(simulator: Peer, tmp_path: Path) -> None:
    async with merchant_at(simulator, "caps", tmp_path, risk_fund_name="DEPOSIT") as shop:
        await conflicts_and_caps(shop)


async def conflicts_and_caps(shop: Merchant) -> None:
    await shop.wallet("ivy", 0)
    agreement = await shop.signed("AG", "ivy")
    hold = await shop.ordered("H0LD", agreement, 2000)
    assert isinstance(await shop.provider.open_hold(hold_request("H0LD", agreement, 3000)), Conflict)
    assert await shop.provider.debit(request("DEBIT", hold, agreement, 2001)) == CapExceeded(2000)
    assert await shop.provider.debit(request("DEBIT", hold, agreement, 2000)) == Accepted()
    assert isinstance(await shop.provider.debit(request("DEBIT", hold, agreement, 1999)), Conflict)
    assert isinstance(await shop.provider.get_debit(ref(request("DEBIT", hold, agreement, 1999))), Conflict)
    assert await shop.provider.debit(request("D", HoldRef("NEVER_PAID"), agreement)) == Rejected("ORDER_NOT_EXIST")


async def test_a_fourth_order_and_a_second_unpaid_one_are_refused(simulator: Peer, tmp_path: Path) -> None:
    async with merchant_at(simulator, "limits", tmp_path, holds_max=3, unpaid_max=1) as shop:
        await shop.wallet("jo", 0)
        agreement = await shop.signed("AG", "jo")
        holds = [await shop.ordered(f"H0LD{index}", agreement) for index in range(3)]
        refused = await shop.provider.open_hold(hold_request("H0LD3", agreement))
        assert isinstance(refused, Declined) and refused.code == "ASSESSMENT_FAILED" and refused.message
        for hold in holds[:2]:
            await shop.provider.debit(request(f"D{hold.key}", hold, agreement))
        await shop.provider.release_hold(holds[2])
        refused = await shop.provider.open_hold(hold_request("H0LD4", agreement))
        assert isinstance(refused, Declined) and refused.code == "UNPAID_ORDERS"


@pytest.mark.parametrize("number", ["271300099", "268560785"])
async def test_a_refused_order_says_why(shop: Merchant, number: str) -> None:
    agreement = await shop.signed("AG", "kim")
    await shop.peer.script("refuse", on=f"H{number}", op="hold.open", code=number)
    refused = await shop.provider.open_hold(hold_request(f"H{number}", agreement))
    assert isinstance(refused, Declined) and refused.retryable is (number == "271300099")


async def test_an_order_may_be_paid_in_parts(shop: Merchant) -> None:
    await shop.wallet("lea", 5000)
    agreement = await shop.signed("AG", "lea")
    hold = await shop.ordered("H0LD", agreement)
    debit = request("DEBIT", hold, agreement)
    await shop.peer.script("partial", on="H0LD")
    assert await shop.provider.debit(debit) == Accepted()
    part = await shop.provider.get_debit(ref(debit))
    assert isinstance(part, Succeeded) and part.amount_minor == 617
    await shop.provider.nudge_debit(ref(debit))
    await shop.later(timedelta(days=1))
    whole = await shop.provider.get_debit(ref(debit))
    assert isinstance(whole, Succeeded) and (whole.amount_minor, whole.provider_ref) == (1234, part.provider_ref)
    assert [each.amount_minor for each in whole.parts] == [617, 617]
    back = await shop.provider.refund(RefundRequest("BACK", ref(debit, part.provider_ref), 617, "CNY", "half"))
    assert isinstance(back, Succeeded | Accepted)
    too_much = await shop.provider.refund(RefundRequest("BACK2", ref(debit, part.provider_ref), 618, "CNY", "more"))
    assert isinstance(too_much, Rejected) and too_much.code == "NO_SUCH_PAYMENT"


async def test_a_further_debit_is_a_payment_that_the_rider_approves(shop: Merchant) -> None:
    provider = shop.provider
    await shop.wallet("mia", 5000)
    agreement = await shop.signed("AG", "mia")
    extra = request("EXTRA_DEBIT", None, agreement, 800)
    assert await provider.get_debit(ref(extra)) == NotFound()
    asked = await provider.request_payment(extra)
    assert isinstance(asked, NeedsRider) and isinstance(asked.action, MiniProgram)
    assert asked.action.extra_data["package"].startswith("prepay_id=")
    assert isinstance(await provider.debit(extra), NeedsRider)
    waiting = await provider.get_debit(ref(extra))
    assert isinstance(waiting, NeedsRider) and waiting.code == "NOTPAY"
    assert await shop.opens(asked.action, "mia") == "openBusinessView:ok"
    paid = await provider.get_debit(ref(extra))
    assert isinstance(paid, Succeeded) and paid.amount_minor == 800
    told = await shop.ear.hears("debit", "EXTRA_DEBIT")
    assert (told.named_by, told.answer) == ("key", paid)
    assert await provider.request_payment(extra) == AlreadyDone()
    assert isinstance(await provider.close_debit(ref(extra)), AlreadyDone | Unknown)
    taken = ref(extra, paid.provider_ref)
    assert isinstance(await provider.refund(RefundRequest("BACK", taken, 300, "CNY", "x")), Succeeded | Accepted)
    never = request("NEVER_PAID", None, agreement, 800)
    await provider.request_payment(never)
    assert await provider.close_debit(ref(never)) == Closed()
    assert await provider.get_debit(ref(never)) == Closed("CLOSED")
    await shop.peer.books()


async def test_a_rider_confirms_each_order(simulator: Peer, tmp_path: Path) -> None:
    async with merchant_at(simulator, "confirming", tmp_path, need_user_confirm=True) as shop:
        await shop.wallet("ned", 5000)
        opened = await shop.provider.open_hold(hold_request("H0LD", AgreementRef("AG")))
        assert isinstance(opened, HoldStatus) and opened.state == "pending"
        waiting = await shop.provider.get_hold(HoldRef("H0LD"))
        assert isinstance(waiting, HoldStatus) and isinstance(waiting.action, MiniProgram)
        assert await shop.opens(waiting.action, "ned") == "openBusinessView:ok"
        told = await shop.ear.hears("hold", "H0LD")
        assert isinstance(told.answer, HoldStatus) and told.answer.state == "open"
        hold = HoldRef("H0LD", told.answer.provider_ref)
        assert await shop.provider.get_hold(hold) == told.answer
        debit = request("DEBIT", hold, AgreementRef("AG"))
        assert await shop.provider.debit(debit) == Accepted()
        assert isinstance(await shop.provider.get_debit(ref(debit)), Succeeded)
        extra = msgspec.structs.replace(request("EXTRA_DEBIT", None, AgreementRef("AG"), 800), beside=hold)
        asked = await shop.provider.request_payment(extra)  # His order tells who he is.
        assert isinstance(asked, NeedsRider) and asked.action is not None
        assert await shop.opens(asked.action, "ned") == "openBusinessView:ok"
        paid = await shop.provider.get_debit(ref(extra))
        assert isinstance(paid, Succeeded) and paid.amount_minor == 800
        waits = HoldRef("H0LD2")
        await shop.provider.open_hold(hold_request("H0LD2", AgreementRef("AG")))
        await shop.later(timedelta(days=31))
        expired = await shop.provider.get_hold(waits)
        assert isinstance(expired, HoldStatus) and expired.state == "expired"


async def test_complaints_are_announced_asked_about_and_end(shop: Merchant) -> None:
    await shop.wallet("oz", 5000)
    agreement = await shop.signed("AG", "oz")
    hold = await shop.ordered("H0LD", agreement)
    debit = request("DEBIT", hold, agreement)
    await shop.provider.debit(debit)
    paid = await shop.provider.get_debit(ref(debit))
    assert isinstance(paid, Succeeded) and paid.provider_ref is not None
    await shop.complains("H0LD")
    heard = await shop.ear.hears("dispute")
    assert isinstance(heard.answer, Unknown)  # What it is about is asked for.
    told = DisputeStatus(paid.provider_ref, "complaint", "opened", 1234, "CNY", heard.key, key="H0LD", named_by="hold")
    assert await shop.provider.get_dispute(heard.key) == (told,)
    assert await shop.provider.get_dispute("NO_SUCH_COMPLAINT") == NotFound()
    await shop.complains("H0LD", state="resolved")
    assert (await shop.ear.hears("dispute")).key == heard.key
    assert await shop.provider.get_dispute(heard.key) == (msgspec.structs.replace(told, state="resolved"),)


async def test_a_days_statement_names_our_orders_payments_and_refunds(shop: Merchant) -> None:
    await shop.wallet("pam", 9000)
    agreement = await shop.signed("AG", "pam")
    hold = await shop.ordered("H0LD", agreement)
    debit, extra = request("DEBIT", hold, agreement), request("EXTRA_DEBIT", None, agreement, 800)
    await shop.provider.debit(debit)
    asked = await shop.provider.request_payment(extra)
    assert isinstance(asked, NeedsRider)
    await shop.opens(asked.action, "pam")
    paid = await shop.provider.get_debit(ref(debit))
    assert isinstance(paid, Succeeded)
    await shop.provider.refund(RefundRequest("BACK", ref(debit, paid.provider_ref), 234, "CNY", "goodwill"))
    day = date(2026, 11, 22)
    assert await shop.provider.statement(day) == NotFound()
    await shop.later(timedelta(days=1))
    statement = await shop.provider.statement(day)
    assert isinstance(statement, Statement)
    rows = {(row.kind, row.key): row for row in statement.rows}
    assert {key: row.amount_minor for key, row in rows.items()} == {
        ("debit", "H0LD"): 1234,
        ("debit", "EXTRA_DEBIT"): 800,
        ("refund", "BACK"): 234,
    }
    assert rows["debit", "H0LD"].provider_ref == paid.provider_ref
    assert rows["debit", "H0LD"].occurred_at == AT
    assert rows["debit", "H0LD"].fee_minor >= 0 >= rows["refund", "BACK"].fee_minor


@pytest.mark.parametrize(
    ("setting", "value"),
    [("mchid", "1999999999"), ("appid", "wx1"), ("service_id", "1"), ("merchant_serial_no", "1DDE")],
)
async def test_an_account_that_wechat_pay_does_not_know_so_is_named(shop: Merchant, setting: str, value: str) -> None:
    account = shop.provider.account
    wrong = msgspec.structs.replace(account, settings=account.settings | {setting: value})
    provider = open_provider(wrong)
    found = await provider.check()
    await provider.close()
    named = "serial number" if setting == "merchant_serial_no" else f"settings.{setting}"
    assert isinstance(found, Rejected) and named in found.message
