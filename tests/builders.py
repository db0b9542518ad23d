"""Rows that other roles write, made by hand: what a test of one role needs to find in the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple, TypeAlias
from uuid import UUID

import asyncpg

from service.adapters.postgres.batches import BatchStore
from service.billing.charged import StoredCharge
from service.billing.events import Position, RideEvent, encode_events
from service.billing.keys import session_key_bytes, slot_of
from service.billing.ledger import charge_transfers
from service.billing.money import from_minor
from service.billing.rating.charges import Charge, Line
from service.billing.rides import charge_text
from service.billing.sessions import Usage

MIGRATED_AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
"""Business time of all that is made here: the tests' databases have partitions for this month (conftest.py)."""

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Party(NamedTuple):
    """A rider's agreement on a merchant account, with a tariff to ride on."""

    operator_no: int
    operator_id: str
    account_no: int
    agreement_no: int
    agreement_id: str
    tariff_no: int


class Ride(NamedTuple):
    """A ride that owes."""

    ride_no: int
    session_id: str
    party: Party


async def add_account(connection: Connection, account_id: str = "main", provider: str = "fake") -> int:
    """A merchant account of the default operator; returns its number."""
    account_no = await connection.fetchval(
        "INSERT INTO merchant_account (operator_no, account_id, provider, base_url, created_at)"
        " SELECT operator_no, $1, $2, 'http://provider.invalid', $3 FROM operator WHERE operator_id = 'default'"
        " RETURNING account_no",
        account_id,
        provider,
        MIGRATED_AT,
    )
    assert isinstance(account_no, int)
    return account_no


async def add_party(connection: Connection, account_no: int, name: str, *, cap_minor: int | None = None) -> Party:
    """A rider with an active agreement, and a tariff."""
    operator_no = await connection.fetchval("SELECT operator_no FROM operator WHERE operator_id = 'default'")
    rider_no = await connection.fetchval(
        "INSERT INTO rider (operator_no, rider_ref) VALUES ($1, $2) RETURNING rider_no", operator_no, f"rider-{name}"
    )
    agreement_no = await connection.fetchval(
        "INSERT INTO agreement (operator_no, agreement_id, rider_no, account_no, state, currency, cap_minor, time_zone,"
        " language, provider_key, provider_ref, created_at, updated_at)"
        " VALUES ($1, $2, $3, $4, 'active', 'CNY', $5, 'Asia/Shanghai', 'zh', $6, $7, $8, $8) RETURNING agreement_no",
        operator_no,
        f"agreement-{name}",
        rider_no,
        account_no,
        cap_minor,
        f"key-{name}",
        f"ref-{name}",
        MIGRATED_AT,
    )
    tariff_no = await connection.fetchval(
        "INSERT INTO tariff (operator_no, tariff_id) VALUES ($1, $2) RETURNING tariff_no", operator_no, f"tariff-{name}"
    )
    return Party(operator_no, "default", account_no, agreement_no, f"agreement-{name}", tariff_no)


async def add_ride(connection: Connection, party: Party, session_id: str, amount_minor: int, counter: int) -> Ride:
    """A ride that was charged: its revision, obligation, transfers and the batch that says it owes."""
    milliseconds = int((MIGRATED_AT.timestamp() - datetime.fromisoformat("2024-01-01T00:00Z").timestamp()) * 1000)
    ride = Ride(milliseconds << 22 | counter, session_id, party)
    await owe(connection, [(ride, 1, amount_minor)])
    return ride


async def owe(connection: Connection, charges: Sequence[tuple[Ride, int, int]]) -> None:
    """(ride, revision, signed amount) of each: what an intake or a correction writes, in one batch."""
    async with connection.transaction():
        store = BatchStore(connection)
        for ride, revision, amount_minor in charges:
            await _revise(connection, ride, revision, amount_minor)
        batch = await store.take_batch("test/intake")
        owing = [ride.ride_no for ride, _, _ in charges]
        await store.seal_batch(batch, (), MIGRATED_AT, MIGRATED_AT, owing=owing)


async def _identify(connection: Connection, ride: Ride) -> int:
    """The ride's key, written once; returns its slot."""
    key = session_key_bytes(ride.party.operator_id, ride.session_id)
    text = "INSERT INTO session_key (session_key, ride_no, slot) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
    await connection.execute(text, UUID(bytes=key), ride.ride_no, slot_of(key))
    return slot_of(key)


def _charge(amount_minor: int) -> StoredCharge:
    """An hour's ride for that much."""
    price = from_minor(amount_minor, "CNY")
    line = Line("duration", Decimal(1), "ride", price, price, "/plan/price")
    usage = Usage(started_at=MIGRATED_AT - timedelta(hours=1), ended_at=MIGRATED_AT, duration_us=3_600_000_000)
    return StoredCharge(usage, Charge("CNY", (line,), amount_minor))


async def _revise(connection: Connection, ride: Ride, revision: int, amount_minor: int) -> None:
    party = ride.party
    slot = await _identify(connection, ride)
    event = RideEvent(
        "ended", "urn:test", f"{ride.session_id}-{revision}", MIGRATED_AT, ride.session_id, Position("t", 0, 0)
    )
    await connection.execute(
        "INSERT INTO ride_revision (ride_no, revision, slot, operator_no, state, agreement_no, tariff_no,"
        " tariff_version, events, amount_minor, currency, decided_at, batch_no, digest, charge)"
        " VALUES ($1, $2, $3, $4, 'closed', $5, $6, 1, $7, $8, 'CNY', $9, 1, '', $10)",
        ride.ride_no,
        revision,
        slot,
        party.operator_no,
        party.agreement_no,
        party.tariff_no,
        encode_events((event,)).decode(),
        amount_minor,
        MIGRATED_AT,
        charge_text(_charge(amount_minor)) if revision == 1 else None,
    )
    await connection.execute(
        "INSERT INTO obligation"
        " (ride_no, revision, slot, operator_no, agreement_no, kind, amount_minor, currency, occurred_at)"
        " VALUES ($1, $2, $3, $4, $5, 'charge', $6, 'CNY', $7)",
        ride.ride_no,
        revision,
        slot,
        party.operator_no,
        party.agreement_no,
        amount_minor,
        MIGRATED_AT,
    )
    transfers = charge_transfers(party.agreement_no, party.tariff_no, party.operator_no, amount_minor, 0, "CNY")
    for line, transfer in enumerate(transfers):
        await connection.execute(
            "INSERT INTO transfer VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            ride.ride_no,
            revision,
            line,
            slot,
            party.operator_no,
            *transfer,
            MIGRATED_AT,
        )
