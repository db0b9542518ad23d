"""What a command that works on the servers needs: a database of this release's schema, the business clock, one line
for whatever is in the way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NoReturn, TypeVar

import asyncpg
import msgspec
import rich_click as click

from service.adapters.kafka_access import KAFKA_UNAVAILABLE, KafkaAccessError, server_of
from service.adapters.migrate import SchemaVersionError, check_version
from service.adapters.postgres import UNAVAILABLE, Database, connect
from service.adapters.postgres.access import DatabaseAccessError
from service.adapters.postgres.catalog import CatalogStore
from service.cli.plain import say
from service.flows.clock import BusinessClock
from service.settings import Settings, SettingsError, read_settings

Answer = TypeVar("Answer")
AWAY = (*UNAVAILABLE, *KAFKA_UNAVAILABLE)
"""What it looks like when a server is away."""
SETTINGS = {"PostgreSQL": "FAREBOX_DATABASE_URL", "Kafka": "FAREBOX_KAFKA_BOOTSTRAP"}
REASON = click.option("--reason", required=True, help="Why.")
BY = click.option("--by", default="command line", show_default=True, help="Who decides, for the trail.")


def load_settings() -> Settings:
    """The settings of the environment; a wrong one ends the command with one line and exit code 2."""
    try:
        return read_settings(os.environ)
    except SettingsError as error:
        fail(str(error))


class Ended(SystemExit):
    """The command ends, and said why in one line."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(code)
        self.message = message


def fail(message: str, code: int = 2) -> NoReturn:
    """One line on standard error, and the exit code."""
    for line in f"farebox: {message}".split("\n"):
        say(line, err=True)
    raise Ended(message, code)


def carry_out(work: Coroutine[Any, Any, Answer], *refusals: type[Exception]) -> Answer:
    """Runs a command's work; one of `refusals`, or a server that is away, is one line and exit code 2."""
    expected: tuple[type[Exception], ...] = (SchemaVersionError, KafkaAccessError, DatabaseAccessError, *refusals)
    try:
        return asyncio.run(work)
    except expected as error:
        fail(str(error))
    except AWAY as error:
        fail(away(error))
    except asyncpg.PostgresError as error:
        fail(f"PostgreSQL refuses: {error}")


def away(error: BaseException) -> str:
    """A server that is away, in words, with the setting that says where it is."""
    said = str(error).removeprefix(f"{type(error).__name__}: ").replace(", <AddressFamily.AF_INET: 2>", "")
    server = server_of(error)
    told = f"{server} can't be reached: {type(error).__name__}: {said}".rstrip(": ")
    return f"{told}; see {SETTINGS[server]}"


@asynccontextmanager
async def database_of(settings: Settings) -> AsyncIterator[Database]:
    """The installation's database; raises SchemaVersionError where it is not of this release's schema."""
    connection = await connect(settings.database_url, name="command")
    try:
        await check_version(connection)
    finally:
        await connection.close()
    database = await Database.open(settings.database_url, name="command", size_max=2)
    try:
        yield database
    finally:
        await database.close()


async def business_now(database: Database) -> datetime:
    """The installation's business time."""
    clock = BusinessClock()
    async with database.reading(CatalogStore) as store:
        clock.read(await store.installation())
    return clock.now()


def named_texts(pairs: Iterable[str], where: str) -> dict[str, str]:
    """What pairs NAME=VALUE say, as it is written; `where` names the parameter in a refusal."""
    chosen: dict[str, str] = {}
    for pair in pairs:
        name, given, text = pair.partition("=")
        if not name or not given:
            raise click.BadParameter(f"{pair!r}: allowed is NAME=VALUE", param_hint=where)
        chosen[name] = text
    return chosen


def named_values(pairs: Iterable[str], where: str) -> dict[str, Any]:
    """What pairs NAME=VALUE say; a value is JSON, or else a text. `where` names the parameter in a refusal."""
    return {name: _value(text) for name, text in named_texts(pairs, where).items()}


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text
