"""Bugs that are planted on purpose, and where worlds find them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace
from sim_profiles import Focus
from sim_run import Result, run_worlds

from service.adapters import postgres
from service.adapters.postgres import collection as stored_collection
from service.adapters.postgres.rides import RideStore
from service.adapters.providers import sandbox_notices
from service.adapters.providers.port import DisputeStatus
from service.billing import adjustments, batch, debits, ledger, sessions
from service.billing.balances import Balance
from service.billing.debits import (
    answers,
    disputes,
    events,
    money,
    obligations,
    payments,
    refunds,
    truth,
    wishes,
)
from service.billing.debits.events import DisputeOpened, Due, LeaseOver, OwedChanged
from service.billing.debits.state import Debit, State, Terms
from service.billing.outcomes import Declined, Succeeded
from service.flows import collection, hold_calls, hold_replies, holds, intake
from service.flows.collection import calls, disputing
from service.flows.intake import preparing
from service.lab.provider.faults import Rates

Plant = Callable[[pytest.MonkeyPatch], None]


def another_key_while_unknown(patch: pytest.MonkeyPatch) -> None:
    right = debits._due

    def due(debit: Debit, event: Due | LeaseOver, now: datetime, terms: Terms) -> Any:
        if debit.state is State.UNKNOWN and terms.capabilities.new_key_after_decline and not debit.paid_minor:
            return debits._begin(replace(debit, state=State.RETRY_WAIT), now, terms)
        return right(debit, event, now, terms)

    patch.setitem(debits._HANDLERS, Due, due)


def a_key_for_each_call(patch: pytest.MonkeyPatch) -> None:
    """As if the key were made at the call, and not stored before it."""
    right, made = calls.debit_request, iter(range(1_000_000))
    patch.setattr(calls, "debit_request", lambda *about: replace(right(*about), key=f"K{next(made)}"))


def an_unknown_outcome_counts_as_declined(patch: pytest.MonkeyPatch) -> None:
    right = answers.on_submitted

    def on_submitted(debit: Debit, outcome: Any, now: datetime, terms: Terms) -> Any:
        lost = type(outcome).__name__ == "Unknown"
        return right(debit, Declined(True, "LOST") if lost else outcome, now, terms)

    patch.setattr(debits, "on_submitted", on_submitted)


def not_found_once_counts_as_declined(patch: pytest.MonkeyPatch) -> None:
    def not_found(debit: Debit, now: datetime) -> Debit:
        return replace(debit, state=State.RETRY_WAIT, reason="not found", due_at=now)

    patch.setattr(answers, "_not_found", not_found)


def notifications_are_believed_unsigned(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sandbox_notices, "_distrust", lambda *_: None)


def what_was_paid_twice_is_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(money, "_twice", lambda debit, *_: (replace(debit, state=State.SETTLED_TWICE), ()))


def news_of_money_counts_each_time(patch: pytest.MonkeyPatch) -> None:
    right = money.take_money

    def take_money(debit: Debit, *about: Any) -> Any:
        return right(replace(debit, receipts=()), *about)

    for place in (answers, payments, truth, wishes):
        patch.setattr(place, "take_money", take_money)


def refunds_are_not_booked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ledger, "refund_transfers", lambda *_: ())


def a_batch_that_owes_is_skipped(patch: pytest.MonkeyPatch) -> None:
    query = postgres.QUERIES["batches_owing"]
    patch.setitem(postgres.QUERIES, "batches_owing", query.replace("b.seq > cursors.seq", "b.seq > cursors.seq + 1"))


def leases_are_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    query = postgres.QUERIES["claim_debits"]
    held = "(d.lease_until IS NULL OR d.lease_until <= $3)"
    assert held in query
    patch.setitem(postgres.QUERIES, "claim_debits", query.replace(held, "$3::timestamptz IS NOT NULL"))
    patch.setattr(collection, "_taken", lambda _: Due())


def an_end_that_comes_first_is_ignored(patch: pytest.MonkeyPatch) -> None:
    right = batch.advance

    def advance(known: Any, arrivals: list[Any], *about: Any) -> Any:
        left = [one for one in arrivals if one.key in known or one.event.kind != "ended"]
        return right(known, left, *about)

    patch.setattr(intake, "advance", advance)


def an_offset_is_committed_before_the_rows(patch: pytest.MonkeyPatch) -> None:
    """In a transaction of its own, as a client that commits by itself would."""
    right = intake.Intake._write

    async def write(self: Any, writer: Any, prepared: Any) -> Any:
        streams = self._streams
        async with writer.connection.transaction():
            await writer.move(streams.group, streams.topic, prepared.moved, prepared.now, prepared.machine_at)
        with patch.context() as within:
            within.setattr(writer, "move", _nothing, raising=False)
            return await right(self, writer, prepared)

    patch.setattr(intake.Intake, "_write", write)


async def _nothing(*_: Any) -> None:
    """The offsets are moved already."""


def the_fence_does_not_compare(patch: pytest.MonkeyPatch) -> None:
    """Neither the offset nor the number of the batch."""
    query, compared = postgres.QUERIES["move_offsets"], " AND s.next_offset = n.expected_offset"
    assert compared in query
    patch.setitem(postgres.QUERIES, "move_offsets", query.replace(compared, ""))
    for name in ("append_stream_batches", "append_stream_facts"):
        patch.setitem(postgres.QUERIES, name, postgres.QUERIES[name] + " ON CONFLICT DO NOTHING")


def a_duplicate_is_known_for_an_hour(patch: pytest.MonkeyPatch) -> None:
    right = sessions.take

    def take(session: Any, event: Any) -> Any:
        since = event.position.offset - 2
        short = tuple(one for one in session.counted if one.kind != "corrected" or one.position.offset > since)
        taken = right(replace(session, counted=short), event)
        return (replace(session, counted=(*session.counted, event)), "counted") if taken[1] == "counted" else taken

    patch.setattr("service.billing.batch.take", take)


def goodwill_is_given_twice(patch: pytest.MonkeyPatch) -> None:
    """As if its id were not looked for."""
    right = adjustments.adjust

    def adjust(ride: Any, adjustment: Any, now: datetime) -> Any:
        again = replace(adjustment, adjustment_id=f"{adjustment.adjustment_id}-{ride.revision}")
        return right(ride, again if adjustment.kind == "goodwill" else adjustment, now)

    patch.setattr("service.flows.decisions.adjust", adjust)


def a_correction_downward_is_not_netted(patch: pytest.MonkeyPatch) -> None:
    right = obligations.net

    def net(owed_minor: int, made: Any, *about: Any) -> Any:
        return right(max(owed_minor, sum(debit.amount_minor for debit in made)), made, *about)

    patch.setattr("service.billing.debits.collecting.net", net)


def what_is_owed_is_rounded(patch: pytest.MonkeyPatch) -> None:
    query = postgres.QUERIES["rides_owing"]
    assert "sum(amount_minor)::bigint" in query
    rounded = query.replace("sum(amount_minor)::bigint", "round(sum(amount_minor), -2)::bigint")
    patch.setitem(postgres.QUERIES, "rides_owing", rounded)


def a_refund_that_came_back_is_not_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(refunds, "_told_after_all", lambda refund, *_: refund)


def refunds_under_way_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    right = obligations.covered_minor
    patch.setattr(obligations, "covered_minor", lambda debit: right(replace(debit, refunding_minor=0)))


def what_is_pending_covers_nothing(patch: pytest.MonkeyPatch) -> None:
    right = obligations.covered_minor
    patch.setattr(obligations, "covered_minor", lambda debit: 0 if debit.state is State.PENDING else right(debit))


def a_chargeback_that_is_won_is_not_booked(patch: pytest.MonkeyPatch) -> None:
    right = ledger.chargeback_transfers
    patch.setattr(ledger, "chargeback_transfers", lambda *about, won: () if won else right(*about, won=won))


def a_chargeback_is_booked_each_time_it_is_told(patch: pytest.MonkeyPatch) -> None:
    right = disputes.dispute_opened
    patch.setattr(disputing, "_news", lambda _, status: [DisputeOpened(status.kind, status.amount_minor)])
    fresh = {"dispute": None, "disputes": (), "disputed_minor": 0}
    patch.setitem(debits._HANDLERS, DisputeOpened, lambda debit, *about: right(replace(debit, **fresh), *about))


def another_amount_is_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(truth, "_can_be", lambda *_: True)


def what_is_unknown_is_never_asked(patch: pytest.MonkeyPatch) -> None:
    right = answers.unknown

    def unknown(*about: Any) -> Debit:
        return replace(right(*about), due_at=None)

    for place in (debits, answers):
        patch.setattr(place, "unknown", unknown)


def what_was_asked_is_booked_not_what_came(patch: pytest.MonkeyPatch) -> None:
    right = events.Post

    def post(fact: Any, amount_minor: int, *more: Any) -> Any:
        return right(fact, amount_minor + 100 if fact == "settlement" else amount_minor, *more)

    patch.setattr(money, "Post", post)


def less_owed_of_what_is_pending_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    right = wishes.owed_changed

    def owed_changed(debit: Debit, *about: Any) -> Any:
        return (debit, ()) if debit.state is State.PENDING else right(debit, *about)

    patch.setitem(debits._HANDLERS, OwedChanged, owed_changed)


def an_unknown_refund_counts_as_made(patch: pytest.MonkeyPatch) -> None:
    right = refunds._submitted

    def submitted(refund: Any, outcome: Any, now: datetime) -> Any:
        lost = type(outcome).__name__ == "Unknown"
        return refunds._succeeded(refund, Succeeded(refund.amount_minor), now) if lost else right(refund, outcome, now)

    patch.setattr(refunds, "_submitted", submitted)


def a_hold_is_asked_for_twice(patch: pytest.MonkeyPatch) -> None:
    """As if what became of the first were not asked, and the second had a key of its own."""

    async def again(provider: Any, row: Any, _: Any) -> Any:
        request = hold_calls._request(row)
        return await provider.open_hold(replace(request, key=f"{request.key[:-1]}Z"))

    patch.setattr(hold_calls, "_look_or_open", again)


def what_is_above_a_cap_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    right = answers._cut
    patch.setattr(answers, "_cut", lambda *about: replace(right(*about), net_again=False))


def every_clock_is_believed(patch: pytest.MonkeyPatch) -> None:
    """A record's timestamp is its producer's word."""

    def believed(tail: Any, _: object, at: datetime, clock: Any) -> datetime:
        read_through_at: datetime = min(clock.at_ms(tail.timestamp_ms), at)
        return read_through_at

    patch.setattr(preparing, "_read_through", believed)


def a_hold_unlocks_until_it_is_paid(patch: pytest.MonkeyPatch) -> None:
    for place in (holds, hold_replies):
        patch.setattr(place, "BEFORE_ITS_END", frozenset({None, "open", "closed", "voided"}))


def what_a_cap_left_at_first_counts(patch: pytest.MonkeyPatch) -> None:
    """For a re-rate, too, whatever other rides have used since."""
    right = batch._balance

    def balance(ride: Any, *about: Any) -> Any:
        uses = right(ride, *about).uses
        before = {} if ride.charge is None else {use.window: use for use in ride.charge.charge.balance.uses}
        return Balance(tuple(before.get(use.window, use) for use in uses))

    patch.setattr(batch, "_balance", balance)


def a_cap_is_looked_at_without_a_lock(patch: pytest.MonkeyPatch) -> None:
    """Another intake may be writing what it has used of it."""
    right = RideStore.lock_balances
    read = "SELECT used FROM balance WHERE (operator_no, rider_no, balance_window) = ($1, $2, $3)"

    async def unlocked(self: RideStore, keys: Any) -> Any:
        held = {key: await self.connection.fetchval(read, *key) or Decimal(0) for key in keys}
        await right(self, keys)
        return held

    patch.setattr(RideStore, "lock_balances", unlocked)


def a_chargeback_takes_no_more_than_the_rider_has_not_back(patch: pytest.MonkeyPatch) -> None:
    """Whatever the provider says that he has moved, and when."""
    right = disputing._news

    def clamped(debit: Debit, status: DisputeStatus) -> Any:
        left = max(debit.paid_minor - debit.refunded_minor, 0)
        moved = None if status.moved_minor is None else min(status.moved_minor, left)
        return right(debit, replace(status, moved_minor=moved))

    patch.setattr(disputing, "_news", clamped)


def a_hold_is_anybodys(patch: pytest.MonkeyPatch) -> None:
    """Of the ride that it was asked for, whoever rides."""
    right = stored_collection._debit_row

    def debit_row(row: Any) -> Any:
        found: Any = {**row, "hold_agreement_no": row["agreement_no"]}
        return right(found)

    patch.setattr(stored_collection, "_debit_row", debit_row)


LOSING = Rates(lost=0.3, truncated=0.1, error_after=0.1)
LAGGING = Rates(lost=0.4, query_lag=0.5)
CARDS = ("card", "slow card", "chargeback card")


class Planted(NamedTuple):
    """The first seed at which a bug shows in worlds that are about this; the seeds of all of them anew:
    `python tests/simulation/simulate.py --plants`."""

    first: int
    focus: Focus


PLANTS: dict[Plant, Planted] = {
    another_key_while_unknown: Planted(8, Focus(("correct",), CARDS, LOSING)),
    a_key_for_each_call: Planted(1, Focus((), CARDS, LOSING)),
    an_unknown_outcome_counts_as_declined: Planted(11, Focus((), CARDS, LOSING)),
    not_found_once_counts_as_declined: Planted(60, Focus((), CARDS, LAGGING)),
    notifications_are_believed_unsigned: Planted(3, Focus(("forge",), ("slow card", "order", "parts"))),
    what_was_paid_twice_is_kept: Planted(10, Focus(("elsewhere", "pay"), ("order",), quiet=True)),
    news_of_money_counts_each_time: Planted(2, Focus((), ("parts",), Rates(partial=0.8, notify_twice=0.3))),
    refunds_are_not_booked: Planted(1, Focus(("correct", "void"))),
    a_batch_that_owes_is_skipped: Planted(1, Focus()),
    leases_are_not_looked_at: Planted(22, Focus((), ("forgetful card",), quiet=True)),
    an_end_that_comes_first_is_ignored: Planted(4, Focus((), CARDS, quiet=True)),
    an_offset_is_committed_before_the_rows: Planted(5, Focus((), CARDS)),
    the_fence_does_not_compare: Planted(2, Focus((), CARDS, freeze=0.05)),
    a_duplicate_is_known_for_an_hour: Planted(3, Focus(("correct",), CARDS, quiet=True)),
    goodwill_is_given_twice: Planted(5, Focus(("adjust",), CARDS)),
    a_correction_downward_is_not_netted: Planted(1, Focus(("correct",), CARDS, quiet=True)),
    what_is_owed_is_rounded: Planted(2, Focus((), CARDS, quiet=True)),
    a_refund_that_came_back_is_not_believed: Planted(2, Focus(("correct", "void"), ("chargeback card",))),
    refunds_under_way_are_forgotten: Planted(7, Focus(("correct",), ("chargeback card",), quiet=True)),
    what_is_pending_covers_nothing: Planted(4, Focus(("correct",), ("slow card",), quiet=True)),
    a_chargeback_that_is_won_is_not_booked: Planted(3, Focus(("dispute",), ("chargeback card",), quiet=True)),
    a_chargeback_is_booked_each_time_it_is_told: Planted(
        2, Focus(("dispute",), ("chargeback card",), Rates(notify_twice=0.9))
    ),
    another_amount_is_believed: Planted(1, Focus(("lie",), ("slow card",), quiet=True)),
    what_is_unknown_is_never_asked: Planted(2, Focus((), CARDS, LOSING)),
    what_was_asked_is_booked_not_what_came: Planted(2, Focus((), CARDS, quiet=True)),
    less_owed_of_what_is_pending_is_forgotten: Planted(1, Focus(("correct", "void"), ("slow card",), quiet=True)),
    an_unknown_refund_counts_as_made: Planted(
        3, Focus(("correct", "void"), ("chargeback card",), Rates(error_before=0.6))
    ),
    a_hold_is_asked_for_twice: Planted(13, Focus((), ("order", "credit order"), LOSING)),
    what_is_above_a_cap_is_forgotten: Planted(7, Focus((), CARDS, quiet=True, cap_minor=300)),
    every_clock_is_believed: Planted(1, Focus((), CARDS)),
    a_hold_unlocks_until_it_is_paid: Planted(40, Focus((), ("order", "credit order"))),
    what_a_cap_left_at_first_counts: Planted(3, Focus(("correct",), CARDS, quiet=True, capped=True)),
    a_cap_is_looked_at_without_a_lock: Planted(55, Focus((), CARDS, capped=True)),
    a_chargeback_takes_no_more_than_the_rider_has_not_back: Planted(
        5, Focus(("dispute", "correct", "correct"), ("chargeback card",))
    ),
    a_hold_is_anybodys: Planted(6, Focus((), ("Zhima", "Alipay pre-authorisation"), quiet=True, slips=0.9)),
}


def searched(url: str, plant: Plant, seeds: range) -> Result:
    """The worlds of these seeds with the bug, up to the first that fails."""
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        return run_worlds(url, seeds, focus=PLANTS[plant].focus)
