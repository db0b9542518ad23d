"""A compressed batch of Kafka's, unpacked to no more than UNPACKED_BYTES_MAX."""

from __future__ import annotations

import gzip
import io
import mmap
import zlib
from collections.abc import Iterator
from typing import Any

import cramjam
from aiokafka.codec import _detect_xerial_stream

UNPACKED_BYTES_MAX = 16 * 1024 * 1024
"""A thousand times a producer's usual batch as it is packed, sixteen times the longest that brokers take by default."""
HEADER_BYTES = 61
ATTRIBUTES_AT = 22
"""The lower byte of a batch's attributes. Source: Kafka's documentation, message format, record batch, magic 2."""
CODEC = 0b111
XERIAL_HEADER_BYTES = 16


class UnpackingError(ValueError):
    """A batch that is packed in no way that is known, wrongly, or too well."""


def unpacked(batch: memoryview) -> bytes | memoryview:
    """The batch as it would be if it had not been packed, its checksum aside; itself where it was not. Raises
    UnpackingError."""
    codec = batch[ATTRIBUTES_AT] & CODEC
    if codec == 0:
        return batch
    head, packed = bytearray(batch[:HEADER_BYTES]), batch[HEADER_BYTES:].tobytes()
    head[ATTRIBUTES_AT] &= ~CODEC
    try:
        match codec:
            case 1:
                return b"".join((head, _gunzipped(packed)))
            case 2:
                return b"".join((head, *_unsnapped(packed)))
            case 3:
                return b"".join((head, _in_the_room(cramjam.lz4, packed)))
            case 4:
                return b"".join((head, _in_the_room(cramjam.zstd, packed)))
            case _:
                raise UnpackingError(f"there is no codec {codec}")
    except (zlib.error, EOFError, OSError, cramjam.DecompressionError) as error:
        raise UnpackingError(str(error)) from error


def _gunzipped(packed: bytes) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
        told = file.read(UNPACKED_BYTES_MAX + 1)
    if len(told) > UNPACKED_BYTES_MAX:
        raise UnpackingError("too long")
    return told


def _unsnapped(packed: bytes) -> Iterator[bytes]:
    """The blocks, each of which says how long it is before it is unpacked."""
    left = UNPACKED_BYTES_MAX
    for block in _blocks(packed) if _detect_xerial_stream(packed) else [packed]:
        left -= cramjam.snappy.decompress_raw_len(block)
        if left < 0:
            raise UnpackingError("too long")
        yield bytes(cramjam.snappy.decompress_raw(block))


def _blocks(packed: bytes) -> Iterator[bytes]:
    """What the xerial framing holds, which Java's clients write."""
    at = XERIAL_HEADER_BYTES
    while at < len(packed):
        size = int.from_bytes(packed[at : at + 4], signed=True)
        if size <= 0:
            raise UnpackingError(f"a block of {size} bytes")
        yield packed[at + 4 : at + 4 + size]
        at += 4 + size


def _in_the_room(codec: Any, packed: bytes) -> memoryview:
    """Unpacked into memory that is there once and no longer than may be: what does not fit raises. It is good until the
    next call."""
    return memoryview(_ROOM)[: codec.decompress_into(packed, _ROOM)]


_ROOM = mmap.mmap(-1, UNPACKED_BYTES_MAX, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
"""Pages are taken as they are written to, and by each process for itself: unless it is said, a process that is forked
would unpack into this one's."""
