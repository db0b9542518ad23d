"""The way in to Kafka: TLS, SASL, and what a refusal means.

aiokafka says only that it could not bootstrap. Why is found by going in once more, step by step: a certificate that is
not trusted, a password that is not known or a listener that speaks otherwise is nothing to wait for.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import collect_hosts
from aiokafka.conn import create_conn
from aiokafka.errors import IllegalSaslStateError, KafkaError, SaslAuthenticationFailed, UnsupportedSaslMechanismError
from aiokafka.protocol.metadata import MetadataRequest

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

KAFKA_UNAVAILABLE = (KafkaError, OSError, TimeoutError)
"""What it looks like when Kafka is away: wait and try again."""

PROBE_SECONDS = 5.0
RETRY_MS = 500
"""How soon a client tries again what failed, connecting too: by its default of 100 ms an intake tried thirty times a
second for as long as Kafka was away."""
STOP_SECONDS = 5.0
"""How long a client may take to say good-bye."""
API_VERSIONS, SASL_HANDSHAKE = 18, 17
SPEAKS_SASL = (0, 33)
"""What a listener that wants SASL answers a handshake: no error, or that it knows no such mechanism. One that wants
none calls the state illegal (34). Source: Kafka's protocol guide, error codes."""


class KafkaAccessError(ConnectionError):
    """Kafka is there and does not let us in, or is not whom we trust; the message says what to do."""


