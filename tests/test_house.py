"""The repository reads its own text: what house.md and style.md ask of every file, as claims."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]

FUNCTION_LINES_MAX = 50
FILE_LINES_MAX = 400
TOP_LEVEL = {
    ".ci",
    ".gitignore",
    "LICENSE",
    "Makefile",
    "README.md",
    "deploy",
    "pyproject.toml",
    "schemas",
    "service",
    "tests",
}
BROAD_HANDLERS = {
    (
        "service/adapters/kafka.py",
        "on_partitions_revoked",
    ): "the client swallows it: it is kept for the round, and raised",
    ("service/adapters/kafka_access.py", "opened"): "what was half opened is closed, and the failure raised",
    ("service/flows/intake/__init__.py", "_take_apart"): "one record that trips a bug of ours must not stop a city",
    ("service/flows/housekeeping.py", "_decide"): "one ride that trips a bug of ours must not stop all others",
    ("service/flows/collection/apart.py", "or_apart"): "a round that trips over a bug of ours is done one at a time",
    ("service/flows/collection/apart.py", "one_at_a_time"): "one ride or debit that trips must not stop all others",
    ("service/flows/collection/calls.py", "call"): "a bug in one call counts as no answer: the money may have moved",
    ("service/wiring/__init__.py", "_take_in"): "the loop that owns the intake's process",
}
"""(file, function) that may catch everything: why."""

UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
ELSEWHERE = (
    re.compile(r"(?<![\w.:/])/(home|root|Users|work|workspace)/"),
    re.compile(r"\.\./shared\b"),
    re.compile(r"\b(files\.pythonhosted|pypi\.org|registry\.npmjs|repo1?\.maven|proxy\.golang|registry-1\.docker)"),
)
DIRECTIVE = re.compile(r"# (?:noqa: [A-Z0-9]+(?:, ?[A-Z0-9]+)*|type: ignore\[[\w, -]+\])(?P<reason>.*)")
BARE_DIRECTIVE = re.compile(r"# (?:no" r"qa(?!: [A-Z])|type: ig" r"nore(?!\[))")
CLOCKS = re.compile(r"(^|\.)(now|utcnow|today|uuid1|uuid4|monotonic)$|^(print|open)$")
IO = re.compile(r"(random|secrets|time|logging|os|socket|subprocess|pathlib)(\.|$)")
QUERY = re.compile(r"(?m)^-- name: (\w+)\n(.*)$")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def files() -> tuple[Path, ...]:
    """Every file that is ours: git's list, or in an unpacked archive everything our tools did not make."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, capture_output=True, text=True, check=False)
    names = listed.stdout.split("\0") if listed.returncode == 0 else []
    if "pyproject.toml" in names:
        found = [TOP / name for name in names if name]
    else:
        entries = [entry for entry in TOP.iterdir() if entry.name in TOP_LEVEL]
        found = [file for entry in entries for file in ([entry] if entry.is_file() else entry.rglob("*"))]
    return tuple(sorted(file for file in found if file.is_file() and "__pycache__" not in file.parts))


@cache
def texts() -> dict[str, str]:
    """Each text file of ours by its name from the top, without what others wrote."""
    found = {}
    for file in files():
        data = file.read_bytes()
        if b"\0" not in data and file.name != "LICENSE":
            found[str(file.relative_to(TOP))] = data.decode("utf-8")
    return found


@cache
def modules(*, under: str = "") -> dict[str, ast.Module]:
    """Each Python file, parsed."""
    return {name: ast.parse(text) for name, text in texts().items() if name.endswith(".py") and name.startswith(under)}


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every call in the tree as (line, dotted name)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every imported name as (line, dotted name)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def owned(node: ast.AST, owner: str = "<module>") -> Iterator[tuple[str, ast.AST]]:
    """Every node with the innermost function around it."""
    for child in ast.iter_child_nodes(node):
        yield owner, child
        yield from owned(child, child.name if isinstance(child, Function) else owner)


def nothing(found: list[str]) -> None:
    """Fails with every finding on a line of its own."""
    assert not found, "\n" + "\n".join(found)


