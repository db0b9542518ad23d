"""The explicit restart of a partition, after the intake has stopped because the topic is not the one it knew."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from service.adapters.kafka import cluster_id, partitions_of
from service.adapters.kafka_access import Brokers
from service.adapters.kafka_admin import bounds_of, members_of, offset_at
from service.adapters.postgres import Database
from service.adapters.postgres.streams import StreamPlace, StreamStore

Begin = Literal["earliest", "latest"] | int | datetime
"""Where to read on: the first record that is there, the end, an offset, or the first record from an instant on."""


class RestartError(ValueError):
    """The partition can't be restarted like this; the message says why and what to do."""


async def restart_stream(
    database: Database,
    brokers: Brokers,
    group: str,
    topic: str,
    partition: int,
    begin: Begin,
    reason: str,
    now: datetime,
) -> tuple[StreamPlace, int]:
    """Lets the intake read on at `begin`: the partition as it was, and the offset it is read from now.

    Reading records again is safe, since rides that are known are not charged twice; skipping them is not. Raises
    RestartError: an intake still runs, the partition was never read or is not there, the offset does not exist.
    """
    members = await members_of(brokers, group)
    if members:
        raise RestartError(
            f"{len(members)} intake processes are in group {group!r} (one on {members[0].host}): stop them all first;"
            " one that was killed leaves after its session timeout"
        )
    if partition not in (await partitions_of(brokers, [topic])).get(topic, []):
        raise RestartError(f"{topic}/{partition} is not there: `farebox topics` says which topics are")
    offset = await _offset(brokers, topic, partition, begin)
    cluster = await cluster_id(brokers)
    async with database.transaction(StreamStore) as store:
        place = await store.find(group, topic, partition)
        if place is None:
            raise RestartError(f"{topic}/{partition} was never read: FAREBOX_START_FROM says where an intake begins")
        if not await store.restart(place, offset, cluster):
            raise RestartError(f"an intake moved {topic}/{partition} just now: stop it, and look before you repeat")
        await store.record_restart(place, offset, cluster, reason, now)
    return place, offset


async def _offset(brokers: Brokers, topic: str, partition: int, begin: Begin) -> int:
    first, end = (await bounds_of(brokers, topic, [partition]))[partition]
    if begin == "earliest":
        return first
    if begin == "latest":
        return end
    if isinstance(begin, datetime):
        found = await offset_at(brokers, topic, partition, begin)
        return end if found is None else found
    if not first <= begin <= end:
        raise RestartError(f"{topic}/{partition} has no offset {begin}: allowed are {first} to {end}")
    return begin
