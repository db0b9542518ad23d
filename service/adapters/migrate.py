"""Brings the database to this release's schema, and tells when it is not there."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import asyncpg

from service.adapters.postgres.access import dial

SCHEMA_VERSION = "0001"
PARTITION_MONTHS = 4
"""The present month and three ahead (intake.md)."""


class SchemaVersionError(RuntimeError):
    """The database's schema is not the one this release works with; the message says what to do."""


class ServiceRoleError(RuntimeError):
    """The database role that the service is to run as can't be used; the message says what to do."""


async def migrate(
    database_url: str,
    now: datetime,
    *,
    time_zone: str = "Asia/Shanghai",
    currency: str = "CNY",
    service_role: str | None = None,
) -> str:
    """Runs the pending migrations and what a first start needs: partitions, the default operator. Returns the version.

    Needs the `migrate` extra. Safe to run again and from several places at once (an advisory lock orders them).
    `service_role` is given what the roles need: it owns no table, so that it can't get past the append-only triggers.
    """
    from alembic import command  # noqa: PLC0415  Only the migrating process has the extra installed.
    from alembic.config import Config  # noqa: PLC0415
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415
    from sqlalchemy.pool import NullPool  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    guard = await dial(database_url)
    try:
        await guard.execute("SELECT pg_advisory_lock(727001)")
        # asyncpg reads the URL, here as everywhere: SQLAlchemy refuses parameters that it knows (sslmode).
        engine = create_async_engine(
            "postgresql+asyncpg://", poolclass=NullPool, async_creator=lambda: dial(database_url)
        )
        async with engine.connect() as connection:

            def upgrade(sync_connection: object) -> None:
                config.attributes["connection"] = sync_connection
                command.upgrade(config, "head")

            await connection.run_sync(upgrade)
            await connection.commit()
        await engine.dispose()
        await _first_start(guard, now, time_zone, currency)
        if service_role is not None:
            await _grant(guard, service_role)
    finally:
        await guard.close()
    return SCHEMA_VERSION


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


async def check_version(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Raises SchemaVersionError unless the database is at this release's schema."""
    found = await connection.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL")
    version = await connection.fetchval("SELECT version_num FROM alembic_version") if found else None
    if version is None:
        raise SchemaVersionError("the database has no Farebox schema: run `farebox migrate` first")
    if version < SCHEMA_VERSION:
        raise SchemaVersionError(
            f"the database is at schema {version}, this release needs {SCHEMA_VERSION}: run `farebox migrate`"
        )
    if version > SCHEMA_VERSION:
        raise SchemaVersionError(
            f"the database is at schema {version}, newer than this release's {SCHEMA_VERSION}: run a newer Farebox"
        )


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
