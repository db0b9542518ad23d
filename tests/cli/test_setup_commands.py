"""The set-up on the command line: what it prints, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Farebox, command

DATA = Path(__file__).resolve().parents[1] / "data"


@pytest.fixture(scope="module")
def farebox(database_url: str, kafka_bootstrap: str) -> Farebox:
    settings = {
        "FAREBOX_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "FAREBOX_TOPIC_SESSIONS": f"rides-{database_url[-8:]}",
        "FAREBOX_TOPIC_BILLING": f"facts-{database_url[-8:]}",
        "FAREBOX_TOPIC_QUARANTINE": f"held-{database_url[-8:]}",
    }
    return command(database_url, **settings)


async def test_an_operator_is_added_mapped_and_listed(farebox: Farebox) -> None:
    added = await farebox("operator", "add", "oslo", "--time-zone", "Europe/Oslo", "--currency", "NOK")
    mapped = await farebox("operator", "map-source", "oslo", "urn:mds:provider:1", "--topic", "rides")
    refused = await farebox("operator", "map-source", "default", "urn:mds:provider:1", "--topic", "rides")
    listed = await farebox("operator", "list")
    assert (added[0], mapped[0], refused[0], listed[0]) == (0, 0, 2, 0)
    assert refused[2].startswith("farebox: urn:mds:provider:1 on rides is mapped to operator 'oslo'")
    assert refused[2].count("\n") == 1
    assert listed[1].splitlines()[0].startswith("* default  ")
    assert listed[1].splitlines()[1:] == [
        "  oslo  oslo  Europe/Oslo  NOK  live  rides up to 720 h",
        "    rides urn:mds:provider:1",
    ]


async def test_a_state_that_no_agreement_has_is_refused_with_those_there_are(farebox: Farebox) -> None:
    """It listed nothing, and said so with exit code 0."""
    code, out, err = await farebox("agreement", "list", "--state", "activ")
    assert (code, out) == (2, "")
    assert all(state in err for state in ("pending", "active", "suspended", "refused", "revoked", "expired")), err
    assert (await farebox("agreement", "list", "--state", "suspended"))[0] == 0


async def test_an_operator_is_changed_its_zone_and_currency_until_they_are_used(farebox: Farebox) -> None:
    await farebox("operator", "add", "riga", "--time-zone", "Europe/Oslo", "--currency", "NOK")
    first = await farebox("operator", "change", "riga", "--time-zone", "Europe/Riga", "--currency", "EUR")
    assert first == (
        0,
        "operator riga: riga  Europe/Riga  EUR  rides up to 720 h  no contact: riders are not told whom to call\n",
        "",
    )
    await farebox("tariff", "import", str(DATA / "tariff_bike.json"), "--operator", "riga")
    named = await farebox("operator", "change", "riga", "--name", "Riga bikes", "--contact", "+371 6700 0000")
    assert "Riga bikes  Europe/Riga  EUR" in named[1] and named[1].endswith("contact +371 6700 0000\n")
    for option, value, what in (("--currency", "NOK", "currency"), ("--time-zone", "Europe/Oslo", "time zone")):
        code, out, err = await farebox("operator", "change", "riga", option, value, "--name", "lost")
        assert (code, out) == (2, "")
        assert f"the {what} of operator 'riga' stays" in err
    same = await farebox("operator", "change", "riga", "--currency", "EUR")
    assert same == (0, named[1], "")
    assert "  Riga bikes  Europe/Riga  EUR  " in (await farebox("operator", "list"))[1]
    assert (await farebox("operator", "change", "nobody", "--name", "x"))[0] == 2
    assert "hours" in (await farebox("operator", "change", "riga", "--ride-hours-max", "0"))[2]


async def test_topics_are_made_once(farebox: Farebox) -> None:
    _, first, _ = await farebox("topics", "--partitions", "2")
    code, again, _ = await farebox("topics", "--partitions", "3")
    assert code == 0
    assert [line.partition(": ")[2] for line in first.splitlines()] == ["made, 2 partitions"] * 3
    assert [line.partition(": ")[2] for line in again.splitlines()] == ["there already, 2 partitions"] * 3


async def test_a_tariff_document_is_imported_once(farebox: Farebox) -> None:
    document = str(DATA / "tariff_bike.json")
    _, first, _ = await farebox("tariff", "import", document)
    _, again, _ = await farebox("tariff", "import", document)
    assert first.startswith("bike-std: version 1 published, CNY, from ")
    assert again.startswith("bike-std: version 1 there already, CNY, from ")


async def test_whoever_imports_a_tariff_hears_what_a_hold_is_too_small_for(farebox: Farebox, tmp_path: Path) -> None:
    document = json.loads((DATA / "tariff_bike.json").read_text())
    imported = tmp_path / "tariff.json"

    async def said(tariff_id: str, ride_max: str | None) -> str:
        rules = {"ride_max": ride_max} if ride_max else {}
        imported.write_text(json.dumps(document | {"tariff_id": tariff_id, "rules": rules}))
        code, told, words = await farebox("tariff", "import", str(imported))
        assert (code, told.startswith(f"{tariff_id}: version 1 published")) == (0, True), words
        return words

    assert await said("before", None) == ""  # No account debits through holds.
    able = 'capabilities={"hold_needed": true}'
    words = ("--provider", "sandbox", "--url", "http://127.0.0.1:9", "--setting", "api_key=k", "--setting", able)
    assert (await farebox("account", "add", "holding", *words, "--unchecked"))[0] == 0
    limit = "only 1000.00 CNY may be debited for one"
    assert f"nothing says what a ride costs at most, and {limit}; add ride_max" in await said("endless", None)
    dear = await said("dear", "1500.00")
    assert f"dear: /rules/ride_max: a ride can cost 1500.00 and {limit}; lower it, or have holds ask for more" in dear
    assert await said("cheap", "100.00") == ""
    assert (await farebox("operator", "hold-policy", "default", "cap_minor=200000"))[0] == 0
    assert await said("dearer", "1500.00") == ""
    for undo in (("account", "remove", "holding"), ("operator", "hold-policy", "default", "cap_minor=")):
        assert (await farebox(*undo))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tariff", "import", str(DATA / "plans" / "bike_v2.2.json")], "/valid_from: no start of validity"),
        (["tariff", "import", "nowhere.json"], "nowhere.json"),
        (["tariff", "import", str(DATA / "tariff_bike.json"), "--operator", "nobody"], "no operator 'nobody'"),
        (["tariff", "import", str(DATA / "tariff_bike.json"), "--valid-from", "tomorrow"], "'tomorrow' is no instant"),
        (["stream", "restart", "--partition", "9", "--from", "earliest", "--reason", "x"], "is not there"),
        (["stream", "restart", "--partition", "0", "--from", "soon", "--reason", "x"], "allowed are earliest, latest"),
        (["operator", "default"], "give either the ID"),
    ],
)
async def test_what_cannot_be_done_is_told_without_a_traceback(
    farebox: Farebox, arguments: list[str], said: str
) -> None:
    code, out, err = await farebox(*arguments, COLUMNS="400")
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


async def test_a_database_that_is_away_is_told_in_one_line(farebox: Farebox) -> None:
    code, _, err = await farebox("operator", "list", FAREBOX_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert code == 2
    assert err.startswith("farebox: PostgreSQL can't be reached: ")
    assert err.endswith("; see FAREBOX_DATABASE_URL\n")
    assert err.count("\n") == 1


async def test_a_token_that_has_ended_is_not_made(farebox: Farebox) -> None:
    code, out, err = await farebox(
        "token", "create", "--scope", "status:read", "--expires", "2026-11-01T00:00:00+08:00"
    )
    assert (code, out) == (2, "")
    assert "is over: such a token would open nothing" in err
