"""Random histories of one ride's debits, thousands of them: the real rules against a provider of our own in memory.

    python tests/simulation/histories.py --histories 5000 --first 1
    python tests/simulation/histories.py --seed 17         plays one again, shrinks it, and tells what happened

A history is drawn from its seed: a kind of provider, what the ride begins with, a list of acts, and how it ends.
Each act has draws of its own for all that is left to chance, so that any part of a history is one (sim_shrink).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
from sim_plot import Plot, draw
from sim_show import Failure, play, table
from sim_shrink import shrunk


class Result(msgspec.Struct):
    """What came of many histories."""

    histories: int = 0
    acts: int = 0
    seconds: float = 0.0
    reached: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    kinds: Counter[str] = msgspec.field(default_factory=Counter)
    failures: list[Failure] = []

    def line(self) -> str:
        """The closing line."""
        return (
            f"histories: {self.histories} histories, {self.acts} acts, {sum(self.reached.values())} events,"
            f" {len(self.reached)} kinds of them, {self.histories / max(self.seconds, 0.001):.0f} a second,"
            f" {len(self.failures)} failed"
        )


def run(seeds: Iterable[int], kinds: Sequence[str] = ()) -> Result:
    """Plays the histories of these seeds."""
    result, began = Result(), time.perf_counter()
    for seed in seeds:
        plot = draw(seed, kinds)
        failure, reached = play(plot)
        result.histories += 1
        result.acts += len(plot.acts)
        result.kinds[plot.kind] += 1
        result.reached += reached
        if failure is not None:
            result.failures.append(failure)
    result.seconds = time.perf_counter() - began
    return result


def tell(plot: Plot) -> None:
    """Plays one, shrinks it where it fails, and prints what happened."""
    failure, _ = play(plot)
    if failure is None:
        print(f"seed {plot.seed} goes well")
        return
    least = shrunk(plot, failure)
    again, _ = play(least, told=True)
    assert again is not None
    print(
        "\n".join([f"seed {plot.seed}, {plot.kind}: {len(plot.acts)} acts, shrunk to {len(least.acts)}", *again.story])
    )
    print("\n".join(f"  {wrong}" for wrong in again.wrongs))


def main() -> int:
    """The command."""
    arguments = argparse.ArgumentParser(description="Random histories of one ride's debits.")
    arguments.add_argument("--histories", type=int, default=2000)
    arguments.add_argument("--first", type=int, default=1)
    arguments.add_argument("--seed", type=int, help="play one again, shrunk")
    arguments.add_argument("--kind", action="append", default=[], help="of these providers alone")
    arguments.add_argument("--shown", type=int, default=5, help="how many failures are told whole")
    arguments.add_argument("--table", action="store_true", help="what was reached")
    given = arguments.parse_args()
    if given.seed is not None:
        tell(draw(given.seed, given.kind))
        return 0
    result = run(range(given.first, given.first + given.histories), given.kind)
    if given.table:
        print(table(result.reached))
    for failure in result.failures[: given.shown]:
        tell(draw(failure.seed, given.kind))
    for failure in result.failures[given.shown :]:
        print(f"seed {failure.seed}, {failure.kind}: {failure.wrongs[0]}")
    print(result.line())
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
