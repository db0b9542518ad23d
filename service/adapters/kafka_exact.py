"""Records that aiokafka's producer does not send as they are: with neither key nor value, or with a header whose name
is no UTF-8. They were on Kafka, so they can be again: a batch of one, made by the client's Python, not its C."""

from __future__ import annotations

import time
from collections.abc import Sequence

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

MAGIC = 2
"""The format of batches that has headers."""


def sends_as_it_is(key: bytes | None, headers: Sequence[tuple[str, bytes | None]], value: bytes | None) -> bool:
    """Whether the producer takes the record."""
    if key is None and value is None:
        return False
    try:
        for name, _ in headers:
            name.encode()
    except UnicodeEncodeError:
        return False
    return True


def batch_of(key: bytes | None, headers: Sequence[tuple[str, bytes | None]], value: bytes | None) -> BatchBuilder:
    """A closed batch of that one record."""
    batch = _Exact(1, 0)
    named = [(_Name(name), text) for name, text in headers]
    batch.append(timestamp=int(time.time() * 1000), key=key, value=value, headers=named)
    batch.close()
    return batch


class _Name(str):
    """A name of a header with surrogates for what is no UTF-8, which go out as the bytes that they stand for."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """As `surrogateescape` has it."""
        return super().encode(encoding, "surrogateescape")


class _Exact(BatchBuilder):  # type: ignore[misc]  # aiokafka ships no types for it.
    """A batch whose records are packed in Python; the first is taken whatever its size."""

    def __init__(self, batch_size: int, compression_type: int) -> None:
        super().__init__(batch_size, compression_type)
        self._builder = _DefaultRecordBatchBuilderPy(MAGIC, compression_type, 0, -1, -1, 0, batch_size)

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._builder.set_producer_state(producer_id, producer_epoch, base_sequence)
