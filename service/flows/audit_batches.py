"""The audit of the batches: each writer's chain, over the digests of the revisions that name it and of its facts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from service.adapters.postgres.audit import AuditStore, StoredBatch, Writer
from service.billing.auditing.problems import MISSING, Place, Problem
from service.billing.proofs import BATCH_BITS, batch_columns, batch_digest, batch_no, fingerprint

NOTHING = fingerprint(b"")
"""The digest of no facts."""


async def check_batches(store: AuditStore) -> AsyncIterator[Problem]:
    """Every disagreement between the batches, the revisions they wrote, their facts and the ends of their chains."""
    chain = _Chain(await store.writers(), await store.cursors("publication"))
    written = _Written(store.written())
    async for batch in store.batches():
        number = batch_no(batch.writer_no, batch.seq)
        for stray in await written.before(number):
            yield _stray(chain, stray)
        for problem in chain.check(batch, await written.of(number)):
            yield problem
    for stray in await written.before(None):
        yield _stray(chain, stray)
    for problem in chain.ends():
        yield problem
    for wrong in await store.wrong_numbers():
        yield Problem(Place(), "batch", "number", "drawn, and once", wrong)
    for writer_no, seq in await store.lost_facts():
        yield Problem(chain.place(writer_no, seq), "batch_facts", "*", MISSING, "facts without their batch")


def _stray(chain: _Chain, number: int) -> Problem:
    writer_no, seq = divmod(number, 1 << BATCH_BITS)
    return Problem(chain.place(writer_no, seq), "ride_revision", "batch_no", "a batch that is there", number)


class _Written:
    """The revisions' digests beside the batches, both in the order of the batches' numbers."""

    def __init__(self, rows: AsyncIterator[tuple[int, bytes]]) -> None:
        self._rows = rows
        self._next: tuple[int, bytes] | None = None
        self._begun = False

    async def of(self, number: int) -> list[bytes]:
        """The digests of the revisions that name this batch."""
        digests = []
        while (row := await self._peek()) is not None and row[0] == number:
            digests.append(row[1])
            self._next = await anext(self._rows, None)
        return digests

    async def before(self, number: int | None) -> list[int]:
        """The numbers of batches before this one, or of all that are left, that revisions name and nobody wrote."""
        strays: set[int] = set()
        while (row := await self._peek()) is not None and (number is None or row[0] < number):
            strays.add(row[0])
            self._next = await anext(self._rows, None)
        return sorted(strays)

    async def _peek(self) -> tuple[int, bytes] | None:
        if not self._begun:
            self._begun = True
            self._next = await anext(self._rows, None)
        return self._next


class _Chain:
    """Every writer's batches, one after the other."""

    def __init__(self, writers: Mapping[int, Writer], published: Mapping[int, int]) -> None:
        self._writers = writers
        self._published = published
        self._last: dict[int, StoredBatch] = {}

    def place(self, writer_no: int, seq: int) -> Place:
        """Where a batch is."""
        writer = self._writers.get(writer_no)
        return Place(writer=writer.name if writer is not None else f"number {writer_no}", seq=seq)

    def check(self, batch: StoredBatch, digests: Sequence[bytes]) -> Iterator[Problem]:
        """A batch against the one before it and what it wrote."""
        place, before = self.place(batch.writer_no, batch.seq), self._last.get(batch.writer_no)
        self._last[batch.writer_no] = batch
        if batch.writer_no not in self._writers:
            yield Problem(place, "batch", "writer_no", "a writer", batch.writer_no)
        expected = {
            "seq": (before.seq if before is not None else 0) + 1,
            "revisions": len(digests),
            "digest": batch_digest(
                before.digest if before is not None else b"",
                [
                    *digests,
                    batch.facts_digest,
                    batch_columns(batch.revisions, batch.owing, batch.business_at, batch.machine_at),
                ],
            ),
        }
        for column, wanted in expected.items():
            if getattr(batch, column) != wanted:
                yield Problem(place, "batch", column, wanted, getattr(batch, column))
        if before is not None and batch.number <= before.number:
            yield Problem(place, "batch", "number", f"more than {before.number}", batch.number)
        yield from self._check_facts(place, batch)

    def _check_facts(self, place: Place, batch: StoredBatch) -> Iterator[Problem]:
        if batch.facts is not None:
            if fingerprint(batch.facts) != batch.facts_digest:
                yield Problem(place, "batch_facts", "facts", batch.facts_digest, fingerprint(batch.facts))
        elif batch.facts_digest != NOTHING and batch.seq > self._published.get(batch.writer_no, 0):
            yield Problem(place, "batch_facts", "*", "facts that are not published yet", MISSING)

    def ends(self) -> Iterator[Problem]:
        """Each writer stands where his last batch left him."""
        for writer_no, writer in sorted(self._writers.items()):
            last = self._last.get(writer_no)
            seq, digest = (last.seq, last.digest) if last is not None else (0, b"")
            for column, wanted, found in (("seq", seq, writer.seq), ("digest", digest, writer.digest)):
                if wanted != found:
                    yield Problem(self.place(writer_no, seq), "writer or stream_offset", column, wanted, found)
