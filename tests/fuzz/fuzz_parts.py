"""What every door of the fuzzer is: a function of the service under any bytes, inputs to begin with, words to try.

An input that has more than one part is written as a request is: lines `name: value`, an empty line, the body. So seeds
can be read, what was found can be read, and a mutation of one part leaves the others whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import msgspec

from service.billing.instants import utc

TOP = Path(__file__).resolve().parents[2]
EXAMPLES = TOP / "schemas" / "examples"
DATA = TOP / "tests" / "data"
INT8 = range(-(2**63), 2**63)

Pairs = list[tuple[bytes, bytes]]


class Door(NamedTuple):
    """One door.

    `enter` takes an input and returns; whatever it raises is a finding. `runs` is how often `make test` knocks, `words`
    is what mutations are made with beside what they find out by themselves.
    """

    name: str
    enter: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    runs: int
    words: Sequence[str] = ()


def parts(data: bytes) -> tuple[Pairs, bytes | None]:
    """The named lines of an input, and what comes after them; None where nothing does."""
    head, there, body = data.partition(b"\n\n")
    lines = [line.partition(b": ") for line in head.split(b"\n")]
    return [(name, value) for name, _, value in lines], body if there else None


def filled(headers: Sequence[tuple[str, bytes | None]]) -> Pairs:
    """Headers as lines of an input, which have no other value than an empty one for none."""
    return [(name.encode(), value or b"") for name, value in headers]


def written(pairs: Sequence[tuple[bytes, bytes]], body: bytes | None) -> bytes:
    """An input of these parts."""
    head = b"\n".join(name + b": " + value for name, value in pairs)
    return head if body is None else head + b"\n\n" + body


def one_of(pairs: Pairs, name: bytes, default: bytes = b"") -> bytes:
    """The first value of that name."""
    return next((value for known, value in pairs if known == name), default)


def storable(told: Any) -> None:
    """What a door let in can be kept: every text is one that PostgreSQL takes, every number fits its columns, every
    instant is one that anybody can mean."""
    for value in _leaves(told):
        if isinstance(value, str):
            assert "\0" not in value, f"a NUL in {told!r}"
            value.encode()  # A lone surrogate has no UTF-8.
        elif isinstance(value, int) and not isinstance(value, bool):
            assert value in INT8, f"{value} does not fit in {told!r}"
        elif isinstance(value, datetime):
            utc(value)  # What is reckoned from it stays in the calendar.


def in_words(reason: str) -> None:
    """A refusal says something that can be kept and shown: one line of words, without control characters."""
    assert reason.strip(), "refused without a reason"
    assert reason.isprintable(), f"a reason that can't be printed: {reason!r}"


@cache
def room() -> Path:
    """Where this process keeps its keys and files; the fuzzer removes it."""
    return Path(mkdtemp())


def run(work: Coroutine[Any, Any, None]) -> None:
    """Awaits on the one loop of this process, which doors with connections keep."""
    loop().run_until_complete(work)


def loop() -> asyncio.AbstractEventLoop:
    """The loop of this process."""
    if not _LOOPS:
        _LOOPS.append(asyncio.new_event_loop())
    return _LOOPS[0]


def _leaves(told: Any) -> Iterator[Any]:
    if isinstance(told, msgspec.Struct):
        for name in told.__struct_fields__:
            yield from _leaves(getattr(told, name))
    elif isinstance(told, dict):
        for name, value in told.items():
            yield name
            yield from _leaves(value)
    elif isinstance(told, list | tuple | frozenset):
        for value in told:
            yield from _leaves(value)
    else:
        yield told


_LOOPS: list[asyncio.AbstractEventLoop] = []
