"""The demo's play: the apps sign and ride, one rider's story follows, everything comes to rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import asyncpg
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from service.lab.city import City, plan_city
from service.lab.demo.merchants import SHARES
from service.lab.demo.stage import Stage, set_clock, set_troubles, stop_clock
from service.lab.demo.story import RIDER, Moment, live
from service.lab.processes import Child, LabError
from service.lab.producer import Pace, Tally

DAYS = 3.0
CITY_BEGINS_AFTER = timedelta(hours=24)
"""After the beginning of business time: every role has read the new speed of the clock before the first ride."""
PLAY_SECONDS = 22.0
RIDES_PER_SECOND = 90
"""How many rides a second of the machine's the play asks for at the most."""
AFTERMATH = timedelta(hours=6)
"""Business time from the last message to the story, so that the last rides are charged and paid."""
CALM_SPEED = 600.0
"""Of the clock, while what is unknown at the end is asked for."""


class Show(msgspec.Struct):
    """What the summary needs besides the truth."""

    city: City
    signing: Tally
    riding: Tally
    story: list[Moment]
    seconds: float
    business: timedelta


async def play(stage: Stage, rides: int, seed: int, seconds: float, since: datetime, console: Console) -> Show:
    """Everything from the first signature to rest. Raises LabError when a process ends or nothing comes to rest."""
    began = time.monotonic()
    city = plan_city(seed, rides, since + CITY_BEGINS_AFTER, DAYS, SHARES)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        await _set_wallets(stage, city)
        await set_troubles(stage, on=True)
        signing = await _apps(stage, progress, "riders sign agreements", len(city.riders), ["sign"], seed, rides, since)
        speed = (city.ends_at - since).total_seconds() / max(seconds, rides / RIDES_PER_SECOND)
        pace = Pace(datetime.now(UTC), since, speed)
        await set_clock(stage.database_url, stage.places.provider, pace)
        words = ["play", "--pace", msgspec.json.encode(pace).decode()]
        total = len(city.messages)
        riding = await _apps(stage, progress, "the city rides", total, words, seed, rides, since)
        await _run_until(stage, pace, city.ends_at + AFTERMATH)
        at = await stop_clock(stage, pace)
        bar = progress.add_task("one rider's story", total=None)
        story = await live(stage, at, lambda what: progress.update(bar, description=f"one rider {what}"))
        progress.update(bar, description="one rider's story", total=1, completed=1)
        bar = progress.add_task("debits settle", total=None)
        ended = await _come_to_rest(stage, story.at, lambda left: progress.update(bar, description=f"at rest: {left}"))
        progress.update(bar, description="everything is at rest", total=1, completed=1)
    return Show(city, signing, riding, story.moments, time.monotonic() - began, ended - since)


async def _run_until(stage: Stage, pace: Pace, at: datetime) -> None:
    """Lets business time run on to an instant."""
    while pace.now() < at:
        _check(stage)
        await asyncio.sleep(0.05)


async def _set_wallets(stage: Stage, city: City) -> None:
    poor = {rider.rider_ref: rider.balance_minor for rider in city.riders if rider.balance_minor is not None}
    poor[RIDER] = 0
    wallets = [{"rider": rider, "currency": "CNY", "balance_minor": balance} for rider, balance in poor.items()]
    async with (
        aiohttp.ClientSession() as session,
        session.put(f"{stage.places.provider}/wallets", json=wallets) as answer,
    ):
        answer.raise_for_status()


async def _apps(
    stage: Stage, progress: Progress, text: str, total: int, words: list[str], seed: int, rides: int, since: datetime
) -> Tally:
    """Runs the producer process and follows its progress; its last line is what it did."""
    arguments = ["--seed", str(seed), "--rides", str(rides), "--since", since.isoformat(), "--days", str(DAYS)]
    arguments += ["--api", stage.places.api, "--bootstrap", stage.servers.kafka_bootstrap]
    arguments += ["--provider", stage.places.provider, "--cards", stage.places.cards]
    log = stage.logs / f"apps-{words[0]}.log"
    command = stage.command("demo-apps", *words, *arguments)
    child = stage.children.start("the apps", command, log, env={"FAREBOX_DEMO_TOKEN": stage.token})
    bar = progress.add_task(text, total=total)
    while child.running:
        tally = _last_tally(log)
        progress.update(bar, completed=tally.signed or tally.done)
        _check(stage)
        await asyncio.sleep(0.1)
    code = await child.wait()
    if code:
        raise LabError(f"the apps ended with {code}:\n{child.tail()}")
    tally = _last_tally(log)
    progress.update(bar, completed=tally.signed or tally.done)
    if tally.failures:
        raise LabError(f"{tally.failures} calls of the apps were refused; the first is in {log}:\n{child.tail(3)}")
    return tally


