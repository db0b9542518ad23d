"""The load: riders who sign, ride and are charged extra, and who ask how their rides stand, all the time.

What Kafka or the service acknowledged is written down with what it must come to. Prices are worked out here, from the
words of the tariff below.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import aiohttp
import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from chaos_history import History

from service.lab.demo.merchants import Places
from service.lab.riders import Hands, RiderError

ACCOUNTS = ("city", "zhima", "city", "wechatpay", "stripe", "city", "preauth")
"""Riders take these in turn: at the sandbox and at Stripe they go without a hold, at Alipay, with both of its products,
and at WeChat Pay with one."""
HOLDLESS = ("city", "stripe")
TARIFF: dict[str, Any] = {
    "tariff_id": "chaos",
    "valid_from": "2026-01-01T00:00:00+08:00",
    "time_zone": "Asia/Shanghai",
    "plan": {
        "plan_id": "chaos",
        "name": "Chaos",
        "currency": "CNY",
        "price": "1.00",
        "is_taxable": False,
        "description": "1.00, and 0.50 for every 5 minutes begun.",
        "per_min_pricing": [{"start": 0, "rate": "0.50", "interval": 5}],
    },
}
SOURCE = "urn:farebox:chaos"
RECENT = 60
"""So many of the last rides are asked about rather than any."""
CALM_S = 0.1
"""Between two questions of a reader."""


def fare_minor(seconds: int) -> int:
    """What a ride costs by the tariff's description."""
    return 100 + 50 * math.ceil(seconds / 300)


class Stream(msgspec.Struct, frozen=True):
    """A Kafka, and the name that a run has there: of its topics and of its group."""

    bootstrap: str
    name: str

    def topic(self, which: str) -> str:
        """`sessions`, `billing` or `quarantine`."""
        return f"{self.name}.{which}"


class Ride(msgspec.Struct):
    """A ride that Kafka acknowledged, and what it must cost: `owed_minor` with what was charged beside the fare."""

    session_id: str
    account: str
    fare_minor: int
    owed_minor: int
    adjustments: int = 0


