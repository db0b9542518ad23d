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

LINE_BYTES_MAX = 64 * 1024
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


def read_lines(path: Path, columns: Columns) -> Iterator[Line]:
    """The file's lines of data in order; empty lines are passed over.

    UTF-8, with or without a byte order mark; commas, quotes as RFC 4180 has them. Raises CsvFileError, OSError.
    """
    with path.open("rb") as file:
        rows = csv.reader(_decoded(file, path), strict=True)
        try:
            header = next((row for row in rows if row), [])
            _check_header(header, columns, path)
            blank = dict.fromkeys(columns.optional, "")
            number = rows.line_num + 1
            for row in rows:
                if rows.line_num > LINES_MAX:
                    raise CsvFileError(f"{path}: more than {LINES_MAX} lines; split the file")
                if len(row) == len(header):
                    yield Line(number, blank | dict(zip(header, row, strict=True)))
                elif row:
                    wanted = f"{len(row)} cells under {len(header)} columns; look for stray commas or quotes"
                    yield Line(number, torn=wanted)
                number = rows.line_num + 1
        except csv.Error as error:
            raise CsvFileError(f"{path}:{rows.line_num}: {error}; give a CSV file with commas") from error


def _decoded(file: BinaryIO, path: Path) -> Iterator[str]:
    """The file's lines as text. A line feed is a line feed in UTF-8, whatever stands around it."""
    for number, raw in enumerate(iter(lambda: file.readline(LINE_BYTES_MAX + 1), b""), 1):
        if len(raw) > LINE_BYTES_MAX:
            raise CsvFileError(f"{path}:{number}: longer than {LINE_BYTES_MAX} bytes; give a CSV file")
        if number == 1:
            named = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), None)
            if named is not None:
                raise CsvFileError(f"{path}: the file is {named}; {_SAVE}")
        if b"\0" in raw:
            raise CsvFileError(f"{path}:{number}: a NUL byte, as UTF-16 has them; {_SAVE}")
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise CsvFileError(f"{path}:{number}: not UTF-8, but perhaps {_guess(raw)}; {_SAVE}") from error


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
        raise CsvFileError(f"{path}: a column stands twice in the first line; remove one")
