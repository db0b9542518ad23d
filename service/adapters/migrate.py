"""Brings the database to this release's schema while the service runs, and tells when it does not fit.

A migration is a file of `migrations/versions` and one transaction, numbered by the release that needs it: `0002`, or
`0002.1`, `0002.2` where that needs several. It leaves in place whatever the release before works with, so that both run
side by side: `deploy/runbook.md`, "Changing what is stored".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

from service.adapters.postgres import session_settings
from service.adapters.postgres.access import dial
from service.telemetry import logger

if TYPE_CHECKING:
    from alembic.config import Config

LOG = logger("migrate")
SCHEMA_VERSION = "0001"
VERSIONS = Path(__file__).parent / "migrations" / "versions"
PARTITION_MONTHS = 4
"""The present month and three ahead (intake.md)."""
LOCK_KEY = 727001
PATIENCE = {"lock_timeout": "2s", "statement_timeout": "10s", "transaction_timeout": "0"}
"""Whoever waits for a table's lock keeps everybody behind him waiting, too: so he gives up soon, and tries again."""
BUSY = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
"""The tables are in use."""
PAUSE_SECONDS_MAX = 5.0
TRYING_SECONDS = 900.0
"""How long a migration is tried again and again while others hold its tables."""


class SchemaVersionError(RuntimeError):
    """The database's schema is not one that this release works with; the message says what to do."""


class ServiceRoleError(RuntimeError):
    """The database role that the service is to run as can't be used; the message says what to do."""


class MigrationError(RuntimeError):
    """A migration did not go through; the message says which and what to do. What went through before stays."""


async def migrate(
    database_url: str,
    now: datetime,
    *,
    time_zone: str = "Asia/Shanghai",
    currency: str = "CNY",
    service_role: str | None = None,
    versions: Sequence[Path] = (VERSIONS,),
) -> str:
    """Runs the pending migrations and what a first start needs: partitions, the default operator. Returns the version.

    Needs the `migrate` extra. Safe to run again, after being killed anywhere, and from several places at once (one goes
    after the other), while the service works: no lock is waited for longer than PATIENCE, but again and again for
    TRYING_SECONDS. A database that is a release ahead stays as it is. `service_role` is given what the roles need: it
    owns no table, so that it can't get past the append-only triggers. Raises MigrationError, ServiceRoleError, and
    SchemaVersionError for a database that is more than a release ahead.
    """
    if not await _is_ahead(database_url, versions):
        await _upgrade(database_url, versions)
    async with _alone(database_url) as connection:
        await _first_start(connection, now, time_zone, currency)
        if service_role is not None:
            await _grant(connection, service_role)
        version: str = await connection.fetchval("SELECT version_num FROM alembic_version")
    return version


