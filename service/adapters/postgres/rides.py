"""Rides in PostgreSQL: read back by key or number, appended by COPY."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from service.adapters.postgres.batches import BatchStore, OutRecord
from service.billing.agreements.holds import OVER
from service.billing.announcements import announce
from service.billing.catalog import AgreementRef, BalanceKey, Operator
from service.billing.charged import obligation_kind
from service.billing.events import decode_events
from service.billing.keys import session_key_bytes
from service.billing.proofs import batch_no
from service.billing.rides import Revision, Ride, StoredRevision, restore

REVISION_COLUMNS = (
    "ride_no",
    "revision",
    "slot",
    "operator_no",
    "state",
    "agreement_no",
    "tariff_no",
    "tariff_version",
    "reason",
    "events",
    "charge",
    "amount_minor",
    "currency",
    "decided_at",
    "batch_no",
    "digest",
)
"""The order of a revision's canonical row, then the batch and the digest."""

KEY_COLUMNS = ("session_key", "ride_no", "slot")
_EPOCH_MS = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)
_COUNTER_BITS = 22
_BLOCK = 4096


def ride_number(now: datetime, counter: int) -> int:
    """A ride's number: business-clock milliseconds since 2024, then 22 bits of a counter."""
    return (int(now.timestamp() * 1000) - _EPOCH_MS) << _COUNTER_BITS | counter


class RideNumbers:
    """Numbers for new rides, from blocks of the shared counter."""

    def __init__(self) -> None:
        self._next = 0
        self._left = 0
        self._block_taken: list[int] = []

    async def reserve(self, store: RideStore, count: int) -> None:
        """Makes sure that `count` numbers can be minted without asking the database."""
        while self._left + len(self._block_taken) * _BLOCK < count:
            self._block_taken.append(await store.value("take_ride_block"))

    def at(self, now: datetime) -> Callable[[], int]:
        """A mint for one decision."""
        base = ride_number(now, 0)

        def mint() -> int:
            if not self._left:
                self._next, self._left = self._block_taken.pop(0) * _BLOCK, _BLOCK
            number = base | self._next
            self._next += 1
            self._left -= 1
            return number

        return mint


