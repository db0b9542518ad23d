"""Thousands of histories of one ride's debits, each with the real rules and a provider in memory, end with equal books;
and those that are played with a bug that was planted on purpose do not."""

from __future__ import annotations

from collections import Counter

import pytest
from histories import Result, run
from sim_plants import (
    Plant,
    a_chargeback_is_booked_each_time_it_is_told,
    a_correction_downward_is_not_netted,
    another_key_while_unknown,
    less_owed_of_what_is_pending_is_forgotten,
    news_of_money_counts_each_time,
    refunds_under_way_are_forgotten,
    what_is_unknown_is_never_asked,
    what_was_paid_twice_is_kept,
)
from sim_plot import KINDS

from service.billing.debits.state import State

HISTORIES = 2400
SEARCHED = 600
"""Within so many histories a planted bug must show."""
PLANTS: tuple[Plant, ...] = (
    another_key_while_unknown,
    what_was_paid_twice_is_kept,
    news_of_money_counts_each_time,
    a_correction_downward_is_not_netted,
    refunds_under_way_are_forgotten,
    a_chargeback_is_booked_each_time_it_is_told,
    what_is_unknown_is_never_asked,
    less_owed_of_what_is_pending_is_forgotten,
)
REACHED = (
    *(("submitting", f"Submitted {answer}") for answer in ("Accepted", "Succeeded", "Declined", "Unknown", "Prepared")),
    *(("submitting", f"Submitted {answer}") for answer in ("Throttled", "Barred", "CapExceeded", "NeedsRider")),
    *(("unknown", f"Queried {answer}") for answer in ("Accepted", "Succeeded", "NotFound", "Declined")),
    *(("pending", f"Queried {answer}") for answer in ("Accepted", "Succeeded", "Closed")),
    *(("pending", f"LowerAnswered {answer}") for answer in ("Accepted", "AlreadyDone", "Closed", "Unknown")),
    *(("needs_rider", f"PaymentAnswered {answer}") for answer in ("NeedsRider", "Prepared", "AlreadyDone")),
    *(("settled_elsewhere", f"LowerAnswered {answer}") for answer in ("Closed", "AlreadyDone")),
    *(("refund submitting", f"Submitted {answer}") for answer in ("Succeeded", "Accepted", "Declined", "Unknown")),
    ("refund succeeded", "Queried Declined"),
    *((state, "OperatorDecided cancel") for state in ("manual", "unknown")),
    ("written_off", "Notified Succeeded"),
    *((state, "GivenBack") for state in ("settled", "settled_elsewhere")),
    ("settled", "DisputeOpened"),
    ("submitting", "LeaseOver"),
    ("hold", "refused"),
)
"""States and what came in them: what histories are about."""


@pytest.fixture(scope="module")
def result() -> Result:
    """Histories of all kinds of providers."""
    return run(range(1, HISTORIES + 1))


def test_whatever_happens_to_a_ride_its_books_are_equal_in_the_end(result: Result) -> None:
    again = [f"python tests/simulation/histories.py --seed {one.seed}: {one.wrongs[0]}" for one in result.failures]
    assert again == []


def test_the_histories_are_about_what_matters(result: Result) -> None:
    states = Counter[str]()
    for (state, _), count in result.reached.items():
        states[state] += count
    assert set(states) >= set(State)
    assert set(result.kinds) == set(KINDS)
    assert [known for known in REACHED if not result.reached[known]] == []


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(monkeypatch: pytest.MonkeyPatch, plant: Plant) -> None:
    plant(monkeypatch)
    assert any(run([seed]).failures for seed in range(1, SEARCHED + 1))
