"""A simulated city: riders, their rides over some days, and everything that goes wrong on the way to Kafka.

Everything derives from the seed. The city knows nothing of prices; it plans what its apps will send, and when.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from random import Random
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

SOURCE = "urn:mds:provider:6a2b7c1e-5c0d-4a8e-9d0e-fa2eb0c5c1a1"
ZONE = ZoneInfo("Asia/Shanghai")

Trouble = Literal[
    "none",
    "duplicate",
    "reversed",
    "late_start",
    "lost_end",
    "late_end",
    "cancelled",
    "paused",
    "corrected",
    "voided",
    "staff",
    "contradicted",
]

TROUBLES: dict[Trouble, float] = {
    "duplicate": 0.05,
    "reversed": 0.02,
    "late_start": 0.01,
    "lost_end": 0.008,
    "late_end": 0.004,
    "cancelled": 0.01,
    "paused": 0.03,
    "corrected": 0.005,
    "voided": 0.003,
    "staff": 0.005,
    "contradicted": 0.005,
}
"""The share of rides with each trouble; the rest goes well."""
MALFORMED_SHARE = 0.006
POOR_SHARE = 0.04


class Fleet(msgspec.Struct, frozen=True):
    """A kind of vehicle: its tariff, how often it is taken, and how long and fast its rides are."""

    tariff_id: str
    vehicle_type: str
    weight: int
    minutes: tuple[float, float]
    km_per_hour: float


FLEETS = (
    Fleet("city-bike", "bicycle", 70, (2.6, 0.6), 11.0),
    Fleet("city-scooter", "scooter_standing", 22, (2.3, 0.5), 14.0),
    Fleet("city-car", "car", 8, (4.2, 0.7), 28.0),
)
HOURS = (1, 1, 1, 1, 2, 4, 9, 22, 30, 16, 10, 10, 14, 13, 10, 11, 15, 26, 30, 20, 13, 9, 5, 3)
"""How many rides begin in each local hour, relative to each other."""


class Rider(msgspec.Struct, frozen=True):
    """A rider with one agreement at a merchant account; `balance_minor` is what the wallet holds, None for plenty."""

    rider_ref: str
    agreement_id: str
    account_id: str
    balance_minor: int | None


class Message(msgspec.Struct, frozen=True):
    """Something the apps do at `at`: ask for a hold, or put a record on Kafka."""

    at: datetime
    order: int
    what: Literal["hold", "record"]
    session_id: str
    body: dict[str, Any] = {}
    key: bytes = b""
    headers: tuple[tuple[str, bytes], ...] = ()
    value: bytes = b""


class City(msgspec.Struct, frozen=True):
    """What will happen, in order of time."""

    riders: list[Rider]
    messages: list[Message]
    troubles: dict[str, int]
    ends_at: datetime


def plan_city(seed: int, rides: int, since: datetime, days: float, accounts: Mapping[str, float]) -> City:
    """The city's plan: `rides` rides that begin within `days` days from `since` (UTC, business time).

    `accounts`: the share of riders at each merchant account; each has some, however few riders there are.
    """
    random = Random(seed)
    count = max(20, min(600, rides // 5))
    riders = [_rider(random, number, account) for number, account in enumerate(_spread(accounts, count))]
    plan = _Plan(random)
    free_at = {rider.agreement_id: since for rider in riders}
    starts = sorted(_instant(random, since, days) for _ in range(rides))
    for start in starts:
        rider = next((rider for rider in random.sample(riders, 12) if free_at[rider.agreement_id] <= start), riders[0])
        free_at[rider.agreement_id] = plan.ride(rider, start) + timedelta(minutes=5)
    for _ in range(round(rides * MALFORMED_SHARE)):
        plan.malformed(_instant(random, since, days))
    messages = sorted(plan.messages, key=lambda message: (message.at, message.order))
    return City(riders, messages, plan.troubles, messages[-1].at)


class _Plan:
    """Collects messages; one instance plans one city."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.messages: list[Message] = []
        self.troubles: dict[str, int] = {}

    def ride(self, rider: Rider, start: datetime) -> datetime:
        """Plans one ride and returns when its vehicle is free again."""
        random = self.random
        fleet = random.choices(FLEETS, [fleet.weight for fleet in FLEETS])[0]
        trouble: Trouble = random.choices(["none", *TROUBLES], [1 - sum(TROUBLES.values()), *TROUBLES.values()])[0]
        self.troubles[trouble] = self.troubles.get(trouble, 0) + 1
        session_id = str(UUID(int=random.getrandbits(128), version=4))
        seconds = max(70, min(60 * random.lognormvariate(*fleet.minutes), 20 * 3600))
        if trouble == "cancelled":
            seconds = random.uniform(5, 29)
        end = start + timedelta(milliseconds=round(seconds * 1000))
        contract: dict[str, Any] = {
            "session_id": session_id,
            "agreement_id": rider.agreement_id,
            "tariff_id": fleet.tariff_id,
        }
        begun: dict[str, Any] = {**contract, "vehicle_id": f"{fleet.vehicle_type}-{random.randrange(900)}"}
        begun |= {"vehicle_type": fleet.vehicle_type, "location": self._place()}
        parking = "invalid" if random.random() < 0.02 else random.choice(("corral", "rack", "other_valid"))
        done: dict[str, Any] = {
            **contract,
            "distance": round(seconds / 3600 * fleet.km_per_hour * 1000),
            "parking_category": parking,
        }
        done |= {"location": self._place()}
        if trouble == "staff":
            begun |= {"billable": False, "purpose": "staff"}
        else:
            hold = {**contract, "vehicle_id": begun["vehicle_id"]}
            self._add(start - timedelta(seconds=20), "hold", session_id, hold)
        self._send(trouble, session_id, (start, begun), (end, done), contract)
        return end

    def malformed(self, at: datetime) -> None:
        """A record that no program could have meant."""
        session_id = str(UUID(int=self.random.getrandbits(128), version=4))
        kind = self.random.randrange(5)
        data: dict[str, Any] = {"session_id": session_id, "agreement_id": "a", "tariff_id": "city-bike"}
        time = at.isoformat()
        if kind == 0:
            time = at.replace(tzinfo=None).isoformat()
        elif kind == 1:
            data["distance"] = "far"
        elif kind == 2:
            del data["tariff_id"]
        value = msgspec.json.encode(data) if kind != 3 else b'{"session_id": '
        if kind == 4:
            value = b"\xff\xfe" + value
        self._add(at, "record", session_id, record=_record(session_id, "ended", time, value, "bad"))

    def _send(
        self,
        trouble: Trouble,
        session_id: str,
        start: tuple[datetime, dict[str, Any]],
        end: tuple[datetime, dict[str, Any]],
        contract: dict[str, Any],
    ) -> None:
        """The ride's events, each sent when its trouble lets it."""
        wait = timedelta(seconds=self.random.uniform(1, 20))
        started, ended = start[0], end[0]
        start_sent = {"reversed": ended + 2 * wait, "late_start": ended + timedelta(hours=self.random.uniform(1, 5))}
        end_sent = {"late_end": ended + timedelta(hours=self.random.uniform(30, 40))}
        self._event(start_sent.get(trouble, started + wait / 20), session_id, "started", started, start[1])
        if trouble == "duplicate":
            self._event(start_sent.get(trouble, started + wait), session_id, "started", started, start[1])
            self._event(ended + 3 * wait, session_id, "ended", ended, end[1])
        if trouble == "paused":
            middle = started + (ended - started) / 2
            self._event(middle, session_id, "paused", middle, {"session_id": session_id})
            resumed = middle + (ended - middle) / 2
            self._event(resumed, session_id, "resumed", resumed, {"session_id": session_id})
        if trouble == "cancelled":
            self._event(ended, session_id, "cancelled", ended, {"session_id": session_id})
        elif trouble != "lost_end":
            self._event(end_sent.get(trouble, ended + wait / 20), session_id, "ended", ended, end[1])
        if trouble == "contradicted":
            other = {**end[1], "distance": end[1]["distance"] + 700}
            self._event(ended + timedelta(hours=1), session_id, "ended", ended + wait, other, "second")
        if trouble == "corrected":
            shorter = {"session_id": session_id, "reason": "lock reported late"}
            shorter["ended_at"] = (started + (ended - started) / 2).isoformat()
            at = ended + timedelta(hours=2)
            self._event(at, session_id, "corrected", at, shorter)
        if trouble == "voided":
            at = ended + timedelta(hours=3)
            self._event(at, session_id, "voided", at, {"session_id": session_id, "reason": "vehicle broken"})

    def _event(
        self, at: datetime, session_id: str, kind: str, time: datetime, data: dict[str, Any], nth: str = ""
    ) -> None:
        record = _record(session_id, kind, time.isoformat(), msgspec.json.encode(data), nth)
        self._add(at, "record", session_id, record=record)

    def _add(
        self,
        at: datetime,
        what: Literal["hold", "record"],
        session_id: str,
        body: dict[str, Any] | None = None,
        record: tuple[bytes, tuple[tuple[str, bytes], ...], bytes] = (b"", (), b""),
    ) -> None:
        self.messages.append(Message(at, len(self.messages), what, session_id, body or {}, *record))

    def _place(self) -> dict[str, float]:
        return {"lat": round(26.05 + self.random.random() / 10, 5), "lng": round(119.25 + self.random.random() / 10, 5)}


