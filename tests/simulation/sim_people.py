"""The people of a world: what the script remembers of rides and riders, what is asked by the door, who looks after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import lru_cache, partial
from itertools import product
from random import Random
from typing import Any

import msgspec
from sim_intake import Door
from sim_lives import Life
from sim_profiles import Focus
from sim_world import BEGINNING, World

from service.adapters.postgres.collection import DebitKey
from service.adapters.postgres.operators import KnownOperator
from service.adapters.postgres.reading import ReadingStore
from service.adapters.providers.port import MerchantAccount
from service.billing.agreements.asking import AskError
from service.billing.debits import FINAL, ImpossibleEventError, RefundRefusedError, State
from service.billing.debits.events import (
    DebitEvent,
    DisputeClosed,
    GivenBack,
    OperatorDecided,
    RefundDecided,
    Resumed,
)
from service.billing.keys import provider_key, session_key_bytes
from service.flows.collection.hearing import NoPaymentError
from service.lab.provider import refunds as provider_refunds
from service.lab.provider.faces import Told
from service.lab.provider.refunds import RETURNED
from service.lab.provider.rows import Debit, Refund
from service.lab.provider.server import FACES

ORDERS_MAX, DEBITS_MAX, ATTEMPTS_MAX = 20, 12, 25
"""How many holds and debits of a ride, and attempts at each debit, the oracle knows the keys of."""
UNLOCK_MINOR, MINUTE_MINOR = 100, 20
HUMAN = (ImpossibleEventError, RefundRefusedError, AskError, NoPaymentError, KeyError)
"""What people are told when they ask for what can't be."""


UNDER_WAY = """
SELECT EXISTS (SELECT FROM debit WHERE operator_no = $1 AND (NOT (state = ANY($2)) OR lowering_to IS NOT NULL
    OR state = 'needs_rider' AND due_at IS NOT NULL AND queries = 0))
  OR EXISTS (SELECT FROM refund WHERE operator_no = $1 AND (state NOT IN ('succeeded', 'failed', 'returned')
    OR state = 'succeeded' AND due_at IS NOT NULL))
  OR EXISTS (SELECT FROM hold h WHERE operator_no = $1 AND state IN ('requested', 'open', 'completing')
    AND NOT EXISTS (SELECT FROM debit d WHERE d.session_key = h.session_key AND NOT d.state = ANY($3))) AS under_way
"""
"""Whether anything of operator $1 is: a debit in none of the states $2, or one whose rider may have paid and that was
not asked about yet; a refund; a hold whose debits are all in the states $3."""


class Said(msgspec.Struct, frozen=True):
    """What is said of a ride, by the topic or by the door: `minutes` from its start to its end."""

    event_id: str
    kind: str
    minutes: int = 0
    amount_minor: int = 0


class Ride(msgspec.Struct):
    """What the script knows of a ride: the oracle's side of it. `said` has what was said of it, in its order; what was
    said by the door is there when it was taken in. `lost_minor`: what it costs when nobody ever says that it ended;
    `left_minor`: what a cap has left of what it costs."""

    session_id: str
    rider_ref: str
    agreement_id: str
    account_no: int
    began_at: datetime
    minutes: int
    by_topic: bool
    lost_minor: int = 0
    left_minor: int | None = None
    said: list[Said] = []
    deciding: str | None = None

    @property
    def voided(self) -> bool:
        """Whether it is not to be paid."""
        return any(one.kind == "voided" for one in self.said)

    @property
    def unclear(self) -> bool:
        """Whether what was said of it does not tell what it costs: somebody must decide."""
        kinds = {one.kind for one in self.said}
        ended = bool(self.lost_minor) or not kinds.isdisjoint(("ended", "corrected"))
        return "voided" not in kinds and not ("started" in kinds and ended)

    @property
    def owed_minor(self) -> int:
        """What it must cost, worked out by hand: 1.00, and 0.20 for each minute begun; under a cap, what it was said to
        leave of that."""
        if self.voided or not any(one.kind == "started" for one in self.said):
            return 0
        if self.left_minor is not None:
            return self.left_minor
        fare_minor = self.lost_minor if self.counted is None else UNLOCK_MINOR + MINUTE_MINOR * (self.counted + 1)
        return fare_minor + sum(one.amount_minor for one in self.once)

    @property
    def counted(self) -> int | None:
        """The minutes that count: of the last correction, else of the first end."""
        ends = [one.minutes for one in self.once if one.kind == "ended"]
        corrected = [one.minutes for one in self.once if one.kind == "corrected"]
        return next(iter(corrected[-1:] or ends), None)

    @property
    def once(self) -> list[Said]:
        """What was said of it, each once, however often it was."""
        said: dict[str, Said] = {}
        for one in self.said:
            said.setdefault(one.event_id, one)
        return list(said.values())


