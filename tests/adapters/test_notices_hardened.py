"""Every provider's notifications against the same attacks: changed anywhere, signed by another key or by none, by a
weaker algorithm, replayed, and brought to another provider's account."""

from __future__ import annotations

import hmac
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

import alipay_double
import pytest
import stripe_double
import wechatpay_double
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from service.adapters.providers import open_provider
from service.adapters.providers.port import BadNotification, MerchantAccount, Notification, Provider

NOW = datetime.now(UTC)
NOWHERE = "http://127.0.0.1:9"
SECRET = "secret-of-the-tests"  # noqa: S105  The tests' own.
NAMES = ("alipay", "sandbox", "stripe", "wechatpay")
Headers = Mapping[str, str]


class Letter(NamedTuple):
    """A notification as it arrives."""

    headers: Headers
    body: bytes


class Post(NamedTuple):
    """An account, and how its provider writes: `genuine(at)` by its key, `forged` by another one's, `unsigned` by none;
    `weaker` are rightly keyed signatures of another kind. `window`: how old a signature may be, None: as old as it is.
    """

    provider: Provider
    genuine: Callable[[datetime], Letter]
    forged: Letter
    unsigned: Letter
    weaker: dict[str, Letter]
    window: timedelta | None


def read(post: Post, letter: Letter) -> Notification | BadNotification:
    return post.provider.parse_notification(letter.headers, letter.body, NOW)


# ---------------------------------------------------------------- the two with a shared secret


def shared(
    name: str, header: str, body: bytes, secret: str, at: datetime = NOW, *, scheme: str = "v1", by: str = "sha256"
) -> Letter:
    seconds = int(at.timestamp())
    digest = hmac.digest(secret.encode(), b"%d.%s" % (seconds, body), by).hex()
    return Letter({header: f"t={seconds},{scheme}={digest}"}, body)


def keyed(provider: Provider, name: str, header: str, body: bytes) -> Post:
    """Sandbox and Stripe write the same way."""
    return Post(
        provider,
        lambda at: shared(name, header, body, SECRET, at),
        shared(name, header, body, "another"),
        Letter({}, body),
        {
            "v0": shared(name, header, body, SECRET, scheme="v0"),
            "sha1": shared(name, header, body, SECRET, by="sha1"),
            "md5": shared(name, header, body, SECRET, by="md5"),
            "empty": Letter({header: f"t={int(NOW.timestamp())},v1="}, body),
            "an empty secret": shared(name, header, body, ""),
        },
        timedelta(seconds=300),
    )


def sandbox(_directory: Path) -> Post:
    settings = {"api_key": "k", "notify_secret": SECRET}
    provider = open_provider(MerchantAccount(1, "city", "sandbox", NOWHERE, settings))
    debit = {"key": "D1", "ref": "p1", "state": "paid", "currency": "CNY", "amount_minor": 5, "paid_minor": 5}
    body = json.dumps({"id": "n1", "account_id": "city", "about": "debit", "data": debit}).encode()
    return keyed(provider, "sandbox", "farebox-signature", body)


def stripe(_directory: Path) -> Post:
    settings = {"secret_key_env": "STRIPE_KEY", "webhook_secret_env": "STRIPE_WEBHOOK", "currency": "EUR"}
    provider = open_provider(MerchantAccount(1, "cards", "stripe", NOWHERE, settings | {"mode": "test"}))
    intent = stripe_double.intent("succeeded", metadata={"farebox_key": "D1"}, amount_received=1250)
    event = {"id": "evt_1", "object": "event", "type": "payment_intent.succeeded", "livemode": False}
    return keyed(provider, "stripe", "stripe-signature", json.dumps(event | {"data": {"object": intent}}).encode())


# ---------------------------------------------------------------- the two with RSA


