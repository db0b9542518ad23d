"""The doors over real sockets: two operators, real rides, a real provider, and tokens of every kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import aiohttp
import msgspec
from builders import MIGRATED_AT
from ride_builders import at
from ride_builders import tariff as bike
from sandbox_peer import API_KEY, NOTIFY_SECRET, Peer, peer

from service.adapters.clock import machine_now
from service.adapters.postgres import Database
from service.adapters.postgres.batches import FACTS_DECODER, OutRecord
from service.adapters.postgres.operators import NewOperator
from service.adapters.postgres.rides import RideNumbers, RideStore
from service.adapters.postgres.tokens import SCOPES, TokenStore, token_hash
from service.adapters.providers.port import MerchantAccount
from service.billing.batch import Arrival, advance
from service.billing.capabilities import Capabilities
from service.billing.catalog import BalanceBook
from service.billing.events import RideEvent
from service.billing.keys import session_key_bytes
from service.billing.rides import Revision
from service.billing.tariffs import Tariff
from service.flows.accounts import add_account
from service.flows.collection import Collection
from service.flows.operators import add_operator
from service.lab.processes import free_ports
from service.lab.provider.mirror import terms_of
from service.lab.provider.rows import Account
from service.web.app import create_app
from service.web.doors import Doors, DoorSettings
from service.wiring.serving import listening

ALL = "all"
"""The name and the secret of a token that may do everything for the default operator."""


class Answer(NamedTuple):
    """What came back: the body decoded where it is JSON."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def fields(self) -> list[str]:
        """The fields that a problem names."""
        return [error["field"] for error in self.body.get("errors", ())]


