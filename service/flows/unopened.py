"""What riders were given to confirm, of holds that were given up before they had opened it.

Their provider makes such an order only when it is opened, and opening it freezes money that no ride waits for. It is
looked for, seldom and seldomer, and at once when its provider tells of it; what is there is ended.
"""

from __future__ import annotations

import asyncio
from functools import partial

from service.adapters.clock import Clock
from service.adapters.postgres import Database
from service.adapters.postgres.unopened import Unopened, UnopenedStore
from service.adapters.providers import Providers
from service.adapters.providers.port import HoldRef
from service.billing.agreements.holds import unopened_at
from service.flows.account_checks import Accounts, let_in
from service.flows.accounts import merchant_account
from service.flows.each import each
from service.flows.hold_calls import AT_ONCE, CALL_WITHIN, LEASE, bounded

UNOPENED_MAX = 200


class UnopenedHolds:
    """Keys of every account's holds that their riders may still open; `now` is the business clock."""

    def __init__(
        self, database: Database, providers: Providers, now: Clock, machine_now: Clock, accounts: Accounts
    ) -> None:
        self._database = database
        self._providers = providers
        self._now = now
        self._machine_now = machine_now
        self._accounts = accounts

    async def told(self, account_no: int, key: str) -> bool:
        """Its provider tells of it: it is looked for at once. False: nothing of that key is left unopened."""
        async with self._database.transaction(UnopenedStore) as store:
            return await store.wake_unopened(key, account_no, self._now())

    async def round(self, account_no: int) -> int:
        """Looks for what is due of one account, and ends what is there; returns how many were looked for."""
        machine_at = self._machine_now()
        async with self._database.transaction(UnopenedStore) as store:
            lease_until = machine_at + LEASE
            taken = await store.claim_unopened(account_no, self._now(), machine_at, lease_until, UNOPENED_MAX)
        room = asyncio.Semaphore(AT_ONCE)
        await each(self._end(left, room) for left in taken)
        return len(taken)

    async def _end(self, left: Unopened, room: asyncio.Semaphore) -> None:
        provider = self._providers.of(merchant_account(left.account))
        async with room:
            release = partial(provider.release_hold, HoldRef(left.provider_key))
            answer = await let_in(self._accounts, left.account.account_no, lambda: bounded(release(), CALL_WITHIN))
        due_at = unopened_at(left.given_up_at, answer, self._now())
        async with self._database.transaction(UnopenedStore) as store:
            if due_at is None:
                await store.forget_unopened(left)
            else:
                await store.unopened_later(left, due_at)
