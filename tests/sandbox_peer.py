"""The real simulator over sockets, and an adapter that talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from service.adapters.providers import open_provider
from service.adapters.providers.port import (
    AgreementRef,
    AgreementRequest,
    DebitRef,
    DebitRequest,
    HoldRef,
    MerchantAccount,
    Provider,
)
from service.billing.agreements.standing import AgreementStatus
from service.billing.capabilities import Capabilities
from service.lab.provider.mirror import terms_of
from service.lab.provider.rows import Account
from service.lab.provider.server import Plan, simulator

API_KEY, NOTIFY_SECRET = "key-of-the-tests", "secret-of-the-tests"


class Peer:
    """A simulator's address and its workbench doors."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        async with self.session.request(method, self.url + path, data=msgspec.json.encode(body)) as answer:
            text = await answer.text()
            assert answer.status == 200, text
            return msgspec.json.decode(text)

    async def script(self, kind: str, **more: Any) -> None:
        await self.call("POST", "/script", [{"kind": kind, **more}])

    async def books(self) -> Any:
        summary = await self.call("GET", "/books")
        assert summary["problems"] == []
        return summary

    async def debit(self, key: str) -> Any:
        return next((line for line in await self.call("GET", "/books/debits") if line["key"] == key), None)


@asynccontextmanager
async def peer(plan: Plan | None = None) -> AsyncIterator[Peer]:
    async with simulator(plan or Plan()) as url, aiohttp.ClientSession() as session:
        yield Peer(url, session)


@asynccontextmanager
async def provider_at(
    peer: Peer, account_id: str, *, terms: dict[str, Any] | None = None, timeout_s: float = 5.0, **abilities: Any
) -> AsyncIterator[Provider]:
    """An adapter whose account is known to the simulator under the same abilities."""
    capabilities = Capabilities(**abilities)
    account = Account(
        account_id, f"{API_KEY}-{account_id}", terms_of(capabilities, **(terms or {})), notify_secret=NOTIFY_SECRET
    )
    await peer.call("PUT", "/accounts", account)
    settings = {
        "api_key": f"{API_KEY}-{account_id}",
        "notify_secret": NOTIFY_SECRET,
        "timeout_s": timeout_s,
        "capabilities": msgspec.to_builtins(capabilities),
    }
    provider = open_provider(MerchantAccount(1, account_id, "sandbox", peer.url, settings))
    try:
        yield provider
    finally:
        await provider.close()


async def sign(peer: Peer, provider: Provider, key: str, rider: str = "rider", currency: str = "CNY") -> AgreementRef:
    """A signed agreement."""
    status = await provider.begin_agreement(AgreementRequest(key, rider, currency))
    assert isinstance(status, AgreementStatus)
    if status.action is not None:
        await peer.call("POST", rider_path(peer, status.action) + "&answer=confirm")
    return AgreementRef(key, status.provider_ref)


def rider_path(peer: Peer, action: Any) -> str:
    url: str = action.url
    return url.removeprefix(peer.url)


def debit_request(
    key: str, agreement: AgreementRef, amount_minor: int = 250, *, hold: HoldRef | None = None, currency: str = "CNY"
) -> DebitRequest:
    return DebitRequest(key, agreement, amount_minor, currency, "a ride", hold)


def debit_ref(request: DebitRequest) -> DebitRef:
    return DebitRef(request.key, request.amount_minor, request.currency)
