"""What the demo is made of: its riders, its comparison of books, its story's order."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from service.lab.city import plan_city
from service.lab.demo.books import AccountLine
from service.lab.demo.merchants import NAMES, PROVIDERS, SHARES
from service.lab.demo.telling import MUST, STEPS, missing_steps

SINCE = datetime(2026, 11, 22, 10, tzinfo=UTC)
LINE = AccountLine("zhima", "Alipay", 3, 9, 8, 8, 2050, 2050, 1, 150, 150, 30)


@pytest.mark.parametrize(("rides", "riders"), [(10, 20), (60, 20), (2000, 400), (9000, 600)])
def test_every_account_has_riders_however_few_there_are(rides: int, riders: int) -> None:
    assert sum(SHARES.values()) == pytest.approx(1) and set(SHARES) == set(PROVIDERS) == set(NAMES)
    city = plan_city(1, rides, SINCE, 3.0, SHARES)
    assert len(city.riders) == riders
    for account, share in SHARES.items():
        count = sum(rider.account_id == account for rider in city.riders)
        assert count > 0 and abs(count - share * riders) <= 1.5, account


def test_a_seed_plans_the_same_city_again() -> None:
    assert plan_city(3, 100, SINCE, 3.0, SHARES) == plan_city(3, 100, SINCE, 3.0, SHARES)
    assert plan_city(3, 100, SINCE, 3.0, SHARES) != plan_city(4, 100, SINCE, 3.0, SHARES)


def test_books_that_differ_by_a_cent_or_a_debit_are_named() -> None:
    assert LINE.disagreements == []
    for field, ours in {"net_minor": 2051, "settled": 9, "refunded_minor": 0}.items():
        (text,) = replace(LINE, **{field: ours}).disagreements
        assert text.startswith(f"Alipay: {ours} "), text


def test_a_story_without_a_step_or_in_another_order_is_another_story() -> None:
    assert missing_steps(MUST) == [] and set(MUST) <= set(STEPS)
    for step in MUST:
        assert step in missing_steps([other for other in MUST if other != step])
    assert missing_steps(list(reversed(MUST)))
