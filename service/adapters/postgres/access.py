"""The way in to PostgreSQL: TLS as the URL says (`sslmode`, `sslrootcert`), and what a refusal means."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

REFUSALS = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
"""SQLSTATE 28 (user, password, pg_hba.conf), 3D000 (no such database), 42501 (not allowed to connect to it)."""


class DatabaseAccessError(ConnectionError):
    """PostgreSQL is there and does not let us in, or is not whom we trust; the message says what to do."""


DIAL_SECONDS = 10.0
"""The most that making a connection may take: where what is sent is lost on the way, nobody refuses it. asyncpg would
wait for a minute, after the half of one that the statement before has waited for its answer."""
FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
"""Parameters of the URL that name a PEM file."""


async def dial(url: str, **options: Any) -> asyncpg.Connection[asyncpg.Record]:
    """`asyncpg.connect`, also for pools; raises DatabaseAccessError for what waiting can't mend, TimeoutError after
    DIAL_SECONDS, or another `timeout`."""
    try:
        return await asyncpg.connect(url, **{"timeout": DIAL_SECONDS, **options})
    except (OSError, ValueError, asyncpg.PostgresError) as error:
        refusal = refusal_of(error, url)
        if refusal is None:
            raise
        raise DatabaseAccessError(refusal) from error


async def _nothing_to_undo(_: object) -> None:
    """Between two users of a pool's connection.

    What they set goes with their transaction, and one that was left open is rolled back all the same; asyncpg's own
    `RESET ALL` would be a round trip for each use.
    """


async def pooled(url: str, **options: Any) -> asyncpg.Pool[asyncpg.Record]:
    """`asyncpg.create_pool` whose connections are dialled; nobody may leave a setting of the session behind."""
    pool: asyncpg.Pool[asyncpg.Record] | None = await asyncpg.create_pool(
        url,
        reset=_nothing_to_undo,
        connect=dial,  # type: ignore[call-overload]  # The stubs want the URL to be left out, too, which we never do.
        **options,
    )
    assert pool is not None
    return pool


def refusal_of(error: Exception, url: str) -> str | None:
    """What a connection that was not made means and what to do, in one line; None where the server is merely away.

    Nothing of a URL that can't be read is said: its password may stand where another part is looked for.
    """
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"PostgreSQL shows a certificate that is not trusted ({error.verify_message}): sslrootcert in"
                " FAREBOX_DATABASE_URL is to be the CA that signed it; one that has expired or has another name is for"
                " who runs PostgreSQL to renew"
            )
        case asyncpg.ClientConfigurationError():
            return f"FAREBOX_DATABASE_URL can't be used: {error}"
        case ssl.SSLError(library="X509" | "PEM") | ssl.SSLError(reason="PEM_LIB"):
            named = ", ".join(_files(url))
            return f"FAREBOX_DATABASE_URL names what is no PEM certificate, or not its key: one of {named}"
        case FileNotFoundError() | PermissionError() | IsADirectoryError():
            unread = [file for file in _files(url) if not Path(file).is_file() or isinstance(error, PermissionError)]
            return f"FAREBOX_DATABASE_URL names a file that can't be read: {unread[0]}" if unread else None
        case ConnectionError() if "rejected SSL upgrade" in str(error):
            return "PostgreSQL speaks no TLS: switch its `ssl` on, or take sslmode out of FAREBOX_DATABASE_URL"
        case asyncpg.InvalidAuthorizationSpecificationError() if "no encryption" in str(error):
            return f"PostgreSQL wants TLS: add sslmode=verify-full and sslrootcert to FAREBOX_DATABASE_URL ({error})"
        case asyncpg.PostgresError() if isinstance(error, REFUSALS):
            return f"PostgreSQL does not let us in: {error}: put FAREBOX_DATABASE_URL or the server's rules right"
        case ValueError() if not isinstance(error, ssl.SSLError):
            return (
                "FAREBOX_DATABASE_URL can't be read as postgresql://user:password@host:5432/name: in the password"
                " / is %2F, @ is %40, : is %3A, # is %23 and ? is %3F"
            )
    return None


def _files(url: str) -> list[str]:
    """The files that the URL names."""
    said = parse_qs(urlsplit(url).query)
    return [file for name in FILES for file in said.get(name, ())]
