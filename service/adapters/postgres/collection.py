"""Collection's queries: batches that owe, debits and refunds claimed, locked and written, their ledger rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from service.adapters.postgres.batches import BatchStore
from service.adapters.postgres.stops import Standing, StopStore
from service.billing.debits.collecting import Posted
from service.billing.debits.dunning import WRITTEN_OFF_POLLS
from service.billing.debits.events import OpenHold
from service.billing.debits.lives import LifeRow, refund_digest
from service.billing.debits.refunds import Refund, RefundState
from service.billing.debits.state import Debit, Dispute, HoldSeen, Item, Receipt, State
from service.billing.outcomes import RiderAction

DebitKey = tuple[int, int]
"""(ride number, ordinal)."""
RefundKey = tuple[int, int, int]
"""(ride number, debit ordinal, refund ordinal)."""


class DebitRow(msgspec.Struct, frozen=True):
    """A debit with who holds it and the names that a request and a fact need."""

    debit: Debit
    lease_until: datetime | None
    operator_id: str
    operator_calendar: str
    operator_name: str
    operator_contact: str
    agreement_id: str
    time_zone: str
    language: str
    provider: str
    account_id: str
    account_settings: str
    agreement_key: str
    agreement_ref: str | None
    hold_key: str | None
    hold_ref: str | None
    hold_title: str | None
    restored_at: datetime | None
    hold: HoldSeen | None


class RefundRow(msgspec.Struct, frozen=True):
    """A refund with who holds it."""

    refund: Refund
    lease_until: datetime | None


class OwingRow(msgspec.Struct, frozen=True):
    """A ride's obligations summed, with its agreement; `hold_cap_minor` is what the operator has said of its hold's."""

    ride_no: int
    slot: int
    operator_no: int
    currency: str
    owed_minor: int
    agreement_no: int
    events: str
    operator_id: str
    operator_calendar: str
    operator_name: str
    operator_contact: str
    agreement_id: str
    account_no: int
    cap_minor: int | None
    hold_cap_minor: int | None
    time_zone: str
    language: str
    provider: str
    account_id: str
    account_settings: str
    restored_at: datetime | None


class ContentRow(NamedTuple):
    """The charge that stands of a ride (JSON), the number of its tariff, the events of its last decision (JSON; None
    where nobody asked for them); when the database was restored."""

    charge: str | None
    tariff_no: int | None
    latest: str | None
    restored_at: datetime | None


class HoldCap(msgspec.Struct, frozen=True):
    """The most that may be debited on a session's hold, in its currency's minor units; whether it was ever `opened`."""

    agreement_no: int
    state: str
    cap_minor: int
    opened: bool


class CollectionStore(BatchStore, StopStore):
    """One method per named query of `collection.sql`."""

    async def lock_cursors(self) -> dict[int, int]:
        """The cursors this transaction may move: writer number → last sequence number read."""
        await self.run("ensure_collection_cursors")
        return {row["writer_no"]: row["seq"] for row in await self.all("lock_collection_cursors")}

    async def batches_owing(
        self, cursors: Mapping[int, int], batches_max: int, rides_max: int
    ) -> Sequence[asyncpg.Record]:
        """(writer_no, seq, owing) of the next batches of each writer; a batch is taken whole."""
        return await self.all("batches_owing", list(cursors), list(cursors.values()), batches_max, rides_max)

    async def move_cursors(self, before: Mapping[int, int], after: Mapping[int, int]) -> bool:
        """Moves the cursors in `after`; False when one was not where `before` says."""
        expected = [before[writer_no] for writer_no in after]
        return await self.run("move_collection_cursors", list(after), expected, list(after.values())) == len(after)

    async def claim_debits(
        self, account_no: int, now: datetime, machine_at: datetime, claim_max: int, stopped: Standing
    ) -> list[DebitRow]:
        """Due debits of an account that nobody holds, locked until commit."""
        due, submitting = (account_no, now, machine_at, claim_max), not (stopped.paused or stopped.debits)
        if submitting and not stopped.debit_tariffs:
            rows = await self.all("claim_debits", *due)
        else:
            rows = await self.all("claim_debits_stopped", *due, submitting, stopped.debit_tariffs)
        return list(map(_debit_row, rows))

    async def claim_refunds(
        self, account_no: int, now: datetime, machine_at: datetime, claim_max: int, stopped: Standing
    ) -> list[RefundRow]:
        """Due refunds of an account that nobody holds, locked until commit."""
        due, submitting = (account_no, now, machine_at, claim_max), not (stopped.paused or stopped.refunds)
        if submitting and not stopped.refund_tariffs:
            rows = await self.all("claim_refunds", *due)
        else:
            rows = await self.all("claim_refunds_stopped", *due, submitting, stopped.refund_tariffs)
        return list(map(_refund_row, rows))

    async def claim_policies(self, account_no: int, now: datetime, claim_max: int) -> list[DebitRow]:
        """Debits of an account whose calendar has come, locked until commit."""
        return list(map(_debit_row, await self.all("claim_policies", account_no, now, claim_max)))

    async def lock_debits(self, ride_nos: Iterable[int]) -> dict[DebitKey, DebitRow]:
        """Every debit of the rides, locked until commit."""
        return await self._debits("lock_debits", ride_nos)

    async def read_debits(self, ride_nos: Iterable[int]) -> dict[DebitKey, DebitRow]:
        """Every debit of the rides as it is now."""
        return await self._debits("read_debits", ride_nos)

    async def _debits(self, query: str, ride_nos: Iterable[int]) -> dict[DebitKey, DebitRow]:
        rides = sorted(set(ride_nos))
        rows = map(_debit_row, await self.all(query, rides, rides[0], rides[-1])) if rides else ()
        return {(row.debit.ride_no, row.debit.ordinal): row for row in rows}

    async def lock_refunds(self, ride_nos: Iterable[int]) -> dict[RefundKey, RefundRow]:
        """Every refund of the rides, locked until commit; their debits are locked before."""
        rides = sorted(set(ride_nos))
        rows = map(_refund_row, await self.all("lock_refunds", rides, rides[0], rides[-1])) if rides else ()
        return {(row.refund.ride_no, row.refund.ordinal, row.refund.refund_ordinal): row for row in rows}

    async def rides_debited(self, after: int, rides_max: int) -> list[int]:
        """The next rides that have debits."""
        return [row["ride_no"] for row in await self.all("rides_debited", after, rides_max)]

    async def rides_owing(self, ride_nos: Iterable[int]) -> list[OwingRow]:
        """What the rides owe in all."""
        rides = sorted(set(ride_nos))
        rows = await self.all("rides_owing", rides, rides[0], rides[-1]) if rides else ()
        return [OwingRow(**dict(row)) for row in rows]

    async def hold_caps(self, session_keys: Sequence[UUID]) -> dict[UUID, HoldCap]:
        """Session key → its hold's cap, where one was asked for."""
        rows = await self.all("hold_caps", session_keys)
        return {row["session_key"]: HoldCap(*row[1:]) for row in rows}

    async def finish_holds(self, reasons: Mapping[UUID, str], now: datetime) -> int:
        """Session key → "waived" or "settled": the holds are to be completed. Keys are sorted."""
        ordered = sorted(reasons.items())
        return await self.run("finish_holds", [key for key, _ in ordered], [reason for _, reason in ordered], now)

    async def debits_by_provider_key(self, provider_key: str, account_no: int) -> dict[DebitKey, bool]:
        """The debits that news about a key concern (one, or none that still matters), and whether it is their present
        key."""
        rows = await self.all("debits_by_provider_key", provider_key, account_no)
        return {(row["ride_no"], row["ordinal"]): row["present"] for row in rows}

    async def debits_by_hold(self, named: str, account_no: int, *, by_ref: bool) -> dict[DebitKey, str]:
        """The debit that goes through a running hold, named by our key or by the provider's number, with its key."""
        rows = await self.all("debits_by_hold", named, account_no, by_ref)
        return {(row["ride_no"], row["ordinal"]): row["provider_key"] for row in rows}

    async def debits_by_provider_ref(self, provider_ref: str, account_no: int) -> list[DebitKey]:
        """The debits that the provider calls by a number of his."""
        rows = await self.all("debits_by_provider_ref", provider_ref, account_no)
        return [(row["ride_no"], row["ordinal"]) for row in rows]

    async def keep_numbers(self, left: Sequence[tuple[Debit, str]]) -> None:
        """What these debits were called before, by us or by the provider, or are in a dispute: late news finds them."""
        if left:
            rows = sorted((number, debit.account_no, debit.ride_no, debit.ordinal) for debit, number in left)
            await self.run("keep_numbers", *map(list, zip(*rows, strict=True)))

    async def in_life(self, key: DebitKey, why: str) -> bool:
        """Whether a step of the debit's life says so."""
        row = await self.one("in_life", *key, why)
        assert row is not None
        return bool(row["told"])

    async def cluster_timeline(self) -> tuple[str | None, str]:
        """Which cluster and timeline the database was when last looked at, and which it is; locked until commit."""
        row = await self.one("cluster_timeline")
        assert row is not None
        return row["known"], row["found"]

    async def keep_cluster_timeline(self, found: str, restored_at: datetime | None) -> None:
        """Keeps what it is, and when it was found to be another one."""
        await self.run("keep_cluster_timeline", found, restored_at)

    async def verify_all(self, now: datetime, after: int, through: int) -> int:
        """Whatever is not sent of the rides after one and up to another is asked about first; returns how many debits
        and refunds those are."""
        debits = await self.run("verify_debits", now, WRITTEN_OFF_POLLS, after, through)
        return debits + await self.run("verify_refunds", now, after, through)

    async def refunds_by_provider_key(self, provider_key: str, account_no: int) -> dict[RefundKey, str]:
        """The refunds that news about a key concern (one, or none), and their state."""
        rows = await self.all("refunds_by_provider_key", provider_key, account_no)
        return {(row["ride_no"], row["ordinal"], row["refund_ordinal"]): row["state"] for row in rows}

    async def ride_contents(self, ride_nos: Iterable[int], debited: Iterable[int]) -> dict[int, ContentRow]:
        """Ride number → what its debits are for; the last decision is read of those that were `debited` before."""
        rides = sorted(set(ride_nos))
        rows = await self.all("ride_contents", rides, rides[0], rides[-1], sorted(debited)) if rides else ()
        return {row["ride_no"]: ContentRow(*itemgetter(*ContentRow._fields)(row)) for row in rows}

    async def want_hold(
        self, debit: Debit, provider_key: str, wanted: OpenHold, now: datetime, cap_minor: int, title: str
    ) -> int:
        """Asks for a hold for the debit's ride, of `cap_minor` at most where nobody has said another cap; 0 where
        another is asked for already. The rider reads `title`, and the debit's subject."""
        which = (debit.ride_no, debit.ordinal, provider_key, wanted.ordinal)
        return await self.run("want_hold", *which, now, cap_minor, wanted.amount_minor, title)

    async def insert_debits(self, debits: Sequence[Debit], now: datetime) -> None:
        """New debits; raises UniqueViolationError when somebody else opened one first."""
        if debits:
            columns = [*_DEBIT_FIELDS, "updated_at"]
            await self.connection.copy_records_to_table(
                "debit", records=[(*_debit_values(debit), now) for debit in debits], columns=columns
            )

    async def insert_refunds(self, refunds: Sequence[Refund], now: datetime) -> None:
        """New refunds; raises UniqueViolationError when somebody else opened one first."""
        if refunds:
            columns = [*_REFUND_FIELDS, "digest", "updated_at"]
            rows = [(*_REFUND_VALUES(refund), refund_digest(refund), now) for refund in refunds]
            await self.connection.copy_records_to_table("refund", records=rows, columns=columns)

    async def update_debits(self, leased: Sequence[tuple[Debit, datetime | None]], now: datetime) -> None:
        """Writes what was decided about debits that this transaction holds, each with its new lease."""
        if not leased:
            return
        ride_nos = [debit.ride_no for debit, _ in leased]
        debits = _ENCODER.encode([_Written(*_WRITTEN(debit)) for debit, _ in leased]).decode()
        leases = [lease for _, lease in leased]
        touched = await self.run("update_debits", now, debits, leases, min(ride_nos), max(ride_nos))
        assert touched == len(leased), "a debit vanished while it was locked"

    async def update_refunds(self, leased: Sequence[tuple[Refund, datetime | None]], now: datetime) -> None:
        """Writes what was decided about refunds that this transaction holds, each with its new lease."""
        if leased:
            rows = [(*_REFUND_UPDATE(refund), lease, refund_digest(refund)) for refund, lease in leased]
            await self.run("update_refunds", now, *map(list, zip(*rows, strict=True)))

    async def append_transitions(self, rows: Sequence[LifeRow]) -> None:
        """Rows of the debits' lives."""
        if rows:
            await self.connection.copy_records_to_table(
                "debit_transition", records=map(msgspec.structs.astuple, rows), columns=LifeRow.__struct_fields__
            )

    async def append_transfers(self, posted: Sequence[Posted], now: datetime) -> None:
        """Rows of the ledger."""
        if posted:
            await self.connection.copy_records_to_table(
                "transfer", records=[_transfer_values(row, now) for row in posted], columns=_TRANSFER_COLUMNS
            )


