"""Agreements and holds on a real database, against the real simulator over sockets, on clocks of their own."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
from builders import MIGRATED_AT
from sandbox_peer import API_KEY, NOTIFY_SECRET, Peer, peer, rider_path

from service.adapters.postgres import Database
from service.adapters.postgres.batches import FACTS_DECODER
from service.adapters.postgres.operators import NewOperator, OperatorStore
from service.adapters.providers import Providers
from service.billing.capabilities import Capabilities
from service.billing.keys import session_key, slot_of
from service.billing.tariffs import import_document
from service.flows.accounts import add_account
from service.flows.agreement_replies import AgreementView, NewAgreement
from service.flows.agreements import Agreements
from service.flows.hold_replies import HoldAsk, HoldReply
from service.flows.holds import Holds
from service.flows.operators import add_operator
from service.flows.tariffs import publish_tariff
from service.lab.provider.mirror import terms_of
from service.lab.provider.rows import Account

PLAN = """{"tariff_id": "bike", "valid_from": "2026-01-01T00:00:00Z", "plan": {"plan_id": "p", "currency": "CNY",
 "price": "1.50", "is_taxable": false, "name": "n", "description": "d"}}"""


class World:
    """An operator of its own in a shared database, its account at a simulator, and the flows under test."""

    def __init__(self, database: Database, connection: asyncpg.Connection[asyncpg.Record], sandbox: Peer) -> None:
        self.database = database
        self.connection = connection
        self.sandbox = sandbox
        self.business_at = MIGRATED_AT
        self.machine_at = datetime.now(UTC)
        self.providers = Providers()
        self.agreements = Agreements(database, self.providers, self.now, self.machine_now)
        self.holds = Holds(database, self.providers, self.now, self.machine_now, self.agreements.look_again)
        self.operator_no = 0
        self.operator_id = f"op-{secrets.token_hex(4)}"
        self.account_no = 0
        self.account_id = f"acc-{self.operator_id}"

    def now(self) -> datetime:
        return self.business_at

    def machine_now(self) -> datetime:
        return self.machine_at

    def pass_time(self, business: timedelta, machine: timedelta = timedelta(minutes=1)) -> None:
        self.business_at += business
        self.machine_at += machine

    async def found(self, **abilities: Any) -> None:
        """Founds the operator, its merchant account with these abilities, and the tariff "bike"."""
        operator = NewOperator(operator_id=self.operator_id, name="n", time_zone="Asia/Shanghai", currency="CNY")
        await add_operator(self.database, operator, MIGRATED_AT)
        async with self.database.reading(OperatorStore) as store:
            known = await store.find(self.operator_id)
        assert known is not None
        self.operator_no = known.operator_no
        await self.open_account(self.account_id, **abilities)
        draft = import_document(PLAN.encode())[0]
        await publish_tariff(self.database, known, draft, now=MIGRATED_AT, lead=timedelta())

    async def open_account(self, account_id: str, **abilities: Any) -> None:
        capabilities = Capabilities(**abilities)
        api_key = f"{API_KEY}-{account_id}"
        account = Account(account_id, api_key, terms_of(capabilities), notify_secret=NOTIFY_SECRET)
        await self.sandbox.call("PUT", "/accounts", account)
        settings = {"api_key": api_key, "capabilities": msgspec.to_builtins(capabilities), "connect_timeout_s": 1}
        added = await add_account(
            self.database,
            self.operator_no,
            account_id=account_id,
            provider="sandbox",
            base_url=self.sandbox.url,
            settings=settings,
            now=MIGRATED_AT,
        )
        self.account_no = added.account_no

    async def policy(self, **policy: Any) -> None:
        text = msgspec.json.encode(policy).decode()
        await self.connection.execute(
            "UPDATE operator SET hold_policy = $2 WHERE operator_no = $1", self.operator_no, text
        )

    async def sign(self, agreement_id: str = "ag", rider_ref: str = "rider", **more: Any) -> AgreementView:
        """A signed agreement."""
        new = NewAgreement(agreement_id=agreement_id, rider_ref=rider_ref, **more)
        view = await self.agreements.create(self.operator_no, new)
        if view.action is not None:
            await self.sandbox.call("POST", rider_path(self.sandbox, view.action) + "&answer=confirm")
        return await self.agreements.get(self.operator_no, agreement_id)

    async def ask(self, session_id: str, agreement_id: str = "ag", **more: Any) -> HoldReply:
        asked = HoldAsk(
            operator_no=self.operator_no,
            session_id=session_id,
            agreement_id=agreement_id,
            **({"tariff_id": "bike", "vehicle_id": "v1"} | more),
        )
        return await self.holds.ask(asked)

    async def state(self, session_id: str) -> str:
        return (await self.holds.get(self.operator_no, session_id)).state

    async def at_provider(self, session_id: str) -> str | None:
        """The hold as the provider's own books have it."""
        key = await self.provider_key(session_id)
        headers = {"Authorization": f"Bearer {API_KEY}-{self.account_id}"}
        async with self.sandbox.session.get(f"{self.sandbox.url}/v1/holds/{key}", headers=headers) as answer:
            said = msgspec.json.decode(await answer.read())
            return said["state"] if answer.status == 200 else None

    async def provider_key(self, session_id: str) -> str:
        key = session_key(self.operator_id, session_id)
        told = await self.connection.fetchval("SELECT provider_key FROM hold WHERE session_key = $1", key)
        assert isinstance(told, str)
        return told

    async def facts(self, about: str) -> list[str]:
        """The names of the facts about a key of this operator, in their order."""
        rows = await self.connection.fetch(
            "SELECT facts FROM batch_facts JOIN batch USING (writer_no, seq) ORDER BY number"
        )
        source = b"urn:farebox:operator:" + self.operator_id.encode()
        found = []
        for row in rows:
            for record in FACTS_DECODER.decode(row["facts"]):
                headers = dict(record.headers)
                if record.key == about.encode() and headers["ce_source"] == source:
                    found.append(
                        (headers["ce_type"] or b"").decode().removeprefix("io.farebox.billing.").removesuffix(".v1")
                    )
        return found

    async def ride(self, session_id: str, state: str = "open", owed_minor: int = 0, agreement_id: str = "ag") -> int:
        """A ride in a state, owing something; returns its number."""
        key = session_key(self.operator_id, session_id)
        slot = slot_of(key.bytes)
        base = int((MIGRATED_AT - datetime(2024, 1, 1, tzinfo=UTC)).total_seconds() * 1000) << 22
        ride_no: int = base + secrets.randbelow(1 << 22)
        agreement_no = await self.agreement_no(agreement_id)
        await self.connection.execute(
            "INSERT INTO session_key (session_key, ride_no, slot) VALUES ($1, $2, $3)", key, ride_no, slot
        )
        await self.revise(ride_no, slot, 1, state)
        if owed_minor:
            await self.connection.execute(
                "INSERT INTO obligation (ride_no, revision, slot, operator_no, agreement_no, kind, amount_minor,"
                " currency, occurred_at) VALUES ($1, 1, $2, $3, $4, 'charge', $5, 'CNY', $6)",
                ride_no,
                slot,
                self.operator_no,
                agreement_no,
                owed_minor,
                self.now(),
            )
        return ride_no

    async def revise(self, ride_no: int, slot: int, revision: int, state: str) -> None:
        await self.connection.execute(
            "INSERT INTO ride_revision (ride_no, revision, slot, operator_no, state, events, decided_at, batch_no,"
            " digest) VALUES ($1, $2, $3, $4, $5::text::session_state, '[]', $6, 1, '')",
            ride_no,
            revision,
            slot,
            self.operator_no,
            state,
            self.now(),
        )

    async def debit(
        self, session_id: str, ride_no: int, state: str, amount_minor: int, paid_minor: int, *, overdue: bool = False
    ) -> None:
        key = session_key(self.operator_id, session_id)
        await self.connection.execute(
            "INSERT INTO debit (ride_no, ordinal, slot, operator_no, agreement_no, account_no, session_key, session_id,"
            " currency, amount_minor, paid_minor, state, overdue, provider_key, created_at, updated_at)"
            " VALUES ($1, 1, $2, $3, $4, $5, $6, $7, 'CNY', $8, $9, $10, $11, 'k', $12, $12)",
            ride_no,
            slot_of(key.bytes),
            self.operator_no,
            await self.agreement_no("ag"),
            self.account_no,
            key,
            session_id,
            amount_minor,
            paid_minor,
            state,
            overdue,
            self.now(),
        )

    async def intent(self) -> None:
        """Waits until some hold of the operator was committed."""
        async with asyncio.timeout(20):
            asked = "SELECT count(*) FROM hold WHERE operator_no = $1"
            while not await self.connection.fetchval(asked, self.operator_no):
                pass

    async def agreement_no(self, agreement_id: str) -> int:
        number = await self.connection.fetchval(
            "SELECT agreement_no FROM agreement WHERE operator_no = $1 AND agreement_id = $2",
            self.operator_no,
            agreement_id,
        )
        assert isinstance(number, int)
        return number

    async def intake_has_read(self, through: datetime) -> None:
        await self.connection.execute(
            "INSERT INTO stream_offset (consumer_group, topic, partition, next_offset, cluster_id, read_through_at)"
            " VALUES ('g', 't', 0, 0, 'c', $1) ON CONFLICT (consumer_group, topic, partition)"
            " DO UPDATE SET read_through_at = $1",
            through,
        )


@asynccontextmanager
async def world(database_url: str, **abilities: Any) -> AsyncIterator[World]:
    database = await Database.open(database_url, name="test")
    connection = await asyncpg.connect(database_url)
    async with peer() as sandbox:
        it = World(database, connection, sandbox)
        await it.found(**abilities)
        try:
            yield it
        finally:
            await it.providers.close()
            await connection.close()
            await database.close()
