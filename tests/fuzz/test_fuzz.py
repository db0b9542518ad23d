"""Every door is fuzzed for a few seconds, with the same inputs each time: so many runs of one seed."""

from __future__ import annotations

import os
import subprocess
import sys
from base64 import b64encode
from importlib.util import find_spec
from pathlib import Path

import doors
import pytest
from fuzz_parts import Door

FUZZ = Path(__file__).with_name("fuzz.py")
HALVES = (doors.DOORS[::2], doors.DOORS[1::2])
"""For two test processes; the doors of a half are forked off one that has imported the service once."""


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel for this system and Python")
@pytest.mark.parametrize("half", HALVES, ids=["even", "odd"])
def test_no_input_breaks_what_a_door_promises(half: tuple[Door, ...]) -> None:
    named = [argument for door in half for argument in ("--door", door.name)]
    environment = os.environ | {"PYTHONHASHSEED": "0"}  # What is covered is told by hashes.
    done = subprocess.run(
        [sys.executable, FUZZ, *named], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert done.stdout.endswith(f"fuzz: {len(half)} doors, 0 findings\n")


def test_an_input_that_was_found_is_played_again_at_its_door() -> None:
    """The harness itself: a door that is no door, and an input in the form in which it is printed."""
    words = [sys.executable, str(FUZZ), "--replay", b64encode(doors.DOORS[0].seeds()[0]).decode(), "--door"]
    unknown, played = (
        subprocess.run([*words, name], capture_output=True, text=True, check=False) for name in ("cellar", "record")
    )
    assert (unknown.returncode, played.returncode) == (2, 0)
    assert "no door 'cellar'; they are record," in unknown.stdout
    assert played.stdout == "fuzz: record took it\n"
