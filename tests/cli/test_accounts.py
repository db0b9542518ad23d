"""Merchant accounts on the command line: what never gets into their settings, and what whoever sets them is told."""

from __future__ import annotations

import pytest
from command_line import Farebox, command


@pytest.fixture
def farebox(database_url: str) -> Farebox:
    return command(database_url)


async def test_a_secret_does_not_get_into_the_settings_though_nobody_tries_them(farebox: Farebox) -> None:
    """With --unchecked, too: settings are stored, listed and logged."""
    words = ("--provider", "stripe", "--url", "http://provider.invalid", "--setting", "currency=EUR", "--unchecked")
    code, told, said = await farebox("account", "add", "cards", *words, "--setting", "secret_key=sk_live_51")
    assert (code, told) == (2, "")
    assert "settings.secret_key is not known: a secret stands elsewhere, use secret_key_file=PATH" in said
    assert "sk_live_51" not in said
    assert "cards" not in (await farebox("account", "list"))[1]


async def test_an_address_that_is_none_is_refused_in_words(farebox: Farebox) -> None:
    for address in ("http://[::1", "http://\u2100", "ftp://provider.invalid", "provider"):
        words = ("--provider", "sandbox", "--url", address, "--setting", "api_key=key")
        code, told, said = await farebox("account", "add", "nowhere", *words)
        assert (code, told) == (2, ""), address
        assert "is no http or https address" in said and "Traceback" not in said


async def test_whoever_sets_a_ceiling_hears_that_it_is_one_processs(farebox: Farebox) -> None:
    words = ("--provider", "sandbox", "--url", "http://127.0.0.1:9", "--setting", "api_key=key")
    added = await farebox("account", "add", "slow", *words, "--setting", "calls_per_second=25")
    assert "calls_per_second: 25 for each process of collect and serve" in added[1]
    assert added[0] == 3
    assert "can't be reached (is its address right?): no connection to 127.0.0.1: Connection refused" in added[2]
    assert "ask again with `farebox account check slow`" in added[2]


@pytest.mark.parametrize(
    ("provider", "settings", "said"),
    [
        (
            "alipay",
            ["product=zhima"],
            "missing are app_id, seller_id, notify_url, app_private_key_file or app_private_key_env",
        ),
        (
            "wechatpay",
            ["mchid=1"],
            "missing are appid, service_id, notify_url, service_introduction, merchant_private_key_file",
        ),
        ("stripe", [], "settings: missing are currency, secret_key_file or secret_key_env"),
        ("stripe", ["currency=EUR", "secret_key_env=K", "mode=prod"], "at `$.mode`; allowed are live, test"),
    ],
)
async def test_what_is_missing_is_named_at_once_and_what_is_allowed(
    farebox: Farebox, provider: str, settings: list[str], said: str
) -> None:
    pairs = [word for setting in settings for word in ("--setting", setting)]
    code, told, refused = await farebox(
        "account", "add", "a", "--provider", provider, "--url", "http://p.invalid", *pairs
    )
    assert (code, told) == (2, "")
    assert said in refused


async def test_who_was_refused_hears_how_to_put_it_right_before_and_after(farebox: Farebox) -> None:
    words = ("account", "add", "again", "--provider", "sandbox", "--url", "http://127.0.0.1:9")
    way = "put it right with `farebox account change again --setting NAME=VALUE`"
    for code in (3, 2):
        ended, _, said = await farebox(*words, "--setting", "api_key=key")
        assert (ended, way in said) == (code, True), said
