"""A Kafka with a listener for each way in, and a PostgreSQL behind TLS, with certificates of a test.

The lab's PostgreSQL was built without TLS, which therefore ends in front of it; Kafka's is its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import nursery
from certificates import DAY, Authority, written
from rich.console import Console
from tls_front import TlsFront

from service.lab.kafka import Doors, Ports, start_kafka
from service.lab.postgres import reachable_temp, start_postgres
from service.lab.processes import Children, free_ports

USER, PASSWORD, DATABASE_PASSWORD, WRONG = "farebox", "kafka-secret-7", "pg-secret-7", "not-the-one"
LISTENERS = {"GUARDED": "SASL_SSL", "MUTUAL": "SSL", "CLEAR": "SASL_PLAINTEXT", "EXPIRED": "SSL", "ELSEWHERE": "SSL"}
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


def told(text: str) -> list[str]:
    """The passwords that stand in a text, also as SASL and HTTP encode them; the wrong one that was tried is one."""
    forms = [form for one in (PASSWORD, DATABASE_PASSWORD, WRONG) for form in (one, b64encode(one.encode()).decode())]
    return [form for form in forms if form.rstrip("=") in text]


class Guarded(NamedTuple):
    """The servers and the files: `kafka` by listener; the database's URLs, by TLS with the CA's file and without."""

    folder: Path
    kafka: dict[str, str]
    database_url: str
    plain_url: str
    front: TlsFront

    def settings(self, listener: str = "GUARDED", **changes: str) -> dict[str, str]:
        """What lets a role in by a listener, with changes; an empty text takes a setting away."""
        protocol = LISTENERS.get(listener, "PLAINTEXT")
        chosen = {
            "DATABASE_URL": self.database_url,
            "KAFKA_BOOTSTRAP": self.kafka[listener],
            "KAFKA_SECURITY_PROTOCOL": protocol,
        }
        if protocol.startswith("SASL_"):
            chosen |= {"KAFKA_USER": USER, "KAFKA_PASSWORD_FILE": str(self.folder / "password")}
        if protocol.endswith("SSL"):
            chosen |= {"KAFKA_CA_FILE": str(self.folder / "ca.crt")}
        if listener == "MUTUAL":
            chosen |= {"KAFKA_CERT_FILE": str(self.folder / "client.crt")}
            chosen |= {"KAFKA_KEY_FILE": str(self.folder / "client.key")}
        return {f"FAREBOX_{name}": text for name, text in (chosen | changes).items()}

    async def farebox(self, *arguments: str | Path, settings: dict[str, str]) -> tuple[int, list[str]]:
        """Runs a command to its end: its exit code, and the lines that it said, in none of which is a password."""
        process = await asyncio.create_subprocess_exec(
            *nursery.farebox(*arguments),
            env=os.environ | {"FAREBOX_LOG_LEVEL": "debug"} | settings,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(180):
            out, _ = await process.communicate()
        assert told(out.decode()) == []
        return process.returncode or 0, out.decode().splitlines()

    def database(self, **changes: str) -> str:
        """The database's URL with other parts: its user, password and database, or parameters of its query."""
        parts = urlsplit(self.database_url)
        user = f"{changes.pop('user', parts.username)}:{changes.pop('password', parts.password)}"
        where, path = f"{user}@{parts.hostname}:{parts.port}", f"/{changes.pop('database', parts.path[1:])}"
        said = dict(parse_qsl(parts.query)) | changes
        query = urlencode({name: text for name, text in said.items() if text})
        return parts._replace(netloc=where, path=path, query=query).geturl()

    @contextmanager
    def showing(self, certificate: str) -> Iterator[None]:
        """PostgreSQL shows another of the certificates that lie in the folder."""
        self._show(certificate)
        try:
            yield
        finally:
            self._show("server")

    def _show(self, certificate: str) -> None:
        self.front.show(str(self.folder / f"{certificate}.crt"), str(self.folder / f"{certificate}.key"))


