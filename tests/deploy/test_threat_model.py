"""Each claim of the threat model names a test that is there, and each side that was asked about has its chapter."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
TEXT = (TOP / "deploy" / "threat-model.md").read_text(encoding="utf-8")
SIDES = ("rental app", "rider", "operator's token", "provider's network", "database", "Kubernetes namespace", "build")


def test_every_claim_names_tests_that_are_there() -> None:
    claims = [line for line in TEXT.splitlines() if re.match(r"\| (?!-|he can't|a writer can't \|)", line)]
    assert len(claims) > 25
    for claim in claims:
        if re.search(r"\| held by \|$|^\|-", claim):
            continue
        assert re.search(r"`[\w/]+\.py(::\w+)?`", claim), claim


def test_every_test_that_is_named_is_one() -> None:
    named = re.findall(r"`((?:\w+/)?test_\w+\.py)(?:::(\w+))?`", TEXT)
    assert named
    for file, function in named:
        tree = ast.parse((TOP / "tests" / file).read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert not function or function in functions, f"{file}::{function}"


def test_every_side_has_a_chapter() -> None:
    titles = " ".join(re.findall(r"(?m)^## (.+)$", TEXT))
    assert [side for side in SIDES if side not in titles] == []


def test_every_link_leads_somewhere() -> None:
    runbook = (TOP / "deploy" / "runbook.md").read_text(encoding="utf-8")
    anchors = {title.lower().replace(" ", "-") for title in re.findall(r"(?m)^#+ (.+)$", runbook)}
    assert set(re.findall(r"\(runbook\.md#([^)]+)\)", TEXT)) <= anchors
