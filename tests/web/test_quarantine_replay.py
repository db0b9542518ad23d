"""Whatever was set aside can be read and put on its topic again, byte for byte, through the doors and a real Kafka."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from hostile import GOOD, HOSTILE, send
from intake_world import World, furnish
from web_world import ALL, WebWorld, web_world

from service.adapters.kafka import RecordSink
from service.adapters.kafka_access import Brokers
from service.adapters.postgres.tokens import SCOPES
from service.billing.events.header_names import as_text
from service.billing.facts.quarantine import QUARANTINE_PREFIX, RECORD_BYTES_MAX, record_bytes
from service.flows.publication import Publication

KEYLESS = ([*GOOD, ("x", None)], None)
"""Neither key nor value."""


class Installed:
    """An intake, the doors and a publisher on one database."""

    def __init__(self, stream: World, doors: WebWorld, publication: Publication, quarantine: str) -> None:
        self.stream = stream
        self.doors = doors
        self.quarantine = quarantine
        self._publication = publication

    async def publish(self) -> None:
        """Everything that is committed goes to Kafka."""
        while await self._publication.round():
            pass

    async def records(self, topic: str) -> list[Any]:
        """All that is on the one partition of a topic."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.stream.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            place = TopicPartition(topic, 0)
            consumer.assign([place])
            end, found = (await consumer.end_offsets([place]))[place], list[Any]()
            while await consumer.position(place) < end:
                found.append(await consumer.getone())
            return found
        finally:
            await consumer.stop()


@pytest.fixture
async def it(database_url: str, kafka_bootstrap: str, topic: Callable[..., Awaitable[str]]) -> AsyncIterator[Installed]:
    await furnish(database_url)
    stream, quarantine = World(database_url, kafka_bootstrap, await topic()), await topic()
    sink = RecordSink(Brokers(kafka_bootstrap))
    await stream.open()
    await sink.start()
    try:
        async with web_world(database_url, founded=True) as doors:
            await doors.token(ALL, SCOPES, "default")
            topics = {"sessions": stream.topic, "quarantine": quarantine, "billing": quarantine}
            yield Installed(stream, doors, Publication(doors.database, sink, topics), quarantine)
    finally:
        await sink.stop()
        await stream.close()


def sent(record: Any) -> tuple[Any, ...]:
    """What a record is, wherever it stands."""
    return record.key, record.value, tuple(record.headers)


def shown(whole: dict[str, Any]) -> tuple[Any, ...]:
    """What the doors say that it was."""
    key, value = (None if whole[part] is None else b64decode(whole[part]) for part in ("key", "value"))
    headers = [(one["name"], None if one["value"] is None else b64decode(one["value"])) for one in whole["headers"]]
    return key, value, tuple(headers)


async def test_every_record_that_was_set_aside_is_shown_and_sent_again_byte_for_byte(it: Installed) -> None:
    stream = it.stream
    for what, (headers, value) in HOSTILE.items():
        await send(stream.bootstrap, stream.topic, what.encode(), headers, value)
    await send(stream.bootstrap, stream.topic, None, *KEYLESS)
    await stream.drain(await stream.intake(), len(HOSTILE) + 1)
    first = await it.records(stream.topic)
    lines = (await it.doors.get("/v1/quarantine?limit=200"))["items"]
    assert sorted(line["offset"] for line in lines) == list(range(len(first)))
    kept, longer = list[Any](), 0
    for line in sorted(lines, key=lambda line: int(line["offset"])):
        there, path = first[line["offset"]], f"/v1/quarantine/{line['quarantine_id']}"
        key, value, headers = sent(there)
        assert shown(await it.doors.get(path)) == (key, value, tuple((as_text(name), text) for name, text in headers))
        length = record_bytes(key, headers, value)
        answer = await it.doors.ask("POST", f"{path}/replay")
        assert answer.status == (409 if length > RECORD_BYTES_MAX else 200), answer
        if answer.status == 200:
            kept.append(there)
        else:
            longer += 1
            assert f"{length} bytes" in answer.body["detail"]
    await it.publish()
    assert [sent(record) for record in (await it.records(stream.topic))[len(first) :]] == [sent(one) for one in kept]
    assert longer >= 3
    told = await it.records(it.quarantine)
    copies = [
        (one.key, one.value, tuple(h for h in one.headers if not h[0].startswith(QUARANTINE_PREFIX))) for one in told
    ]
    assert [copy for copy in copies if copy[2]] == [sent(one) for one in kept]
    assert sum("farebox_bytes" in dict(one.headers) for one in told) == longer
