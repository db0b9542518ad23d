"""An intake in the test's own process, on the real servers: a topic, a database, and rounds that are stepped."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
from aiokafka import AIOKafkaProducer

from service.adapters.clock import machine_now
from service.adapters.kafka import ConsumerSettings, RecordSource, cluster_id
from service.adapters.kafka_access import Brokers
from service.adapters.postgres import Database, connect
from service.adapters.postgres.operators import OperatorStore
from service.billing.tariffs import import_document
from service.flows.clock import BusinessClock
from service.flows.intake import Intake, IntakeSettings
from service.flows.intake.streams import Streams
from service.flows.knowledge import Knowledge
from service.flows.tariffs import publish_tariff
from service.lab.servers import Servers

SOURCE = "urn:mds:provider:test"
NOON = (datetime.now(UTC) - timedelta(hours=28)).replace(hour=4, minute=0, second=0, microsecond=0)
"""The last noon in the tariffs' zone, Asia/Shanghai, that is a day ago or more: a ride of it has waited long enough."""

BIKE: dict[str, Any] = {
    "tariff_id": "bike",
    "valid_from": "2026-01-01T00:00:00+08:00",
    "time_zone": "Asia/Shanghai",
    "plan": {
        "plan_id": "bike",
        "name": "Bike",
        "currency": "CNY",
        "price": "1.50",
        "is_taxable": False,
        "description": "1.50 for 15 minutes, then 1 for every 15 begun",
        "per_min_pricing": [{"start": 15, "rate": "1.00", "interval": 15}],
    },
}
CAPPED = {
    **BIKE,
    "tariff_id": "capped",
    "plan": {**BIKE["plan"], "plan_id": "capped"},
    "rules": {"day_cap": {"price": "6.00"}},
}


class World:
    """One topic and one database; any number of intakes on them."""

    def __init__(self, url: str, bootstrap: str, topic: str) -> None:
        self.url = url
        self.bootstrap = bootstrap
        self.topic = topic
        self.group = f"group-{secrets.token_hex(4)}"
        self.intakes: list[Intake] = []
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")

    async def open(self) -> None:
        await self._producer.start()

    async def close(self) -> None:
        for intake in self.intakes:
            await intake.close()
        await self._producer.stop()

    async def publish(
        self,
        kind: str,
        session_id: str,
        at: datetime,
        *,
        nth: str = "",
        source: str = SOURCE,
        agreement_id: str = "agreement-1",
        **data: Any,
    ) -> None:
        """One ride event as an app sends it; its id derives from ride, kind and `nth`."""
        contract = {"session_id": session_id}
        if kind in ("started", "ended"):
            contract |= {"agreement_id": agreement_id, "tariff_id": "bike"}
        headers = {
            "ce_specversion": "1.0",
            "ce_id": f"{session_id}/{kind}/{nth}",
            "ce_source": source,
            "ce_type": f"io.farebox.session.{kind}.v1",
            "ce_time": at.isoformat(),
            "content-type": "application/json",
        }
        await self.send(session_id.encode(), msgspec.json.encode(contract | data), headers)

    async def ride(self, session_id: str, minutes: float, start: datetime = NOON, **data: Any) -> None:
        """A ride that goes well."""
        await self.publish("started", session_id, start, **data)
        await self.publish("ended", session_id, start + timedelta(minutes=minutes), **data)

    async def send(self, key: bytes, value: bytes, headers: Mapping[str, str], partition: int | None = None) -> None:
        """Any record."""
        encoded = [(name, text.encode()) for name, text in headers.items()]
        await self._producer.send_and_wait(self.topic, value, key=key, headers=encoded, partition=partition)

    async def intake(self, *, rides_max: int = 1000, records_max: int = 500, start_from: str = "earliest") -> Intake:
        """A member of the group."""
        source = RecordSource(ConsumerSettings(Brokers(self.bootstrap), self.topic, self.group, 10_000, 6_000))
        streams = Streams(source, self.group, self.topic, await cluster_id(Brokers(self.bootstrap)), start_from)
        knowledge = Knowledge(BusinessClock(), rides_max)

        async def hot(name: str) -> asyncpg.Connection[asyncpg.Record]:
            return await connect(self.url, name=name, hot=True)

        intake = Intake(source, streams, knowledge, hot, IntakeSettings(records_max, 50))
        source.on_revoked = intake.on_revoked
        await source.start()
        self.intakes.append(intake)
        return intake

    async def leave(self, intake: Intake) -> None:
        """The member ends in good order."""
        self.intakes.remove(intake)
        await intake.close()

    async def drain(self, intake: Intake, records: int) -> None:
        """Rounds until the database says that so many records of the topic were read."""
        async with asyncio.timeout(30):
            while await self.value("SELECT coalesce(sum(next_offset), 0) FROM stream_offset") < records:
                await self.step(intake)
            await intake.settle()

    async def step(self, intake: Intake) -> None:
        """One round, recovered as the role does it."""
        try:
            await intake.round()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, RuntimeError, ValueError) as error:
            await intake.recover(error)

    async def value(self, query: str, *arguments: Any) -> Any:
        connection = await asyncpg.connect(self.url)
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            await connection.close()

    async def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(self.url)
        try:
            return [tuple(row) for row in await connection.fetch(query, *arguments)]
        finally:
            await connection.close()

    async def charges(self) -> dict[str, tuple[str, int | None]]:
        """(state, what is owed) of every ride by session id, from its last revision and its obligations."""
        rows = await self.rows(
            "SELECT"
            " (SELECT events::jsonb -> 0 ->> 'n' FROM ride_revision f WHERE f.ride_no = r.ride_no AND revision = 1),"
            " r.state::text, (SELECT sum(amount_minor)::bigint FROM obligation o WHERE o.ride_no = r.ride_no)"
            " FROM ride_revision r WHERE NOT EXISTS"
            " (SELECT FROM ride_revision l WHERE l.ride_no = r.ride_no AND l.revision > r.revision)"
        )
        assert len({row[0] for row in rows}) == len(rows), "a session has two rides"
        return {session: (state, owed) for session, state, owed in rows}


