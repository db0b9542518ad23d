"""Rides for tests: events in a line each, and a world that decides them as the writers do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from service.billing.adjustments import adjust
from service.billing.batch import Advance, Arrival, advance, reconsider
from service.billing.catalog import AgreementRef, BalanceBook, BalanceKey, Catalog, Operator, TariffVersion
from service.billing.events import Adjustment, AdjustmentKind, Kind, Position, RideEvent
from service.billing.keys import session_key_bytes
from service.billing.opening import OpenDebt, brought_over
from service.billing.rides import Revision, Ride, StoredRevision, restore
from service.billing.tariffs import Tariff, TariffDraft, build
from service.billing.verdicts import Occasion, Terms

NOON = datetime(2026, 11, 22, 4, tzinfo=UTC)
"""Noon in Shanghai, when the rides of the tests begin."""
OPERATOR = Operator(1, "default", "Asia/Shanghai", "CNY")
RULES: dict[str, Any] = {
    "free_abort_seconds": 60,
    "ride_max": "30.00",
    "lost_end": {"after_hours": 24, "charge": "ride_max"},
    "default_reserve_time": 15,
}
PLAN: dict[str, Any] = {
    "plan_id": "bike",
    "currency": "CNY",
    "price": "1.50",
    "per_min_pricing": [{"start": 15, "rate": "1.00", "interval": 15}],
    "reservation_price_per_min": "0.10",
}


def at(minutes: float) -> datetime:
    """So many minutes after noon."""
    return NOON + timedelta(minutes=minutes)


def event(kind: Kind, minutes: float, event_id: str = "", *, session: str = "s-1", **fields: Any) -> RideEvent:
    """An event so many minutes after noon; its id is its kind unless another is given. Start and end name the terms."""
    if kind in ("started", "ended", "reservation_started"):
        fields = {"agreement_id": "agr-1", "tariff_id": "bike", **fields}
    fields.setdefault("position", Position("rides", 0, 0))
    return RideEvent(kind=kind, source="urn:app", id=event_id or kind, time=at(minutes), session_id=session, **fields)


def adjustment(kind: AdjustmentKind, amount_minor: int, adjustment_id: str = "", **fields: Any) -> Adjustment:
    """What support decides; its id is its kind unless another is given."""
    given = {"code": "damage", "currency": "CNY", "reason": "as the photos show", "by": "support-7", **fields}
    return Adjustment(kind=kind, amount_minor=amount_minor, adjustment_id=adjustment_id or kind, **given)


def whole(session: str, since: float = 0, until: float = 20, **fields: Any) -> tuple[RideEvent, RideEvent]:
    """Start and end of a ride, in minutes after noon."""
    return event("started", since, session=session, **fields), event("ended", until, session=session, **fields)


def tariff(rules: Mapping[str, Any] | None = None, *, name: str = "bike", version: int = 1, **plan: Any) -> Tariff:
    """1.50 for 15 minutes, 1.00 for each 15 after, at most 30.00; lost ends cost the maximum after 24 h."""
    whole = {**RULES, **(rules or {})}
    draft = TariffDraft(
        tariff_id=name,
        plan=json.dumps({**PLAN, "plan_id": name, **plan}).encode(),
        rules=json.dumps({key: value for key, value in whole.items() if value is not None}).encode(),
    )
    return build(draft, version=version, valid_from=datetime(2026, 11, 1, tzinfo=UTC), time_zone="Asia/Shanghai")


def catalog(*tariffs: Tariff, agreements: Sequence[str] = ("agr-1",), currency: str = "CNY") -> Catalog:
    """Agreements 1, 2 … of riders 11, 12 …, and tariffs 1, 2 …; the usual tariff unless others are given."""
    found = Catalog()
    for number, name in enumerate(agreements, 1):
        found.agreements[1, name] = AgreementRef(number, 10 + number, currency)
    for number, known in enumerate(tariffs or (tariff(),), 1):
        version = TariffVersion(number, known.version, known.valid_from, known)
        found.add_tariffs({(1, known.tariff_id): [version]})
    return found


class World:
    """One operator's rides, decided in memory by the rules alone; every revision is read back as the database would."""

    def __init__(self, known: Catalog | None = None, operator: Operator = OPERATOR) -> None:
        self.catalog = known or catalog()
        self.operator = operator
        self.rides: dict[bytes, Ride] = {}
        self.revisions: list[Revision] = []
        self.balances: dict[BalanceKey, Decimal] = {}
        self.duplicates = 0
        self._minted = 0
        self._now = NOON

    def take(self, *events: RideEvent, now: float | None = None) -> list[Revision]:
        """One batch, a minute after the latest event so far unless `now` (minutes after noon) says otherwise."""
        self._now = max(self._now, *(item.time + timedelta(minutes=1) for item in events))
        moment = self._now if now is None else at(now)
        arrivals = [Arrival(self._key(item.session_id), self.operator, item) for item in events]

        def decide(book: BalanceBook) -> Advance:
            return advance(self.rides, arrivals, self.catalog, book, moment, self._mint)

        decision = decide(book := BalanceBook())
        if book.asked:
            decision = decide(book := BalanceBook(self.balances))
            self.balances |= book.used
        self.duplicates += decision.duplicates
        return self._keep(decision.revisions)

    def look(self, minutes: float, occasion: Occasion, session: str = "s-1") -> Revision | None:
        """What `keep` decides about a ride so many minutes after noon."""
        ride, book = self.rides[self._key(session)], BalanceBook(self.balances)
        revision = reconsider(ride, self.catalog, book, at(minutes), occasion)
        self.balances |= book.used
        return self._keep([revision])[0] if revision is not None else None

    def adjust(self, adjustment: Adjustment, session: str = "s-1") -> Revision | None:
        """What support's adjustment of a ride decides, a minute after the latest event so far."""
        self._now += timedelta(minutes=1)
        revision = adjust(self.rides[self._key(session)], adjustment, self._now)
        return self._keep([revision])[0] if revision is not None else None

    def bring(self, debt: OpenDebt, tariff_id: str = "bike") -> Revision:
        """A debt that another system billed, brought over."""
        version = self.catalog.tariff_version(1, tariff_id, 1)
        assert version is not None
        terms = Terms(self.catalog.agreements[1, debt.agreement_id], version)
        return self._keep([brought_over(debt, self.operator, self._mint(), terms, self._now)])[0]

    def knows(self, session: str) -> bool:
        """Whether anything was decided about a ride."""
        return self._key(session) in self.rides

    def ride(self, session: str = "s-1") -> Ride:
        """What is known of a ride."""
        return self.rides[self._key(session)]

    def total(self, session: str = "s-1") -> int | None:
        """What stands to be paid for a ride, in minor units; None while nothing does."""
        charge = self.ride(session).charge
        return charge.charge.total_minor if charge is not None else None

    def owed(self, session: str = "s-1") -> list[int]:
        """The ride's obligations."""
        return [
            revision.owing_minor
            for revision in self.revisions
            if revision.ride.key == self._key(session) and revision.owing_minor
        ]

    def stored(self, session: str = "s-1") -> list[StoredRevision]:
        """The ride's revisions as rows."""
        return [store(revision) for revision in self.revisions if revision.ride.key == self._key(session)]

    def _key(self, session: str) -> bytes:
        return session_key_bytes(self.operator.operator_id, session)

    def _mint(self) -> int:
        self._minted += 1
        return self._minted

    def _keep(self, revisions: list[Revision]) -> list[Revision]:
        self.revisions += revisions
        for revision in revisions:
            self.rides[revision.ride.key] = revision.ride
            told = [store(item) for item in self.revisions if item.ride.key == revision.ride.key]
            again = restore(revision.ride.key, self.operator, revision.ride.agreement, told)
            assert again == revision.ride, "what is read back is not what was decided"
        return revisions


def store(revision: Revision) -> StoredRevision:
    """A revision as its row reads back, taken apart from the row's own text."""
    fields = [None if field == "\\N" else field for field in revision.row.split("\t")]
    names = [name for name in StoredRevision.__struct_fields__ if name not in ("batch_no", "digest")]
    assert len(fields) == len(names)
    row = dict(zip(names, fields, strict=True))
    return msgspec.convert({**row, "batch_no": 0, "digest": revision.ride.digest}, StoredRevision, strict=False)


def told(events: Sequence[Sequence[RideEvent]], known: Catalog | None = None, **operator: Any) -> World:
    """A world that took these batches one after the other, under an operator that differs so from the usual one."""
    found = World(known, msgspec.structs.replace(OPERATOR, **operator))
    for batch in events:
        found.take(*batch)
    return found
