"""Debits that are opened are watched: a run of unusually high ones stops their tariff's debits, and says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.adapters.postgres.collection import CollectionStore
from service.adapters.postgres.stops import StopStore
from service.billing.debits.collecting import Book
from service.billing.debits.dunning import Calendar
from service.billing.debits.state import Debit, State
from service.billing.debits.unusual import LOOK_BACK, Usual, hour_of, limit_minor
from service.telemetry import STOPS, logger

LOG = logger("collection")
BY = "farebox"


async def watch(store: CollectionStore, book: Book, calendars: Mapping[int, Calendar]) -> None:
    """Counts what a book opened, in its own transaction; `calendars` are those of the operators concerned.

    Rides go on being charged: only what was not sent yet waits until somebody resumes it.
    """
    opened: dict[int, list[Debit]] = {}
    for debit in book.opened:
        if debit.tariff_no is not None and debit.state in (State.NEW, State.NEEDS_RIDER):
            opened.setdefault(debit.tariff_no, []).append(debit)
    if not opened:
        return
    stops, hour_at = StopStore(store.connection), hour_of(book.now)
    known = await stops.usual(sorted(opened), hour_at, hour_at - LOOK_BACK)
    limits = {
        tariff_no: limit_minor(Usual(*known.get(tariff_no, (0, 0))), calendars[debits[0].operator_no])
        for tariff_no, debits in opened.items()
    }
    counts = [(no, len(debits), _sum(debits), _high(debits, limits[no])) for no, debits in sorted(opened.items())]
    high = await stops.count_debits(hour_at, counts)
    for tariff_no, count in high.items():
        operator_no = opened[tariff_no][0].operator_no
        if count and count >= calendars[operator_no].stop_run:
            reason = f"{count} debits above {limits[tariff_no]} in one hour"
            if await stops.add_stop(operator_no, None, tariff_no, "debits", reason, BY, book.now) is not None:
                STOPS.labels("debits").inc()
                LOG.error("debits of a tariff are stopped", operator_no=operator_no, tariff_no=tariff_no, reason=reason)


def _sum(debits: Sequence[Debit]) -> int:
    return sum(debit.amount_minor for debit in debits)


def _high(debits: Sequence[Debit], limit: int | None) -> int:
    return 0 if limit is None else sum(debit.amount_minor > limit for debit in debits)
