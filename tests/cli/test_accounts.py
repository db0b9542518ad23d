"""Merchant accounts on the command line: what never gets into their settings, and what whoever sets them is told."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

import pytest

Farebox = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def farebox(database_url: str) -> Farebox:
    """Runs `farebox ARGUMENTS`: exit code, standard output, standard error."""
    settings = {"FAREBOX_DATABASE_URL": database_url, "FAREBOX_KAFKA_BOOTSTRAP": "127.0.0.1:1", "COLUMNS": "400"}

    async def run(*arguments: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | settings,
        )
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    return run


async def test_a_secret_does_not_get_into_the_settings_though_nobody_tries_them(farebox: Farebox) -> None:
    """With --unchecked, too: settings are stored, listed and logged."""
    words = ("--provider", "stripe", "--url", "http://provider.invalid", "--setting", "currency=EUR", "--unchecked")
    code, told, said = await farebox("account", "add", "cards", *words, "--setting", "secret_key=sk_live_51")
    assert (code, told) == (2, "")
    assert "settings.secret_key is not known" in said
    assert "sk_live_51" not in said
    assert "cards" not in (await farebox("account", "list"))[1]


async def test_whoever_sets_a_ceiling_hears_that_it_is_one_processs(farebox: Farebox) -> None:
    words = ("--provider", "sandbox", "--url", "http://127.0.0.1:9", "--setting", "api_key=key")
    added = await farebox("account", "add", "slow", *words, "--setting", "calls_per_second=25")
    assert "calls_per_second: 25 for each process of collect and serve" in added[1]
    assert "can't be reached (is its address right?)" in added[2]
