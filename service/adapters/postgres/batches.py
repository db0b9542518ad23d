"""Numbered batches of every writer but the intake: who wrote what, chained, and the facts to publish."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from service.adapters.postgres import Store
from service.billing.proofs import batch_columns, batch_digest, fingerprint


class OutRecord(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A record to put on Kafka: `topic` is the channel's name in `FactTopic`, not yet the installation's topic; names
    of headers are as they are kept (`service.billing.events.header_names`)."""

    topic: str
    key: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    value: bytes | None


FACTS_ENCODER = msgspec.msgpack.Encoder()
FACTS_DECODER = msgspec.msgpack.Decoder(list[OutRecord])

SLOT_GROUPS = 16


def writer_name(role: str, slot: int) -> str:
    """The writer of a role for a ride's slot (0..1023): one of sixteen, so that writers seldom wait for each other."""
    return f"{role}/{slot * SLOT_GROUPS // 1024}"


class Batch(msgspec.Struct, frozen=True, gc=False):
    """A batch that was begun in this transaction: its place in the writer's chain."""

    writer_no: int
    seq: int
    number: int
    digest: bytes


class BatchStore(Store):
    """Beginning and sealing a batch inside the caller's transaction."""

    async def take_batch(self, writer: str) -> Batch:
        """Begins the writer's next batch, after the transaction's reads; the writer's row stays locked until commit."""
        row = await self.one("take_batch", writer)
        if row is None:
            await self.run("ensure_writer", writer)
            row = await self.one("take_batch", writer)
        assert row is not None
        return Batch(row["writer_no"], row["seq"], row["number"], row["digest"])

    async def seal_batch(
        self,
        batch: Batch,
        facts: Sequence[OutRecord],
        business_at: datetime,
        machine_at: datetime,
        *,
        revisions: Sequence[bytes] = (),
        owing: Sequence[int] = (),
    ) -> None:
        """Appends the batch and its facts: `revisions` are digests of the revisions it wrote, `owing` ride numbers."""
        encoded = FACTS_ENCODER.encode(list(facts)) if facts else b""
        facts_digest = fingerprint(encoded)
        columns = batch_columns(len(revisions), owing, business_at, machine_at)
        digest = batch_digest(batch.digest, [*revisions, facts_digest, columns])
        await self.run(
            "seal_batch",
            batch.writer_no,
            batch.seq,
            batch.number,
            len(revisions),
            facts_digest,
            digest,
            list(owing),
            business_at,
            machine_at,
            encoded or None,
        )
