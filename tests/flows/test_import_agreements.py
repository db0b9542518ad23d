"""Agreements that were signed elsewhere: asked of the provider, kept as he says, once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from import_world import Files
from rider_world import World, world

from service.billing.agreements.signing import LOOK_SELDOM, SPREAD
from service.flows.agreement_replies import EligibilityAsk
from service.flows.imports import ImportFileError
from service.flows.imports.agreements import CHUNK
from service.flows.imports.lines import AGREEMENT_COLUMNS

COLUMNS = ",".join((*AGREEMENT_COLUMNS.required, *AGREEMENT_COLUMNS.optional))
SIGNED = "2026-03-02T09:14:00+08:00"
YEARS = timedelta(days=3650)


@pytest.fixture
async def it(database_url: str) -> AsyncIterator[World]:
    async with world(database_url) as it:
        yield it


@pytest.fixture
def files(it: World, tmp_path: Path) -> Files:
    return Files(it, tmp_path)


def row(number: int = 1, **cells: str) -> str:
    given = {"agreement_id": f"old-{number}", "rider_ref": f"r-{number}", "provider_key": f"OLD{number}"} | cells
    return ",".join(given.get(column, "") for column in COLUMNS.split(","))


async def limit(it: World, key: str, **limits: Any) -> None:
    await it.sandbox.call("POST", "/agreements", {"account_id": it.account_id, "key": key, **limits})


async def stored(it: World) -> list[dict[str, Any]]:
    rows = await it.connection.fetch(
        "SELECT a.*, r.rider_ref FROM agreement a JOIN rider r USING (rider_no) WHERE a.operator_no = $1"
        " ORDER BY agreement_id",
        it.operator_no,
    )
    return [dict(row) for row in rows]


async def test_an_agreement_in_force_is_kept_told_and_may_be_ridden_on(it: World, files: Files) -> None:
    await files.sign_elsewhere("OLD1", "OLD2")
    given = {"currency": "CNY", "created_at": SIGNED, "time_zone": "Europe/Oslo", "language": "en"}
    assert await files.agreements(COLUMNS, row(1, **given), row(2)) == (2, 0, 0)
    first, second = await stored(it)
    assert (first["state"], first["provider_key"], first["rider_ref"]) == ("active", "OLD1", "r-1")
    assert (first["cap_minor"], first["time_zone"], first["language"]) == (100_000, "Europe/Oslo", "en")
    assert (first["created_at"], second["created_at"]) == (datetime.fromisoformat(SIGNED), it.now())
    assert (first["version"], first["lease_until"]) == (2, None)
    waits = sorted(agreement["due_at"] - it.now() for agreement in (first, second))  # Seldom, and not both at once.
    assert LOOK_SELDOM <= waits[0] < waits[1] < LOOK_SELDOM + SPREAD
    assert first["provider_ref"] is not None
    assert await it.facts("old-1") == ["agreement.active"]
    asked = EligibilityAsk(operator_no=it.operator_no, agreement_id="old-1", tariff_id="bike")
    assert (await it.agreements.eligibility(asked)).eligible


async def test_the_same_file_again_changes_nothing(it: World, files: Files) -> None:
    await files.sign_elsewhere("OLD1")
    told = row(1, created_at=SIGNED, cap_minor="30000", currency="CNY")
    assert await files.agreements(COLUMNS, told) == (1, 0, 0)
    before = await stored(it)
    await it.sandbox.script("error_before", op="agreement.get", on="OLD1")
    assert await files.agreements(COLUMNS, told, "") == (0, 1, 0)
    assert (await stored(it), await it.facts("old-1")) == (before, ["agreement.active"])


@pytest.mark.parametrize(
    "changed",
    [
        {"rider_ref": "r-2"},
        {"currency": "EUR"},
        {"cap_minor": "30001"},
        {"created_at": "2026-03-02T09:14:01+08:00"},
        {"provider_key": "OLD2"},
        {"provider_ref": "another"},
        {"time_zone": "Europe/Oslo"},
        {"language": "en"},
        {"valid_until": "2099-01-01T00:00:00Z"},
    ],
)
async def test_a_line_that_says_something_else_is_refused_by_column(
    it: World, files: Files, changed: dict[str, str]
) -> None:
    await files.sign_elsewhere("OLD1", "OLD2")
    given = {"created_at": SIGNED, "cap_minor": "30000", "currency": "CNY", "valid_until": "2098-01-01T00:00:00Z"}
    assert await files.agreements(COLUMNS, row(1, **given)) == (1, 0, 0)
    before = await stored(it)
    assert await files.agreements(COLUMNS, row(1, **(given | changed))) == (0, 0, 1)
    assert [(line, column) for line, column, _ in files.said] == [(2, next(iter(changed)))]
    assert await stored(it) == before


async def test_the_cap_that_is_kept_may_be_said_later(it: World, files: Files) -> None:
    await files.sign_elsewhere("OLD1")
    await limit(it, "OLD1", cap_minor=50_000)
    assert await files.agreements(COLUMNS, row(1)) == (1, 0, 0)
    assert await files.agreements(COLUMNS, row(1, cap_minor="50000")) == (0, 1, 0)
    assert await files.agreements(COLUMNS, row(1, cap_minor="50001")) == (0, 0, 1)


async def test_an_agreement_that_the_provider_has_in_another_currency_is_refused(it: World, files: Files) -> None:
    await files.sign_elsewhere("OLD1", "OLD2")
    assert await files.agreements(COLUMNS, row(1, currency="EUR"), row(2, currency="CNY")) == (1, 0, 1)
    assert [(line, column) for line, column, _ in files.said] == [(2, "currency")]


async def test_what_the_provider_says_is_what_is_kept(it: World, files: Files) -> None:
    await files.sign_elsewhere("OLD1", "OLD2")
    until = it.now() + YEARS
    await limit(it, "OLD1", cap_minor=50_000, valid_until=until.isoformat())
    given = {"cap_minor": "30000", "valid_until": "2099-01-01T00:00:00Z"}
    assert await files.agreements(COLUMNS, row(1, **given), row(2, **given)) == (2, 0, 0)
    first, second = await stored(it)
    assert (first["cap_minor"], first["valid_until"]) == (50_000, until)
    assert files.notes == [(2, "cap_minor"), (2, "valid_until"), (3, "cap_minor")]
    assert second["valid_until"] == datetime(2099, 1, 1, tzinfo=UTC), "the file's, where the provider says none"
    assert await files.agreements(COLUMNS, row(1, **given), row(2, **given)) == (0, 2, 0), "the file is the same"


async def test_what_is_not_in_force_at_the_provider_is_refused_and_the_rest_is_kept(it: World, files: Files) -> None:
    await files.sign_elsewhere("OLD1", "REVOKED", "EXPIRED")
    provider = await it.sandbox.call("GET", "/books")
    assert provider["agreements"] == {"active": 3}
    await limit(it, "REVOKED", revoke=True)
    await limit(it, "EXPIRED", valid_until="2001-01-01T00:00:00Z")
    rows = [row(n, provider_key=key) for n, key in enumerate(("OLD1", "REVOKED", "EXPIRED", "NOBODY"), 1)]
    assert await files.agreements(COLUMNS, *rows) == (1, 0, 3)
    assert [(line, column, said.partition(":")[0]) for line, column, said in files.said] == [
        (3, "provider_key", "over at the provider"),
        (4, "provider_key", "over at the provider"),
        (5, "provider_key", "the provider knows no such agreement"),
    ]
    assert [one["agreement_id"] for one in await stored(it)] == ["old-1"]


async def test_a_number_of_the_provider_that_is_not_this_agreements_is_refused(it: World, files: Files) -> None:
    await files.sign_elsewhere("OLD1")
    assert await files.agreements(COLUMNS, row(provider_ref="somebody-elses")) == (0, 0, 1)
    assert files.said[0][:2] == (2, "provider_ref")
    assert await stored(it) == []


async def test_one_agreement_of_the_provider_is_not_two_here(it: World, files: Files) -> None:
    await files.sign_elsewhere("OLD1")
    assert await files.agreements(COLUMNS, row(1), row(2, provider_key="OLD1")) == (0, 0, 1)
    assert files.said == [(3, "provider_key", "the same as on line 2: keep one")]
    assert await files.agreements(COLUMNS, row(1)) == (1, 0, 0)
    assert await files.agreements(COLUMNS, row(2, provider_key="OLD1")) == (0, 0, 1)
    assert files.said[0][:2] == (2, "provider_key")
    known = (await stored(it))[0]["provider_ref"]
    assert await files.agreements(COLUMNS, row(2, provider_key="", provider_ref=known)) == (0, 0, 1)
    assert files.said[0][:2] == (2, "provider_ref")
    assert await files.agreements(COLUMNS, row(3), row(4, agreement_id="old-3")) == (0, 0, 1)
    assert files.said[0][:2] == (3, "agreement_id")


async def test_no_answer_is_asked_for_again_and_then_refused(it: World, files: Files) -> None:
    await files.sign_elsewhere("OLD1")
    await it.sandbox.script("error_before", op="agreement.get", on="OLD1", times=2)
    assert await files.agreements(COLUMNS, row(), again=(timedelta(),)) == (0, 0, 1)
    assert files.said == [(2, "provider_key", "the provider gave no answer: run the file again later")]
    await it.sandbox.script("error_before", op="agreement.get", on="OLD1")
    assert await files.agreements(COLUMNS, row(), again=(timedelta(),)) == (1, 0, 0)


async def test_a_check_asks_and_writes_nothing(it: World, files: Files) -> None:
    await files.sign_elsewhere("OLD1")
    assert await files.agreements(COLUMNS, row(1), row(2), write=False) == (1, 0, 1)
    assert (await stored(it), await it.facts("old-1")) == ([], [])
    riders = "SELECT count(*) FROM rider WHERE operator_no = $1"
    assert await it.connection.fetchval(riders, it.operator_no) == 0


async def test_one_wrong_line_and_nothing_is_written(it: World, files: Files) -> None:
    keys = [f"OLD{number}" for number in range(3)]
    await files.sign_elsewhere(*keys)
    assert await files.agreements(COLUMNS, row(0), row(1, cap_minor="12.50"), row(2)) == (0, 0, 1)
    assert [(line, column) for line, column, _ in files.said] == [(3, "cap_minor")]
    assert await stored(it) == []


async def test_wrong_credentials_are_told_once(it: World, files: Files) -> None:
    await it.connection.execute(
        'UPDATE merchant_account SET settings = settings || \'{"api_key": "wrong"}\' WHERE account_no = $1',
        it.account_no,
    )
    with pytest.raises(ImportFileError, match="farebox account check"):
        await files.agreements(COLUMNS, row(1), row(2))
    assert files.said == []


async def test_more_than_a_chunk_of_lines(it: World, files: Files) -> None:
    count = CHUNK + 20
    await files.sign_elsewhere(*(f"OLD{number}" for number in range(count)))
    rows = [row(number) for number in range(count)]
    assert await files.agreements(COLUMNS, *rows) == (count, 0, 0)
    assert await files.agreements(COLUMNS, *rows) == (0, count, 0)
    assert {one["state"] for one in await stored(it)} == {"active"}
