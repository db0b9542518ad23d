"""After a restore: the database may have forgotten what it sent, so it is asked about before it is sent again."""

from __future__ import annotations

from datetime import datetime

from service.adapters.postgres import Database
from service.adapters.postgres.agreements import AgreementStore
from service.adapters.postgres.collection import CollectionStore
from service.telemetry import logger

LOG = logger("collection")


async def ask_after_restore(database: Database, now: datetime) -> bool:
    """Whether the database is another cluster or timeline than before: then what is not sent yet is asked about first.

    To be called before a process collects. Debits that a restored intake opens once more are asked about too, as their
    rides had ended by `now` (business time); their keys are those of the time that was lost. So are agreements, which
    riders may have ended in it. The first database that is ever seen is only remembered. Safe to kill at any line, and
    to be called by many.
    """
    async with database.transaction(CollectionStore) as store:
        known, found = await store.cluster_timeline()
        if known == found:
            return False
        restored = known is not None
        await store.keep_cluster_timeline(found, now if restored else None)
        if restored:
            marked = {
                "marked": await store.verify_all(now),
                "agreements": await AgreementStore(store.connection).ask_all_again(now),
            }
            LOG.error(
                "the database was restored: what is not sent is asked about first", was=known, now=found, **marked
            )
        return restored
