"""TLS and SASL at Kafka, TLS at PostgreSQL: an event goes all the way, and who is not to be trusted is refused with one
line that says what to do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from guarded_servers import LISTENERS, MECHANISMS, PASSWORD, USER, Guarded, guarded_servers, told
from process_list import command_lines, variables
from trips_export import write_trips

from service.adapters.kafka import partitions_of
from service.adapters.kafka_access import KafkaAccessError
from service.adapters.kafka_admin import bounds_of
from service.adapters.postgres import connect
from service.adapters.postgres.access import DatabaseAccessError
from service.lab.processes import free_ports
from service.settings import read_settings

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
async def guarded() -> AsyncIterator[Guarded]:
    async with guarded_servers() as made:
        yield made


@asynccontextmanager
async def role(name: str, settings: dict[str, str], log: Path) -> AsyncIterator[int]:
    """A role as a process of its own, told to stop at the end; the number of the process."""
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service", name), env=os.environ | settings, stdout=out, stderr=out
        )
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0, name


async def metrics(port: int) -> str:
    """What a role shows."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        assert answer.status == 200
        return await answer.text()


async def test_an_event_goes_all_the_way_by_tls_and_sasl(guarded: Guarded, tmp_path: Path) -> None:
    settings = guarded.settings(KAFKA_SASL_MECHANISM="PLAIN", LOG_LEVEL="debug", SESSION_TIMEOUT_MS="2000")
    plan = {"plan_id": "bike", "name": "Bike", "currency": "CNY", "price": "1.50", "is_taxable": False}
    (tmp_path / "plan.json").write_text(json.dumps(plan | {"description": "1.50 a ride"}))
    trips = write_trips(tmp_path / "trips.csv", 3)
    replay = ("replay", trips, "--plan", tmp_path / "plan.json", "--time-zone", "Asia/Shanghai", "--kafka")
    for command in (("migrate",), ("topics", "--partitions", "1"), replay):
        code, said = await guarded.farebox(*command, settings=settings)
        assert code == 0, said
    brokers, ports = read_settings(settings).brokers, free_ports(2)
    async with (
        role("intake", settings | {"FAREBOX_HEALTH_PORT": str(ports[0])}, tmp_path / "intake.log") as intake,
        role("publish", settings | {"FAREBOX_HEALTH_PORT": str(ports[1])}, tmp_path / "publish.log") as publish,
        asyncio.timeout(PATIENCE_S),
    ):
        while (await bounds_of(brokers, "rental.billing", [0]))[0][1] < 3:  # noqa: ASYNC110  In other processes.
            await asyncio.sleep(0.05)
        shown = await asyncio.to_thread(command_lines)
        assert "service intake" in shown[intake]
        assert not [line for line in shown.values() if told(line)]
        for number in (intake, publish):
            named = {name for name, text in variables(number).items() if told(text)}
            assert named == {"FAREBOX_DATABASE_URL"}
        for port in ports:
            assert told(await metrics(port)) == []
    connection = await asyncpg.connect(guarded.database_url)
    charged = await connection.fetchval("SELECT count(*) FROM ride_revision WHERE state = 'closed'")
    await connection.close()
    assert charged == 3
    restart = ("stream", "restart", "--partition", "0", "--from", "earliest", "--reason", "tried")
    for asked in (("stream", "list"), restart):
        code, said = await guarded.farebox(*asked, settings=settings)
        assert code == 0, said
        assert "rental.sessions/0" in said[-1]
    logs = (tmp_path / "intake.log").read_text() + (tmp_path / "publish.log").read_text()
    assert "role ends" in logs
    assert told(logs) == []


@pytest.mark.parametrize(
    ("listener", "changes"),
    [("GUARDED", {"KAFKA_SASL_MECHANISM": way}) for way in MECHANISMS]
    + [("CLEAR", {"KAFKA_SASL_MECHANISM": way}) for way in MECHANISMS]
    + [("GUARDED", {"KAFKA_PASSWORD_FILE": "", "KAFKA_PASSWORD": PASSWORD}), ("MUTUAL", {})],
)
async def test_each_way_in_is_one(guarded: Guarded, listener: str, changes: dict[str, str]) -> None:
    brokers = read_settings(guarded.settings(listener, **changes)).brokers
    assert await partitions_of(brokers, ["none"]) == {"none": []}


