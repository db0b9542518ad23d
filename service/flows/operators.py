"""Setting up operators: who there is, whose the events of a source are, what is switched."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
from msgspec.structs import replace

from service.adapters.postgres import Database
from service.adapters.postgres.operators import KnownOperator, NewOperator, OperatorStore, Switches
from service.billing import bounds
from service.billing.agreements.holds import HoldPolicy
from service.billing.debits.dunning import NOTICE_DAYS_MIN, REPORT_AFTER_DAYS, Calendar
from service.billing.extent import LENGTH_HOURS_MAX
from service.billing.money import MoneyError, exponent
from service.billing.refusals import in_words
from service.billing.zones import UnknownZoneError, zone_named

OPERATOR_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
SOURCE_CHARACTERS_MAX = 1024
ABOVE_NOTHING = frozenset({"cap_minor", "answer_within"})
"""Rules of which 0 would let nobody ride: a hold of nothing, an answer that nobody waits for."""
HOUR = re.compile(r"\d{1,2}:\d\d", re.ASCII)
Rules = Calendar | HoldPolicy


class OperatorError(ValueError):
    """What was asked of the set-up can't be done; the message says why and what to do."""


async def add_operator(database: Database, operator: NewOperator, now: datetime) -> None:
    """Adds an operator; raises OperatorError when a value is unusable or the id is taken."""
    _check(operator)
    async with database.transaction(OperatorStore) as store:
        if not await store.add(operator, now):
            raise OperatorError(f"operator {operator.operator_id!r} is there already; `farebox operator list` shows it")


async def change_operator(database: Database, operator_id: str, changes: Mapping[str, Any]) -> NewOperator:
    """Changes fields of NewOperator but for the id; every role goes by it some seconds later.

    Raises OperatorError when there is no such operator, a value is unusable, or time zone or currency would change
    although tariffs are published or riders have signed: prices, days and debts stand in them.
    """
    async with database.transaction(OperatorStore) as store:
        known = await store.whole(operator_id)
        if known is None:
            raise _no_operator(operator_id)
        before, in_use = known
        after = replace(before, **changes)
        _check(after)
        for field, what in (("time_zone", "time zone"), ("currency", "currency")):
            if in_use and getattr(after, field) != getattr(before, field):
                raise OperatorError(
                    f"the {what} of operator {operator_id!r} stays {getattr(before, field)}: it has tariffs or"
                    " agreements, and what is priced and owed stands in it; add another operator for another"
                )
        if after != before:
            await store.change(after)
        return after


async def map_source(database: Database, operator_id: str, topic: str, source: str, now: datetime) -> bool:
    """Gives the events of `source` on `topic` to an operator for ever, and what of them is held; False when they were
    its own before.

    Raises OperatorError when there is no such operator, or the source is another's, by this or since he took its first
    event as the default operator: it never changes hands, since the rides that are billed already would not follow, and
    an event of theirs that came again would be a ride of somebody else.
    """
    if not source or len(source) > SOURCE_CHARACTERS_MAX or not source.isprintable():
        raise OperatorError(f"{source[:40]!r} is no CloudEvents source; give a URI such as urn:mds:provider:<id>")
    async with database.transaction(OperatorStore) as store:
        operator = await _find(store, operator_id)
        if await store.map_source(topic, source, operator.operator_no, now):
            await store.give_quarantined(topic, source, operator.operator_no)
            return True
        owner, by_default = await store.source_owner(topic, source)
    if owner != operator_id:
        since = "was not mapped when its first event came, and was taken by" if by_default else "is mapped to"
        raise OperatorError(
            f"{source} on {topic} {since} operator {owner!r}, and a source never changes"
            f" hands: have {operator_id!r} write with a source of its own"
        )
    return False


async def set_default_operator(database: Database, operator_id: str | None) -> None:
    """Says who takes the events of unmapped sources; None: nobody, they are held until the source is mapped."""
    async with database.transaction(OperatorStore) as store:
        await store.set_default(None if operator_id is None else (await _find(store, operator_id)).operator_no)


async def operator_of(store: OperatorStore, operator_id: str | None) -> KnownOperator:
    """The operator of an id, or the default one; raises OperatorError when there is none."""
    if operator_id is not None:
        return await _find(store, operator_id)
    operator = await store.default()
    if operator is None:
        raise OperatorError("this installation has no default operator: name one with --operator")
    return operator


async def read_switches(database: Database, operator_id: str) -> Switches:
    """How an operator is switched; raises OperatorError when there is none."""
    return await switch(database, operator_id, lambda switches: switches)


async def switch(database: Database, operator_id: str, change: Callable[[Switches], Switches]) -> Switches:
    """Switches an operator; every role goes by it some seconds later. Raises OperatorError when there is none, and what
    `change` raises."""
    async with database.transaction(OperatorStore) as store:
        before = await store.switches(operator_id)
        if before is None:
            raise _no_operator(operator_id)
        after = change(before)
        if after != before:
            await store.switch(after)
        return after