class Brokers(msgspec.Struct, frozen=True):
    """Kafka's first brokers (`host:port,host:port`) and how to get in. The files are read anew by each client that is
    opened; an empty text is what is not used."""

    bootstrap: str
    protocol: SecurityProtocol = "PLAINTEXT"
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    mechanism: SaslMechanism = "SCRAM-SHA-512"
    user: str = ""
    password: str = ""
    password_file: str = ""

    def __repr__(self) -> str:
        """Without the password."""
        return f"Brokers({self.bootstrap!r}, {self.protocol!r})"

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted, and the broker shows a certificate."""
        return self.protocol in ("SSL", "SASL_SSL")

    @property
    def sasl(self) -> bool:
        """Whether a user and a password are sent."""
        return self.protocol.startswith("SASL_")

    def options(self) -> dict[str, Any]:
        """The arguments of an aiokafka client; raises KafkaAccessError for a file that can't be used."""
        chosen: dict[str, Any] = {"bootstrap_servers": self.bootstrap, "security_protocol": self.protocol}
        chosen["retry_backoff_ms"] = RETRY_MS
        if self.tls:
            chosen["ssl_context"] = self._context()
        if self.sasl:
            chosen |= {"sasl_mechanism": self.mechanism, "sasl_plain_username": self.user}
            chosen["sasl_plain_password"] = self._password()
        return chosen

    def _context(self) -> ssl.SSLContext:
        """TLS 1.2 or newer; the broker's name and its chain to the CA are always checked."""
        named, file = "FAREBOX_KAFKA_CA_FILE", self.ca_file
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.cert_file:
                named, file = "FAREBOX_KAFKA_CERT_FILE and FAREBOX_KAFKA_KEY_FILE", f"{self.cert_file}, {self.key_file}"
                context.load_cert_chain(self.cert_file, self.key_file or None, password=_no_passphrase)
        except (OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or error
            raise KafkaAccessError(f"{named} ({file}) can't be used: {said}; they are PEM files") from error
        return context

    def _password(self) -> str:
        if not self.password_file:
            return self.password
        try:
            return Path(self.password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or "it is no UTF-8 text"
            raise KafkaAccessError(
                f"FAREBOX_KAFKA_PASSWORD_FILE ({self.password_file}) can't be read: {said}"
            ) from error


def _no_passphrase() -> str:
    """OpenSSL would ask for it on the terminal."""
    raise ValueError("the key is encrypted, and there is nobody to ask for its passphrase")


async def opened(client: Any, brokers: Brokers) -> Any:
    """Starts a client and returns it. Raises KafkaAccessError where waiting won't help, else KAFKA_UNAVAILABLE."""
    try:
        await client.start()
    except BaseException as failed:
        await let_go(client)
        if isinstance(failed, KAFKA_UNAVAILABLE) and (refusal := await refusal_of(brokers)) is not None:
            raise KafkaAccessError(refusal) from failed
        raise
    return client


async def let_go(client: Any) -> None:
    """Stops a client, after five seconds without waiting for the answers; that Kafka is away is no failure then.

    In a task of its own: where requests are under way, aiokafka cancels them, awaits them and lets that cancellation
    out (0.14, `Fetcher.close`), which is none of ours, and leaves its connections open.
    """
    stopping = asyncio.ensure_future(client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())
    await asyncio.wait([stopping], timeout=STOP_SECONDS)
    if stopping.cancel() or stopping.cancelled():
        if isinstance(client, AIOKafkaConsumer):
            closing = asyncio.ensure_future(client._client.close())  # What `stop` did not come to.
            await asyncio.wait([closing], timeout=STOP_SECONDS)
        return
    error = stopping.exception()
    if error is not None and not isinstance(error, KAFKA_UNAVAILABLE):
        raise error


def server_of(error: BaseException) -> str:
    """Which of our two servers a failure of KAFKA_UNAVAILABLE or PostgreSQL's UNAVAILABLE is about: Kafka's client
    names its own, whatever the network says."""
    return "Kafka" if isinstance(error, (KafkaError, KafkaAccessError)) else "PostgreSQL"


@asynccontextmanager
async def admin_of(brokers: Brokers) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client, connected; raises as `opened`."""
    admin = await opened(AIOKafkaAdminClient(**brokers.options()), brokers)
    try:
        yield admin
    finally:
        await let_go(admin)


async def refusal_of(brokers: Brokers) -> str | None:
    """Why no broker lets us in and waiting won't help, in one line; None where one does, or all are merely away."""
    refusals = []
    for host, port, _ in collect_hosts(brokers.bootstrap):
        try:
            said = await _enter(brokers, host, port)
        except KAFKA_UNAVAILABLE:
            continue
        if said is None:
            return None
        refusals.append(f"Kafka at {host}:{port} {said}")
    return refusals[0] if refusals else None


async def _enter(brokers: Brokers, host: str, port: int) -> str | None:
    """Goes in as a client does and asks for the brokers: what stands against it, None for nothing; raises what it looks
    like when the broker is away."""
    options = brokers.options()
    del options["bootstrap_servers"], options["retry_backoff_ms"]
    try:
        connection = await create_conn(host, port, request_timeout_ms=PROBE_SECONDS * 1000, **options)
        try:
            await connection.send(MetadataRequest([]))
        finally:
            connection.close()
    except ssl.SSLCertVerificationError as error:
        return (
            f"shows a certificate that is not trusted ({error.verify_message}): FAREBOX_KAFKA_CA_FILE is to be the CA"
            " that signed it; one that has expired or has another name is for who runs Kafka to renew"
        )
    except SaslAuthenticationFailed:
        return (
            f"refuses the user {brokers.user!r} or the password by {brokers.mechanism}: put FAREBOX_KAFKA_USER and"
            " FAREBOX_KAFKA_PASSWORD_FILE right"
        )
    except UnsupportedSaslMechanismError:
        return f"does not take {brokers.mechanism}: set FAREBOX_KAFKA_SASL_MECHANISM to one that it has"
    except IllegalSaslStateError:
        return f"asks for no user there: set FAREBOX_KAFKA_SECURITY_PROTOCOL to {_other(brokers, sasl=False)}"
    except KAFKA_UNAVAILABLE:
        if (said := await _otherwise(brokers, host, port)) is None:
            raise
        return said
    return None


async def _otherwise(brokers: Brokers, host: str, port: int) -> str | None:
    """What the listener speaks instead, as far as it can be told."""
    setting = "set FAREBOX_KAFKA_SECURITY_PROTOCOL to"
    if brokers.tls:
        if await _answers(host, port, None) is None:
            return f"speaks no TLS there: {setting} {_other(brokers, tls=False)}, or name its TLS port"
        said = await _answers(host, port, brokers.options()["ssl_context"])
        if isinstance(said, ssl.SSLError):
            own = "FAREBOX_KAFKA_CERT_FILE and FAREBOX_KAFKA_KEY_FILE are to be of a CA that it trusts, and not expired"
            return f"does not take our client certificate, or the lack of one ({said.reason}): {own}"
    elif not isinstance(await _answers(host, port, ssl.create_default_context()), OSError):
        return f"speaks TLS there: {setting} {_other(brokers, tls=True)}"
    elif not brokers.sasl and await _wants_sasl(host, port, None):
        return f"asks for a user there: {setting} {_other(brokers, sasl=True)}"
    if brokers.tls and not brokers.sasl and await _wants_sasl(host, port, brokers.options()["ssl_context"]):
        return f"asks for a user there: {setting} {_other(brokers, sasl=True)}"
    return None


def _other(brokers: Brokers, *, tls: bool | None = None, sasl: bool | None = None) -> str:
    """The protocol with one of its sides changed."""
    kind = "SSL" if (brokers.tls if tls is None else tls) else "PLAINTEXT"
    return f"SASL_{kind}" if (brokers.sasl if sasl is None else sasl) else kind


async def _answers(host: str, port: int, context: ssl.SSLContext | None) -> OSError | None:
    """None where a Kafka listener answers which versions it has, over TLS or not. A certificate that is not trusted is
    an answer too: it speaks TLS."""
    try:
        await _ask(host, port, context, API_VERSIONS, b"")
    except ssl.SSLCertVerificationError:
        return None
    except OSError as error:
        return error
    return None


async def _wants_sasl(host: str, port: int, context: ssl.SSLContext | None) -> bool:
    """Whether the listener is ready to take a user and a password."""
    try:
        answer = await _ask(host, port, context, SASL_HANDSHAKE, b"\x00\x05PLAIN")
    except OSError:
        return False
    return int.from_bytes(answer[4:6]) in SPEAKS_SASL


async def _ask(host: str, port: int, context: ssl.SSLContext | None, api: int, body: bytes) -> bytes:
    """One request of Kafka's protocol, version 0, and the answer with its correlation id; raises OSError."""
    header = api.to_bytes(2) + b"\x00\x00" + b"\x00\x00\x00\x01" + b"\xff\xff"
    message = header + body
    async with asyncio.timeout(PROBE_SECONDS):
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        try:
            writer.write(len(message).to_bytes(4) + message)
            size = int.from_bytes(await reader.readexactly(4))
            if size > 1 << 20:
                raise ConnectionError("this is not Kafka's protocol")
            return await reader.readexactly(size)
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("closed without an answer") from error
        finally:
            writer.close()
