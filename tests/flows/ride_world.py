"""Rides in a real database, written as the intake writes them, and the business clock in the test's hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ride_builders import at
from ride_builders import tariff as bike

from service.adapters.postgres import Database
from service.adapters.postgres.catalog import CatalogStore
from service.adapters.postgres.rides import RideNumbers, RideStore
from service.billing.batch import Arrival, advance
from service.billing.catalog import BalanceBook
from service.billing.events import RideEvent
from service.billing.keys import session_key_bytes
from service.billing.proofs import fingerprint
from service.billing.rides import Revision, Ride
from service.billing.tariffs import Tariff
from service.flows.clock import BusinessClock
from service.flows.housekeeping import Housekeeping
from service.flows.knowledge import Knowledge

GROUP, TOPIC = "group", "rides"


class RideWorld:
    """The default operator with tariffs and agreements; `take` is a batch of the intake without Kafka."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.knowledge = Knowledge(BusinessClock(), 0)
        self.numbers = RideNumbers()
        self.machine_at = at(0)
        self.keep = Housekeeping(database, Knowledge(BusinessClock(), 0), GROUP, TOPIC, lambda: self.machine_at)

    async def open(self, minutes: float = 0) -> None:
        """An empty installation at so many minutes after noon, with the usual tariff and agreement."""
        await self.sql("DELETE FROM watch; DELETE FROM sweep; DELETE FROM stream_offset; DELETE FROM batch_facts")
        await self.sql("UPDATE installation SET default_operator_no = (SELECT min(operator_no) FROM operator)")
        await self.sql(
            "INSERT INTO merchant_account (operator_no, account_id, provider, base_url, created_at)"
            " SELECT operator_no, 'acc', 'sandbox', 'http://127.0.0.1:1', $1 FROM operator ON CONFLICT DO NOTHING",
            at(0),
        )
        await self.agree("agr-1")
        await self.publish(bike())
        await self.clock(minutes)

    async def sql(self, statement: str, *arguments: Any) -> list[Any]:
        """Any statement; several when there are no arguments."""
        async with self.database.reading(RideStore) as store:
            if not arguments and ";" in statement:
                await store.connection.execute(statement)
                return []
            return [tuple(row) for row in await store.connection.fetch(statement, *arguments)]

    async def tamper(self, statement: str, *arguments: Any) -> int:
        """A statement of somebody who owns the tables and goes past their triggers; returns how many rows it met."""
        async with self.database.transaction(RideStore) as store:
            await store.connection.execute("SET LOCAL session_replication_role = replica")
            status = await store.connection.execute(statement, *arguments)
        return int(status.rpartition(" ")[2])

    async def clock(self, minutes: float) -> None:
        """The business clock stands at so many minutes after noon."""
        await self.sql(
            "UPDATE installation SET clock_mode = 'virtual', clock_speed = 0, clock_machine_at = $1,"
            " clock_business_at = $1",
            at(minutes),
        )

    async def agree(self, agreement_id: str) -> None:
        """An agreement of a rider of its own."""
        rider = "INSERT INTO rider (operator_no, rider_ref) VALUES (1, $1) ON CONFLICT DO NOTHING"
        await self.sql(rider, f"rider of {agreement_id}")
        await self.sql(
            "INSERT INTO agreement (operator_no, agreement_id, rider_no, account_no, state, currency, time_zone,"
            " language, provider_key, created_at, updated_at)"
            " SELECT 1, $1, rider_no, 1, 'active', 'CNY', 'Asia/Shanghai', 'zh', $1, $3, $3 FROM rider"
            " WHERE rider_ref = $2 ON CONFLICT DO NOTHING",
            agreement_id,
            f"rider of {agreement_id}",
            at(0),
        )

    async def publish(self, tariff: Tariff) -> None:
        """A tariff version."""
        name, document = tariff.tariff_id, tariff.document
        await self.sql("INSERT INTO tariff (operator_no, tariff_id) VALUES (1, $1) ON CONFLICT DO NOTHING", name)
        await self.sql(
            "INSERT INTO tariff_version (tariff_no, version, valid_from, document, digest, created_at)"
            " SELECT tariff_no, $2, $3, $4, $5, $3 FROM tariff WHERE tariff_id = $1 ON CONFLICT DO NOTHING",
            name,
            tariff.version,
            tariff.valid_from,
            document.decode(),
            fingerprint(document),
        )
        await self.sql(
            "UPDATE tariff t SET versions = (SELECT count(*) FROM tariff_version v WHERE v.tariff_no = t.tariff_no)"
        )

    async def read_through(self, minutes: float, partition: int = 0) -> None:
        """The partition was read up to so many minutes after noon."""
        await self.sql(
            "INSERT INTO stream_offset (consumer_group, topic, partition, next_offset, cluster_id, read_through_at)"
            " VALUES ($1, $2, $3, 0, 'c', $4)"
            " ON CONFLICT (consumer_group, topic, partition) DO UPDATE SET read_through_at = excluded.read_through_at",
            GROUP,
            TOPIC,
            partition,
            at(minutes),
        )

    async def take(self, *events: RideEvent) -> list[Revision]:
        """One batch of events, decided now and committed."""
        async with self.database.transaction(RideStore) as store:
            await self.knowledge.refresh(CatalogStore(store.connection))
            operator = self.knowledge.operators[1]
            named = {(1, event.agreement_id) for event in events if event.agreement_id is not None}
            await self.knowledge.learn_agreements(store, named)
            arrivals = [
                Arrival(session_key_bytes(operator.operator_id, event.session_id), operator, event) for event in events
            ]
            known = await store.find_rides([arrival.key for arrival in arrivals], self.knowledge.operators)
            await self.numbers.reserve(store, 2 * len(arrivals))
            return await self._write(store, known, arrivals)

    async def _write(self, store: RideStore, known: dict[bytes, Ride], arrivals: Sequence[Arrival]) -> list[Revision]:
        now = self.knowledge.clock.now()
        advance(known, arrivals, self.knowledge.catalog, book := BalanceBook(), now, self.numbers.at(now))
        book = BalanceBook(await store.lock_balances(book.asked))
        decision = advance(known, arrivals, self.knowledge.catalog, book, now, self.numbers.at(now))
        revisions = decision.revisions
        if revisions:
            await store.write_batch("intake/test", revisions, now, now)
        return revisions

    async def ride(self, session: str = "s-1") -> Ride:
        """A ride, read back."""
        async with self.database.reading(RideStore) as store:
            await self.knowledge.refresh(CatalogStore(store.connection))
            key = session_key_bytes("default", session)
            return (await store.find_rides([key], self.knowledge.operators))[key]

    async def state(self, session: str = "s-1") -> tuple[str, str | None, int | None]:
        """A ride's state, its reason, and what stands to be paid."""
        ride = await self.ride(session)
        return ride.state, ride.reason, ride.charge.charge.total_minor if ride.charge is not None else None

    async def rounds(self, minutes: float, *, read: bool = True) -> None:
        """`keep` works at so many minutes after noon until it finds nothing more to do."""
        await self.clock(minutes)
        if read:
            await self.read_through(minutes)
        for _ in range(20):
            if not await self.round():
                return
        raise AssertionError("housekeeping finds no end")

    async def round(self) -> int:
        """One round of `keep`, long enough after the last for its chores."""
        self.machine_at = self.machine_at.fromtimestamp(self.machine_at.timestamp() + 60, self.machine_at.tzinfo)
        return await self.keep.round()

    async def watched(self, session: str = "s-1") -> tuple[str, datetime] | None:
        """A ride's watch row: why, and when."""
        ride = await self.ride(session)
        rows = await self.sql("SELECT kind, due_at FROM watch WHERE ride_no = $1", ride.ride_no)
        return rows[0] if rows else None