class Town:
    """Rides a second, readers and support, until `stop`."""

    def __init__(self, places: Places, token: str, stream: Stream, seed: int) -> None:
        self.history = History()
        self.rides: dict[str, Ride] = {}
        self.agreements: dict[str, str] = {}
        """By their account."""
        self.holds: Counter[str] = Counter()
        """How often an app was told what before the unlock."""
        self.answers: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self._random = Random(seed)
        self._headers = {"Authorization": f"Bearer {token}"}
        self.places = places
        self.stream = stream
        self._topic = stream.topic("sessions")
        self._number = 0
        self._asked: set[str] = set()
        self._charging: set[str] = set()
        self._stopping = False
        self._session: aiohttp.ClientSession
        self._phones: aiohttp.ClientSession
        self._producer: AIOKafkaProducer
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, riders: int) -> None:
        """Connects, and signs the first riders."""
        self._session = aiohttp.ClientSession(self.places.api, headers=self._headers, timeout=aiohttp.ClientTimeout(10))
        self._phones = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10))
        self._producer = AIOKafkaProducer(bootstrap_servers=self.stream.bootstrap, acks="all", enable_idempotence=True)
        await self._producer.start()
        await asyncio.gather(*(self.sign() for _ in range(riders)))

    async def close(self) -> None:
        """Lets go of both servers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()
        await self._phones.close()
        await self._producer.stop()

    def begin(self, rides_per_s: float, readers: int) -> None:
        """Starts the load."""
        self._tasks.append(asyncio.create_task(self._ride_on(rides_per_s)))
        self._tasks += [asyncio.create_task(self._ask()) for _ in range(readers)]
        self._tasks.append(asyncio.create_task(self._support()))

    async def stop(self) -> None:
        """No new rides; returns when those that were begun are acknowledged, and nothing is asked any more."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        self._tasks.clear()

    def failed(self) -> BaseException | None:
        """What ended a part of the load that should still go on."""
        return next((task.exception() for task in self._tasks if task.done() and not task.cancelled()), None)

    async def sign(self) -> None:
        """A rider signs; the same request again until it is answered, the same agreement every time."""
        self._number += 1
        name, account = f"agreement-{self._number:05}", ACCOUNTS[self._number % len(ACCOUNTS)]
        body = {"agreement_id": name, "rider_ref": f"rider-{self._number:05}", "account_id": account}
        told = await self._until_done(f"/v1/agreements?{name}", "/v1/agreements", f"sign-{name}", body)
        while told is not None and told["state"] == "pending":
            await self._act(told.get("action"), body["rider_ref"])
            told = await self._read(f"/v1/agreements/{name}") or told
        if told is not None and told["state"] == "active":
            self.agreements[name] = account
        elif told is not None:
            self.unexpected.append(f"{name} is {told['state']} ({told.get('reason')})")

    async def _act(self, action: dict[str, Any] | None, rider: str) -> None:
        """What a rider is asked to do he does, as far as his provider's app lets him; then a moment's wait."""
        if action is not None:
            try:
                await Hands(self._phones, self.places.provider, self.places.cards).do(action, rider)
            except (RiderError, aiohttp.ClientError, TimeoutError) as error:
                self.answers[f"a rider: {type(error).__name__}"] += 1
        await asyncio.sleep(0.2)

    async def _unlocked(self, ride: str, agreement: str, held: Mapping[str, Any]) -> bool:
        """Asks before the unlock, as often as nothing is decided; whether the vehicle may be unlocked."""
        asked = 0
        while True:
            asked += 1
            told = await self._until_done(f"holds of {ride}", "/v1/holds", f"hold-{ride}-{asked}", dict(held))
            if told is None or told["unlock"] or told["status"] == "refused":
                self.holds["unlock" if told is not None and told["unlock"] else "refused"] += 1
                return told is not None and bool(told["unlock"])
            await self._act(told.get("action"), agreement.replace("agreement", "rider"))

    async def ride(self, *, quick: bool = False) -> Ride:
        """One ride, over by the time that it is published; returns when Kafka has acknowledged both of its events.
        `quick`: one after the other, without a pause."""
        self._number += 1
        name, random = f"ride-{self._number:07}", self._random
        seconds = random.randrange(70, 5400)
        seconds += seconds % 300 == 0
        end = datetime.now(UTC)
        agreement = random.choice([one for one, account in self.agreements.items() if not quick or account == "city"])
        data = {"session_id": name, "agreement_id": agreement, "tariff_id": "chaos"}
        if self.agreements[agreement] not in HOLDLESS and not await self._unlocked(name, agreement, data):
            agreement = data["agreement_id"] = next(
                one for one, account in self.agreements.items() if account == "city"
            )
        events = [("started", end - timedelta(seconds=seconds)), ("ended", end)]
        wait, twice = 0.0 if quick else random.choice((0.0, 0.0, random.random())), random.random() < 0.1
        if random.random() < 0.1:
            events.reverse()
        for kind, at in [*events, *(events if twice else [])]:
            await self._send(name, kind, at, data)
            await asyncio.sleep(wait)
        fare = fare_minor(seconds)
        self.rides[name] = Ride(name, self.agreements[agreement], fare, fare)
        return self.rides[name]

    async def session(self, ride: str) -> Mapping[str, Any] | None:
        """How a ride stands, told to the history; None while nobody answers, or while another asks about it."""
        if ride in self._asked:
            return None
        self._asked.add(ride)
        try:
            async with self._session.get(f"/v1/sessions/{ride}") as answer:
                body = await answer.json(content_type=None)
                self._count(f"GET sessions/{ride}", answer.status, body)
                self.history.read(ride, answer.status, body)
                return body if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError) as error:
            self.answers[type(error).__name__] += 1
            return None
        finally:
            self._asked.discard(ride)

    async def agreement(self, name: str) -> str | None:
        """The state of an agreement; None while nobody answers."""
        told = await self._read(f"/v1/agreements/{name}")
        return None if told is None else str(told["state"])

    async def _read(self, path: str) -> dict[str, Any] | None:
        """What is there; None while nobody answers, and told where it is not there, for it was acknowledged."""
        try:
            async with self._session.get(path) as answer:
                body: dict[str, Any] = await answer.json(content_type=None)
                self._count(f"GET {path}", answer.status, body)
                if answer.status == 404:
                    self.history.contradictions.append(f"{path} was acknowledged, and is not there")
                return body if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError) as error:
            self.answers[type(error).__name__] += 1
            return None

    async def _ride_on(self, rides_per_s: float) -> None:
        """Rides at a steady rate, each by itself; no more than a minute's worth wait for Kafka."""
        under_way: set[asyncio.Task[Any]] = set()
        due = time.monotonic()
        while not self._stopping:
            due = max(due, time.monotonic() - 1) + self._random.expovariate(rides_per_s)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if len(under_way) < 60 * rides_per_s:
                one = self.sign() if self._random.random() < 0.02 else self.ride()
                task: asyncio.Task[Any] = asyncio.create_task(one)
                under_way.add(task)
                task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    async def _ask(self) -> None:
        while not self._stopping:
            names = list(self.rides)
            if names and self._random.random() < 0.1:
                await self.agreement(self._random.choice(list(self.agreements)))
            elif names:
                recent = names[-RECENT:] if self._random.random() < 0.8 else names
                await self.session(self._random.choice(recent))
            await asyncio.sleep(CALM_S)

    async def _support(self) -> None:
        """Some rides are charged for damage, others cost less afterwards; what is refused may not be."""
        while not self._stopping:
            await asyncio.sleep(1.0)
            names = [name for name in list(self.rides)[-RECENT:] if name not in self._charging]
            if not names:
                continue
            ride = self.rides[self._random.choice(names)]
            told = await self.session(ride.session_id)
            if told is None or told["state"] != "closed":
                continue
            self._charging.add(ride.session_id)
            more = [("goodwill", -50)] + ([("extra", 70)] if ride.account in HOLDLESS else [])
            kind, amount = self._random.choice(more)  # No order at Alipay or WeChat Pay is debited a second time.
            body = {"kind": kind, "code": kind, "amount_minor": abs(amount), "currency": "CNY", "reason": "chaos"}
            key = f"adjust-{ride.session_id}"
            path = f"/v1/sessions/{ride.session_id}/charges"
            if await self._until_done(path, path, key, body) is not None:
                ride.owed_minor += amount
                ride.adjustments += 1
                self.history.acknowledged(ride.session_id, key)

    async def _until_done(self, what: str, path: str, key: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """A write, again and again under its key until it is answered; None where it is refused, which is told."""
        while True:
            try:
                async with self._session.post(path, json=body, headers={"Idempotency-Key": key}) as answer:
                    told: dict[str, Any] = await answer.json(content_type=None)
                    self._count(f"POST {what}", answer.status, told)
                    if answer.status < 300:
                        return told
                    busy = answer.status in (409, 429) and told["type"].endswith(("in-progress", "too-many-requests"))
                    if not busy and answer.status < 500:
                        self.unexpected.append(f"POST {what}: {answer.status} {told}")
                        return None
            except (aiohttp.ClientError, TimeoutError) as error:
                self.answers[type(error).__name__] += 1
            await asyncio.sleep(0.2)

    def _count(self, what: str, status: int, body: Any) -> None:
        self.answers[str(status)] += 1
        if status >= 500 and status != 503:
            self.unexpected.append(f"{what}: {status} {body}")

    async def _send(self, ride: str, kind: str, at: datetime, data: dict[str, Any]) -> None:
        """An event, sent until it is acknowledged; what was sent twice is a duplicate."""
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", f"{ride}/{kind}".encode()),
            ("ce_source", SOURCE.encode()),
            ("ce_type", f"io.farebox.session.{kind}.v1".encode()),
            ("ce_time", at.isoformat().encode()),
            ("content-type", b"application/json"),
        ]
        while True:
            try:
                body = msgspec.json.encode(data)
                await self._producer.send_and_wait(self._topic, key=ride.encode(), value=body, headers=headers)
                return
            except KafkaError as error:
                self.answers[f"Kafka: {type(error).__name__}"] += 1
                await asyncio.sleep(0.2)
