"""A double of Stripe's HTTP interface for what localstripe can't do: it answers what a test tells it to, in the bodies
that Stripe's documentation shows, and keeps what it was asked."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web

from service.adapters.providers import open_provider
from service.adapters.providers.port import AgreementRef, MerchantAccount, Provider

MISSING = {"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "No such object"}}
AGREEMENT = AgreementRef("ag", "cus_1:seti_1:pm_1")


class Asked(msgspec.Struct, frozen=True):
    """One call that came."""

    call: str
    form: dict[str, str]
    headers: Mapping[str, str]


class Double:
    """`says` queues an answer to a call; the last one stays."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self._answers: dict[str, deque[tuple[int, bytes, dict[str, str]]]] = defaultdict(deque)

    def says(self, call: str, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        self._answers[call].append((status, raw, headers or {}))

    def forget(self) -> None:
        """Nothing was asked, and nothing is to be said."""
        self.asked.clear()
        self._answers.clear()

    @property
    def calls(self) -> list[str]:
        return [asked.call for asked in self.asked]

    async def handle(self, request: web.Request) -> web.Response:
        call = f"{request.method} {request.path.removeprefix('/v1/')}"
        form = {name: str(value) for name, value in (*request.query.items(), *(await request.post()).items())}
        self.asked.append(Asked(call, form, request.headers.copy()))
        waiting = self._answers[call]
        if not waiting:
            return web.json_response(MISSING, status=404)
        status, body, headers = waiting.popleft() if len(waiting) > 1 else waiting[0]
        return web.Response(status=status, body=body, headers=headers)


@asynccontextmanager
async def double() -> AsyncIterator[Double]:
    """The double on a free port of 127.0.0.1."""
    it = Double()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", it.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    it.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield it
    finally:
        await runner.cleanup()


@asynccontextmanager
async def provider_at(url: str, **settings: Any) -> AsyncIterator[Provider]:
    """A Stripe account in test mode whose server is at `url`; secrets come from the environment of the test."""
    given: dict[str, Any] = {"secret_key_env": "STRIPE_KEY", "webhook_secret_env": "STRIPE_WEBHOOK"}
    given |= {"currency": "EUR", "mode": "test"}
    given = {name: value for name, value in (given | settings).items() if value is not None}
    provider = open_provider(MerchantAccount(1, "cards", "stripe", url, given))
    try:
        yield provider
    finally:
        await provider.close()


def intent(status: str, **more: Any) -> dict[str, Any]:
    """A PaymentIntent over 12.50 EUR (docs.stripe.com/api/payment_intents/object)."""
    return {
        "id": "pi_1",
        "object": "payment_intent",
        "status": status,
        "amount": 1250,
        "amount_received": 1250 if status == "succeeded" else 0,
        "currency": "eur",
        "client_secret": "pi_1_secret_1",
        "capture_method": "automatic_async",
        "customer": "cus_1",
        "metadata": {"farebox_key": "D1"},
        "livemode": False,
    } | more


def card_error(code: str, decline_code: str | None = None, **more: Any) -> dict[str, Any]:
    """A declined payment (docs.stripe.com/api/errors)."""
    error = {
        "type": "card_error",
        "code": code,
        "decline_code": decline_code,
        "message": "Your card was declined.",
    } | more
    unpaid = intent("requires_payment_method", last_payment_error=error)
    return {"error": error | {"payment_intent": unpaid}}


def bad_request(code: str | None, **more: Any) -> dict[str, Any]:
    """A call that was refused (docs.stripe.com/api/errors)."""
    return {"error": {"type": "invalid_request_error", "code": code, "message": "It was refused."} | more}
