"""`farebox demo`: everything on one machine, a simulated city, a summary that must balance."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import rich_click as click
import uvloop
from rich.console import Console

from service.lab.city import plan_city
from service.lab.demo.merchants import SHARES
from service.lab.demo.play import CITY_BEGINS_AFTER, PLAY_SECONDS, play
from service.lab.demo.report import closing_line, show_summary
from service.lab.demo.stage import Stage, follow_clock, let_run, stage
from service.lab.demo.telling import tell
from service.lab.demo.truth import find_truth
from service.lab.processes import LabError
from service.lab.producer import Address, Pace, run_apps


def register(group: click.Group) -> None:
    """Adds the demo, and the apps that it starts as a process of their own."""
    group.add_command(demo)
    group.add_command(demo_apps)


@click.command()
@click.option("--rides", type=click.IntRange(min=10), default=2000, show_default=True, envvar="DEMO_RIDES")
@click.option("--seed", type=int, default=1, show_default=True, envvar="DEMO_SEED")
@click.option("--seconds", type=click.FloatRange(min=3), default=PLAY_SECONDS, show_default=True, help="Of the play.")
@click.option("--keep", is_flag=True, envvar="KEEP", help="Stay up afterwards; prints the addresses and a token.")
def demo(rides: int, seed: int, seconds: float, keep: bool) -> None:
    """Everything on one machine: real servers, four payment providers with books of their own, a simulated city.

    Some days of the city pass on a fast clock; then one rider, who can't pay, is followed from hold to good record.

    The closing line says the truth, counted from the database, the providers' books and the topics; exit code 1 if a
    ride was lost or charged twice, if a provider's books and the ledger differ, if the audit finds a problem or if the
    story did not come to its end.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # Also where it was started with SIGINT ignored.
    try:
        good = uvloop.run(_demo(rides, seed, seconds, keep=keep))
    except LabError as error:
        click.echo(f"farebox demo: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        click.echo("farebox demo: stopped", err=True)
        sys.exit(130)
    sys.exit(0 if good else 1)


async def _demo(rides: int, seed: int, seconds: float, *, keep: bool) -> bool:
    console = Console(stderr=False, highlight=False)
    since = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    logs = Path(tempfile.mkdtemp(prefix="farebox-demo-"))  # Kept when something went wrong: an error names it.
    console.print("starting PostgreSQL, Kafka, the providers and five roles …")
    async with stage(logs, seed, since, console) as running:
        show = await play(running, rides, seed, seconds, since, console)
        truth = await find_truth(running.database_url, running.places, running.servers.kafka_bootstrap)
        tale = await tell(running, show.story, truth.story)
        truth.disagreements += [f"the story has no {step} at its place" for step in tale.missing]
        await show_summary(running, show, truth, tale, console)
        problems = await _audit(running, console)
        line = closing_line(truth, problems + len(truth.disagreements))
        if keep:
            await let_run(running)
            _invite(running, console)
        console.print(line, soft_wrap=True)
        if keep:
            await _until_told(running)
            console.print("stopping everything …")
    shutil.rmtree(logs)
    return not (truth.lost or truth.charged_twice or truth.trial_balance or problems or truth.disagreements)


async def _until_told(running: Stage) -> None:
    """Returns at SIGINT or SIGTERM; until then the simulator's clock follows the installation's."""
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    waiting = asyncio.create_task(told.wait())
    following = asyncio.create_task(follow_clock(running.database_url, running.places.provider))
    await asyncio.wait({waiting, following}, return_when=asyncio.FIRST_COMPLETED)
    if following.done():  # It ends by a failure alone.
        following.result()
    following.cancel()


async def _audit(running: Stage, console: Console) -> int:
    """Runs `farebox audit` as anybody would, and reads its closing line."""
    child = running.children.start(
        "audit", running.command("audit"), running.logs / "audit.log", env=running.environment
    )
    await child.wait(120)
    text = child.log.read_text(errors="replace")
    found = re.search(r"(\d+) problems", text)
    if found is None:
        raise LabError(f"the audit did not end:\n{child.tail(20)}")
    if int(found[1]):
        console.print(text)
    return int(found[1])


def _invite(running: Stage, console: Console) -> None:
    """How to try the API: the addresses and a token, as lines for a shell."""
    console.print("\n[bold]Everything stays up; end it with Ctrl-C.[/bold] Business time goes on at its natural speed.")
    console.print(f"Alipay, WeChat Pay, sandbox  {running.places.provider}/books")
    console.print(f"Stripe (localstripe)         {running.places.cards}")
    console.print(f"the interface                {running.places.api}/schema")
    console.print("in another terminal:")
    names = {
        "API": running.places.api,
        "TOKEN": running.token,
        "FAREBOX_KAFKA_BOOTSTRAP": running.servers.kafka_bootstrap,
        "FAREBOX_DATABASE_URL": running.database_url,
    }
    for name, value in names.items():
        console.print(f"export {name}={value}", soft_wrap=True)
    console.print('curl -H "Authorization: Bearer $TOKEN" $API/v1/sessions\n', soft_wrap=True)


@click.command("demo-apps", hidden=True)
@click.argument("what", type=click.Choice(["sign", "play"]))
@click.option("--seed", type=int, required=True)
@click.option("--rides", type=int, required=True)
@click.option("--since", required=True)
@click.option("--days", type=float, required=True)
@click.option("--api", required=True)
@click.option("--bootstrap", required=True)
@click.option("--provider", required=True)
@click.option("--cards", required=True)
@click.option("--token", envvar="FAREBOX_DEMO_TOKEN", required=True)
@click.option("--topic", default="rental.sessions", show_default=True)
@click.option("--pace", default=None)
def demo_apps(
    what: str,
    seed: int,
    rides: int,
    since: str,
    days: float,
    api: str,
    bootstrap: str,
    provider: str,
    cards: str,
    token: str,
    topic: str,
    pace: str | None,
) -> None:
    """The city's apps: sign the agreements, or play the rides. Started by the demo."""
    assert (what == "play") == (pace is not None)
    begin = datetime.fromisoformat(since)
    city = plan_city(seed, rides, begin + CITY_BEGINS_AFTER, days, SHARES)
    address = Address(api, token, bootstrap, topic, provider, cards)
    uvloop.run(run_apps(address, city, msgspec.json.decode(pace, type=Pace) if pace else None))
