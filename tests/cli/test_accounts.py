"""Merchant accounts on the command line: what never gets into their settings, and what whoever sets them is told."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest
from command_line import Farebox, command
from sandbox_peer import peer
from wechatpay_peer import merchant_at


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
            "missing are app_id, seller_id, notify_url, zm_service_id, category_id, app_private_key_file or"
            " app_private_key_env, alipay_public_key_file or alipay_public_key_env",
        ),
        (
            "wechatpay",
            ["mchid=1"],
            "missing are appid, service_id, notify_url, service_introduction, merchant_private_key_file",
        ),
        ("alipay", ["product=zhimo"], "settings.product: allowed are zhima, preauth"),
        (
            "stripe",
            [],
            "settings: missing are currency, secret_key_file or secret_key_env, webhook_secret_file or"
            " webhook_secret_env",
        ),
        ("stripe", ["mode=test"], "settings: missing are currency, secret_key_file or secret_key_env\n"),
        ("stripe", ["currency=EUR", "secret_key_env=K", "mode=prod"], "settings.mode: allowed are live, test"),
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


SCORE = [
    *("mchid=1900007291", "appid=wx1", "service_id=2002000000000558", "service_introduction=Bike"),
    *("need_user_confirm=false", "merchant_serial_no=1D"),
    *("merchant_private_key_file=/secrets/key", "api_v3_key_file=/secrets/v3"),
]
DOOR = "/v1/providers/wechatpay/default.score/notifications"


async def test_a_notify_url_leads_to_the_account_s_own_door(farebox: Farebox) -> None:
    """Its host is the operator's to know, and a proxy may put something before its path."""
    pairs = [word for setting in SCORE for word in ("--setting", setting)]
    add = ("account", "add", "score", "--provider", "wechatpay", "--url", "http://p.invalid", "--unchecked", *pairs)
    for wrong in (
        "https://farebox.example/notify",
        "https://farebox.example/v1/providers/wechatpay/default.other/notifications",
        "https://farebox.example/v1/providers/wechatpay/city.score/notifications",
        f"https://farebox.example{DOOR}/",
    ):
        code, told, said = await farebox(*add, "--setting", f"notify_url={wrong}")
        assert (code, told) == (2, ""), wrong
        assert f"its path is to be {DOOR}, or to end with that" in said
    code, told, said = await farebox(*add, "--setting", f"notify_url=https://farebox.example/edge{DOOR}")
    assert (code, said) == (0, "")
    assert f"notifications: POST {DOOR}" in told
    change = ("account", "change", "score", "--unchecked", "--setting")
    code, _, said = await farebox(*change, "notify_url=https://farebox.example/v1/providers/wechatpay/score")
    assert code == 2 and DOOR in said
    assert (await farebox(*change, f"notify_url=https://other.example{DOOR}"))[0] == 0


async def sign(database_url: str, account_id: str) -> None:
    """An agreement on an account."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("INSERT INTO rider (operator_no, rider_ref) VALUES (1, $1)", account_id)
    await connection.execute(
        "INSERT INTO agreement (operator_no, agreement_id, rider_no, account_no, state, currency, time_zone, language,"
        " provider_key, created_at, updated_at) SELECT 1, $1, rider_no, account_no, 'revoked', 'EUR', 'Europe/Berlin',"
        " 'en', 'k', now(), now() FROM rider, merchant_account WHERE rider_ref = $1 AND account_id = $1",
        account_id,
    )
    await connection.close()


async def test_a_currency_can_be_put_right_until_somebody_has_signed_in_it(farebox: Farebox, database_url: str) -> None:
    secrets = ("--setting", "secret_key_env=K", "--setting", "webhook_secret_env=W")
    words = ("--provider", "stripe", "--url", "http://p.invalid", *secrets, "--unchecked")
    assert (await farebox("account", "add", "cards", *words, "--setting", "currency=USD"))[0] == 0
    change = ("account", "change", "cards", "--unchecked", "--setting")
    assert (await farebox(*change, "currency=EUR"))[0] == 0
    await sign(database_url, "cards")
    code, told, said = await farebox(*change, "currency=GBP")
    assert (code, told) == (2, "")
    assert "the currency of account cards stays as it is" in said and "add another account" in said
    assert (await farebox(*change, "currency=EUR", "--setting", "hold=manual_capture"))[0] == 0
    assert 'currency="EUR"' in (await farebox("account", "list"))[1]


async def test_an_account_that_was_added_by_mistake_goes_while_nothing_refers_to_it(
    farebox: Farebox, database_url: str
) -> None:
    words = ("--provider", "sandbox", "--url", "http://127.0.0.1:9", "--setting", "api_key=key")
    for account_id in ("mistake", "used", "stopped"):
        code, _, said = await farebox("account", "add", account_id, *words)
        assert code == 3 and f"or take it away with `farebox account remove {account_id}`" in said
    await sign(database_url, "used")
    assert (await farebox("account", "pause", "stopped", "--reason", "why"))[0] == 0
    for account_id, what in (("used", "(agreements: 1)"), ("stopped", "(stops, also those that ended: 3)")):
        code, told, said = await farebox("account", "remove", account_id)
        assert (code, told) == (2, "") and what in said, said
        assert f"farebox account pause {account_id}" in said
    assert await farebox("account", "remove", "mistake") == (0, "account mistake removed\n", "")
    code, _, said = await farebox("account", "remove", "mistake")
    assert code == 2 and "no merchant account mistake" in said
    assert "mistake" not in (await farebox("account", "list"))[1]


async def test_complaints_are_told_at_our_door_by_a_command(farebox: Farebox, tmp_path: Path) -> None:
    """WeChat Pay wants the address in a signed call; an address that stands there is somebody's."""
    listen = ("account", "listen", "told")
    async with peer() as simulator, merchant_at(simulator, "told", tmp_path) as merchant:
        url = f"https://farebox.example{DOOR.replace('score', 'told')}"
        given = {name: value for name, value in merchant.provider.account.settings.items() if name != "timeout_s"}
        pairs = [f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in given.items()]
        words = [word for pair in (*pairs, f"notify_url={url}") for word in ("--setting", pair)]
        added = await farebox("account", "add", "told", "--provider", "wechatpay", "--url", simulator.url, *words)
        assert added[0] == 0, added
        assert await farebox(*listen) == (
            0,
            f"account default.told: complaints are told at {url} (before: nowhere)\n",
            "",
        )
        assert await farebox(*listen) == (0, f"account default.told: complaints are told at {url} (as before)\n", "")
        moved = await farebox(
            "account", "change", "told", "--setting", f"notify_url={url.replace('.example', '.test')}"
        )
        assert moved[0] == 0, moved
        code, told, said = await farebox(*listen)
        assert (code, told) == (1, "") and f"complaints are told at {url}; --replace puts" in said
        code, told, _ = await farebox(*listen, "--replace")
        assert (code, f"(before: {url})" in told) == (0, True)
    code, _, said = await farebox(*listen)
    assert (code, "the address is not registered: can't be reached" in said) == (1, True), said
    sand = ("account", "add", "sand", "--provider", "sandbox", "--url", "http://127.0.0.1:9", "--unchecked")
    assert (await farebox(*sand, "--setting", "api_key=key"))[0] == 0
    code, told, _ = await farebox("account", "listen", "sand")
    assert (code, "no call registers an address; sandbox" in told) == (0, True)
    assert (await farebox("account", "listen", "nobody"))[0] == 2
