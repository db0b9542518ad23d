"""The calendar's round: reminders, overdue, notices, nudges, reports, write-offs of one merchant account."""

from __future__ import annotations

import asyncio

from service.adapters.postgres.collection import CollectionStore
from service.billing.debits.collecting import Book
from service.billing.debits.events import PolicyDue
from service.billing.outcomes import Unknown
from service.flows.collection.calls import CALL_SECONDS, Answer, Claim, call, debit_event
from service.flows.collection.hearing import Hearing
from service.flows.collection.keeping import context, keep

POLICIES_MAX = 500
AT_ONCE = 16


class Dunning(Hearing):
    """What the calendar does to debits, and what the provider is told or asked because of it."""

    async def policy_round(self, account_no: int) -> int:
        """Does what the calendar says of one account's debits; returns how many were looked at.

        What is asked of the provider (a nudge, a report) is committed before and repeated under the same key until it
        is answered, so that a process may die anywhere. Nothing is done while the operator or the account is paused.
        """
        async with self._database.transaction(CollectionStore) as store:
            stopped = await store.stopped(account_no)
            if stopped.paused:
                return 0
            book = Book(self._now())
            claimed = await store.claim_policies(account_no, book.now, POLICIES_MAX)
            for row in claimed:
                reporting = not stopped.reports and row.debit.tariff_no not in stopped.report_tariffs
                book.happen(row.debit, PolicyDue(), context(self._providers, row, reporting=reporting))
            rows = {(row.debit.ride_no, row.debit.ordinal): row for row in claimed}
            writer = f"collection/policies/{account_no % 64}"
            await keep(store, self._providers, book, rows, {}, self._machine_now(), writer, {}, whole_rides=False)
        if book.work:
            room, until = asyncio.Semaphore(AT_ONCE), self._machine_now()
            claims = [Claim(work, rows[work.debit.ride_no, work.debit.ordinal], until) for work in book.work]
            answers = await asyncio.gather(*(self._told(account_no, claim, room) for claim in claims))
            events = [
                ((answer.claim.work.debit.ride_no, answer.claim.work.debit.ordinal), debit_event(answer, ours=False))
                for answer in answers
            ]
            await self.happen(events)
        return len(claimed)

    async def _told(self, account_no: int, claim: Claim, room: asyncio.Semaphore) -> Answer:
        try:
            async with room, asyncio.timeout(CALL_SECONDS):
                return await call(self._providers[account_no], claim)
        except TimeoutError:
            return Answer(claim, Unknown("no answer in time"))
