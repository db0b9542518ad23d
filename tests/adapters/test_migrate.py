"""Migrations while the service runs: locks, kills, two at once, and which releases work with which schema.

The migrations of `tests/data/migrations` are those of a next release, in the forms that a real one is to have.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from intake_world import NOON, World, furnish

from service.adapters.migrate import (
    SCHEMA_VERSION,
    VERSIONS,
    MigrationError,
    SchemaVersionError,
    check_version,
    migrate,
)
from service.lab.servers import Servers

NEXT = Path(__file__).parents[1] / "data" / "migrations"
HEAD = "0002.5"
MIGRATING = (
    "import asyncio, sys; from datetime import datetime, UTC; from pathlib import Path;"
    " from service.adapters.migrate import VERSIONS, migrate;"
    " asyncio.run(migrate(sys.argv[1], datetime.now(UTC), versions=(VERSIONS, Path(sys.argv[2]))))"
)
INVALID = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
INDEXED = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'noted'::regclass"
"""An index of a table with partitions is valid once it has one of each."""


@pytest.fixture
async def url(servers: Servers, migrated_template: str) -> AsyncIterator[str]:
    """A database of its own at this release's schema."""
    name = f"test_{os.urandom(8).hex()}"
    yield await servers.create_database(name, template=migrated_template)
    await servers.drop_database(name)


async def to_next(url: str, versions: tuple[Path, ...] = (VERSIONS, NEXT)) -> str:
    return await migrate(url, datetime.now(UTC), versions=versions)


async def test_while_a_migration_waits_for_a_table_the_intake_waits_no_longer_than_the_lock_time_out(
    url: str, kafka_bootstrap: str, topic: Callable[..., Awaitable[str]]
) -> None:
    await furnish(url)
    world = World(url, kafka_bootstrap, await topic())
    await world.open()
    reader = await asyncpg.connect(url)
    try:
        intake = await world.intake()
        await world.ride("before", 20)
        await world.drain(intake, 2)
        async with reader.transaction():
            await reader.fetchval("SELECT count(*) FROM ride_revision")  # Keeps a lock that the migration needs alone.
            upgrade = asyncio.create_task(to_next(f"{url}?lock_timeout=100ms"))
            for number in range(5):
                await migrating(url, WAITING)
                await world.ride(f"while-{number}", 20, NOON + timedelta(minutes=number))
                await world.drain(intake, 4 + 2 * number)
            assert not upgrade.done()
        assert await upgrade == HEAD
        await world.ride("after", 20)
        await world.drain(intake, 14)
        assert {state for state, _ in (await world.charges()).values()} == {"closed"}
        assert len(await world.charges()) == 7
        assert await world.value("SELECT count(*) FROM quarantine") == 0
    finally:
        await reader.close()
        await world.close()


THERE = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'farebox migrate' AND datname = current_database()"
)
WAITING = f"{THERE} AND wait_event_type = 'Lock'"


async def migrating(url: str, count: str, least: int = 1) -> None:
    """Returns when there are so many migrating processes."""
    connection = await asyncpg.connect(url)
    async with asyncio.timeout(30):
        while await connection.fetchval(count) < least:  # noqa: ASYNC110  They are others.
            await asyncio.sleep(0)
    await connection.close()


async def test_a_migration_that_is_killed_halfway_is_taken_up_again(url: str) -> None:
    reader = await asyncpg.connect(url)
    async with reader.transaction(isolation="repeatable_read"):
        await reader.fetchval("SELECT count(*) FROM operator")  # An index that is built waits for this snapshot to go.
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", MIGRATING, url, str(NEXT))
        await migrating(url, WAITING)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        assert await reader.fetchval("SELECT version_num FROM alembic_version") == "0001", "as of its snapshot"
        again = asyncio.create_task(to_next(url))
        await migrating(url, THERE, 2)
    assert await again == HEAD
    assert await reader.fetchval(INDEXED)
    assert await reader.fetchval(INVALID) == 0
    await reader.close()


async def test_two_at_once_go_one_after_the_other(url: str) -> None:
    async with asyncio.timeout(60):
        assert set(await asyncio.gather(to_next(url), to_next(url))) == {HEAD}
    connection = await asyncpg.connect(url)
    assert await connection.fetchval(INDEXED)
    assert await connection.fetchval(INVALID) == 0
    await connection.close()


async def test_what_went_through_stays_when_the_next_one_fails(url: str, tmp_path: Path) -> None:
    for file in NEXT.glob("0002_[12]*.py"):
        (tmp_path / file.name).write_text(file.read_text())
    wrong = tmp_path / "0002_3_wrong.py"
    head = 'from alembic import op\nrevision = "0002.3"\ndown_revision = "0002.2"\ndef upgrade():\n    op.execute('
    wrong.write_text(f'{head}"ALTER TABLE ride_revision DROP COLUMN there_is_none")\n')
    with pytest.raises(MigrationError, match='column "there_is_none" of relation "ride_revision" does not exist'):
        await to_next(url, (VERSIONS, tmp_path))
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == "0002.2"
    await connection.close()
    wrong.write_text(f'{head}"SELECT 1")\n')
    assert await to_next(url, (VERSIONS, tmp_path)) == "0002.3"


FITS = [
    ("0001", "0001", None),
    ("0002", "0001", None),
    ("0002.3", "0001", None),
    ("0002.10", "0002.9", None),
    ("0010", "0009.2", None),
    ("0002.1", "0002.3", "the database is at schema 0002.1, this release needs 0002.3: run `farebox migrate`"),
    ("0001", "0002", "the database is at schema 0001, this release needs 0002: run `farebox migrate`"),
    ("0003", "0001", "more than a release newer than this one's 0001: run a newer Farebox"),
    ("", "0001", "the database has no Farebox schema: run `farebox migrate` first"),
]
"""(the database's schema, the one that a release needs, what it says)."""


async def test_a_release_works_with_its_own_schema_and_the_next_one_s(url: str) -> None:
    connection = await asyncpg.connect(url)
    for found, needed, said in FITS:
        await connection.execute("DELETE FROM alembic_version")
        if found:
            await connection.execute("INSERT INTO alembic_version VALUES ($1)", found)
        if said is None:
            await check_version(connection, needed)
        else:
            with pytest.raises(SchemaVersionError, match=said):
                await check_version(connection, needed)
    await connection.close()


async def test_the_release_before_leaves_a_newer_database_as_it_is(url: str) -> None:
    assert await to_next(url) == HEAD
    assert await migrate(url, datetime.now(UTC)) == HEAD, "a roll-back applies the older release's Job, too"
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE alembic_version SET version_num = '0003'")
    await connection.close()
    with pytest.raises(SchemaVersionError, match="run a newer Farebox"):
        await migrate(url, datetime.now(UTC))


def test_the_newest_migration_is_the_schema_that_this_release_needs() -> None:
    config = Config()
    config.set_main_option("script_location", str(VERSIONS.parent))
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA_VERSION
