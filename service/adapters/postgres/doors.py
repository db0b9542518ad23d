"""What the doors write by themselves: kept answers to writes, notifications, decisions about quarantined records."""

from __future__ import annotations

from datetime import datetime

import msgspec

from service.adapters.postgres import Store
from service.adapters.postgres.batches import BatchStore


class KeptAnswer(msgspec.Struct, frozen=True):
    """What was answered under an Idempotency-Key; `status` is None while somebody works on it, since `machine_at`."""

    request_digest: bytes
    status: int | None
    body: bytes | None
    machine_at: datetime


class AnswerStore(Store):
    """Answers to writes by (operator, route, Idempotency-Key)."""

    async def claim(self, operator_no: int, route: str, key: str, digest: bytes, machine_at: datetime) -> bool:
        """Says that the caller works on this write; False when the key is known."""
        return await self.run("claim_answer", operator_no, route, key, digest, machine_at) == 1

    async def find(self, operator_no: int, route: str, key: str) -> KeptAnswer | None:
        """What is known under the key."""
        row = await self.one("kept_answer", operator_no, route, key)
        return None if row is None else KeptAnswer(**dict(row))

    async def take_over(self, operator_no: int, route: str, key: str, since: datetime, machine_at: datetime) -> bool:
        """Goes on with a write whose worker died; False when somebody else does."""
        return await self.run("take_over_answer", operator_no, route, key, since, machine_at) == 1

    async def keep(self, operator_no: int, route: str, key: str, status: int, body: bytes) -> None:
        """Keeps the answer."""
        await self.run("keep_answer", operator_no, route, key, status, body)

    async def drop(self, operator_no: int, route: str, key: str) -> None:
        """Forgets the claim: nothing was done."""
        await self.run("drop_claim", operator_no, route, key)


class NotificationStore(Store):
    """Which notifications of providers came."""

    async def record(
        self,
        account_no: int,
        notification_id: str,
        about: str,
        named_by: str,
        provider_key: str,
        known: bool,
        machine_at: datetime,
    ) -> None:
        """One more, or one more time; `known`: it was about something of ours."""
        named = (account_no, notification_id, about, named_by, provider_key)
        await self.run("record_notification", *named, known, machine_at)


class HeldLine(msgspec.Struct, frozen=True, kw_only=True):
    """A quarantined record and what became of it; `record_timestamp_ms` is Kafka's."""

    quarantine_no: int
    operator_no: int | None
    topic: str
    partition: int
    record_offset: int
    record_timestamp_ms: int
    fault: str
    reason: str
    path: str
    source: str | None
    state: str
    decision_reason: str | None
    created_at: datetime
    decided_at: datetime | None


class HeldRecord(HeldLine, frozen=True, kw_only=True):
    """With its bytes, as it came. Names of headers are as they are kept (`service.billing.events.header_names`)."""

    record_key: bytes | None
    record_headers: tuple[tuple[str, bytes | None], ...]
    record_value: bytes | None


class QuarantineStore(BatchStore):
    """Quarantined records, and the batch that sends one on its way again."""

    async def page(
        self, operator_no: int, is_default: bool, before: int, state: str | None, limit: int
    ) -> list[HeldLine]:
        """An operator's records, newest first; the default operator's are also those of whom nobody could tell."""
        rows = await self.all("held_records", operator_no, is_default, before, state, limit)
        return [HeldLine(**row) for row in rows]

    async def find(self, operator_no: int, is_default: bool, quarantine_no: int) -> HeldRecord | None:
        """One record, if it is the operator's."""
        row = await self.one("held_record", operator_no, is_default, quarantine_no)
        return None if row is None else HeldRecord(**{**row, "record_headers": _HEADERS.decode(row["record_headers"])})

    async def decide(self, quarantine_no: int, state: str, reason: str | None, now: datetime) -> bool:
        """Marks a held record as replayed or discarded; False when that was decided before."""
        return await self.run("decide_held_record", quarantine_no, state, reason, now) == 1


_HEADERS = msgspec.msgpack.Decoder(tuple[tuple[str, bytes | None], ...])