def test_a_function_fits_a_screen() -> None:
    long = [
        f"{name}:{node.lineno}: {node.name} has {lines} lines"
        for name, tree in modules().items()
        for node in functions(tree)
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    nothing(long)


def test_a_file_is_read_in_a_sitting() -> None:
    counted = {name: len(texts()[name].splitlines()) for name in modules()}
    nothing([f"{name} has {lines} lines" for name, lines in counted.items() if lines > FILE_LINES_MAX])


def test_nothing_is_left_for_later() -> None:
    nothing(lines_with(UNFINISHED))


def test_our_own_code_is_never_mocked() -> None:
    mocked = [
        f"{name}:{line}: {module}"
        for name, tree in modules().items()
        for line, module in imports(tree)
        if module.startswith(("unittest.mock", "mock.", "pytest_mock")) or module == "mock"
    ]
    nothing(mocked)


def catches_everything(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in kinds)


def test_only_a_loop_that_owns_its_process_catches_everything() -> None:
    broad = {
        (name, owner)
        for name, tree in modules().items()
        for owner, node in owned(tree)
        if isinstance(node, ast.ExceptHandler) and catches_everything(node)
    }
    nothing([f"{name}: {owner} has no reason here" for name, owner in broad - set(BROAD_HANDLERS)])
    nothing([f"{name}: {owner} no longer needs its reason" for name, owner in set(BROAD_HANDLERS) - broad])


def test_no_test_waits_for_the_clock_on_the_wall() -> None:
    waits = [
        f"{name}:{line}"
        for name, tree in modules(under="tests/").items()
        for line, call in [*calls(tree), *imports(tree)]
        if call == "time.sleep"
    ]
    nothing(waits)


def test_the_rules_read_no_clock_and_no_chance() -> None:
    rules = modules(under="service/billing/").items()
    found = [
        f"{name}:{line}: {called}" for name, tree in rules for line, called in calls(tree) if CLOCKS.search(called)
    ]
    found += [f"{name}:{line}: {module}" for name, tree in rules for line, module in imports(tree) if IO.match(module)]
    nothing(found)


def test_the_house_has_the_rooms_it_says() -> None:
    tracked = {str(file.relative_to(TOP)).partition("/")[0] for file in files()}
    assert tracked <= TOP_LEVEL


def test_no_text_knows_where_it_was_written() -> None:
    nothing([line for pattern in ELSEWHERE for line in lines_with(pattern)])


def test_each_exception_to_a_rule_says_its_reason() -> None:
    """On its line, or on the line before that carries the same exception."""
    bare = lines_with(BARE_DIRECTIVE)
    for name in modules():
        found = [DIRECTIVE.search(line) for line in ["", *texts()[name].splitlines()]]
        for number, (before, here) in enumerate(pairwise(found), 1):
            if here and not here["reason"].strip() and not before:
                bare.append(f"{name}:{number}: {here[0]}")
    nothing(bare)


def test_each_module_and_each_public_name_has_a_docstring() -> None:
    silent = [
        f"{name}:{getattr(node, 'lineno', 1)}: {getattr(node, 'name', 'the module')}"
        for name, tree in modules(under="service/").items()
        for node in [tree, *tree.body]
        if isinstance(node, ast.Module | ast.ClassDef | Function)
        if not getattr(node, "name", "").startswith("_") and not ast.get_docstring(node)
    ]
    nothing(silent)


@cache
def queries() -> dict[str, str]:
    """Each named query and the line under its name."""
    found = [match for name, text in texts().items() if name.endswith(".sql") for match in QUERY.findall(text)]
    names = [name for name, _ in found]
    assert len(names) == len(set(names)), "a query's name stands once"
    return dict(found)


def test_each_named_query_says_why_it_is_there() -> None:
    nothing([name for name, line in queries().items() if not re.fullmatch(r"-- \S.*", line)])


def test_each_named_query_has_one_method_that_runs_it() -> None:
    users: dict[str, set[str]] = defaultdict(set)
    for name, tree in modules(under="service/adapters/postgres/").items():
        for owner, node in owned(tree):
            if isinstance(node, ast.Constant) and node.value in queries():
                users[str(node.value)].add(f"{name}: {owner}")
    nothing([f"{query}: {sorted(users[query]) or 'nobody'}" for query in queries() if len(users[query]) != 1])
