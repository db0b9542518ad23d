"""Setting up: operators and their sources, tariff versions, and the explicit restart of a partition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg
import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from service.adapters.kafka import cluster_id
from service.adapters.kafka_access import Brokers
from service.adapters.postgres import Database
from service.adapters.postgres.catalog import CatalogStore
from service.adapters.postgres.intake import IntakeStore
from service.adapters.postgres.operators import KnownOperator, NewOperator, OperatorStore
from service.adapters.postgres.streams import NOTHING_READ, StreamStore
from service.billing.tariffs import TariffDraft, TariffError, build, import_document
from service.billing.verdicts import LOST_END_DEFAULT, shortest_wait
from service.flows.clock import BusinessClock
from service.flows.knowledge import Knowledge
from service.flows.operators import OperatorError, add_operator, map_source, operator_of, set_default_operator
from service.flows.restart import Begin, RestartError, restart_stream
from service.flows.tariffs import PublishedTariff, publish_tariff, publish_tariffs

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
LEAD = timedelta(seconds=60)
PLAN = """{"tariff_id": "%s", "valid_from": "%s", "plan": {"plan_id": "p", "currency": "CNY", "price": "%s",
 "is_taxable": false, "name": "n", "description": "d"}}"""


@pytest.fixture(scope="module")
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, name="test")
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
async def operator(database: Database) -> KnownOperator:
    async with database.reading(OperatorStore) as store:
        return await operator_of(store, None)


def new_operator(operator_id: str, **values: str | int) -> NewOperator:
    described = {"name": "n", "time_zone": "Europe/Oslo", "currency": "NOK"} | values
    return NewOperator(operator_id=operator_id, **described)  # type: ignore[arg-type]  # A table of values to refuse.


def draft(tariff_id: str, valid_from: str, price: str = "1.50") -> TariffDraft:
    return import_document((PLAN % (tariff_id, valid_from, price)).encode())[0]


SAME = '{"plan": {"plan_id": "p", "currency": "CNY", "price": 1.5, "lat": 1}, "valid_from": "2020-01-01T00:00:00Z"}'


async def _published(database: Database, operator: KnownOperator, tariff_id: str, written: str) -> PublishedTariff:
    document = {"tariff_id": tariff_id} | {name: msgspec.Raw(raw) for name, raw in _RAW.decode(written).items()}
    found = import_document(msgspec.json.encode(document))[0]
    return await publish_tariff(database, operator, found, now=NOW, lead=LEAD)


_RAW = msgspec.json.Decoder(dict[str, msgspec.Raw])


async def test_a_source_keeps_its_first_operator_for_ever(database: Database) -> None:
    await add_operator(database, new_operator("north"), NOW)
    await add_operator(database, new_operator("south"), NOW)
    assert await map_source(database, "north", "rides", "urn:a", NOW)
    assert not await map_source(database, "north", "rides", "urn:a", NOW)
    with pytest.raises(OperatorError, match=r"mapped to operator 'north'.*never changes hands"):
        await map_source(database, "south", "rides", "urn:a", NOW)
    assert await map_source(database, "south", "other", "urn:a", NOW)
    async with database.reading(CatalogStore) as store:
        operators, sources = await store.operators(), await store.sources()
    assert operators[sources["rides", "urn:a"]].operator_id == "north"
    assert operators[sources["other", "urn:a"]].operator_id == "south"


async def test_of_two_mappings_at_once_one_is_refused(database: Database) -> None:
    for name in ("east", "west"):
        await add_operator(database, new_operator(name), NOW)
    told = await asyncio.gather(
        *(map_source(database, name, "rides", "urn:race", NOW) for name in ("east", "west")), return_exceptions=True
    )
    assert [type(answer) for answer in told if answer is not True] == [OperatorError]


@pytest.mark.parametrize(
    ("operator_id", "values", "said"),
    [
        ("North", {}, "no operator id"),
        ("a" * 64, {}, "no operator id"),
        ("default", {}, "there already"),
        ("x", {"time_zone": "Oslo"}, "time zone 'Oslo' is no name of the tz database; give one such as"),
        ("x", {"currency": "XXQ"}, "unknown currency 'XXQ'"),
        ("x", {"ride_hours_max": 0}, "allowed are 1 to"),
        ("x", {"contact": "a\nb"}, "contact"),
    ],
)
async def test_an_unusable_operator_is_refused_with_what_is_allowed(
    database: Database, operator_id: str, values: dict[str, str | int], said: str
) -> None:
    with pytest.raises(OperatorError, match=said):
        await add_operator(database, new_operator(operator_id, **values), NOW)


@pytest.mark.parametrize("source", ["", "urn:\0", "x" * 1025])
async def test_what_is_no_source_is_not_mapped(database: Database, source: str) -> None:
    with pytest.raises(OperatorError, match="no CloudEvents source"):
        await map_source(database, "default", "rides", source, NOW)


async def test_without_a_default_operator_one_must_be_named(database: Database) -> None:
    await set_default_operator(database, None)
    async with database.reading(OperatorStore) as store:
        with pytest.raises(OperatorError, match="no default operator"):
            await operator_of(store, None)
        assert (await operator_of(store, "default")).operator_id == "default"
    with pytest.raises(OperatorError, match="no operator 'nobody'"):
        await set_default_operator(database, "nobody")
    await set_default_operator(database, "default")


async def test_the_same_document_again_makes_no_version(database: Database, operator: KnownOperator) -> None:
    first = await publish_tariff(
        database, operator, draft("same", "2020-01-01T00:00:00Z"), now=NOW, lead=LEAD, time_zone=None
    )
    again = await publish_tariff(
        database, operator, draft("same", "2020-01-01T08:00:00+08:00"), now=NOW, lead=LEAD, time_zone=None
    )
    assert (first.created, first.tariff.version) == (True, 1)
    assert (again.created, again.tariff.version, again.digest) == (False, 1, first.digest)
    assert first.tariff.time_zone == "Asia/Shanghai"  # The operator's.


async def test_all_of_a_tariffs_files_again_make_no_version(database: Database, operator: KnownOperator) -> None:
    """What a repository of tariffs does at each deployment."""
    starts = {"2020-01-01T00:00:00Z": "1.50", "2026-12-01T00:00:00Z": "2.00", "2026-12-24T00:00:00Z": "3.00"}
    files = [draft("all", start, price) for start, price in starts.items()]

    async def told(item: TariffDraft, now: datetime) -> tuple[int, bool]:
        published = await publish_tariff(database, operator, item, now=now, lead=LEAD)
        return published.tariff.version, published.created

    assert [await told(item, NOW) for item in files] == [(1, True), (2, True), (3, True)]
    for now in (NOW, NOW + timedelta(days=9), NOW + timedelta(days=99)):
        assert [await told(item, now) for item in files] == [(1, False), (2, False), (3, False)]
    for start, price, other in (
        ("2020-01-01T00:00:00Z", "9.00", "version 1 at /plan/price;"),
        ("2020-01-02T00:00:00Z", "1.50", "version 3 at /valid_from, /plan/price;"),
    ):
        with pytest.raises(TariffError, match=f"too soon: .* differs from {other}"):
            await told(draft("all", start, price), NOW)
    assert await told(draft("all", "2026-12-01T00:00:00Z", "2.50"), NOW) == (4, True)
    assert await told(files[1], NOW) == (5, True)  # Its price is another one's by now.


@pytest.mark.parametrize(
    "written",
    [
        '{"plan": {"price": 1.50, "plan_id": "p", "currency": "CNY", "lat": 1.0},'
        ' "valid_from": "2020-01-01T00:00:00Z"}',
        '{\n  "valid_from": "2020-01-01T00:00:00Z", "rules": {},\n  "plan": {"lat": 1, "currency": "CNY", "price": 1.5,'
        ' "plan_id": "p"}}',
        '{"plan": {"plan_id": "p", "currency": "CNY", "price": "1.500", "lat": 1, "is_taxable": false}}',
    ],
)
async def test_the_same_content_makes_no_version_whatever_its_bytes(
    database: Database, operator: KnownOperator, written: str
) -> None:
    first = await _published(database, operator, f"written-{len(written)}", SAME)
    again = await _published(database, operator, f"written-{len(written)}", written)
    assert (again.created, again.tariff.version, again.digest) == (False, 1, first.digest)
    assert again.tariff.document == first.tariff.document  # What is told of it is what is stored.


@pytest.mark.parametrize(
    ("written", "paths"),
    [
        ('{"plan": {"plan_id": "p", "currency": "CNY", "price": 2, "lat": 1}}', "/plan/price"),
        ('{"plan": {"plan_id": "p", "currency": "CNY", "price": "1.5", "lat": 2}}', "/plan/lat"),
        (
            '{"plan": {"plan_id": "p", "currency": "CNY", "price": 2, "lat": 1}, "rules": {"ride_max": 9},'
            ' "valid_from": "2020-01-02T00:00:00Z"}',
            "/valid_from, /plan/price, /rules/ride_max",
        ),
    ],
)
async def test_a_version_that_begins_too_soon_is_told_where_it_differs(
    database: Database, operator: KnownOperator, written: str, paths: str
) -> None:
    name = paths.replace(", ", "+")
    await _published(database, operator, name, SAME)
    with pytest.raises(TariffError) as refused:
        await _published(database, operator, name, written)
    assert refused.value.path == "/valid_from"
    assert f"it differs from version 1 at {paths};" in str(refused.value)


async def test_a_tariff_keeps_its_currency(database: Database, operator: KnownOperator) -> None:
    """Its riders' caps are counted in it: 3 EUR would have been 3 of the 8 CNY of a day."""
    await _published(database, operator, "one-currency", SAME)
    later = SAME.replace("2020-01-01", "2027-01-01").replace("CNY", "EUR")
    with pytest.raises(TariffError, match=r"^/plan/currency: version 1 is in CNY, and this one in EUR; .*another id"):
        await _published(database, operator, "one-currency", later)
    assert (await _published(database, operator, "one-currency-eur", later)).created


