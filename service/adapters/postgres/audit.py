"""Everything that is stored, read in bounded pieces inside one snapshot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from itertools import groupby
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import msgspec

from service.adapters.postgres import QUERIES, session_settings
from service.adapters.postgres.access import dial
from service.adapters.postgres.rides import RideStore, stored_revision
from service.billing.auditing.rows import (
    AuditedDebits,
    RideRows,
    SharedPayment,
    StoredCapUse,
    StoredHold,
    StoredKey,
    StoredObligation,
    StoredRefund,
    StoredTariff,
    StoredTransfer,
    Unreadable,
)
from service.billing.debits.lives import LifeRow
from service.billing.debits.refunds import Refund, RefundState
from service.billing.debits.state import Debit, Dispute, Item, Receipt, State
from service.billing.outcomes import RiderAction

END_OF_NUMBERS = 2**63 - 1
PREFETCH = 500
RowT = TypeVar("RowT", bound=msgspec.Struct)


class Writer(msgspec.Struct, frozen=True):
    """Somebody who writes batches, with the end of his chain."""

    writer_no: int
    name: str
    seq: int
    digest: bytes


class StoredBatch(msgspec.Struct, frozen=True):
    """A row of `batch`; `facts` is None once they were dropped, or where there were none."""

    writer_no: int
    seq: int
    number: int
    revisions: int
    facts_digest: bytes
    digest: bytes
    owing: Sequence[int]
    business_at: datetime
    machine_at: datetime
    facts: bytes | None


class AccountSum(msgspec.Struct, frozen=True):
    """An account of the ledger, added up: minor units."""

    operator_no: int
    currency: str
    account: int
    debit_minor: int
    credit_minor: int


class LooseEnd(msgspec.Struct, frozen=True):
    """A value of a balance that is left and taken up again a different number of times."""

    operator_no: int
    rider_no: int
    balance_window: str
    value: Any
    missing: int


@asynccontextmanager
async def audit_snapshot(url: str) -> AsyncIterator[AuditStore]:
    """One read-only snapshot for as long as the audit takes; it holds no lock that a writer waits for."""
    unlimited = {"transaction_timeout": "0", "idle_in_transaction_session_timeout": "0", "statement_timeout": "0"}
    connection = await dial(url, server_settings=session_settings("audit") | unlimited)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield AuditStore(connection)
    finally:
        await connection.close()


class AuditStore(RideStore):
    """One method per named query of `audit.sql`."""

    async def operator_no(self, operator_id: str) -> int | None:
        """The number of an operator, or None."""
        number = await self.value("audit_operator", operator_id)
        return None if number is None else int(number)

    async def size(self, operator_no: int | None) -> int:
        """How many rides there are."""
        return int(await self.value("audit_size", operator_no))

    async def step(self, after: int, revisions_max: int) -> int:
        """The ride number up to which to read next; END_OF_NUMBERS for the last step."""
        last = await self.value("audit_step", after, revisions_max)
        return END_OF_NUMBERS if last is None else int(last)

    async def rides(self, after: int, until: int, operator_no: int | None) -> list[RideRows]:
        """Everything about each ride number in (after, until] under which anything is stored, in order."""
        place = (after, until, operator_no)
        revisions = _grouped(map(stored_revision, await self.all("audit_revisions", *place)))
        obligations = _grouped(_rows(StoredObligation, await self.all("audit_obligations", *place)))
        transfers = _grouped(_rows(StoredTransfer, await self.all("audit_transfers", *place)))
        cap_uses = _grouped(_rows(StoredCapUse, await self.all("audit_cap_uses", *place)))
        debits = _grouped(map(_debit, told := await self.all("audit_debits", *place)))
        odd = _grouped(odd for row in told for odd in _unreadable(row))
        transitions = _grouped(_rows(LifeRow, await self.all("audit_transitions", *place)))
        refunds = _grouped(_refunds(await self.all("audit_refunds", *place)))
        holds = _grouped(_rows(StoredHold, await self.all("audit_holds", *place)))
        tables: tuple[Mapping[int, Any], ...] = (
            *(revisions, obligations, transfers, cap_uses),
            *(debits, transitions, refunds),
        )
        return [
            RideRows(
                ride_no=number,
                revisions=revisions.get(number, ()),
                obligations=obligations.get(number, ()),
                transfers=transfers.get(number, ()),
                cap_uses=cap_uses.get(number, ()),
                debits=AuditedDebits(
                    debits.get(number, ()),
                    transitions.get(number, ()),
                    refunds.get(number, ()),
                    odd.get(number, ()),
                    holds.get(number, ()),
                ),
            )
            for number in sorted(set().union(*tables))
        ]

    async def tariffs(self) -> list[StoredTariff]:
        """Every version of every tariff, and tariffs that have none."""
        return list(_rows(StoredTariff, await self.all("audit_tariffs")))

    async def stray_versions(self) -> list[tuple[int, int]]:
        """(tariff number, version) of versions without their tariff."""
        return [(row["tariff_no"], row["version"]) for row in await self.all("audit_stray_versions")]

    async def keys(self, keys: Sequence[bytes]) -> dict[bytes, StoredKey]:
        """The identities that are stored under these session keys."""
        rows = await self.all("audit_keys", [UUID(bytes=key) for key in keys])
        return {row["session_key"].bytes: StoredKey(*_plain(row)) for row in rows}

    async def owing(self, batches: Iterable[tuple[int, int]]) -> dict[tuple[int, int], frozenset[int]]:
        """(writer, seq) → the rides that the batch says owe something new."""
        asked = sorted(set(batches))
        rows = await self.all("audit_owing", [writer for writer, _ in asked], [seq for _, seq in asked])
        return {(row["writer_no"], row["seq"]): frozenset(row["owing"]) for row in rows}

    async def cursors(self, reader: str) -> dict[int, int]:
        """Writer → the sequence number that a reader has come to."""
        rows = await self.all("audit_cursors")
        return {row["writer_no"]: row["seq"] for row in rows if row["reader"] == reader}

    async def writers(self) -> dict[int, Writer]:
        """Everybody who writes batches."""
        return {row["writer_no"]: Writer(*_plain(row)) for row in await self.all("audit_writers")}

    async def batches(self) -> AsyncIterator[StoredBatch]:
        """Every batch, each writer's in order."""
        async for row in self.connection.cursor(QUERIES["audit_batches"], prefetch=PREFETCH):
            yield StoredBatch(*_plain(row))

    async def written(self) -> AsyncIterator[tuple[int, bytes]]:
        """(batch number, digest) of every revision, in the order of the batches' digests."""
        async for row in self.connection.cursor(QUERIES["audit_written"], prefetch=PREFETCH * 20):
            yield row["batch_no"], row["digest"]

    async def wrong_numbers(self) -> list[int]:
        """Batch numbers that were given twice or never drawn."""
        return [row["number"] for row in await self.all("audit_numbers")]

    async def lost_facts(self) -> list[tuple[int, int]]:
        """(writer, seq) of facts without their batch."""
        return [(row["writer_no"], row["seq"]) for row in await self.all("audit_lost_facts")]

    async def stray_keys(self) -> list[StoredKey]:
        """Session keys of rides that are not there, or of which there are two."""
        return [StoredKey(*_plain(row)) for row in await self.all("audit_stray_keys")]

    async def loose_ends(self, operator_no: int | None) -> list[LooseEnd]:
        """Where the chain of a balance's movements is broken."""
        return [LooseEnd(*_plain(row)) for row in await self.all("audit_balances", operator_no)]

    async def shared_payments(self, operator_no: int | None) -> list[SharedPayment]:
        """Payments of a provider that stand in more than one receipt."""
        return list(_rows(SharedPayment, await self.all("audit_shared_payments", operator_no)))

    async def accounts(self, operator_no: int | None) -> list[AccountSum]:
        """Every account of the ledger, added up."""
        rows = await self.all("audit_accounts", operator_no)
        return [
            AccountSum(
                row["operator_no"],
                row["currency"],
                row["account"],
                int(row["debit_minor"]),
                int(row["credit_minor"]),
            )
            for row in rows
        ]

    async def receivables(self, operator_no: int | None) -> dict[tuple[int, str, int], int]:
        """(operator, currency, account) → what its rides' obligations and debits leave to be paid."""
        rows = await self.all("audit_receivables", operator_no)
        return {(row["operator_no"], row["currency"], row["account"]): int(row["amount_minor"]) for row in rows}


