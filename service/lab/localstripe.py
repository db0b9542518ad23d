"""localstripe 1.15 as a process on loopback, and a door in front of it for what it lacks.

localstripe (github.com/adrienverge/localstripe) is a Stripe that nobody here wrote, with books of its own. It **ignores
idempotency keys**, which makes it a good hostile peer: the same call again is done again. The door adds what Stripe's
documentation promises and localstripe does not have, and nothing else; each line of it says what:

- `description`, and `off_session` of a confirmation, are not known to it;
- a PaymentIntent that was declined can be confirmed again with a payment method
  (docs.stripe.com/payments/paymentintents/lifecycle): localstripe leaves it in `requires_payment_method` for ever, so
  the door has it forget the failed charge;
- an amount that is changed stays a number: localstripe keeps the text of the form;
- a cancelled PaymentIntent can't be captured: localstripe takes the money all the same;
- a capture takes `metadata` and answers with `amount_received`, and so does the payment when it is read again;
- lists are filtered by `created`, and payments by `customer`, the latest first;
- any key that begins with `sk_` will do for it: the door refuses every other one than `KEY`;
- it has no disputes: the list of them is empty.

Also missing there: idempotency, amounts that are too small or too large, `authentication_required` off session,
disputes, restricted keys, 429 and 5xx, decline codes other than `card_declined`. A SetupIntent can't be confirmed in
the call that makes it, and its payment method is not attached to the customer by it: a rider here attaches first, which
Stripe allows too.
"""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

KEY = "sk_test_farebox"
GOOD_CARD = "4242424242424242"
DECLINED_CARD = "4000000000000341"
"""Can be attached, and is declined when it is charged (docs.stripe.com/testing)."""
BASIC = f"Basic {b64encode(f'{KEY}:'.encode()).decode()}"
"""As curl says it (`-u KEY:`)."""
KEY_REFUSED = {"error": {"type": "invalid_request_error", "message": "Invalid API Key provided"}}
UNEXPECTED_STATE = {"error": {"type": "invalid_request_error", "code": "payment_intent_unexpected_state"}}
_START = """
import sys
from aiohttp import web
from localstripe import resources
from localstripe.server import app
type(resources.store).dump_to_disk = lambda store: None
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""


def command(port: int) -> list[str]:
    """Starts localstripe on 127.0.0.1 (its own command listens everywhere), with its books in memory alone: it would
    write all of them into one file of the machine's at every change."""
    return [sys.executable, "-W", "ignore", "-c", _START, str(port)]


