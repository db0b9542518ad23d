"""Coverage-guided fuzzing of every door: `make fuzz SECONDS=60 [DOOR=name] [SEED=1]`, `make fuzz DOOR=name REPLAY=…`.

atheris (libFuzzer) changes inputs, keeps what reaches a line that nothing reached before, and goes on from there. Each
door is a process of its own, forked off one that has imported the service with every branch instrumented. What is found
is printed in base64 with the command that plays it again; exit code 1. With --runs instead of --seconds the same seed
makes the same inputs, which is what `make test` does.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzz_parts import Door

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

WATCHDOG_SECONDS = 30
MEMORY_MB = 2048
MEMORY = Path("/dev/shm")  # noqa: S108  # Folders of our own are made in it, where there is such a place.
LENGTH_MAX = 4096
LAST = re.compile(r"#(\d+)\s+(?:DONE|INITED|NEW|REDUCE|pulse|RELOAD)\s+cov: (\d+) ft: (\d+) corp: (\d+)/(\S+)")


def main() -> int:
    """Fuzzes the doors that are asked for, one after the other; returns the exit code."""
    asked = _asked()
    if asked.replay is not None:
        return _replay(asked.door[0], base64.b64decode(asked.replay))
    import atheris

    with redirect_stderr(StringIO()), atheris.instrument_imports(include=["service"], enable_loader_override=False):
        import doors  # It says each module that it instruments.
    chosen = _chosen(doors.DOORS, asked.door)
    found = 0
    for door in chosen:
        found += _fuzz(door, asked)
    print(f"fuzz: {len(chosen)} doors, {found} findings", flush=True)
    return 1 if found else 0


def _asked() -> argparse.Namespace:
    asking = argparse.ArgumentParser(description=__doc__)
    asking.add_argument("--door", action="append", default=[], help="only this door; may be given several times")
    asking.add_argument("--seconds", type=int, help="so long at each door")
    asking.add_argument("--runs", type=float, default=1.0, help="instead: so many times the door's own number of runs")
    asking.add_argument("--seed", type=int, default=1)
    asking.add_argument("--replay", metavar="BASE64", help="enters one door once")
    asking.add_argument("--corpus", type=Path, help="a folder in which what was learnt is kept from run to run")
    return asking.parse_args()


def _replay(name: str, data: bytes) -> int:
    import doors

    (door,) = _chosen(doors.DOORS, [name])
    with tempfile.TemporaryDirectory() as room:
        tempfile.tempdir = room
        door.enter(data)
    print(f"fuzz: {name} took it")
    return 0


def _chosen(known: Sequence[Door], names: Sequence[str]) -> list[Door]:
    """The doors of these names, or all; ends the process where there is none of a name."""
    if unknown := set(names) - {door.name for door in known}:
        print(f"fuzz: no door {min(unknown)!r}; they are {', '.join(door.name for door in known)}")
        sys.exit(2)
    return [door for door in known if not names or door.name in names]


def _fuzz(door: object, asked: argparse.Namespace) -> int:
    """One door in a process of its own; returns how many inputs broke its promise, 0 or 1."""
    from fuzz_parts import Door

    assert isinstance(door, Door)
    # The parent's to remove, for a child may end anywhere.
    room = Path(tempfile.mkdtemp(prefix="farebox-fuzz-", dir=MEMORY if MEMORY.is_dir() else None))
    began, log = time.monotonic(), room / "log"
    pid = os.fork()
    if pid == 0:
        _be_the_fuzzer(door, asked, room, log)
    _, status = os.waitpid(pid, 0)
    text = log.read_text(encoding="utf-8", errors="replace")
    print(f"fuzz: {door.name:18} {_closing(text)}, {time.monotonic() - began:.1f} s", flush=True)
    broken = sorted(room.glob("found-*"))
    if status and not broken:
        print(f"{text[-4000:]}\nfuzz: {door.name} ended with {status} and left no input", flush=True)
    for file in broken:
        said = text[text.find("===") :] if "===" in text else text
        print(f"{said[:4000]}\nfuzz: {door.name}: {file.name.split('-')[1]}, {file.stat().st_size} bytes")
        told = base64.b64encode(file.read_bytes()).decode()
        print(f"make fuzz DOOR={door.name} REPLAY={told}", flush=True)
    rmtree(room)
    return int(status != 0)


def _be_the_fuzzer(door: object, asked: argparse.Namespace, room: Path, log: Path) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris
    from fuzz_parts import Door

    assert isinstance(door, Door)
    output = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    tempfile.tempdir = str(room)
    corpus = (asked.corpus / door.name) if asked.corpus else room / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = room / "seeds"
    seeds.mkdir()
    for number, seed in enumerate(door.seeds()):
        (seeds / f"{number:04}").write_bytes(seed)
    (room / "words").write_text("\n".join(_quoted(word) for word in door.words) + "\n", encoding="ascii")
    length = max([LENGTH_MAX, *(2 * len(seed) for seed in door.seeds())])
    limit = f"-max_total_time={asked.seconds}" if asked.seconds else f"-runs={int(door.runs * asked.runs)}"
    options = [
        limit,
        f"-seed={asked.seed}",
        f"-max_len={length}",
        f"-timeout={WATCHDOG_SECONDS}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={room / 'found-'}",
        f"-dict={room / 'words'}",
        "-len_control=0",  # Seeds are whole documents: short inputs first would spend the run on what parses as none.
    ]
    atheris.Setup(["fuzz", *options, str(corpus), str(seeds)], door.enter)
    atheris.Fuzz()


def _quoted(word: str) -> str:
    """A word of a libFuzzer dictionary."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"'


def _closing(text: str) -> str:
    """What libFuzzer said last: runs, coverage, corpus."""
    told: Sequence[tuple[str, ...]] = LAST.findall(text)
    if not told:
        return "no run"
    runs, branches, features, kept, size = told[-1]
    return f"{int(runs):9,} runs, {branches} branches, {features} features, corpus {kept}/{size}"


if __name__ == "__main__":
    sys.exit(main())