def _plain(row: asyncpg.Record) -> tuple[Any, ...]:
    return tuple(row.values())


def _rows(shape: type[RowT], rows: Iterable[asyncpg.Record]) -> Iterator[RowT]:
    return (shape(*row.values()) for row in rows)


def _grouped(rows: Iterable[Any]) -> dict[int, list[Any]]:
    return {number: list(own) for number, own in groupby(rows, key=lambda row: row.ride_no)}


def _debit(row: asyncpg.Record) -> Debit:
    """A debit as it stands. JSON that can't be read is as if there were none."""
    values = {name: row[name] for name in Debit.__struct_fields__}
    values |= {"state": State(values["state"]), "action": None, "receipts": (), "items": (), "disputes": ()}
    for name, decoder in _DECODERS.items():
        if row[name] is not None:
            with suppress(msgspec.DecodeError):
                values[name] = decoder.decode(row[name])
    return Debit(**values)


def _unreadable(row: asyncpg.Record) -> Iterator[Unreadable]:
    for name, decoder in _DECODERS.items():
        try:
            decoder.decode(row[name] or "null")
        except msgspec.DecodeError:
            yield Unreadable(row["ride_no"], row["ordinal"], name, row[name])


def _refunds(rows: Iterable[asyncpg.Record]) -> Iterator[StoredRefund]:
    for row in rows:
        values = {name: row[name] for name in Refund.__struct_fields__}
        yield StoredRefund(row["ride_no"], Refund(**values | {"state": RefundState(values["state"])}), row["digest"])


_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    "receipts": msgspec.json.Decoder(tuple[Receipt, ...]),
    "items": msgspec.json.Decoder(tuple[Item, ...]),
    "disputes": msgspec.json.Decoder(tuple[Dispute, ...]),
    "action": msgspec.json.Decoder(RiderAction | None),
}