REFUSED = [
    ("GUARDED", {"KAFKA_CA_FILE": "other-ca.crt"}, "FAREBOX_KAFKA_CA_FILE is to be the CA"),
    ("GUARDED", {"KAFKA_CA_FILE": ""}, "FAREBOX_KAFKA_CA_FILE is to be the CA"),
    ("GUARDED", {"KAFKA_CA_FILE": "there-is-none"}, "FAREBOX_KAFKA_CA_FILE ("),
    ("GUARDED", {"KAFKA_CA_FILE": "password"}, "they are PEM files"),
    ("GUARDED", {"KAFKA_PASSWORD_FILE": "wrong-password"}, f"refuses the user '{USER}' or the password"),
    ("GUARDED", {"KAFKA_PASSWORD_FILE": "there-is-none"}, "FAREBOX_KAFKA_PASSWORD_FILE ("),
    ("GUARDED", {"KAFKA_USER": "nobody"}, "refuses the user 'nobody' or the password"),
    ("CLEAR", {"KAFKA_PASSWORD_FILE": "wrong-password"}, f"refuses the user '{USER}' or the password"),
    ("EXPIRED", {}, "certificate has expired"),
    ("ELSEWHERE", {}, "IP address mismatch"),
    ("MUTUAL", {"KAFKA_CERT_FILE": "", "KAFKA_KEY_FILE": ""}, "does not take our client certificate, or the lack of"),
    (
        "MUTUAL",
        {"KAFKA_CERT_FILE": "client-other.crt", "KAFKA_KEY_FILE": "client-other.key"},
        "not take our client cer",
    ),
    ("MUTUAL", {"KAFKA_CERT_FILE": "client-expired.crt", "KAFKA_KEY_FILE": "client-expired.key"}, "and not expired"),
    ("MUTUAL", {"KAFKA_KEY_FILE": "client-other.key"}, "FAREBOX_KAFKA_CERT_FILE and FAREBOX_KAFKA_KEY_FILE ("),
]


@pytest.mark.parametrize(("listener", "changes", "said"), REFUSED)
async def test_kafka_is_not_entered_by_another_key_or_with_another_ca(
    guarded: Guarded, listener: str, changes: dict[str, str], said: str
) -> None:
    files = {name: str(guarded.folder / text) if "_FILE" in name and text else text for name, text in changes.items()}
    brokers = read_settings(guarded.settings(listener, **files)).brokers
    with pytest.raises(KafkaAccessError) as refused:
        await partitions_of(brokers, ["none"])
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert told(str(refused.value)) == []


OTHERWISE = {
    ("GUARDED", "PLAINTEXT"): "speaks TLS there: set FAREBOX_KAFKA_SECURITY_PROTOCOL to SSL",
    ("MUTUAL", "PLAINTEXT"): "speaks TLS there: set FAREBOX_KAFKA_SECURITY_PROTOCOL to SSL",
    ("CLEAR", "PLAINTEXT"): "asks for a user there: set FAREBOX_KAFKA_SECURITY_PROTOCOL to SASL_PLAINTEXT",
    ("GUARDED", "SSL"): "asks for a user there: set FAREBOX_KAFKA_SECURITY_PROTOCOL to SASL_SSL",
    ("CLEAR", "SSL"): "speaks no TLS there: set FAREBOX_KAFKA_SECURITY_PROTOCOL to PLAINTEXT",
    ("PLAINTEXT", "SSL"): "speaks no TLS there: set FAREBOX_KAFKA_SECURITY_PROTOCOL to PLAINTEXT",
    ("PLAINTEXT", "SASL_SSL"): "speaks no TLS there: set FAREBOX_KAFKA_SECURITY_PROTOCOL to SASL_PLAINTEXT",
    ("CLEAR", "SASL_SSL"): "speaks no TLS there: set FAREBOX_KAFKA_SECURITY_PROTOCOL to SASL_PLAINTEXT",
    ("GUARDED", "SASL_PLAINTEXT"): "speaks TLS there: set FAREBOX_KAFKA_SECURITY_PROTOCOL to SASL_SSL",
    ("PLAINTEXT", "SASL_PLAINTEXT"): "asks for no user there: set FAREBOX_KAFKA_SECURITY_PROTOCOL to PLAINTEXT",
    ("MUTUAL", "SASL_SSL"): "asks for no user there: set FAREBOX_KAFKA_SECURITY_PROTOCOL to SSL",
}


