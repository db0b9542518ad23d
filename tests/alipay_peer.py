"""The simulator's Alipay face over sockets, an adapter that talks to it, and an ear for its notifications."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from alipay_double import SELLER_ID, private_pem, public_pem
from sandbox_peer import Peer, peer

from service.adapters.providers import open_provider
from service.adapters.providers.port import (
    AgreementRef,
    AgreementRequest,
    BadNotification,
    DebitRef,
    DebitRequest,
    HoldRef,
    HoldRequest,
    MerchantAccount,
    Notification,
    Provider,
)
from service.billing.agreements.standing import AgreementStatus, HoldStatus
from service.billing.outcomes import SignString

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
HEARD_WITHIN_S = 20


class Ear:
    """A merchant's address for notifications; what comes is kept, and answered with what the adapter says."""

    def __init__(self) -> None:
        self.url = ""
        self.provider: Provider | None = None
        self._heard: asyncio.Queue[Notification | BadNotification] = asyncio.Queue()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        assert self.provider is not None
        headers = {name.lower(): value for name, value in request.headers.items()}
        told = self.provider.parse_notification(headers, await request.read(), datetime.now(UTC))
        self._heard.put_nowait(told)
        return web.Response(status=told.ack.status, body=told.ack.body, content_type=told.ack.content_type)

    async def hears(self, about: str, key: str | None = None) -> Notification:
        """The next notification about this (`key` None: any); what else comes before it is let go."""
        async with asyncio.timeout(HEARD_WITHIN_S):
            while True:
                told = await self._heard.get()
                if isinstance(told, Notification) and told.about == about and key in (None, told.key):
                    return told

    async def refuses(self) -> BadNotification:
        """The next notification that is not believed."""
        async with asyncio.timeout(HEARD_WITHIN_S):
            while True:
                told = await self._heard.get()
                if isinstance(told, BadNotification):
                    return told


class Merchant:
    """One account at both ends: what the simulator knows of it, and the adapter."""

    def __init__(self, peer: Peer, account_id: str, directory: Path, ear: Ear, account: dict[str, Any]) -> None:
        self.peer = peer
        self.account_id = account_id
        self.directory = directory
        self.ear = ear
        self.provider: Provider = open_provider(MerchantAccount(1, account_id, "alipay", peer.url, account))
        ear.provider = self.provider

    async def opens(self, action: object, rider: str, answer: str = "confirm") -> str:
        """The rider opens an order string in his app; what the app hands back."""
        assert isinstance(action, SignString)
        path = f"{self.peer.url}/alipay/rider?answer={answer}&rider={rider}"
        async with self.peer.session.post(path, data=action.order_string.encode()) as said:
            return str(msgspec.json.decode(await said.read())["resultStatus"])

    async def wallet(self, rider: str, balance_minor: int) -> None:
        """What a rider has."""
        await self.peer.call("PUT", "/wallets", [{"rider": rider, "currency": "CNY", "balance_minor": balance_minor}])

    async def at(self, now: str) -> None:
        """Sets the simulator's clock, which then stands still."""
        await self.peer.call("PUT", "/clock", {"now": now, "speed": 0})

    async def signed(self, key: str, rider: str) -> AgreementRef:
        """An agreement that the rider has signed."""
        begun = await self.provider.begin_agreement(AgreementRequest(key, rider, "CNY"))
        assert isinstance(begun, AgreementStatus)
        assert await self.opens(begun.action, rider) == "9000"
        status = await self.provider.get_agreement(AgreementRef(key))
        assert isinstance(status, AgreementStatus) and status.state == "active", status
        return AgreementRef(key, status.provider_ref)

    async def ordered(self, key: str, agreement: AgreementRef, cap_minor: int = 10_000) -> HoldRef:
        """An order that is open."""
        status = await self.provider.open_hold(hold_request(key, agreement, cap_minor))
        assert isinstance(status, HoldStatus) and status.state == "open", status
        return HoldRef(key, status.provider_ref)

    async def frozen(self, key: str, rider: str, cap_minor: int = 10_000) -> HoldRef:
        """An authorisation that the rider has confirmed."""
        asked = await self.provider.open_hold(hold_request(key, AgreementRef("none"), cap_minor))
        assert isinstance(asked, HoldStatus) and asked.state == "pending", asked
        assert await self.opens(asked.action, rider) == "9000"
        status = await self.provider.get_hold(HoldRef(key))
        assert isinstance(status, HoldStatus) and (status.state, status.cap_minor) == ("open", cap_minor), status
        return HoldRef(key, status.provider_ref)

    async def rotate(self) -> None:
        """The provider signs with another key from now on; the adapter has not been told."""
        await self.peer.call("POST", f"/keys?account={self.account_id}")

    async def take_key(self) -> None:
        """The provider's newest key is put where the adapter's settings say."""
        keys = await self.peer.call("GET", f"/keys?account={self.account_id}")
        (self.directory / "alipay.pem").write_text(keys["public_keys"][0])