def changed_rules(what: str, shape: type[Rules], stored: str, changes: Mapping[str, Any]) -> str:
    """The stored rules with changes: a value, or None for the default. Raises OperatorError naming the rule."""
    known = [field.name for field in msgspec.structs.fields(shape)]
    unknown = [name for name in changes if name not in known]
    if unknown:
        raise OperatorError(f"{what}: there is no {unknown[0]!r}; there are {', '.join(known)}")
    kept: dict[str, Any] = msgspec.json.decode(stored)
    given = {name: _in_full(value) for name, value in changes.items()}
    merged = {name: value for name, value in {**kept, **given}.items() if value is not None}
    text = msgspec.json.encode(merged)
    try:
        rules = msgspec.json.decode(text, type=shape)
    except msgspec.ValidationError as error:
        raise OperatorError(f"{what}: {_rule_in_words(str(error), shape)}") from None
    for name, value in bounds.each(rules):
        _check_bounds(what, name, value)
    if isinstance(rules, Calendar):
        _check_calendar(what, rules)
    return text.decode()


def _check_bounds(what: str, name: str, value: bounds.Bounded) -> None:
    least: bounds.Bounded = 1 if name in ABOVE_NOTHING else 0
    if isinstance(value, timedelta):
        least = timedelta(milliseconds=100) if name in ABOVE_NOTHING else timedelta()
    most = bounds.most(name, value)
    if value < least and not least:  # type: ignore[operator]  # both are whole numbers, or both durations
        raise OperatorError(f"{what}: {name} can't be below 0")
    if not least <= value <= most:  # type: ignore[operator]  # as above
        raise OperatorError(f"{what}: {name} {_written(value)}: allowed are {_written(least)} to {_written(most)}")


def _check_calendar(what: str, rules: Calendar) -> None:
    if rules.report_days < NOTICE_DAYS_MIN:
        raise OperatorError(
            f"{what}: report_days {rules.report_days}: a rider is told at least {NOTICE_DAYS_MIN} days before he is"
            f" reported; nobody is reported before the {REPORT_AFTER_DAYS}th day after the first attempt besides, until"
            " which his provider takes further ones. reports=false reports nobody"
        )
    for name, hour in (("retry_from", rules.retry_from), ("retry_until", rules.retry_until)):
        if hour.tzinfo is not None:
            raise OperatorError(f"{what}: {name} {hour}: give an hour of the rider's own day, such as 09:00")
    if not rules.retry_from < rules.retry_until:
        raise OperatorError(
            f"{what}: retry_from {rules.retry_from} must be before retry_until {rules.retry_until}: they are the hours"
            " of one civil day at which riders are charged and told; the night between is quiet"
        )
    if len(rules.retry_after) > bounds.LIST_MAX:
        raise OperatorError(f"{what}: retry_after has {len(rules.retry_after)} steps: allowed are {bounds.LIST_MAX}")
    for before, after in pairwise(rules.retry_after):
        if after <= before:
            raise OperatorError(
                f"{what}: retry_after {_written(after)} after {_written(before)}: each step counts from the first"
                " attempt, so each must be longer than the one before it"
            )


def _in_full(value: Any) -> Any:
    """An hour as it is stored: 09:00:00 for 09:00 and 9:00."""
    return f"{value:0>5}:00" if isinstance(value, str) and HOUR.fullmatch(value) else value


def _rule_in_words(message: str, shape: Any) -> str:
    told = in_words(message, shape).replace("invalid RFC3339 encoded time", "expected an hour such as 09:00")
    far = f"duration is out of range: allowed are {_written(timedelta())} to {_written(timedelta(bounds.DAYS_MAX))}"
    return told.replace("duration is out of range", far)


def _written(value: bounds.Bounded) -> str:
    """A value as a person gives it: a whole number, or an ISO 8601 duration."""
    return str(msgspec.to_builtins(value))


async def _find(store: OperatorStore, operator_id: str) -> KnownOperator:
    operator = await store.find(operator_id)
    if operator is None:
        raise _no_operator(operator_id)
    return operator


def _no_operator(operator_id: str) -> OperatorError:
    return OperatorError(f"there is no operator {operator_id!r}: `farebox operator list` shows them all")


def _check(operator: NewOperator) -> None:
    if not OPERATOR_ID.fullmatch(operator.operator_id):
        raise OperatorError(
            f"{operator.operator_id!r} is no operator id: allowed are 1 to 63 of a-z, 0-9, _ and -, a letter or digit"
            " first"
        )
    try:
        zone_named(operator.time_zone)
    except UnknownZoneError as error:
        raise OperatorError(f"time zone {operator.time_zone!r} is {error}") from None
    try:
        exponent(operator.currency)
    except MoneyError as error:
        raise OperatorError(str(error)) from None
    for name in ("name", "contact"):
        if not str(getattr(operator, name)).isprintable():
            raise OperatorError(f"{name} has characters that can't be printed")
    if not 1 <= operator.ride_hours_max <= LENGTH_HOURS_MAX:
        raise OperatorError(f"ride_hours_max {operator.ride_hours_max}: allowed are 1 to {LENGTH_HOURS_MAX} hours")
