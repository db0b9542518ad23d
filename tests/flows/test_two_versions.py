"""Two releases side by side: what a newer one wrote is read by this one, and what this one can't know waits."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
from intake_world import BIKE, NOON, World, furnish
from msgspec import inspect

from service.adapters.postgres import Database
from service.adapters.postgres.batches import OutRecord
from service.adapters.postgres.catalog import CatalogStore
from service.adapters.postgres.holds import hold_policy
from service.adapters.postgres.operators import OperatorStore
from service.adapters.postgres.reading import RideRows, RiderRows
from service.billing.agreements import Debt
from service.billing.agreements.holds import Hold, HoldPolicy
from service.billing.charged import StoredCharge
from service.billing.debits.dunning import Calendar, calendar
from service.billing.debits.state import Dispute, Item, Receipt
from service.billing.events import RideEvent
from service.billing.outcomes import RiderAction
from service.flows.clock import BusinessClock
from service.flows.knowledge import Knowledge
from service.flows.operators import OperatorError, changed_rules

STORED = (
    StoredCharge,
    RideEvent,
    Receipt,
    Item,
    Dispute,
    RiderAction,
    Debt,
    Hold,
    RideRows,
    RiderRows,
    Calendar,
    HoldPolicy,
    OutRecord,
)
"""What is read out of a column, or out of a query's JSON."""


def structs(told: Any) -> Iterator[inspect.StructType]:
    """Every struct in a type, itself among them."""
    if isinstance(told, inspect.StructType):
        yield told
        for field in told.fields:
            yield from structs(field.type)
    elif isinstance(told, inspect.UnionType):
        for one in told.types:
            yield from structs(one)
    elif isinstance(told, inspect.VarTupleType | inspect.ListType):
        yield from structs(told.item_type)
    elif isinstance(told, inspect.TupleType):
        for one in told.item_types:
            yield from structs(one)
    elif isinstance(told, inspect.DictType):
        yield from structs(told.value_type)


@pytest.mark.parametrize("shape", STORED, ids=str)
def test_a_field_that_a_newer_release_stored_is_passed_over(shape: Any) -> None:
    found = list(structs(inspect.type_info(shape)))
    assert found
    assert [told.cls.__name__ for told in found if told.forbid_unknown_fields] == []


def test_an_operator_s_rules_with_one_of_a_newer_release_are_read_and_kept() -> None:
    stored = json.dumps({"due_days": 9, "weather": {"rain": "P1D"}})
    assert calendar(stored).due_days == 9
    assert hold_policy('{"cap_minor": 7, "weather": true}').cap_minor == 7
    changed = json.loads(changed_rules("calendar", Calendar, stored, {"due_days": 11}))
    assert changed == {"due_days": 11, "weather": {"rain": "P1D"}}, "what this release does not know stays"
    with pytest.raises(OperatorError, match="there is no 'weather'"):
        changed_rules("calendar", Calendar, stored, {"weather": 1})


async def test_rides_of_a_tariff_with_a_rule_of_a_newer_release_wait_and_the_others_are_charged(
    database_url: str, kafka_bootstrap: str, topic: Callable[..., Awaitable[str]]
) -> None:
    await furnish(database_url)
    world = World(database_url, kafka_bootstrap, await topic())
    await world.open()
    changes_at = NOON + timedelta(hours=1)
    try:
        intake = await world.intake()
        await world.ride("before", 20)
        await world.drain(intake, 2)
        await publish_as_a_newer_release(database_url, changes_at.isoformat())
        await world.leave(intake)
        intake = await world.intake()  # It has read the tariffs: one that runs reads them again after a while.
        data = {"weather": {"rain": True}, "helmet": "yes"}
        await world.ride("old-price", 20, NOON + timedelta(minutes=5), **data)
        await world.ride("new-price", 20, changes_at + timedelta(minutes=5), **data)
        await world.publish("started", "over-the-change", changes_at - timedelta(minutes=5))
        await world.publish("ended", "over-the-change", changes_at + timedelta(minutes=15))
        await world.drain(intake, 8)
        assert await world.charges() == {
            "before": ("closed", 250),
            "old-price": ("closed", 250),
            "over-the-change": ("closed", 250),
            "new-price": ("parked", None),
        }
        assert await world.value("SELECT count(*) FROM quarantine") == 0
        assert await read_again(database_url) == 2, "an unread version and the one before it"
    finally:
        await world.close()


async def publish_as_a_newer_release(url: str, valid_from: str) -> None:
    """A version of the tariff with a rule that this release does not know."""
    newer = BIKE | {"valid_from": valid_from, "rules": {"weather": {"rain": "0.80"}}}
    connection = await asyncpg.connect(url)
    await connection.execute(
        "INSERT INTO tariff_version (tariff_no, version, valid_from, document, digest, created_at)"
        " SELECT tariff_no, 2, $2, $1, '', $2 FROM tariff WHERE tariff_id = 'bike'",
        msgspec.json.encode(newer).decode(),
        NOON + timedelta(hours=1),
    )
    await connection.close()


async def read_again(url: str) -> int:
    """How many versions of the tariff a process that starts now has heard of."""
    database = await Database.open(url, name="test", size_max=1)
    knowledge = Knowledge(BusinessClock(), 0)
    async with database.reading(CatalogStore) as store:
        await knowledge.refresh(store)
        _, versions = await store.tariffs_since(0, 1000)
    async with database.reading(OperatorStore) as store:
        operator = await store.default()
    assert operator is not None
    await database.close()
    assert knowledge.catalog.tariff_version(operator.operator_no, "bike", 2) is None
    assert knowledge.catalog.tariff_at(operator.operator_no, "bike", NOON + timedelta(hours=2)) is None
    first = knowledge.catalog.tariff_version(operator.operator_no, "bike", 1)
    assert first is not None and first.tariff.tariff_id == "bike"
    return len(versions[operator.operator_no, "bike"])
