"""Runs the build stage of the Dockerfile without a container engine, and the command it makes.

Every COPY and RUN of the first stage is carried out in a scratch directory, with the image's two directories moved
there; the interpreter is this one. What a container engine adds (the base image, the user, the read-only root) it
cannot show. Exits 1 with the failing step's output.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
COMMANDS = ("farebox --version", "farebox --help", "farebox migrate --help", "farebox serve --help")


def instructions(text: str) -> list[tuple[str, str]]:
    """A Dockerfile as (instruction, arguments), comments dropped and continued lines joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def stages(text: str) -> list[list[tuple[str, str]]]:
    """The instructions of each stage; every stage begins with its FROM."""
    found: list[list[tuple[str, str]]] = []
    for word, rest in instructions(text):
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest))
    return found


def copy(arguments: str, build: Path) -> None:
    """COPY: the named files or directories, from the top of the repository."""
    *sources, target = arguments.split()
    for source in map(TOP.joinpath, sources):
        if source.is_dir():
            shutil.copytree(source, build / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, build / target)


def run(command: str, build: Path) -> None:
    """RUN, or a call of the finished command; the output is shown when it fails."""
    done = subprocess.run(["/bin/sh", "-c", command], cwd=build, capture_output=True, text=True, check=False)  # noqa: S603  Ours.
    if done.returncode:
        sys.exit(f"{command}\n{done.stdout}{done.stderr}\nimage-check: exit {done.returncode}")
    print(f"image-check: {' '.join(command.split())[:96]}", flush=True)


def main() -> None:
    """Builds in a scratch directory, then asks the installed command for its help."""
    with tempfile.TemporaryDirectory(prefix="farebox-image-") as scratch:
        build, root = Path(scratch) / "build", Path(scratch) / "root"
        build.mkdir()
        for word, rest in stages((TOP / "deploy" / "Dockerfile").read_text(encoding="utf-8"))[0]:
            if word == "COPY":
                copy(rest, build)
            elif word == "RUN":
                here = rest.replace("python -m venv", f"{sys.executable} -m venv")
                run(here.replace("/opt/farebox", str(root)), build)
        for command in COMMANDS:
            run(f"{root}/bin/{command}", root)
    print("image-check: ok")


if __name__ == "__main__":
    main()
