"""Disputes as providers tell them: of a debit by a number that may not be known here yet."""

from __future__ import annotations

from datetime import timedelta

from service.adapters.postgres.collection import CollectionStore, DebitKey
from service.adapters.postgres.unheard import UnheardStore
from service.adapters.providers.port import DisputeStatus
from service.billing.debits.disputes import known_dispute
from service.billing.debits.events import DebitEvent, DisputeClosed, DisputeOpened, ImpossibleEventError, Told
from service.billing.debits.state import Debit
from service.flows.collection.apart import Key, one_at_a_time
from service.flows.collection.hearing import Hearing, order_number
from service.telemetry import logger

LOG = logger("collection")
LOOK_AGAIN = timedelta(minutes=1)
"""How soon a dispute's debit is looked for again; twice as late each time, up to a quarter of a day."""
LOOK_AGAIN_MAX = timedelta(hours=6)
GIVE_UP_AFTER = timedelta(days=30)
"""So long after it was told first, a dispute is about no debit of ours; longer than any outcome stays unknown."""
UNHEARD_MAX = 100


class Disputing(Hearing):
    """Disputes reach their debits, now or once these are known."""

    async def disputed(self, account_no: int, status: DisputeStatus) -> bool:
        """Takes in what a verified notification says of a dispute; False when no debit is called so.

        Then it is kept and looked for again (`hear_unheard`): the answer that names the number may be lost or not saved
        yet, or the ride whose order is named is not over. One that is over is not opened again by news of its opening:
        repeated and reversed news end in the same state; another one, by its number, is booked beside it. A complaint
        that becomes a chargeback, or is followed by one, is resolved, and the chargeback opened. What can't be is only
        logged.
        """
        async with self._database.transaction(CollectionStore) as store:
            unheard, believed = UnheardStore(store.connection), await self._tell(store, account_no, status)
            if believed is None:
                await unheard.keep(account_no, status, self._now())
            else:
                await unheard.forget(account_no, status)
        return bool(believed)

    async def hear_unheard(self, account_no: int) -> int:
        """Looks again for the debits of disputes that were told too early; returns how many are known now."""
        now = self._now()
        async with self._database.transaction(CollectionStore) as store:
            unheard = UnheardStore(store.connection)
            due = await unheard.due(account_no, now, UNHEARD_MAX)
            known: set[Key] = set()

            async def tell(key: Key) -> None:
                assert isinstance(key, int)
                if await self._tell(store, account_no, due[key].status) is not None:
                    known.add(key)

            await one_at_a_time(store, range(len(due)), tell)
            for key, news in enumerate(due):
                if key not in known and now < news.created_at + GIVE_UP_AFTER:
                    wait = min(LOOK_AGAIN * 2 ** min(news.asks, 9), LOOK_AGAIN_MAX)
                    await unheard.later(account_no, news.status, now + wait)
                    continue
                if key not in known:
                    LOG.error("a dispute about no debit of ours", account_no=account_no, kind=news.status.kind)
                await unheard.forget(account_no, news.status)
        return len(known)

    async def _tell(self, store: CollectionStore, account_no: int, status: DisputeStatus) -> bool | None:
        """Whether what is told can be; None: of no debit that is known."""
        numbers = await _debits(store, account_no, status)
        rows = await store.lock_debits(ride_no for ride_no, _ in numbers)
        believed = True if numbers else None
        for key in numbers:
            events: list[tuple[DebitKey, DebitEvent]] = [(key, event) for event in _news(rows[key].debit, status)]
            try:
                async with store.connection.transaction():
                    await self.hear(store, events)
            except ImpossibleEventError as error:
                LOG.warning("dispute not believed", account_no=account_no, error=str(error))
                believed = False
        return believed


async def _debits(store: CollectionStore, account_no: int, status: DisputeStatus) -> list[DebitKey]:
    """Which debits a dispute is about: by the provider's number, else by ours.

    An order is only looked for while it runs: the debit that goes through it is remembered by its name, so that the
    dispute's end finds the same one.
    """
    named = await store.debits_by_provider_ref(status.debit_ref, account_no) if status.debit_ref else []
    if named or not status.key:
        return named
    if status.named_by == "key":
        return list(await store.debits_by_provider_key(status.key, account_no))
    order = order_number(status.named_by, status.key)
    known = await store.debits_by_provider_ref(order, account_no)
    if known:
        return known
    found = list(await store.debits_by_hold(status.key, account_no, by_ref=status.named_by == "hold_ref"))
    rows = await store.read_debits(ride_no for ride_no, _ in found)
    await store.keep_numbers([(rows[key].debit, order) for key in found])
    return found


def _news(debit: Debit, status: DisputeStatus) -> list[DebitEvent]:
    """What is told of a dispute; the rules leave what the debit knows already. Said in another currency than the
    debit's (a bank's own), its amount says nothing here: all of the debit is disputed then. Nor does such a fee."""
    told = Told(status.provider_ref, status.told_at, status.moved_minor, status.state != "opened")
    amount_minor = status.amount_minor if status.currency == debit.currency else None
    fee_minor = status.fee_minor if status.fee_currency == debit.currency else None
    events: list[DebitEvent] = []
    if status.kind == "chargeback" and not known_dispute(debit, "chargeback", told):
        complaints = [one for one in debit.disputes if one.kind == "complaint" and one.state == "opened"]
        if debit.dispute == "complaint":
            events += [DisputeClosed("resolved") for _ in complaints]
        else:  # Beside another chargeback: the inquiry that has become this one.
            became = [one for one in complaints if one.ref is not None and one.ref == told.ref]
            events += [DisputeClosed("resolved", None, Told(one.ref, None)) for one in became]
    events.append(DisputeOpened(status.kind, amount_minor, fee_minor, told))
    if status.state != "opened":
        events.append(DisputeClosed(status.state, fee_minor, told))
    return events
