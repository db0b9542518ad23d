"""Records and batches that no producer of ours would send, put on a real topic."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from random import Random

import cramjam
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.codec import _XERIAL_V1_FORMAT, _XERIAL_V1_HEADER
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.util import encode_varint

Headers = Sequence[tuple[str, bytes | None]]
MB = 1 << 20
GOOD: Headers = (("ce_specversion", b"1.0"), ("content-type", b"application/json"))
SNAPPY = 2
AT_MS = 1_790_000_000_000


class NotUtf8(str):
    """A header's name as a producer in another language may send it."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """Bytes that are no UTF-8."""
        return b"ce_\xff\xfe"


HOSTILE: dict[str, tuple[Headers, bytes | None]] = {
    "a header without a value": ([*GOOD, ("traceparent", None)], b"{}"),
    "an attribute without a value": ([*GOOD, ("ce_type", b"io.farebox.session.ended.v1"), ("ce_id", None)], b"{}"),
    "a header's name that is not UTF-8": ([*GOOD, (NotUtf8("x"), b"1")], b"{}"),
    "a header's name that looks like what is kept of such a one": ([*GOOD, (r"ce_\xff\x5c\n\\", b"1")], b"{}"),
    "a NUL in the name of a header that stands twice": ([*GOOD, ("ce_\0", b"1"), ("ce_\0", b"2")], b"{}"),
    "lines in the names and values of headers": ([("ce_id\r\nx: y", b"\r\n\x1b[31m"), *GOOD], b"{}"),
    "gzip": ([*GOOD, ("content-encoding", b"gzip")], gzip.compress(b"{}")),
    "deep": (GOOD, b'{"data":' * 100_000),
    "NUL and what is no text": (GOOD, b'\0\xff\xfe{"id":"\\u0000"}'),
    "900 KB that nothing packs": (GOOD, Random(1).randbytes(900 * 1024)),
    "10 MB": (GOOD, b'{"session_id":"%b"}' % (b"x" * (10 * MB))),
    "10 MB of brackets": (GOOD, b"[" * (10 * MB)),
    "1.5 MB of headers": ([*GOOD, *((f"x-{number}", b"y" * 10_000) for number in range(150))], b"{}"),
    "nothing": (GOOD, None),
}


async def send(
    bootstrap: str, topic: str, key: bytes | None, headers: Headers, value: bytes | None, at_ms: int = AT_MS
) -> None:
    """A batch of one record, packed by the client's Python: its C takes no such names."""
    builder = _DefaultRecordBatchBuilderPy(2, SNAPPY, 0, -1, -1, 0, 16 * MB)
    builder.append(0, at_ms, key, value, list(headers))
    await _put(bootstrap, topic, builder)


async def take_any_timestamp(bootstrap: str, topic: str) -> None:
    """The topic takes what producers' clocks say, as all did before Kafka 4."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        limit = {"message.timestamp.after.max.ms": str(2**63 - 1)}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, limit)])
    finally:
        await admin.close()


async def send_bomb(bootstrap: str, topic: str, codec: str, length: int) -> None:
    """A batch of one record of so many zeros, packed piece by piece."""
    await _put(bootstrap, topic, _Packed(CODECS[codec], _record(length)))


async def send_spoiled(bootstrap: str, topic: str, codec: str, *, checked: bool) -> None:
    """A batch whose packed content is cut short; its checksum is that of it where it is `checked`. Raises what the
    broker says of it."""
    builder = _Packed(CODECS[codec], _record(MB))
    del builder._buffer[-9:]
    if not checked:
        builder.build = lambda: bytearray(_flipped(_DefaultRecordBatchBuilderPy.build(builder)))
    await _put(bootstrap, topic, builder)


def _flipped(batch: bytearray) -> bytearray:
    batch[_DefaultRecordBatchBuilderPy.CRC_OFFSET] ^= 0xFF
    return batch


async def _put(bootstrap: str, topic: str, builder: _DefaultRecordBatchBuilderPy) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=16 * MB)
    await producer.start()
    try:
        batch = BatchBuilder(16 * MB, 0)
        batch._builder = builder
        batch._relative_offset = 1
        batch.close()
        await (await producer.send_batch(batch, topic, partition=0))
    finally:
        await producer.stop()


def _record(length: int) -> Iterator[bytes]:
    """A record of format 2 in pieces: no key, no headers, a value of zeros. `length` is in whole megabytes."""
    head, size = bytearray(b"\0\0\0"), bytearray()  # Attributes, and no difference in time and offset to the first.
    encode_varint(-1, head.append)
    encode_varint(length, head.append)
    encode_varint(len(head) + length + 1, size.append)
    yield bytes(size + head)
    for _ in range(length // MB):
        yield bytes(MB)
    yield b"\0"


def _gzip(pieces: Iterator[bytes]) -> bytes:
    packing = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packing.compress(piece) for piece in pieces) + packing.flush()


def _snappy(pieces: Iterator[bytes]) -> bytes:
    blocks = [bytes(cramjam.snappy.compress_raw(piece)) for piece in pieces]
    return struct.pack("!" + _XERIAL_V1_FORMAT, *_XERIAL_V1_HEADER) + b"".join(
        len(block).to_bytes(4) + block for block in blocks
    )


def _lz4(pieces: Iterator[bytes]) -> bytes:
    packing = cramjam.lz4.Compressor(level=9, content_checksum=False, block_linked=False)
    for piece in pieces:
        packing.compress(piece)
    return bytes(packing.finish())


def _zstd(pieces: Iterator[bytes]) -> bytes:
    packing = cramjam.zstd.Compressor()
    for piece in pieces:
        packing.compress(piece)
    return bytes(packing.finish())


CODECS: dict[str, tuple[int, Callable[[Iterator[bytes]], bytes]]] = {
    "gzip": (1, _gzip),
    "snappy": (SNAPPY, _snappy),
    "lz4": (3, _lz4),
    "zstd": (4, _zstd),
}


class _Packed(_DefaultRecordBatchBuilderPy):  # type: ignore[misc]  # aiokafka ships no types for it.
    """A batch of one record that is packed already."""

    def __init__(self, codec: tuple[int, Callable[[Iterator[bytes]], bytes]], pieces: Iterator[bytes]) -> None:
        super().__init__(2, codec[0], 0, -1, -1, 0, 16 * MB)
        self._first_timestamp = self._max_timestamp = AT_MS
        self._num_records = 1
        self._buffer += codec[1](pieces)

    def _maybe_compress(self) -> bool:
        return True
