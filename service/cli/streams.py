"""`farebox stream` and `farebox topics`: what is on Kafka, how far it was read, and where to read on."""

from __future__ import annotations

from collections import defaultdict

import rich_click as click

from service.adapters.kafka import partitions_of
from service.adapters.kafka_admin import bounds_of
from service.adapters.postgres.streams import NOTHING_READ, StreamPlace, StreamStore
from service.billing.instants import InstantError, read_instant
from service.cli.connections import business_now, carry_out, database_of, load_settings
from service.flows.restart import Begin, RestartError, restart_stream
from service.lab.kafka import create_topics
from service.settings import Settings


def register(group: click.Group) -> None:
    """Adds the commands about topics and how far they were read."""
    group.add_command(stream)
    group.add_command(topics)


@click.group()
def stream() -> None:
    """How far the intake has read each partition, and the explicit restart."""


@stream.command("list")
def list_command() -> None:
    """Show how far each partition was read, and where it ends."""
    settings = load_settings()
    places, ends = carry_out(_places(settings))
    if not places:
        click.echo(f"nothing was read yet; the intake begins at {settings.start_from}")
    for place in places:
        read_through = place.read_through_at.isoformat() if place.read_through_at > NOTHING_READ else "nothing yet"
        click.echo(
            f"{place.topic}/{place.partition}  next {place.next_offset}  {_end(place, ends)}"
            f"  read through {read_through}  group {place.consumer_group}  cluster {place.cluster_id}"
        )


@stream.command("restart")
@click.option("--topic", help="The topic.  [default: FAREBOX_TOPIC_SESSIONS]")
@click.option("--partition", type=click.IntRange(min=0), required=True, help="One partition of it.")
@click.option(
    "--from",
    "begin_text",
    metavar="earliest|latest|OFFSET|RFC3339",
    required=True,
    help="Where to read on: too early is safe, what is skipped is lost.",
)
@click.option("--reason", required=True, help="Why; kept with the restart.")
def restart_command(topic: str | None, partition: int, begin_text: str, reason: str) -> None:
    """Read on elsewhere, after an intake stopped because the topic is not the one it knew.

    Only while no intake runs. Rides that are known are not charged again, however often their events are read.
    """
    settings = load_settings()
    begin = _begin(begin_text)
    if not reason.strip() or not reason.isprintable():
        raise click.UsageError("--reason says why, in words")
    place = topic or settings.topic_sessions

    async def work() -> tuple[StreamPlace, int]:
        async with database_of(settings) as database:
            now = await business_now(database)
            brokers, group = settings.brokers, settings.group
            return await restart_stream(database, brokers, group, place, partition, begin, reason, now)

    before, offset = carry_out(work(), RestartError)
    click.echo(f"{place}/{partition}: was to be read from {before.next_offset}, is now read from {offset}")


@click.command()
@click.option(
    "--partitions", type=click.IntRange(1, 1024), default=12, show_default=True, help="Of a topic that is made."
)
def topics(partitions: int) -> None:
    """Make the topics that are not there, and say what is.

    The partitions bound how many intake processes can share the work; more can't be added later without moving rides
    to other partitions.
    """
    settings = load_settings()
    wanted = (settings.topic_sessions, settings.topic_billing, settings.topic_quarantine)

    async def work() -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        before = await partitions_of(settings.brokers, wanted)
        await create_topics(settings.brokers, {topic: partitions for topic in wanted if not before.get(topic)})
        return before, await partitions_of(settings.brokers, wanted)

    before, after = carry_out(work())
    for topic in wanted:
        made = "there already" if before.get(topic) else "made"
        click.echo(f"{topic}: {made}, {len(after[topic])} partitions")


def _begin(text: str) -> Begin:
    if text == "earliest":
        return "earliest"
    if text == "latest":
        return "latest"
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return read_instant(text)
    except InstantError as error:
        raise click.UsageError(
            f"--from {text!r}: allowed are earliest, latest, an offset and an instant; this is {error}"
        ) from None


async def _places(settings: Settings) -> tuple[list[StreamPlace], dict[tuple[str, int], tuple[int, int]]]:
    """Every partition that was read, and where the ones that are on Kafka begin and end."""
    async with database_of(settings) as database, database.reading(StreamStore) as store:
        places = await store.list()
    by_topic: dict[str, list[int]] = defaultdict(list)
    for place in places:
        by_topic[place.topic].append(place.partition)
    ends: dict[tuple[str, int], tuple[int, int]] = {}
    there = await partitions_of(settings.brokers, list(by_topic)) if by_topic else {}
    for topic, partitions in by_topic.items():
        known = sorted(set(partitions) & set(there.get(topic, ())))
        bounds = await bounds_of(settings.brokers, topic, known) if known else {}
        ends |= {(topic, partition): found for partition, found in bounds.items()}
    return places, ends


def _end(place: StreamPlace, ends: dict[tuple[str, int], tuple[int, int]]) -> str:
    bounds = ends.get((place.topic, place.partition))
    if bounds is None:
        return "is not on this Kafka"
    first, end = bounds
    if place.next_offset > end or place.next_offset < first:
        return f"there is {first} to {end}: not the topic that was read"
    return f"end {end}  behind {end - place.next_offset}"
