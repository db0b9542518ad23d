"""Wrong credentials are found at the start, by a call that moves nothing, and named; the other accounts go on."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from installation import Installation, installed
from sandbox_peer import Peer, peer

from service.billing.capabilities import Capabilities
from service.lab.processes import free_ports
from service.lab.provider.mirror import terms_of
from service.lab.provider.rows import Account
from service.lab.servers import Servers

Named = Callable[[int, list[str]], Awaitable[bool]]
ADD = (
    "INSERT INTO merchant_account (operator_no, account_id, provider, base_url, settings, created_at)"
    " VALUES (1, $1, 'sandbox', $2, $3, now())"
)


@pytest.fixture
async def installation(servers: Servers, migrated_template: str, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(servers, migrated_template, tmp_path) as made:
        yield made


async def account(installation: Installation, sandbox: Peer, name: str, *, url: str = "", key: str = "") -> None:
    """A merchant account with an agreement that its provider is to be asked about now."""
    terms = terms_of(Capabilities(), confirm_agreement=False)
    await sandbox.call("PUT", "/accounts", Account(name, f"key-of-{name}", terms))
    settings = {"api_key": key or f"key-of-{name}", "capabilities": msgspec.to_builtins(Capabilities())}
    await installation.connection.execute(ADD, name, url or sandbox.url, json.dumps(settings))
    await installation.connection.execute("INSERT INTO rider (operator_no, rider_ref) VALUES (1, $1)", name)
    await installation.connection.execute(
        "INSERT INTO agreement (operator_no, agreement_id, rider_no, account_no, state, currency, time_zone, language,"
        " provider_key, due_at, created_at, updated_at)"
        " SELECT 1, $1, rider_no, account_no, 'pending', 'CNY', 'Asia/Shanghai', 'en', $1, now(), now(), now()"
        " FROM rider, merchant_account WHERE rider_ref = $1 AND account_id = $1",
        name,
    )


async def probe(port: int, path: str = "/readyz") -> Any:
    """What a probe answers; None while nobody listens, or it is not ready."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
            text = await answer.text()
            return (json.loads(text) if path == "/readyz" else text) if answer.status == 200 else None
    except aiohttp.ClientConnectionError:
        return None


async def test_an_account_that_is_refused_is_named_and_waits_until_it_is_good(installation: Installation) -> None:
    health, http = free_ports(2)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        async with peer() as sandbox:
            await account(installation, sandbox, "wrong", key="a guess")
            await account(installation, sandbox, "good")
            await installation.connection.execute(ADD, "mistake", sandbox.url, json.dumps({"api_key": "nobody's"}))
            await account(installation, sandbox, "deaf", url=f"http://127.0.0.1:{deaf.getsockname()[1]}")
            await installation.role("collect", FAREBOX_HEALTH_PORT=str(health))
            await installation.role("serve", FAREBOX_HTTP_PORT=str(http))

            async def states() -> dict[str, str]:
                rows = await installation.connection.fetch("SELECT agreement_id, state FROM agreement")
                return {row["agreement_id"]: row["state"] for row in rows}

            async def named(port: int, refused: list[str]) -> bool:
                told = await probe(port)
                return told is not None and told.get("refused_accounts", []) == refused

            for port in (health, http):
                await installation.until(lambda port=port: named(port, ["default.mistake", "default.wrong"]), "named")  # type: ignore[misc]  # mypy infers no type for a default.

            async def signed() -> bool:
                return (await states())["good"] == "active"

            await installation.until(signed, "the good account at work")
            assert (await states())["wrong"] == "pending"
            version = "SELECT version FROM agreement WHERE agreement_id = 'wrong'"
            assert await installation.connection.fetchval(version) == 1, "nobody was called for it"
            metrics = await probe(health, "/metrics")
            assert 'farebox_account_usable{account="default.wrong"} 0.0' in metrics
            assert 'farebox_account_usable{account="default.good"} 1.0' in metrics
            await installation.connection.execute("DELETE FROM merchant_account WHERE account_id = 'mistake'")
            for port in (health, http):
                await installation.until(lambda port=port: named(port, ["default.wrong"]), "the removed one forgotten")  # type: ignore[misc]  # As above.
            await installation.connection.execute(
                "UPDATE merchant_account SET settings = jsonb_set(settings, '{api_key}', '\"key-of-wrong\"')"
                " WHERE account_id = 'wrong'"
            )

            async def all_signed() -> bool:
                return (await states())["wrong"] == "active"

            await installation.until(all_signed, "the mended account at work")
            for port in (health, http):
                await installation.until(lambda port=port: named(port, []), "named no more")  # type: ignore[misc]  # As above.
            await revoked_while_they_run(installation, sandbox, named, health)


async def revoked_while_they_run(installation: Installation, sandbox: Peer, named: Named, health: int) -> None:
    """The key of "good" is no more, which an answer tells; with the new one it is good again."""
    terms = terms_of(Capabilities(), confirm_agreement=False)
    await sandbox.call("PUT", "/accounts", Account("good", "another-key", terms))
    await installation.connection.execute("UPDATE agreement SET due_at = now() WHERE agreement_id = 'good'")
    await installation.until(lambda: named(health, ["default.good"]), "named by who was refused")
    assert 'farebox_account_usable{account="default.good"} 0.0' in await probe(health, "/metrics")
    state = "SELECT state FROM agreement WHERE agreement_id = 'good'"
    assert await installation.connection.fetchval(state) == "active"
    await installation.connection.execute(
        "UPDATE merchant_account SET settings = jsonb_set(settings, '{api_key}', '\"another-key\"')"
        " WHERE account_id = 'good'"
    )
    await installation.until(lambda: named(health, []), "good again")
    assert 'farebox_account_usable{account="default.good"} 1.0' in await probe(health, "/metrics")
