"""`make chaos KILLS=N [SEED=S]`: a whole installation under load, whose processes, servers and wires are broken by a
seeded plan; nothing that was acknowledged may be lost, and no ride is charged twice."""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from chaos_books import Verdict, drain, judge
from chaos_disk import SmallDisk, enter_namespace
from chaos_faults import Fault, Hand, of_one_kind, plan
from chaos_fleet import ROLES, Fleet, Site
from chaos_town import TARIFF, Ride, Town

from service.lab.demo.furnishing import furnish
from service.lab.postgres import reachable_temp
from service.lab.processes import LabError

RIDERS = 30
PROBES = 6
"""So many rides are sent after a fault, and the slowest counts: one alone may meet the process that was not hit."""
RECOVERY_S = 240.0
"""After so long without a fault a ride that was sent must be charged and readable, and its debit answered."""
OPEN = ("new", "submitting", "unknown")
"""States of a debit that its provider has not answered."""


class Recovery(msgspec.Struct):
    """Seconds from the end of a fault until the rides sent then were charged and told so, and until their debits were
    answered by the provider."""

    charged: list[float] = []
    answered: list[float] = []


class Run:
    """One run: the plan, what it took to recover, how it ended."""

    def __init__(self, seed: int, steps: list[list[Fault]], rides_per_s: float, readers: int, minutes: float) -> None:
        self.seed = seed
        self.steps = steps
        self.rides_per_s = rides_per_s
        self.readers = readers
        self._until_s = time.monotonic() + 60 * minutes
        self.recovered: defaultdict[str, Recovery] = defaultdict(Recovery)
        self.kills = self.others = 0
        self.left_out: set[str] = set()
        self.took: dict[str, float] = {}
        """Seconds, by what they went to."""
        self._began = time.monotonic()
        self.fleet: Fleet
        self.town: Town

    async def play(self, space: Path, disk: SmallDisk | None, home: Path, kafka: str | None) -> Verdict:
        """Everything from the first server to the verdict. Raises LabError where nothing recovers."""
        async with stage(space, home, self.seed, kafka) as (site, token):
            self.fleet = site.fleet
            self.town = town = Town(site.places, token, site.stream, self.seed)
            watching = asyncio.create_task(site.fleet.watch())
            try:
                self._took("servers")
                await town.open(RIDERS)
                self._took("riders")
                town.begin(self.rides_per_s, self.readers)
                await self._probe("nothing", time.monotonic())
                self._took("first rides")
                hand = Hand(site, disk, self.seed)
                await hand.office.open()
                for number, step in enumerate(self.steps, 1):
                    if time.monotonic() > self._until_s:
                        break
                    await self._step(hand, step)
                    say(f"{number}/{len(self.steps)} {self._how(step)}")
                await town.stop()
                self._took("faults")
                await drain(town, site.database_url)
                self._took("drain")
                verdict = await judge(town, site.database_url)
                verdict.problems += await asyncio.to_thread(site.errors)
                self._took("judgement")
                return verdict
            finally:
                watching.cancel()
                await town.close()

    def _took(self, what: str) -> None:
        """Since the last of these."""
        self.took[what] = time.monotonic() - self._began - sum(self.took.values())

    async def _step(self, hand: Hand, step: Sequence[Fault]) -> None:
        """The faults of a step at once; then a ride must go through, unless there is no such fault here."""
        met = [fault for fault in step if hand.can(fault)]
        self.left_out |= {fault.kind for fault in step} - {fault.kind for fault in met}
        if not met:
            return
        lifted = max(await asyncio.gather(*(hand.meet(fault) for fault in met)))
        self.kills += sum(fault.kills for fault in met)
        self.others += sum(not fault.kills for fault in met)
        await self._probe(met[0].name if len(met) == 1 else "two at once", lifted)
        if (failed := self.town.failed()) is not None:
            raise LabError(f"the load ended: {failed!r}") from failed

    async def _probe(self, what: str, lifted: float) -> None:
        """Sends rides, and asks until the last of them is charged and its debit answered."""
        rides = await asyncio.gather(*(self.town.ride(quick=True) for _ in range(PROBES)))
        try:
            async with asyncio.timeout(RECOVERY_S):
                for seen, taken in (
                    (_charged, self.recovered[what].charged),
                    (_answered, self.recovered[what].answered),
                ):
                    await asyncio.gather(*(self._until(ride, seen) for ride in rides))
                    taken.append(time.monotonic() - lifted)
        except TimeoutError:
            told = [await self.town.session(ride.session_id) for ride in rides]
            states = [
                one and (one["session_id"], one["state"], [debit["state"] for debit in one["debits"]]) for one in told
            ]
            raise LabError(f"{RECOVERY_S:.0f} s after {what} not everything goes on: {states}") from None

    async def _until(self, ride: Ride, seen: Callable[[Mapping[str, Any]], bool]) -> None:
        """Returns once the doors tell it of a ride."""
        while (told := await self.town.session(ride.session_id)) is None or not seen(told):  # noqa: ASYNC110  Another process does it.
            await asyncio.sleep(0.25)

    def _how(self, step: Sequence[Fault]) -> str:
        what = step[0].name if len(step) == 1 else "two at once"
        seconds = self.recovered[what].charged[-1] if self.recovered[what].charged else 0.0
        return f"{' and '.join(fault.name for fault in step)}: charged after {seconds:.1f} s"


def _charged(told: Mapping[str, Any]) -> bool:
    return told["charge"] is not None


