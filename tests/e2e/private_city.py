"""An installation with every provider, each of which tells about riders, and the riders who sign and ride there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from installation import Installation, installed
from intake_world import BIKE
from localstripe_door import localstripe
from sandbox_peer import API_KEY, NOTIFY_SECRET, Peer, peer
from talkative import Person, Talkative, TalkativeDoor, talkative

from service.lab.demo.merchants import Merchant, Places, open_accounts
from service.lab.localstripe import open_door
from service.lab.processes import free_ports
from service.lab.provider.rows import Account, Terms
from service.lab.riders import Hands
from service.lab.servers import Servers

ROLES = ("intake", "collect", "publish", "keep")
SIGNERS = ("zhima", "preauth", "wechatpay", "stripe")
"""The accounts whose providers sign what they say; `city` is at the sandbox provider."""
TOLD_BY = (
    *("sandbox", "alipay", "wechatpay", "stripe"),
    *("alipay notice", "wechatpay notice", "stripe notice"),
)
TOLD = {told_by: Person(told_by.replace(" ", "-")) for told_by in TOLD_BY}
"""Whom each provider tells of, in its answers and in its notifications."""


class City:
    """An installation with everything running, and a rider's life in it."""

    def __init__(
        self,
        installation: Installation,
        provider: Peer,
        ports: Mapping[str, int],
        said: Talkative,
        http: aiohttp.ClientSession,
        hands: Hands,
    ) -> None:
        self.installation = installation
        self.provider = provider
        self.ports = ports
        self.said = said
        self.http = http
        self.hands = hands
        self.token = ""
        self.calls = 0
        self.answers: list[str] = []
        """What was answered at the doors, headers and bodies, and what commands said."""

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.ports['serve']}"

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """A call of the rental app's backend, as soon as somebody listens."""
        self.calls += 1
        told = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": f"call-{self.calls}"} | headers
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        async with self.http.request(method, self.api + path, headers=told, data=data) as answer:
            raw = await answer.read()
            self.answers.append(f"{answer.raw_headers} {raw.decode(errors='replace')}")
            is_json = "json" in answer.headers.get("Content-Type", "")
            return answer.status, json.loads(raw) if is_json and raw else raw

    async def value(self, query: str) -> Any:
        return await self.installation.connection.fetchval(query)

    async def until(self, query: str, wanted: Any) -> None:
        """Waits until a query gives a value."""

        async def there() -> bool:
            return bool(await self.value(query) == wanted)

        await self.installation.until(there, f"{query} = {wanted}")

    async def signs(self, account_id: str, agreement: str, rider: str, *, poor: bool = False) -> None:
        """A rider signs in his provider's app; a poor one has nothing in his wallet, and a card that is declined."""
        if poor:
            wallet = {"rider": rider, "currency": "CNY", "balance_minor": 0}
            await self.provider.call("PUT", "/wallets", [wallet])
        asked = {"agreement_id": agreement, "rider_ref": rider, "account_id": account_id}
        status, told = await self.call("POST", "/v1/agreements", asked)
        assert status in (200, 201), told
        if told.get("action"):
            await self.hands.do(told["action"], rider, poor=poor)

        async def active() -> bool:
            _, seen = await self.call("GET", f"/v1/agreements/{agreement}")
            return bool(seen["state"] == "active")

        await self.installation.until(active, f"{agreement} active")

    async def unlocks(self, session: str, agreement: str, rider: str) -> None:
        """Asks for a hold until it is allowed; the rider confirms what he is shown."""
        asked = {"session_id": session, "agreement_id": agreement, "tariff_id": "bike"}
        shown = False

        async def allowed() -> bool:
            nonlocal shown
            status, told = await self.call("POST", "/v1/holds", asked)
            assert status == 200 and told["status"] != "refused", told
            if told["status"] == "rider_action" and not shown:
                shown = True
                await self.hands.do(told["action"], rider)
            return bool(told["status"] == "allowed")

        await self.installation.until(allowed, f"a hold for {session}")


@asynccontextmanager
async def city(servers: Servers, template: str, logs: Path) -> AsyncIterator[City]:
    async with (
        peer() as provider,
        localstripe() as cards,
        talkative(provider.url, TOLD) as said,
        installed(servers, template, logs) as installation,
        aiohttp.ClientSession() as http,
        open_door(TalkativeDoor(cards.target, http, said)) as door,
    ):
        ports = dict(zip(("serve", *ROLES), free_ports(1 + len(ROLES)), strict=True))
        made = City(installation, provider, ports, said, http, Hands(http, provider.url, cards.target))
        said.api = made.api
        installation.settings |= {"FAREBOX_LOG_LEVEL": "debug", "FAREBOX_HTTP_PORT": str(ports["serve"])}
        tariff = logs / "tariff.json"
        tariff.write_text(json.dumps(BIKE))
        await installation.farebox("tariff", "import", tariff)
        await _open_accounts(made, Places(said.url, said.url, cards.target, door), logs)
        scopes = ("--scope", "status:read", "--scope", "billing:write", "--scope", "ops")
        made.token = (await installation.farebox("token", "create", *scopes)).strip().splitlines()[-1].strip()
        for role in ROLES:
            await installation.role_by_its_command_line(role, FAREBOX_HEALTH_PORT=str(ports[role]))
        await installation.role_by_its_command_line("serve")
        await installation.until(lambda: answering(made), "serving")
        yield made


async def _open_accounts(city: City, places: Places, directory: Path) -> None:
    """At the providers, and as an operator does at ours: notifications and calls both go by the talkative door."""
    terms = Terms(confirm_agreement=False)
    await city.provider.call("PUT", "/accounts", Account("city", API_KEY, terms, notify_secret=NOTIFY_SECRET))
    settings: dict[str, Any] = {"api_key": API_KEY, "notify_secret": NOTIFY_SECRET}
    sandbox = Merchant("city", "sandbox", places.provider, settings)
    for merchant in (sandbox, *await open_accounts(places, directory, SIGNERS)):
        given = merchant.settings.items()
        texts = ((name, value if isinstance(value, str) else json.dumps(value)) for name, value in given)
        chosen = [word for name, text in texts for word in ("--setting", f"{name}={text}")]
        named = (merchant.account_id, "--provider", merchant.provider, "--url", merchant.base_url)
        city.answers.append(await city.installation.farebox("account", "add", *named, *chosen))
    for listed in (("account", "list"), ("token", "list"), ("settings",)):
        city.answers.append(await city.installation.farebox(*listed))
    city.said.webhook_secret = (directory / "stripe-webhook").read_text()


async def answering(city: City) -> bool:
    try:
        status, _ = await city.call("GET", "/readyz")
    except aiohttp.ClientConnectionError:
        return False
    return status == 200
