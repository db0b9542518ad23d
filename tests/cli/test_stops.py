"""Pausing and resuming on the command line."""

from __future__ import annotations

import pytest
from command_line import Farebox, command


@pytest.fixture(scope="module")
def farebox(database_url: str) -> Farebox:
    return command(database_url)


async def test_what_is_paused_is_shown_and_goes_on(farebox: Farebox) -> None:
    paused = await farebox("pause", "debits", "--reason", "a tariff times 100", "--by", "night desk")
    assert paused[:2] == (0, "debits: paused; `farebox stops` shows what is paused\n"), paused
    again = await farebox("pause", "debits", "--reason", "me too")
    assert again[1].startswith("debits: paused before")
    (line,) = (await farebox("stops"))[1].splitlines()
    number, what, of, *_ = line.split("  ")
    assert (what, of) == ("debits", "everything")
    assert line.endswith("+08:00 by night desk: a tariff times 100")
    assert (await farebox("resume", number, "--reason", "mended"))[:2] == (0, f"{number}: goes on\n")
    assert (await farebox("stops"))[1] == "nothing is paused\n"
    assert " resumed " in (await farebox("stops", "--ended"))[1]


@pytest.mark.parametrize(
    ("mode", "held"),
    [
        ("paused", "paused, no new debit or refund is sent"),
        ("shadow", "in shadow mode, nothing is owed and nothing is sent"),
    ],
)
async def test_an_operator_that_is_not_live_is_named_before_the_stops(farebox: Farebox, mode: str, held: str) -> None:
    assert (await farebox("operator", "mode", "default", mode))[0] == 0
    told = f"operator default is {held}: `farebox operator mode default live` ends it"
    assert (await farebox("stops"))[1] == f"{told}\n"
    assert (await farebox("pause", "reports", "--reason", "r"))[0] == 0
    first, second = (await farebox("stops"))[1].splitlines()
    assert (first, second.split("  ")[1]) == (told, "reports")
    await farebox("resume", second.split("  ")[0], "--reason", "r")
    await farebox("operator", "mode", "default", "live")
    assert (await farebox("stops"))[1] == "nothing is paused\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pause", "rides", "--reason", "r"], "'rides'"),
        (["pause", "debits"], "--reason"),
        (["pause", "debits", "--reason", "r", "--account", "none"], "no merchant account none"),
        (["pause", "debits", "--reason", "r", "--tariff", "none"], "no tariff none"),
        (["pause", "debits", "--reason", "r", "--operator", "nobody"], "no operator 'nobody'"),
        (["resume", "99", "--reason", "r"], "no stop 99 stands"),
        (["resume", "first", "--reason", "r"], "'first'"),
    ],
)
async def test_what_cannot_be_paused_is_told_in_words(farebox: Farebox, arguments: list[str], said: str) -> None:
    code, out, err = await farebox(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
