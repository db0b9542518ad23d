"""`farebox import` on a real database, against the provider simulator: what it says, and with which exit code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from command_line import Farebox, command
from sandbox_peer import API_KEY, Peer, peer

from service.cli.imports import SAID_MAX
from service.lab.provider.rows import Account, Terms

EXAMPLES = Path(__file__).parents[2] / "schemas/examples/imports"
AGREEMENTS, DEBTS = EXAMPLES / "agreements.csv", EXAMPLES / "debts.csv"

OWNER = ("--operator", "city")
KEY = ("--setting", f"api_key={API_KEY}")


@pytest.fixture(scope="module")
def farebox(database_url: str) -> Farebox:
    return command(database_url)


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Peer]:
    """A provider at which riders have signed with another system."""
    async with peer() as found:
        await found.call("PUT", "/accounts", Account("old", API_KEY, Terms(confirm_agreement=False)))
        for number in range(8001, 8005):
            told = {"key": f"OLD000{number}", "rider": f"rider-{number}", "currency": "CNY"}
            headers = {"Authorization": f"Bearer {API_KEY}"}
            async with found.session.post(f"{found.url}/v1/agreements", json=told, headers=headers) as answer:
                assert answer.status in (200, 201), await answer.text()
        yield found


@pytest.fixture(scope="module")
async def operator(farebox: Farebox, sandbox: Peer) -> str:
    """An operator with an account there."""
    for arguments in (
        ("operator", "add", "city", "--currency", "CNY"),
        ("account", "add", "old", *OWNER, "--provider", "sandbox", "--url", sandbox.url, *KEY),
    ):
        code, _, err = await farebox(*arguments)
        assert code == 0, err
    return "city"


async def test_the_examples_are_brought_over_once(farebox: Farebox, operator: str, database_url: str) -> None:
    agreements = ("import", "agreements", AGREEMENTS, "--operator", operator, "--account", "old")
    debts = ("import", "debts", DEBTS, "--operator", operator)
    code, out, err = await farebox(*agreements, "--check")
    assert (code, out) == (0, "import: 3 to be imported, 0 were there already, 0 refused\n"), err
    assert (await farebox(*debts, "--check"))[0] == 1, "the agreements are not there yet"
    assert (await farebox(*agreements))[:2] == (0, "import: 3 imported, 0 were there already, 0 refused\n")
    assert (await farebox(*agreements))[:2] == (0, "import: 0 imported, 3 were there already, 0 refused\n")
    code, out, err = await farebox(*debts, "--check")
    assert (code, out) == (0, "import: 3 to be imported, 0 were there already, 0 refused\n"), err
    assert (await farebox(*debts))[:2] == (0, "import: 3 imported, 0 were there already, 0 refused\n")
    assert (await farebox(*debts))[:2] == (0, "import: 0 imported, 3 were there already, 0 refused\n")
    code, out, _ = await farebox("audit", "--operator", operator)
    assert (code, "0 problems" in out) == (0, True), out
    listed = await farebox("agreement", "list", "--operator", operator)
    assert sorted(line.split("  ")[:4] for line in listed[1].splitlines() if line.startswith("agr-")) == [
        [agreement, f"rider {rider}", "old", "active"]
        for agreement, rider in (("agr-8001", "r-51d0"), ("agr-8002", "r-9f3a"), ("agr-8003", "r-07c4"))
    ]
    assert await tariffs(database_url, operator) == ["brought-over-cny"]


async def tariffs(database_url: str, operator: str) -> list[str]:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            "SELECT tariff_id FROM tariff JOIN operator USING (operator_no) WHERE operator_id = $1", operator
        )
        return [row["tariff_id"] for row in rows]
    finally:
        await connection.close()


async def test_what_is_refused_is_told_by_line_and_column_and_repeats_nothing(
    farebox: Farebox, operator: str, tmp_path: Path
) -> None:
    file = tmp_path / "agreements.csv"
    rows = ["agr-1,Li Lei,OLD0008001", "agr-2,r-2,13800138000 Han", "agr-3,r-3,OLD0008005", "agr-4"]
    file.write_text("\n".join(("agreement_id,rider_ref,provider_key", *rows)))
    code, out, err = await farebox("import", "agreements", file, "--operator", operator)
    assert (code, out) == (1, "import: 0 imported, 0 were there already, 3 refused; nothing was written\n")
    told = err.splitlines()
    assert [line.partition(" ")[0] for line in told] == [f"{file}:{number}:" for number in (2, 3, 5)]
    assert told[0].endswith(" rider_ref: allowed are 1 to 64 visible characters")
    assert told[1].split()[1] == "provider_key:"
    assert told[2].endswith(" 1 cells under 3 columns; look for stray commas or quotes")
    assert not any(part in err for part in ("Li Lei", "13800138000", "Han"))


async def test_what_the_provider_does_not_know_is_refused_and_the_rest_is_kept(
    farebox: Farebox, operator: str, tmp_path: Path
) -> None:
    file = tmp_path / "agreements.csv"
    file.write_text("agreement_id,rider_ref,provider_key\na-1,r-1,OLD0008004\na-2,r-2,NOBODY\n")
    code, out, err = await farebox("import", "agreements", file, "--operator", operator)
    assert (code, out) == (1, "import: 1 imported, 0 were there already, 1 refused\n")
    assert err == f"{file}:3: provider_key: the provider knows no such agreement\n"


@pytest.mark.parametrize(
    ("rows", "refused"),
    [
        (["M-1,agr-8001,ride,100,CNY", "M-2,agr-8001,ride,0,CNY"], "3: amount_minor:"),
        (["M-1,agr-8001,ride,100,CNY", "M-1,agr-8001,ride,100,CNY"], "3: reference: the same as on line 2: keep one"),
        (["M-1,agr-8001,ride,100,CNY", "M-2,nobody,ride,100,CNY"], "3: agreement_id: there is no such agreement"),
        (["M-2,agr-8001,ride,100", "M-1,agr-8001,ride,100,CNY"], "2: 5 cells under 6 columns"),
    ],
)
async def test_debts_beside_a_refused_line_are_not_said_to_be_imported(
    farebox: Farebox, operator: str, tmp_path: Path, rows: list[str], refused: str
) -> None:
    """Who reads that they were closes them in the system before, and nobody collects them."""
    agreements = ("import", "agreements", AGREEMENTS, *OWNER, "--account", "old")
    assert (await farebox(*agreements))[0] == 0
    file = tmp_path / "debts.csv"
    text = [f"{row},2026-10-03T21:05:00+08:00" for row in rows]
    file.write_text("\n".join(("reference,agreement_id,code,amount_minor,currency,due_since", *text)))
    counts = "import: 0 {}, 0 were there already, 1 refused; nothing {} written\n"
    for options, told in (
        (["--check"], counts.format("to be imported", "would be")),
        ([], counts.format("imported", "was")),
        ([], counts.format("imported", "was")),
    ):
        code, out, err = await farebox("import", "debts", file, *OWNER, *options)
        assert (code, out) == (1, told)
        assert f"{file}:{refused}" in err
    code, _, err = await farebox("session", "show", "debt-M-1", *OWNER)
    assert (code, "debt-M-1" in err) == (2, True)


async def test_refused_lines_are_told_in_their_order(farebox: Farebox, operator: str, tmp_path: Path) -> None:
    file = tmp_path / "debts.csv"
    rows = ["R-1,nobody,ride,100,CNY", "R-2,nobody,ride,0,CNY", "R-3,nobody,ride,100,CNY", "R-4,nobody"]
    text = [f"{row},2026-10-03T21:05:00+08:00" for row in rows]
    file.write_text("\n".join(("reference,agreement_id,code,amount_minor,currency,due_since", *text)))
    _, _, err = await farebox("import", "debts", file, *OWNER)
    told = [line.split(" ")[0] for line in err.splitlines()]
    assert told == [f"{file}:{number}:" for number in (2, 3, 4, 5)], err


async def test_many_refusals_are_counted(farebox: Farebox, operator: str, tmp_path: Path) -> None:
    file, count = tmp_path / "agreements.csv", SAID_MAX + 7
    file.write_text("agreement_id,rider_ref,provider_key\n" + "a b,r,K\n" * count)
    code, out, err = await farebox("import", "agreements", file, "--operator", operator)
    assert (code, f"{count} refused" in out) == (1, True)
    assert len(err.splitlines()) == SAID_MAX + 1
    assert err.endswith(f"{file}: and 7 more like these\n")


async def test_a_file_that_is_none_is_refused_as_a_whole(farebox: Farebox, operator: str, tmp_path: Path) -> None:
    file = tmp_path / "agreements.csv"
    for data, said in (
        (None, "No such file or directory; give a file that can be read"),
        (b"agreement_id,rider_ref,provider_key,phone\n", "unknown column 'phone'"),
        ("agreement_id,rider_ref,provider_key\na-1,骑行,K\n".encode("gbk"), "perhaps GBK"),
    ):
        if data is not None:
            file.write_bytes(data)
        code, out, err = await farebox("import", "agreements", file, "--operator", operator)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"farebox: {file}:")
        assert said in err


async def test_what_is_in_the_way_is_told_in_one_line(farebox: Farebox, operator: str) -> None:
    agreements = ("import", "agreements", AGREEMENTS)
    for arguments, said in (
        ((*agreements, "--operator", "nobody"), "there is no operator 'nobody'"),
        ((*agreements, "--operator", operator, "--account", "none"), "the operator has no merchant account none"),
    ):
        code, out, err = await farebox(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert said in err
    await farebox("account", "change", "old", *OWNER, "--setting", "api_key=another", "--unchecked")
    code, _, err = await farebox(*agreements, *OWNER)
    await farebox("account", "change", "old", *OWNER, *KEY, "--unchecked")
    assert (code, err.count("\n")) == (2, 1)
    assert f"farebox: account {operator}.old: " in err
    await farebox("operator", "mode", operator, "shadow")
    code, _, err = await farebox("import", "debts", DEBTS, *OWNER)
    await farebox("operator", "mode", operator, "live")
    assert (code, "shadow mode" in err) == (2, True)
