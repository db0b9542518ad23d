"""What is said of what is said: one line a minute of a kind, no trace of a server that is away, and all of it JSON."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest

from service.telemetry import KINDS_MAX, REPEAT_SECONDS, Repeated

PROGRAM = """
import logging, sys, warnings
from service.telemetry import configure_logs
configure_logs("warning", "test", (OSError,))
LIBRARY = logging.getLogger("library")
"""


def lines_of(program: str, code: int = 0) -> list[dict[str, Any]]:
    """What a program logs to its end, line by line."""
    done = subprocess.run([sys.executable, "-c", PROGRAM + program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    return [msgspec.json.decode(line, type=dict[str, Any]) for line in done.stderr.splitlines()]


def test_one_of_a_kind_passes_each_minute_and_says_how_many_did_not() -> None:
    at = 0.0
    repeated = Repeated(lambda: at)
    assert [repeated.passes("a") for _ in range(3)] == [0, None, None]
    assert repeated.passes("b") == 0
    at = REPEAT_SECONDS
    assert [repeated.passes("a"), repeated.passes("a"), repeated.passes("b")] == [2, None, 0]
    assert repeated.held == {"a": 1}


def test_kinds_without_end_are_not_remembered_without_end() -> None:
    repeated = Repeated(lambda: 0.0)
    for number in range(KINDS_MAX):
        assert repeated.passes(str(number)) == 0
    assert repeated.passes("0") is None
    assert repeated.passes("one more") == 0
    assert repeated.passes("0") == 1  # Forgotten, and said once more.


def test_what_a_library_repeats_is_one_line_and_a_number_at_the_end() -> None:
    lines = lines_of("for number in range(500): LIBRARY.error('Unable connect to node with id %s', number)")
    assert [line["event"] for line in lines] == ["Unable connect to node with id 0", "held back until the end"]
    assert (lines[0]["component"], lines[0]["role"], lines[0]["level"]) == ("library", "test", "error")
    assert lines[1]["held_back"] == {"library: Unable connect to node with id %s": 499}


@pytest.mark.parametrize(
    ("failure", "traced"), [("ConnectionRefusedError('nobody there')", False), ("KeyError('a bug')", True)]
)
def test_a_server_that_is_away_has_no_trace_and_a_bug_has_one(failure: str, traced: bool) -> None:
    (line,) = lines_of(f"try: raise {failure}\nexcept Exception: LIBRARY.warning('went\\nwrong', exc_info=True)")
    assert line["event"] == "went\nwrong"
    assert ("exception" in line, "error" in line) == (traced, not traced)


@pytest.mark.parametrize(
    ("program", "code", "event"),
    [
        ("warnings.warn('old ways')", 0, "old ways"),
        ("raise KeyError('ours')", 1, "our error"),
        ("import threading; thread = threading.Thread(target=lambda: {}['ours']); thread.start()", 0, "our error"),
        ("class Late:\n  def __del__(self): {}['ours']\nLate()", 0, "our error"),
    ],
)
def test_whatever_else_is_said_is_json_too(program: str, code: int, event: str) -> None:
    (line,) = lines_of(program, code)
    assert event in line["event"]
    assert event == "old ways" or "KeyError: 'ours'" in line["exception"]


def test_our_own_error_is_logged_without_what_its_frames_hold() -> None:
    lines = lines_of(
        """
from service.telemetry import logger
def call(key):
    raise RuntimeError("something in an adapter")
try:
    call("sk_test_" + "4fQ9" * 6)
except RuntimeError as error:
    logger("test").critical("our error", exc_info=error)
    LIBRARY.error("a library's", exc_info=error)
"""
    )
    assert len(lines) == 2
    assert all("something in an adapter" in line["exception"] for line in lines)
    assert not any("4fQ94fQ9" in repr(line) for line in lines)


@pytest.mark.parametrize(
    ("error", "level"),
    [("GroupCoordinatorNotAvailableError", "warning"), ("GroupAuthorizationFailedError", "error")],
)
def test_what_kafkas_client_tries_again_by_itself_is_no_error(error: str, level: str) -> None:
    """The first start asks for a group that nobody ever asked for: its coordinator is made then."""
    failed = f"from aiokafka import errors\nLIBRARY.error('Group Coordinator Request failed: %s', errors.{error}())"
    (line,) = lines_of(failed)
    assert (line["level"], error in line["event"]) == (level, True)