async def test_a_plan_without_a_start_is_the_same_as_the_newest_version_of_it(
    database: Database, operator: KnownOperator
) -> None:
    plan = TariffDraft(tariff_id="feed", plan=draft("feed", "2020-01-01T00:00:00Z").plan)
    with pytest.raises(TariffError, match=r"^/valid_from: no start of validity"):
        await publish_tariff(database, operator, plan, now=NOW, lead=LEAD)
    await publish_tariff(database, operator, plan, now=NOW, lead=LEAD, first_valid_from=NOW)
    assert not (await publish_tariff(database, operator, plan, now=NOW, lead=LEAD)).created


@pytest.mark.parametrize(
    ("valid_from", "accepted"),
    [
        ("2020-01-01T00:00:00Z", False),
        ("2026-11-22T10:00:00Z", False),
        ("2026-11-22T10:01:00Z", False),
        ("2026-11-22T10:01:00.000001Z", True),
    ],
)
async def test_only_a_first_version_begins_before_everybody_knows_it(
    database: Database, operator: KnownOperator, valid_from: str, accepted: bool
) -> None:
    name = f"later-{valid_from}"
    await publish_tariff(database, operator, draft(name, "2019-01-01T00:00:00Z"), now=NOW, lead=LEAD)
    changed = draft(name, valid_from, price="2")
    if accepted:
        assert (await publish_tariff(database, operator, changed, now=NOW, lead=LEAD)).tariff.version == 2
    else:
        with pytest.raises(TariffError, match=r"^/valid_from: .* is too soon"):
            await publish_tariff(database, operator, changed, now=NOW, lead=LEAD)


