"""The simulator's WeChat Pay face over sockets, an adapter that talks to it, and an ear for its notifications."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from alipay_peer import Ear
from sandbox_peer import Peer
from wechatpay_double import API_KEY, APPID, SERVICE_ID, private_pem, public_pem, settings_of

from service.adapters.providers import open_provider
from service.adapters.providers.port import (
    AgreementRef,
    AgreementRequest,
    DebitRef,
    DebitRequest,
    HoldRef,
    HoldRequest,
    MerchantAccount,
    Provider,
)
from service.billing.agreements.standing import AgreementStatus, HoldStatus
from service.billing.outcomes import MiniProgram

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
"""Where the simulator's clock stands when a merchant opens."""
SERIAL = "1DDE55AD98ED71D6EDD4A4A16996DE7B47773A8C"
TERMS: dict[str, Any] = {
    "provider_retries": True,
    "nudge": True,
    "hold_needed": True,
    "further_debits": False,
    "reduce_pending": True,
    "close": False,
    "new_key_after_decline": False,
    "holds_max": 1000,
    "unpaid_max": 1000,
    "partial": True,
    "refund_window_s": 365 * 86_400,
}
"""As Pay Score treats a merchant, but for the two limits, which tests set where they want them."""


class Merchant:
    """One account at both ends: what the simulator knows of it, and the adapter."""

    def __init__(self, peer: Peer, account_id: str, directory: Path, ear: Ear, settings: dict[str, Any]) -> None:
        self.peer = peer
        self.account_id = account_id
        self.directory = directory
        self.ear = ear
        self.provider: Provider = open_provider(MerchantAccount(1, account_id, "wechatpay", peer.url, settings))
        ear.provider = self.provider

    async def opens(self, action: object, rider: str, answer: str = "confirm") -> str:
        """The rider opens what the merchant's app handed him; what WeChat says to the app."""
        assert isinstance(action, MiniProgram)
        said = await self._does(msgspec.json.encode(action.extra_data), answer=answer, rider=rider)
        return str(said["errMsg"])

    async def pays(self, order: str) -> None:
        """The rider pays what is open."""
        await self._does(b"", answer="pay", account=self.account_id, order=order)

    async def at_platform(self, does: str, order: str) -> None:
        """The merchant's own people "cancel" an order at the merchant platform, or mark it as "paid"."""
        path = f"/wechatpay/platform?does={does}&account={self.account_id}&order={order}"
        await self.peer.call("POST", path)

    async def terminates(self, rider: str) -> None:
        """The rider ends his permission."""
        await self._does(b"", answer="terminate", account=self.account_id, rider=rider)

    async def complains(self, debit: str, **more: str) -> None:
        """The rider complains about a debit, or his complaint is over (`state` "resolved")."""
        named = {"account_id": self.account_id, "debit": debit, "kind": "complaint"}
        await self.peer.call("POST", "/disputes", named | more)

    async def wallet(self, rider: str, balance_minor: int) -> None:
        """What a rider has."""
        await self.peer.call("PUT", "/wallets", [{"rider": rider, "currency": "CNY", "balance_minor": balance_minor}])

    async def at(self, now: datetime) -> None:
        """Sets the simulator's clock, which then stands still."""
        await self.peer.call("PUT", "/clock", {"now": now, "speed": 0})

    async def later(self, by: timedelta) -> None:
        """Moves it on."""
        face = await self.peer.call("GET", "/clock")
        await self.at(datetime.fromisoformat(face["now"]) + by)

    async def signed(self, key: str, rider: str) -> AgreementRef:
        """A permission that the rider has given."""
        begun = await self.provider.begin_agreement(AgreementRequest(key, rider, "CNY"))
        assert isinstance(begun, AgreementStatus), begun
        assert await self.opens(begun.action, rider) == "openBusinessView:ok"
        status = await self.provider.get_agreement(AgreementRef(key))
        assert isinstance(status, AgreementStatus) and status.state == "active", status
        return AgreementRef(key, status.provider_ref)

    async def ordered(self, key: str, agreement: AgreementRef, cap_minor: int = 10_000) -> HoldRef:
        """An order that is open."""
        status = await self.provider.open_hold(hold_request(key, agreement, cap_minor))
        assert isinstance(status, HoldStatus) and status.state == "open", status
        return HoldRef(key, status.provider_ref)

    async def rotate(self) -> None:
        """WeChat Pay signs with another key from now on; the adapter has not been told."""
        await self.peer.call("POST", f"/keys?account={self.account_id}")

    async def _does(self, body: bytes, **query: str) -> Any:
        path = f"{self.peer.url}/wechatpay/rider?" + "&".join(f"{name}={value}" for name, value in query.items())
        async with self.peer.session.post(path, data=body) as said:
            assert said.status == 200, await said.text()
            return msgspec.json.decode(await said.read())


def hold_request(key: str, agreement: AgreementRef, cap_minor: int = 10_000) -> HoldRequest:
    return HoldRequest(key, agreement, cap_minor, "CNY", "bike 7", AT)


def request(key: str, hold: HoldRef | None, agreement: AgreementRef, amount_minor: int = 1234) -> DebitRequest:
    """A debit for a ride that ended in the moment its order was opened."""
    return DebitRequest(key, agreement, amount_minor, "CNY", "a ride", hold, None, 1, AT - timedelta(minutes=20), AT)


def ref(asked: DebitRequest, provider_ref: str | None = None) -> DebitRef:
    return DebitRef(asked.key, asked.amount_minor, asked.currency, provider_ref, asked.agreement, asked.hold)


@asynccontextmanager
async def merchant_at(
    peer: Peer,
    account_id: str,
    directory: Path,
    *,
    public_key_mode: bool = False,
    need_user_confirm: bool = False,
    risk_fund_name: str = "ESTIMATE_ORDER_COST",
    timeout_s: float = 5.0,
    **terms: Any,
) -> AsyncIterator[Merchant]:
    """A merchant of the simulator, its adapter, and its address for notifications."""
    mchid = f"19{int.from_bytes(blake2b(account_id.encode(), digest_size=4).digest()) % 10**8:08d}"
    ear = Ear()
    runner = web.ServerRunner(web.Server(ear.answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    ear.url = f"http://127.0.0.1:{runner.addresses[0][1]}/notify"
    known = {
        "mchid": mchid,
        "appid": APPID,
        "service_id": SERVICE_ID,
        "serial_no": SERIAL,
        "public_key": public_pem("merchant"),
        "apiv3_key": API_KEY,
        "public_key_mode": public_key_mode,
    }
    account = {"account_id": account_id, "face": "wechatpay", "wechatpay": known, "terms": TERMS | terms}
    await peer.call("PUT", "/clock", {"now": AT, "speed": 0})
    await peer.call("PUT", "/accounts", account | {"notify_url": ear.url, "keys": [private_pem("wechatpay")]})
    keys = await peer.call("GET", f"/keys?account={account_id}")
    settings = settings_of(directory, mchid=mchid, notify_url=ear.url, timeout_s=timeout_s)
    settings |= {"need_user_confirm": need_user_confirm, "risk_fund_name": risk_fund_name}
    if public_key_mode:
        (directory / "public.pem").write_text(keys["public_keys"][0])
        settings |= {"public_key_id": keys["serials"][0], "wechatpay_public_key_file": str(directory / "public.pem")}
    merchant = Merchant(peer, account_id, directory, ear, settings)
    try:
        yield merchant
    finally:
        await runner.cleanup()
        await merchant.provider.close()
