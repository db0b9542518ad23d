"""A call that never left says what was in its way; it is safe to repeat, and waits like one that was turned away."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from certificates import Authority, written

from service.adapters.providers.exchange import CONNECT_RETRY, exchange, open_session
from service.adapters.providers.port import MerchantAccount
from service.billing.outcomes import Throttled, Unreachable
from service.flows.account_checks import in_words
from service.lab.processes import free_ports


@asynccontextmanager
async def somebody(folder: Path, *, tls: bool) -> AsyncIterator[int]:
    """Listens on 127.0.0.1 by a certificate that nobody here trusts, or answers a greeting by no TLS at all."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*written(folder, "stranger", Authority("stranger").pair()))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def outcome(url: str) -> object:
    account = MerchantAccount(1, "acc", "sandbox", url, {})
    async with open_session(account) as session:
        return await exchange(session, "POST", url, {}, b"{}")


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        (True, "the certificate of 127.0.0.1 is not trusted: unable to get local issuer certificate"),
        (False, "TLS with 127.0.0.1 fails: "),
    ],
)
async def test_a_server_that_is_not_to_be_trusted_is_sent_nothing_and_named(
    tmp_path: Path, tls: bool, said: str
) -> None:
    async with somebody(tmp_path, tls=tls) as port:
        found = await outcome(f"https://127.0.0.1:{port}/pay")
    assert isinstance(found, Unreachable)
    assert found.retry_after == CONNECT_RETRY
    assert found.reason.startswith(said)
    assert in_words(found) == f"can't be reached (is its address right?): {found.reason}"


@pytest.mark.parametrize(
    ("host", "said"), [("nowhere.invalid", "the name nowhere.invalid leads nowhere: "), ("127.0.0.1", "no connection")]
)
async def test_a_name_that_leads_nowhere_and_a_port_that_nobody_has_are_told_apart(host: str, said: str) -> None:
    found = await outcome(f"http://{host}:{free_ports(1)[0]}/pay")
    assert isinstance(found, Unreachable)
    assert found.reason.startswith(said)


def test_one_who_wants_no_calls_is_not_said_to_be_away() -> None:
    assert in_words(Throttled(CONNECT_RETRY)) == "wants no calls now"
