"""Fetched records, read whatever their headers are called.

Kafka's protocol says that a header's name is text, and no broker looks: a producer may send any bytes. aiokafka decodes
names as UTF-8 while it hands out records, has no option for it, and asks for the same batch again after an error: one
such record would end the reading of its partition. Here those batches, and only those, are read once more in Python,
with the bytes of such names escaped (`ce_\\xff`); their values and everything else are as they were sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

OVERHEAD = 12
"""Of a batch: its first offset (8 bytes), and the length of what follows (4)."""
MAGIC_AT = 16
"""Where a batch says its format; headers came with format 2."""


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
        done = 0
        try:
            for record in self._batch:
                yield record
                done += 1
        except UnicodeDecodeError:
            yield from islice(_escaped(self._raw), done, None)


def _escaped(raw: memoryview) -> Iterator[Any]:
    batch = _DefaultRecordBatchPy(raw)
    batch._maybe_uncompress()
    batch._buffer = _Escaping(batch._buffer)
    return iter(batch)


class _Escaping(bytearray):
    """Bytes whose parts decode to something in any case."""

    def __getitem__(self, at: Any) -> Any:
        part = super().__getitem__(at)
        return _Escaping(part) if isinstance(part, bytearray) else part

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """What is no UTF-8 is written as `\\xff`."""
        return super().decode(encoding, "backslashreplace")


def read_every_record() -> None:
    """Has every consumer of this process read so."""
    fetcher.MemoryRecords = ReadableRecords
