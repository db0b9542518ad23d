"""The Stripe adapter beside Stripe's own Python client: at the same server, and over the same webhooks.

What localstripe lacks is listed in `localstripe_door`. What only Stripe itself can show is not tried here.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
import stripe
from aiohttp import web
from localstripe_door import KEY, Localstripe, localstripe
from stripe_world import WEBHOOK_SECRET, prepared, provider_at, ref, request, sign

from service.adapters.providers.port import (
    AgreementRef,
    BadNotification,
    DebitRef,
    Notification,
    Provider,
    RefundRef,
    RefundRequest,
)
from service.billing.agreements.standing import AgreementStatus
from service.billing.outcomes import Succeeded


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


@pytest.fixture
async def client(server: Localstripe) -> AsyncIterator[stripe.StripeClient]:
    """Stripe's own client with its base address changed."""
    http = stripe.AIOHTTPClient()
    yield stripe.StripeClient(KEY, base_addresses={"api": server.url}, http_client=http, max_network_retries=0)
    await http.close_async()  # type: ignore[no-untyped-call]  # Theirs.


async def test_stripes_own_client_signs_debits_queries_refunds_and_reads_a_webhook(
    server: Localstripe, adapter: Provider, client: stripe.StripeClient
) -> None:
    """None of it by our adapter, which only looks on: it reads the same agreement, debit, refund and webhook."""
    async with hooked(server) as came:
        customer = await client.v1.customers.create_async({"metadata": {"farebox_key": "AGOWN"}})
        setup = await client.v1.setup_intents.create_async({"customer": customer.id, "usage": "off_session"})
        assert (setup.status, setup.customer) == ("requires_payment_method", customer.id)
        card = await client.v1.payment_methods.create_async(
            {"type": "card", "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2030, "cvc": "123"}}
        )
        await client.v1.payment_methods.attach_async(card.id, {"customer": customer.id})
        signed = await client.v1.setup_intents.confirm_async(setup.id, {"payment_method": card.id})
        assert signed.status == "succeeded"
        seen = await adapter.get_agreement(AgreementRef("AGOWN", f"{customer.id}:{setup.id}"))
        assert isinstance(seen, AgreementStatus), seen
        assert (seen.state, seen.provider_ref) == ("active", f"{customer.id}:{setup.id}:{card.id}")
        taken = await client.v1.payment_intents.create_async(
            {
                "amount": 900,
                "currency": "eur",
                "customer": customer.id,
                "payment_method": card.id,
                "confirm": True,
                "off_session": True,
                "metadata": {"farebox_key": "DOWN"},
            }
        )
        read = await client.v1.payment_intents.retrieve_async(taken.id)
        assert (read.status, read.amount) == ("succeeded", 900)
        debit = DebitRef("DOWN", 900, "EUR", taken.id, AgreementRef("AGOWN", seen.provider_ref))
        assert await adapter.get_debit(debit) == Succeeded(900, taken.id)
        made = await client.v1.refunds.create_async(
            {"payment_intent": taken.id, "amount": 300, "metadata": {"farebox_key": "ROWN"}}
        )
        assert (await client.v1.refunds.retrieve_async(made.id)).amount == 300
        assert await adapter.get_refund(RefundRef("ROWN", debit)) == Succeeded(300, made.id)
        event, paid = await heard(came, adapter, "DOWN")
    assert (event.type, event.data.object["id"]) == ("payment_intent.succeeded", taken.id)
    assert (paid.about, paid.answer, paid.ack.status) == ("debit", Succeeded(900, taken.id), 200)


async def test_webhooks_of_localstripe_are_read(server: Localstripe, adapter: Provider) -> None:
    """Delivered by localstripe over HTTP, signed by it."""
    async with hooked(server) as came:
        agreement = await sign(server, adapter, "AGHOOK")
        number = await prepared(adapter, request("DHOOK", agreement))
        await adapter.debit(request("DHOOK", agreement, provider_ref=number))
        _, paid = await heard(came, adapter, "DHOOK")
    assert (paid.about, paid.answer, paid.ack.status) == ("debit", Succeeded(1250, number), 200)


Came = asyncio.Queue[tuple[dict[str, str], bytes]]


@asynccontextmanager
async def hooked(server: Localstripe) -> AsyncIterator[Came]:
    """An address that localstripe tells everything."""
    came: Came = asyncio.Queue()

    async def take(asked: web.Request) -> web.Response:
        await came.put(({name.lower(): value for name, value in asked.headers.items()}, await asked.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hook = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    await server.call("POST", "_config/webhooks/farebox", url=hook, secret=WEBHOOK_SECRET)
    try:
        yield came
    finally:
        await runner.cleanup()


async def heard(came: Came, adapter: Provider, key: str) -> tuple[stripe.Event, Notification]:
    """The webhook about a key of ours, as Stripe's library reads it, and as we do: both believe each one that comes."""
    while True:
        headers, body = await asyncio.wait_for(came.get(), 20)
        event = stripe.Webhook.construct_event(body, headers["stripe-signature"], WEBHOOK_SECRET)
        notice = adapter.parse_notification(headers, body, datetime.now(UTC))
        assert notice.ack.status == 200, notice
        if isinstance(notice, Notification) and notice.key == key:
            return event, notice


async def test_stripes_own_client_sees_and_refunds_what_the_adapter_took(
    server: Localstripe, adapter: Provider, client: stripe.StripeClient
) -> None:
    agreement = await sign(server, adapter, "AGCLIENT")
    number = await prepared(adapter, request("DCLIENT", agreement))
    await adapter.debit(request("DCLIENT", agreement, provider_ref=number))
    read = await client.v1.payment_intents.retrieve_async(number)
    assert (read.status, read.amount, read.currency) == ("succeeded", 1250, "eur")
    assert read.metadata["farebox_key"] == "DCLIENT"
    made = await client.v1.refunds.create_async(
        {"payment_intent": number, "amount": 300, "metadata": {"farebox_key": "RCLIENT"}}
    )
    debit = ref(request("DCLIENT", agreement), number)
    assert await adapter.get_refund(RefundRef("RCLIENT", debit)) == Succeeded(300, made.id)
    assert await adapter.refund(RefundRequest("RCLIENT", debit, 300, "EUR", "again")) == Succeeded(300, made.id)
    ours = await adapter.refund(RefundRequest("ROURS", debit, 200, "EUR", "more"))
    assert isinstance(ours, Succeeded)
    listed = await client.v1.refunds.list_async({"payment_intent": number})
    found = {}
    for refund in listed.data:
        assert refund.metadata is not None
        found[refund.metadata["farebox_key"]] = refund.amount
    assert found == {"RCLIENT": 300, "ROURS": 200}


async def test_what_stripes_own_client_took_is_read_and_refunded_by_the_adapter(
    server: Localstripe, adapter: Provider, client: stripe.StripeClient
) -> None:
    agreement = await sign(server, adapter, "AGTHEIRS")
    customer, _, card = str(agreement.provider_ref).split(":")
    taken = await client.v1.payment_intents.create_async(
        {
            "amount": 700,
            "currency": "eur",
            "customer": customer,
            "payment_method": card,
            "confirm": True,
            "off_session": True,
            "metadata": {"farebox_key": "DTHEIRS"},
        }
    )
    debit = DebitRef("DTHEIRS", 700, "EUR", taken.id, agreement)
    assert await adapter.get_debit(debit) == Succeeded(700, taken.id)
    refunded = await adapter.refund(RefundRequest("RTHEIRS", debit, 700, "EUR", "void"))
    assert isinstance(refunded, Succeeded)
    assert (await client.v1.refunds.retrieve_async(str(refunded.provider_ref))).amount == 700


@pytest.mark.parametrize(
    ("header", "good"),
    [
        ("t={now},v1={good}", True),
        ("t={now},v1={other},v1={good},v0=00", True),
        ("t={now},v1={good},v1={other}", True),
        ("t={old},v1={good_old}", False),
        ("t={now},v1={other}", False),
        ("t={now},v0={good}", False),
        ("t={now}", False),
        ("v1={good}", False),
        ("", False),
        ("t=x,v1={good}", False),
    ],
)
async def test_signatures_are_accepted_and_refused_as_stripes_own_library_does(
    adapter: Provider, header: str, good: bool
) -> None:
    body = json.dumps({"id": "evt_1", "object": "event", "type": "customer.created", "data": {"object": {}}})
    now, old = int(datetime.now(UTC).timestamp()), int(datetime.now(UTC).timestamp()) - 400
    sign = stripe.WebhookSignature.generate_signature_header
    documented = hmac.digest(WEBHOOK_SECRET.encode(), f"{now}.{body}".encode(), "sha256").hex()
    assert sign(body, WEBHOOK_SECRET, now) == f"t={now},v1={documented}"
    parts = {
        "now": now,
        "old": old,
        "good": documented,
        "good_old": sign(body, WEBHOOK_SECRET, old).partition("v1=")[2],
        "other": sign(body, "whsec_another", now).partition("v1=")[2],
    }
    given = header.format(**parts)
    try:
        stripe.Webhook.construct_event(body.encode(), given, WEBHOOK_SECRET)
        theirs = True
    except stripe.SignatureVerificationError:
        theirs = False
    ours = adapter.parse_notification({"stripe-signature": given}, body.encode(), datetime.now(UTC))
    assert isinstance(ours, BadNotification)  # A customer is nothing of ours: taken and left, if it is genuine.
    assert theirs is good
    assert (ours.ack.status == 200) is good
