"""What others named is shown on a terminal, and never obeyed by it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli.connections import Ended, fail
from service.cli.plain import plain

EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\u202e[red]rides[/red]"


@given(st.text())
def test_a_line_is_printable_and_what_was_printable_is_as_it_was(text: str) -> None:
    assert plain(text).isprintable()
    assert plain(text) == text or not text.isprintable()


def test_what_ends_a_command_is_said_without_what_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Ended):
        fail(f"there is no operator {EVIL}")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == r"farebox: there is no operator \x1b[2J\x1b]0;owned\x07\x9b31m\r\u202e[red]rides[/red]"
