"""Batches that say little and unpack to much: bounded in memory, set aside as they are, and their partition goes on."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import repeat

import pytest
from aiokafka.errors import KafkaError
from hostile import CODECS, MB, send_bomb, send_spoiled
from intake_world import World, world_on

from service.adapters.kafka_unpacking import ATTRIBUTES_AT, HEADER_BYTES, UNPACKED_BYTES_MAX, UnpackingError, unpacked
from service.lab.servers import Servers

BOMBS = ("gzip", "lz4", "zstd")
"""What packs 200 MB of zeros into the megabyte that a broker takes."""
MEMORY = 200 * MB
"""The most that an intake may need for any batch, over what it needs anyway."""
EVERY = sorted(CODECS)


@pytest.fixture
async def world(servers: Servers, migrated_template: str, topic: Callable[..., Awaitable[str]]) -> AsyncIterator[World]:
    async with world_on(servers, migrated_template, await topic()) as world:
        yield world


async def test_batches_that_unpack_to_gigabytes_are_set_aside_packed_and_their_partition_goes_on(world: World) -> None:
    await world.ride("before", 20)
    intake = await world.intake()
    await world.drain(intake, 2)
    for codec in CODECS:
        await send_bomb(world.bootstrap, world.topic, codec, 12 * MB)
        for checked in (False, True):  # What a broker takes apart itself, it refuses.
            with pytest.raises(KafkaError):
                await send_spoiled(world.bootstrap, world.topic, codec, checked=checked)
    for codec in BOMBS:
        await send_bomb(world.bootstrap, world.topic, codec, 200 * MB)
    await world.ride("behind", 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await world.drain(intake, 2 + len(CODECS) + len(BOMBS) + 2)
    most = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert most < MEMORY, f"{most >> 20} MB"
    assert (await world.charges())["behind"] == ("closed", 250)
    held = await world.rows("SELECT path, octet_length(record_value) FROM quarantine ORDER BY quarantine_no")
    assert held[: len(CODECS)] == [("headers.ce_type", 12 * MB)] * len(CODECS)
    assert [path for path, _ in held[len(CODECS) :]] == ["value"] * len(BOMBS)
    assert all(length < MB for _, length in held[len(CODECS) :])


FORKED = """
import os
import cramjam
from service.adapters.kafka_unpacking import _in_the_room
told = _in_the_room(cramjam.lz4, bytes(cramjam.lz4.compress(b"the parent's")))
if os.fork() == 0:
    _in_the_room(cramjam.lz4, bytes(cramjam.lz4.compress(b"the child's!")))
    os._exit(0)
os.wait()
print(bytes(told).decode())
"""


def test_processes_that_are_forked_do_not_unpack_into_one_anothers_memory() -> None:
    assert subprocess.check_output([sys.executable, "-c", FORKED], text=True) == "the parent's\n"


def batch(codec: int, content: bytes) -> memoryview:
    """A batch's frame around what is packed in it."""
    head = bytearray(HEADER_BYTES)
    head[ATTRIBUTES_AT] = codec
    return memoryview(bytes(head) + content)


@pytest.mark.parametrize("name", EVERY)
def test_what_was_packed_comes_out_as_it_was_up_to_the_bound(name: str) -> None:
    codec, pack = CODECS[name]
    for megabytes in (1, UNPACKED_BYTES_MAX // MB):
        told = unpacked(batch(codec, pack(repeat(b"z" * MB, megabytes))))
        assert (len(told), told[ATTRIBUTES_AT]) == (HEADER_BYTES + megabytes * MB, 0)
    with pytest.raises(UnpackingError):
        unpacked(batch(codec, pack(repeat(b"z" * MB, UNPACKED_BYTES_MAX // MB + 1))))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("spoil", [lambda told: told[:-9], lambda told: b"x" + told, lambda told: b"\xff" * 99])
def test_what_is_packed_wrongly_is_refused_and_nothing_else_is_raised(
    name: str, spoil: Callable[[bytes], bytes]
) -> None:
    codec, pack = CODECS[name]
    with pytest.raises(UnpackingError):
        unpacked(batch(codec, spoil(pack(iter([b"events, " * 999])))))


def test_blocks_that_lie_about_their_length_and_codecs_that_nobody_knows_are_refused() -> None:
    xerial = CODECS["snappy"][1](iter([b"events"]))
    for block in (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff\xff\xff\xff\xff\x0f"):
        with pytest.raises(UnpackingError):
            unpacked(batch(2, xerial + block))
    for length in (b"\xff\xff\xff\xff\x0f", b""):
        with pytest.raises(UnpackingError):
            unpacked(batch(2, length))
    for codec in (5, 6, 7):
        with pytest.raises(UnpackingError):
            unpacked(batch(codec, b"events"))
    plain = batch(0, b"events")
    assert unpacked(plain) is plain
