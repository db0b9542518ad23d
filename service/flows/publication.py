"""Publication: committed facts → Kafka, in causal order per ride, at least once, with stable ids."""

from __future__ import annotations

from collections.abc import Mapping

from service.adapters.kafka import RecordSink
from service.adapters.postgres import Database
from service.adapters.postgres.publication import PublicationStore
from service.telemetry import PUBLISHED, logger

LOG = logger("publication")
BATCHES_MAX = 512
BYTES_MAX = 16 * 1024 * 1024


class Publication:
    """Sends the facts of the numbered batches. Several may run; each fact is sent at least once, none is skipped."""

    def __init__(self, database: Database, sink: RecordSink, topics: Mapping[str, str]) -> None:
        self._database = database
        self._sink = sink
        self._topics = topics

    async def round(self) -> int:
        """One round: what is committed and unsent, sent and acknowledged, then the cursors. Returns the batches."""
        async with self._database.reading(PublicationStore) as store:
            batches = await store.unpublished(BATCHES_MAX, BYTES_MAX)
        if not batches:
            return 0
        records = [
            (self._topics[fact.topic], fact.key, fact.headers, fact.value) for batch in batches for fact in batch.facts
        ]
        await self._sink.send(records)
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for batch in batches:
            first.setdefault(batch.writer_no, batch.seq)
            last[batch.writer_no] = batch.seq
        async with self._database.transaction(PublicationStore) as store:
            moved = await store.move(first, last)
        if not moved:
            LOG.info("another publisher was there; some facts were sent twice under the same id")
        for batch in batches:
            for fact in batch.facts:
                PUBLISHED.labels(fact.topic).inc()
        return len(batches)
