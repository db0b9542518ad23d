"""The Stripe adapter and a server that nobody here wrote: localstripe.

What localstripe lacks is listed in `localstripe_door`. What only Stripe itself can show is not tried here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from localstripe_door import KEY, Localstripe, localstripe
from proxy import Proxy
from stripe_world import DECLINED_CARD, WEBHOOK_SECRET, prepared, provider_at, ref, request, sign

from service.adapters.providers.port import (
    AgreementRef,
    HoldRef,
    HoldRequest,
    Provider,
    RefundRef,
    RefundRequest,
    Statement,
)
from service.billing.agreements.standing import AgreementStatus, HoldStatus
from service.billing.outcomes import (
    Accepted,
    AlreadyDone,
    ClientSecret,
    Closed,
    Declined,
    NeedsRider,
    NotFound,
    Prepared,
    Succeeded,
    Unknown,
)

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Localstripe]:
    async with localstripe() as it:
        yield it


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_KEY", KEY)
    monkeypatch.setenv("STRIPE_WEBHOOK", WEBHOOK_SECRET)


@pytest.fixture
async def adapter(server: Localstripe) -> AsyncIterator[Provider]:
    async with provider_at(server.url) as provider:
        yield provider


async def test_the_account_is_checked_by_calls_that_move_nothing(server: Localstripe, adapter: Provider) -> None:
    server.door.seen.clear()
    assert await adapter.check() is None
    assert all(call.startswith("GET ") for call in server.door.seen)


async def test_a_rider_signs_rides_pays_and_gets_it_back(server: Localstripe, adapter: Provider) -> None:
    agreement = await sign(server, adapter, "AGJOURNEY")
    first = request("DJOURNEY", agreement)
    assert await adapter.get_debit(ref(first, None)) == NotFound()
    number = await prepared(adapter, first)
    assert await server.charges(number) == []
    assert await adapter.get_debit(ref(first, number)) == Prepared(number)
    assert await adapter.get_debit(ref(first, None)) == Prepared(number), "a restored database has lost its number"
    assert await adapter.debit(request("DJOURNEY", agreement, provider_ref=number)) == Succeeded(1250, number)
    assert await adapter.get_debit(ref(first, number)) == Succeeded(1250, number)
    assert await adapter.get_debit(ref(first, None)) == Succeeded(1250, number)
    assert await adapter.close_debit(ref(first, number)) == AlreadyDone()
    back = RefundRequest("RJOURNEY", ref(first, number), 450, "EUR", "goodwill")
    refunded = await adapter.refund(back)
    assert isinstance(refunded, Succeeded) and refunded.amount_minor == 450
    assert await adapter.get_refund(RefundRef("RJOURNEY", back.debit)) == refunded
    assert await adapter.get_refund(RefundRef("RJOURNEY", back.debit, refunded.provider_ref)) == refunded
    assert await adapter.get_refund(RefundRef("RNEVER", back.debit)) == NotFound()
    revoked = await adapter.revoke_agreement(agreement)
    assert isinstance(revoked, AgreementStatus) and revoked.state == "revoked"
    seen = await adapter.get_agreement(agreement)
    assert isinstance(seen, AgreementStatus) and (seen.state, seen.code) == ("revoked", "detached")
    assert await adapter.revoke_agreement(agreement) == revoked


async def test_replies_are_lost_and_everything_is_sent_again_and_there_is_one_charge_and_one_refund(
    server: Localstripe,
) -> None:
    """localstripe ignores idempotency keys: only what the adapter does keeps the money from moving twice."""
    address = server.url.removeprefix("http://").split(":")
    proxy = Proxy(address[0], int(address[1]))
    port = await proxy.start()
    async with AsyncExitStack() as stack, provider_at(f"http://127.0.0.1:{port}") as provider:
        stack.push_async_callback(proxy.stop)
        agreement = await sign(server, provider, "AGLOST")
        proxy.lose_replies()
        assert isinstance(await provider.debit(request("DLOST", agreement)), Unknown)
        proxy.mend()
        assert isinstance(await provider.get_debit(ref(request("DLOST", agreement), None)), Prepared)
        number = await prepared(provider, request("DLOST", agreement))  # The first one stays unconfirmed, for ever.
        again = request("DLOST", agreement, provider_ref=number)
        proxy.lose_replies()
        assert isinstance(await provider.debit(again), Unknown)
        assert isinstance(await provider.debit(again), Unknown)
        proxy.mend()
        assert await provider.debit(again) == Succeeded(1250, number)
        assert await provider.get_debit(ref(again, number)) == Succeeded(1250, number)
        back = RefundRequest("RLOST", ref(again, number), 1250, "EUR", "void")
        assert await _lost_refund(server, proxy, provider, back) == Succeeded(1250, "")
    listed = await server.call("GET", "v1/payment_intents", limit="1000")
    same = [payment for payment in listed["data"] if payment["metadata"].get("farebox_key") == "DLOST"]
    assert len(same) == 2, "localstripe was expected to ignore the idempotency key"
    assert [len(await server.charges(payment["id"])) for payment in same if payment["id"] != number] == [0]
    (charge,) = await server.charges(number)
    assert (charge["amount"], charge["amount_refunded"]) == (1250, 1250)


async def _lost_refund(server: Localstripe, proxy: Proxy, provider: Provider, back: RefundRequest) -> Succeeded:
    """The look for the refund is answered; the refund is made, and its answer is lost; all is sent again."""
    server.door.at_call(2, proxy.lose_replies)
    assert isinstance(await provider.refund(back), Unknown)
    proxy.mend()
    outcome = await provider.refund(back)
    assert isinstance(outcome, Succeeded)
    return Succeeded(outcome.amount_minor, "")


async def test_a_declined_debit_is_tried_again_under_its_number(server: Localstripe, adapter: Provider) -> None:
    agreement = await sign(server, adapter, "AGPOOR", DECLINED_CARD)
    number = await prepared(adapter, request("DPOOR", agreement))
    declined = Declined(True, "card_declined")
    first = request("DPOOR", agreement, provider_ref=number)
    assert await adapter.debit(first) == declined
    assert await adapter.get_debit(ref(first, number)) == declined
    assert await adapter.debit(request("DPOOR", agreement, provider_ref=number, attempt=2)) == declined
    customer, setup, _ = str(agreement.provider_ref).split(":")
    better = AgreementRef("AGPOOR", f"{customer}:{setup}:{await server.card(customer)}")
    for attempt in (3, 4):  # The fourth finds it paid.
        lower = request("DPOOR", better, 1000, provider_ref=number, attempt=attempt)
        assert await adapter.debit(lower) == Succeeded(1000, number)
    assert [charge["amount"] for charge in await server.charges(number)] == [1000]


async def test_the_rider_pays_the_same_number_himself_and_no_try_takes_it_again(
    server: Localstripe, adapter: Provider
) -> None:
    agreement = await sign(server, adapter, "AGSELF", DECLINED_CARD)
    number = await prepared(adapter, request("DSELF", agreement))
    tried = request("DSELF", agreement, provider_ref=number)
    assert isinstance(await adapter.debit(tried), Declined)
    asked = await adapter.request_payment(tried)
    assert isinstance(asked, NeedsRider) and isinstance(asked.action, ClientSecret)
    assert asked.action.client_secret.startswith(f"{number}_secret_")
    customer = str(agreement.provider_ref).split(":")[0]
    card = await server.card(customer)  # In his app, with another card, through the door: see its docstring.
    confirm = f"{server.url}/v1/payment_intents/{number}/confirm"
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        aiohttp.ClientSession(headers=headers) as app,
        app.post(confirm, data={"payment_method": card}) as answer,
    ):
        assert answer.status == 200
    assert await adapter.debit(request("DSELF", agreement, provider_ref=number, attempt=2)) == Succeeded(1250, number)
    assert await adapter.request_payment(tried) == AlreadyDone()
    assert len(await server.charges(number)) == 1


async def test_an_unpaid_debit_is_lowered_and_closed(server: Localstripe, adapter: Provider) -> None:
    agreement = await sign(server, adapter, "AGCLOSE")
    unpaid = request("DCLOSE", agreement)
    assert await adapter.close_debit(ref(unpaid, None)) == NotFound()
    number = await prepared(adapter, unpaid)
    assert await adapter.reduce_debit(ref(unpaid, number), 900) == Accepted(number)
    assert (await server.call("GET", f"v1/payment_intents/{number}"))["amount"] == 900
    assert await adapter.close_debit(ref(unpaid, number)) == Closed("canceled")
    assert await adapter.close_debit(ref(unpaid, number)) == Closed("canceled")
    assert await adapter.settle_elsewhere(ref(unpaid, number), AT) == Closed("canceled")
    assert isinstance(await adapter.debit(request("DCLOSE", agreement, provider_ref=number)), Closed)


async def test_a_hold_is_captured_for_less_released_or_done_without(server: Localstripe) -> None:
    async with provider_at(server.url, hold="manual_capture") as provider:
        assert provider.capabilities.hold_needed
        agreement = await sign(server, provider, "AGHOLD")
        opened = await provider.open_hold(HoldRequest("HRIDE", agreement, 5000, "EUR", "bike 7", AT))
        assert isinstance(opened, HoldStatus) and (opened.state, opened.cap_minor) == ("open", 5000)
        hold = HoldRef("HRIDE", opened.provider_ref)
        assert await provider.get_hold(hold) == opened
        asked = request("DHOLD", agreement, hold=hold)
        assert await provider.get_debit(ref(asked, None)) == NotFound()
        assert await provider.debit(asked) == Succeeded(1250, hold.provider_ref)
        assert await provider.debit(asked) == Succeeded(1250, hold.provider_ref)
        assert await provider.get_debit(ref(asked, None)) == Succeeded(1250, hold.provider_ref)
        more = await prepared(provider, request("DMORE", agreement, 300, hold=hold))  # The hold is used up.
        assert more != hold.provider_ref
        assert isinstance(
            await provider.debit(request("DMORE", agreement, 300, hold=hold, provider_ref=more)), Succeeded
        )
        finished = await provider.finish_hold(hold)
        assert isinstance(finished, HoldStatus) and finished.state == "completed"
        second = await provider.open_hold(HoldRequest("HNONE", agreement, 5000, "EUR", "bike 8", AT))
        assert isinstance(second, HoldStatus)
        none = HoldRef("HNONE", second.provider_ref)
        released = await provider.release_hold(none)
        assert isinstance(released, HoldStatus) and released.state == "released"
        assert await provider.release_hold(none) == released
        late = await prepared(provider, request("DLATE", agreement, hold=none))
        assert isinstance(await provider.debit(request("DLATE", agreement, hold=none, provider_ref=late)), Succeeded)
        refused = await provider.open_hold(
            HoldRequest("HPOOR", await sign(server, provider, "AGHPOOR", DECLINED_CARD), 5000, "EUR", "bike 9", AT)
        )
        assert isinstance(refused, HoldStatus) and (refused.state, refused.code) == ("refused", "card_declined")


async def test_the_statement_has_each_movement_once_with_our_keys(server: Localstripe, adapter: Provider) -> None:
    agreement = await sign(server, adapter, "AGBOOKS")
    number = await prepared(adapter, request("DBOOKS", agreement))
    began = datetime.now(UTC)
    paid = request("DBOOKS", agreement, provider_ref=number)
    await adapter.debit(paid)
    await adapter.refund(RefundRequest("RBOOKS", ref(paid, number), 250, "EUR", "goodwill"))
    days = {began.date(), datetime.now(UTC).date()}
    rows = []
    for day in sorted(days):
        statement = await adapter.statement(day)
        assert isinstance(statement, Statement), statement
        rows += [row for row in statement.rows if row.key in ("DBOOKS", "RBOOKS")]
    assert sorted((row.kind, row.key, row.amount_minor, row.currency) for row in rows) == [
        ("debit", "DBOOKS", 1250, "EUR"),
        ("refund", "RBOOKS", 250, "EUR"),
    ]
    other = await adapter.statement(began.date() - timedelta(days=9))
    assert isinstance(other, Statement) and other.rows == ()
