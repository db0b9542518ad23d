"""A hold asked for before the unlock → the provider → allowed, refused, a rider's action, or pending.

The intent is committed before the provider is called; what he answers is kept by compare-and-set. A call without an
answer leaves the hold requested, and `resolve_round` asks what became of it. `release_round` gives up holds whose ride
never started and completes those whose debits are final. Every round is bounded and safe to kill at any line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TypeAlias
from uuid import UUID

import msgspec
from msgspec.structs import replace

from service.adapters.clock import Clock
from service.adapters.postgres import Database
from service.adapters.postgres.batches import OutRecord, writer_name
from service.adapters.postgres.holds import HoldRow, HoldStore, Setting
from service.adapters.providers import Providers
from service.adapters.providers.port import Provider
from service.billing.agreements import refusal
from service.billing.agreements.asking import ConflictingAskError, UnknownAskError
from service.billing.agreements.holds import (
    BEFORE_ITS_END,
    UNOPENED_SOON,
    Hold,
    HoldState,
    RideSeen,
    Step,
    answered,
    completing,
    next_step,
    refused_by_us,
    waiting,
)
from service.billing.agreements.standing import HoldAnswer, HoldStatus
from service.billing.facts import encode_fact
from service.billing.keys import session_key, slot_of
from service.billing.outcomes import NOT_ACCEPTED, Barred, Unknown
from service.flows.account_checks import UNWATCHED, Accounts, let_in
from service.flows.accounts import merchant_account
from service.flows.admission import Admission
from service.flows.each import each
from service.flows.hold_calls import AT_ONCE, CALL_WITHIN, LEASE, LOCAL, call, open_first
from service.flows.hold_replies import (
    HoldAsk,
    HoldReply,
    check,
    fact_of,
    named_row,
    reply,
    requested_row,
    same_content,
)
from service.flows.unopened import UnopenedHolds

HOLDS_MAX = 200
LookAgain: TypeAlias = Callable[[int, str, timedelta], Awaitable[object]]


class _Unsigned(msgspec.Struct, frozen=True):
    """The agreement waits for its rider, as far as is known; how long the app waits for its provider."""

    answer_within: timedelta


class Holds:
    """Holds of every operator. `now` is the business clock, `machine_now` rules leases.

    `look_again` asks the provider once about an agreement (operator number, agreement id), for no longer than it is
    told; who only runs the rounds needs none.
    """

    def __init__(
        self,
        database: Database,
        providers: Providers,
        now: Clock,
        machine_now: Clock,
        look_again: LookAgain | None = None,
        accounts: Accounts = UNWATCHED,
    ) -> None:
        self._accounts = accounts
        self._database = database
        self._providers = providers
        self._now = now
        self._machine_now = machine_now
        self._admission = Admission()
        self._unopened = UnopenedHolds(database, providers, now, machine_now, accounts)
        self._look_again = look_again
        self._operators: dict[int, str] = {}

    async def ask(self, ask: HoldAsk) -> HoldReply:
        """Opens the session's hold, by one call to the provider; asking again gives the same hold, as it stands then.

        A hold that was refused is decided anew; before one is refused because the agreement waits for its rider, its
        provider is asked whether he has signed. Raises AskError naming the field: UnknownAskError for an agreement or
        tariff that is not there, ConflictingAskError when the session's hold is for something else, or its ride is over
        and none was opened for it.
        """
        begun = await self._intend(ask)
        if isinstance(begun, _Unsigned):
            if self._look_again is not None:
                await self._look_again(ask.operator_no, ask.agreement_id, begun.answer_within)
            begun = await self._intend(ask, asked=True)
        assert not isinstance(begun, _Unsigned)
        row, first = begun
        if row is None:
            return await self.get(ask.operator_no, ask.session_id)
        if row.lease_until is None:
            return reply(row)
        provider = self._providers.of(merchant_account(row.account))
        within = row.policy.answer_within
        ask_it = partial(open_first, provider, row, within) if first else partial(call, provider, row, "ask", within)
        answer = await self._let_in(provider, row, ask_it)
        told = reply(await self._keep(row, answer, awaited=not first))
        return replace(told, reason=NOT_ACCEPTED) if isinstance(answer, Barred) and told.status == "pending" else told

    async def get(self, operator_no: int, session_id: str) -> HoldReply:
        """The session's hold as it is known. Raises UnknownAskError."""
        async with self._database.reading(HoldStore) as store:
            row = await self._find(store, operator_no, session_id)
            return reply(row, (await store.rides_of_holds([row.hold.session_key]))[row.hold.session_key].state)

    async def release(self, operator_no: int, session_id: str, reason: str = "released by the app") -> HoldReply:
        """Gives up a hold whose ride has not started. Raises UnknownAskError, or ConflictingAskError once it has."""
        async with self._database.transaction(HoldStore) as store:
            row = await self._find(store, operator_no, session_id)
            if row.hold.state not in (HoldState.REQUESTED, HoldState.OPEN):
                return reply(row)
            ride = (await store.rides_of_holds([row.hold.session_key]))[row.hold.session_key]
            if ride.state is not None:
                raise ConflictingAskError("session_id", f"the ride of {session_id} has begun: its hold is needed")
            hold = await store.save_hold(completing(row.hold, reason, self._now()), self._now(), self._lease())
        return reply(row if hold is None else await self._step(replace(row, hold=hold), "release"))

    async def look(self, key: UUID, slot: int) -> None:
        """Asks how a session's hold stands whose rider is to confirm it, as he wants to now; one that nobody has opened
        yet is opened. Nothing happens to any other, nor while somebody is at it."""
        async with self._database.reading(HoldStore) as store:
            known = await store.find_hold(key, slot)
            row = None if known is None else await self._take_up(store, known)
        if row is None or row.lease_until is None:
            return
        provider = self._providers.of(merchant_account(row.account))
        ask = partial(call, provider, row, "ask", row.policy.answer_within)
        await self._keep(row, await self._let_in(provider, row, ask))

    async def noticed(self, account_no: int, key: str, answer: HoldAnswer) -> bool:
        """Takes in what a verified notification says; False when it is about no hold that is under way, nor one that
        was given up before its rider had opened it: that is ended now. What has another number at the provider than
        the hold was asked for before it under the same key: only a question tells how the hold itself stands."""
        async with self._database.reading(HoldStore) as store:
            row = await store.find_hold_by_provider_key(account_no, key)
        if row is None:
            return await self._unopened.told(account_no, key)
        if isinstance(answer, Unknown) or _of_another(row.hold, answer):  # It has changed: its provider is asked how.
            await self._save(row, replace(row.hold, due_at=self._now()))
            return True
        await self._keep(row, answer)
        return True

    async def resolve_round(self, account_no: int) -> int:
        """Asks what became of one account's holds that are not answered; returns how many were looked at."""
        return await self._round(account_no, [HoldState.REQUESTED])

    async def release_round(self, account_no: int) -> int:
        """Gives up what nobody used and completes what is paid, of one account, and ends what was opened after it had
        been given up; returns how many were looked at."""
        looked_at = await self._round(account_no, [HoldState.OPEN, HoldState.COMPLETING])
        return looked_at + await self._unopened.round(account_no)

    # -------------------------------------------------------------- before the call

    async def _intend(self, ask: HoldAsk, *, asked: bool = False) -> tuple[HoldRow | None, bool] | _Unsigned:
        """The hold as it is to be, written; whether its provider was never asked. No row: it stands as it is.

        A row with a lease is this caller's to ask the provider about. Nothing is written while it depends on an
        agreement that waits for its rider, unless that was `asked` about.
        """
        async with self._database.reading(HoldStore) as store:
            key = session_key(await self._operator(store, ask.operator_no), ask.session_id)
            setting = await store.hold_setting(ask.operator_no, ask.agreement_id, ask.tariff_id, self._now(), key)
            setting, agreement = check(ask, setting)
            known = None if setting.known is None else setting.known.hold
            over = setting.ride_state not in BEFORE_ITS_END
            if setting.known is not None:
                same_content(ask, agreement, setting.known.hold)
                if setting.known.hold.state is not HoldState.REFUSED:
                    if over:
                        return None, False
                    row = named_row(ask, setting, agreement, setting.known.hold, setting.known.lease_until)
                    return await self._take_up(store, row), False
            if over:
                said = f"the ride of {ask.session_id} is {setting.ride_state}: another one has a session of its own"
                raise ConflictingAskError("session_id", said)
            if agreement.state == "pending" and not asked:
                return _Unsigned(setting.policy.answer_within)
            row = await self._decide(store, requested_row(ask, setting, agreement, self._now(), known), setting)
            if row.lease_until is not None:  # An intent is no fact yet: it needs no transaction.
                return await self._write(store, row, known), True
        async with self._database.transaction(HoldStore) as store:
            written = await self._write(store, row, known)
            if written is not None:
                await self._announce(store, written)
        return written, True

    async def _write(self, store: HoldStore, row: HoldRow, known: Hold | None) -> HoldRow | None:
        """The first time, or in place of what was refused; None: somebody was faster."""
        if known is None:
            return row if await store.request(row.hold, row.lease_until) else None
        saved = await store.save_hold(row.hold, self._now(), row.lease_until)
        return None if saved is None else replace(row, hold=saved)

    async def _take_up(self, store: HoldStore, known: HoldRow) -> HoldRow | None:
        """A hold that nobody has answered yet is asked about, unless somebody is at it."""
        at_it = known.lease_until is not None and known.lease_until > self._machine_now()
        if known.hold.state is not HoldState.REQUESTED or at_it:
            return replace(known, lease_until=None)
        lease_until = self._lease()
        saved = await store.save_hold(known.hold, self._now(), lease_until)
        return None if saved is None else replace(known, hold=saved, lease_until=lease_until)

    async def _decide(self, store: HoldStore, row: HoldRow, setting: Setting) -> HoldRow:
        """Refused by our own rules, open where the provider has no holds, or to be asked for."""
        why = refusal(await self._admission.standing(store, setting, self._now()), self._now())
        if why is not None:
            return replace(row, hold=refused_by_us(row.hold, why), lease_until=None)
        provider = self._providers.of(merchant_account(row.account))
        if setting.mode == "shadow" or not provider.capabilities.hold_needed:
            opened = answered(row.hold, LOCAL["ask"], self._now(), row.policy)
            return replace(row, hold=opened, lease_until=None)
        return replace(row, lease_until=self._lease())

    # -------------------------------------------------------------- the rounds

    async def _round(self, account_no: int, states: Sequence[HoldState]) -> int:
        now, machine_at = self._now(), self._machine_now()
        async with self._database.transaction(HoldStore) as store:
            rows = await store.claim_holds(account_no, states, now, machine_at, machine_at + LEASE, HOLDS_MAX)
            seen = await store.rides_of_holds([row.hold.session_key for row in rows]) if rows else {}
        room = asyncio.Semaphore(AT_ONCE)
        await each(self._look_at(row, seen[row.hold.session_key], room) for row in rows)
        return len(rows)

    async def _look_at(self, row: HoldRow, ride: RideSeen, room: asyncio.Semaphore) -> None:
        async with room:
            step, why = next_step(row.hold, ride, self._now(), row.policy)
            if step == "wait":
                await self._save(row, waiting(row.hold, ride, self._now()))
                return
            if step in ("release", "finish") and row.hold.state is not HoldState.COMPLETING:
                begun = await self._save(row, completing(row.hold, why, self._now()), self._lease())
                if begun is None:
                    return
                row = begun
            await self._step(row, step)

    async def _step(self, row: HoldRow, step: Step) -> HoldRow:
        provider = self._providers.of(merchant_account(row.account))
        return await self._keep(row, await self._let_in(provider, row, partial(call, provider, row, step, CALL_WITHIN)))

    async def _let_in(self, provider: Provider, row: HoldRow, call: Callable[[], Awaitable[HoldAnswer]]) -> HoldAnswer:
        """The provider's answer; where he has no holds nobody is called, and the account's standing is no matter."""
        if not provider.capabilities.hold_needed:
            return await call()
        return await let_in(self._accounts, row.account.account_no, call)

    # -------------------------------------------------------------- after the call

    async def _keep(self, row: HoldRow, answer: HoldAnswer, *, awaited: bool = True) -> HoldRow:
        """Keeps what the provider answered; where somebody was faster, what he kept stands. `awaited`: a debit may be
        waiting for it."""
        unopened = isinstance(answer, HoldStatus) and answer.unopened
        hold = answered(row.hold, answer, self._now(), row.policy)
        kept = await self._save(row, hold, awaited=awaited, unopened=unopened)
        if kept is not None:
            return kept
        async with self._database.reading(HoldStore) as store:
            return await self._find(store, row.hold.operator_no, row.hold.session_id)

    async def _save(
        self,
        row: HoldRow,
        hold: Hold,
        lease_until: datetime | None = None,
        *,
        awaited: bool = False,
        unopened: bool = False,
    ) -> HoldRow | None:
        async with self._database.transaction(HoldStore) as store:
            saved = await store.save_hold(hold, self._now(), lease_until)
            if saved is None:
                return None
            changed = replace(row, hold=saved, lease_until=lease_until)
            if unopened:
                now = self._now()
                await store.leave_unopened(saved.provider_key, saved.account_no, now, now + UNOPENED_SOON)
            if awaited and (saved.state is not row.hold.state or saved.action != row.hold.action):
                await store.wake_debits(saved, self._now())
            if saved.state is not row.hold.state:
                await self._announce(store, changed)
            if saved.refusal in ("fault", "final") and saved.state is not row.hold.state:
                await store.doubt([saved.agreement_no], self._now())
            return changed

    async def _announce(self, store: HoldStore, row: HoldRow) -> None:
        """Publishes what became true with this version of the hold, in its transaction."""
        fact = fact_of(row)
        if fact is None:
            return
        now = self._now()
        batch = await store.take_batch(writer_name("holds", row.hold.slot))
        record = OutRecord("billing", *encode_fact(fact, ordinal=row.hold.version, at=now))
        await store.seal_batch(batch, [record], now, self._machine_now())

    async def _operator(self, store: HoldStore, operator_no: int) -> str:
        """The id from which an operator's keys derive; it never changes. "" where there is no such operator (yet)."""
        known = self._operators.get(operator_no) or await store.operator_id(operator_no)
        if known:
            self._operators[operator_no] = known
        return known

    async def _find(self, store: HoldStore, operator_no: int, session_id: str) -> HoldRow:
        key = session_key(await self._operator(store, operator_no), session_id)
        row = await store.find_hold(key, slot_of(key.bytes))
        if row is None:
            raise UnknownAskError("session_id", f"no hold was asked for session {session_id}")
        return row

    def _lease(self) -> datetime:
        return self._machine_now() + LEASE


def _of_another(hold: Hold, answer: HoldAnswer) -> bool:
    """Whether an answer names another number at the provider than is known of the hold."""
    told = answer.provider_ref if isinstance(answer, HoldStatus) else None
    return None not in (told, hold.provider_ref) and told != hold.provider_ref