class Rider(msgspec.Struct):
    """A rider with one agreement; `rich` at the end, or without money for ever."""

    rider_ref: str
    agreement_id: str
    account_no: int
    rich: bool


async def _happen(news: list[tuple[DebitKey, DebitEvent]], life: Life) -> None:
    await life.collection.happen(news)


async def _decide_refund(key: tuple[int, int, int], decision: RefundDecided, life: Life) -> None:
    await life.collection.decide_refund(key, decision)


async def _refund_again(key: DebitKey, life: Life) -> None:
    await life.collection.refund_again(key)


def _send_elsewhere(refund: Refund, world: World) -> None:
    """At the provider's own platform people give back what the rider's card did not take."""
    provider_refunds.decide(world.books, refund, world.now(), lambda _: None)


def _come_back(ride: Ride, world: World) -> None:
    """The bank of the ride's rider does not take what was given back."""
    for debit in debits_there(world, ride):
        refunds = [
            world.books.refunds_by_number[number] for number in sorted(world.books.refunds_of_debit[debit.number])
        ]
        for refund in refunds:
            if refund.state == "paid":
                provider_refunds.come_back(world.books, refund, world.now())


def debits_there(world: World, ride: Ride) -> list[Debit]:
    """The debits in the provider's books that are for a ride: under a key of its debits (what rider and provider append
    to it is theirs), or on an order that it was given."""
    known = _keys(world.operator_id, ride.session_id)
    return [
        debit
        for debit in world.books.debits_by_number.values()
        if debit.asked.key.partition("_")[0] in known or debit.asked.hold in known
    ]


@lru_cache(16)
def _keys(operator_id: str, session_id: str) -> frozenset[str]:
    """Of all the holds and debits that the ride may ever have."""
    key = session_key_bytes(operator_id, session_id)
    holds = (provider_key(key, "hold", ordinal) for ordinal in range(ORDERS_MAX))
    attempts = product(range(1, DEBITS_MAX + 1), range(ATTEMPTS_MAX))
    return frozenset((*holds, *(provider_key(key, "debit", ordinal, attempt) for ordinal, attempt in attempts)))


