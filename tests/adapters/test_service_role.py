"""The service's database role owns no table: it does the work, and can't get past the append-only triggers."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

import asyncpg
import pytest
from intake_world import World, furnish

from service.adapters.migrate import ServiceRoleError, migrate
from service.lab.servers import Servers


@pytest.fixture
async def service_url(servers: Servers, migrated_template: str) -> AsyncIterator[str]:
    """The database as the service's role sees it."""
    role, password = f"role_{secrets.token_hex(4)}", secrets.token_hex(8)
    url = await servers.create_database(f"test_{role}", template=migrated_template)
    owner = await asyncpg.connect(url)
    await owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    await furnish(url)
    await migrate(url, datetime.now(UTC), service_role=role)
    parts = urlsplit(url)
    yield parts._replace(netloc=f"{role}:{password}@{parts.hostname}:{parts.port}").geturl()
    await owner.execute(f"DROP OWNED BY {role}")
    await owner.execute(f"DROP ROLE {role}")
    await owner.close()
    await servers.drop_database(f"test_{role}")


async def test_rides_are_charged_by_a_role_that_owns_nothing(
    service_url: str, kafka_bootstrap: str, topic: Callable[..., Awaitable[str]]
) -> None:
    world = World(service_url, kafka_bootstrap, await topic())
    await world.open()
    await world.ride("ride", 20)
    await world.drain(await world.intake(), 2)
    assert await world.charges() == {"ride": ("closed", 250)}
    assert await world.value("SELECT make_ride_partitions($1, 5)", datetime.now(UTC)) >= 0
    await world.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM transfer",
        "UPDATE ride_revision SET amount_minor = 0",
        "TRUNCATE transfer",
        "ALTER TABLE transfer DISABLE TRIGGER append_only",
        "DROP TABLE transfer",
        "DROP TRIGGER append_only ON ride_revision",
        "SET session_replication_role = replica",
    ],
)
async def test_the_books_refuse_the_service_itself(
    service_url: str, kafka_bootstrap: str, topic: Callable[..., Awaitable[str]], statement: str
) -> None:
    world = World(service_url, kafka_bootstrap, await topic())
    await world.open()
    await world.ride("ride", 20)
    await world.drain(await world.intake(), 2)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await world.value(statement)
    await world.close()


async def test_a_role_that_is_not_there_is_named(database_url: str) -> None:
    with pytest.raises(ServiceRoleError, match="nobody_here"):
        await migrate(database_url, datetime.now(UTC), service_role="nobody_here")
