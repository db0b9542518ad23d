"""Bugs planted on purpose: a simulation that doesn't find them finds nothing."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest
from msgspec.structs import replace
from sim_profiles import Focus
from sim_run import run_worlds
from sim_world import WorldError

from service.adapters import postgres
from service.adapters.providers import sandbox_notices
from service.billing import debits, ledger
from service.billing.debits import answers, money, truth, wishes
from service.billing.debits.events import Due, LeaseOver
from service.billing.debits.state import Debit, State, Terms
from service.billing.outcomes import Declined
from service.flows.collection import calls
from service.lab.provider.faults import Rates
from service.lab.servers import Servers

SEEDS = 30
"""Within so many worlds each of them must show."""

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

    for place in (debits, answers, truth, wishes):
        patch.setattr(place, "take_money", take_money)


def refunds_are_not_booked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ledger, "refund_transfers", lambda *_: ())


def a_batch_that_owes_is_skipped(patch: pytest.MonkeyPatch) -> None:
    query = postgres.QUERIES["batches_owing"]
    patch.setitem(postgres.QUERIES, "batches_owing", query.replace("b.seq > cursors.seq", "b.seq > cursors.seq + 1"))


LOSING = Rates(lost=0.3, truncated=0.1, error_after=0.1)
LAGGING = Rates(lost=0.2, drop=0.1, query_lag=0.4)
CARDS = ("card", "slow card", "chargeback card")
PLANTS: dict[Plant, Focus] = {
    another_key_while_unknown: Focus(("correct",), CARDS, LOSING),
    a_key_for_each_call: Focus((), CARDS, LOSING),
    an_unknown_outcome_counts_as_declined: Focus((), CARDS, LOSING),
    not_found_once_counts_as_declined: Focus((), CARDS, LAGGING),
    notifications_are_believed_unsigned: Focus(("forge",), ("slow card", "order", "parts")),
    what_was_paid_twice_is_kept: Focus(("elsewhere", "pay"), ("slow card", "parts", "order")),
    news_of_money_counts_each_time: Focus((), ("parts",), Rates(partial=0.8, notify_twice=0.3)),
    refunds_are_not_booked: Focus(("correct", "void")),
    a_batch_that_owes_is_skipped: Focus(),
}


@asynccontextmanager
async def _without_worlds(servers: Servers, template: str) -> AsyncIterator[str]:
    name = f"simulation_{secrets.token_hex(6)}"
    yield await servers.create_database(name, template=template)
    await servers.drop_database(name)


@pytest.fixture
async def empty_url(servers: Servers, migrated_template: str) -> AsyncIterator[str]:
    """A database without worlds: seeds are used again."""
    async with _without_worlds(servers, migrated_template) as url:
        yield url


@pytest.fixture
async def another_url(servers: Servers, migrated_template: str) -> AsyncIterator[str]:
    """Another one."""
    async with _without_worlds(servers, migrated_template) as url:
        yield url


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(
    empty_url: str, another_url: str, monkeypatch: pytest.MonkeyPatch, plant: Plant
) -> None:
    plant(monkeypatch)
    found = run_worlds(empty_url, range(1, 1 + SEEDS), focus=PLANTS[plant]).failures
    assert found, f"{SEEDS} worlds went well"
    assert isinstance(found[0].error, WorldError | AssertionError)
    monkeypatch.undo()
    assert run_worlds(another_url, [found[0].seed], focus=PLANTS[plant]).failures == [], "it fails without the bug, too"
