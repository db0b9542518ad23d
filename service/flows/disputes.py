"""Disputes that a provider only announces: the announcement is kept as a question, and asked until the dispute is over.

A notification commits the question before it is acknowledged; `ask_round` puts it to the provider and tells the answer
to whoever keeps debits. It repeats what it does not know to be done, which changes nothing: a kill at any line is
harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial

from service.adapters.clock import Clock
from service.adapters.postgres import Database
from service.adapters.postgres.disputes import DisputeQuestion, DisputeStore
from service.adapters.providers import Providers
from service.adapters.providers.port import DisputeAnswer, DisputeStatus
from service.billing.outcomes import Postponed, Unknown
from service.flows.account_checks import UNWATCHED, Accounts, let_in
from service.flows.accounts import merchant_account
from service.flows.each import each
from service.telemetry import logger

LOG = logger("disputes")
LEASE = timedelta(seconds=30)
CALL_WITHIN = timedelta(seconds=10)
ASK_AFTER = tuple(timedelta(seconds=seconds) for seconds in (2, 10, 60, 600, 3600))
"""Steps between questions that brought no answer; the last one repeats."""
LOOK_AGAIN = timedelta(days=1)
"""How soon an open dispute is asked about again: its end may be announced by nobody."""
GIVE_UP_AFTER = timedelta(days=180)
"""A dispute that is not over so long after it was last announced is left to people."""
QUESTIONS_MAX = 100
AT_ONCE = 4

Hear = Callable[[int, DisputeStatus], Awaitable[bool]]
"""Takes in how a dispute stands, by account number; False when it is about no debit of ours."""


async def announced(database: Database, account_no: int, number: str, now: datetime) -> bool:
    """Keeps that a dispute is to be asked about, by the provider's number of it; True: it will be."""
    async with database.reading(DisputeStore) as store:
        await store.announce(account_no, number, now)
    return True


class Disputes:
    """Announced disputes of every account. `now` is the business clock, `machine_now` rules leases."""

    def __init__(
        self,
        database: Database,
        providers: Providers,
        hear: Hear,
        now: Clock,
        machine_now: Clock,
        accounts: Accounts = UNWATCHED,
    ) -> None:
        self._accounts = accounts
        self._database = database
        self._providers = providers
        self._hear = hear
        self._now = now
        self._machine_now = machine_now

    async def ask_round(self, account_no: int) -> int:
        """Asks about one account's disputes whose time has come; returns how many there were."""
        now, machine_at = self._now(), self._machine_now()
        async with self._database.transaction(DisputeStore) as store:
            questions = await store.claim(account_no, now, machine_at, machine_at + LEASE, QUESTIONS_MAX)
        room = asyncio.Semaphore(AT_ONCE)

        async def ask(question: DisputeQuestion) -> None:
            async with room:
                await self._ask(question)

        await each(map(ask, questions))
        return len(questions)

    async def _ask(self, question: DisputeQuestion) -> None:
        answer = await self._answer(question)
        if isinstance(answer, tuple):
            for status in answer:
                if not await self._hear(question.account.account_no, status):
                    LOG.info("a dispute about no debit of ours", account_no=question.account.account_no)
        now = self._now()
        async with self._database.reading(DisputeStore) as store:
            match answer:
                case tuple() if all(status.state != "opened" for status in answer):
                    await store.forget(question)
                case _ if now >= question.created_at + GIVE_UP_AFTER:
                    LOG.error("a dispute is left to people", account_no=question.account.account_no)
                    await store.forget(question)
                case tuple():
                    await store.later(question, 0, now + LOOK_AGAIN)
                case Postponed(retry_after=wait):
                    await store.later(question, question.asks, now + wait)
                case _:
                    wait = ASK_AFTER[min(question.asks, len(ASK_AFTER) - 1)]
                    await store.later(question, question.asks + 1, now + wait)

    async def _answer(self, question: DisputeQuestion) -> DisputeAnswer:
        provider = self._providers.of(merchant_account(question.account))
        try:
            async with asyncio.timeout(CALL_WITHIN.total_seconds()):
                ask = partial(provider.get_dispute, question.dispute_ref)
                return await let_in(self._accounts, question.account.account_no, ask)
        except TimeoutError:
            return Unknown("timeout")
