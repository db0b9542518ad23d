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
- lists are filtered by `created`, and an event says its `livemode`.

Also missing there, and tried against `stripe_double` instead: idempotency, amounts that are too small or too large,
`authentication_required` off session, disputes, restricted keys, 429 and 5xx, decline codes other than `card_declined`.
A SetupIntent can't be confirmed in the call that makes it, and its payment method is not attached to the customer by
it: the tests' rider attaches first, which Stripe allows too.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
from aiohttp import web

KEY = "sk_test_farebox"
UNEXPECTED_STATE = {"error": {"type": "invalid_request_error", "code": "payment_intent_unexpected_state"}}
_START = """
import sys
from aiohttp import web
from localstripe.server import app
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
"""


class Door:
    """Passes calls on to localstripe at `target`; `seen` are the calls that came, as "METHOD path"."""

    def __init__(self, target: str, session: aiohttp.ClientSession) -> None:
        self.target = target
        self.seen: list[str] = []
        self._when: dict[int, Callable[[], None]] = {}
        self._session = session
        self._received: dict[str, int] = {}

    def at_call(self, number: int, do: Callable[[], None]) -> None:
        """Does something as soon as that many more calls have come, before the last of them is answered."""
        self._when[len(self.seen) + number] = do

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append(f"{request.method} {request.path}")
        self._when.pop(len(self.seen), lambda: None)()
        key = {"Authorization": request.headers.get("Authorization", "")}
        form = {name: str(value) for name, value in (await request.post()).items()}
        fields = [(name, str(value)) for name, value in (await request.post()).items() if name != "description"]
        query = [(name, value) for name, value in request.query.items() if not name.startswith("created[")]
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


class Localstripe:
    """A running localstripe: `url` of the door, `target` of itself."""

    def __init__(self, url: str, door: Door, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.target = door.target
        self.door = door
        self._session = session

    async def call(self, method: str, path: str, **fields: str) -> Any:
        """Something that the adapter does not do: the rider's app, or a look at the books. At localstripe itself."""
        headers = {"Authorization": f"Bearer {KEY}"}
        data = fields if method == "POST" else None
        params = fields if method == "GET" else None
        async with self._session.request(
            method, f"{self.target}/{path}", data=data, params=params, headers=headers
        ) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json(content_type=None) if answer.content_type == "application/json" else None

    async def charges(self, payment: str) -> list[Any]:
        """The charges of a payment that succeeded, by localstripe's books."""
        listed = await self.call("GET", "v1/charges", limit="1000")
        return [charge for charge in listed["data"] if charge["payment_intent"] == payment and charge["paid"]]

    async def card(self, customer: str, number: str = "4242424242424242") -> str:
        """A card of the rider, attached to his customer."""
        card = {"card[number]": number, "card[exp_month]": "12", "card[exp_year]": "2030", "card[cvc]": "123"}
        method = await self.call("POST", "v1/payment_methods", type="card", **card)
        await self.call("POST", f"v1/payment_methods/{method['id']}/attach", customer=customer)
        found: str = method["id"]
        return found


@asynccontextmanager
async def localstripe() -> AsyncIterator[Localstripe]:
    """localstripe on a free port of 127.0.0.1 (its own command listens everywhere), and the door on another one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", _START, str(port), stdout=asyncio.subprocess.DEVNULL
    )
    runner: web.AppRunner | None = None
    try:
        async with aiohttp.ClientSession() as session:
            door = Door(f"http://127.0.0.1:{port}", session)
            await _until_up(process, port)
            app = web.Application()
            app.router.add_route("*", "/v1/payment_intents/{number}/{verb}", door.handle)
            app.router.add_route("*", "/v1/payment_intents/{number}", door.handle)
            app.router.add_route("*", "/{path:.*}", door.handle)
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            yield Localstripe(f"http://127.0.0.1:{runner.addresses[0][1]}", door, session)
    finally:
        if runner is not None:
            await runner.cleanup()
        process.terminate()
        await process.wait()


async def _until_up(process: asyncio.subprocess.Process, port: int) -> None:
    while process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        return
    raise AssertionError("localstripe did not start")


async def _stay() -> None:
    async with localstripe() as server:
        print(f"localstripe: {server.url}  (secret key {KEY})", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_stay())