class RideStore(BatchStore):
    """Rides read back, and revisions appended inside the caller's transaction."""

    async def find_rides(self, keys: Sequence[bytes], operators: Mapping[int, Operator]) -> dict[bytes, Ride]:
        """The rides that exist among these session keys."""
        rows = await self.all("find_session_keys", [UUID(bytes=key) for key in sorted(keys)])
        found = {row["ride_no"]: row["session_key"].bytes for row in rows}
        return await self.read_rides(found, operators, found)

    async def read_rides(
        self, numbers: Iterable[int], operators: Mapping[int, Operator], keys: Mapping[int, bytes] | None = None
    ) -> dict[bytes, Ride]:
        """The rides with these numbers, by session key; `keys` gives those that are known already."""
        asked = list(numbers)
        rows = await self.all("find_revisions", asked) if asked else ()
        agreements = await self._agreements({row["agreement_no"] for row in rows} - {None})
        rides = {}
        for ride_no, revisions in groupby(map(stored_revision, rows), key=lambda stored: stored.ride_no):
            told = list(revisions)
            operator = operators[told[-1].operator_no]
            named = [stored.agreement_no for stored in told if stored.agreement_no is not None]
            key = keys[ride_no] if keys is not None else _key_of(operator, told[0])
            rides[key] = restore(key, operator, agreements[named[-1]] if named else None, told)
        return rides

    async def find_agreements(self, asked: Sequence[tuple[int, str]]) -> dict[tuple[int, str], AgreementRef]:
        """What is known of agreements by (operator number, agreement id); missing ones are left out."""
        rows = await self.all("agreements_by_id", [no for no, _ in asked], [name for _, name in asked])
        return {
            (row["operator_no"], row["agreement_id"]): AgreementRef(
                row["agreement_no"], row["rider_no"], row["currency"]
            )
            for row in rows
        }

    async def lock_balances(self, keys: Iterable[BalanceKey]) -> dict[BalanceKey, Decimal]:
        """Locks the riders' balances in the order of their keys and reads them."""
        columns = _columns(sorted(keys), 3)
        await self.run("make_balances", *columns)
        rows = await self.all("lock_balances", *columns)
        return {(row["operator_no"], row["rider_no"], row["balance_window"]): row["used"] for row in rows}

    async def write_batch(
        self, writer: str, revisions: Sequence[Revision], now: datetime, machine_at: datetime
    ) -> None:
        """The writer's next batch: these decisions, everything that follows from them, and the facts they announce."""
        batch = await self.take_batch(writer)
        number = batch_no(batch.writer_no, batch.seq)
        await self.append_rows(rows_of(revisions, lambda _: number), revisions)
        facts = [OutRecord("billing", *fact) for revision in revisions for fact in announce(revision, now)]
        by_ride = sorted(revisions, key=lambda revision: revision.ride.ride_no)
        owing = [revision.ride.ride_no for revision in by_ride if revision.owing_minor]
        digests = [revision.ride.digest for revision in by_ride]
        await self.seal_batch(batch, facts, now, machine_at, revisions=digests, owing=owing)

    async def append_rows(self, rows: Sequence[Rows], revisions: Sequence[Revision]) -> None:
        """Appends what `rows_of` made of these revisions."""
        for table, columns, text in rows:
            source = io.BytesIO(text)
            await self.connection.copy_to_table(table, source=source, columns=columns, format="text")
        await self._move_balances([revision for revision in revisions if revision.cap_uses])
        await self._watch([revision for revision in revisions if revision.verdict.watch_at is not None])
        free = [revision for revision in revisions if revision.ride.state in OVER and not revision.owing_minor]
        if free:
            await self.run("wake_holds", *_columns([(UUID(bytes=one.ride.key), one.slot) for one in free], 2))

    async def _agreements(self, numbers: set[int]) -> dict[int, AgreementRef]:
        rows = await self.all("agreements_by_number", list(numbers)) if numbers else ()
        return {
            row["agreement_no"]: AgreementRef(row["agreement_no"], row["rider_no"], row["currency"]) for row in rows
        }

    async def _move_balances(self, revisions: Sequence[Revision]) -> None:
        if not revisions:
            return
        last = {
            (revision.ride.operator.operator_no, use.rider_no, use.window): use.after
            for revision in revisions
            for use in revision.cap_uses
        }
        await self.run("set_balances", *_columns([(*key, used) for key, used in sorted(last.items())], 4))

    async def _watch(self, revisions: Sequence[Revision]) -> None:
        if not revisions:
            return
        rows = [
            (
                revision.ride.ride_no,
                revision.slot,
                revision.ride.operator.operator_no,
                revision.ride.state,
                revision.verdict.watch_at,
                min(event.time for event in revision.ride.session.counted),
            )
            for revision in sorted(revisions, key=lambda revision: revision.ride.ride_no)
        ]
        await self.run("watch_rides", *_columns(rows, 6))


class Rows(NamedTuple):
    """Rows of one table as COPY takes them, text."""

    table: str
    columns: Sequence[str]
    text: bytes


def rows_of(revisions: Sequence[Revision], number: Callable[[Revision], int]) -> list[Rows]:
    """The rows of these decisions, table by table in the order that all writers keep."""
    tables = (
        ("session_key", KEY_COLUMNS, _identity_rows(revisions)),
        ("ride_revision", REVISION_COLUMNS, _revision_rows(revisions, number)),
        ("obligation", OBLIGATION_COLUMNS, _obligation_rows([one for one in revisions if one.owing_minor])),
        ("transfer", TRANSFER_COLUMNS, _transfer_rows([one for one in revisions if one.transfers])),
        ("cap_use", _CAP_USE_COLUMNS, _cap_use_rows([one for one in revisions if one.cap_uses])),
    )
    return [Rows(table, columns, "".join(rows).encode()) for table, columns, rows in tables if rows]


def stored_revision(row: asyncpg.Record) -> StoredRevision:
    """A row of `ride_revision` as the rules read it."""
    return StoredRevision(**{name: row[name] for name in REVISION_COLUMNS})


