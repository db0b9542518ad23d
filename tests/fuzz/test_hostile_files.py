"""Files, bodies and answers that are made to exhaust: deep, long, packed, and full of what parsers stumble over."""

from __future__ import annotations

import gzip
import re
import resource
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import doors
import pytest
from doors_bills import DAY, packed
from doors_notices import SIGNED
from doors_records import KEY
from event_records import SESSION, STRUCTURED, binary
from fuzz_parts import Door, filled, written

from service.adapters.providers.alipay import statements
from service.billing.outcomes import Unknown

MB = 1 << 20
DEEP = 100_000
DIGITS = b"9" * 100_000
HOSTILE: dict[str, bytes] = {
    "lists without end": b"[" * DEEP,
    "lists in lists": b"[" * DEEP + b"]" * DEEP,
    "objects in objects": b'{"data":' * DEEP + b"1" + b"}" * DEEP,
    "an object with a deep field that nobody reads": b'{"x":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "a number of 100,000 digits": b'{"amount_minor":%b,"price":%b,"timestamp":%b}' % (DIGITS, DIGITS, DIGITS),
    "a number beyond all bounds": b'{"price":1e400000000,"distance":1e400000000,"amount":-1e400000000}',
    "a number next to nothing": b'{"price":1e-400000000,"rate":0.%b1}' % (b"0" * 100_000),
    "10 MB of text": b'{"id":"%b"}' % (b"x" * (10 * MB)),
    "1 MB of fields": b"{%b}" % b",".join(b'"f%d":1' % number for number in range(80_000)),
    "1 MB of one field": b"{%b}" % b",".join([b'"id":"x"'] * 100_000),
    "a field that stands twice": b'{"id":"a","id":"b","session_id":"s","session_id":"t","code":"1","code":"2"}',
    "NUL at the bottom of lists": b"[" * 900 + b'"\\u0000"' + b"]" * 900,
    "NUL after much else, far down": b'{"%b":' % (b"n" * 256) * 300
    + b"["
    + b"1," * 200_000
    + b'"\\u0000"]'
    + b"}" * 300,
    "NUL": b'{"id":"\\u0000","session_id":"\\u0000","code":"a\\u0000b"}',
    "a lone surrogate": b'{"id":"\\ud800","session_id":"\\udfff\\ud800","\\ud800":1}',
    "bad UTF-8": b'{"id":"\xff\xfe","x":"\xc3"}',
    "overlong UTF-8": b'{"id":"\xc0\xaf\xe0\x80\xaf"}',
    "a byte order mark": b'\xef\xbb\xbf{"id":"a"}',
    "UTF-16": '{"id":"a"}'.encode("utf-16"),
    "a second document": b'{"id":"a"}{"id":"b"}',
    "lines and colours for a log": b'{"id":"a\\r\\nERROR forged\\u001b[31m","reason":"\\u001b[2J\\u2028"}',
    "SQL and templates": b'{"id":"\';DROP TABLE ride;--","reason":"{{7*7}}${jndi:ldap://x}%s%n{0.__class__}"}',
    "nothing": b"",
    "10 MB of nothing": b" " * (10 * MB),
    "gzip": gzip.compress(b'{"id":"a"}'),
    "a CSV of one cell": b'"' + b"x" * MB,
    "a CSV of commas": b"," * MB,
    "a CSV of quotes": b'"' * MB,
    "a form of names": b"&".join(b"f%d=1" % number for number in range(100_000)),
    "a form of per cents": b"a=" + b"%" * MB,
}
"""What is tried at every door, in every part of its input: texts of documents, of lines, of forms."""
MEMORY = 256 * MB
"""The most that a door may need for any of these, over what its input is."""
RECORD_KEY = (KEY, SESSION.encode())


def in_each_part(name: str, hostile: bytes) -> list[bytes]:
    """The input bare, behind the head that its door reads, and in the head."""
    line = hostile.replace(b"\n", b" ")
    if name == "record":
        whole = filled(binary().headers)
        there = [RECORD_KEY, (b"content-type", STRUCTURED.encode())]
        held = [written([RECORD_KEY, *whole], hostile), written(there, hostile)]
        return [*held, written([RECORD_KEY, *whole[1:], (b"ce_id", line), (b"ce_x", line)], b"{}")]
    if name.endswith(("-notice", "-answer")):
        call = [(b"call", b"debit"), (b"status", b"200")]
        return [
            written([*call, SIGNED], hostile),
            written(call, hostile),
            written([*call, (b"Retry-After", line)], b""),
        ]
    if name == "data":
        return [b"\0" + hostile, b"\1" + hostile]
    return [hostile]


def highest() -> int:
    """The most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def told(what: str) -> Iterator[None]:
    """Whatever is raised says what was tried."""
    tried = [what]
    try:
        yield
        tried.clear()
    finally:
        if tried:
            print(f"tried: {tried[0]}")


@pytest.mark.parametrize("door", doors.DOORS, ids=lambda door: str(door.name))
def test_no_door_is_exhausted_by_what_is_made_to_exhaust(door: Door) -> None:
    door.enter(door.seeds()[0])  # What is made once is made now.
    for what, hostile in HOSTILE.items():
        for number, data in enumerate(in_each_part(door.name, hostile)):
            before = highest()
            with told(f"{what}, part {number}"):
                door.enter(data)
            assert highest() - before < MEMORY, f"{what}: {highest() - before >> 20} MB more than ever before"


def lying(archive: bytes, length: int) -> bytes:
    """The archive, saying that what it holds is 100 bytes long."""
    said = length.to_bytes(4, "little")
    assert archive.count(said) == 2
    return archive.replace(said, (100).to_bytes(4, "little"))


BOMB = 160 * MB
BOMBS: dict[str, Callable[[], bytes]] = {
    "as long as it says": lambda: packed(b"\0" * BOMB, zipfile.ZIP_DEFLATED),
    "longer than it says": lambda: lying(packed(b"\0" * BOMB, zipfile.ZIP_DEFLATED), BOMB),
    "packed by bzip2": lambda: packed(b"\0" * MB, zipfile.ZIP_BZIP2),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bill_that_unpacks_to_more_than_is_taken_is_refused_before_it_does(bomb: str) -> None:
    archive = BOMBS[bomb]()
    assert len(archive) < MB
    tracemalloc.start()
    try:
        told = statements.unpacked(DAY, archive)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(told, Unknown)
    assert re.search(r"too long|can't be read", told.reason)
    assert most < 2.5 * statements.UNPACKED_BYTES_MAX


def test_an_answer_that_unpacks_to_a_quarter_of_a_gigabyte_is_left_at_its_bound() -> None:
    """`Content-Encoding: gzip`: aiohttp unpacks as it reads, we stop at ANSWER_BYTES_MAX."""
    packing = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packing.compress(b"\0" * MB) for _ in range(256)) + packing.flush()
    (door,) = (door for door in doors.DOORS if door.name == "sandbox-answer")
    tracemalloc.start()
    try:
        door.enter(written([(b"call", b"debit"), (b"Content-Encoding", b"gzip")], bomb))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 100 * MB, f"{most >> 20} MB"
