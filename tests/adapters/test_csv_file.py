"""CSV files of operators: what of them is read, how what can't be is told, and that a long one needs no more memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from service.adapters.csv_file import RECORD_BYTES_MAX, Columns, CsvFileError, Line, read_lines

COLUMNS = Columns(required=("id", "amount"), optional=("note",))


def read(path: Path, data: bytes) -> list[Line]:
    path.write_bytes(data)
    return list(read_lines(path, COLUMNS))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.csv"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("feed", [b"\n", b"\r\n"])
def test_columns_may_come_in_any_order_and_optional_ones_not_at_all(path: Path, mark: bytes, feed: bytes) -> None:
    lines = read(path, mark + feed.join((b"amount,id", b"730,a", b"", '"1","b,é"'.encode(), b"")))
    assert lines == [
        Line(2, {"amount": "730", "id": "a", "note": ""}),
        Line(4, {"amount": "1", "id": "b,é", "note": ""}),
    ]


def test_a_line_is_known_by_where_it_begins(path: Path) -> None:
    lines = read(path, b'id,amount,note\na,1,"two\nlines"\nb,2,x\n')
    assert [(line.number, line.cells["note"]) for line in lines] == [(2, "two\nlines"), (4, "x")]


def test_a_line_of_another_width_is_told_and_the_rest_is_read(path: Path) -> None:
    lines = read(path, b"id,amount\na,1\nb\nc,1,2\nd,1\n")
    assert [line.torn for line in lines] == [
        None,
        "1 cells under 2 columns; look for stray commas or quotes",
        "3 cells under 2 columns; look for stray commas or quotes",
        None,
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no column id; the first line must name id, amount"),
        (b"id;amount\na;1\n", "no column id; the first line must name id, amount, separated by commas"),
        (b"id,amount,phone\n", "unknown column 'phone'; allowed are id, amount, note"),
        (b"id,amount,id\n", "the column 'id' stands twice"),
        ("id,amount\n".encode("utf-16"), "the file is UTF-16; save the file as UTF-8"),
        ("id,amount\n".encode("utf-32"), "the file is UTF-32; save the file as UTF-8"),
        ("id,amount\n".encode("utf-16-le"), ":1: a NUL byte, as UTF-16 has them"),
        ("id,amount\na,1\n骑行,2\n".encode("gbk"), ":3: not UTF-8, but perhaps GBK (GB 18030)"),
        ("id,amount\nfahrräder,2\n".encode("cp1252"), ":2: not UTF-8, but perhaps "),
        (b"id,amount\n\xff\xff,2\n", ":2: not UTF-8, but perhaps Windows-1252 or another 8-bit encoding"),
        (b'id,amount\n"a,1\nb,2\n', ":2: a quote is opened and never closed"),
        (b'id,amount\n"a"b,1\n', ":2: ',' expected after '\"'"),
        (b"id,amount\n" + b"a" * RECORD_BYTES_MAX + b",1\n", f":2: longer than {RECORD_BYTES_MAX} bytes"),
        # Quotes hold each line break: a record of short lines that would be kept whole until its file ends.
        (b'id,amount\n"a",1\n' + b'"\n",' * RECORD_BYTES_MAX, f":{RECORD_BYTES_MAX // 4 + 3}: longer than"),
    ],
)
def test_a_file_that_is_none_is_refused_by_what_it_is(path: Path, data: bytes, said: str) -> None:
    with pytest.raises(CsvFileError) as told:
        read(path, data)
    assert said in str(told.value)
    assert str(told.value).startswith(f"{path}:")


def test_twenty_thousand_lines_take_no_more_memory_than_a_few(path: Path) -> None:
    count = 20_000
    with path.open("w", encoding="utf-8") as file:
        file.write("id,amount,note\n")
        file.writelines(f"agreement-{number},730,{'n' * 60}\n" for number in range(count))
    size = path.stat().st_size
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_lines(path, COLUMNS)) == count
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size // 20