class WebWorld:
    """A serving process in this loop; `default` and `other` are its operators, riders are "anna" and "bert"."""

    def __init__(self, database: Database, doors: Doors, session: aiohttp.ClientSession, url: str) -> None:
        self.database = database
        self.doors = doors
        self.session = session
        self.url = url
        self.accounts: list[MerchantAccount] = []
        self.sandbox: Peer | None = None
        self._numbers = RideNumbers()
        self._keys = 0

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        by: str | None = ALL,
        key: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request; a body that is bytes is sent as it is; writes get a key of their own unless one is given."""
        told = {"Authorization": f"Bearer {by}"} if by else {}
        if method == "POST" and key != "":
            self._keys += 1
            told["Idempotency-Key"] = key or f"key-{self._keys}"
        data = body if isinstance(body, bytes | None) else msgspec.json.encode(body)
        request = self.session.request(method, self.url + path, data=data, headers=told | (headers or {}))
        async with request as response:
            raw = await response.read()
            is_json = "json" in response.headers.get("Content-Type", "")
            decoded = msgspec.json.decode(raw) if is_json and raw else raw
            return Answer(response.status, decoded, {name.lower(): text for name, text in response.headers.items()})

    async def get(self, path: str, **more: Any) -> Any:
        """The body of what is there."""
        answer = await self.ask("GET", path, **more)
        assert answer.status == 200, answer
        return answer.body

    async def sql(self, statement: str, *arguments: Any) -> list[Any]:
        """Any statement."""
        async with self.database.reading(RideStore) as store:
            return [tuple(row) for row in await store.connection.fetch(statement, *arguments)]

    async def clock(self, minutes: float) -> None:
        """The business clock stands at so many minutes after noon."""
        await self.sql(
            "UPDATE installation SET clock_mode = 'virtual', clock_speed = 0, clock_machine_at = $1,"
            " clock_business_at = $1",
            at(minutes),
        )
        await self.doors.refresh()

    async def token(self, secret: str, scopes: Sequence[str], operator_id: str, rider_ref: str | None = None) -> None:
        async with self.database.transaction(TokenStore) as store:
            await store.add(token_hash(secret), operator_id, secret, scopes, rider_ref, machine_now(), None)

    async def agree(self, agreement_id: str, rider_ref: str, token: str = ALL, **more: Any) -> None:
        """An agreement, asked for over HTTP and signed by the rider at the provider."""
        assert self.sandbox is not None
        asked = {"agreement_id": agreement_id, "rider_ref": rider_ref, "language": "en"} | more
        begun = await self.ask("POST", "/v1/agreements", asked, by=token)
        assert begun.status == 201, begun
        if begun.body["action"] is not None:
            page = begun.body["action"]["url"].removeprefix(self.sandbox.url)
            await self.sandbox.call("POST", f"{page}&answer=confirm")
        assert (await self.get(f"/v1/agreements/{agreement_id}", by=token))["state"] == "active"

    async def take(self, *events: RideEvent, operator_no: int = 1) -> list[Revision]:
        """One batch of events as the intake takes it, decided now and committed."""
        await self.doors.refresh()
        knowledge = self.doors.knowledge
        operator, now = knowledge.operators[operator_no], self.doors.now()
        async with self.database.transaction(RideStore) as store:
            named = {(operator_no, event.agreement_id) for event in events if event.agreement_id is not None}
            await knowledge.learn_agreements(store, named)
            arrivals = [
                Arrival(session_key_bytes(operator.operator_id, event.session_id), operator, event) for event in events
            ]
            known = await store.find_rides([arrival.key for arrival in arrivals], knowledge.operators)
            await self._numbers.reserve(store, 2 * len(arrivals))
            advance(known, arrivals, knowledge.catalog, book := BalanceBook(), now, self._numbers.at(now))
            book = BalanceBook(await store.lock_balances(book.asked))
            revisions = advance(known, arrivals, knowledge.catalog, book, now, self._numbers.at(now)).revisions
            await store.write_batch("intake/test", revisions, now, now)
        return revisions

    async def collect(self) -> None:
        """Everything that is owed is debited at the provider, as far as it goes at once."""
        providers = {account.account_no: self.doors.providers.of(account) for account in self.accounts}
        collection = Collection(self.database, providers, self.doors.now, machine_now)
        while await collection.plan_round():
            pass
        for account in self.accounts:
            await collection.submit_round(account.account_no)

    async def sent(self, topic: str) -> list[OutRecord]:
        """What was handed to the publisher for a topic, in its order."""
        rows = await self.sql("SELECT facts FROM batch_facts JOIN batch USING (writer_no, seq) ORDER BY number")
        return [record for (facts,) in rows for record in FACTS_DECODER.decode(facts) if record.topic == topic]

    async def found(self) -> None:
        """Two operators with a tariff, an agreement of each rider, an account at a real simulator, and tokens."""
        await add_operator(
            self.database,
            NewOperator(operator_id="other", name="Other", time_zone="Asia/Shanghai", currency="CNY"),
            MIGRATED_AT,
        )
        await self.clock(0)
        for operator_no, operator_id in ((1, "default"), (2, "other")):
            await self.open_account(operator_no, f"acc-{operator_id}", hold_needed=False)
            await self.publish(operator_no, bike())
            await self.publish(operator_no, bike({"day_cap": "5.00"}, name="capped"))
        await self.sql("UPDATE operator SET contact = 'call 400' WHERE operator_no = 1")
        await self.token(ALL, SCOPES, "default")
        await self.token("other", SCOPES, "other")
        await self.token("anna", ["status:read"], "default", "anna")
        await self.token("bert", ["status:read"], "default", "bert")
        for scope in SCOPES:
            await self.token(scope, [scope], "default")
        await self.doors.refresh()
        for token in (ALL, "other"):
            await self.agree("agr-1", "anna", token)
            await self.agree("agr-2", "bert", token)

    async def open_account(self, operator_no: int, account_id: str, **abilities: Any) -> None:
        assert self.sandbox is not None
        capabilities = Capabilities(**abilities)
        secret = f"{NOTIFY_SECRET}-{account_id}"
        account = Account(account_id, f"{API_KEY}-{account_id}", terms_of(capabilities), notify_secret=secret)
        await self.sandbox.call("PUT", "/accounts", account)
        settings = {
            "api_key": account.api_key,
            "notify_secret": secret,
            "capabilities": msgspec.to_builtins(capabilities),
        }
        self.accounts.append(
            await add_account(
                self.database,
                operator_no,
                account_id=account_id,
                provider="sandbox",
                base_url=self.sandbox.url,
                settings=settings,
                now=MIGRATED_AT,
            )
        )

    async def listen_to_notifications(self, *, on: bool = True) -> None:
        """The provider tells the default operator's account by itself from now on, or does so no more."""
        assert self.sandbox is not None
        url = f"{self.url}/v1/providers/sandbox/default.acc-default/notifications" if on else None
        (known,) = [account for account in self.accounts if account.account_id == "acc-default"]
        terms = terms_of(msgspec.convert(known.settings["capabilities"], Capabilities))
        secret = known.settings["notify_secret"]
        account = Account(known.account_id, known.settings["api_key"], terms, notify_url=url, notify_secret=secret)
        await self.sandbox.call("PUT", "/accounts", account)

    async def publish(self, operator_no: int, tariff: Tariff) -> None:
        name = tariff.tariff_id
        await self.sql("INSERT INTO tariff (operator_no, tariff_id) VALUES ($1, $2)", operator_no, name)
        await self.sql(
            "INSERT INTO tariff_version (tariff_no, version, valid_from, document, digest, created_at)"
            " SELECT tariff_no, 1, $3, $4, '', $3 FROM tariff WHERE operator_no = $1 AND tariff_id = $2",
            operator_no,
            name,
            tariff.valid_from,
            tariff.document.decode(),
        )


@asynccontextmanager
async def web_world(database_url: str, *, founded: bool = False, **settings: Any) -> AsyncIterator[WebWorld]:
    database = await Database.open(database_url, name="test", size_max=4)
    doors = Doors(
        DoorSettings(database_url=database_url, token_seconds=0, tariff_lead=timedelta(minutes=1), **settings)
    )
    await doors.open()
    (port,) = free_ports(1)
    try:
        async with (
            peer() as sandbox,
            aiohttp.ClientSession() as session,
            listening(create_app(doors), "127.0.0.1", port),
        ):
            it = WebWorld(database, doors, session, f"http://127.0.0.1:{port}")
            it.sandbox = sandbox
            await (it.doors.refresh() if founded else it.found())
            yield it
    finally:
        await doors.close()
        await database.close()


def instant(text: str) -> datetime:
    """An instant of an answer."""
    return datetime.fromisoformat(text)
