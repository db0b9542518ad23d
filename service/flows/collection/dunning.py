"""The calendar's round: reminders, overdue, notices, nudges, reports, write-offs of one merchant account."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from service.adapters.postgres.collection import CollectionStore, DebitKey, DebitRow
from service.adapters.postgres.stops import Standing
from service.billing.debits.collecting import Book
from service.billing.debits.events import DebitEvent, PolicyDue
from service.billing.outcomes import Unknown
from service.flows.collection.apart import Key, one_at_a_time, or_apart, set_aside
from service.flows.collection.calls import CALL_SECONDS, Answer, Claim, call, debit_event
from service.flows.collection.disputing import Disputing
from service.flows.collection.keeping import context, keep

POLICIES_MAX = 500
AT_ONCE = 16


class Dunning(Disputing):
    """What the calendar does to debits, and what the provider is told or asked because of it."""

    async def policy_round(self, account_no: int) -> int:
        """Does what the calendar says of one account's debits; returns how many were looked at.

        Disputes that were told before their debits were known are told again.

        What is asked of the provider (a nudge, a report) is committed before and repeated under the same key until it
        is answered, so that a process may die anywhere. Nothing is done while the operator is paused; while debits are
        stopped no nudge goes out and no attempt is announced, while reports are, no report.
        """
        await self.hear_unheard(account_no)
        looked, claims = await or_apart(
            partial(self._look, account_no, apart=False), partial(self._look, account_no, apart=True)
        )
        if claims:
            room = asyncio.Semaphore(AT_ONCE)
            answers = await asyncio.gather(*(self._told(account_no, claim, room) for claim in claims))
            events = [
                ((answer.claim.work.debit.ride_no, answer.claim.work.debit.ordinal), debit_event(answer, ours=False))
                for answer in answers
            ]
            await or_apart(partial(self.happen, events), partial(self._happen_apart, events))
        return looked

    async def _look(self, account_no: int, *, apart: bool) -> tuple[int, list[Claim]]:
        """Does what the calendar says; returns how many debits were looked at, and the calls to make."""
        async with self._database.transaction(CollectionStore) as store:
            stopped = await store.stopped(account_no)
            if stopped.paused:
                return 0, []
            claimed = await store.claim_policies(account_no, self._now(), POLICIES_MAX)
            if not apart:
                return len(claimed), await self._turn(store, account_no, claimed, stopped)
            claims: list[Claim] = []
            rows: dict[Key, DebitRow] = {(row.debit.ride_no, row.debit.ordinal): row for row in claimed}

            async def turn_one(key: Key) -> None:
                claims.extend(await self._turn(store, account_no, [rows[key]], stopped))

            await set_aside(store, "policy", await one_at_a_time(store, rows, turn_one), self._now())
            return len(claimed), claims

    async def _turn(
        self, store: CollectionStore, account_no: int, claimed: Sequence[DebitRow], stopped: Standing
    ) -> list[Claim]:
        book = Book(self._now())
        for row in claimed:
            reporting = not stopped.reports and row.debit.tariff_no not in stopped.report_tariffs
            debiting = not stopped.debits and row.debit.tariff_no not in stopped.debit_tariffs
            about = context(self._providers, row, reporting=reporting, debiting=debiting)
            book.happen(row.debit, PolicyDue(), about)
        rows = {(row.debit.ride_no, row.debit.ordinal): row for row in claimed}
        machine_at, writer = self._machine_now(), f"collection/policies/{account_no % 64}"
        await keep(store, self._providers, book, rows, {}, machine_at, writer, {}, whole_rides=False)
        return [Claim(work, rows[work.debit.ride_no, work.debit.ordinal], machine_at) for work in book.work]

    async def _happen_apart(self, events: Sequence[tuple[DebitKey, DebitEvent]]) -> None:
        """Answers one by one; what one that trips was about is done again by the calendar, under the same key."""
        told = dict(events)
        async with self._database.transaction(CollectionStore) as store:

            async def tell(key: Key) -> None:
                assert isinstance(key, tuple)
                await self.hear(store, [(key[:2], told[key[:2]])])

            await set_aside(store, "policy", await one_at_a_time(store, told, tell), self._now())

    async def _told(self, account_no: int, claim: Claim, room: asyncio.Semaphore) -> Answer:
        try:
            async with room, asyncio.timeout(CALL_SECONDS):
                return await call(self._providers[account_no], claim)
        except TimeoutError:
            return Answer(claim, Unknown("no answer in time"))