class Door:
    """Passes calls on to localstripe at `target`."""

    def __init__(self, target: str, session: aiohttp.ClientSession) -> None:
        self.target = target
        self._session = session
        self._received: dict[str, int] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers one call as Stripe would."""
        if request.headers.get("Authorization") not in (f"Bearer {KEY}", BASIC):
            return web.json_response(KEY_REFUSED, status=401)
        if request.path == "/v1/disputes":
            return web.json_response({"object": "list", "data": [], "has_more": False})
        key = {"Authorization": request.headers["Authorization"]}
        form = {name: str(value) for name, value in (await request.post()).items()}
        fields = [(name, value) for name, value in form.items() if name != "description"]
        filters = ("created[", "customer")
        query = [(name, value) for name, value in request.query.items() if not name.startswith(filters)]
        number, verb = request.match_info.get("number"), request.match_info.get("verb")
        if number and verb == "confirm":
            await self._make_confirmable(number, form["payment_method"], key)
            fields = []
        if number and verb == "capture":
            fields = [("amount_to_capture", form["amount_to_capture"])]
            _, intent = await self._call("GET", f"/v1/payment_intents/{number}", [], [], key)
            if intent["status"] == "canceled":
                return web.json_response(UNEXPECTED_STATE, status=400)
        if number and verb is None and "amount" in form:
            await self._change(number, {"amount": int(form["amount"])}, key)
            fields = []
        method = "GET" if number and verb is None and not fields else request.method
        status, body = await self._call(method, request.path, fields, query, key)
        if number and verb == "capture" and status == 200:
            self._received[number] = int(form["amount_to_capture"])
            metadata = [(name, value) for name, value in form.items() if name.startswith("metadata[")]
            status, body = await self._call("POST", f"/v1/payment_intents/{number}", metadata, [], key)
        if body.get("id") in self._received:
            body["amount_received"] = self._received[body["id"]]
        if "created[gte]" in request.query:
            first, end = int(request.query["created[gte]"]), int(request.query["created[lt]"])
            body["data"] = [row for row in body["data"] if first <= row["created"] < end]
        if request.path == "/v1/payment_intents" and "customer" in request.query:
            body["data"] = [row for row in body["data"] if row["customer"] == request.query["customer"]][::-1]
        return web.json_response(body, status=status)

    async def _make_confirmable(self, number: str, method: str, key: dict[str, str]) -> None:
        """The payment method goes to the PaymentIntent first; one that was declined is as if it had not been tried."""
        _, intent = await self._call("GET", f"/v1/payment_intents/{number}", [], [], key)
        charge = intent.get("latest_charge")
        if charge is None or charge["status"] == "failed":
            await self._change(number, {"payment_method": method, "latest_charge": None}, key)

    async def _change(self, number: str, changes: dict[str, Any], key: dict[str, str]) -> None:
        url = f"{self.target}/v1/payment_intents/{number}"
        async with self._session.post(url, json=changes, headers=key) as answer:
            assert answer.status == 200, await answer.text()

    async def _call(
        self,
        method: str,
        path: str,
        fields: list[tuple[str, str]],
        query: list[tuple[str, str]],
        key: dict[str, str],
    ) -> tuple[int, Any]:
        data = aiohttp.FormData(fields) if fields else None
        async with self._session.request(method, self.target + path, params=query, data=data, headers=key) as answer:
            return answer.status, await answer.json(content_type=None)


@asynccontextmanager
async def open_door(door: Door, port: int = 0) -> AsyncIterator[str]:
    """The door on 127.0.0.1 (port 0: a free one); gives its address."""
    app = web.Application()
    app.router.add_route("*", "/v1/payment_intents/{number}/{verb}", door.handle)
    app.router.add_route("*", "/v1/payment_intents/{number}", door.handle)
    app.router.add_route("*", "/{path:.*}", door.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Books:
    """localstripe itself: the rider's app, and a look at what really happened. No door between."""

    def __init__(self, target: str, session: aiohttp.ClientSession) -> None:
        self.target = target
        self._session = session

    async def call(self, method: str, path: str, **fields: str) -> Any:
        """Something that the adapter does not do. Raises aiohttp.ClientResponseError for a refusal."""
        headers = {"Authorization": f"Bearer {KEY}"}
        data = fields if method == "POST" else None
        params = fields if method == "GET" else None
        async with self._session.request(
            method, f"{self.target}/{path}", data=data, params=params, headers=headers
        ) as answer:
            answer.raise_for_status()
            return await answer.json(content_type=None) if answer.content_type == "application/json" else None

    async def list_all(self, what: str) -> list[Any]:
        """Every object of a kind: `charges`, `payment_intents`, `refunds`."""
        listed = await self.call("GET", f"v1/{what}", limit="100000")
        found: list[Any] = listed["data"]
        return found

    async def card(self, customer: str, number: str = GOOD_CARD) -> str:
        """A card of the rider, attached to his customer."""
        card = {"card[number]": number, "card[exp_month]": "12", "card[exp_year]": "2030", "card[cvc]": "123"}
        method = await self.call("POST", "v1/payment_methods", type="card", **card)
        await self.call("POST", f"v1/payment_methods/{method['id']}/attach", customer=customer)
        found: str = method["id"]
        return found

    async def sign(self, client_secret: str, number: str = GOOD_CARD) -> None:
        """The rider's app completes a SetupIntent by its client secret, with a card."""
        setup = client_secret.partition("_secret_")[0]
        known = await self.call("GET", f"v1/setup_intents/{setup}")
        card = await self.card(known["customer"], number)
        await self.call("POST", f"v1/setup_intents/{setup}/confirm", client_secret=client_secret, payment_method=card)
