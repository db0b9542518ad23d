"""After a restore: the database may have forgotten what it sent, so it is asked about before it is sent again."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from service.adapters.postgres import Database
from service.adapters.postgres.agreements import AgreementStore
from service.adapters.postgres.collection import CollectionStore
from service.telemetry import logger

LOG = logger("collection")
PORTION = 10_000
"""So many rides with debits, or agreements, are marked in one transaction: a second of the 30 that it may last."""


async def ask_after_restore(database: Database, now: datetime) -> bool:
    """Whether the database is another cluster or timeline than before: then what is not sent yet is asked about first.

    To be called before a process collects. Debits that a restored intake opens once more are asked about too, as their
    rides had ended by `now` (business time); their keys are those of the time that was lost. So are agreements, which
    riders may have ended in it. The first database that is ever seen is only remembered. Safe to kill at any line, and
    to be called by many: all is marked, in portions, before it is remembered which database it is, and nobody marks
    once that is.
    """
    async with database.transaction(CollectionStore) as store:
        known, found = await store.cluster_timeline()
        if known is None:
            await store.keep_cluster_timeline(found, None)
        if known in (None, found):
            return False
    marked = Counter[str]()
    for what, mark in (("marked", _mark_debits), ("agreements", _mark_agreements)):
        after: int | None = 0
        while after is not None:
            async with database.transaction(CollectionStore) as store:
                if (await store.cluster_timeline())[0] == found:
                    return True  # Somebody else has marked all, and may collect by now.
                after, count = await mark(store, after, now)
                marked[what] += count
    async with database.transaction(CollectionStore) as store:
        if (await store.cluster_timeline())[0] != found:
            await store.keep_cluster_timeline(found, now)
            LOG.error(
                "the database was restored: what is not sent is asked about first", was=known, now=found, **marked
            )
    return True


async def _mark_debits(store: CollectionStore, after: int, now: datetime) -> tuple[int | None, int]:
    """Marks the debits and refunds of the next rides; returns the last of these, None after the very last, and how many
    are marked."""
    rides = await store.rides_debited(after, PORTION)
    return (rides[-1], await store.verify_all(now, after, rides[-1])) if rides else (None, 0)


async def _mark_agreements(store: CollectionStore, after: int, now: datetime) -> tuple[int | None, int]:
    """The same of agreements."""
    agreements = AgreementStore(store.connection)
    through = await agreements.through(after, PORTION)
    return through, 0 if through is None else await agreements.ask_all_again(now, after, through)