class People:
    """Riders, support and operators of one world, who ask by the door and look after what waits for people."""

    def __init__(self, world: World, door: Door, focus: Focus) -> None:
        self.world = world
        self.door = door
        self.focus = focus
        self.random = Random(f"script {world.seed}")
        self.rides: list[Ride] = []
        self.riders: list[Rider] = []
        self.operator: KnownOperator
        self._extra = 0
        self._hears: dict[int, bool] = {}
        self._round_at = BEGINNING
        self._kept_at_rest = False
        self._sent_again: set[tuple[int, int, int]] = set()
        self._looked_through = 0

    async def _debits(self, ride: Ride) -> list[dict[str, Any]]:
        return await self.world.rows(
            "SELECT * FROM debit WHERE operator_no = $1 AND session_id = $2 AND account_no = $3 ORDER BY ordinal",
            self.operator.operator_no,
            ride.session_id,
            ride.account_no,
        )

    def _wish(self, ride: Ride, when: datetime, event: DebitEvent) -> None:
        async def wish(life: Life) -> None:
            rows = await self._debits(ride)
            if rows:
                row = rows[-1]
                await life.collection.happen([((row["ride_no"], row["ordinal"]), event)])

        self._human(when, f"{type(event).__name__} {ride.session_id}", wish)

    def _human(self, when: datetime, name: str, run: Callable[[Life], Awaitable[object]]) -> None:
        """Somebody asks by the door; what can't be done he is told, and lets it be."""

        async def asked(life: Life) -> None:
            try:
                await run(life)
            except HUMAN:
                self.world.counts["told no"] += 1

        self.world.at(when, name, "serve", asked)

    def _outside(self, when: datetime, name: str, run: Callable[[World], object]) -> None:
        self.world.at(when, name, "", run)

    def _banks_refuse_refunds(self) -> None:
        """What was given back on cards may come back: drawn by itself, so that other worlds stay as they are."""
        random = Random(f"returns {self.world.seed}")
        for ride in self.rides:
            able = self.world.accounts[ride.account_no][1].capabilities
            if able.dispute == "chargeback" and self._hears[ride.account_no] and random.random() < 0.6:
                for day in random.sample(range(1, 56), 4):
                    when = BEGINNING + timedelta(days=day, minutes=random.randrange(1440))
                    self._outside(when, f"refunds of {ride.session_id} come back", partial(_come_back, ride))

    def _tell_again(self) -> None:
        """The provider gives up after some days what nobody took; people have him tell again what they miss."""
        desk, books = self.world.desk, self.world.books
        rows: list[Told] = [*books.disputes.values()]
        rows += [refund for refund in books.refunds.values() if refund.code == RETURNED]
        for row in rows:
            account = books.accounts[row.account_id]
            notice = FACES[account.face].notice(desk, account, row, None)
            if notice is not None:
                books.put(notice)
        self._round_at = self.world.now() + timedelta(hours=1)
        self._outside(self._round_at, "people look", lambda _: None)

    def _some_day(self) -> datetime:
        return BEGINNING + timedelta(minutes=self.random.randrange(60, 50 * 1440))

    def _account_id(self, account_no: int) -> str:
        account: MerchantAccount = self.world.accounts[account_no][0]
        return account.account_id

    async def settled_down(self) -> bool:
        """Looks after what waits for people; True when nothing else is under way."""
        if self.world.now() >= self._round_at:
            self._round_at = self.world.now() + timedelta(hours=12)
            if not self._kept_at_rest or await self._watched():
                self._keep(self.world.now())
                self._kept_at_rest = True
            for ride in self.rides:
                for row in await self._debits(ride):
                    self._look_after(ride, row)
            await self._look_after_refunds()
        resting = [state.value for state in (*FINAL, State.NEEDS_RIDER)]
        ended = [state.value for state in FINAL - {State.WRITTEN_OFF}]
        rows = await self.world.rows(UNDER_WAY, self.operator.operator_no, resting, ended)
        waits = rows[0]["under_way"] or self.world.script or await self._returned()
        return not (waits or await self._paid_unheard())

    async def _watched(self) -> bool:
        """Whether rides wait for their time."""
        rows = await self.world.rows("SELECT EXISTS (SELECT FROM watch) AS some")
        return bool(rows[0]["some"])

    async def _paid_unheard(self) -> bool:
        """Whether a rider has paid what nobody wants of him any more (written off, then perhaps voided), and that is
        asked about, but not since."""
        asked = "SELECT account_no, provider_key, paid_minor FROM debit WHERE operator_no = $1 AND due_at IS NOT NULL"
        for row in await self.world.rows(asked, self.operator.operator_no):
            there = self.world.books.debits.get((self._account_id(row["account_no"]), row["provider_key"]))
            if there is not None and there.paid_minor > row["paid_minor"]:
                return True
        return False

    def _keep(self, when: datetime) -> None:
        """How far the topic is read is looked at, and then what waits for its time."""

        async def keep(life: Life) -> None:
            await life.keep.round()

        self._outside(when, "look", lambda world: world.fleet.look())
        self.world.at(when + timedelta(seconds=30), "keep", "keep", keep)

    async def _look_after_refunds(self) -> None:
        """What became of a refund that only a person can tell: the provider's books say it."""
        asked = "SELECT * FROM refund WHERE operator_no = $1 AND state = 'manual' ORDER BY ride_no, refund_ordinal"
        for row in await self.world.rows(asked, self.operator.operator_no):
            there = self.world.books.refunds.get((self._account_id(row["account_no"]), row["provider_key"]))
            back = there.asked.amount_minor if there is not None and there.state == "paid" else 0
            decision = RefundDecided("given_back" if back else "cancel", "by the provider's books", back or None)
            key = (row["ride_no"], row["ordinal"], row["refund_ordinal"])
            self._human(self.world.now(), "decide refund", partial(_decide_refund, key, decision))
        await self._hand_back_what_is_listed()
        for key in await self._returned():
            self._sent_again.add(key)
            self._human(self.world.now(), "refund again", partial(_refund_again, key[:2]))
        stand_still = "SELECT * FROM refund WHERE operator_no = $1 AND state = 'pending' AND code IS NOT NULL"
        for row in await self.world.rows(f"{stand_still} ORDER BY ride_no, refund_ordinal", self.operator.operator_no):
            there = self.world.books.refunds[self._account_id(row["account_no"]), row["provider_key"]]
            if there.state == "failed":
                self._outside(self.world.now(), "send refund elsewhere", partial(_send_elsewhere, there))

    async def _hand_back_what_is_listed(self) -> None:
        """What can't come back by itself is handed to the rider: what was paid elsewhere and is owed less, and most
        of what its provider has refused for good to give back; twice, since somebody is not sure that he did."""
        asked = """
        SELECT (SELECT count(*) FROM refund WHERE operator_no = $1 AND state = 'failed')
          + (SELECT count(*) FROM debit WHERE operator_no = $1 AND outside_minor > 0) AS some
        """
        rows = await self.world.rows(asked, self.operator.operator_no)
        if rows[0]["some"] > self._looked_through:
            self._looked_through = rows[0]["some"]
            for _ in range(2):
                self._human(self.world.now(), "hand back", self._hand_back)

    async def _hand_back(self, life: Life) -> None:
        async with life.database.reading(ReadingStore) as store:
            listed = await store.troubled_refunds(self.operator.operator_no, 100)
        for row in listed:
            if row.state == "paid_elsewhere" or (row.state == "failed" and row.ride_no % 4):
                given = GivenBack(row.amount_minor, "in cash")
                with suppress(RefundRefusedError):
                    await life.collection.given_back((row.ride_no, row.ordinal), given)

    async def _returned(self) -> list[tuple[int, int, int]]:
        """Refunds that came back, and that nobody has looked after yet."""
        asked = "SELECT * FROM refund WHERE operator_no = $1 AND code = $2 ORDER BY ride_no, refund_ordinal"
        rows = await self.world.rows(asked, self.operator.operator_no, RETURNED)
        keys = ((row["ride_no"], row["ordinal"], row["refund_ordinal"]) for row in rows)
        return [key for key in keys if key not in self._sent_again]

    def _look_after(self, ride: Ride, row: dict[str, Any]) -> None:
        """An operator's day: disputes are closed, suspensions lifted, what only a person can tell is looked up."""
        wishes: list[DebitEvent] = []
        if row["dispute"] in ("complaint", "chargeback"):
            wishes.append(DisputeClosed("resolved"))
        if row["suspended"]:
            wishes.append(Resumed())
        decision = self._decision(row) if row["state"] == State.MANUAL else None
        for event in (*wishes, *((decision,) if decision else ())):
            happened = [((row["ride_no"], row["ordinal"]), event)]
            self._human(self.world.now(), f"{type(event).__name__} {ride.session_id}", partial(_happen, happened))

    def _decision(self, row: dict[str, Any]) -> OperatorDecided | None:
        """What somebody who can see the provider's own books decides."""
        account_id = self._account_id(row["account_no"])
        there = self.world.books.debits.get((account_id, row["provider_key"]))
        if there is not None and there.paid_minor:
            return OperatorDecided("settled", "it is paid there", there.ref) if there.state == "paid" else None
        if there is not None and there.state == "accepted":
            return None
        return OperatorDecided("cancel", "it was never taken there")
