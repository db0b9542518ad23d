"""The audit of tariffs: every version is there, and its document is the one that was published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from service.billing.auditing.problems import Place, Problem
from service.billing.auditing.rows import StoredTariff
from service.billing.catalog import TariffVersion
from service.billing.proofs import fingerprint
from service.billing.tariffs import Tariff, TariffError, load


def check_tariffs(rows: Sequence[StoredTariff]) -> Iterator[Problem]:
    """Every disagreement in what is stored of tariffs; `rows` are in the order of tariff and version."""
    counts: dict[int, int] = {}
    for row in rows:
        if row.version is not None:
            counts[row.tariff_no] = counts.get(row.tariff_no, 0) + 1
            yield from _check_version(row, counts[row.tariff_no])
    for row in {row.tariff_no: row for row in rows}.values():
        if row.versions != counts.get(row.tariff_no, 0):
            found = f"{counts.get(row.tariff_no, 0)} versions, tariff_no {row.tariff_no}"
            yield Problem(Place(), "tariff_version", "*", f"{row.versions} of {row.tariff_id}", found)


def stray_version(tariff_no: int, version: int) -> Problem:
    """A version whose tariff is not there."""
    return Problem(Place(), "tariff_version", "tariff_no", "a tariff", f"{tariff_no}, version {version}")


def read_tariffs(rows: Sequence[StoredTariff]) -> dict[tuple[int, str], list[TariffVersion]]:
    """What can be read of them, by (operator number, tariff id): what rides are derived with."""
    found: dict[tuple[int, str], list[TariffVersion]] = {}
    for row in rows:
        tariff = _read(row)
        if tariff is not None and row.version is not None and row.valid_from is not None:
            version = TariffVersion(row.tariff_no, row.version, row.valid_from, tariff)
            found.setdefault((row.operator_no, row.tariff_id), []).append(version)
    return found


def _check_version(row: StoredTariff, number: int) -> Iterator[Problem]:
    """One version: its number, its digest, and what the document itself says."""
    assert row.document is not None
    tariff = _read(row)
    told = (tariff.tariff_id, tariff.valid_from) if tariff is not None else ("a tariff that can be read", None)
    found = (row.tariff_id, row.valid_from) if tariff is not None else ("one that can't", None)
    for column, expected, there in (
        ("version", number, row.version),
        ("digest", fingerprint(row.document.encode()), row.digest),
        ("document: tariff_id, valid_from", told, found),
    ):
        if expected != there:
            named = f"{column} of tariff_no {row.tariff_no}, version {row.version}"
            yield Problem(Place(), "tariff_version", named, expected, there)


def _read(row: StoredTariff) -> Tariff | None:
    if row.document is None or row.version is None:
        return None
    try:
        return load(row.document.encode(), row.version)
    except TariffError:
        return None