def hold_request(key: str, agreement: AgreementRef, cap_minor: int) -> HoldRequest:
    return HoldRequest(key, agreement, cap_minor, "CNY", "bike 7", AT)


def request(key: str, hold: HoldRef | None, agreement: AgreementRef, amount_minor: int = 1234) -> DebitRequest:
    return DebitRequest(key, agreement, amount_minor, "CNY", "a ride", hold)


def ref(asked: DebitRequest, provider_ref: str | None = None) -> DebitRef:
    return DebitRef(asked.key, asked.amount_minor, asked.currency, provider_ref, asked.agreement, asked.hold)


@asynccontextmanager
async def merchant_at(
    peer: Peer,
    product: str,
    account_id: str,
    directory: Path,
    *,
    timeout_s: float = 5.0,
    certificates: bool = False,
    **terms: Any,
) -> AsyncIterator[Merchant]:
    """A merchant of the simulator, its adapter, and its address for notifications; with keys, or with certificates."""
    app_id = f"2021{int.from_bytes(blake2b(account_id.encode(), digest_size=4).digest()):012d}"
    ear = Ear()
    runner = web.ServerRunner(web.Server(ear.answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    ear.url = f"http://127.0.0.1:{runner.addresses[0][1]}/notify"
    (directory / "app.pem").write_text(private_pem("app"))
    known = {"app_id": app_id, "public_key": public_pem("app"), "seller_id": SELLER_ID, "certificates": certificates}
    account = {"account_id": account_id, "face": "alipay", "alipay": known, "terms": terms, "notify_url": ear.url}
    await peer.call("PUT", "/accounts", account | {"keys": [private_pem("alipay")]})
    (directory / "alipay.pem").write_text(public_pem("alipay"))
    verifying = {"alipay_public_key_file": str(directory / "alipay.pem")}
    if certificates:
        issued = await peer.call("GET", f"/keys?account={account_id}")
        texts = (issued["app_certificate"], issued["certificates"][0], issued["root_certificates"])
        names = ("app_certificate", "alipay_certificate", "alipay_root_certificate")
        for name, text in zip(names, texts, strict=True):
            (directory / f"{name}.crt").write_text(text)
        verifying = {f"{name}_file": str(directory / f"{name}.crt") for name in names}
    settings = {
        "product": product,
        "app_id": app_id,
        "seller_id": SELLER_ID,
        "notify_url": ear.url,
        "zm_service_id": "2022111500000000000093666900",
        "category_id": "RENT_BICYCLE",
        "app_private_key_file": str(directory / "app.pem"),
        "timeout_s": timeout_s,
        **verifying,
    }
    merchant = Merchant(peer, account_id, directory, ear, settings)
    try:
        yield merchant
    finally:
        await runner.cleanup()
        await merchant.provider.close()


@asynccontextmanager
async def simulator_with_alipay() -> AsyncIterator[Peer]:
    """The simulator."""
    async with peer() as it:
        yield it