def _record(
    session_id: str, kind: str, time: str, value: bytes, nth: str
) -> tuple[bytes, tuple[tuple[str, bytes], ...], bytes]:
    """A binary-mode CloudEvent; its id derives from what it says, so that sending it again is a duplicate."""
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_id", f"{session_id}/{kind}{nth and '/'}{nth}".encode()),
        ("ce_source", SOURCE.encode()),
        ("ce_type", f"io.farebox.session.{kind}.v1".encode()),
        ("ce_time", time.encode()),
        ("content-type", b"application/json"),
    )
    return session_id.encode(), headers, value


def _rider(random: Random, number: int, account_id: str) -> Rider:
    poor = random.random() < POOR_SHARE
    balance = random.randrange(0, 400) if poor else None
    return Rider(f"rider-{number:04d}", f"agreement-{number:04d}", account_id, balance)


def _spread(accounts: Mapping[str, float], count: int) -> list[str]:
    """An account for each rider, in turn, whichever is furthest behind its share."""
    given = dict.fromkeys(accounts, 0)
    chosen = []
    for number in range(1, count + 1):
        account = max(accounts, key=lambda name: accounts[name] * number - given[name])
        given[account] += 1
        chosen.append(account)
    return chosen


def _instant(random: Random, since: datetime, days: float) -> datetime:
    """An instant within the days, by the hours in which people ride."""
    while True:
        at = since + timedelta(seconds=random.uniform(0, days * 86_400))
        if random.random() * max(HOURS) < HOURS[at.astimezone(ZONE).hour]:
            return at