@asynccontextmanager
async def world_on(servers: Servers, template: str, topic: str) -> AsyncIterator[World]:
    """A furnished world on a topic; its database, a copy of `template`, has the topic's name and goes with it."""
    name = topic.replace("-", "_")
    url = await servers.create_database(name, template=template)
    await furnish(url)
    world = World(url, servers.kafka_bootstrap, topic)
    await world.open()
    try:
        yield world
    finally:
        await world.close()
        await servers.drop_database(name)


async def furnish(url: str) -> None:
    """Two riders with agreements, and the tariffs."""
    database = await Database.open(url, name="test", size_max=2)
    connection = await asyncpg.connect(url)
    try:
        async with database.reading(OperatorStore) as store:
            operator = await store.default()
        assert operator is not None
        for document in (BIKE, CAPPED):
            (draft,) = import_document(msgspec.json.encode(document))
            await publish_tariff(database, operator, draft, now=machine_now(), lead=timedelta(0))
        await connection.execute(
            "INSERT INTO merchant_account (operator_no, account_id, provider, base_url, created_at)"
            " VALUES (1, 'main', 'sandbox', 'http://127.0.0.1', $1)",
            NOON,
        )
        await connection.execute("INSERT INTO rider (operator_no, rider_ref) VALUES (1, 'rider-1'), (1, 'rider-2')")
        await connection.execute(
            "INSERT INTO agreement (operator_no, agreement_id, rider_no, account_no, state, currency, time_zone,"
            " language, provider_key, created_at, updated_at)"
            " SELECT 1, 'agreement-' || rider_no, rider_no, 1, 'active', 'CNY', 'Asia/Shanghai', 'zh',"
            " 'key' || rider_no, $1, $1 FROM rider",
            NOON,
        )
    finally:
        await connection.close()
        await database.close()
