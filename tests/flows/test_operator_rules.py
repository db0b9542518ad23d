"""An operator's calendar and policy on holds: what may be set, and what a value that was stored before does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from collecting_bench import Bench, assert_books_agree, open_bench

from service.adapters.postgres.holds import hold_policy
from service.billing.agreements.holds import HoldPolicy
from service.billing.bounds import LIST_MAX
from service.billing.debits.dunning import Calendar, calendar
from service.flows.operators import OperatorError, Rules, changed_rules


def changed(shape: type[Rules], **changes: Any) -> dict[str, Any]:
    told = json.loads(changed_rules("rules", shape, "{}", changes))
    assert isinstance(told, dict)
    return told


@pytest.mark.parametrize(
    ("shape", "name", "value", "allowed"),
    [
        (Calendar, "debit_delay", "P3651D", "P0D to P3650D"),
        (Calendar, "due_days", 3651, "0 to 3650"),
        (Calendar, "write_off_days", 99_999_999_999, "0 to 3650"),
        (Calendar, "remind_before", "P5000000D", "P0D to P3650D"),
        (Calendar, "remind_days", 4_000_000, "0 to 3650"),
        (Calendar, "payment_open_for", "P3650DT1S", "P0D to P3650D"),
        (Calendar, "notice_days", 3651, "0 to 3650"),
        (Calendar, "report_days", 3651, "0 to 3650"),
        (Calendar, "collect_revoked_for", "P9999D", "P0D to P3650D"),
        (Calendar, "stop_above_minor", 10**12 + 1, "0 to 1000000000000"),
        (Calendar, "stop_factor", 1_000_001, "0 to 1000000"),
        (Calendar, "stop_run", 10**30, "0 to 1000000"),
        (HoldPolicy, "cap_minor", 10**12 + 1, "1 to 1000000000000"),
        (HoldPolicy, "cap_minor", 0, "1 to 1000000000000"),
        (HoldPolicy, "answer_within", "PT61S", "PT0.1S to PT60S"),
        (HoldPolicy, "answer_within", "P0D", "PT0.1S to PT60S"),
        (HoldPolicy, "give_up_after", "P4000D", "P0D to P3650D"),
        (HoldPolicy, "release_after", "P4000D", "P0D to P3650D"),
        (HoldPolicy, "release_anyway_after", "P4000D", "P0D to P3650D"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name_value_and_what_is_allowed(
    shape: type[Rules], name: str, value: int | str, allowed: str
) -> None:
    with pytest.raises(OperatorError) as refused:
        changed(shape, **{name: value})
    assert str(refused.value) == f"rules: {name} {value}: allowed are {allowed}"


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        (Calendar, {"due_days": 3650, "write_off_days": 0, "debit_delay": "P3650D", "stop_above_minor": 10**12}),
        (Calendar, {"stop_factor": 1_000_000, "stop_run": 0, "report_days": 7}),
        (HoldPolicy, {"cap_minor": 1, "answer_within": "PT60S", "release_after": "P0D"}),
        (HoldPolicy, {"cap_minor": 10**12, "answer_within": "PT0.1S", "give_up_after": "P3650D"}),
    ],
)
def test_the_bounds_themselves_are_allowed_and_stand_as_they_are(shape: type[Rules], changes: dict[str, Any]) -> None:
    assert changed(shape, **changes) == changes
    decoded: Any = calendar(json.dumps(changes)) if shape is Calendar else hold_policy(json.dumps(changes))
    for name, value in changes.items():
        assert msgspec.to_builtins(getattr(decoded, name)) == value


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"debit_delay": "P99999999999D"}, "debit_delay: duration is out of range: allowed are P0D to P3650D"),
        ({"retry_after": ["P1D", "P3651D"]}, "retry_after P3651D: allowed are P0D to P3650D"),
        ({"retry_after": ["P3D", "P1D"]}, "retry_after P1D after P3D: each step counts from the first attempt"),
        ({"retry_after": ["P1D", "P1D"]}, "retry_after P1D after P1D"),
        (
            {"retry_after": [f"P{day}D" for day in range(1, LIST_MAX + 2)]},
            "retry_after has 101 steps: allowed are 100",
        ),
        ({"retry_from": "soon"}, "retry_from: expected an hour such as 09:00"),
        ({"retry_from": "25:00"}, "retry_from: expected an hour such as 09:00"),
        ({"retry_from": "09:00:00Z"}, "retry_from 09:00:00+00:00: give an hour of the rider's own day, such as 09:00"),
        ({"retry_from": "20:00"}, "retry_from 20:00:00 must be before retry_until 20:00:00"),
    ],
)
def test_steps_and_hours_that_make_no_calendar_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OperatorError) as refused:
        changed(Calendar, **changes)
    assert f"rules: {said}" in str(refused.value)


@pytest.mark.parametrize(("given", "kept"), [("09:00", "09:00:00"), ("9:30", "09:30:00"), ("08:15:30", "08:15:30")])
def test_an_hour_is_given_as_people_write_it(given: str, kept: str) -> None:
    assert changed(Calendar, retry_from=given) == {"retry_from": kept}


def test_what_was_stored_beyond_the_bounds_counts_as_the_most_that_is_allowed() -> None:
    far = calendar('{"due_days": 99999999999, "debit_delay": "P5000000D", "retry_after": ["P1D", "P4000D"]}')
    assert (far.due_days, far.debit_delay) == (3650, timedelta(days=3650))
    assert far.retry_after == (timedelta(days=1), timedelta(days=3650))
    held = hold_policy('{"release_after": "P5000000D", "answer_within": "P1D", "unlock_while_pending": true}')
    assert (held.release_after, held.answer_within) == (timedelta(days=3650), timedelta(minutes=1))
    assert held.unlock_while_pending is True
    assert calendar("{}") == Calendar()
    assert hold_policy("{}") == HoldPolicy()


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url) as it:
        yield it
        await it.connection.execute("UPDATE operator SET calendar = '{}'")


@pytest.mark.parametrize("stored", ['{"due_days": 99999999999}', '{"due_days": 4000000, "write_off_days": 99999999}'])
async def test_a_calendar_stored_beyond_the_bounds_stops_no_collection(bench: Bench, stored: str) -> None:
    await bench.connection.execute("UPDATE operator SET calendar = $1::jsonb", stored)
    rides = [await bench.ride(await bench.party(), 500) for _ in range(2)]
    await bench.settle_down(3)
    assert [await bench.states(ride) for ride in rides] == [[("settled", 500, 500)]] * 2
    assert not await bench.connection.fetchval(
        "SELECT count(*) FROM set_aside WHERE ride_no = ANY($1::bigint[])", [ride.ride_no for ride in rides]
    )
    await assert_books_agree(bench)