@asynccontextmanager
async def guarded_servers() -> AsyncIterator[Guarded]:
    """Both servers, until the context is left."""
    base = await asyncio.to_thread(_base)
    try:
        async with Children() as children:
            folder = await asyncio.to_thread(_files, base)
            kafka, url = await asyncio.gather(_kafka(children, base, folder), _postgres(children, base))
            parts = urlsplit(url)
            front = TlsFront(parts.hostname or "", parts.port or 0)
            front.show(str(folder / "server.crt"), str(folder / "server.key"))
            where = f"{parts.username}:{parts.password}@127.0.0.1:{await front.start()}"
            query = f"sslmode=verify-full&sslrootcert={folder / 'ca.crt'}"
            yield Guarded(folder, kafka, parts._replace(netloc=where, query=query).geturl(), url, front)
            await front.stop()
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _base() -> Path:
    """A directory that PostgreSQL's user may pass."""
    base = Path(tempfile.mkdtemp(prefix="farebox-guarded-", dir=reachable_temp()))
    base.chmod(0o711)
    return base


def _files(base: Path) -> Path:
    """The certificates and the password."""
    folder = base / "files"
    folder.mkdir(mode=0o755)
    ours, other = Authority("ours"), Authority("not ours")
    (folder / "ca.crt").write_bytes(ours.pem)
    (folder / "other-ca.crt").write_bytes(other.pem)
    (folder / "password").write_text(f"{PASSWORD}\n")
    (folder / "wrong-password").write_text(f"{WRONG}\n")
    pairs = {
        "server": ours.pair(),
        "expired": ours.pair(until=-DAY),
        "elsewhere": ours.pair("elsewhere.example"),
        "client": ours.pair(USER),
        "client-expired": ours.pair(USER, until=-DAY),
        "client-other": other.pair(USER),
    }
    for name, pair in pairs.items():
        written(folder, name, pair)
        (folder / f"{name}.pem").write_bytes(pair.key + pair.certificate)
    return folder


async def _kafka(children: Children, base: Path, folder: Path) -> dict[str, str]:
    """Where each listener is."""
    port, controller, *others = free_ports(2 + len(LISTENERS))
    ports = dict(zip(("PLAINTEXT", *LISTENERS), (port, *others), strict=True))
    where = ",".join(f"{name}://127.0.0.1:{number}" for name, number in ports.items())
    protocols = {"CONTROLLER": "PLAINTEXT", "PLAINTEXT": "PLAINTEXT"} | LISTENERS
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    properties = {
        "listeners": f"{where},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": where,
        "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
        "inter.broker.listener.name": "PLAINTEXT",
    }
    for name, kind in LISTENERS.items():
        at = f"listener.name.{name.lower()}"
        if kind.endswith("SSL"):
            shown = name.lower() if name in ("EXPIRED", "ELSEWHERE") else "server"
            properties |= {f"{at}.ssl.keystore.type": "PEM", f"{at}.ssl.keystore.location": f"{folder / shown}.pem"}
        if kind.startswith("SASL"):
            properties[f"{at}.sasl.enabled.mechanisms"] = ",".join(MECHANISMS)
            properties |= {f"{at}.{way.lower()}.sasl.jaas.config": scram for way in MECHANISMS}
            properties[f"{at}.plain.sasl.jaas.config"] = f'{plain} user_{USER}="{PASSWORD}";'
    at = "listener.name.mutual.ssl"
    properties |= {f"{at}.truststore.type": "PEM", f"{at}.truststore.location": str(folder / "ca.crt")}
    properties[f"{at}.client.auth"] = "required"
    users = [f"{way}=[name={USER},password={PASSWORD}]" for way in MECHANISMS if way.startswith("SCRAM")]
    await start_kafka(
        children,
        base / "kafka",
        ports=Ports(port, controller),
        cluster_id="AWd1YXJkZWQtc2VydmVycw",
        kept=False,
        console=Console(stderr=True),
        doors=Doors(properties, users),
    )
    return {name: f"127.0.0.1:{number}" for name, number in ports.items()}


async def _postgres(children: Children, base: Path) -> str:
    """The URL by which the front comes to it."""
    (port,) = free_ports(1)
    home = base / "postgres"
    return await start_postgres(
        children, home, port=port, password=DATABASE_PASSWORD, settings={"fsync": "off"}, kept=False
    )