async def test_a_document_is_published_whole_or_not_at_all(database: Database, operator: KnownOperator) -> None:
    good, bad = draft("whole", "2020-01-01T00:00:00Z"), draft("broken", "2020-01-01T00:00:00Z", price="-x")
    with pytest.raises(TariffError, match=r"^/plan/price: "):
        await publish_tariffs(database, operator, [good, bad], now=NOW, lead=LEAD)
    async with database.reading(CatalogStore) as store:
        _, known = await store.tariffs_since(0, 1000)
    assert (operator.operator_no, "whole") not in known


async def test_tariffs_published_at_once_are_numbered_without_gaps_and_all_of_them_are_read(
    database: Database, operator: KnownOperator
) -> None:
    async with database.reading(CatalogStore) as store:
        seen, _ = await store.tariffs_since(0, 1000)
    drafts = [draft("rush", f"2027-01-{day:02}T00:00:00Z", price=str(day)) for day in range(1, 9)]
    told = await asyncio.gather(*(publish_tariff(database, operator, one, now=NOW, lead=LEAD) for one in drafts))
    assert sorted(item.tariff.version for item in told) == list(range(1, 9))
    async with database.reading(CatalogStore) as store:
        _, known = await store.tariffs_since(seen, 1000)
    assert sorted(version.version for version in known[operator.operator_no, "rush"]) == list(range(1, 9))


