"""One rider's story, lived at the public doors: from eligibility to a debt that is overdue, and back.

The clock stands still and is put on from one thing that is due to the next, so that everything happens at its hour.
What is told of it afterwards (`telling`) is what the doors, the topic and the provider's books say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import asyncpg
import msgspec
from aiokafka import AIOKafkaProducer

from service.lab.city import SOURCE, ZONE
from service.lab.demo.stage import CLOCKS_SECONDS, Stage, set_clock
from service.lab.processes import LabError
from service.lab.producer import Pace
from service.lab.riders import Hands

RIDER, AGREEMENT, SESSION = "rider-story", "agreement-story", "ride-story"
ACCOUNT, TARIFF = "preauth", "city-bike"
"""Where the merchant reports how riders pay."""
RIDE = timedelta(minutes=25)
PAYS_AFTER = timedelta(days=2, hours=3)
"""After the notice."""
WALLET_MINOR = 5_000
WITHIN_SECONDS = 45.0


class Moment(msgspec.Struct, frozen=True):
    """Something that was seen at a door: when by the business clock, which step of the story, what was said."""

    at: datetime
    step: str
    said: str


class Story:
    """The rider, his app, and the hand at the clock, which stands at `at`."""

    def __init__(
        self, stage: Stage, at: datetime, session: aiohttp.ClientSession, connection: asyncpg.Connection[asyncpg.Record]
    ) -> None:
        self.at = at
        self.moments: list[Moment] = []
        self._stage = stage
        self._session = session
        self._connection = connection
        self._hands = Hands(session, stage.places.provider, stage.places.cards)
        self._calls = 0

    async def live(self, say: Callable[[str], object]) -> None:
        """Everything from the first question to the last. Raises LabError when it does not go on."""
        say("asks whether he may ride")
        await self._sign()
        await self._eligible("eligible")
        await self._hold()
        say("rides, and can't pay")
        debit_id = await self._ride()
        await self._until(lambda debit: debit["dunned"] == "noticed", say)
        await self._eligible("not_eligible")
        await self._hop(self.at + PAYS_AFTER, say)
        await asyncio.sleep(CLOCKS_SECONDS)
        say("pays")
        await self._pay(debit_id)
        await self._until(lambda debit: debit["record_at"] is not None, say)
        await self._eligible("eligible_again")

    # ------------------------------------------------------------------ the steps

    async def _sign(self) -> None:
        asked = {"agreement_id": AGREEMENT, "rider_ref": RIDER, "account_id": ACCOUNT, "time_zone": "Asia/Shanghai"}
        agreement = await self._post("/v1/agreements", asked)
        self._saw("agreement", f"{agreement['state']} at {agreement['provider']}, {agreement['account_id']}")

    async def _eligible(self, step: str) -> None:
        asked = {"agreement_id": AGREEMENT, "tariff_id": TARIFF}
        told = await self._post("/v1/eligibility", asked)
        why = f": {told['reason']}, {told['overdue']} overdue" if told["reason"] else ""
        self._saw(step, f"{'yes' if told['eligible'] else 'no'}{why}")

    async def _hold(self) -> None:
        """Asks before the unlock; the rider confirms in his app what he is shown."""
        asked = {"session_id": SESSION, "agreement_id": AGREEMENT, "tariff_id": TARIFF, "vehicle_id": "bicycle-7"}
        shown = False
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                hold = await self._post("/v1/holds", asked)
                if hold["status"] == "rider_action" and not shown:
                    shown = True
                    self._saw("hold_asked", f"{hold['status']}, a {hold['action']['kind']}")
                    await self._hands.do(hold["action"], RIDER)
                elif hold["status"] == "allowed":
                    self._saw("hold_allowed", f"{hold['status']}: unlock")
                    return
                elif hold["status"] == "refused":
                    raise LabError(f"the story's hold was refused: {hold['reason']}")
                else:
                    await asyncio.sleep(0.1)

    async def _ride(self) -> str:
        """Starts and ends on the topic; the id of the debit that it leads to."""
        contract = {"session_id": SESSION, "agreement_id": AGREEMENT, "tariff_id": TARIFF}
        async with AIOKafkaProducer(bootstrap_servers=self._stage.servers.kafka_bootstrap) as kafka:
            await self._event(kafka, "started", contract)
            await self._hop(self.at + RIDE)
            await asyncio.sleep(CLOCKS_SECONDS)
            await self._event(kafka, "ended", contract | {"parking_category": "rack"})
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                ride = await self._get(f"/v1/sessions/{SESSION}")
                if ride.get("debits"):
                    found: str = ride["debits"][0]["debit_id"]
                    return found
                await asyncio.sleep(0.1)

    async def _pay(self, debit_id: str) -> None:
        """Fills his wallet, asks to pay, and does in his provider's app what he is shown."""
        wallet = [{"rider": RIDER, "currency": "CNY", "balance_minor": WALLET_MINOR}]
        async with self._session.put(f"{self._stage.places.provider}/wallets", json=wallet) as answer:
            answer.raise_for_status()
        debit = await self._post(f"/v1/debits/{debit_id}/payment", None)
        until = datetime.fromisoformat(debit["payable_until"]).astimezone(ZONE)
        self._saw("payment_asked", f"a {debit['action']['kind']}, good until {until:%d %b %H:%M}")
        await self._hands.do(debit["action"], RIDER)

    async def _event(self, kafka: AIOKafkaProducer, kind: str, data: dict[str, Any]) -> None:
        event: dict[str, Any] = {"specversion": "1.0", "type": f"io.farebox.session.{kind}.v1", "source": SOURCE}
        event |= {"id": f"{SESSION}/{kind}", "subject": SESSION, "time": self.at.isoformat(), "data": data}
        headers = [("content-type", b"application/cloudevents+json")]
        await kafka.send_and_wait("rental.sessions", msgspec.json.encode(event), key=SESSION.encode(), headers=headers)
        self._saw(kind, f"{data['tariff_id']}, {SESSION}")

    # ------------------------------------------------------------------ the clock

    async def _hop(self, to: datetime, say: Callable[[str], object] | None = None) -> None:
        """Puts the clock on; it goes on standing still."""
        self.at = to
        await set_clock(self._stage.database_url, self._stage.places.provider, Pace(datetime.now(UTC), to, 0.0))
        if say is not None:
            say(f"business time {to:%d %b %H:%M}")

    async def _until(self, reached: Callable[[asyncpg.Record], bool], say: Callable[[str], object]) -> None:
        """Lets everything happen that is due for the debit, and then puts the clock on to what is due next."""
        debit = None
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                while True:
                    debit = await self._debit()
                    if reached(debit):
                        return
                    due = _due(debit)
                    if due is not None and due > self.at and debit["lease_until"] is None:
                        await self._hop(due, say)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            stands = dict(debit) if debit is not None else "not there"
            raise LabError(f"the story does not go on; at {self.at} its debit is {stands}") from None

    async def _debit(self) -> asyncpg.Record:
        row = await self._connection.fetchrow(
            "SELECT state, due_at, policy_at, lease_until, payable_until, dunned, record_at, reason FROM debit"
            " WHERE session_id = $1 AND ordinal = 1",
            SESSION,
        )
        if row is None:
            raise LabError("the story's debit is not there")
        return row

    # ------------------------------------------------------------------ the doors

    def _saw(self, step: str, said: str) -> None:
        self.moments.append(Moment(self.at, step, said))

    async def _get(self, path: str) -> dict[str, Any]:
        async with self._session.get(self._stage.places.api + path, headers=self._headers()) as answer:
            found: dict[str, Any] = await answer.json(content_type=None)
            return found

    async def _post(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """Asks until the provider has answered (503: he has not), each time with a key of its own."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                self._calls += 1
                headers = self._headers() | {"Idempotency-Key": f"story-{self._calls}"}
                async with self._session.post(self._stage.places.api + path, json=body, headers=headers) as answer:
                    found: dict[str, Any] = await answer.json(content_type=None)
                    if answer.status < 400:
                        return found
                    if answer.status != 503:
                        raise LabError(f"the story: {path} answers {answer.status}: {found}")
                await asyncio.sleep(0.1)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._stage.token}"}


def _due(debit: asyncpg.Record) -> datetime | None:
    """What comes next. Whether a rider who must pay has done so is asked every day: nothing to put the clock on for."""
    polled = debit["state"] == "needs_rider" and debit["payable_until"] is None
    return min((at for at in (None if polled else debit["due_at"], debit["policy_at"]) if at is not None), default=None)


async def live(stage: Stage, at: datetime, say: Callable[[str], object]) -> Story:
    """Lives the story from an instant at which the clock stands."""
    connection = await asyncpg.connect(stage.database_url)
    try:
        async with aiohttp.ClientSession() as session:
            story = Story(stage, at, session, connection)
            await story.live(say)
            return story
    finally:
        await connection.close()
