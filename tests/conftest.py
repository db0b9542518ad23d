"""The real servers for every test: one lab per test process, a database per module, topics of one's own.

FAREBOX_DATABASE_URL and FAREBOX_KAFKA_BOOTSTRAP name servers to use instead; databases and topics are still the tests'.
"""

from __future__ import annotations

import gc
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from functools import cache
from itertools import chain, groupby, islice

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import HealthCheck, settings

from service.adapters.kafka_access import Brokers
from service.adapters.migrate import migrate
from service.lab.kafka import create_topics
from service.lab.servers import Servers, lab
from service.telemetry import configure_logs

settings.register_profile(
    "farebox", derandomize=True, print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("farebox")  # The same examples every time; the simulation is where seeds go on exploring.

os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
"""No broker of a test lives for as long as the second compiler of the JVM is good for, a third of its start."""

for _reads in ("load_pem_private_key", "load_der_private_key"):
    setattr(serialization, _reads, cache(getattr(serialization, _reads)))
"""Whether a private key's primes are primes is looked at once for each key of the tests, not in each of them."""

MIGRATED_AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
"""Business time at which a test's database was migrated: there are partitions for this month and the three after it."""


SLOW = frozenset({"chaos", "e2e", "fuzz", "lab", "simulation"})
"""Where tests take seconds each, and some a minute."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several test processes each begins with a share of what takes long: none has a minute's test left when the
    others have nothing more to take over."""
    workers = getattr(config, "workerinput", {"workercount": 1})["workercount"]
    modules = [list(tests) for _, tests in groupby(items, lambda item: item.path)]
    slow = [tests for tests in modules if tests[0].path.parent.name in SLOW]
    quick = chain.from_iterable(tests for tests in modules if tests[0].path.parent.name not in SLOW)
    ordered: list[pytest.Item] = []
    for number in range(workers):
        ordered.extend(chain.from_iterable(slow[number::workers]))
        ordered.extend(islice(quick, max(0, len(items) * (number + 1) // workers - len(ordered))))
    items[:] = ordered


def pytest_collection_finish() -> None:
    """What was loaded stays: it is not looked through for garbage again and again, a tenth of the tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="session", autouse=True)
def logs() -> None:
    """Logs as a role writes them, errors alone."""
    configure_logs("error", "test")


@pytest.fixture(scope="session")
async def servers() -> AsyncIterator[Servers]:
    """A PostgreSQL and a Kafka, for all tests of this process."""
    async with lab(
        database_url=os.environ.get("FAREBOX_DATABASE_URL"), kafka_bootstrap=os.environ.get("FAREBOX_KAFKA_BOOTSTRAP")
    ) as servers:
        yield servers


@pytest.fixture(scope="session")
async def migrated_template(servers: Servers) -> AsyncIterator[str]:
    """The name of a migrated database to copy (its partitions reach over `MIGRATED_AT` and today)."""
    name = f"test_template_{secrets.token_hex(4)}"
    url = await servers.create_database(name)
    for now in (MIGRATED_AT, datetime.now(UTC)):
        await migrate(url, now)
    yield name
    await servers.drop_database(name)


@pytest.fixture(scope="module")
async def database_url(servers: Servers, migrated_template: str) -> AsyncIterator[str]:
    """A fresh, migrated database for the module."""
    name = f"test_{secrets.token_hex(8)}"
    yield await servers.create_database(name, template=migrated_template)
    await servers.drop_database(name)


@pytest.fixture(scope="session")
def kafka_bootstrap(servers: Servers) -> str:
    return servers.kafka_bootstrap


@pytest.fixture(scope="session")
def topic(kafka_bootstrap: str) -> Callable[..., Awaitable[str]]:
    """Makes a topic with a name of its own: `await topic()`, `await topic(partitions=4)`."""

    async def make(partitions: int = 1) -> str:
        name = f"test-{secrets.token_hex(8)}"
        await create_topics(Brokers(kafka_bootstrap), {name: partitions})
        return name

    return make
