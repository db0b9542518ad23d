"""The serving process: PostgreSQL away and back, the port, the drain, tokens from the command line."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import nursery
import pytest
from web_world import web_world

from service.lab.processes import free_ports
from service.web.health import Health


class Gateway:
    """Connections to PostgreSQL that can be cut."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.open = True
        self.writers: set[asyncio.StreamWriter] = set()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(*self.target)
        self.writers |= {writer, far_writer}
        await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except OSError:
            pass  # It was cut.
        finally:
            writer.transport.abort()

    def cut(self) -> None:
        self.open = False
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()


@asynccontextmanager
async def gateway(url: str) -> AsyncIterator[tuple[Gateway, str]]:
    parts = urlsplit(url)
    gate = Gateway(parts.hostname or "127.0.0.1", parts.port or 5432)
    server = await asyncio.start_server(gate.take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    user = f"{parts.username}{':' + parts.password if parts.password else ''}@" if parts.username else ""
    try:
        yield gate, urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{port}"))
    finally:
        gate.cut()
        server.close()


async def test_while_postgresql_is_away_requests_get_a_503_and_later_they_do_not(database_url: str) -> None:
    async with gateway(database_url) as (gate, url), web_world(url, refresh_seconds=0.05) as it:
        refreshing = asyncio.create_task(it.doors.keep_fresh())
        assert (await it.ask("GET", "/readyz")).status == 200
        gate.cut()
        for method, path, body in (
            ("GET", "/v1/sessions", None),
            ("POST", "/v1/eligibility", {"agreement_id": "agr-1"}),
        ):
            answer = await it.ask(method, path, body)
            assert (answer.status, answer.body["type"]) == (503, "urn:farebox:problem:unavailable")
            assert int(answer.headers["retry-after"]) > 0
        assert (await it.ask("GET", "/livez")).status == 200
        async with asyncio.timeout(10):
            while (await it.ask("GET", "/readyz")).status == 200:
                pass
        gate.open = True
        async with asyncio.timeout(10):
            while (await it.ask("GET", "/readyz")).status != 200:
                pass
        assert (await it.ask("GET", "/v1/sessions")).status == 200
        refreshing.cancel()


def environment(database_url: str, port: int) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("FAREBOX_")}
    return kept | {
        "FAREBOX_DATABASE_URL": database_url,
        "FAREBOX_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "FAREBOX_HTTP_PORT": str(port),
    }


@contextmanager
def serving(told: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(nursery.farebox("serve"), env=told, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


async def answering(url: str) -> None:
    """Waits until the process accepts."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.02)


async def test_who_asks_nothing_on_many_connections_keeps_nobody_out(database_url: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))  # Ours: 1,024 in many places.
    (port,) = free_ports(1)
    with serving(environment(database_url, port)), ExitStack() as held:
        url = f"http://127.0.0.1:{port}"
        await answering(url)
        for number in range(1500):
            silent = held.enter_context(socket.create_connection(("127.0.0.1", port)))
            silent.sendall(b"GET /livez HTTP/1.1\r\n" if number % 2 else b"")
        async with asyncio.timeout(10), aiohttp.ClientSession() as session, session.get(f"{url}/livez") as answer:
            assert answer.status == 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_told_to_stop_it_finishes_what_is_under_way(database_url: str, workers: str) -> None:
    (port,) = free_ports(1)
    with serving(environment(database_url, port) | {"FAREBOX_HTTP_WORKERS": workers}) as process:
        await answering(f"http://127.0.0.1:{port}")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/quotes HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{")
        await writer.drain()
        writer.write(b"}")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert b"401" in await reader.readline()
            writer.close()
            assert await asyncio.to_thread(process.wait) == 0


async def test_who_keeps_his_connection_is_told_to_leave_while_the_process_leaves(database_url: str) -> None:
    (port,) = free_ports(1)
    with serving(environment(database_url, port) | {"FAREBOX_HTTP_LEAVE_SECONDS": "15"}) as process:
        url = f"http://127.0.0.1:{port}"
        await answering(url)
        async with aiohttp.ClientSession() as kept:
            async with kept.get(f"{url}/livez") as before:
                assert "connection" not in before.headers
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                while (await connection_header(f"{url}/readyz")) != (503, "close"):
                    pass
            async with kept.get(f"{url}/v1/sessions") as refused:
                assert (refused.status, refused.headers["connection"]) == (401, "close")
        assert process.poll() is None


async def connection_header(url: str) -> tuple[int, str | None]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, answer.headers.get("connection")


def test_a_process_that_was_told_to_stop_is_never_ready_again() -> None:
    health = Health("serve")
    health.back("doors")
    assert (health.waiting_for, health.leaving) == (None, False)
    health.leave()
    health.back("doors")  # The last look at the database ended well, after all.
    assert (health.waiting_for, health.leaving) == ("stopping", True)


async def test_a_port_in_use_is_one_line_and_exit_code_2(database_url: str) -> None:
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    run = await asyncio.to_thread(
        subprocess.run,
        nursery.farebox("serve"),
        env=environment(database_url, port),
        capture_output=True,
        text=True,
        check=False,
    )
    server.close()
    plain = [line for line in run.stderr.splitlines() if not line.startswith("{")]
    assert (run.returncode, len(plain)) == (2, 1), run.stderr
    assert "port" in plain[0]


async def test_a_database_without_the_schema_is_one_line_and_exit_code_2(database_url: str) -> None:
    empty = urlsplit(database_url)._replace(path="/template1").geturl()
    run = await asyncio.to_thread(
        subprocess.run,
        nursery.farebox("serve"),
        env=environment(empty, free_ports(1)[0]),
        capture_output=True,
        text=True,
        check=False,
    )
    plain = [line for line in run.stderr.splitlines() if not line.startswith("{")]
    assert (run.returncode, plain) == (
        2,
        ["farebox: serve stops: the database has no Farebox schema: run `farebox migrate` first"],
    )


def farebox(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = nursery.farebox("token", *arguments)
    return subprocess.run(command, env=environment(database_url, 1), capture_output=True, text=True, check=False)


async def test_a_token_of_the_command_line_gets_in_until_it_is_revoked(database_url: str) -> None:
    made = farebox(
        database_url, "create", "--scope", "status:read", "--name", "app", "--expires", "2099-01-01T00:00:00Z"
    )
    secret = made.stdout.strip()
    assert (made.returncode, made.stderr, len(secret) > 40) == (0, "", True)
    async with web_world(database_url, founded=True) as it:
        assert (await it.ask("GET", "/v1/sessions", by=secret)).status == 200
        listed = farebox(database_url, "list").stdout
        (line,) = [line for line in listed.splitlines() if "  app  " in line]
        assert secret not in listed
        assert farebox(database_url, "revoke", line.split()[0]).returncode == 0
        assert (await it.ask("GET", "/v1/sessions", by=secret)).status == 401


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "--scope", "ops", "--rider", "anna"], "--rider"),
        (["create", "--scope", "ops", "--operator", "nobody"], "no operator 'nobody'"),
        (["create", "--scope", "ops", "--expires", "tomorrow"], "--expires 'tomorrow'"),
        (["create", "--scope", "all"], "ops"),
        (["revoke", "none"], "no token 'none'"),
    ],
)
def test_a_token_that_cannot_be_is_refused(database_url: str, arguments: list[str], said: str) -> None:
    run = farebox(database_url, *arguments)
    assert run.returncode == 2
    assert said in run.stderr
