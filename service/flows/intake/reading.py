"""From records to arrivals: decoded, mapped to their operator, the unusable ones set aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from service.adapters.kafka import raw_record, record_digest
from service.adapters.postgres.intake import Quarantined
from service.billing.batch import Arrival
from service.billing.events import Malformed, RawRecord, RideEvent, decode
from service.billing.events.cloudevents import source_of
from service.billing.events.header_names import as_text
from service.billing.extent import CONFLICTS_MAX, DECISIONS_MAX, EVENTS_MAX
from service.billing.facts.quarantine import RECORD_BYTES_MAX, record_bytes
from service.billing.keys import session_key_bytes
from service.billing.refusals import brief
from service.billing.rides import Ride
from service.flows.knowledge import Knowledge

TOO_MANY = (
    f"its ride has {EVENTS_MAX} events, or {CONFLICTS_MAX} that contradict others, or {DECISIONS_MAX} corrections:"
    " a device or an app repeats itself"
)


class Tail(msgspec.Struct, frozen=True):
    """The end of what a batch took from a partition."""

    next_offset: int
    record_digest: bytes
    timestamp_ms: int


class Work(msgspec.Struct):
    """One batch on its way: what was fetched, what it says, and what is known about it; `unowned` are its sources that
    nobody has mapped, and that are not known to be anybody's."""

    records: dict[int, list[Any]]
    fetched_at: datetime
    tails: dict[int, Tail]
    arrivals: list[Arrival]
    quarantined: list[Quarantined]
    skipped: int
    known: dict[bytes, Ride]
    unowned: set[str] = msgspec.field(default_factory=set)

    @property
    def count(self) -> int:
        """How many records."""
        return sum(len(records) for records in self.records.values())


def read(records: dict[int, list[Any]], knowledge: Knowledge, fetched_at: datetime) -> Work:
    """What the records say. `fetched_at` is the business time before they were fetched."""
    work = Work(records, fetched_at, {}, [], [], 0, {})
    for partition, fetched in records.items():
        for record in fetched:
            _take(work, raw_record(record), knowledge)
        last = fetched[-1]
        work.tails[partition] = Tail(last.offset + 1, record_digest(last), last.timestamp)
    return work


def held_excess(work: Work, excess: Sequence[Arrival]) -> list[Quarantined]:
    """What is more than its ride takes, as it is held."""
    if not excess:
        return []
    records = {(record.partition, record.offset): record for fetched in work.records.values() for record in fetched}
    return [
        Quarantined(
            _kept(raw_record(records[arrival.event.position.partition, arrival.event.position.offset])),
            "record",
            TOO_MANY,
            "$",
            arrival.operator.operator_no,
            arrival.event.source,
        )
        for arrival in excess
    ]


def condemn(records: dict[int, list[Any]], reason: str, fetched_at: datetime, knowledge: Knowledge) -> Work:
    """One record that this service can't take although it reads well: our fault, kept whole."""
    (partition, (record,)) = next(iter(records.items()))
    held = _held(raw_record(record), "service", brief(reason), "$", knowledge)  # It may quote the record.
    tail = Tail(record.offset + 1, record_digest(record), record.timestamp)
    return Work(records, fetched_at, {partition: tail}, [], [held], 0, {})


def halves(records: Mapping[int, Sequence[Any]]) -> tuple[dict[int, list[Any]], dict[int, list[Any]]]:
    """The first and the second half of a batch; a partition that is cut keeps its order across the two."""
    flat = [record for partition in sorted(records) for record in records[partition]]
    middle = len(flat) // 2
    return _by_partition(flat[:middle]), _by_partition(flat[middle:])


def _by_partition(records: Sequence[Any]) -> dict[int, list[Any]]:
    grouped: dict[int, list[Any]] = {}
    for record in records:
        grouped.setdefault(record.partition, []).append(record)
    return grouped


def _take(work: Work, record: RawRecord, knowledge: Knowledge) -> None:
    event = decode(record)
    if isinstance(event, RideEvent):
        operator = knowledge.operator_of(record.topic, event.source)
        if knowledge.unowned(record.topic, event.source):
            work.unowned.add(event.source)
        if operator is None and _too_long(record):
            work.quarantined.append(_held(record, "record", "longer than a record may be", "$", knowledge))
        elif operator is None:
            reason = "no operator is mapped to this source: farebox operator map-source"
            work.quarantined.append(
                Quarantined(_kept(record), "unmapped_source", reason, "headers.ce_source", None, event.source)
            )
        else:
            key = session_key_bytes(operator.operator_id, event.session_id)
            work.arrivals.append(Arrival(key, operator, event))
    elif isinstance(event, Malformed):
        work.quarantined.append(_held(record, "record", event.reason, event.path, knowledge))
    else:
        work.skipped += 1


def _held(record: RawRecord, fault: str, reason: str, path: str, knowledge: Knowledge) -> Quarantined:
    """A record that can't be taken, and whose it is where it says so."""
    source = source_of(record)
    operator = knowledge.operator_of(record.topic, source) if source is not None else None
    return Quarantined(_kept(record), fault, reason, path, operator.operator_no if operator else None, source)


def _kept(record: RawRecord) -> RawRecord:
    """The record as it can be kept: the names of its headers as text."""
    return msgspec.structs.replace(record, headers=tuple((as_text(name), value) for name, value in record.headers))


def _too_long(record: RawRecord) -> bool:
    """Whether a record could not be put on Kafka again by itself, once its source is mapped."""
    return record_bytes(record.key, record.headers, record.value) > RECORD_BYTES_MAX
