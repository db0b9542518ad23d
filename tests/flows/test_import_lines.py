"""The cells of an import: what they may say, and that what is said about them repeats none of them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from service.adapters.csv_file import Line
from service.billing.agreements.asking import InvalidAskError
from service.flows.imports.lines import AGREEMENT_COLUMNS, DEBT_COLUMNS, REFERENCE_MAX, agreement_line, debt_line

NOW = datetime(2026, 11, 22, tzinfo=UTC)
AGREEMENT = dict.fromkeys(AGREEMENT_COLUMNS.known, "") | {
    "agreement_id": "agr-1",
    "rider_ref": "r-1",
    "provider_key": "OLD1",
}
DEBT = dict.fromkeys(DEBT_COLUMNS.known, "") | {
    "reference": "D-1",
    "agreement_id": "agr-1",
    "code": "ride",
    "amount_minor": "730",
    "currency": "CNY",
    "due_since": "2026-10-03T21:05:00+08:00",
}


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("agreement_id", ""),
        ("agreement_id", "Li Lei"),
        ("agreement_id", "a" * 65),
        ("rider_ref", ""),
        ("rider_ref", "r\t1"),
        ("provider_key", "../../v1/debits"),
        ("provider_key", "钥"),
        ("provider_ref", "a/b"),
        ("currency", "XXQ"),
        ("currency", "cny"),
        ("cap_minor", "12.50"),
        ("cap_minor", "0"),
        ("cap_minor", "-1"),
        ("cap_minor", "१२"),
        ("cap_minor", "1000000000001"),
        ("created_at", "2026-11-22T00:00:01Z"),
        ("created_at", "1999-12-31T23:59:59Z"),
        ("created_at", "2026-11-01 08:00:00"),
        ("created_at", "0001-01-01T00:00:00+23:00"),
        ("created_at", "yesterday"),
        ("valid_until", "2026-11-22T00:00:00Z"),
        ("valid_until", "2036-05-19"),
        ("time_zone", "Mars/Olympus"),
        ("time_zone", "../etc/passwd"),
        ("language", "tlh"),
    ],
)
def test_an_agreements_unusable_cell_is_refused_by_column(column: str, cell: str) -> None:
    with pytest.raises(InvalidAskError) as told:
        agreement_line(Line(2, AGREEMENT | {column: cell}), None, NOW)
    assert told.value.field == column
    assert len(cell) < 5 or cell not in told.value.message


def test_an_agreement_has_a_number_at_the_provider() -> None:
    with pytest.raises(InvalidAskError) as told:
        agreement_line(Line(2, AGREEMENT | {"provider_key": ""}), None, NOW)
    assert told.value.field == "provider_key"
    by_his = agreement_line(Line(2, AGREEMENT | {"provider_key": "", "provider_ref": "cus_1:seti_2"}), None, NOW)
    assert (by_his.provider_key, by_his.provider_ref) == (None, "cus_1:seti_2")


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("reference", ""),
        ("reference", "D 1"),
        ("reference", "d" * (REFERENCE_MAX + 1)),
        ("agreement_id", ""),
        ("rider_ref", "Li Lei"),
        ("code", ""),
        ("code", "Li Lei's ride"),
        ("amount_minor", ""),
        ("amount_minor", "7.30"),
        ("amount_minor", "0"),
        ("amount_minor", "+730"),
        ("amount_minor", "1_000"),
        ("currency", ""),
        ("due_since", ""),
        ("due_since", "2026-10-03"),
        ("due_since", "2026-11-22T00:00:01Z"),
    ],
)
def test_a_debts_unusable_cell_is_refused_by_column(column: str, cell: str) -> None:
    with pytest.raises(InvalidAskError) as told:
        debt_line(Line(2, DEBT | {column: cell}), NOW)
    assert told.value.field == column
    assert len(cell) < 5 or cell not in told.value.message


def test_a_torn_line_is_refused_as_a_whole() -> None:
    with pytest.raises(InvalidAskError) as told:
        debt_line(Line(2, torn="3 cells under 6 columns"), NOW)
    assert (told.value.field, told.value.message) == ("", "3 cells under 6 columns")


def test_the_longest_reference_makes_the_longest_session_id() -> None:
    line = debt_line(Line(2, DEBT | {"reference": "d" * REFERENCE_MAX, "rider_ref": "r-1"}), NOW)
    assert (len(line.debt.session_id), line.rider_ref) == (64, "r-1")
    assert line.debt.since_at == datetime(2026, 10, 3, 13, 5, tzinfo=UTC)