async def _is_ahead(database_url: str, versions: Sequence[Path]) -> bool:
    """Whether a newer release has migrated the database; raises SchemaVersionError where that is too new."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415  Only the migrating process has the extra installed.

    newest = ScriptDirectory.from_config(_config(versions)).get_current_head()
    assert newest is not None
    connection = await dial(database_url)
    try:
        version = await _version_of(connection)
        if version is None or _place(version) <= _place(newest):
            return False
        await check_version(connection, newest)
        return True
    finally:
        await connection.close()


def _config(versions: Sequence[Path]) -> Config:
    from alembic.config import Config  # noqa: PLC0415  Only the migrating process has the extra installed.

    config = Config()
    config.set_main_option("script_location", str(VERSIONS.parent))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(map(str, versions)))
    return config


async def _upgrade(database_url: str, versions: Sequence[Path]) -> None:
    """Every pending migration, each in its own transaction; those whose tables are in use are tried again."""
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415  Only the migrating process has the extra installed.

    pause, since = 0.1, asyncio.get_running_loop().time()
    while True:
        try:
            await _upgrade_once(database_url, versions)
        except DBAPIError as error:
            said = error.orig.__cause__ if error.orig is not None else None  # What asyncpg raised.
            if not isinstance(said, BUSY):
                raise MigrationError(f"a migration fails: {said}; what went through before it stays") from error
            if asyncio.get_running_loop().time() - since > TRYING_SECONDS:
                raise MigrationError(
                    f"a migration can't have its tables: {said}; look in pg_stat_activity for a transaction that has"
                    " been open for long, and run `farebox migrate` again"
                ) from error
            LOG.info("the tables are in use: trying again", error=str(said), seconds=pause)
        else:
            return
        await asyncio.sleep(pause)
        pause = min(pause * 2, PAUSE_SECONDS_MAX)


async def _upgrade_once(database_url: str, versions: Sequence[Path]) -> None:
    from alembic import command  # noqa: PLC0415  Only the migrating process has the extra installed.
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415
    from sqlalchemy.pool import NullPool  # noqa: PLC0415

    config = _config(versions)

    def upgrade(sync_connection: Any) -> None:
        config.attributes["connection"] = sync_connection
        command.upgrade(config, "head")

    # asyncpg reads the URL, here as everywhere: SQLAlchemy refuses parameters that it knows (sslmode).
    async with _alone(database_url) as raw:
        engine = create_async_engine("postgresql+asyncpg://", poolclass=NullPool, async_creator=lambda: _given(raw))
        async with engine.connect() as connection:
            await connection.run_sync(upgrade)
        await engine.dispose()


async def _given(connection: asyncpg.Connection[asyncpg.Record]) -> asyncpg.Connection[asyncpg.Record]:
    return connection


@asynccontextmanager
async def _alone(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection that no other migrating process has at the same time.

    The lock is its own, and not another connection's: what PostgreSQL still does for a process that was killed keeps
    the next one waiting. And it is asked for again and again instead of waited for: who waits in a statement has a
    snapshot, for whose end an index that is built concurrently waits, for ever.
    """
    said = parse_qs(urlsplit(database_url).query)
    patience = {setting: text for setting, text in PATIENCE.items() if setting not in said}
    connection = await dial(database_url, server_settings=session_settings("migrate", database_url) | patience)
    try:
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK_KEY):  # noqa: ASYNC110  Another's.
            await asyncio.sleep(0.2)
        yield connection
    finally:
        await connection.close()


async def _grant(connection: asyncpg.Connection[asyncpg.Record], role: str) -> None:
    """Reading and writing rows, for partitions to come through their parents; nothing that changes a table."""
    name = await connection.fetchval("SELECT quote_ident(rolname) FROM pg_roles WHERE rolname = $1", role)
    if name is None:
        raise ServiceRoleError(f"there is no database role {role!r}: CREATE ROLE it with a password and LOGIN first")
    for statement in (
        f"GRANT USAGE ON SCHEMA public TO {name}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {name}",
        f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {name}",
    ):
        await connection.execute(statement)


async def check_version(connection: asyncpg.Connection[asyncpg.Record], needed: str = SCHEMA_VERSION) -> None:
    """Raises SchemaVersionError unless a release that needs a schema can work with the database: it has all of it, and
    is at most one release ahead, since a migration leaves in place what the release before works with."""
    version = await _version_of(connection)
    if version is None:
        raise SchemaVersionError("the database has no Farebox schema: run `farebox migrate` first")
    found, least = _place(version), _place(needed)
    if found < least:
        raise SchemaVersionError(
            f"the database is at schema {version}, this release needs {needed}: run `farebox migrate`"
        )
    if found[0] > least[0] + 1:
        raise SchemaVersionError(
            f"the database is at schema {version}, more than a release newer than this one's {needed}: run a newer"
            " Farebox"
        )


async def _version_of(connection: asyncpg.Connection[asyncpg.Record]) -> str | None:
    found = await connection.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL")
    version: str | None = await connection.fetchval("SELECT version_num FROM alembic_version") if found else None
    return version


def _place(version: str) -> tuple[int, int]:
    """(release, step) of a schema's version."""
    release, _, step = version.partition(".")
    return int(release), int(step or 0)


async def _first_start(
    connection: asyncpg.Connection[asyncpg.Record], now: datetime, time_zone: str, currency: str
) -> None:
    await connection.execute("SELECT make_ride_partitions($1, $2)", now, PARTITION_MONTHS)
    async with connection.transaction():
        if await connection.fetchval("SELECT true FROM installation"):
            return
        operator_no = await connection.fetchval(
            "INSERT INTO operator (operator_id, name, time_zone, currency, created_at)"
            " VALUES ('default', 'Default operator', $1, $2, $3) RETURNING operator_no",
            time_zone,
            currency,
            now,
        )
        await connection.execute(
            "INSERT INTO installation (default_operator_no, created_at) VALUES ($1, $2)", operator_no, now
        )
