"""WeChat Pay on loopback: it verifies what it is sent and replays canned answers, signed with keys of the tests."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
from aiohttp import web
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from service.adapters.clock import Clock, machine_now
from service.adapters.providers import open_provider
from service.adapters.providers.port import AgreementRef, DebitItem, DebitRef, DebitRequest, HoldRef, MerchantAccount
from service.adapters.providers.wechatpay import WechatPayProvider

MCHID, APPID, SERVICE_ID, OPENID = (
    "1900007291",
    "wxd678efh567hg6787",
    "2002000000000558128851361561536",
    "oUpF8uMuAJO_M2",
)
API_KEY, API_V2_KEY = "k" * 32, "v" * 32
PUBLIC_KEY_ID = "PUB_KEY_ID_0119000072912026112200339900000001"
STARTED, ENDED = datetime(2026, 11, 22, 9, 40, tzinfo=UTC), datetime(2026, 11, 22, 10, tzinfo=UTC)
AGREEMENT, HOLD = AgreementRef("AG", OPENID), HoldRef("H0LD", "15646546545165651651")
ITEMS = (DebitItem("per_min", 1500, "20 min × 0.75"), DebitItem("goodwill", -266))
REQUEST = DebitRequest("K3Y", AGREEMENT, 1234, "CNY", "Ride 7", HOLD, None, 1, STARTED, ENDED, ITEMS)
REF = DebitRef("K3Y", 1234, "CNY", None, AGREEMENT, HOLD)
ORDERS, ORDER = "/v3/payscore/serviceorder", "/v3/payscore/serviceorder/H0LD"
CERTIFICATES = "/v3/certificates"
AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
NAMED = {"appid": APPID, "service_id": SERVICE_ID}
PAYING = {"state": "DOING", "state_description": "MCH_COMPLETE", "total_amount": 1234}
DETAIL = {"seq": 1, "amount": 1234, "paid_type": "NEWTON", "transaction_id": "4200", "paid_time": "20261122181000"}
How = Literal["signed", "unsigned", "forged", "html", "truncated", "old", "error", "unknown_key"]
_HEADER = re.compile(r'(\w+)="([^"]*)"')


@cache
def key_of(name: str) -> rsa.RSAPrivateKey:
    """A key by what it is called in a test; the same one each time."""
    return rsa.generate_private_key(65537, 2048)


def private_pem(name: str) -> str:
    return key_of(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(name: str) -> str:
    return key_of(name).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@cache
def certificate_of(name: str, *, days: int = 30) -> x509.Certificate:
    """A certificate of a test's key."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    draft = x509.CertificateBuilder(subject, subject, key_of(name).public_key(), x509.random_serial_number())
    dated = draft.not_valid_before(now - timedelta(days=60)).not_valid_after(now + timedelta(days=days))
    return dated.sign(key_of(name), hashes.SHA256())


def certificate_pem(name: str) -> str:
    return certificate_of(name).public_bytes(Encoding.PEM).decode()


def serial_of(name: str) -> str:
    return PUBLIC_KEY_ID if name == "public" else f"{certificate_of(name).serial_number:X}"


def signature_of(name: str, content: str) -> str:
    return b64encode(key_of(name).sign(content.encode(), padding.PKCS1v15(), hashes.SHA256())).decode()


def sealed_headers(name: str, body: bytes, at: datetime, serial: str | None = None) -> dict[str, str]:
    """The headers of an answer or a notification that `name` signs."""
    timestamp, nonce = str(int(at.timestamp())), "n0nce"
    return {
        "Wechatpay-Timestamp": timestamp,
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Serial": serial or serial_of(name),
        "Wechatpay-Signature": signature_of(name, f"{timestamp}\n{nonce}\n{body.decode()}\n"),
        "Wechatpay-Signature-Type": "WECHATPAY2-SHA256-RSA2048",
    }


def encrypted(content: bytes, key: str = API_KEY, associated: str = "") -> dict[str, str]:
    """An AEAD_AES_256_GCM envelope."""
    sealed = AESGCM(key.encode()).encrypt(b"n" * 12, content, associated.encode())
    envelope = {"algorithm": "AEAD_AES_256_GCM", "nonce": "n" * 12, "ciphertext": b64encode(sealed).decode()}
    return envelope | ({"associated_data": associated} if associated else {})


def notice(event: str, resource: dict[str, Any], /, *, key: str = API_KEY, **more: Any) -> bytes:
    """A notification's body."""
    content = {"id": "n1", "event_type": event, "resource_type": "encrypt-resource", "summary": ""}
    content["create_time"] = "2026-11-22T18:00:00+08:00"
    sealed = encrypted(json.dumps(resource).encode(), key, "payscore")
    return json.dumps(content | {"resource": sealed | {"original_type": "payscore"}} | more).encode()


def paid(*details: dict[str, Any], state: str = "DONE", paying: int = 0, total: int = 1234) -> dict[str, Any]:
    """An order of which this was paid."""
    amount = sum(detail["amount"] for detail in details)
    got = {"state": "USER_PAYING" if paying else "USER_PAID", "paid_amount": amount, "paying_amount": paying}
    order = {"state": state, "state_description": "MCH_COMPLETE", "total_amount": total}
    return order | {"collection": got | {"total_amount": total, "details": list(details)}}


class Canned(msgspec.Struct):
    """One answer: its status, its JSON, and how it comes."""

    content: dict[str, Any] | None
    status: int = 200
    how: How = "signed"
    number: int = 0


