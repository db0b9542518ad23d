"""Apache Kafka's jars: fetched once from Maven Central by jgo, checked against committed digests, kept in a cache.

jgo's own caches are used when they are whole. It does not write them atomically, so what a broken download has left
there is found by the digests, and everything is fetched anew beside them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from service.lab.processes import Children, LabError

RELEASE = "4.2.0"
ENDPOINT = f"org.apache.kafka:kafka_2.13:{RELEASE}+org.slf4j:slf4j-nop:1.7.36"
DIGESTS = Path(__file__).parent / "data" / f"kafka-{RELEASE}.sha256"


async def fetch_jars(children: Children, log: Path, console: Console) -> Path:
    """The directory with Kafka's jars, filled now if it is not there; LabError says why it cannot be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "farebox"
    jars = cache / f"kafka-{RELEASE}"
    if await asyncio.to_thread(jars.exists):
        return jars
    console.print(f"Fetching Apache Kafka {RELEASE} from Maven Central (43 MB, once) …")
    with console.status("Fetching") if console.is_terminal else contextlib.nullcontext():
        for own_caches in (False, True):
            if await _fetch(children, log, jars, own_caches=own_caches):
                return jars
    raise LabError(
        f"Apache Kafka could not be fetched ({await asyncio.to_thread(_last_words, log)}):"
        " see that Maven Central can be reached, or set FAREBOX_KAFKA_BOOTSTRAP=host:port to a Kafka that is there"
    )


def _last_words(log: Path) -> str:
    return (log.read_text(errors="replace").strip().splitlines() or ["no reason given"])[-1]


async def _fetch(children: Children, log: Path, jars: Path, *, own_caches: bool) -> bool:
    """Whether a process of its own (it can be interrupted at any time) has brought the jars there."""
    work = await asyncio.to_thread(_workplace, jars.parent)
    env = {"JGO_CACHE_DIR": str(work / "jgo"), "M2_REPO": str(work / "m2")} if own_caches else {}
    command = [sys.executable, "-m", "service.lab.jars", str(work), str(jars)]
    child = children.start("jgo", command, log, env=env, remove=work)
    return await child.wait() == 0


def _workplace(cache: Path) -> Path:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="fetching-", dir=cache))
    except OSError as error:
        raise LabError(f"no cache for Apache Kafka ({error}): set XDG_CACHE_HOME to a writable directory") from error


def main(work: Path, jars: Path) -> None:
    """Resolve, check, and put the jars in place in one step; exits with the reason if a digest is not as expected."""
    import jgo  # noqa: PLC0415  Only the first start needs it, and it is slow to load.

    built = jgo.build(ENDPOINT)
    found = {path.name: path for path in (*built.class_path_jars, *built.module_path_jars)}
    (work / "jars").mkdir()
    for line in DIGESTS.read_text().splitlines():
        digest, name = line.split()
        if name not in found or hashlib.sha256(found[name].read_bytes()).hexdigest() != digest:
            sys.exit(f"{name} is not the file that was released")
        shutil.copyfile(found[name], work / "jars" / name)
    with contextlib.suppress(FileExistsError):  # Another process was faster.
        (work / "jars").rename(jars)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
