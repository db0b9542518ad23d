"""Obligations become debits, due debits and refunds go to the provider, outcomes are kept (collection.md).

Three bounded rounds, each safe to kill at any line: `plan_round` (what is newly owed), and for each merchant account
`submit_round` (claim, commit, call, save) and `policy_round` (overdue, written off). Any number of processes may run
them. The business clock says what is due; the machine's clock rules leases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from service.adapters.postgres import RACES, Database
from service.adapters.postgres.collection import CollectionStore, DebitKey, DebitRow, RefundKey
from service.billing.debits.collecting import Book, Work
from service.billing.debits.events import Due, LeaseOver
from service.billing.debits.refunds import Refund
from service.billing.debits.state import Debit
from service.flows.clock import Clock
from service.flows.collection.calls import Answer, Claim, debit_event, refund_event
from service.flows.collection.dunning import Dunning
from service.flows.collection.keeping import Providers, context, keep, net_rides
from service.flows.collection.lanes import Lane

BATCHES_MAX = 32
"""Batches of each writer that one plan round reads."""
LEASE = timedelta(seconds=60)
"""How long a process may take over a call and its saving before another one asks what became of it."""
RACES_MAX = 10
WRITERS = 64
"""Chains of batches that the accounts' transactions are spread over."""


class Collection(Dunning):
    """Collection over the merchant accounts of `providers`; `now` is the business clock.

    `concurrency` is the most calls that one round has under way at its provider.
    """

    def __init__(
        self, database: Database, providers: Providers, now: Clock, machine_now: Clock, *, concurrency: int = 64
    ) -> None:
        super().__init__(database, providers, now, machine_now)
        self._concurrency = concurrency
        self._lanes: dict[int, Lane] = {}

    async def plan_round(self) -> int:
        """Takes in the next batches that owe something; returns how many there were.

        Raises one of RACES when somebody else decided first: the next round reads again.
        """
        async with self._database.transaction(CollectionStore) as store:
            before = await store.lock_cursors()
            batches = await store.batches_owing(before, BATCHES_MAX) if before else ()
            if not batches:
                return 0
            book = Book(self._now())
            rows = await net_rides(store, self._providers, book, (no for batch in batches for no in batch["owing"]))
            await self._keep(store, book, rows, "collection/plan")
            moved = await store.move_cursors(before, {batch["writer_no"]: batch["seq"] for batch in batches})
            assert moved, "a cursor of collection moved while it was locked"
            return len(batches)

    async def submit_round(self, account_no: int) -> int:
        """Claims what is due of one account, calls its provider, saves outcomes as they come; returns the calls.

        Ends when every outcome is saved. A provider that says "too many" is left alone until the time it named.
        """
        lane = self._lane(account_no)
        if lane.quiet:
            return 0
        try:
            claimed = await self._claim(lane, self._concurrency)
            while lane.busy:
                await self._save(lane, await lane.answered())
        finally:  # A call that nobody waits for any more is asked about when its lease is over.
            lane.close()
        return claimed

    async def collect_round(self, account_no: int) -> int:
        """As `submit_round`, but calls go on when it ends: a turn of claiming what is due and saving what was answered.

        Returns how many claims and answers that were; `end` waits for the rest.
        """
        lane = self._lane(account_no)
        answers = await lane.answered()
        claiming = self._claim(lane, lane.room) if lane.hungry else _nothing()
        claimed, saved = await asyncio.gather(claiming, self._save(lane, answers), return_exceptions=True)
        if isinstance(claimed, BaseException):
            raise claimed
        if saved is not None:
            raise saved
        return claimed + len(answers) + lane.busy

    async def end(self, account_no: int) -> None:
        """Saves the outcomes of the calls under way; what waits for its turn is due again at once."""
        lane = self._lane(account_no)
        lane.wind_up()
        while lane.busy:
            await self._save(lane, await lane.answered())

    def _lane(self, account_no: int) -> Lane:
        if account_no not in self._lanes:
            self._lanes[account_no] = Lane(
                account_no, self._providers[account_no], self._machine_now, self._concurrency
            )
        return self._lanes[account_no]

    async def _claim(self, lane: Lane, claims_max: int) -> int:
        """What is due, decided and committed: keys and intent are stored before anybody is called."""
        account_no = lane.account_no
        async with self._database.transaction(CollectionStore) as store:
            machine_at, book = self._machine_now(), Book(self._now())
            stopped = await store.stopped(account_no)
            claimed = await store.claim_debits(account_no, book.now, machine_at, claims_max, stopped)
            rows = {_key(row.debit): row for row in claimed}
            for row in claimed:
                book.happen(row.debit, _taken(row.lease_until), context(self._providers, row))
            refunds = await store.claim_refunds(
                account_no, book.now, machine_at, max(claims_max - len(claimed), 1), stopped
            )
            debits = await store.read_debits(row.refund.ride_no for row in refunds)
            for refund_row in refunds:
                about = debits[refund_row.refund.ride_no, refund_row.refund.ordinal]
                event = _taken(refund_row.lease_until)
                book.refund_happen(refund_row.refund, about.debit, event, context(self._providers, about))
            lease_until = machine_at + LEASE
            refund_rows = {_refund_no(row.refund): row for row in refunds}
            leases: dict[DebitKey | RefundKey, datetime | None] = dict.fromkeys([*rows, *refund_rows])
            for work in book.work:
                leases[_work_key(work)] = lease_until
            await keep(
                store,
                self._providers,
                book,
                rows,
                refund_rows,
                machine_at,
                _writer(account_no),
                leases,
                whole_rides=False,
            )
        known = {**debits, **rows}
        lane.add([Claim(work, known[_key(work.debit)], lease_until) for work in book.work])
        return len(book.work)

    async def _save(self, lane: Lane, answers: Sequence[Answer]) -> None:
        saved = not answers
        try:
            for attempt in range(RACES_MAX):
                if saved:
                    break
                try:
                    await self._save_once(lane.account_no, answers)
                    saved = True
                except RACES:  # Another one netted a ride meanwhile: decide again on what is there now.
                    if attempt == RACES_MAX - 1:
                        raise
        finally:
            if not saved:
                lane.give_back(answers)  # They are still true.

    async def _save_once(self, account_no: int, answers: Sequence[Answer]) -> None:
        """The outcomes that came, in one transaction: those that come meanwhile share the next one."""
        async with self._database.transaction(CollectionStore) as store:
            book = Book(self._now())
            rows = await store.lock_debits(answer.claim.work.debit.ride_no for answer in answers)
            refunds = [work.refund.ride_no for work in (answer.claim.work for answer in answers) if work.refund]
            refund_rows = await store.lock_refunds(refunds)
            leases: dict[DebitKey | RefundKey, datetime | None] = {}
            for answer in answers:
                work, key = answer.claim.work, _work_key(answer.claim.work)
                row = rows[_key(work.debit)]
                held = row if work.refund is None else refund_rows[_refund_no(work.refund)]
                ours = held.lease_until == answer.claim.lease_until
                if ours:
                    leases[key] = None
                debit, about = book.changed.get(_key(work.debit), row.debit), context(self._providers, row)
                if isinstance(held, DebitRow):
                    book.happen(debit, debit_event(answer, ours=ours), about)
                else:
                    book.refund_happen(held.refund, debit, refund_event(answer, held.refund, ours=ours), about)
            writer = _writer(account_no)
            await keep(store, self._providers, book, rows, refund_rows, self._machine_now(), writer, leases)

    async def _keep(
        self,
        store: CollectionStore,
        book: Book,
        rows: Mapping[DebitKey, DebitRow],
        writer: str,
        *,
        whole_rides: bool = True,
    ) -> None:
        at = self._machine_now()
        await keep(store, self._providers, book, rows, {}, at, writer, {}, whole_rides=whole_rides)


async def _nothing() -> int:
    return 0


def _taken(lease_until: datetime | None) -> Due | LeaseOver:
    return Due() if lease_until is None else LeaseOver()


def _key(debit: Debit) -> DebitKey:
    return debit.ride_no, debit.ordinal


def _refund_no(refund: Refund) -> RefundKey:
    return refund.ride_no, refund.ordinal, refund.refund_ordinal


def _work_key(work: Work) -> DebitKey | RefundKey:
    return _key(work.debit) if work.refund is None else _refund_no(work.refund)


def _writer(account_no: int) -> str:
    """Accounts seldom share a writer, so that their transactions do not wait for each other."""
    return f"collection/{account_no % WRITERS}"
