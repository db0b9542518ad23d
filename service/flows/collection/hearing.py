"""What reaches a debit from outside: people's wishes and providers' notifications, each in a transaction of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal, TypeAlias
from uuid import UUID

from msgspec.structs import replace

from service.adapters.clock import Clock
from service.adapters.postgres import Database
from service.adapters.postgres.collection import CollectionStore, DebitKey, DebitRow, RefundKey
from service.adapters.postgres.unordered import UnorderedStore
from service.adapters.providers.port import NamedBy
from service.billing.debits.collecting import Book
from service.billing.debits.events import (
    DebitEvent,
    GivenBack,
    GivenBackFailed,
    ImpossibleEventError,
    Notified,
    PaymentAnswered,
    PaymentWanted,
    RefundDecided,
    RefundRefusedError,
    RetryAsked,
)
from service.billing.debits.obligations import owed_back_minor
from service.billing.debits.refunds import REFUND_FINAL, UNPAID, RefundState
from service.billing.debits.state import FINAL, Debit, debit_id, waits_for_hold
from service.billing.debits.steps import given_back_text
from service.billing.money import format_amount
from service.billing.outcomes import (
    Accepted,
    Closed,
    Declined,
    NeedsRider,
    Outcome,
    Postponed,
    Prepared,
    Succeeded,
    Unknown,
)
from service.flows.account_checks import UNWATCHED, Accounts, let_in
from service.flows.collection.calls import CALL_SECONDS, debit_ref, debit_request
from service.flows.collection.keeping import Providers, context, keep, net_rides
from service.telemetry import UNEXPLAINED, UNORDERED, logger

LOG = logger("collection")
PREPARED_MAX = 3
"""How often a provider may answer that the payment has a number now, and must be asked for again."""
CONFIRM_SECONDS = 2.0
"""How long the provider may take to confirm what he tells: he waits for our answer meanwhile, some for 5 s."""
HOLDS_LOOKED_AT = 2
"""The hold that stands, and the one that is asked for in its place where it is over."""
WRITER = "collection/wishes"
LookAtHold: TypeAlias = Callable[[UUID, int], Awaitable[None]]
HOLD_ASKED = NeedsRider(
    "HOLD_ASKED", advice="he pays by confirming another order, which is being asked for now: ask again in a moment"
)
"""Why there is nothing to do for the rider yet whose hold was refused, and who can pay in no other way."""


def order_number(named_by: NamedBy, number: str) -> str:
    """How a debit is remembered by the order that it goes through: with a blank, as no key and no number has."""
    return f"{named_by} {number}"


def _asks_less(before: Debit, debit: Debit) -> bool:
    ended = debit.state in FINAL and before.state not in FINAL
    return ended or (before.amount_minor, before.lowering_to) != (debit.amount_minor, debit.lowering_to)


async def _of_order(store: CollectionStore, number: str, account_no: int, named_by: NamedBy) -> dict[DebitKey, str]:
    """The debit that goes through the running order of this number, with its key; of one that is over, the debit whose
    rider was given it to pay: he may do so when nobody expects it any more."""
    found = await store.debits_by_hold(number, account_no, by_ref=named_by == "hold_ref")
    if found:
        return found
    given = await store.debits_by_provider_ref(order_number(named_by, number), account_no)
    rows = await store.read_debits(ride_no for ride_no, _ in given)
    return {key: rows[key].debit.provider_key for key in given if number in (rows[key].hold_key, rows[key].hold_ref)}


class NoPaymentError(Exception):
    """The provider gave the rider nothing to do; `outcome` says why."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"the provider gives the rider nothing to do: {type(outcome).__name__}")
        self.outcome = outcome


class NoAnswerError(Exception):
    """The provider did not say whether what he tells is so: he is to tell it again."""


