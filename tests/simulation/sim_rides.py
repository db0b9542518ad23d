"""Rides of a world: what apps put on the topic about them, and what operators and support decide later."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from sim_caps import Cap
from sim_faces import follow
from sim_intake import record
from sim_lives import Life
from sim_people import People, Ride, Said
from sim_world import BEGINNING, World, WorldError

from service.adapters.postgres.holds import HoldStore
from service.billing.adjustments import AdjustmentError
from service.billing.events import Adjustment, AdjustmentKind, Kind, Position, RideEvent
from service.billing.keys import session_key
from service.flows.hold_replies import HoldAsk
from service.lab.provider import holds as provider_holds

AFTERMATH = (
    "correct", "correct", "adjust", "void", "suspend", "dispute", "pay", "pay", "elsewhere", "ask", "forge", "lie"
)  # fmt: skip
REASON = "as it was"
LOST_AFTER = timedelta(hours=24)
AFTER_IT = timedelta(minutes=2)
LATE_S = (1, 30, 3600)
AGAIN_S = (1, 30, 3600, 5 * 86_400)
"""How much later an app sends an event, and how much later it sends it again."""
AT_ONCE = (1, 1, 1, 5)
"""How often it sends it then: more than an intake may take in one go."""


class Rides(People):
    """What becomes of rides."""

    lost_minor = 0
    cap: Cap | None = None

    def _ride(self, number: int) -> None:
        random, world = self.random, self.world
        rider = random.choice(self.riders)
        began_at = (
            BEGINNING
            + timedelta(hours=1)
            + timedelta(minutes=random.randrange((720 if self.cap is None else self.cap.hours) * 60))
        )
        ride = Ride(
            f"ride-{number}",
            rider.rider_ref,
            rider.agreement_id,
            rider.account_no,
            began_at,
            random.randrange(1, 40),
            random.random() < 0.4,
            self.lost_minor,
            said=[],
        )
        self.rides.append(ride)
        _, profile = world.accounts[ride.account_no]
        ended_at = began_at + timedelta(minutes=ride.minutes, seconds=30)
        if profile.capabilities.hold_confirmed_by_rider and random.random() < 0.25:
            self._confirms_later(ended_at)
        elif profile.capabilities.hold_needed or random.random() < 0.3:
            self._holds(ride, ended_at)
        lost = "" if self.focus.aftermath else random.choice(("", "", "", "", "", "started", "ended", "late"))
        if lost != "started":
            self._event(ride, "started", f"s{number}", began_at)
        if lost != "ended":
            late = timedelta(hours=random.choice((30, 80))) if lost == "late" else timedelta()
            self._event(ride, "ended", f"e{number}", ended_at, minutes=ride.minutes, when=ended_at + late)
            if random.random() < 0.1:  # Another end, of which nobody can say that it came first.
                other = ride.minutes + random.randrange(1, 30)
                other_at = began_at + timedelta(minutes=other, seconds=30)
                when = ended_at + late + timedelta(hours=2)
                self._event(ride, "ended", f"x{number}", other_at, minutes=other, when=when)
        if lost:
            for hours in (1, 7, 50):
                self._keep(began_at + LOST_AFTER + timedelta(hours=hours))
        self._aftermath(ride, ended_at)

    def _holds(self, ride: Ride, ended_at: datetime) -> None:
        """Its app asks for a hold before it begins, twice, and once more when it is over, of which it may not know."""
        key = session_key(self.operator.operator_id, ride.session_id)
        whose = (
            self.random.choice(self.riders) if self.random.random() < self.focus.slips else None
        )  # A slip of the app's.

        async def hold(life: Life) -> None:
            async with life.database.reading(HoldStore) as store:
                over = (await store.rides_of_holds([key]))[key].state in ("closed", "voided")
            asked = HoldAsk(
                operator_no=self.operator.operator_no,
                session_id=ride.session_id,
                agreement_id=ride.agreement_id if whose is None else whose.agreement_id,
                tariff_id="bike",
                vehicle_id="v",
            )
            if (await life.holds.ask(asked)).unlock and over:
                raise WorldError(f"{ride.session_id} is over, and its hold unlocks")

        for when in (*(ride.began_at - timedelta(seconds=before_s) for before_s in (60, 40)), ended_at + AFTER_IT):
            self._human(when, f"hold {ride.session_id}", hold)
        self._outside(ride.began_at - timedelta(seconds=5), "confirm holds", lambda _: self._confirm_holds())
        self._outside(ride.began_at + timedelta(seconds=50), "confirm holds", lambda _: self._confirm_holds())
        for after_s in (-5, 50):
            self._phone(ride.began_at + timedelta(seconds=after_s), "hold")

    def _confirms_later(self, ended_at: datetime) -> None:
        """Of a ride that was unlocked without a hold: collection asks for one, which its rider confirms or not."""
        for after in (timedelta(seconds=30), timedelta(minutes=10), timedelta(days=1, hours=1), timedelta(days=5)):
            self._outside(ended_at + after, "confirm holds", lambda _: self._confirm_holds())
            self._phone(ended_at + after, "hold")

    def _phone(self, when: datetime, table: Literal["agreement", "hold", "debit"]) -> None:
        faces = [number for number, (_, profile) in self.world.accounts.items() if profile.face != "sandbox"]
        if faces:
            doing = follow(self.world, self.operator.operator_no, table, lambda: self.random.random() < 0.9)
            self.world.at(when, f"phone {table}", "phone", doing)

    def _confirm_holds(self) -> None:
        for (account_id, key), hold in sorted(self.world.books.holds.items()):
            account = self.world.books.accounts[account_id]
            if hold.state == "pending" and account.face == "sandbox":
                confirmed = self.random.random() < 0.9
                provider_holds.answer_by_rider(self.world.books, account, key, confirmed, self.world.now())

    def _aftermath(self, ride: Ride, ended_at: datetime) -> None:
        """What happens to a ride that is charged, in some order, over some weeks."""
        when = ended_at
        kinds = self.focus.aftermath or AFTERMATH
        if self.cap is not None:  # What a cap has left can't be told apart from what support has forgone.
            kinds = tuple(kind for kind in kinds if kind != "adjust")
        for _ in range(4 if self.focus.aftermath else self.random.choice((0, 1, 2, 4))):
            when += timedelta(minutes=self.random.choice((1, 30, 300, 2000, 9000)))
            what = self.random.choice(kinds)
            getattr(self, f"_{what}")(ride, when)

    def _event(
        self,
        ride: Ride,
        kind: Kind,
        event_id: str,
        time: datetime,
        *,
        minutes: int = 0,
        when: datetime | None = None,
        **data: Any,
    ) -> None:
        """An event of a ride, sent late, now and then many times at once, and once more later."""
        event_id = f"{self.world.seed}-{event_id}"
        if kind in ("started", "ended"):
            data |= {"agreement_id": ride.agreement_id, "tariff_id": "bike"}
        value, headers = record(kind, event_id, time, ride.session_id, **data)
        times = self.random.choice(AT_ONCE)

        def send(world: World) -> None:
            ride.said.append(Said(event_id, kind, minutes))
            at_ms = int(world.now().timestamp() * 1000)
            for _ in range(times):
                world.fleet.topic.append(ride.session_id.encode(), value, headers, at_ms)

        for late_s in (LATE_S, AGAIN_S)[: self.random.choice((1, 1, 2))]:
            late = timedelta(seconds=self.random.choice(late_s))
            self._outside((when or time) + late, f"{kind} {ride.session_id}", send)

    def _correct(self, ride: Ride, when: datetime) -> None:
        passed = (when - ride.began_at) // timedelta(minutes=1)  # Somebody must look at an end that is yet to come.
        minutes = self.random.randrange(1, max(2, min(60, passed)))
        ended_at = ride.began_at + timedelta(minutes=minutes, seconds=30)
        self._extra += 1
        if ride.by_topic:
            self._event(ride, "corrected", f"c{self._extra}", when, minutes=minutes, ended_at=ended_at, reason=REASON)
        else:
            self._decided(ride, when, minutes, kind="corrected", corrected_end=ended_at)

    def _void(self, ride: Ride, when: datetime) -> None:
        self._extra += 1
        if ride.by_topic:
            self._event(ride, "voided", f"c{self._extra}", when, reason=REASON)
        else:
            self._decided(ride, when, 0, kind="voided")

    def _decided(self, ride: Ride, when: datetime, minutes: int, **fields: Any) -> None:
        """By the door: it is asked again until it is known that it was taken in."""
        event = RideEvent(
            source="urn:operator",
            id=f"{self.world.seed}-c{self._extra}",
            time=when,
            session_id=ride.session_id,
            position=Position("", 0, 0),
            reason=REASON,
            **fields,
        )

        async def decide(life: Life) -> None:
            if ride.voided:
                return
            if ride.deciding not in (None, event.id):
                raise ConnectionRefusedError("whether the decision before it was taken in is not known yet")
            ride.deciding = event.id
            if await self.door.decide(life.database, event):
                ride.said.append(Said(event.id, event.kind, minutes))
            ride.deciding = None

        self.world.at(when, f"{event.kind} {ride.session_id}", "serve", decide, must=True)

    def _adjust(self, ride: Ride, when: datetime) -> None:
        """Support charges a little more or less: so little that no ride costs less than nothing."""
        self._extra += 1
        kinds: tuple[AdjustmentKind, ...] = ("extra", "goodwill", "goodwill", "refund")
        kind = self.random.choice(kinds)
        amount_minor = self.random.randrange(1, 30)
        adjustment = Adjustment(
            kind=kind,
            code="support",
            amount_minor=amount_minor,
            currency="CNY",
            reason=REASON,
            adjustment_id=f"{self.world.seed}-a{self._extra}",
            by="support",
        )
        owed_minor = amount_minor if kind == "extra" else -amount_minor

        async def adjust(life: Life) -> None:
            try:
                await self.door.adjust(life.database, self.operator.operator_no, ride.session_id, adjustment)
            except AdjustmentError:
                self.world.counts["told no"] += 1
                return
            ride.said.append(Said(adjustment.adjustment_id, kind, 0, owed_minor))

        self.world.at(when, f"{kind} {ride.session_id}", "serve", adjust, must=True)
