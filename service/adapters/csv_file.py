"""CSV files that operators hand in: read once, line by line, in bounded memory; what can't be read is told by line.

No text of a file is ever repeated in what is said about it: it may be a person's.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

RECORD_BYTES_MAX = 64 * 1024
"""The longest line of a file, and the longest record where quotes carry one over several lines."""
LINES_MAX = 1_000_000
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_SAVE = "save the file as UTF-8 (in a spreadsheet: CSV UTF-8)"


class CsvFileError(ValueError):
    """The file as a whole can't be used; the message says where, why, and what to do."""


class Columns(msgspec.Struct, frozen=True):
    """What the first line may name: each once, in any order."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def known(self) -> tuple[str, ...]:
        """All of them."""
        return self.required + self.optional


class Line(msgspec.Struct, frozen=True):
    """A line of data: the number of its first line in the file, and its cells by column; an optional cell that is not
    there is empty. `torn` says why the cells are none."""

    number: int
    cells: Mapping[str, str] = {}
    torn: str | None = None


class Seen:
    """Values that must stand in a file once, by 8 bytes each."""

    def __init__(self) -> None:
        self._lines: dict[int, int] = {}

    def before(self, column: str, value: str, line: int) -> int | None:
        """The line on which the column had this value before; None where this is the first."""
        first = self._lines.setdefault(hash((column, value)), line)
        return None if first == line else first


def read_lines(path: Path, columns: Columns) -> Iterator[Line]:
    """The file's lines of data in order; empty lines are passed over.

    UTF-8, with or without a byte order mark; commas, quotes as RFC 4180 has them. Raises CsvFileError, OSError.
    """
    with path.open("rb") as file:
        rows = read_rows(file, path)
        header = next(((row for _, row in rows if row)), [])
        _check_header(header, columns, path)
        blank = dict.fromkeys(columns.optional, "")
        for number, row in rows:
            if number > LINES_MAX:
                raise CsvFileError(f"{path}: more than {LINES_MAX} lines; split the file")
            if len(row) == len(header):
                yield Line(number, blank | dict(zip(header, row, strict=True)))
            elif row:
                wanted = f"{len(row)} cells under {len(header)} columns; look for stray commas or quotes"
                yield Line(number, torn=wanted)


def twice(header: Sequence[str]) -> str:
    """Which column's name stands more than once, and what to do."""
    name = next(name for index, name in enumerate(header) if name in header[:index])
    return f"the column {name[:64]!r} stands twice in the first line; remove one"


def read_rows(file: BinaryIO, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The file's records in order, the empty ones too, each with the number of its first line; raises CsvFileError."""
    text = _Text(file, path)
    rows = csv.reader(text, strict=True)
    number = 1
    try:
        for row in rows:
            yield number, row
            number = text.begin()
    except csv.Error as error:
        why = "a quote is opened and never closed" if str(error) == "unexpected end of data" else str(error)
        raise CsvFileError(f"{path}:{number}: {why}; give a CSV file with commas") from error


class _Text(Iterator[str]):
    """The file's lines as text. A line feed is a line feed in UTF-8, whatever stands around it."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._number = 0
        self._record_bytes = 0

    def begin(self) -> int:
        """A record is read; returns the number of the line at which the next begins."""
        self._record_bytes = 0
        return self._number + 1

    def __next__(self) -> str:
        raw = self._file.readline(RECORD_BYTES_MAX + 1)
        if not raw:
            raise StopIteration
        self._number += 1
        self._record_bytes += len(raw)
        where = f"{self._path}:{self._number}"
        if self._record_bytes > RECORD_BYTES_MAX:
            raise CsvFileError(
                f"{where}: longer than {RECORD_BYTES_MAX} bytes; look for a stray quote, give a CSV file"
            )
        first = self._number == 1
        named = first and next((name for mark, name in _MARKS.items() if raw.startswith(mark)), None)
        if named:
            raise CsvFileError(f"{self._path}: the file is {named}; {_SAVE}")
        if b"\0" in raw:
            raise CsvFileError(f"{where}: a NUL byte, as UTF-16 has them; {_SAVE}")
        try:
            return raw.decode("utf-8-sig" if first else "utf-8")
        except UnicodeDecodeError as error:
            raise CsvFileError(f"{where}: not UTF-8, but perhaps {_guess(raw)}; {_SAVE}") from error


def _guess(raw: bytes) -> str:
    """An encoding that a line may be in: spreadsheets write the machine's own."""
    try:
        text = raw.decode("gb18030")
    except UnicodeDecodeError:
        return "Windows-1252 or another 8-bit encoding"
    chinese = any("\u4e00" <= letter <= "\u9fff" for letter in text)
    return "GBK (GB 18030)" if chinese else "Windows-1252 or another 8-bit encoding"


def _check_header(header: Sequence[str], columns: Columns, path: Path) -> None:
    """Refuses what the first line lacks, and, once it is known to be one, what it says too much."""
    missing = [name for name in columns.required if name not in header]
    if missing:
        wanted = f"the first line must name {', '.join(columns.required)}"
        raise CsvFileError(f"{path}: no column {missing[0]}; {wanted}, separated by commas")
    unknown = [name for name in header if name not in columns.known]
    if unknown:
        more = f"allowed are {', '.join(columns.known)}; names, phone and identity numbers have no place here"
        raise CsvFileError(f"{path}: unknown column {unknown[0][:64]!r}; {more}: remove it")
    if len(set(header)) < len(header):
        raise CsvFileError(f"{path}: {twice(header)}")