_DEBIT_FIELDS = Debit.__struct_fields__
_NEVER_CHANGED = frozenset(
    {
        *("slot", "operator_no", "agreement_no", "account_no", "session_key", "session_id", "currency", "created_at"),
        *("tariff_no", "started_at", "ended_at", "items", "subject"),
    }
)
_CHANGING = tuple(field for field in msgspec.structs.fields(Debit) if field.name not in _NEVER_CHANGED)
_WRITTEN = attrgetter(*(field.name for field in _CHANGING))
_Written = msgspec.defstruct(
    "_Written", [(field.name, Any, msgspec.field(default=field.default)) for field in _CHANGING], omit_defaults=True
)
"""What changes of a debit, in the order of `_WRITTEN`: in JSON what stands at its default is left out."""
_NAMES = DebitRow.__struct_fields__[1:-1]
_OF_HOLD = ("hold_key", "hold_ref", "hold_title")
_DEBIT_COLUMNS = itemgetter(*_DEBIT_FIELDS)
_REFUND_FIELDS = Refund.__struct_fields__
_REFUND_VALUES = attrgetter(*_REFUND_FIELDS)
_REFUND_UPDATE = attrgetter(
    *("ride_no", "ordinal", "refund_ordinal", "state", "provider_ref", "code"),
    *("attempts", "queries", "not_found_at", "resent", "due_at", "amount_minor", "denied", "unanswered_since"),
)
_TRANSFER_COLUMNS = (
    *("ride_no", "fact", "ordinal", "line", "slot", "operator_no"),
    *("debit_account", "credit_account", "amount_minor", "currency", "posted_at"),
)
_RECEIPTS = msgspec.json.Decoder(tuple[Receipt, ...])
_ITEMS = msgspec.json.Decoder(tuple[Item, ...])
_DISPUTES = msgspec.json.Decoder(tuple[Dispute, ...])
_ACTION = msgspec.json.Decoder(RiderAction)
_ENCODER = msgspec.json.Encoder()


