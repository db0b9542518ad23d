"""A decided batch made into rows: all that is left is to write it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from service.adapters.clock import machine_now
from service.adapters.kafka import RecordSource
from service.adapters.postgres.batches import OutRecord
from service.adapters.postgres.intake import MovedStream, Quarantined, StreamBatch
from service.adapters.postgres.rides import Rows, rows_of
from service.adapters.postgres.streams import NOTHING_READ
from service.billing.announcements import announce
from service.billing.batch import Advance
from service.billing.events import Malformed
from service.billing.facts.quarantine import encode_quarantined
from service.billing.instants import InstantError
from service.billing.proofs import batch_no
from service.billing.rides import Revision
from service.billing.sessions import AHEAD_MAX
from service.flows.clock import BusinessClock
from service.flows.intake.reading import Tail, Work, held_excess
from service.flows.intake.streams import Streams
from service.flows.knowledge import Knowledge
from service.telemetry import CHARGED, EVENTS, QUARANTINED, REVISIONS


class Prepared(msgspec.Struct):
    """What one transaction of the intake writes."""

    work: Work
    decision: Advance
    quarantined: Sequence[Quarantined]
    rows: Sequence[Rows]
    moved: Sequence[MovedStream]
    now: datetime
    machine_at: datetime


def prepare(
    work: Work, decision: Advance, now: datetime, streams: Streams, source: RecordSource, knowledge: Knowledge
) -> Prepared:
    """A decided batch as rows. Streams and rides are held to be where it leaves them until a failure says otherwise."""
    held, machine_at = streams.held, machine_now()
    numbers = {partition: batch_no(held[partition].writer_no, held[partition].seq + 1) for partition in work.tails}
    own: dict[int, list[Revision]] = {partition: [] for partition in sorted(work.tails)}
    for revision in decision.revisions:
        own[revision.events[0].position.partition].append(revision)
    quarantined = [*work.quarantined, *held_excess(work, decision.excess)]
    moved = []
    for partition, revisions in own.items():
        tail = work.tails[partition]
        ended_at_ms = source.ended_at_ms(partition, tail.next_offset)
        read_through_at = _read_through(tail, ended_at_ms, work.fetched_at, knowledge.clock)
        ordered = sorted(revisions, key=lambda revision: revision.ride.ride_no)
        batch = StreamBatch(
            held[partition],
            tail.next_offset,
            tail.record_digest,
            read_through_at,
            [revision.ride.digest for revision in ordered],
            [revision.ride.ride_no for revision in ordered if revision.owing_minor],
            _facts([item for item in quarantined if item.record.partition == partition], ordered, now),
        )
        moved.append(batch.moved(now, machine_at))
    rows = rows_of(decision.revisions, lambda revision: numbers[revision.events[0].position.partition])
    held.update({one.stream.partition: one.stream for one in moved})
    knowledge.fly(revision.ride for revision in decision.revisions)
    return Prepared(work, decision, quarantined, rows, moved, now, machine_at)


def _read_through(tail: Tail, ended_at_ms: int | None, fetched_at: datetime, clock: BusinessClock) -> datetime:
    """Up to when a partition was read: to when its broker told that it had no more. One that has more, by the last
    record's timestamp. That is its producer's: one that nobody can mean, or far ahead of us, says nothing."""
    if ended_at_ms is not None:
        return min(clock.at_ms(ended_at_ms), fetched_at)
    try:
        at = clock.at_ms(tail.timestamp_ms)
    except (InstantError, OverflowError):
        return NOTHING_READ
    return min(at, fetched_at) if at <= fetched_at + AHEAD_MAX else NOTHING_READ


def count(prepared: Prepared) -> None:
    """Counts what a batch brought."""
    work, decision = prepared.work, prepared.decision
    EVENTS.labels("taken").inc(len(work.arrivals) - decision.duplicates - len(decision.excess))
    EVENTS.labels("duplicate").inc(decision.duplicates)
    EVENTS.labels("skipped").inc(work.skipped)
    EVENTS.labels("quarantined").inc(len(prepared.quarantined))
    for item in prepared.quarantined:
        QUARANTINED.labels(item.fault).inc()
    for revision in decision.revisions:
        REVISIONS.labels(revision.ride.state).inc()
        if revision.charge is not None:
            CHARGED.labels(revision.charge.charge.currency).inc(revision.charge.charge.total_minor)


def _facts(quarantined: Sequence[Quarantined], revisions: Sequence[Revision], now: datetime) -> list[OutRecord]:
    """What one partition's batch tells the world: its decisions, then the records it could not take."""
    facts = [OutRecord("billing", *fact) for revision in revisions for fact in announce(revision, now)]
    facts += [
        OutRecord("quarantine", *encode_quarantined(item.record, Malformed(item.reason, item.path)))
        for item in quarantined
    ]
    return facts