class Double:
    """What was asked, and what is answered: by path, in turn; the last one stays."""

    def __init__(self) -> None:
        self.url = ""
        self.signers = ["platform"]
        self.certified = ["platform"]
        self.api_key = API_KEY
        self.merchant = "merchant"
        self.asked: list[tuple[str, str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: dict[str, list[Canned]] = defaultdict(list)
        self.files: dict[str, bytes] = {}

    def says(self, path: str, *answers: Canned | dict[str, Any]) -> None:
        """What a path is answered from now on; bare content is a success, signed."""
        self.answers[path] = [a if isinstance(a, Canned) else Canned(a) for a in answers]

    def refuses(
        self, path: str, code: str, status: int = 400, number: int = 0, how: How = "signed", message: str = "no"
    ) -> None:
        self.says(path, Canned({"code": code, "message": message}, status, how, number))

    def order(self, **more: Any) -> None:
        """How the order stands from now on."""
        order = {"out_order_no": "H0LD", "order_id": HOLD.provider_ref, "risk_fund": {"name": "X", "amount": 10_000}}
        self.says(ORDERS, order | more)

    def last(self, path: str) -> Any:
        """The content of the last call of a path."""
        return next(content for _, asked, content in reversed(self.asked) if asked == path)

    def paths(self) -> list[str]:
        """What was asked, in order."""
        return [path for _, path, _ in self.asked]

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        fields = dict(_HEADER.findall(request.headers["Authorization"]))
        told = (request.method, request.raw_path, fields["timestamp"], fields["nonce_str"], body.decode())
        content = "".join(f"{line}\n" for line in told)
        try:
            public = key_of(self.merchant).public_key()
            public.verify(b64decode(fields["signature"]), content.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return self._sealed(Canned({"code": "SIGN_ERROR", "message": "no"}, 401, "unsigned"))
        self.asked.append((request.method, request.path, json.loads(body) if body else dict(request.query)))
        self.headers.append(dict(request.headers))
        if request.path in self.files:
            return web.Response(body=self.files[request.path])
        known = self.answers[request.path]
        if request.path == CERTIFICATES and not known:
            return self._certificates()
        return self._sealed(known.pop(0) if len(known) > 1 else known[0])

    def _certificates(self) -> web.Response:
        listed = [
            {
                "serial_no": serial_of(name),
                "effective_time": "2026-01-01T00:00:00+08:00",
                "expire_time": "2027-01-01T00:00:00+08:00",
                "encrypt_certificate": encrypted(certificate_pem(name).encode(), self.api_key, "certificate"),
            }
            for name in self.certified
        ]
        return self._sealed(Canned({"data": listed}))

    def _sealed(self, canned: Canned) -> web.Response:
        body = b"" if canned.content is None else json.dumps(canned.content, ensure_ascii=False).encode()
        signer = self.signers.pop(0) if len(self.signers) > 1 else self.signers[0]
        at = datetime.now(UTC) - timedelta(minutes=6 if canned.how == "old" else 0)
        serial = "ABCDEF" if canned.how == "unknown_key" else serial_of(signer)
        headers = sealed_headers("other" if canned.how == "forged" else signer, body, at, serial)
        headers["Request-ID"] = f"08F78BB5AF0610D302-{canned.number}" if canned.number else "08F78BB5AF0610D302-0"
        match canned.how:
            case "unsigned":
                headers = {"Request-ID": headers["Request-ID"]}
            case "html":
                body = b"<html><h1>502 Bad Gateway</h1></html>"
            case "truncated":
                body = body[: len(body) // 2]
            case "error":
                return web.Response(status=500, body=b'{"code":"SYSTEM_ERROR","message":"try again"}')
        kind = "application/json" if canned.status != 204 else "application/octet-stream"
        return web.Response(status=canned.status, body=body, headers=headers, content_type=kind)


@asynccontextmanager
async def double() -> AsyncIterator[Double]:
    """WeChat Pay, answering as it is told."""
    it = Double()
    runner = web.ServerRunner(web.Server(it.answer, access_log=None))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        it.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield it
    finally:
        await runner.cleanup()


def settings_of(directory: Path, **more: Any) -> dict[str, Any]:
    """An account's settings, its secrets in files of `directory`; a setting that is None is left out."""
    for name, text in {"merchant.pem": private_pem("merchant"), "v3": API_KEY, "v2": API_V2_KEY}.items():
        (directory / name).write_text(text)
    (directory / "public.pem").write_text(public_pem("public"))
    settings: dict[str, Any] = {
        "mchid": MCHID,
        "appid": APPID,
        "service_id": SERVICE_ID,
        "merchant_serial_no": "1DDE55AD98ED71D6EDD4A4A16996DE7B47773A8C",
        "notify_url": "https://example.test/notify",
        "service_introduction": "共享单车骑行",
        "need_user_confirm": False,
        "merchant_private_key_file": str(directory / "merchant.pem"),
        "api_v3_key_file": str(directory / "v3"),
        "api_v2_key_file": str(directory / "v2"),
        "timeout_s": 5.0,
    }
    return {name: value for name, value in (settings | more).items() if value is not None}


def public_key_mode(directory: Path) -> dict[str, Any]:
    """The settings of public-key mode."""
    return {"public_key_id": PUBLIC_KEY_ID, "wechatpay_public_key_file": str(directory / "public.pem")}


def account_of(url: str, settings: dict[str, Any]) -> MerchantAccount:
    return MerchantAccount(1, "city", "wechatpay", url, settings)


@asynccontextmanager
async def provider_at(url: str, settings: dict[str, Any], now: Clock = machine_now) -> AsyncIterator[WechatPayProvider]:
    """An adapter that is closed again."""
    provider = open_provider(account_of(url, settings), now=now)
    assert isinstance(provider, WechatPayProvider)
    try:
        yield provider
    finally:
        await provider.close()
