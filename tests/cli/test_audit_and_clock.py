"""`farebox audit` and `farebox clock` on the command line: what they print, and how they end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from command_line import Farebox, command


@pytest.fixture(scope="module")
def farebox(database_url: str) -> Farebox:
    return command(database_url)


async def test_an_audit_ends_with_what_it_read_and_found(farebox: Farebox, database_url: str) -> None:
    assert (await farebox("audit"))[:2] == (0, "audit: 0 rides, 0 charges, 0 transfers, 0 problems\n")
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "INSERT INTO session_key VALUES ('00000000-0000-0000-0000-000000000007', 8, 7);"
        " INSERT INTO transfer VALUES (382767149875200003, 1, 1, 0, 9, 1, 1000000000000001, 2000000000000001, 250,"
        " 'CNY', '2026-11-22T04:00:00Z')"
    )
    code, out, _ = await farebox("audit")
    one_operator, other, _ = await farebox("audit", "--operator", "default")
    await connection.execute("DELETE FROM session_key")
    await connection.close()
    lines = out.splitlines()
    assert (code, lines[-1]) == (1, "audit: 0 rides, 0 charges, 1 transfers, 3 problems")
    assert [line.split(": ")[:2] for line in lines[:3]] == [
        ["ride 382767149875200003", "transfer.*"],
        ["operator default", "transfer.receivable:1"],
        ["ride 8", "session_key.*"],
    ]
    assert (one_operator, other.splitlines()[-1]) == (1, "audit: 0 rides, 0 charges, 1 transfers, 2 problems")


async def test_an_operator_that_is_not_there_is_one_line(farebox: Farebox) -> None:
    code, _, err = await farebox("audit", "--operator", "nobody")
    assert code == 2
    assert err.splitlines()[-1].startswith("farebox: there is no operator 'nobody'")


async def test_the_clock_is_shown_sped_up_advanced_and_set(farebox: Farebox) -> None:
    code, out, _ = await farebox("clock", "show")
    assert (code, out.partition("  ")[2]) == (0, "the machine's clock\n")
    assert (await farebox("clock", "speed", "0"))[1].endswith("  virtual, 0 times as fast\n")
    before = datetime.fromisoformat((await farebox("clock", "show"))[1].partition("  ")[0])
    after = datetime.fromisoformat((await farebox("clock", "advance", "1d12h"))[1].partition("  ")[0])
    assert after - before == timedelta(hours=36)
    ahead = (after + timedelta(days=1)).astimezone(UTC)
    assert (await farebox("clock", "virtual", "--at", ahead.isoformat()))[1].startswith(ahead.isoformat())


@pytest.mark.parametrize(
    "arguments",
    [
        ("speed", "-1"),
        ("speed", "nan"),
        ("speed", "inf"),
        ("speed", "fast"),
        ("advance", "1x"),
        ("advance", ""),
        ("advance", "\u0663d"),
        ("advance", "4000d"),
        ("virtual", "--at", "2026-11-22T08:00"),
    ],
)
async def test_what_is_no_pace_step_or_instant_is_refused(farebox: Farebox, arguments: tuple[str, ...]) -> None:
    code, _, err = await farebox("clock", *arguments)
    assert (code, "Traceback" in err) == (2, False), err


async def test_a_production_clock_is_never_set(farebox: Farebox) -> None:
    code, _, err = await farebox("clock", "advance", "1d", FAREBOX_ENVIRONMENT="production")
    assert code == 2
    assert "only a sandbox installation has a" in err
    assert (await farebox("clock", "show", FAREBOX_ENVIRONMENT="production"))[0] == 0