def alipay(directory: Path) -> Post:
    account = alipay_double.account_of(NOWHERE, alipay_double.settings_of("zhima", directory))
    genuine = alipay_double.trade_notice()
    form = dict(parse_qsl(genuine.decode()))
    content = "&".join(f"{name}={form[name]}" for name in sorted(form) if name not in ("sign", "sign_type"))

    def signed(signature: bytes, **more: str) -> Letter:
        return Letter({}, urlencode(form | {"sign": b64encode(signature).decode()} | more).encode())

    def by(hashed: hashes.HashAlgorithm, padded: padding.PKCS1v15 | padding.PSS) -> bytes:
        return alipay_double.key_of("alipay").sign(content.encode(), padded, hashed)

    plain, pss = padding.PKCS1v15(), padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    return Post(
        open_provider(account),
        lambda _at: Letter({}, genuine),
        Letter({}, alipay_double.trade_notice(key="other")),
        Letter({}, urlencode({name: text for name, text in form.items() if name != "sign"}).encode()),
        {
            "RSA with SHA-1": signed(by(hashes.SHA1(), plain), sign_type="RSA"),  # noqa: S303  What is to be refused.
            "SHA-1 called RSA2": signed(by(hashes.SHA1(), plain)),  # noqa: S303  What is to be refused.
            "MD5": signed(by(hashes.MD5(), plain), sign_type="MD5"),  # noqa: S303  What is to be refused.
            "PSS": signed(by(hashes.SHA256(), pss)),
            "none": signed(b"", sign_type="none"),
            "the content itself": signed(content.encode()),
        },
        None,  # Its repeats come for 25 hours with the signature of the first.
    )


def wechatpay(directory: Path) -> Post:
    settings = wechatpay_double.settings_of(directory) | wechatpay_double.public_key_mode(directory)
    ours = {"mchid": wechatpay_double.MCHID, "appid": wechatpay_double.APPID, "out_refund_no": "R1"}
    body = wechatpay_double.notice("REFUND.SUCCESS", ours | {"refund_status": "SUCCESS"})
    clear = json.loads(body) | {"resource": {"algorithm": "none", "nonce": "n" * 12, "associated_data": "payscore"}}
    clear["resource"]["ciphertext"] = b64encode(json.dumps(ours).encode()).decode()

    def sealed(signer: str, content: bytes, more: Headers | None = None, at: datetime = NOW) -> Letter:
        headers = {**wechatpay_double.sealed_headers(signer, content, at), **(more or {})}
        return Letter({name.lower(): text for name, text in headers.items()}, content)

    at, nonce = str(int(NOW.timestamp())), "n0nce"
    content = f"{at}\n{nonce}\n{body.decode()}\n".encode()
    weak = wechatpay_double.key_of("public").sign(content, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303  What is to be refused.
    sha1 = {"Wechatpay-Signature": b64encode(weak).decode()}
    forged = sealed("other", body, {"Wechatpay-Serial": wechatpay_double.serial_of("public")})
    return Post(
        open_provider(wechatpay_double.account_of(NOWHERE, settings)),
        lambda moment: sealed("public", body, at=moment),
        forged,
        Letter({name: text for name, text in forged.headers.items() if name != "wechatpay-signature"}, body),
        {
            "SHA-1": sealed("public", body, sha1),
            "SHA-1 by name": sealed("public", body, sha1 | {"Wechatpay-Signature-Type": "WECHATPAY2-SHA1-RSA2048"}),
            "SM2 by name": sealed("public", body, {"Wechatpay-Signature-Type": "WECHATPAY2-SM2-WITH-SM3"}),
            "an envelope in the clear": sealed("public", json.dumps(clear).encode()),
            "another APIv3 key": sealed("public", wechatpay_double.notice("REFUND.SUCCESS", ours, key="x" * 32)),
        },
        timedelta(seconds=300),
    )


# ---------------------------------------------------------------- the attacks


@pytest.fixture
async def posts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, Post]]:
    monkeypatch.setenv("STRIPE_KEY", "sk_test_1")
    monkeypatch.setenv("STRIPE_WEBHOOK", SECRET)
    async with AsyncExitStack() as stack:
        made: dict[str, Post] = {}
        for name, make in zip(NAMES, (alipay, sandbox, stripe, wechatpay), strict=True):
            (tmp_path / name).mkdir()
            made[name] = make(tmp_path / name)
            stack.push_async_callback(made[name].provider.close)
        yield made