@pytest.mark.parametrize(("listener", "protocol"), OTHERWISE)
async def test_a_listener_that_speaks_otherwise_is_told_apart(guarded: Guarded, listener: str, protocol: str) -> None:
    spoken = next(name for name, kind in {**LISTENERS, "PLAINTEXT": "PLAINTEXT"}.items() if kind == protocol)
    as_if = guarded.settings("MUTUAL" if (listener, protocol) == ("MUTUAL", "SASL_SSL") else spoken)
    if protocol == "SASL_SSL":
        as_if |= {name: text for name, text in guarded.settings("GUARDED").items() if name.startswith("FAREBOX_KAFKA")}
    changed = {"FAREBOX_KAFKA_BOOTSTRAP": guarded.kafka[listener], "FAREBOX_KAFKA_SECURITY_PROTOCOL": protocol}
    if (listener, protocol) == ("MUTUAL", "SASL_SSL"):
        mutual = guarded.settings("MUTUAL")
        changed |= {name: mutual[name] for name in ("FAREBOX_KAFKA_CERT_FILE", "FAREBOX_KAFKA_KEY_FILE")}
    brokers = read_settings(as_if | changed).brokers
    with pytest.raises(KafkaAccessError) as refused:
        await partitions_of(brokers, ["none"])
    assert OTHERWISE[listener, protocol] in str(refused.value)


@pytest.mark.parametrize(
    ("shown", "changes", "said"),
    [
        ("server", {"sslrootcert": "other-ca.crt"}, "certificate that is not trusted"),
        ("server", {"sslrootcert": "there-is-none"}, "names a file that can't be read"),
        ("server", {"sslrootcert": "password"}, "names what is no PEM certificate"),
        ("server", {"sslcert": "client.crt", "sslkey": "client-other.key"}, "or not its key: one of"),
        ("server", {"sslmode": "verify"}, "FAREBOX_DATABASE_URL can't be used: `sslmode` parameter must be one of"),
        ("server", {"sslmode": "disable"}, "PostgreSQL wants TLS: add sslmode=verify-full"),
        ("server", {"password": "wrong"}, "PostgreSQL does not let us in: password authentication failed"),
        ("server", {"user": "nobody"}, "PostgreSQL does not let us in: password authentication failed"),
        ("server", {"database": "none"}, 'PostgreSQL does not let us in: database "none" does not exist'),
        ("expired", {}, "certificate has expired"),
        ("elsewhere", {}, "IP address mismatch"),
    ],
)
async def test_postgresql_is_not_entered_by_another_key_or_with_another_ca(
    guarded: Guarded, shown: str, changes: dict[str, str], said: str
) -> None:
    files = ("sslrootcert", "sslcert", "sslkey")
    paths = {name: str(guarded.folder / text) if name in files else text for name, text in changes.items()}
    with guarded.showing(shown), pytest.raises(DatabaseAccessError) as refused:
        await connect(guarded.database(**paths), name="test")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert told(str(refused.value)) == []


async def test_a_postgresql_without_tls_is_told_of(guarded: Guarded) -> None:
    with pytest.raises(DatabaseAccessError, match="PostgreSQL speaks no TLS"):
        await connect(f"{guarded.plain_url}?sslmode=require", name="test")


async def test_a_password_that_spoils_the_url_is_not_shown() -> None:
    with pytest.raises(DatabaseAccessError, match="can't be read as postgresql://") as refused:
        await connect("postgresql://farebox:open/sesame@127.0.0.1:5432/farebox", name="test")
    assert "open" not in str(refused.value)


async def test_no_role_waits_for_a_postgresql_that_is_not_to_be_trusted(guarded: Guarded) -> None:
    url = guarded.database(sslrootcert=str(guarded.folder / "other-ca.crt"))
    settings = guarded.settings(DATABASE_URL=url, HTTP_PORT=str(free_ports(1)[0]))
    commands = ("intake", "collect", "publish", "keep", "serve", "migrate", "audit")
    ends = await asyncio.gather(*(guarded.farebox(name, settings=settings) for name in commands))
    for name, (code, said) in zip(commands, ends, strict=True):
        stops = f"{name} stops: " if name not in ("migrate", "audit") else ""
        assert code == 2, said
        assert said[-1].startswith(f"farebox: {stops}PostgreSQL shows a certificate that is not trusted"), said
        assert not any("Traceback" in line for line in said)


async def test_no_role_waits_for_a_kafka_that_refuses_its_password(guarded: Guarded) -> None:
    settings = guarded.settings(KAFKA_PASSWORD_FILE=str(guarded.folder / "wrong-password"))
    assert (await guarded.farebox("migrate", settings=settings))[0] == 0
    commands = ("intake", "publish", "topics")
    ends = await asyncio.gather(*(guarded.farebox(name, settings=settings) for name in commands))
    for code, said in ends:
        assert code == 2, said
        assert f"refuses the user '{USER}' or the password by SCRAM-SHA-512" in said[-1]
        assert not any("Traceback" in line for line in said)
