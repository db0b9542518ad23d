"""When something about a secret goes wrong, nothing that is said about it has a piece of the secret."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import alipay_double
import pytest
import wechatpay_double
from aiohttp import web

from service.adapters.providers import declared_capabilities, open_provider
from service.adapters.providers.port import AgreementRef, DebitRequest, HoldRef, MerchantAccount
from service.adapters.providers.secrets import AccountSettingsError

PIECE = 10
"""So many letters of a secret in a row are a piece of it."""
KEY = "4fQ9zT1mXw7Lr2Vb8Nc5Jd0Hs6Pg3KyA"
PLAIN = {"stripe": f"sk_test_{KEY}", "sandbox": f"sand-{KEY}"}
ALIPAY, PREAUTH, WECHAT, STRIPE, SANDBOX = PROVIDERS = ("alipay", "preauth", "wechatpay", "stripe", "sandbox")


def account(name: str, room: Path, url: str = "http://127.0.0.1:9") -> MerchantAccount:
    """An account whose secrets are in files of `room`."""
    match name:
        case "alipay" | "preauth":
            settings = alipay_double.settings_of("zhima" if name == ALIPAY else name, room)
        case "wechatpay":
            settings = wechatpay_double.settings_of(room) | wechatpay_double.public_key_mode(room)
        case "stripe":
            (room / "key").write_text(PLAIN[name])
            (room / "hook").write_text(f"whsec_{KEY}")
            settings = {"secret_key_file": str(room / "key"), "webhook_secret_file": str(room / "hook")}
            settings |= {"currency": "EUR", "mode": "test"}
        case _:
            (room / "key").write_text(PLAIN[name])
            settings = {"api_key_file": str(room / "key"), "notify_secret_file": str(room / "key")}
    provider = ALIPAY if name == PREAUTH else name
    return MerchantAccount(1, "city", provider, url, settings)


def secrets_of(one: MerchantAccount) -> dict[str, str]:
    """Every secret by the setting that names it; public keys are none."""
    files = {name: Path(path) for name, path in one.settings.items() if name.endswith("_file") and "public" not in name}
    return {name: path.read_text() for name, path in files.items()}


def pieces(said: str, secret: str) -> list[str]:
    """What of a secret is in what was said."""
    flat, words = "".join(secret.split()).replace("-----", ""), secret.split("\n")
    lines = [flat, *words] if "BEGIN" not in secret else words[1:-2]
    found = {line[at : at + PIECE] for line in lines for at in range(max(1, len(line) - PIECE + 1))}
    return [piece for piece in found if len(piece) >= PIECE and piece in said]


SPOILED: dict[str, Callable[[str], bytes]] = {
    "half of it": lambda secret: secret[: len(secret) // 2].encode(),
    "a letter less": lambda secret: secret.strip()[:-1].encode(),
    "another alphabet": lambda secret: secret.replace("A", "é").encode(),
    "no UTF-8": lambda secret: secret.encode()[:40] + b"\xff\xfe" + secret.encode()[40:],
    "two lines": lambda secret: f"{secret.strip()}\n{secret}".encode(),
    "NUL in it": lambda secret: secret.encode()[:40] + b"\0" + secret.encode()[40:],
    "packed once more": lambda secret: b64encode(secret.encode()),
    "nothing": lambda secret: b"",
}


def spoil_file(path: str, content: bytes) -> None:
    """Something else stands in a secret's file."""
    Path(path).write_bytes(content)


async def said_of(one: MerchantAccount) -> str:
    """What is said of an account that is opened and asked; empty where it is as good as any."""
    try:
        declared_capabilities(one)
        provider = open_provider(one)
    except AccountSettingsError as error:
        return f"{error} {error!r} {error.__cause__!r}"
    try:
        return repr(await provider.check())
    finally:
        await provider.close()


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_spoiled_secret_is_told_of_without_a_piece_of_it(name: str, tmp_path: Path) -> None:
    one = account(name, tmp_path)
    for setting, secret in secrets_of(one).items():
        for what, spoil in SPOILED.items():
            spoil_file(one.settings[setting], spoil(secret))
            said = await said_of(one)
            spoil_file(one.settings[setting], secret.encode())
            assert not pieces(said, secret), (setting, what, said)


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_secret_in_the_place_of_its_path_is_refused_and_not_repeated(name: str, tmp_path: Path) -> None:
    one = account(name, tmp_path)
    for setting, secret in secrets_of(one).items():
        base = setting.removesuffix("_file")
        others = {known: value for known, value in one.settings.items() if known != setting}
        for instead in (f"{base}_file", f"{base}_env"):
            mixed = MerchantAccount(1, "city", one.provider, one.base_url, others | {instead: secret})
            said = await said_of(mixed)
            assert f"settings.{instead} is to be" in said
            assert not pieces(said, secret), said


Echo = Callable[[web.BaseRequest], web.Response]


def _in_words(request: web.BaseRequest) -> web.Response:
    told = f"not let in: {request.headers.get('Authorization')}"
    words = {"code": "SIGN_ERROR", "message": told, "error": {"type": "api_error", "code": "x", "message": told}}
    return web.json_response(words | {"key": told, "state": told, "ref": told}, status=401)


ECHOES: dict[str, Echo] = {
    "401, in words": _in_words,
    "200, in words": lambda request: web.json_response(json.loads(_in_words(request).text or ""), status=200),
    "401, every header": lambda request: web.json_response(dict(request.headers), status=401),
    "HTML": lambda request: web.Response(text=f"<h1>{request.headers.get('Authorization')}</h1>", status=403),
    "another address": lambda request: web.Response(
        status=307, headers={"Location": f"http://127.0.0.1:9/?{request.headers.get('Authorization', '')}"}
    ),
    "a broken line": lambda request: web.Response(
        text="x", headers={"Content-Encoding": "gzip", "X-Was": request.headers.get("Authorization", "")}
    ),
}


@asynccontextmanager
async def serving(echo: Echo) -> AsyncIterator[str]:
    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        return echo(request)

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("what", ECHOES)
async def test_a_provider_that_quotes_what_we_proved_ourselves_by_is_not_quoted(what: str, tmp_path: Path) -> None:
    async with serving(ECHOES[what]) as url:
        for name in PROVIDERS:
            one = account(name, tmp_path, url)
            provider = open_provider(one)
            ref = {STRIPE: "cus_1:seti_1:pm_1", WECHAT: wechatpay_double.OPENID}.get(name, "2088")
            hold = HoldRef("H0LD", alipay_double.ORDER_NO if name == ALIPAY else "1")
            currency = "EUR" if name == STRIPE else "CNY"
            request = DebitRequest(
                "K3Y", AgreementRef("AG", ref), 1234, currency, "x", None if name == STRIPE else hold
            )
            try:
                said = repr([await provider.check(), await provider.debit(request)])
            finally:
                await provider.close()
            for secret in secrets_of(one).values():
                assert not pieces(said, secret), (name, said)
