"""`farebox replay --kafka`: the trips of an export as events, for a running intake."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.adapters.kafka import RecordSink, TopicMissingError, partitions_of
from service.adapters.postgres import Database
from service.adapters.postgres.operators import KnownOperator, OperatorStore
from service.billing.tariffs import TariffDraft, TariffError, too_early
from service.cli.connections import business_now, carry_out, database_of, load_settings
from service.cli.tariff_files import BEGINNING
from service.flows.operators import OperatorError, operator_of
from service.flows.replay import ReplayError, replay_agreements
from service.flows.tariffs import publish_tariff
from service.lab.replay import Trip, read_trips
from service.lab.trip_events import deliveries, publish, trip_records
from service.settings import Settings


class Delivery(msgspec.Struct, frozen=True):
    """How the trips are published: to which agreement, at which multiple of real time, how often, in which order."""

    agreement_id: str | None = None
    speed: float | None = None
    twice: bool = False
    shuffle: int | None = None


def publish_trips(file: Path, zone: ZoneInfo, draft: TariffDraft, delivery: Delivery) -> None:
    """Puts the trips on the topic; the tariff and, unless one is named, sandbox agreements are there before."""
    trips = list(read_trips(file, zone))
    published = carry_out(
        _publish_trips(load_settings(), trips, zone.key, draft, delivery),
        OperatorError,
        ReplayError,
        TariffError,
        TopicMissingError,
    )
    click.echo(f"replay: {len(trips)} trips, {published} events published")


async def _publish_trips(
    settings: Settings, trips: list[Trip], zone: str, draft: TariffDraft, delivery: Delivery
) -> int:
    topic = settings.topic_sessions
    if not (await partitions_of(settings.brokers, [topic])).get(topic):
        raise TopicMissingError(f"topic {topic!r} is not there: make it with `farebox topics`")
    lead = timedelta(seconds=settings.tariff_lead_seconds)
    async with database_of(settings) as database:
        async with database.reading(OperatorStore) as store:
            operator = await operator_of(store, None)
        now = await business_now(database)
        begins = min((trip.started_at for trip in trips), default=now)
        currency = await _tariff(database, operator, draft, zone, begins, now, lead)
        agreements = await replay_agreements(database, operator, currency, delivery.agreement_id, now)
    records = trip_records(trips, draft.tariff_id, agreements)
    delivered = deliveries(records, twice=delivery.twice, shuffle=delivery.shuffle)
    sink = RecordSink(settings.brokers)
    await sink.start()
    try:
        with _progress() as progress:
            task = progress.add_task("publishing", total=len(delivered))
            await publish(sink, topic, delivered, delivery.speed, lambda sent: progress.update(task, completed=sent))
    finally:
        await sink.stop()
    return len(delivered)


async def _tariff(
    database: Database,
    operator: KnownOperator,
    draft: TariffDraft,
    zone: str,
    begins: datetime,
    now: datetime,
    lead: timedelta,
) -> str:
    """Publishes the plan unless it is there, in force when the trips begin; returns its currency."""
    first = min(BEGINNING, begins)
    try:
        found = await publish_tariff(
            database, operator, draft, now=now, lead=lead, first_valid_from=first, time_zone=zone
        )
    except TariffError as error:
        if error.path != "/valid_from":
            raise
        raise ReplayError(
            f"tariff {draft.tariff_id!r} is there already and is not this plan in {zone}: replay with the document"
            " that is there, or give the plan an id of its own"
        ) from error
    early = too_early(found.tariff, begins)
    if early is not None:
        raise ReplayError(f"{early}, the first: replay the trips on the tariff that held then")
    return found.tariff.currency


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)
