"""The numbered batches, read by the publisher in causal order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from service.adapters.postgres import Store
from service.adapters.postgres.batches import FACTS_DECODER, OutRecord

READER = "publication"


class UnpublishedBatch(msgspec.Struct, frozen=True):
    """A batch whose facts are not on Kafka yet."""

    writer_no: int
    seq: int
    facts: Sequence[OutRecord]


class PublicationStore(Store):
    """Which facts come next, and how far the publisher is."""

    async def unpublished(self, limit: int, bytes_max: int) -> list[UnpublishedBatch]:
        """Batches in the order of their numbers, causes before what they caused: at most `limit`, or `bytes_max`."""
        rows = await self.all("unpublished", READER, limit, bytes_max)
        return [
            UnpublishedBatch(row["writer_no"], row["seq"], FACTS_DECODER.decode(row["facts"]) if row["facts"] else ())
            for row in rows
        ]

    async def move(self, first: Mapping[int, int], last: Mapping[int, int]) -> bool:
        """Moves the cursors from before `first` to `last` (seq by writer); False when another publisher was there."""
        writers = sorted(last)
        await self.run("begin_reading", READER, writers)
        expected = [first[writer] - 1 for writer in writers]
        return await self.run("move_reader", READER, writers, expected, [last[w] for w in writers]) == len(writers)
