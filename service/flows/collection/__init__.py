"""Obligations become debits, due debits and refunds go to the provider, outcomes are kept (collection.md).

Bounded rounds, each safe to kill at any line: `plan_round` (what is newly owed), `aside_round` (what our own rules
tripped over), and for each merchant account `submit_round` (claim, commit, call, save) and `policy_round` (overdue,
written off). Any number of processes may run them. The business clock says what is due; the machine's rules leases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

from service.adapters.clock import Clock
from service.adapters.postgres import RACES, Database
from service.adapters.postgres.collection import CollectionStore, DebitKey, DebitRow, RefundKey, RefundRow
from service.billing.debits.collecting import Book, Work
from service.billing.debits.events import Due, LeaseOver
from service.billing.debits.refunds import Refund
from service.billing.debits.state import Debit
from service.flows.account_checks import UNWATCHED, Accounts
from service.flows.collection.apart import Key, one_at_a_time, or_apart, set_aside
from service.flows.collection.calls import Answer, Claim, debit_event, refund_event
from service.flows.collection.hearing import LookAtHold
from service.flows.collection.keeping import Providers, context, keep
from service.flows.collection.lanes import Lane
from service.flows.collection.planning import Planning

LEASE = timedelta(seconds=60)
"""How long a process may take over a call and its saving before another one asks what became of it."""
RACES_MAX = 10
WRITERS = 64
"""Chains of batches that the accounts' transactions are spread over."""


class Collection(Planning):
    """Collection over the merchant accounts of `providers`; `now` is the business clock.

    `concurrency` is the most calls that one round has under way at its provider. What `accounts` says may not be called
    is left alone: nothing is claimed of it, and what was claimed waits under its key.
    """

    def __init__(
        self,
        database: Database,
        providers: Providers,
        now: Clock,
        machine_now: Clock,
        *,
        concurrency: int = 64,
        accounts: Accounts = UNWATCHED,
        look_at_hold: LookAtHold | None = None,
    ) -> None:
        super().__init__(database, providers, now, machine_now, accounts, look_at_hold)
        self._concurrency = concurrency
        self._lanes: dict[int, Lane] = {}

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
                account_no, self._providers[account_no], self._machine_now, self._concurrency, self._accounts
            )
        return self._lanes[account_no]

    async def _claim(self, lane: Lane, claims_max: int) -> int:
        """What is due, decided and committed: keys and intent are stored before anybody is called."""
        claims = await or_apart(
            partial(self._claim_due, lane.account_no, claims_max, apart=False),
            partial(self._claim_due, lane.account_no, claims_max, apart=True),
        )
        lane.add(claims)
        return len(claims)

    async def _claim_due(self, account_no: int, claims_max: int, *, apart: bool) -> list[Claim]:
        async with self._database.transaction(CollectionStore) as store:
            now, machine_at = self._now(), self._machine_now()
            stopped = await store.stopped(account_no)
            debits = await store.claim_debits(account_no, now, machine_at, claims_max, stopped)
            refunds = await store.claim_refunds(account_no, now, machine_at, max(claims_max - len(debits), 1), stopped)
            abouts = await store.read_debits(row.refund.ride_no for row in refunds)
            if not apart:
                return await self._take(store, account_no, debits, refunds, abouts)
            claims: list[Claim] = []
            by_key: dict[Key, DebitRow] = {_key(row.debit): row for row in debits}
            refunds_by_key: dict[Key, RefundRow] = {_refund_no(row.refund): row for row in refunds}

            async def take_debit(key: Key) -> None:
                claims.extend(await self._take(store, account_no, [by_key[key]], (), {}))

            async def take_refund(key: Key) -> None:
                claims.extend(await self._take(store, account_no, (), [refunds_by_key[key]], abouts))

            await set_aside(store, "debit", await one_at_a_time(store, by_key, take_debit), now)
            await set_aside(store, "refund", await one_at_a_time(store, refunds_by_key, take_refund), now)
            return claims

    async def _take(
        self,
        store: CollectionStore,
        account_no: int,
        debits: Sequence[DebitRow],
        refunds: Sequence[RefundRow],
        abouts: Mapping[DebitKey, DebitRow],
    ) -> list[Claim]:
        """What these locked rows are due for, written with a lease; `abouts` are the debits of the refunds."""
        machine_at, book = self._machine_now(), Book(self._now())
        rows = {_key(row.debit): row for row in debits}
        refund_rows = {_refund_no(row.refund): row for row in refunds}
        for row in debits:
            book.happen(row.debit, _taken(row.lease_until), context(self._providers, row))
        for refund_row in refunds:
            about = abouts[refund_row.refund.ride_no, refund_row.refund.ordinal]
            event = _taken(refund_row.lease_until)
            book.refund_happen(refund_row.refund, about.debit, event, context(self._providers, about))
        lease_until = machine_at + LEASE
        leases: dict[DebitKey | RefundKey, datetime | None] = dict.fromkeys([*rows, *refund_rows])
        leases |= {_work_key(work): lease_until for work in book.work}
        writer = _writer(account_no)
        await keep(store, self._providers, book, rows, refund_rows, machine_at, writer, leases, whole_rides=False)
        known = {**abouts, **rows}
        return [Claim(work, known[_key(work.debit)], lease_until) for work in book.work]

    async def _save(self, lane: Lane, answers: Sequence[Answer]) -> None:
        saved = not answers
        try:
            for attempt in range(RACES_MAX):
                if saved:
                    break
                try:
                    await or_apart(
                        partial(self._save_together, lane.account_no, answers),
                        partial(self._save_apart, lane.account_no, answers),
                    )
                    saved = True
                except RACES:  # Another one netted a ride meanwhile: decide again on what is there now.
                    if attempt == RACES_MAX - 1:
                        await self._save_apart(lane.account_no, answers)
                        saved = True
        finally:
            if not saved:
                lane.give_back(answers)  # They are still true.

    async def _save_together(self, account_no: int, answers: Sequence[Answer]) -> None:
        """The outcomes that came, in one transaction: those that come meanwhile share the next one."""
        async with self._database.transaction(CollectionStore) as store:
            await self._save_once(store, account_no, answers)

    async def _save_apart(self, account_no: int, answers: Sequence[Answer]) -> None:
        """Each outcome by itself. One that trips is dropped, and asked about anew once that is tried again."""
        by_key: dict[Key, list[Answer]] = {}
        for answer in answers:
            by_key.setdefault(_work_key(answer.claim.work), []).append(answer)
        async with self._database.transaction(CollectionStore) as store:

            async def save_one(key: Key) -> None:
                await self._save_once(store, account_no, by_key[key])

            tripped = await one_at_a_time(store, by_key, save_one)
            refunds = [one for one in tripped if isinstance(one.key, tuple) and len(one.key) == 3]
            await set_aside(store, "refund", refunds, self._now())
            await set_aside(store, "debit", [one for one in tripped if one not in refunds], self._now())

    async def _save_once(self, store: CollectionStore, account_no: int, answers: Sequence[Answer]) -> None:
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