async def test_versions_are_read_some_at_a_time_and_ready_when_they_are_asked_for(
    database: Database, operator: KnownOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, as they are when read, were hundreds of megabytes for thousands of versions."""
    monkeypatch.setattr("service.flows.knowledge.VERSIONS_MAX", 3)
    drafts = [draft("kept", f"2028-01-{day:02}T00:00:00Z", price=str(day)) for day in range(1, 11)]
    for one in drafts:
        await publish_tariff(database, operator, one, now=NOW, lead=LEAD)
    knowledge = Knowledge(BusinessClock(), 0)
    async with database.reading(CatalogStore) as store:
        await knowledge.refresh(store)
    catalog, number = knowledge.catalog, operator.operator_no
    for day in range(1, 11):
        found = catalog.tariff_at(number, "kept", datetime(2028, 1, day, tzinfo=UTC))
        assert found is not None
        assert (found.version, found.tariff.plan.price, found.key[1]) == (day, Decimal(day), day)
        assert found.tariff.document == build(drafts[day - 1], version=day, time_zone=operator.time_zone).document
        assert catalog.tariff_version(number, "kept", day) is found, "rated with the one that is compiled already"
    assert catalog.tariff_at(number, "kept", datetime(2027, 12, 31, tzinfo=UTC)) is None
    assert shortest_wait(catalog) == LOST_END_DEFAULT


@pytest.fixture(scope="module")
async def read_topic(database_url: str, kafka_bootstrap: str, topic: Callable[..., Awaitable[str]]) -> str:
    """A topic of two partitions with ten records on the first, of which three were read."""
    name = await topic(partitions=2)
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, acks="all") as producer:
        for number in range(10):
            await producer.send_and_wait(name, b"%d" % number, partition=0, timestamp_ms=1_700_000_000_000 + number)
    connection = await asyncpg.connect(database_url)
    await IntakeStore(connection).begin_stream("readers", name, 0, 3, "another cluster", NOW)
    await connection.close()
    return name


@pytest.mark.parametrize(
    ("begin", "offset"),
    [
        ("earliest", 0),
        ("latest", 10),
        (7, 7),
        (10, 10),
        (datetime.fromtimestamp(1_700_000_000.004, UTC), 4),
        (datetime(2030, 1, 1, tzinfo=UTC), 10),
    ],
)
async def test_a_restart_reads_on_where_it_was_told_and_keeps_the_reason(
    database: Database, kafka_bootstrap: str, read_topic: str, begin: Begin, offset: int
) -> None:
    brokers = Brokers(kafka_bootstrap)
    before, began = await restart_stream(database, brokers, "readers", read_topic, 0, begin, "moved house", NOW)
    assert began == offset
    async with database.reading(StreamStore) as store:
        after = await store.find("readers", read_topic, 0)
        kept = await store.connection.fetchrow("SELECT * FROM stream_restart ORDER BY restart_no DESC LIMIT 1")
    assert after is not None and kept is not None
    assert (after.next_offset, after.read_through_at, after.seq) == (offset, NOTHING_READ, before.seq)
    assert after.cluster_id == await cluster_id(Brokers(kafka_bootstrap))
    assert (kept["old_offset"], kept["new_offset"], kept["reason"]) == (before.next_offset, offset, "moved house")


@pytest.mark.parametrize(
    ("partition", "begin", "said"),
    [(0, 11, "no offset 11: allowed are 0 to 10"), (1, "earliest", "never read"), (2, "earliest", "is not there")],
)
async def test_a_restart_that_leads_nowhere_is_refused(
    database: Database, kafka_bootstrap: str, read_topic: str, partition: int, begin: Begin, said: str
) -> None:
    with pytest.raises(RestartError, match=said):
        await restart_stream(database, Brokers(kafka_bootstrap), "readers", read_topic, partition, begin, "why", NOW)


async def test_nothing_is_restarted_while_an_intake_is_in_the_group(
    database: Database, kafka_bootstrap: str, read_topic: str
) -> None:
    async with AIOKafkaConsumer(
        bootstrap_servers=kafka_bootstrap, group_id="readers", enable_auto_commit=False
    ) as consumer:
        consumer.subscribe([read_topic])
        while not consumer.assignment():
            await consumer.getmany(timeout_ms=100)
        with pytest.raises(RestartError, match="1 intake processes are in group 'readers'"):
            await restart_stream(database, Brokers(kafka_bootstrap), "readers", read_topic, 0, "earliest", "why", NOW)
    assert await restart_stream(database, Brokers(kafka_bootstrap), "readers", read_topic, 0, "earliest", "why", NOW)


async def test_a_restart_yields_to_whoever_moved_the_partition(database: Database, read_topic: str) -> None:
    async with database.transaction(StreamStore) as store:
        place = await store.find("readers", read_topic, 0)
        assert place is not None
        assert await store.restart(place, 5, "here")
        assert not await store.restart(place, 6, "here")