def _debit_row(row: asyncpg.Record) -> DebitRow:
    values: dict[str, Any] = dict(zip(_DEBIT_FIELDS, _DEBIT_COLUMNS(row), strict=True))
    values["state"] = State(values["state"])
    values["receipts"] = _RECEIPTS.decode(values["receipts"]) if values["receipts"] != "[]" else ()
    values["items"] = _ITEMS.decode(values["items"]) if values["items"] != "[]" else ()
    values["disputes"] = _DISPUTES.decode(values["disputes"]) if values["disputes"] != "[]" else ()
    if values["action"] is not None:
        values["action"] = _ACTION.decode(values["action"])
    names = {name: row[name] for name in _NAMES}
    if row["hold_agreement_no"] not in (None, row["agreement_no"]):
        names |= dict.fromkeys(_OF_HOLD)
    return DebitRow(Debit(**values), **names, hold=None if row["hold_state"] is None else _hold_seen(row))


def _hold_seen(row: asyncpg.Record) -> HoldSeen:
    """The hold of the ride. One on another agreement is somebody else's: when it is over, the debit gets its own."""
    if row["hold_agreement_no"] != row["agreement_no"]:
        running = row["hold_state"] in ("requested", "open", "completing")
        return HoldSeen("completing" if running else "released", row["hold_ordinal"])
    action = row["hold_action"]
    asked = None if action is None else _ACTION.decode(action)
    named = (row["hold_state"], row["hold_ordinal"], asked, row["hold_reason"], row["hold_cap_minor"])
    return HoldSeen(*named, row["hold_refusal"], row["hold_requested_at"])


def _refund_row(row: asyncpg.Record) -> RefundRow:
    values: dict[str, Any] = {name: row[name] for name in _REFUND_FIELDS}
    values["state"] = RefundState(values["state"])
    return RefundRow(Refund(**values), row["lease_until"])


def _stored(debit: Debit, name: str) -> Any:
    value = getattr(debit, name)
    if name in ("receipts", "items", "disputes") or (name == "action" and value is not None):
        return _ENCODER.encode(value).decode()
    return value


def _debit_values(debit: Debit) -> tuple[Any, ...]:
    return tuple(_stored(debit, name) for name in _DEBIT_FIELDS)


def _transfer_values(posted: Posted, now: datetime) -> tuple[Any, ...]:
    move = posted.transfer
    return (
        posted.ride_no,
        posted.fact,
        posted.ordinal,
        posted.line,
        posted.slot,
        posted.operator_no,
        move.debit_account,
        move.credit_account,
        move.amount_minor,
        move.currency,
        now,
    )
