"""The intake: records → one transaction → offsets. Every ride is charged once, whatever is killed or repeated.

A batch is fetched, decoded, looked up, decided and made into rows while the one before it is being written; it is
written when that one is committed, and dropped with it when it is not. PostgreSQL's compare-and-set on the offsets is
the fence; Kafka's own committed offsets are never the truth.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from service.adapters.kafka import RecordSource
from service.adapters.kafka_access import KAFKA_UNAVAILABLE
from service.adapters.postgres import RACES, UNAVAILABLE, is_about_data, is_partition_missing
from service.adapters.postgres.catalog import CatalogStore
from service.adapters.postgres.intake import FenceLostError, IntakeStore
from service.adapters.postgres.rides import RideNumbers
from service.billing.batch import Advance, advance
from service.billing.catalog import BalanceBook, BalanceKey
from service.flows.clock import elapsed
from service.flows.intake.preparing import Prepared, count, prepare
from service.flows.intake.reading import Work, condemn, halves, read
from service.flows.intake.streams import Streams
from service.flows.knowledge import Knowledge
from service.telemetry import BATCH_FAILURES, BATCH_SECONDS, TRACER, logger

LOG = logger("intake")
REFRESH_SECONDS = 1.0
SAME_FAILURES_MAX = 3
SAME_RACES_MAX = 20
"""After how many equal failures, or lost races, without a commit between them a batch is taken apart."""

Connect = Callable[[str], Awaitable["asyncpg.Connection[asyncpg.Record]"]]


class IntakeSettings(msgspec.Struct, frozen=True):
    """How much at once: records per batch, milliseconds to wait for the first one."""

    records_max: int = 10_000
    wait_ms: int = 100


class Intake:
    """One member of the consumer group. `round` is one batch; a test or the simulation steps it."""

    def __init__(
        self, source: RecordSource, streams: Streams, knowledge: Knowledge, connect: Connect, settings: IntakeSettings
    ) -> None:
        self.source = source
        self._streams = streams
        self._knowledge = knowledge
        self._connect = connect
        self._settings = settings
        self._numbers = RideNumbers()
        self._writing: asyncio.Task[dict[int, int]] | None = None
        self._written: Work | None = None
        self._writer: IntakeStore | None = None
        self._reader: IntakeStore | None = None
        self._refreshed = self._marked = self._committed = 0.0
        self._upcoming: dict[int, list[Any]] = {}
        self._read_to: dict[int, int] = {}
        self._failures: tuple[str, int] = ("", 0)
        self.progress_at = elapsed()

    async def round(self) -> int:
        """One batch; returns how many records it took up. Raises what `recover` understands."""
        writer, reader = await self._stores()
        if elapsed() - self._refreshed > REFRESH_SECONDS:
            await self._knowledge.refresh(CatalogStore(reader.connection))
            self._refreshed = elapsed()
        if self.source.failure is not None:
            raise self.source.failure
        if self.source.waiting:
            await self.settle()
            self._knowledge.forget_rides()
            await self._streams.open(writer)
        fetched_at = self._knowledge.clock.now()
        with BATCH_SECONDS.labels("fetch").time():
            records = await self.source.fetch(self._settings.records_max, self._settings.wait_ms)
        if not records:
            await self.settle()
            self.progress_at = elapsed()
            await self._mark_quiet(reader, set())
            await self._tell_kafka()
            return 0
        await self._mark_quiet(reader, set(records))
        self._upcoming = records
        with BATCH_SECONDS.labels("decode").time():
            work = await self._read(records, fetched_at, reader)
        with BATCH_SECONDS.labels("look_up").time():
            await self._look_up(work, reader)
        await self._take_on(work, writer)
        return work.count

    async def settle(self) -> None:
        """Waits until the batch that is being written is committed; raises what stopped it."""
        task, work = self._writing, self._written
        if task is None or work is None:
            return
        with BATCH_SECONDS.labels("wait").time():
            offsets = await asyncio.shield(task)
        if self._writing is task:
            self._writing = self._written = None
            self._failures = ("", 0)
            self._read_to.update(offsets)
            self._knowledge.land()
            self.progress_at = elapsed()
            await self._tell_kafka()

    async def recover(self, error: Exception) -> None:
        """Puts the process back to what PostgreSQL says after a failure: nothing is lost, nothing is done twice.

        Raises only when a server is away, or when nothing can be done without people (`TopicChangedError`).
        """
        away = isinstance(error, UNAVAILABLE + KAFKA_UNAVAILABLE) or is_partition_missing(error)
        suspect, self._upcoming = {} if away else await self._suspect(), {}
        await self._drop()
        race = isinstance(error, (*RACES, FenceLostError))
        BATCH_FAILURES.labels(type(error).__name__).inc()
        if race:
            LOG.info("somebody else decided first; read again", error=type(error).__name__)
        elif not away:
            LOG.warning("batch rolled back", error=f"{type(error).__name__}: {error}")
        if away:
            await asyncio.sleep(0.5)
            return
        if suspect and (is_about_data(error) or self._repeats(error, SAME_RACES_MAX if race else SAME_FAILURES_MAX)):
            try:
                await self._reopen()
                if unread := self._unread(suspect):
                    await self._take_apart(unread)
            except (*RACES, FenceLostError) as again:
                LOG.info("somebody else decided first while it was taken apart", error=type(again).__name__)
                await self._drop()

    async def close(self) -> None:
        """Finishes the transaction under way, tells Kafka where we are, and lets go of the servers."""
        try:
            async with asyncio.timeout(10):
                await self.settle()
                await self._tell_kafka(force=True)
        except (asyncpg.PostgresError, *UNAVAILABLE, *KAFKA_UNAVAILABLE, FenceLostError) as error:
            LOG.warning("last batch not committed; it will be read again", error=str(error))
        finally:
            await self.source.stop()
            await self._drop()

    async def on_revoked(self) -> None:
        """Partitions are about to be given back: what is being written may end, then nothing is remembered."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=10)
        self._knowledge.forget_rides()

    async def _read(self, records: dict[int, list[Any]], fetched_at: datetime, reader: IntakeStore) -> Work:
        """What the records say, and whose they are: a source that nobody has mapped is the default operator's before
        a ride of it does, so that it never changes hands."""
        work = read(records, self._knowledge, fetched_at)
        topic = self._streams.topic
        if work.unowned and await self._knowledge.take_sources(reader, topic, work.unowned):
            await self._knowledge.refresh(CatalogStore(reader.connection))
            work = read(records, self._knowledge, fetched_at)
        return work

    async def _look_up(self, work: Work, reader: IntakeStore) -> None:
        """Everything the decision needs that is not remembered."""
        knowledge = self._knowledge
        keys = dict.fromkeys(arrival.key for arrival in work.arrivals)
        work.known, unknown = knowledge.recall(keys)
        if unknown:
            work.known |= await reader.find_rides(unknown, knowledge.operators)
        agreements: set[tuple[int, str]] = set()  # A correction names none: those that its ride names are meant.
        for ride in work.known.values():
            number = ride.operator.operator_no
            agreements.update((number, told.agreement_id) for told in ride.session.counted if told.agreement_id)
        tariffs: set[tuple[int, str]] = set()
        for arrival in work.arrivals:
            event, number = arrival.event, arrival.operator.operator_no
            if event.agreement_id is not None:
                agreements.add((number, event.agreement_id))
            if event.tariff_id is not None:
                tariffs.add((number, event.tariff_id))
        await knowledge.learn_agreements(reader, agreements)
        if any(not knowledge.catalog.knows_tariff(*asked) for asked in tariffs):
            await knowledge.refresh_tariffs(CatalogStore(reader.connection))
        await self._numbers.reserve(reader, 2 * len(keys))

    async def _take_on(self, work: Work, writer: IntakeStore) -> None:
        """Decides a batch, and begins to write it when the one before is committed.

        One that needs balances is decided again under their locks, and written at once.
        """
        now = self._knowledge.clock.now()
        book = BalanceBook()
        with BATCH_SECONDS.labels("decide").time():
            decision = self._decide(work, book, now)
        if not book.asked:
            with BATCH_SECONDS.labels("prepare").time():
                prepared = self._prepare(work, decision, now)
            await self.settle()
            self._written, self._upcoming = work, {}
            self._writing = asyncio.create_task(self._write(writer, prepared))
            return
        await self.settle()
        self._written, self._upcoming = work, {}
        self._writing = asyncio.create_task(self._write_locked(writer, work, book.asked, now))
        await self.settle()

    def _decide(self, work: Work, book: BalanceBook, now: datetime) -> Advance:
        knowledge = self._knowledge
        return advance(work.known, work.arrivals, knowledge.catalog, book, now, self._numbers.at(now))

    def _prepare(self, work: Work, decision: Advance, now: datetime) -> Prepared:
        return prepare(work, decision, now, self._streams, self.source, self._knowledge)

    async def _write_locked(
        self, writer: IntakeStore, work: Work, asked: set[BalanceKey], now: datetime
    ) -> dict[int, int]:
        """Caps and passes across rides: the balances are locked before the batch is decided again with them."""
        async with writer.transaction():
            decision = self._decide(work, BalanceBook(await writer.lock_balances(asked)), now)
            return await self._append(writer, self._prepare(work, decision, now))

    async def _write(self, writer: IntakeStore, prepared: Prepared) -> dict[int, int]:
        with BATCH_SECONDS.labels("write").time(), TRACER.start_as_current_span("intake batch"):
            async with writer.transaction():
                return await self._append(writer, prepared)

    async def _append(self, writer: IntakeStore, prepared: Prepared) -> dict[int, int]:
        """One transaction: the decisions, the quarantine, the batches, and last the fence. Returns the offsets."""
        decision, work = prepared.decision, prepared.work
        await writer.append_rows(prepared.rows, decision.revisions)
        await writer.hold_in_quarantine(prepared.quarantined, prepared.now)
        streams = self._streams
        await writer.move(streams.group, streams.topic, prepared.moved, prepared.now, prepared.machine_at)
        count(prepared)
        return {partition: tail.next_offset for partition, tail in work.tails.items()}

    async def _take_apart(self, records: dict[int, list[Any]]) -> None:
        """The slow path: halves a batch until the culprit stands alone, quarantines it, and takes the rest."""
        writer, reader = await self._stores()
        fetched_at = self._knowledge.clock.now()
        try:
            work = await self._read(records, fetched_at, reader)
            await self._look_up(work, reader)
            await self._take_on(work, writer)
            await self.settle()
        except (*UNAVAILABLE, *KAFKA_UNAVAILABLE, *RACES, FenceLostError):
            raise
        except Exception as error:
            if is_partition_missing(error):
                raise
            await self._forget_batch()
            self.source.unready()
            await self._reopen()
            if sum(map(len, records.values())) > 1:
                for half in halves(records):
                    await self._take_apart(half)
                return
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:500]
            LOG.exception("record quarantined as our error", reason=reason)
            await self._take_on(condemn(records, reason, fetched_at, self._knowledge), writer)
            await self.settle()

    async def _mark_quiet(self, reader: IntakeStore, fetched: set[int]) -> None:
        """Says now and then how far quiet partitions were read, so that lost ends can be told from late ones.

        Partitions with records in hand or in flight say so with their batch.
        """
        if elapsed() - self._marked < REFRESH_SECONDS:
            return
        self._marked = elapsed()
        at = self._knowledge.clock.now()
        behind = await self.source.behind()
        busy = fetched | (self._written.tails.keys() if self._written is not None else set())
        held = self._streams.held
        quiet = {one: held[one].next_offset for one, left in behind.items() if left <= 0 and one in held.keys() - busy}
        if quiet:
            await reader.mark_caught_up(self._streams.group, self._streams.topic, quiet, at)

    async def _tell_kafka(self, *, force: bool = False) -> None:
        if force or elapsed() - self._committed > REFRESH_SECONDS:
            self._committed = elapsed()
            ready = set(self.source.ready)
            own = {partition: offset for partition, offset in self._read_to.items() if partition in ready}
            if own:
                await self.source.commit(own)

    async def _stores(self) -> tuple[IntakeStore, IntakeStore]:
        """The two dedicated connections, made anew when they are gone."""
        if self._writer is None or self._reader is None:
            self._writer = IntakeStore(await self._connect("intake writer"))
            self._reader = IntakeStore(await self._connect("intake reader"))
        return self._writer, self._reader

    async def _drop(self) -> None:
        """Forgets everything in the pipe; the offsets are read and sought again before the next batch."""
        for store in (self._writer, self._reader):
            if store is not None:
                store.connection.terminate()  # Before the batch: on a connection that is half open it would not end.
        self._writer = self._reader = None
        await self._forget_batch()
        self.source.unready()

    async def _forget_batch(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing], timeout=10)
        self._writing = self._written = None
        self._read_to.clear()
        self._knowledge.forget_rides()

    async def _reopen(self) -> None:
        writer, _ = await self._stores()
        await self._streams.open(writer)

    async def _suspect(self) -> dict[int, list[Any]]:
        """The records that a failure is about: those being written if that failed, else those that come next."""
        task, work = self._writing, self._written
        if task is not None and work is not None:
            await asyncio.wait([task], timeout=10)
            if not task.done() or task.cancelled() or task.exception() is not None:
                return work.records
        return self._upcoming

    def _unread(self, records: dict[int, list[Any]]) -> dict[int, list[Any]]:
        """Those of the records that nobody has taken meanwhile: an offset never goes back."""
        held, ready = self._streams.held, set(self.source.ready)
        left = {
            partition: [record for record in fetched if record.offset >= held[partition].next_offset]
            for partition, fetched in records.items()
            if partition in ready
        }
        return {partition: fetched for partition, fetched in left.items() if fetched}

    def _repeats(self, error: Exception, times: int) -> bool:
        """Whether the same failure stopped us so many times in a row."""
        name, count = self._failures
        said = f"{type(error).__name__}: {error}"
        self._failures = (said, count + 1 if said == name else 1)
        return self._failures[1] >= times
