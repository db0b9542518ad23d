"""What an operator brings over from another system: agreements that were signed there, debts that are open there.

A file is looked at whole before the first row is written, and each line is known by its own id: the same file again
changes nothing, a line that says something else is refused, and what was cut short goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import msgspec

from service.billing.agreements.asking import AskError

T = TypeVar("T")


class ImportFileError(ValueError):
    """Nothing can be brought over as things are; the message says why and what to do."""


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with a line, or, where it is only a `note`, what was taken otherwise than the file says it.

    No text of the file is repeated: it may be a person's.
    """

    line: int
    column: str
    said: str
    note: bool = False


class Tally(msgspec.Struct):
    """What became of the lines."""

    imported: int = 0
    there: int = 0
    refused: int = 0


class Desk:
    """Counts what becomes of lines, and passes on what is said about them."""

    def __init__(self, say: Callable[[Problem], None]) -> None:
        self.tally = Tally()
        self._say = say

    @contextmanager
    def in_order(self) -> Iterator[None]:
        """What is said meanwhile is passed on in the end, by line."""
        say, problems = self._say, list[Problem]()
        self._say = problems.append
        try:
            yield
        finally:
            self._say = say
            for problem in sorted(problems, key=lambda problem: problem.line):
                say(problem)

    def refuse(self, line: int, error: AskError) -> None:
        """A line that is not taken."""
        self.tally.refused += 1
        self._say(Problem(line, error.field, error.message))

    def note(self, line: int, column: str, said: str) -> None:
        """A line that is taken otherwise than it says."""
        self._say(Problem(line, column, said, note=True))


def in_chunks(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """The items, `size` at a time."""
    while chunk := list(islice(items, size)):
        yield chunk
