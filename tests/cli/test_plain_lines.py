"""What others named is shown on a terminal, and never obeyed by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rich_click as click
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from service.billing.refusals import printable
from service.cli.connections import Ended, fail
from service.cli.tariffs import register

EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\u202e[red]rides[/red]"


@given(st.text())
def test_a_line_is_printable_and_what_was_printable_is_as_it_was(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(text) == text or not text.isprintable()


def test_a_strangers_feed_says_nothing_to_the_terminal(tmp_path: Path) -> None:
    """Plans of others are linted, compared and priced before anybody trusts them."""
    plan = {"plan_id": "p", "currency": "CNY", "price": 1}
    documents: dict[str, object] = {
        "plan": plan,
        "named": plan | {"description": EVIL},
        "ruled": {"tariff_id": "p", "plan": plan, "rules": {EVIL: 1}},
        "worked": {"fares": [{"id": EVIL, "plan": plan, "duration_s": 1, "expected": 2}]},
    }
    for name, document in documents.items():
        (tmp_path / name).write_text(json.dumps(document))
    plain_plan, named, ruled, worked = (str(tmp_path / name) for name in documents)
    group = click.Group("farebox")
    register(group)
    for asked in (
        ["tariff", "diff", plain_plan, named],
        ["tariff", "lint", ruled],
        ["quote", "--seconds", "1", "--plan", ruled],
        ["fares", worked],
    ):
        said = CliRunner().invoke(group, asked).output
        assert r"\u202e" in said, asked
        assert [line for line in said.split("\n") if not line.isprintable()] == [], asked


def test_what_ends_a_command_is_said_without_what_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Ended):
        fail(f"there is no operator {EVIL}")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == r"farebox: there is no operator \x1b[2J\x1b]0;owned\x07\x9b31m\r\u202e[red]rides[/red]"