class Hearing:
    """Debits as people and notifications change them; `now` is the business clock.

    `look_at_hold` asks the provider how a session's hold (its key and slot) stands, for a rider who wants to confirm it
    now; where nobody wants to pay, none is needed.
    """

    def __init__(
        self,
        database: Database,
        providers: Providers,
        now: Clock,
        machine_now: Clock,
        accounts: Accounts = UNWATCHED,
        look_at_hold: LookAtHold | None = None,
    ) -> None:
        self._accounts = accounts
        self._look_at_hold = look_at_hold
        self._database = database
        self._providers = providers
        self._now = now
        self._machine_now = machine_now

    async def happen(self, events: Sequence[tuple[DebitKey, DebitEvent]]) -> dict[DebitKey, Debit]:
        """What people and notifications do to debits, all or nothing; returns the debits after it.

        Raises ImpossibleEventError or RefundRefusedError, and then nothing was changed; KeyError for no such debit.
        """
        async with self._database.transaction(CollectionStore) as store:
            return await self.hear(store, events)

    async def hear(
        self, store: CollectionStore, events: Sequence[tuple[DebitKey, DebitEvent]]
    ) -> dict[DebitKey, Debit]:
        """As `happen`, in a transaction of the caller's."""
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
        named_by: NamedBy = "key",
        about: Literal["debit", "refund"] = "debit",
        payment: str | None = None,
    ) -> bool:
        """Takes in what a verified notification says; False when it is about nothing of ours, as far as its key or the
        provider's number in it tell.

        `key` is ours, present or of an earlier attempt, or names the hold that the debit goes through. What can't be is
        not believed: it is asked about. What an earlier attempt asked for is not known any more: the provider is asked
        about it at once, and his answer is taken in; without one NoAnswerError, and nothing was changed. Of a debit
        that is settled nothing is believed nor asked under its key: a repeated notification is the rule; what comes
        under an earlier one goes back. A payment of a number that no debit ever had is recorded with the notification
        and counted as unexplained. A refund of one of our payments (`payment`) that nobody here ordered is kept and
        shown until a person has booked it; nothing is booked by itself. What nobody told (a reversal) is found by
        comparing the provider's statement with the ledger.
        """
        if about == "refund":
            return await self._refunds_noticed(account_no, key, outcome, payment)
        async with self._database.reading(CollectionStore) as store:
            if named_by == "key":
                known = await store.debits_by_provider_key(key, account_no)
                debits = dict.fromkeys(known, key)
                earlier = [debit for debit, present in known.items() if not present]
            else:
                debits, earlier = await _of_order(store, key, account_no, named_by), []
            abouts = await store.read_debits(ride_no for ride_no, _ in earlier)
        if debits:
            told = {debit: await self._confirmed(abouts[debit], key, outcome) for debit in earlier}
            await self.happen([(debit, Notified(own, told.get(debit, outcome))) for debit, own in debits.items()])
            return True
        if isinstance(outcome, Accepted | Succeeded) and await self._called_so(account_no, outcome.provider_ref):
            return True  # Settled meanwhile, mostly by the answer to our own call, which says the same.
        if isinstance(outcome, Succeeded):
            LOG.error("a payment that no debit knows of", account_no=account_no, key=key, ref=outcome.provider_ref)
            UNEXPLAINED.inc()
        return False

    async def _confirmed(self, row: DebitRow, key: str, told: Outcome) -> Outcome:
        """What the provider answers to the question whether money came under a debit's earlier key."""
        if not isinstance(told, Succeeded):
            return told
        provider = self._providers[row.debit.account_no]
        answer: Outcome = Unknown("no answer in time")
        with suppress(TimeoutError):
            async with asyncio.timeout(CONFIRM_SECONDS):
                earlier = replace(row.debit, provider_key=key, provider_ref=None)
                ask = partial(provider.get_debit, debit_ref(provider, row, earlier))
                answer = await let_in(self._accounts, row.debit.account_no, ask)
        if isinstance(answer, Unknown | Postponed):
            raise NoAnswerError
        if not isinstance(answer, Succeeded) or answer.amount_minor != told.amount_minor:
            kind = type(answer).__name__  # Its words are the provider's, who may name the rider in them.
            LOG.warning("told of money that is not there", key=key, told_minor=told.amount_minor, answer=kind)
        return answer

    async def _called_so(self, account_no: int, provider_ref: str | None) -> bool:
        async with self._database.reading(CollectionStore) as store:
            return provider_ref is not None and bool(await store.debits_by_provider_ref(provider_ref, account_no))

    async def ask_payment(self, key: DebitKey) -> Debit:
        """What the rider has to do to pay a debit now: the debit with its `action`, which is polled afterwards. One
        that waits for him to confirm a hold is paid by that: by the one that stands at the provider, or another one at
        once where that is over; where he can pay in no other way and the hold was refused, another one is asked for,
        and he is told to ask again.

        The intent is committed before the provider is asked, and no transaction is open meanwhile. Raises KeyError for
        no such debit, ImpossibleEventError for one that can't be paid by him now, NoPaymentError where the provider
        gave him nothing to do. The account's provider must be open in this process.
        """
        try:
            debit = await self._wanted(key)
        except ImpossibleEventError:
            async with self._database.reading(CollectionStore) as store:
                waiting = (await store.read_debits([key[0]]))[key].debit
            if not waits_for_hold(waiting) or waiting.action is None:
                raise
            return waiting
        if waits_for_hold(debit) and debit.action is not None:
            return debit
        if debit.payable_until is None:
            raise NoPaymentError(HOLD_ASKED)
        outcome: Outcome = Unknown("not asked")
        for _ in range(PREPARED_MAX):
            async with self._database.reading(CollectionStore) as store:
                row = (await store.read_debits([key[0]]))[key]
            outcome = await self._payment(row, debit)
            async with self._database.transaction(CollectionStore) as store:
                debit = (await self.hear(store, [(key, PaymentAnswered(debit.provider_key, outcome))]))[key]
                if isinstance(outcome, NeedsRider) and row.hold_ref is not None and debit.attempts:
                    await store.keep_numbers([(debit, order_number("hold_ref", row.hold_ref))])
            if not isinstance(outcome, Prepared):
                break
        if not isinstance(outcome, NeedsRider) or debit.action is None:
            raise NoPaymentError(outcome)
        return debit

    async def _wanted(self, key: DebitKey) -> Debit:
        """The intent; where he pays by confirming a hold, what he is shown is good now: asked about, or made anew."""
        async with self._database.reading(CollectionStore) as store:
            debit = (await store.read_debits([key[0]]))[key].debit
        if not waits_for_hold(debit) or self._look_at_hold is None:
            return (await self.happen([(key, PaymentWanted())]))[key]
        for _ in range(HOLDS_LOOKED_AT):
            await self._look_at_hold(debit.session_key, debit.slot)
            debit = (await self.happen([(key, PaymentWanted())]))[key]
            if not waits_for_hold(debit) or debit.action is not None:
                break
        return debit

    async def refund_again(self, key: DebitKey) -> bool:
        """Begins what is owed back of the debit's ride and does not come: refunds that wait are due now; what is not on
        its way is netted anew: less is asked for where something is unpaid, and the rest is a refund of its own with a
        key of its own (the one that failed, or came back, moved nothing in the end).

        False, and nothing is changed, where nothing is owed back or its provider takes no refund any more. Raises
        KeyError for no such debit.
        """
        async with self._database.transaction(CollectionStore) as store:
            rows = await store.lock_debits(key[:1])
            known, book = await store.lock_refunds(key[:1]), Book(self._now())
            rows[key]  # It is there.
            for (ride_no, ordinal, _), row in known.items():
                about = rows[ride_no, ordinal]
                book.refund_happen(row.refund, about.debit, RetryAsked(), context(self._providers, about))
            await net_rides(store, self._providers, book, key[:1])
            refunds = (*(row.refund for row in known.values()), *book.refunds_opened)
            still = all(refund.state in REFUND_FINAL or refund.state is RefundState.MANUAL for refund in refunds)
            if still and not any(_asks_less(rows[number].debit, debit) for number, debit in book.changed.items()):
                return False
            await keep(store, self._providers, book, rows, known, self._machine_now(), WRITER, {})
            return True

    async def decide_refund(self, key: RefundKey, decision: RefundDecided) -> bool:
        """The way out of a refund's MANUAL: what its provider's books say. What was not given back is netted anew.

        False, and nothing is changed, where it is not manual or more was given back than it asks for. Raises KeyError
        for no such refund.
        """
        async with self._database.transaction(CollectionStore) as store:
            rows = await store.lock_debits(key[:1])
            known, book, about = await store.lock_refunds(key[:1]), Book(self._now()), rows[key[:2]]
            refund = known[key].refund
            if book.refund_happen(refund, about.debit, decision, context(self._providers, about)) == refund:
                return False
            await keep(store, self._providers, book, rows, known, self._machine_now(), WRITER, {})
            return True

    async def given_back(self, key: DebitKey, given: GivenBack) -> None:
        """Books what was given back outside of a debit: no more than is the rider's by what his ride owes, and on no
        way to him, so that nothing is given back twice; the same amount for the same reason is booked once, though it
        be said twice at one moment.

        Raises RefundRefusedError for more, ImpossibleEventError for a debit that is not over, KeyError for none.
        """
        async with self._database.transaction(CollectionStore) as store:
            rows = await store.lock_debits(key[:1])
            debit, about = rows[key].debit, context(self._providers, rows[key])
            if await store.in_life(key, given_back_text(given, debit.currency)):
                return
            owing = await store.rides_owing(key[:1])
            owed = owed_back_minor(sum(ride.owed_minor for ride in owing), [row.debit for row in rows.values()], debit)
            if debit.state in FINAL and given.amount_minor > owed:
                told = f"only {format_amount(owed, debit.currency)} of it is" if owed else "nothing of it is"
                on_its_way = ", beside what a refund may still bring him" if debit.refunding_minor else ""
                raise RefundRefusedError(f"{told} still to go back to the rider{on_its_way}")
            if given.refund is not None and not await UnorderedStore(store.connection).book(
                debit.account_no, given.refund, key, given.amount_minor, self._now()
            ):
                raise RefundRefusedError(f"no refund {given.refund} of it waits to be booked with this amount")
            book = Book(self._now())
            book.happen(debit, given, about)
            await keep(store, self._providers, book, rows, {}, self._machine_now(), WRITER, {})

    async def _payment(self, row: DebitRow, debit: Debit) -> Outcome:
        provider = self._providers[debit.account_no]
        request = replace(debit_request(provider, row, debit), payable_until=debit.payable_until)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                ask = partial(provider.request_payment, request)
                return await let_in(self._accounts, debit.account_no, ask)
        except TimeoutError:
            return Unknown("no answer in time")

    async def _refunds_noticed(self, account_no: int, key: str, outcome: Outcome, payment: str | None) -> bool:
        async with self._database.transaction(CollectionStore) as store:
            known = await store.refunds_by_provider_key(key, account_no)
            if not known:
                return await self._unordered(store, account_no, key, outcome, payment)
            again = isinstance(outcome, Succeeded)  # A repeated notification is the rule.
            refunds: list[RefundKey] = [
                number
                for number, state in known.items()
                if state not in UNPAID and not (again and state == RefundState.SUCCEEDED)
            ]
            rides = {ride_no for ride_no, _, _ in refunds}
            book, rows = Book(self._now()), await store.lock_debits(rides)
            refund_rows = await store.lock_refunds(rides)
            for number in refunds:
                row, refund = rows[number[:2]], refund_rows[number].refund
                book.refund_happen(refund, row.debit, Notified(key, outcome), context(self._providers, row))
            await keep(store, self._providers, book, rows, refund_rows, self._machine_now(), WRITER, {})
            return True

    async def _unordered(
        self, store: CollectionStore, account_no: int, key: str, outcome: Outcome, payment: str | None
    ) -> bool:
        """Keeps that a refund which nobody here ordered has given back of a payment of ours, or has come to nothing, so
        that what was booked of it is owed again; False: it is not ours."""
        if payment is None or not isinstance(outcome, Succeeded | Unknown | Declined | Closed):
            return False
        debits = await store.debits_by_provider_ref(payment, account_no)
        if isinstance(outcome, Declined | Closed):
            for debit in debits[:1]:
                await self._unordered_failed(store, account_no, key, debit, payment)
            return bool(debits)
        amount_minor = outcome.amount_minor if isinstance(outcome, Succeeded) else None
        for debit in debits[:1]:
            if await UnorderedStore(store.connection).keep(account_no, key, debit, payment, amount_minor, self._now()):
                named = {"debit": debit_id(*debit), "refund": key, "amount_minor": amount_minor}
                LOG.error("a refund that nobody here ordered", account_no=account_no, **named)
                UNORDERED.inc()
        return bool(debits)

    async def _unordered_failed(
        self, store: CollectionStore, account_no: int, key: str, debit: DebitKey, payment: str
    ) -> None:
        await store.lock_debits(debit[:1])  # Before its refund, as whoever books it does.
        booked = await UnorderedStore(store.connection).fail(account_no, key, debit, payment, self._now())
        if booked:
            LOG.error("a refund of the console's has come to nothing", account_no=account_no, debit=debit_id(*debit))
            await self.hear(store, [(debit, GivenBackFailed(booked, key))])
