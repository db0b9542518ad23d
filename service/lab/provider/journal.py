"""The books on disk: an append-only file, a line per change, written before the call that made it is answered."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from service.lab.provider.rows import Row

_DECODER = msgspec.json.Decoder(list[Row])


class Journal:
    """Survives a `kill -9` of the process: the lines are with the operating system. It is not fsynced."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._encoder = msgspec.json.Encoder()
        self._path = path

    def read(self) -> Iterator[list[Row]]:
        """Every line of earlier lives. A torn last line was never answered: it is cut off."""
        kept = 0
        with self._path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                kept += len(line)
                yield _DECODER.decode(line)
        os.ftruncate(self._file, kept)

    def append(self, rows: Sequence[Row]) -> None:
        """One line, all or nothing."""
        os.write(self._file, self._encoder.encode(rows) + b"\n")

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)
