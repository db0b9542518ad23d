"""After a restore: what providers know of rides that the database has forgotten, so that a person can do it again.

What the service did by itself in the lost time comes back by itself: the rides are read from the topic, their keys are
the same, and each is asked about before it is used. What people did (adjustments, corrections, refunds) is in no topic:
the provider's answers to the keys that it would have used say that it was done, and to which ride.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec.structs import replace

from service.adapters.postgres import Database
from service.adapters.postgres.collection import CollectionStore, DebitRow
from service.adapters.providers.port import Provider, RefundRef
from service.billing.debits.state import Debit, debit_id
from service.billing.keys import provider_key
from service.billing.outcomes import Accepted, Closed, Declined, NeedsRider, NotFound, Outcome, Prepared, Succeeded
from service.flows.collection.calls import debit_ref

RIDES_MAX = 500
"""Rides that are read at a time."""


class Lost(msgspec.Struct, frozen=True):
    """What a provider says and our books do not: `told_minor` there, `known_minor` here, in the currency's minor units.

    "taken": under a debit's key · "given back": under a refund's · "no answer": he could not be asked about a key.
    """

    operator_id: str
    session_id: str
    debit_id: str
    what: Literal["taken", "given back", "no answer"]
    key: str
    told_minor: int
    known_minor: int
    currency: str


class NotAsked(msgspec.Struct, frozen=True):
    """A merchant account that is not open here (its secrets are elsewhere), so that `rides` were not asked about."""

    operator_id: str
    account_id: str
    rides: int


async def lost_time(
    database: Database, providers: Mapping[int, Provider], since_ride_no: int = 0
) -> AsyncIterator[Lost | NotAsked]:
    """Asks about every ride from a number on that has debits, in its order; changes nothing, keeps one page in memory.

    Accounts that could not be asked come last. To be read when nothing of the restored time is under way any more: what
    is still asked about is told as lost.
    """
    after = since_ride_no - 1
    unasked: Counter[tuple[str, str]] = Counter()
    while True:
        async with database.reading(CollectionStore) as store:
            rides = await store.rides_debited(after, RIDES_MAX)
            rows = await store.read_debits(rides)
        for ride_no in rides:
            own = [row for (number, _), row in sorted(rows.items()) if number == ride_no]
            provider = providers.get(own[0].debit.account_no)
            if provider is None:
                unasked[own[0].operator_id, own[0].account_id] += 1
                continue
            async for lost in _of_ride(provider, own):
                yield lost
        if len(rides) < RIDES_MAX:
            break
        after = rides[-1]
    for account, count in sorted(unasked.items()):
        yield NotAsked(*account, count)


async def _of_ride(provider: Provider, rows: Sequence[DebitRow]) -> AsyncIterator[Lost]:
    for row in rows:
        debit = row.debit
        for attempt in range(debit.attempts + 1 if provider.capabilities.new_key_after_decline else 1):
            async for lost in _taken(provider, row, debit, attempt):
                yield lost
        async for lost in _given_back(provider, row):
            yield lost
    last = rows[-1].debit
    further = replace(last, ordinal=last.ordinal + 1, receipts=(), attempts=0, provider_ref=None)
    async for lost in _taken(provider, rows[-1], further, 0):
        yield lost


async def _taken(provider: Provider, row: DebitRow, debit: Debit, attempt: int) -> AsyncIterator[Lost]:
    """Whether more was taken under the key of an attempt than is known."""
    key = provider_key(debit.session_key.bytes, "debit", debit.ordinal, attempt)
    known = sum(receipt.amount_minor for receipt in debit.receipts if receipt.key == key)
    present = replace(debit, provider_key=key, provider_ref=debit.provider_ref if key == debit.provider_key else None)
    answer = await provider.get_debit(debit_ref(provider, row, present))
    told = answer.amount_minor if isinstance(answer, Succeeded) else 0
    if told != known or not _said(answer):
        yield _lost(row, debit, "taken" if _said(answer) else "no answer", key, told, known)


async def _given_back(provider: Provider, row: DebitRow) -> AsyncIterator[Lost]:
    """Refunds after those that are known, as far as there are any, against each receipt's payment."""
    debit = row.debit
    if not debit.receipts:
        return
    receipt = debit.receipts[-1]
    paid = debit_ref(provider, row, replace(debit, provider_key=receipt.key, provider_ref=receipt.provider_ref))
    number = debit.refunds + 1
    while True:
        key = provider_key(debit.session_key.bytes, "refund", debit.ordinal * 1000 + number)
        answer = await provider.get_refund(RefundRef(key, paid))
        if isinstance(answer, NotFound):
            return
        told = answer.amount_minor if isinstance(answer, Succeeded) else 0
        yield _lost(row, debit, "given back" if _said(answer) else "no answer", key, told, 0)
        if not _said(answer):
            return
        number += 1


def _said(answer: Outcome) -> bool:
    """Whether the provider said what became of a key; one that was declined or closed moved nothing."""
    return isinstance(answer, Succeeded | Accepted | NotFound | Declined | Closed | NeedsRider | Prepared)


def _lost(
    row: DebitRow,
    debit: Debit,
    what: Literal["taken", "given back", "no answer"],
    key: str,
    told_minor: int,
    known_minor: int,
) -> Lost:
    named = debit_id(debit.ride_no, debit.ordinal)
    return Lost(row.operator_id, debit.session_id, named, what, key, told_minor, known_minor, debit.currency)
