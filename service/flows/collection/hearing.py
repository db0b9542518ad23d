"""What reaches a debit from outside: people's wishes and providers' notifications, each in a transaction of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from service.adapters.postgres import Database
from service.adapters.postgres.collection import CollectionStore, DebitKey, RefundKey
from service.billing.debits.collecting import Book
from service.billing.debits.events import DebitEvent, Notified
from service.billing.debits.state import Debit
from service.billing.outcomes import Outcome
from service.flows.clock import Clock
from service.flows.collection.keeping import Providers, context, keep

WRITER = "collection/wishes"


class Hearing:
    """Debits as people and notifications change them; `now` is the business clock."""

    def __init__(self, database: Database, providers: Providers, now: Clock, machine_now: Clock) -> None:
        self._database = database
        self._providers = providers
        self._now = now
        self._machine_now = machine_now

    async def happen(self, events: Sequence[tuple[DebitKey, DebitEvent]]) -> dict[DebitKey, Debit]:
        """What people and notifications do to debits, all or nothing; returns the debits after it.

        Raises ImpossibleEventError or RefundRefusedError, and then nothing was changed; KeyError for no such debit.
        """
        async with self._database.transaction(CollectionStore) as store:
            rows = await store.lock_debits(ride_no for (ride_no, _), _ in events)
            book = Book(self._now())
            for key, event in events:
                book.happen(book.changed.get(key, rows[key].debit), event, context(self._providers, rows[key]))
            await keep(store, self._providers, book, rows, {}, self._machine_now(), WRITER, {})
            return {key: book.changed.get(key, rows[key].debit) for key, _ in events}

    async def noticed(
        self,
        account_no: int,
        key: str,
        outcome: Outcome,
        named_by: Literal["key", "hold", "hold_ref"] = "key",
        about: Literal["debit", "refund"] = "debit",
    ) -> bool:
        """Takes in what a verified notification says; False when it is about nothing that still matters.

        `key` is ours, or names the hold that the debit goes through. What can't be is not believed: it is asked about.
        """
        if about == "refund":
            return await self._refunds_noticed(account_no, key, outcome)
        async with self._database.reading(CollectionStore) as store:
            if named_by == "key":
                debits = dict.fromkeys(await store.debits_by_provider_key(key, account_no), key)
            else:
                debits = await store.debits_by_hold(key, account_no, by_ref=named_by == "hold_ref")
        if debits:
            await self.happen([(debit, Notified(own, outcome)) for debit, own in debits.items()])
        return bool(debits)

    async def _refunds_noticed(self, account_no: int, key: str, outcome: Outcome) -> bool:
        async with self._database.transaction(CollectionStore) as store:
            refunds: list[RefundKey] = await store.refunds_by_provider_key(key, account_no)
            rides = {ride_no for ride_no, _, _ in refunds}
            book, rows = Book(self._now()), await store.lock_debits(rides)
            refund_rows = await store.lock_refunds(rides)
            for number in refunds:
                row, refund = rows[number[:2]], refund_rows[number].refund
                book.refund_happen(refund, row.debit, Notified(key, outcome), context(self._providers, row))
            await keep(store, self._providers, book, rows, refund_rows, self._machine_now(), WRITER, {})
            return bool(refunds)
