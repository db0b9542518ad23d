"""The city's apps as a process of their own: they sign agreements, ask for holds before the unlock, publish events.

They know the service by its HTTP API and its topic alone. Progress goes to standard output as JSON lines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec
from aiokafka import AIOKafkaProducer

from service.lab.city import City, Message, Rider
from service.lab.riders import Hands

CALLS_MAX = 24
REPORT_SECONDS = 0.2
ASKS_MAX = 8
ASK_AGAIN_SECONDS = 0.1
"""How often, and how soon, an app asks again where the answer is still open; for a hold after each thing that its rider
did."""
SIGNED_WITHIN_SECONDS = 60.0


class Pace(msgspec.Struct, frozen=True):
    """How business time runs: at `machine_at` it is `business_at`, and it runs `speed` times as fast."""

    machine_at: datetime
    business_at: datetime
    speed: float

    def now(self) -> datetime:
        """The business time."""
        return self.business_at + (datetime.now(UTC) - self.machine_at) * self.speed

    def seconds_until(self, at: datetime) -> float:
        """Seconds of the machine's until a business instant."""
        return (at - self.now()).total_seconds() / self.speed


class Address(msgspec.Struct, frozen=True):
    """Where the service is, what lets the apps in, and where the riders' providers are (`cards`: localstripe)."""

    api: str
    token: str
    bootstrap: str
    topic: str
    provider: str
    cards: str


class Tally(msgspec.Struct):
    """What the apps have done so far; `failures` are calls that the API did not answer as it should."""

    signed: int = 0
    allowed: int = 0
    refused: int = 0
    records: int = 0
    done: int = 0
    failures: int = 0


class Apps:
    """The rental apps of a city."""

    def __init__(self, address: Address, session: aiohttp.ClientSession, producer: AIOKafkaProducer) -> None:
        self._address = address
        self._session = session
        self._producer = producer
        self._calls = asyncio.Semaphore(CALLS_MAX)
        self._holds: dict[str, asyncio.Task[bool]] = {}
        self._hands = Hands(session, address.provider, address.cards)
        self._riders: dict[str, Rider] = {}
        self.tally = Tally()

    async def sign(self, riders: Iterable[Rider]) -> None:
        """Signs every rider's agreement, and does for the rider what the provider asks of him."""
        async with asyncio.TaskGroup() as tasks:
            for rider in riders:
                tasks.create_task(self._sign(rider))

    async def play(self, city: City, pace: Pace) -> None:
        """Does everything that the city planned, each when its time comes."""
        self._riders = {rider.agreement_id: rider for rider in city.riders}
        async with asyncio.TaskGroup() as tasks:
            for message in city.messages:
                wait = pace.seconds_until(message.at)
                if wait > 0.002:
                    await asyncio.sleep(wait)
                if message.what == "hold":
                    self._holds[message.session_id] = tasks.create_task(self._hold(message))
                else:
                    await self._calls.acquire()
                    tasks.create_task(self._publish(message))
        await self._producer.flush()

    async def _sign(self, rider: Rider) -> None:
        body = {
            "agreement_id": rider.agreement_id,
            "rider_ref": rider.rider_ref,
            "account_id": rider.account_id,
            "time_zone": "Asia/Shanghai",
            "language": "zh",
        }
        done: set[str] = set()
        async with self._calls, asyncio.timeout(SIGNED_WITHIN_SECONDS):
            agreement = await self._post("/v1/agreements", f"sign-{rider.agreement_id}", body)
            while agreement.get("state") == "pending":
                await self._act(agreement.get("action"), rider, done)
                agreement = await self._get(f"/v1/agreements/{rider.agreement_id}")
                if agreement.get("state") == "pending":
                    await asyncio.sleep(ASK_AGAIN_SECONDS)
        self.tally.failures += agreement.get("state") != "active"
        self.tally.signed += 1

    async def _act(self, action: dict[str, Any] | None, rider: Rider, done: set[str]) -> None:
        """The rider does what is asked of him, once; `done` is what he did before."""
        if action is not None and action["kind"] not in done:
            done.add(action["kind"])
            await self._hands.do(action, rider.rider_ref, poor=rider.balance_minor is not None)

    async def _hold(self, message: Message) -> bool:
        """Asks before the unlock; whether the vehicle may be unlocked. What is not decided is asked again."""
        rider, done = self._riders[message.body["agreement_id"]], set[str]()
        unlock = False
        for asked in range(ASKS_MAX):
            hold = await self._post("/v1/holds", f"hold-{message.session_id}-{asked}", message.body)
            unlock = bool(hold.get("unlock"))
            if unlock or hold.get("status") == "refused":
                break
            await self._act(hold.get("action"), rider, done)
            if asked:
                await asyncio.sleep(ASK_AGAIN_SECONDS)
        self.tally.allowed += unlock
        self.tally.refused += not unlock
        self.tally.done += 1
        return unlock

    async def _publish(self, message: Message) -> None:
        try:
            hold = self._holds.get(message.session_id)
            if hold is None or await hold:
                await self._producer.send(
                    self._address.topic, value=message.value, key=message.key, headers=list(message.headers)
                )
                self.tally.records += 1
        finally:
            self._calls.release()
            self.tally.done += 1

    async def _get(self, path: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._address.token}"}
        async with self._session.get(self._address.api + path, headers=headers) as answer:
            return await self._read(path, answer)

    async def _post(self, path: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._address.token}", "Idempotency-Key": key}
        async with self._session.post(self._address.api + path, json=body, headers=headers) as answer:
            return await self._read(path, answer)

    async def _read(self, path: str, answer: aiohttp.ClientResponse) -> dict[str, Any]:
        found: dict[str, Any] = await answer.json(content_type=None)
        if answer.status >= 400:
            self.tally.failures += 1
            if self.tally.failures == 1:
                print(msgspec.json.encode({"problem": found, "path": path}).decode(), flush=True)
        return found


async def run_apps(address: Address, city: City, pace: Pace | None) -> Tally:
    """Signs the city's agreements (without a pace), or plays its messages."""
    producer = AIOKafkaProducer(
        bootstrap_servers=address.bootstrap, acks="all", enable_idempotence=True, linger_ms=5, compression_type="lz4"
    )
    await producer.start()
    connector = aiohttp.TCPConnector(limit=CALLS_MAX)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(30)) as session:
            apps = Apps(address, session, producer)
            reporting = asyncio.create_task(_report(apps.tally))
            try:
                await (apps.sign(city.riders) if pace is None else apps.play(city, pace))
            finally:
                reporting.cancel()
            print(msgspec.json.encode(apps.tally).decode(), flush=True)
            return apps.tally
    finally:
        await producer.stop()


async def _report(tally: Tally) -> None:
    while True:
        print(msgspec.json.encode(tally).decode(), flush=True)
        await asyncio.sleep(REPORT_SECONDS)
