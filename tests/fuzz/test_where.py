"""Files and documents with one thing wrong: taken, or refused by a sentence that says where."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import doors_bills
import doors_files
import doors_notices
import pytest
from fuzz_parts import EXAMPLES, in_words, parts, storable, written
from hypothesis import given, settings
from hypothesis import strategies as st

from service.adapters.csv_file import Columns, CsvFileError, Line, read_lines
from service.adapters.providers.alipay import statements as alipay
from service.adapters.providers.wechatpay import statements as wechatpay
from service.billing.agreements.asking import AskError
from service.billing.outcomes import Unknown
from service.billing.tariffs import TariffError, build, import_document
from service.flows.imports.lines import AGREEMENT_COLUMNS, DEBT_COLUMNS, agreement_line, debt_line
from service.lab.replay import TripsError, price_trip, read_trips

PLAIN = re.compile(r"[\w:+. -]{0,30}\n?")
"""What a sentence may say by itself."""
Place = tuple[str | int, ...]
some = settings(max_examples=80, derandomize=True, deadline=None, database=None)
cells = st.one_of(
    st.sampled_from(
        ["", " ", "-1", "0", "1e5", "1.5", "9" * 30, "２", "NaN", "null", "2026-02-30T00:00:00Z", "2026-11-22", "CNY\n"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=80),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), cells, st.just("\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def spoiled(text: str, row: int, column: int, cell: str) -> tuple[str, int, str]:
    """A CSV file with one cell of its data changed; the number of its line, and its column."""
    rows = list(csv.reader(io.StringIO(text)))
    row, column = 1 + row % (len(rows) - 1), column % len(rows[0])
    rows[row][column] = cell
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return file.getvalue(), row + 1, rows[0][column]


BROUGHT: dict[str, tuple[Columns, Callable[[Line], object]]] = {
    "agreements": (AGREEMENT_COLUMNS, lambda line: agreement_line(line, "city", doors_files.NOW)),
    "debts": (DEBT_COLUMNS, lambda line: debt_line(line, doors_files.NOW)),
}


@pytest.mark.parametrize("what", BROUGHT)
@some
@given(row=st.integers(0, 50), column=st.integers(0, 50), cell=cells)
def test_a_wrong_cell_of_a_file_that_is_brought_over_is_told_by_its_line_and_column(
    what: str, row: int, column: int, cell: str
) -> None:
    columns, read = BROUGHT[what]
    good = (EXAMPLES / "imports" / f"{what}.csv").read_text(encoding="utf-8")
    text, number, name = spoiled(good, row, column, cell)
    try:
        for line in read_lines(doors_files._file(text.encode()), columns):
            try:
                storable(read(line))
            except AskError as error:
                in_words(error.message)
                assert line.number == number, "another line was refused"
                assert error.field in columns.known
                assert PLAIN.fullmatch(cell) or cell not in error.message, "what stood there is repeated"
    except CsvFileError as error:
        assert re.search(rf":{number}: ", str(error)), (name, str(error))


@some
@given(row=st.integers(0, 50), column=st.integers(0, 50), cell=cells)
def test_a_wrong_cell_of_a_trips_file_is_told_by_its_line(row: int, column: int, cell: str) -> None:
    text, number, name = spoiled(doors_files.seeds_of_trips()[-1].decode(), row, column, cell)
    try:
        for trip in read_trips(doors_files._file(text.encode()), doors_files.SHANGHAI):
            price_trip(trip, doors_files._bike())
    except TripsError as error:
        lines = range(number, number + 1 + cell.count("\n") + cell.count("\r"))
        assert any(f":{line}:" in str(error) for line in lines), (name, str(error))


def leaves(told: Any, at: Place = ()) -> Iterator[Place]:
    """Where something stands in a JSON value that has nothing in it."""
    if isinstance(told, dict) and told:
        for name, one in told.items():
            yield from leaves(one, (*at, name))
    elif isinstance(told, list) and told:
        for number, one in enumerate(told):
            yield from leaves(one, (*at, number))
    else:
        yield at


def changed(told: Any, at: Place, value: Any) -> Any:
    """The JSON value with another one at that place."""
    if not at:
        return value
    copy = deepcopy(told)
    held = copy
    for step in at[:-1]:
        held = held[step]
    held[at[-1]] = value
    return copy


TARIFFS = [
    (told, list(leaves(told))) for told in (json.loads(seed) for seed in doors_files.seeds_of_tariffs()[::-1][:4])
]


@some
@given(st.data())
def test_a_wrong_value_of_a_tariff_is_told_by_a_place_that_is_in_it(data: st.DataObject) -> None:
    told, places = data.draw(st.sampled_from(TARIFFS))
    document = changed(told, data.draw(st.sampled_from(places)), data.draw(values))
    try:
        for draft in import_document(json.dumps(document).encode("utf-8", "surrogatepass")):
            build(draft, valid_from=doors_files.NOW, time_zone="Asia/Shanghai")
    except TariffError as error:
        in_words(str(error))
        assert error.remedy, "what to do is not said"
        assert error.path == "" or error.path.startswith("/"), error.path


NOTICES = {
    "wechatpay": (doors_notices.enter_wechatpay, doors_notices.seeds_of_wechatpay()[:-1]),
    "stripe": (doors_notices.enter_stripe, doors_notices.seeds_of_stripe()[:-1]),
    "sandbox": (doors_notices.enter_sandbox, doors_notices.seeds_of_sandbox()[:-1]),
}


@pytest.mark.parametrize("provider", NOTICES)
@some
@given(st.data())
def test_a_signed_notification_with_another_value_is_believed_or_refused_in_words(
    provider: str, data: st.DataObject
) -> None:
    enter, seeds = NOTICES[provider]
    pairs, body = parts(data.draw(st.sampled_from(seeds)))
    told = json.loads(body or b"")
    document = changed(told, data.draw(st.sampled_from(list(leaves(told)))), data.draw(values))
    enter(written(pairs, json.dumps(document).encode("utf-8", "surrogatepass")))


@some
@given(st.data())
def test_a_signed_form_with_another_value_is_believed_or_refused_in_words(data: st.DataObject) -> None:
    pairs, body = parts(data.draw(st.sampled_from(doors_notices.seeds_of_alipay()[:-1])))
    named = (body or b"").split(b"&")
    at = data.draw(st.integers(0, len(named) - 1))
    cell = data.draw(cells).encode().hex(" ")
    named[at] = named[at].partition(b"=")[0] + b"=" + b"".join(b"%" + pair.encode() for pair in cell.split())
    doors_notices.enter_alipay(written(pairs, b"&".join(named)))


BILLS: dict[str, tuple[str, str, Callable[[str], object]]] = {
    "alipay": (
        "\t,",
        doors_bills.seeds_of_alipay()[0].decode("gb18030"),
        lambda text: alipay.unpacked(doors_bills.DAY, doors_bills.packed(text.encode("gb18030", "replace"))),
    ),
    "wechatpay": (",", doors_bills.WECHAT, lambda text: wechatpay.unpacked(doors_bills.DAY, text.encode())),
}


@pytest.mark.parametrize("provider", BILLS)
@some
@given(row=st.integers(0, 50), column=st.integers(0, 50), cell=cells)
def test_a_wrong_cell_of_a_statement_is_refused_in_words_or_the_statement_stands(
    provider: str, row: int, column: int, cell: str
) -> None:
    between, text, read = BILLS[provider]
    lines = text.splitlines()
    row = row % len(lines)
    row_cells = lines[row].split(between)
    row_cells[column % len(row_cells)] = cell
    lines[row] = between.join(row_cells)
    told = read("\n".join(lines) + "\n")
    storable(told)
    if isinstance(told, Unknown):
        in_words(told.reason)