def _key_of(operator: Operator, first: StoredRevision) -> bytes:
    """A ride's session key, from what its first event says."""
    return session_key_bytes(operator.operator_id, decode_events(first.events.encode())[0].session_id)


def _columns(rows: Iterable[Sequence[Any]], width: int) -> list[list[Any]]:
    listed = list(rows)
    return [[row[index] for row in listed] for index in range(width)]


_BACKSLASH = re.compile(r"[\\\t\n\r]")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


def _escaped(text: str) -> str:
    """Text as COPY takes it; what comes from outside has a backslash seldom."""
    return _BACKSLASH.sub(lambda match: _ESCAPES[match[0]], text)


def _identity_rows(revisions: Sequence[Revision]) -> list[str]:
    return sorted(
        f"{revision.ride.key.hex()}\t{revision.ride.ride_no}\t{revision.slot}\n"
        for revision in revisions
        if revision.ride.revision == 1
    )


def _revision_rows(revisions: Sequence[Revision], number: Callable[[Revision], int]) -> list[str]:
    return [
        f"{_copy_row(revision.row)}\t{number(revision)}\t\\\\x{revision.ride.digest.hex()}\n" for revision in revisions
    ]


def _copy_row(row: str) -> str:
    """The canonical row with the backslashes of its JSON doubled; its NULLs stay NULLs."""
    if "\\" not in row.replace("\\N", ""):
        return row
    fields = row.split("\t")
    return "\t".join(field if field == "\\N" else field.replace("\\", "\\\\") for field in fields)


OBLIGATION_COLUMNS = (
    "ride_no",
    "revision",
    "slot",
    "operator_no",
    "agreement_no",
    "kind",
    "amount_minor",
    "currency",
    "occurred_at",
)


def _obligation_rows(revisions: Sequence[Revision]) -> list[str]:
    rows = []
    for revision in revisions:
        ride, before = revision.ride, revision.before
        charge = ride.charge or before.charge
        assert ride.agreement is not None and charge is not None
        kind = obligation_kind(before.charge, revision.events)
        instant = revision.row.rpartition("\t")[2]
        rows.append(
            f"{ride.ride_no}\t{ride.revision}\t{revision.slot}\t{ride.operator.operator_no}\t{ride.agreement.agreement_no}"
            f"\t{kind}\t{revision.owing_minor}\t{charge.charge.currency}\t{instant}\n"
        )
    return rows


TRANSFER_COLUMNS = (
    "ride_no",
    "fact",
    "ordinal",
    "line",
    "slot",
    "operator_no",
    "debit_account",
    "credit_account",
    "amount_minor",
    "currency",
    "posted_at",
)
_CAP_USE_COLUMNS = ("ride_no", "revision", "balance_window", "slot", "operator_no", "rider_no", "before", "after")
FACT_CHARGE = 1
"""`transfer.fact` of what a charge posts; its ordinal is the revision."""


def _transfer_rows(revisions: Sequence[Revision]) -> list[str]:
    rows: list[str] = []
    for revision in revisions:
        ride = revision.ride
        charge = ride.charge or revision.before.charge
        assert charge is not None
        posted_at = revision.row.rpartition("\t")[2]
        rows.extend(
            f"{ride.ride_no}\t{FACT_CHARGE}\t{ride.revision}\t{line}\t{revision.slot}\t{ride.operator.operator_no}"
            f"\t{transfer.debit_account}\t{transfer.credit_account}\t{transfer.amount_minor}"
            f"\t{charge.charge.currency}\t{posted_at}\n"
            for line, transfer in enumerate(revision.transfers)
        )
    return rows


def _cap_use_rows(revisions: Sequence[Revision]) -> list[str]:
    return [
        f"{revision.ride.ride_no}\t{revision.ride.revision}\t{_escaped(use.window)}\t{revision.slot}"
        f"\t{revision.ride.operator.operator_no}\t{use.rider_no}\t{use.before}\t{use.after}\n"
        for revision in revisions
        for use in revision.cap_uses
    ]
