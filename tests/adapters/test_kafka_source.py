"""What the source of records says of partitions that are not its own any more."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

from service.adapters.kafka import ConsumerSettings, RecordSource
from service.adapters.kafka_access import Brokers


async def test_the_end_of_a_partition_that_was_taken_away_is_not_known(
    kafka_bootstrap: str, topic: Callable[..., Awaitable[str]]
) -> None:
    """The broker forgets a member that it did not hear, while its last batch is being written."""
    group = f"source-{secrets.token_hex(4)}"
    source = RecordSource(ConsumerSettings(Brokers(kafka_bootstrap), await topic(), group, 10_000, 6_000))
    await source.start()
    try:
        assert source.end_seen(7) == 2**63 - 1
    finally:
        await source.stop()
