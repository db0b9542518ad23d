"""A workbench for tests of collection: one database, one provider, clocks that move by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from typing import Any, cast

import asyncpg
from builders import MIGRATED_AT, Party, Ride, add_account, add_party, add_ride, owe
from fakes import FakeProvider

from service.adapters.postgres import Database
from service.adapters.providers import Providers
from service.adapters.providers.port import Provider
from service.billing.capabilities import Capabilities
from service.flows.collection import Collection
from service.flows.holds import Holds

_COUNTER = count(1)


def only(provider: object) -> Providers:
    """The providers of a process whose every merchant account is at this one."""
    return cast(Providers, _OneProvider(provider))


class _OneProvider:
    def __init__(self, provider: object) -> None:
        self._provider = provider

    def of(self, _account: object) -> object:
        return self._provider


class Bench:
    """Rides go in, rounds are stepped, books are compared. `now` is business time, `machine` the machine's."""

    def __init__(
        self, database: Database, connection: asyncpg.Connection[asyncpg.Record], provider: FakeProvider
    ) -> None:
        self.connection = connection
        self.provider = provider
        self.now = MIGRATED_AT
        self.machine = MIGRATED_AT
        self.database = database
        self.collection = self.collector()

    def collector(self) -> Collection:
        """Another process that collects."""
        providers = {self.account_no: cast(Provider, self.provider)}
        now, look = lambda: self.now, self.holder().look
        return Collection(self.database, providers, now, lambda: self.machine, concurrency=8, look_at_hold=look)

    def holder(self) -> Holds:
        """Another process that asks for holds and lets go of them."""
        return Holds(self.database, only(self.provider), lambda: self.now, lambda: self.machine)

    @property
    def account_no(self) -> int:
        return self.provider.account.account_no

    async def party(self, *, cap_minor: int | None = None) -> Party:
        return await add_party(self.connection, self.account_no, str(next(_COUNTER)), cap_minor=cap_minor)

    async def ride(self, party: Party, amount_minor: int) -> Ride:
        """A ride that owes, planned."""
        ride = await self.unplanned(party, amount_minor)
        await self.collection.plan_round()
        return ride

    async def unplanned(self, party: Party, amount_minor: int) -> Ride:
        """A ride that owes, as the intake leaves it."""
        number = next(_COUNTER)
        return await add_ride(self.connection, party, f"session-{number}", amount_minor, number)

    async def owe(self, ride: Ride, revision: int, amount_minor: int) -> None:
        """A correction, planned."""
        await self.owe_unplanned(ride, revision, amount_minor)
        await self.collection.plan_round()

    async def owe_unplanned(self, ride: Ride, revision: int, amount_minor: int) -> None:
        """A correction, as its writer leaves it."""
        await owe(self.connection, [(ride, revision, amount_minor)])

    def pass_time(self, step: timedelta) -> None:
        """Both clocks move."""
        self.now += step
        self.machine += step

    async def settle_down(self, rounds: int = 30, step: timedelta = timedelta(seconds=61)) -> None:
        """Steps rounds and time until nothing is due any more, `rounds` at most."""
        for _ in range(rounds):
            await self.collection.submit_round(self.account_no)
            self.pass_time(step)

    async def debits(self, ride: Ride) -> list[dict[str, Any]]:
        rows = await self.connection.fetch("SELECT * FROM debit WHERE ride_no = $1 ORDER BY ordinal", ride.ride_no)
        return [dict(row) for row in rows]

    async def hold(
        self,
        ride: Ride,
        state: str,
        key: str,
        ref: str | None = None,
        *,
        cap_minor: int = 1000,
        reason: str | None = None,
        refusal: str | None = None,
        opened: bool = False,
        due: bool = False,
        party: Party | None = None,
    ) -> None:
        """A hold of the ride's session that stands like this: `opened` and `due` when its first debit was made; on the
        agreement of another `party`, or the ride's."""
        await self.connection.execute(
            "INSERT INTO hold (session_key, slot, operator_no, session_id, agreement_no, account_no, tariff_id,"
            " currency, state, provider_key, provider_ref, cap_minor, reason, refusal, requested_at, opened_at, due_at,"
            " updated_at)"
            " SELECT session_key, slot, operator_no, session_id, coalesce($10, agreement_no), account_no, 't', 'CNY',"
            " $2, $3, $4, $5::bigint, $6, $7, created_at, CASE WHEN $8 THEN created_at END,"
            " CASE WHEN $9 THEN created_at END, created_at FROM debit WHERE ride_no = $1 AND ordinal = 1",
            *(ride.ride_no, state, key, ref, cap_minor, reason, refusal, opened, due),
            party.agreement_no if party is not None else None,
        )

    async def states(self, ride: Ride) -> list[tuple[str, int, int]]:
        """(state, amount, paid) of each debit."""
        return [(row["state"], row["amount_minor"], row["paid_minor"]) for row in await self.debits(ride)]

    async def transitions(self, ride: Ride) -> list[str]:
        rows = await self.connection.fetch(
            "SELECT to_state FROM debit_transition WHERE ride_no = $1 ORDER BY ordinal, transition", ride.ride_no
        )
        return [row["to_state"] for row in rows]

    async def whys(self, ride: Ride) -> list[str]:
        """What is said of each step of its debits' lives."""
        rows = await self.connection.fetch(
            "SELECT why FROM debit_transition WHERE ride_no = $1 ORDER BY ordinal, transition", ride.ride_no
        )
        return [row["why"] for row in rows]

    async def balance(self, kind: int, number: int) -> int:
        """What stands on an account: debits less credits."""
        account = kind * 10**15 + number
        value = await self.connection.fetchval(
            "SELECT coalesce(sum(CASE WHEN debit_account = $1 THEN amount_minor ELSE -amount_minor END), 0)::bigint"
            " FROM transfer WHERE $1 IN (debit_account, credit_account)",
            account,
        )
        assert isinstance(value, int)
        return value


@asynccontextmanager
async def open_bench(url: str, capabilities: Capabilities | None = None) -> AsyncIterator[Bench]:
    """A bench on a migrated database, with an account of its own."""
    connection = await asyncpg.connect(url)
    database = await Database.open(url, name="test", size_max=4)
    try:
        account_no = await add_account(connection, f"account-{next(_COUNTER)}")
        yield Bench(database, connection, FakeProvider(account_no, capabilities))
    finally:
        await database.close()
        await connection.close()


async def assert_books_agree(bench: Bench) -> None:
    """We believe what the provider did; no debit is paid beyond its amount; no transition is lost."""
    taken, given = sum(bench.provider.taken.values()), sum(bench.provider.given_back.values())
    assert await bench.balance(4, bench.account_no) == taken - given
    over = await bench.connection.fetch(
        "SELECT * FROM debit WHERE paid_minor > amount_minor AND state <> 'settled_twice'"
    )
    assert over == []
    gaps = await bench.connection.fetch(
        "SELECT ride_no FROM debit d WHERE transitions <> (SELECT count(*) FROM debit_transition t"
        " WHERE t.ride_no = d.ride_no AND t.ordinal = d.ordinal)"
    )
    assert gaps == []