def _last_tally(log: Path) -> Tally:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith('{"signed"')]
    try:
        return msgspec.json.decode(lines[-1], type=Tally) if lines else Tally()
    except msgspec.DecodeError:
        return msgspec.json.decode(lines[-2], type=Tally) if len(lines) > 1 else Tally()


def _check(stage: Stage) -> None:
    """A role that ended by itself ends the demo, with the end of its log."""
    ended: list[Child] = [child for child in stage.roles.values() if not child.running]
    if ended:
        raise LabError(f"{ended[0].name} ended ({ended[0].returncode}):\n{ended[0].tail(20)}")


async def _come_to_rest(stage: Stage, at: datetime, say: Callable[[str], object]) -> datetime:
    """The providers have no troubles any more, what is unknown is asked for; then the clock stops, and everything that
    is due is done. Returns when that is by the business clock."""
    connection = await asyncpg.connect(stage.database_url)
    try:
        await set_troubles(stage, on=False)
        pace = Pace(datetime.now(UTC), at, CALM_SPEED)
        await set_clock(stage.database_url, stage.places.provider, pace)
        await _until(lambda: _unknown(connection), stage, say)
        ended = await stop_clock(stage, pace)
        await _until(lambda: _left(connection, ended), stage, say)
        return ended
    finally:
        await connection.close()


async def _until(left: Callable[[], Awaitable[str]], stage: Stage, say: Callable[[str], object]) -> None:
    quiet = 0
    try:
        async with asyncio.timeout(60):
            while True:
                found = await left()
                say(found or "nothing left")
                quiet = 0 if found else quiet + 1
                if quiet >= 3:
                    return
                _check(stage)
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise LabError(f"after a minute there is still left: {await left()} (logs: {stage.logs})") from None


async def _unknown(connection: asyncpg.Connection[asyncpg.Record]) -> str:
    """What was sent to a provider and not answered yet, in words; empty when nothing."""
    row = await connection.fetchrow(
        "SELECT (SELECT count(*) FROM debit WHERE state IN ('submitting', 'unknown')) AS debits,"
        " (SELECT count(*) FROM refund WHERE state IN ('new', 'submitting', 'unknown')) AS refunds"
    )
    assert row is not None
    return ", ".join(f"{count} {what} unknown" for what, count in dict(row).items() if count)


async def _left(connection: asyncpg.Connection[asyncpg.Record], at: datetime) -> str:
    """What there is still to do at the instant, in words; empty when nothing."""
    row = await connection.fetchrow(
        "SELECT (SELECT count(*) FROM watch WHERE due_at <= $1) AS watched,"
        " (SELECT count(*) FROM debit WHERE due_at <= $1) AS debits,"
        " (SELECT count(*) FROM debit WHERE policy_at <= $1) AS reminders,"
        " (SELECT count(*) FROM refund WHERE due_at <= $1) AS refunds,"
        " (SELECT count(*) FROM batch b WHERE b.seq > coalesce((SELECT r.seq FROM batch_reader r"
        "  WHERE r.reader = 'publication' AND r.writer_no = b.writer_no), 0)) AS unpublished,"
        " (SELECT count(*) FROM batch b WHERE cardinality(b.owing) > 0 AND b.seq > coalesce((SELECT r.seq"
        "  FROM batch_reader r WHERE r.reader = 'collection' AND r.writer_no = b.writer_no), 0)) AS unplanned",
        at,
    )
    assert row is not None
    return ", ".join(f"{count} {what}" for what, count in dict(row).items() if count)
