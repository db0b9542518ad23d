"""`farebox validate` and `farebox schemas` as their users meet them."""

import json
from pathlib import Path

import pytest
import rich_click as click
from click.testing import CliRunner, Result

from service.billing.events import Malformed, RideEvent, decode
from service.billing.events.exports import record_of_line
from service.cli.events import register

EXAMPLES = Path(__file__).parents[2] / "schemas/examples"
GOOD = [json.dumps(json.loads(file.read_text())) for file in sorted(EXAMPLES.glob("good/*.json"))]
STARTED = json.loads((EXAMPLES / "good/started.json").read_text())
STRANGE = json.dumps({"specversion": "1.0", "id": "1", "source": "s", "type": "com.example.bell_rung"})


@click.group()
def commands() -> None:
    """The commands under test."""


register(commands)


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(commands, arguments, input=stdin)


def test_every_good_example_is_valid_in_one_file(tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text("\n".join(GOOD))
    result = run("validate", str(file))
    assert (result.exit_code, result.stdout) == (0, f"{len(GOOD)} valid, 0 invalid, 0 skipped\n")


def test_every_bad_line_is_named_with_its_path_and_reason(tmp_path: Path) -> None:
    bad = [json.loads(file.read_text()) for file in sorted(EXAMPLES.glob("bad/*.json"))]
    file = tmp_path / "events.ndjson"
    file.write_text("\n".join([GOOD[0], *(json.dumps(example["record"]) for example in bad), STRANGE]))
    expected = [f"line {number}: {one['path']}: {one['reason']}" for number, one in enumerate(bad, 2)]
    result = run("validate", str(file))
    assert result.exit_code == 1
    skipped = f"line {len(bad) + 2}: skipped, 'com.example.bell_rung' is no event of a ride"
    assert result.stdout.splitlines() == [*expected, skipped, f"1 valid, {len(bad)} invalid, 1 skipped"]


@pytest.mark.parametrize(
    ("stdin", "code", "lines"),
    [
        ("", 0, ["0 valid, 0 invalid, 0 skipped"]),
        ("\n  \n\r\n", 0, ["0 valid, 0 invalid, 0 skipped"]),
        (f"\r\n{GOOD[0]}\r\n", 0, ["1 valid, 0 invalid, 0 skipped"]),
        (
            STRANGE,
            0,
            ["line 1: skipped, 'com.example.bell_rung' is no event of a ride", "0 valid, 0 invalid, 1 skipped"],
        ),
        (json.dumps(json.loads(GOOD[0]), indent=2), 0, ["1 valid, 0 invalid, 0 skipped"]),
        ("{\n", 1, ["line 1: $: not JSON: Input data was truncated", "0 valid, 1 invalid, 0 skipped"]),
        (b"\xff\n", 1, ["line 1: $: not UTF-8 at byte 0", "0 valid, 1 invalid, 0 skipped"]),
        ("x", 1, ["line 1: $: not JSON: invalid character (byte 0)", "0 valid, 1 invalid, 0 skipped"]),
        ("[]", 1, ["line 1: $: expected object, got array", "0 valid, 1 invalid, 0 skipped"]),
        (
            '{"value": {}, "headers": {"ce_id": 7}}',
            1,
            ["line 1: $.headers[...]: expected str, got int", "0 valid, 1 invalid, 0 skipped"],
        ),
    ],
)
def test_lines_may_come_by_stdin(stdin: str | bytes, code: int, lines: list[str]) -> None:
    result = run("validate", "-", stdin=stdin)
    assert (result.exit_code, result.stdout.splitlines()) == (code, lines)


@pytest.mark.parametrize("name", ["not-there.ndjson", "."])
def test_a_file_that_cannot_be_read_is_one_line_and_exit_2(name: str, tmp_path: Path) -> None:
    result = run("validate", str(tmp_path / name))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("farebox: ") and "can't be read" in result.stderr
    assert "give a file with one JSON object on a line" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_exported_record_is_the_record_it_was_made_of() -> None:
    whole = json.dumps(STARTED)
    structured = {
        "key": STARTED["subject"],
        "headers": {"content-type": "application/cloudevents+json"},
        "value": whole,
    }
    assert decode(record_of_line(json.dumps(structured).encode())) == decode(record_of_line(whole.encode()))
    assert isinstance(decode(record_of_line(whole.encode())), RideEvent)


@pytest.mark.parametrize("named", [{}, {"subject": "another"}, {"partitionkey": "another"}])
def test_a_bare_event_is_held_to_its_own_session_id(named: dict[str, str]) -> None:
    answer = decode(record_of_line(json.dumps({**STARTED, **named}).encode()))
    assert isinstance(answer, Malformed) == bool(named)


def test_schemas_writes_then_finds_nothing_to_do_and_tells_what_differs(tmp_path: Path) -> None:
    assert run("schemas", "--dir", str(tmp_path)).exit_code == 0
    assert run("schemas", "--check", "--dir", str(tmp_path)).exit_code == 0
    (tmp_path / "tariff.json").write_text("{}")
    result = run("schemas", "--check", "--dir", str(tmp_path))
    assert result.exit_code == 1
    assert "tariff.json differs from the code" in result.stdout
