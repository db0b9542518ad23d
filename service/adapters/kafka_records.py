"""Fetched records, read whatever their headers are called and however small their batch was packed.

Kafka's protocol says that a header's name is text, and no broker looks: a producer may send any bytes. aiokafka decodes
names as UTF-8 while it hands out records, has no option for it, and asks for the same batch again after an error: one
such record would end the reading of its partition. Here those batches, and only those, are read once more in Python,
with surrogates for the bytes of such names; their values and everything else are as they were sent.

Brokers bound what a batch has when it is packed, and aiokafka unpacks a batch whole: a megabyte may be gigabytes. Here
what is unpacked at once, and what is handed out at once, is bounded. A batch that can't be unpacked becomes one record
that stands for it (`PACKED_BATCH`), and its partition goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from types import SimpleNamespace
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

from service.adapters.kafka_unpacking import UNPACKED_BYTES_MAX, UnpackingError, unpacked
from service.billing.events.cloudevents import PACKED_BATCH

OVERHEAD = 12
"""Of a batch: its first offset (8 bytes), and the length of what follows (4)."""
MAGIC_AT = 16
"""Where a batch says its format; headers came with format 2."""


class _Allowance:
    """How many bytes may still be handed out at once."""

    def __init__(self, left: int) -> None:
        self.left = left


_ALLOWANCE: ContextVar[_Allowance | None] = ContextVar("allowance", default=None)


@contextmanager
def at_once(bytes_max: int) -> Iterator[None]:
    """Within this a consumer hands out records until their batches came to so many bytes, unpacked."""
    token = _ALLOWANCE.set(_Allowance(bytes_max))
    try:
        yield
    finally:
        _ALLOWANCE.reset(token)


class BoundedResult(fetcher.FetchResult):  # type: ignore[misc]  # aiokafka ships no types for it.
    """What one fetch brought of a partition, handed out as far as is allowed at once."""

    _partition_records: Any

    def getall(self, max_records: int | None = None) -> list[Any]:
        """The next records, at most `max_records`; those that are left come with the next call."""
        allowance = _ALLOWANCE.get()
        if allowance is None:
            return list(super().getall(max_records))
        if allowance.left <= 0 or not self.check_assignment(self._topic_partition) or not self.has_more():
            return []
        found: list[Any] = []
        for record in self._partition_records:
            found.append(record)
            if allowance.left <= 0 or len(found) == max_records:
                self._update_position()
                return found
        self._update_position()
        self._partition_records = None
        return found


class ReadableRecords:
    """What a partition's fetch brought, as the client takes it apart."""

    def __init__(self, data: bytes) -> None:
        self._batches = MemoryRecords(data)
        self._data = memoryview(data)
        self._at = 0

    def size_in_bytes(self) -> int:
        """Of everything."""
        return int(self._batches.size_in_bytes())

    def has_next(self) -> bool:
        """Whether there is another whole batch."""
        return bool(self._batches.has_next())

    def next_batch(self) -> Any:
        """The next batch."""
        batch, begins = self._batches.next_batch(), self._at
        self._at += OVERHEAD + int.from_bytes(self._data[begins + 8 : begins + OVERHEAD], "big")
        raw = self._data[begins : self._at]
        return batch if raw[MAGIC_AT] < 2 else _Batch(batch, raw)


class _Batch:
    """A batch of the client, which goes on where it can't."""

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        allowance = _ALLOWANCE.get() or _Allowance(0)
        try:
            raw = unpacked(self._raw)
        except UnpackingError:
            allowance.left -= UNPACKED_BYTES_MAX  # It took as much memory, for a moment, and its time.
            yield self._standing_for_it()
            return
        allowance.left -= len(raw)
        done = 0
        try:
            for record in self._batch if raw is self._raw else DefaultRecordBatch(raw):
                yield record
                done += 1
        except UnicodeDecodeError:
            yield from islice(_escaped(raw), done, None)

    def _standing_for_it(self) -> Any:
        """One record at the batch's last offset, with the bytes of all of it."""
        batch = self._batch
        told = {"offset": batch.next_offset - 1, "timestamp": batch.max_timestamp, "checksum": None, "key": None}
        told |= {"timestamp_type": batch.timestamp_type, "value": bytes(self._raw)}
        return SimpleNamespace(**told, headers=[("content-type", PACKED_BATCH)])


def _escaped(raw: bytes | memoryview) -> Iterator[Any]:
    batch = _DefaultRecordBatchPy(raw)
    batch._buffer = _Escaping(batch._buffer)
    return iter(batch)


class _Escaping(bytearray):
    """Bytes whose parts decode to something in any case."""

    def __getitem__(self, at: Any) -> Any:
        part = super().__getitem__(at)
        return _Escaping(part) if isinstance(part, bytearray) else part

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """What is no UTF-8 becomes surrogates."""
        return super().decode(encoding, "surrogateescape")


def read_every_record() -> None:
    """Has every consumer of this process read so."""
    fetcher.MemoryRecords = ReadableRecords
    fetcher.FetchResult = BoundedResult