def _answered(told: Mapping[str, Any]) -> bool:
    return bool(told["debits"]) and told["debits"][0]["state"] not in OPEN


@asynccontextmanager
async def stage(space: Path, home: Path, seed: int, kafka: str | None) -> AsyncIterator[tuple[Site, str]]:
    """The whole installation at work, and a token for its doors."""
    async with Fleet() as fleet:
        site = Site(fleet, space, home, seed, kafka)
        try:
            _, token = await asyncio.gather(site.kafka(), furnished(site))
            for role in ROLES:
                await site.begin(role)
            await site.serving()
            yield site, token
        finally:
            await fleet.kill_all()
            await site.stop()


async def furnished(site: Site) -> str:
    """All that needs no Kafka: PostgreSQL with everything in it, the providers; a token."""
    _, merchants = await asyncio.gather(site.database(), site.providers())
    return await furnish(site.database_url, [msgspec.json.encode(TARIFF)], merchants, datetime.now(UTC))


def say(line: str) -> None:
    """A line at once."""
    print(line, flush=True)


def table(recovered: dict[str, Recovery]) -> list[str]:
    """Recovery by kind of fault, in seconds."""
    lines = [f"{'recovered after':<34}{'n':>4} {'charged: median':>16}{'max':>7} {'answered: median':>17}{'max':>7}"]
    for what, found in sorted(recovered.items()):
        figures = [figure for taken in (found.charged, found.answered) for figure in _figures(taken)]
        lines.append(
            f"{what:<34}{len(found.charged):>4} {figures[0]:>16}{figures[1]:>7} {figures[2]:>17}{figures[3]:>7}"
        )
    return lines


def _figures(taken: Sequence[float]) -> tuple[str, str]:
    return (f"{statistics.median(taken):.1f}", f"{max(taken):.1f}") if taken else ("-", "-")


def told(run: Run, verdict: Verdict, seconds: float) -> int:
    """Prints what it came to; returns the exit code."""
    town, history = run.town, run.town.history
    problems = [*history.contradictions, *verdict.problems, *town.unexpected]
    audited = f"audit {verdict.audit_problems} problems"
    for line in table(run.recovered):
        say(line)
    say(f"settled: {', '.join(f'{count} {name}' for name, count in verdict.by_account.items())}")
    say(f"holds: {', '.join(f'{count} {what}' for what, count in town.holds.most_common())}")
    say(f"answers: {', '.join(f'{count} {what}' for what, count in town.answers.most_common())}")
    if run.fleet.ended:
        say(f"ended by themselves: {', '.join(f'{count} {what}' for what, count in run.fleet.ended.items())}")
    if run.left_out:
        say(f"not possible here, left out: {', '.join(sorted(run.left_out))}")
    say(f"seconds: {', '.join(f'{took:.1f} {what}' for what, took in run.took.items())}")
    for problem in problems[:40]:
        say(f"problem: {problem}")
    say(
        f"chaos: {run.kills} kills, {run.others} other faults, {verdict.rides:,} rides, {verdict.debits:,} debits,"
        f" {history.reads:,} reads, {verdict.lost} lost, {verdict.twice} charged twice,"
        f" {history.back_in_time} reads back in time, {len(problems)} problems, {audited},"
        f" {seconds:.0f} s, seed {run.seed}"
    )
    return 1 if problems else 0


def main() -> int:
    """Returns the exit code: 1 when something was lost, contradicted, or did not recover."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="how many processes are killed")
    parser.add_argument("--only", default="", help="so many faults of this name instead, as in the report")
    parser.add_argument("--seed", type=int, default=1, help="of the plan and the load")
    parser.add_argument("--rides", type=float, default=3.0, help="a second")
    parser.add_argument("--readers", type=int, default=2, help="who ask ten times a second each how rides stand")
    parser.add_argument("--minutes", type=float, default=600.0, help="after so many no further fault begins")
    parser.add_argument("--kafka", help="one to use, which nothing is done to; none: one of its own")
    parser.add_argument("--plan", action="store_true", help="print the plan alone")
    asked = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # That Kafka is away is what is tried.
    steps = of_one_kind(asked.seed, asked.only, asked.kills) if asked.only else plan(asked.seed, asked.kills)
    if not steps and asked.kills:
        parser.error(f"no fault is called {asked.only!r}")
    run = Run(asked.seed, steps, asked.rides, asked.readers, asked.minutes)
    if asked.plan:
        for step in run.steps:
            say(" and ".join(f"{fault.name} ({fault.seconds} s)" for fault in step))
        return 0
    refused = enter_namespace()
    space = Path(tempfile.mkdtemp(prefix="farebox-chaos-", dir=reachable_temp()))
    space.chmod(0o711)
    began, code = time.monotonic(), 1
    disk = SmallDisk(space / "disk") if refused is None else None
    try:
        verdict = asyncio.run(run.play(space, disk, space / "disk" if disk else space, asked.kafka))
        code = told(run, verdict, time.monotonic() - began)
    except LabError as error:
        say(f"chaos: {error}")
    finally:
        if disk is not None:
            with suppress(OSError):
                shutil.copy(space / "disk" / "postgres" / "postgres.log", space)
            disk.close()
        if code:
            (space / "plan.json").write_bytes(msgspec.json.format(msgspec.json.encode(run.steps)))
            say(f"chaos: seed {asked.seed}, again with: make chaos KILLS={asked.kills} SEED={asked.seed}; the plan and")
            say(f"the logs are in {space}")
        else:
            shutil.rmtree(space, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