def refused(told: Any) -> bool:
    """Not believed, and not acknowledged: the provider, if it was he, sends it again."""
    return isinstance(told, BadNotification) and told.ack.status >= 400


@pytest.mark.parametrize("name", NAMES)
async def test_a_notification_of_a_wrong_key_of_none_or_of_a_weaker_kind_is_refused(
    posts: dict[str, Post], name: str
) -> None:
    post = posts[name]
    assert isinstance(read(post, post.genuine(NOW)), Notification)
    for kind, letter in {"forged": post.forged, "unsigned": post.unsigned, **post.weaker}.items():
        assert refused(read(post, letter)), kind


@pytest.mark.parametrize("name", NAMES)
async def test_a_change_at_any_place_is_refused_or_changes_nothing(posts: dict[str, Post], name: str) -> None:
    """What is not signed (Alipay's sign_type, bits that base64 leaves over) may change; what is believed may not."""
    post = posts[name]
    letter = post.genuine(NOW)
    believed, changed = read(post, letter), 0
    for place in range(len(letter.body)):
        spoilt = bytearray(letter.body)
        spoilt[place] ^= 1
        told = read(post, Letter(letter.headers, bytes(spoilt)))
        changed += refused(told)
        assert refused(told) or told == believed, f"byte {place} of the body"
    for header, text in letter.headers.items():
        for place in range(len(text)):
            other = text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :]
            told = read(post, Letter({**letter.headers, header: other}, letter.body))
            assert refused(told) or told == believed, f"character {place} of {header}"
    assert changed > 0.9 * len(letter.body)
    for body in (b"", letter.body[:-1], letter.body + b"&", letter.body + letter.body, b" " + letter.body):
        told = read(post, Letter(letter.headers, body))
        assert refused(told) or told == believed


@pytest.mark.parametrize("name", NAMES)
async def test_a_replay_is_refused_when_it_is_old_and_else_has_the_id_of_the_first(
    posts: dict[str, Post], name: str
) -> None:
    """The same id is known again (notification, and what it says is so already: tests/web/test_notifications.py)."""
    post = posts[name]
    assert read(post, post.genuine(NOW)) == read(post, post.genuine(NOW))
    if post.window is not None:
        for late in (post.window + timedelta(seconds=2), timedelta(days=400)):
            assert refused(read(post, post.genuine(NOW - late)))
            assert refused(read(post, post.genuine(NOW + late)))


@pytest.mark.parametrize("name", NAMES)
async def test_another_provider_s_notification_is_refused(posts: dict[str, Post], name: str) -> None:
    for other in NAMES:
        if other != name:
            assert refused(read(posts[name], posts[other].genuine(NOW))), other


@pytest.mark.parametrize("name", NAMES)
async def test_what_a_genuine_notification_calls_itself_is_one_line_of_its_refusal(
    posts: dict[str, Post], name: str
) -> None:
    odd = "agreement\n\x1b[2J" * 40
    match name:
        case "alipay":
            letter = Letter({}, alipay_double.trade_notice(notify_type=odd))
        case "wechatpay":
            body = wechatpay_double.notice(odd, {"mchid": wechatpay_double.MCHID})
            sealed = wechatpay_double.sealed_headers("public", body, NOW)
            letter = Letter({name.lower(): text for name, text in sealed.items()}, body)
        case _:
            told = json.loads(posts[name].genuine(NOW).body)
            body = json.dumps(told | {"about" if name == "sandbox" else "type": odd}).encode()
            letter = shared(name, "farebox-signature" if name == "sandbox" else "stripe-signature", body, SECRET)
    refusal = read(posts[name], letter)
    assert isinstance(refusal, BadNotification)
    assert "agreement" in refusal.reason and refusal.reason.isprintable() and len(refusal.reason) < 250
