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
from typing import NamedTuple

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
Definition = ast.ClassDef | Function


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


class Module(NamedTuple):
    """What the rules ask of a Python file, from one walk over it: the trees of all files are a tenth of a gigabyte."""

    functions: list[tuple[int, str, int]]
    """(line, name, lines) of each."""
    calls: list[tuple[int, str]]
    """(line, dotted name) of each, where it has one."""
    imports: list[tuple[int, str]]
    """(line, dotted name) of each imported name."""
    catching_all: set[str]
    """The innermost functions around handlers of every exception."""
    texts: list[tuple[str, str]]
    """(innermost function around it, text) of each string."""
    silent: list[tuple[int, str]]
    """(line, name) of what is public and has no docstring."""


@cache
def modules() -> dict[str, Module]:
    """Each Python file of ours by its name from the top."""
    return {name: read(ast.parse(text)) for name, text in texts().items() if name.endswith(".py")}


def read(tree: ast.Module) -> Module:
    found = Module([], [], [], set(), [], silent(tree))
    for owner, node in owned(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found.functions.append((node.lineno, node.name, (node.end_lineno or 0) - node.lineno + 1))
            case ast.Call():
                found.calls.append((node.lineno, dotted(node.func)))
            case ast.Import():
                found.imports.extend((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom():
                found.imports.extend((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
            case ast.ExceptHandler() if catches_everything(node):
                found.catching_all.add(owner)
            case ast.Constant(value=str(text)):
                found.texts.append((owner, text))
    return found


def owned(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Every node under it with the innermost function around it."""
    left: list[tuple[str, ast.AST]] = [("<module>", tree)]
    while left:
        owner, node = left.pop()
        inside = node.name if isinstance(node, Function) else owner
        for child in ast.iter_child_nodes(node):
            yield inside, child
            left.append((inside, child))


def dotted(node: ast.AST) -> str:
    """A name as it is written; "" before the dot where that is no name."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return f"{dotted(node.value)}.{node.attr}"
    return ""


def catches_everything(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or dotted(kind) in ("Exception", "BaseException") for kind in kinds)


def silent(tree: ast.Module) -> list[tuple[int, str]]:
    public = [node for node in tree.body if isinstance(node, Definition) and not node.name.startswith("_")]
    found = [(1, "the module")] if ast.get_docstring(tree) is None else []
    return found + [(node.lineno, node.name) for node in public if not ast.get_docstring(node)]


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in texts().items()
        if pattern.search(text)
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def nothing(found: list[str]) -> None:
    """Fails with every finding on a line of its own."""
    assert not found, "\n" + "\n".join(found)


def test_a_function_fits_a_screen() -> None:
    long = [
        f"{name}:{line}: {function} has {lines} lines"
        for name, module in modules().items()
        for line, function, lines in module.functions
        if lines > FUNCTION_LINES_MAX
    ]
    nothing(long)


def test_a_file_is_read_in_a_sitting() -> None:
    counted = {name: len(texts()[name].splitlines()) for name in modules()}
    nothing([f"{name} has {lines} lines" for name, lines in counted.items() if lines > FILE_LINES_MAX])


def test_nothing_is_left_for_later() -> None:
    nothing(lines_with(UNFINISHED))


def test_our_own_code_is_never_mocked() -> None:
    mocked = [
        f"{name}:{line}: {imported}"
        for name, module in modules().items()
        for line, imported in module.imports
        if imported.startswith(("unittest.mock", "mock.", "pytest_mock")) or imported == "mock"
    ]
    nothing(mocked)


def test_only_a_loop_that_owns_its_process_catches_everything() -> None:
    broad = {(name, owner) for name, module in modules().items() for owner in module.catching_all}
    nothing([f"{name}: {owner} has no reason here" for name, owner in broad - set(BROAD_HANDLERS)])
    nothing([f"{name}: {owner} no longer needs its reason" for name, owner in set(BROAD_HANDLERS) - broad])


def test_no_test_waits_for_the_clock_on_the_wall() -> None:
    waits = [
        f"{name}:{line}"
        for name, module in modules().items()
        if name.startswith("tests/")
        for line, called in [*module.calls, *module.imports]
        if called == "time.sleep"
    ]
    nothing(waits)


def test_the_rules_read_no_clock_and_no_chance() -> None:
    rules = [(name, module) for name, module in modules().items() if name.startswith("service/billing/")]
    found = [f"{name}:{line}: {called}" for name, rule in rules for line, called in rule.calls if CLOCKS.search(called)]
    found += [
        f"{name}:{line}: {imported}" for name, rule in rules for line, imported in rule.imports if IO.match(imported)
    ]
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
    service = [(name, module) for name, module in modules().items() if name.startswith("service/")]
    nothing([f"{name}:{line}: {what}" for name, module in service for line, what in module.silent])


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
    for name, module in modules().items():
        if name.startswith("service/adapters/postgres/"):
            for owner, text in module.texts:
                if text in queries():
                    users[text].add(f"{name}: {owner}")
    nothing([f"{query}: {sorted(users[query]) or 'nobody'}" for query in queries() if len(users[query]) != 1])
