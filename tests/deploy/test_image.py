"""The image: what the Dockerfile says, and that the wheel it installs is whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
DOCKERFILE = (TOP / "deploy" / "Dockerfile").read_text(encoding="utf-8")
KNOWN = {"FROM", "LABEL", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
PINNED = re.compile(r"python:3\.\d+\.\d+-slim-bookworm@sha256:[0-9a-f]{64}( AS [a-z]+)?")


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage as (word, rest): comments dropped, continued lines joined."""
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE))
    found: list[list[tuple[str, str]]] = []
    for word, _, rest in (line.partition(" ") for line in text.splitlines() if line):
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest.strip()))
    return found


def values(stage: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for instruction, rest in stage if instruction == word]


def test_every_instruction_is_one_we_know() -> None:
    assert {word for stage in stages() for word, _ in stage} <= KNOWN


def test_the_base_is_pinned_by_tag_and_digest_and_is_one() -> None:
    bases = [rest for stage in stages() for rest in values(stage, "FROM")]
    assert all(PINNED.fullmatch(base) for base in bases), bases
    assert len({base.partition(" ")[0] for base in bases}) == 1


def test_the_last_stage_runs_as_a_numbered_user_who_is_not_root() -> None:
    assert values(stages()[-1], "USER") == ["10001:10001"]


def test_the_last_stage_takes_only_the_finished_environment() -> None:
    assert values(stages()[-1], "COPY") == ["--from=build /opt/farebox /opt/farebox"]
    assert not re.search(r"\b(apt-get|gcc|pip install|ADD)\b", " ".join(values(stages()[-1], "RUN")))


def test_everything_installed_is_a_file_that_is_known_by_its_hash() -> None:
    installs = re.findall(r"pip (?:install|wheel) [^&]*", " ".join(values(stages()[0], "RUN")))
    assert len(installs) == 3
    assert all("--no-deps" in install for install in installs)
    assert all("--require-hashes" in install or "--no-index" in install for install in installs)


ENTRY = re.compile(r"([\w.-]+)==([^ ]+)((?: ; [^\\\n]*)?) \\\n(?: {4}--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+")
"""A package of the file of hashes: its name and version, perhaps for which systems, and at least one hash."""


def test_the_hashes_are_of_the_tested_versions_and_of_nothing_else() -> None:
    comment, _, text = (TOP / "deploy" / "hashes.txt").read_text(encoding="utf-8").partition("\n")
    assert comment.startswith("#")
    assert ENTRY.sub("", text) == ""
    held = {normal(name): version for name, version, where in ENTRY.findall(text) if "== 'win32'" not in where}
    tested = (TOP / "deploy" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    versions = dict(line.split("==") for line in tested if not line.startswith("#"))
    assert held.items() <= {normal(name): version for name, version in versions.items()}.items()
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["migrate"], "setuptools"]
    assert {normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in wanted} <= set(held)


def test_the_build_sees_every_file_it_copies() -> None:
    ignore = (TOP / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for rest in values(stages()[0], "COPY"):
        for source in rest.split()[:-1]:
            assert (TOP / source).exists(), source
            assert f"!{source}" in ignore, source


@pytest.mark.parametrize("name", ["dependencies", "migrate", "lab", "java", "test"])
def test_every_dependency_has_its_tested_version(name: str) -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] if name == "dependencies" else project["optional-dependencies"][name]
    lines = (TOP / "deploy" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    held = {normal(line.partition("==")[0]) for line in lines if not line.startswith("#")}
    assert {normal(re.split(r"[^\w.-]", text)[0]) for text in wanted} <= held


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy so that nothing is left behind."""
    scratch = tmp_path_factory.mktemp("wheel")
    source = scratch / "source"
    for name in ("pyproject.toml", "README.md", "LICENSE", "service"):
        copy_files(TOP / name, source / name)
    options = ["-qq", "--no-deps", "--no-index", "--no-build-isolation", "-w", "wheels", "./source"]
    command = [sys.executable, "-m", "pip", "wheel", *options]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next((scratch / "wheels").glob("farebox-*.whl"))


def copy_files(source: Path, target: Path) -> None:
    for file in [source] if source.is_file() else source.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    here = {str(file.relative_to(TOP)) for file in (TOP / "service").rglob("*") if file.is_file()}
    assert {name for name in here if "__pycache__" not in name} <= inside


def test_the_command_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = "import service.__main__ as farebox; print(farebox.__file__); farebox.main()"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout.splitlines()[0]
    assert "Usage" in done.stdout
